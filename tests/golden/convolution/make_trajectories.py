"""Make trajectories.json: how PyTorch trains small convolutional networks, for tests/test_golden_convolution.py.

    python tests/golden/convolution/make_trajectories.py

needs PyTorch and takes a second.  All is float64.  Images and first parameters are drawn by NumPy, rounded to
multiples of 1/64, which are exact in float32 too, and written into the file with the rest.  Everything in it has
fastnn's axes; PyTorch's are (row, channel, height, width) for images and (filter, channel, height, width) for weights.
"""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

IMAGES = {"grey": (8, 7, 1), "colour": (9, 9, 3)}
N_ROWS, N_CLASSES, BATCH_SIZE, EPOCHS = 28, 4, 12, 3
# With this seed no number comes near to where it decides: no input of a ReLU to 0, and no largest number of a pooling
# window to the next one.  So rounding, even in float32, does not turn the trajectories.
SEED = 11

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.2}),
    "momentum": ("SGD", {"lr": 0.05, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 0.01}),
}
ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "gelu": functional.gelu}


def conv(filters, kernel_size, stride=(1, 1), padding="valid", **rest):
    """Conv2D in a file."""
    given = {"filters": filters, "kernel_size": kernel_size, "stride": stride, "padding": padding}
    return {"kind": "Conv2D", **given, **rest}


def pool(kind, size, stride):
    """MaxPool2D or AveragePool2D in a file."""
    return {"kind": kind, "size": size, "stride": stride}


def dense(units, **rest):
    """Dense in a file."""
    return {"kind": "Dense", "units": units, **rest}


# The comments give height and width after each layer with maps.
NETWORKS = {
    "valid": {
        "images": "grey",
        "activation": "tanh",
        "layers": [
            conv(3, (3, 3)),  # 6, 5
            pool("MaxPool2D", (2, 2), (2, 2)),  # 3, 2, and a column is left out
            dense(N_CLASSES),
        ],
        "weights": [(3, 3, 1, 3), (18, N_CLASSES)],
    },
    "same_normalised": {
        "images": "colour",
        "activation": "relu",
        "layers": [
            conv(4, (3, 3), padding="same", batch_norm=True),  # 9, 9
            pool("MaxPool2D", (2, 2), (2, 2)),  # 4, 4
            conv(5, (3, 3), (2, 2), "same"),  # 2, 2, with zeros below and to the right only
            dense(6),
            dense(N_CLASSES),
        ],
        "weights": [(3, 3, 3, 4), (3, 3, 4, 5), (20, 6), (6, N_CLASSES)],
    },
    "average": {
        "images": "colour",
        "activation": "gelu",
        "layers": [
            conv(3, (3, 2), (2, 1)),  # 4, 8
            pool("AveragePool2D", (2, 3), (1, 2)),  # 3, 3, and windows overlap
            dense(5, batch_norm=True),
            dense(N_CLASSES),
        ],
        "weights": [(3, 2, 3, 3), (27, 5), (5, N_CLASSES)],
    },
    "global_average": {
        "images": "grey",
        "activation": "gelu",
        "layers": [
            conv(
                4, (4, 2), padding="same"
            ),  # 8, 7, with 1 row of zeros above and 2 below, none to the left and 1 right
            conv(5, (4, 3), (2, 3), "same", batch_norm=True),  # 4, 3
            {"kind": "GlobalAveragePool2D"},
            dense(N_CLASSES),
        ],
        "weights": [(4, 2, 1, 4), (4, 3, 4, 5), (5, N_CLASSES)],
    },
    "overlapping": {
        "images": "colour",
        "activation": "tanh",
        "layers": [
            conv(3, (3, 3), activation="gelu"),  # 7, 7
            pool("MaxPool2D", (3, 3), (2, 2)),  # 3, 3
            conv(4, (2, 1)),  # 2, 3
            dense(N_CLASSES),
        ],
        "weights": [(3, 3, 3, 3), (2, 1, 3, 4), (24, N_CLASSES)],
    },
    "pooled_first": {
        "images": "grey",
        "activation": "relu",
        "layers": [
            pool("AveragePool2D", (2, 1), (2, 1)),  # 4, 7
            conv(6, (3, 3)),  # 2, 5
            pool("MaxPool2D", (1, 2), (1, 3)),  # 2, 2, and a column is between the windows
            dense(N_CLASSES),
        ],
        "weights": [(3, 3, 1, 6), (24, N_CLASSES)],
    },
}
CASES = {
    **{f"{network}_{name}": {"network": network, "optimizer": name} for network in NETWORKS for name in OPTIMIZERS},
    "same_normalised_momentum_l2": {"network": "same_normalised", "optimizer": "momentum", "l2": 0.01},
    "overlapping_adam_l2": {"network": "overlapping", "optimizer": "adam", "l2": 0.01},
}


def draw_parameters(network, generator):
    """First weights and biases of all layers, and scales, running means and variances of normalised ones."""
    weights, biases, norms = [], [], []
    for shape in network["weights"]:
        scale = 64 * math.sqrt(2 / math.prod(shape[:-1]))
        weights.append(as_tensor(np.round(scale * generator.standard_normal(shape)) / 64).requires_grad_())
        biases.append(as_tensor(np.round(16 * generator.standard_normal(shape[-1])) / 64).requires_grad_())
    with_weights = [layer for layer in network["layers"] if layer["kind"] in ("Conv2D", "Dense")]
    for (*_, units), layer in zip(network["weights"], with_weights, strict=True):
        if layer.get("batch_norm"):
            scale = as_tensor(np.round(64 * generator.uniform(-1.5, 1.5, units)) / 64).requires_grad_()
            norms.append((scale, as_tensor(np.zeros(units)), as_tensor(np.ones(units))))
    return weights, biases, norms


def as_tensor(array):
    """Tensor of a NumPy array, float64."""
    return torch.tensor(array, dtype=torch.float64)


def as_vector(weights, biases, norms):
    """All parameters, as the file has them."""
    tensors = itertools.chain(*zip(weights, biases, strict=True), *norms)
    return torch.cat([tensor.detach().ravel() for tensor in tensors]).tolist()


def logits(network, x, weights, biases, norms):
    """Inputs of the softmax, in training, of images x (n, height, width, channels)."""
    weights, biases, norms = iter(weights), iter(biases), iter(norms)
    *_, last = network["layers"]
    for layer in network["layers"]:
        if layer["kind"] not in ("Conv2D", "Dense"):
            x = pooled(layer, x)
            continue
        z = convolved(layer, x, next(weights)) if layer["kind"] == "Conv2D" else x.flatten(1) @ next(weights)
        z = normalised(z, next(biases), *next(norms)) if layer.get("batch_norm") else z + next(biases)
        x = z if layer is last else ACTIVATIONS[layer.get("activation", network["activation"])](z)
    return x


def pooled(layer, x):
    """Output of a layer that pools."""
    if layer["kind"] == "GlobalAveragePool2D":
        return x.mean((1, 2))
    pooling = {"MaxPool2D": functional.max_pool2d, "AveragePool2D": functional.avg_pool2d}[layer["kind"]]
    return pooling(x.movedim(3, 1), layer["size"], layer["stride"]).movedim(1, 3)


def convolved(layer, x, weight):
    """Convolution of images with weight (height, width, channels, filters)."""
    zeros = []  # left, right, top, bottom
    for n, size, stride in zip(x.shape[1:3], layer["kernel_size"], layer["stride"], strict=True):
        total = 0 if layer["padding"] == "valid" else max(0, (math.ceil(n / stride) - 1) * stride + size - n)
        zeros = [total // 2, total - total // 2, *zeros]
    padded = functional.pad(x.movedim(3, 1), zeros)
    return functional.conv2d(padded, weight.permute(3, 2, 0, 1), stride=layer["stride"]).movedim(1, 3)


def normalised(z, bias, scale, mean, variance):
    """Z (..., units) with the mean and variance of the batch, which the running ones follow."""
    rows = functional.batch_norm(z.flatten(0, -2), mean, variance, scale, bias, training=True, momentum=0.1, eps=1e-5)
    return rows.reshape(z.shape)


def follow(images, y, network, optimizer, l2=0.0):
    """Train a network from its first parameters, and return what happened as lists."""
    network = NETWORKS[network]
    X, y = as_tensor(images[network["images"]] / 64), torch.tensor(y)
    weights, biases, norms = parameters = draw_parameters(network, np.random.default_rng(SEED))
    trained = [*biases, *(scale for scale, _, _ in norms)]
    name, arguments = OPTIMIZERS[optimizer]
    groups = [{"params": weights, "weight_decay": l2}, {"params": trained, "weight_decay": 0.0}]
    stepper = getattr(torch.optim, name)(groups, **arguments)
    told = {"log_likelihood": [], "objective": [], "gradient_norm": []}
    batches = zip(X.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True)
    for rows, classes in list(batches) * EPOCHS:
        loss = functional.cross_entropy(logits(network, rows, *parameters), classes)
        penalty = l2 / 2 * sum(weight.square().sum() for weight in weights)
        told["log_likelihood"].append(-loss.item())
        told["objective"].append(-(loss + penalty).item())
        stepper.zero_grad()
        loss.backward()
        norm = torch.cat([tensor.grad.ravel() for tensor in (*weights, *trained)]).norm()
        told["gradient_norm"].append(norm.item())
        stepper.step()
    return {**told, "parameters": as_vector(*parameters)}


def main():
    """Write the file."""
    generator = np.random.default_rng(SEED)
    images = {name: generator.integers(-64, 65, (N_ROWS, *shape)) for name, shape in IMAGES.items()}
    y = generator.integers(N_CLASSES, size=N_ROWS)
    content = {
        "made_by": f"make_trajectories.py, PyTorch {torch.__version__}, NumPy {np.__version__}",
        "model": "the layers, the last one dense; softmax, cross-entropy; float64; 'same' has the odd zero at the end",
        "log_likelihood": "minus PyTorch's loss for each batch before its step, a mean over the batch's rows",
        "objective": "the same minus l2 / 2 times the sum of squared weights, biases left out",
        "gradient_norm": "of the log-likelihood before each step, all parameters together",
        "parameters": "each layer's weight, (height, width, channels, filters) or (n_in, n_out), by rows, and bias, "
        "one layer after another; then scale, running mean and running variance of each batch-normalised layer",
        "rows": "64 times the images, each a row by (height, width, channel)",
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "optimizers": OPTIMIZERS,
        "images": {
            name: {"shape": IMAGES[name], "rows": rows.reshape(N_ROWS, -1).tolist()} for name, rows in images.items()
        },
        "y": y.tolist(),
        "networks": {
            name: {**network, "first_parameters": as_vector(*draw_parameters(network, np.random.default_rng(SEED)))}
            for name, network in NETWORKS.items()
        },
        "cases": {name: {**case, **follow(images, y, **case)} for name, case in CASES.items()},
    }
    path = Path(__file__).with_name("trajectories.json")
    path.write_text(json.dumps(content, separators=(",", ":")).replace('},"', '},\n"') + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
