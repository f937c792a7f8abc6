"""Make trajectories.json: what PyTorch's optimizers do on a small fixed problem, for tests/test_optimizers.py.

    python tests/golden/optimizers/make_trajectories.py

needs PyTorch and takes a second.  All is float64.  Data and first parameters are drawn by NumPy, rounded to multiples
of 1/64, which are exact in float32 too, and written into the file with the rest.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import torch

SIZES = [6, 5, 3]
N_ROWS, BATCH_SIZE, EPOCHS = 40, 16, 4
SEED = 4

OPTIMIZERS = {
    "sgd": ("SGD", {"lr": 0.5}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "rmsprop": ("RMSprop", {"lr": 0.01}),
    "adagrad": ("Adagrad", {"lr": 0.05}),
    "adam": ("Adam", {"lr": 0.01}),
    "adamw": ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),  # on the weights, not on the biases
}
# Scale, running mean and running variance of the hidden layer, where it is batch-normalised.
FIRST_NORM = [[0.5, 0.75, 1.0, 1.25, 1.5], [0.0] * SIZES[1], [1.0] * SIZES[1]]
# L2 is what PyTorch calls weight_decay, on the weights only; AdamW means something else by it.
WITH_L2 = {f"{name}_l2": {"optimizer": name, "l2": 0.01} for name in OPTIMIZERS if name != "adamw"}
# How long each step of a schedule lasts, and PyTorch's words for it; there are 3 batches an epoch.
SCHEDULES = {
    "step": ("epoch", "StepLR", {"step_size": 2, "gamma": 0.1}),
    "exponential": ("epoch", "ExponentialLR", {"gamma": 0.8}),
    "cosine": ("epoch", "CosineAnnealingLR", {"T_max": 4, "eta_min": 0.001}),
    "warmup": ("epoch", "LinearLR", {"start_factor": 0.25, "total_iters": 3}),
    "exponential_by_batch": ("batch", "ExponentialLR", {"gamma": 0.8 ** (1 / 3)}),
    "cosine_by_batch": ("batch", "CosineAnnealingLR", {"T_max": 12, "eta_min": 0.001}),
    "warmup_by_batch": ("batch", "LinearLR", {"start_factor": 0.25, "total_iters": 9}),
}
# PyTorch keeps the rate out of the velocity, fastnn within: with momentum they agree for constant rates only.
WITH_SCHEDULES = {
    f"{optimizer}_{schedule}": {"optimizer": optimizer, "schedule": schedule}
    for optimizer, schedule in itertools.product(("sgd", "adam", "adamw"), SCHEDULES)
}
CASES = {
    **{name: {"optimizer": name} for name in OPTIMIZERS},
    **WITH_L2,
    **WITH_SCHEDULES,
    "sgd_clipped": {"optimizer": "sgd", "clip_norm": 0.1},
    "sgd_clipped_at_times": {"optimizer": "sgd", "clip_norm": 0.6},
    "adam_clipped": {"optimizer": "adam", "clip_norm": 0.1},
    "nesterov_clipped_l2": {"optimizer": "nesterov", "clip_norm": 0.1, "l2": 0.01},
    "momentum_smoothed": {"optimizer": "momentum", "label_smoothing": 0.1},
    "sgd_normalised": {"optimizer": "sgd", "batch_norm": True},
    "sgd_normalised_l2": {"optimizer": "sgd", "batch_norm": True, "l2": 0.01},
    "nesterov_normalised_clipped": {"optimizer": "nesterov", "batch_norm": True, "clip_norm": 0.1},
    "adam_normalised": {"optimizer": "adam", "batch_norm": True},
    "adamw_normalised": {"optimizer": "adamw", "batch_norm": True},
}


def draw_problem():
    """Rows, half of whose values are 0, classes, and first parameters: each layer's weight (n_in, n_out) and bias."""
    generator = np.random.RandomState(SEED)
    X = generator.randn(N_ROWS, SIZES[0]) * (generator.rand(N_ROWS, SIZES[0]) < 0.5)
    y = generator.randint(SIZES[-1], size=N_ROWS)
    n_parameters = sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(SIZES))
    return np.round(64 * X) / 64, y, np.round(64 * 0.5 * generator.randn(n_parameters)) / 64


def split(parameters):
    """Tensors of each layer's weight (n_in, n_out) and bias (n_out,), from a vector of all in this order."""
    tensors, rest = [], torch.tensor(parameters, dtype=torch.float64)
    for n_in, n_out in itertools.pairwise(SIZES):
        weight, bias, rest = rest.split([n_in * n_out, n_out, len(rest) - (n_in + 1) * n_out])
        tensors += [weight.reshape(n_in, n_out).clone().requires_grad_(), bias.clone().requires_grad_()]
    return tensors


def normalisation(bias):
    """PyTorch's layer with FIRST_NORM, that adds the given bias."""
    layer = torch.nn.BatchNorm1d(SIZES[1], dtype=torch.float64)
    layer.bias = torch.nn.Parameter(bias)
    for tensor, values in zip((layer.weight.data, layer.running_mean, layer.running_var), FIRST_NORM, strict=True):
        tensor[:] = torch.tensor(values)
    return layer


def follow(X, y, parameters, optimizer, schedule=None, l2=0.0, clip_norm=None, label_smoothing=0.0, batch_norm=False):
    """Train from the given parameters, and return what happened as lists."""
    X, y = torch.tensor(X, dtype=torch.float64), torch.tensor(y)
    tensors = split(parameters)
    weights, biases = tensors[::2], tensors[1::2]
    norms = []
    if batch_norm:
        normalise = normalisation(biases[0].detach())
        biases[0] = tensors[1] = normalise.bias
        norms = [normalise.weight, normalise.running_mean, normalise.running_var]
        tensors.append(normalise.weight)
    name, arguments = OPTIMIZERS[optimizer]
    decay = arguments["weight_decay"] if name == "AdamW" else l2
    stepper = getattr(torch.optim, name)(
        [{"params": weights, "weight_decay": decay}, {"params": [*biases, *norms[:1]], "weight_decay": 0.0}],
        **{key: value for key, value in arguments.items() if key != "weight_decay"},
    )
    lasts, scheduler = None, None
    if schedule is not None:
        lasts, name, arguments = SCHEDULES[schedule]
        scheduler = getattr(torch.optim.lr_scheduler, name)(stepper, **arguments)
    told = {"learning_rate": [], "log_likelihood": [], "objective": [], "gradient_norm": []}
    for _ in range(EPOCHS):
        for rows, classes in zip(X.split(BATCH_SIZE), y.split(BATCH_SIZE), strict=True):
            told["learning_rate"].append(stepper.param_groups[0]["lr"])
            hidden = normalise(rows @ weights[0]) if batch_norm else rows @ weights[0] + biases[0]
            logits = torch.tanh(hidden) @ weights[1] + biases[1]
            loss = torch.nn.functional.cross_entropy(logits, classes, label_smoothing=label_smoothing)
            penalty = l2 / 2 * sum(weight.square().sum() for weight in weights)
            told["log_likelihood"].append(-loss.item())
            told["objective"].append(-(loss + penalty).item())
            stepper.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(tensors, np.inf if clip_norm is None else clip_norm)
            told["gradient_norm"].append(norm.item())
            stepper.step()
            if lasts == "batch":
                scheduler.step()
        if lasts == "epoch":
            scheduler.step()
    layers = [tensor for pair in zip(weights, biases, strict=True) for tensor in pair]
    told["parameters"] = torch.cat([tensor.detach().ravel() for tensor in (*layers, *norms)]).tolist()
    return told


def main():
    """Write the file."""
    X, y, parameters = draw_problem()
    content = {
        "made_by": f"make_trajectories.py, PyTorch {torch.__version__}, NumPy {np.__version__}",
        "model": "tanh hidden layer, softmax, cross-entropy; float64",
        "log_likelihood": "minus PyTorch's loss for each batch before its step, a mean over the batch's rows",
        "objective": "the same minus l2 / 2 times the sum of squared weights, biases left out",
        "gradient_norm": "of the log-likelihood, all parameters together, before it is clipped",
        "parameters": "each layer's weight (n_in, n_out) by rows and bias, one layer after another; then, with batch "
        "normalisation, the hidden layer's scale, running mean and running variance",
        "sizes": SIZES,
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "X": X.tolist(),
        "y": y.tolist(),
        "first_parameters": parameters.tolist(),
        "first_norm": FIRST_NORM,
        "optimizers": OPTIMIZERS,
        "schedules": SCHEDULES,
        "cases": {name: {**case, **follow(X, y, parameters, **case)} for name, case in CASES.items()},
    }
    path = Path(__file__).with_name("trajectories.json")
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
