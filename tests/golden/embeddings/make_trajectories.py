"""Make trajectories.json: what PyTorch makes of a small network with embeddings, for tests/test_embeddings.py.

    python tests/golden/embeddings/make_trajectories.py

needs PyTorch and takes a second.  All is float64.  Rows have a number, a category with a feature for each of its three
values, and two categories with an embedding: one whose last row is for missing values, one without.  None are NaN here,
but null.  Data and first parameters are drawn by NumPy, rounded to multiples of 1/64, which are exact in float32 too.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

SEED = 5
N_ROWS, BATCH_SIZE, EPOCHS = 40, 16, 3
N_CATEGORIES = 3
EMBEDDINGS = [(8, 3), (11, 2)]  # the first with a row for missing values
SIZES = [1 + N_CATEGORIES + 3 + 2, 5, 3]
SHAPES = [*EMBEDDINGS, (SIZES[0], SIZES[1]), (SIZES[1],), (SIZES[1], SIZES[2]), (SIZES[2],)]
FIRST_NORM = [[0.5, 0.75, 1.0, 1.25, 1.5], [0.0] * SIZES[1], [1.0] * SIZES[1]]

# L2 and AdamW's decay are on weights and embeddings, not on biases and scales.
CASES = {
    "sgd": ("SGD", {"lr": 0.5}, 0.0, False),
    "momentum_l2": ("SGD", {"lr": 0.1, "momentum": 0.9}, 0.01, False),
    "adagrad": ("Adagrad", {"lr": 0.05}, 0.0, False),
    "adam_l2": ("Adam", {"lr": 0.01}, 0.01, False),
    "adamw": ("AdamW", {"lr": 0.01}, 0.1, False),
    "sgd_normalised": ("SGD", {"lr": 0.5}, 0.0, True),
    "adam_normalised": ("Adam", {"lr": 0.01}, 0.0, True),
}


def draw_problem():
    """Rows (number, category, two codes), with missing and unseen codes; classes; first parameters."""
    generator = np.random.RandomState(SEED)
    X = np.zeros((N_ROWS, 4))
    X[:, 0] = np.round(64 * generator.randn(N_ROWS)) / 64
    X[:, 1] = generator.randint(N_CATEGORIES, size=N_ROWS)
    X[:, 2], X[:, 3] = generator.randint(7, size=N_ROWS), generator.randint(-1, 13, size=N_ROWS)
    rows = [[None if k == 2 and i % 5 == 0 else x for k, x in enumerate(row)] for i, row in enumerate(X.tolist())]
    n_parameters = sum(map(math.prod, SHAPES))
    parameters = np.round(64 * 0.5 * generator.randn(n_parameters)) / 64
    return rows, generator.randint(SIZES[-1], size=N_ROWS), parameters


def embedded(embedding, codes):
    """Rows of an embedding; zeros for codes that it has not."""
    codes = torch.tensor(codes)
    seen = (codes >= 0) & (codes < len(embedding))
    return torch.nn.functional.embedding(codes.where(seen, 0), embedding) * seen[:, None]


def features(rows, embeddings):
    """Inputs of the first layer: a clipped number, one-hot categories, and rows of the embeddings."""
    number = torch.tensor([row[0] for row in rows], dtype=torch.float64)[:, None]
    one_hot = torch.nn.functional.one_hot(torch.tensor([int(row[1]) for row in rows]), N_CATEGORIES)
    codes = [[7 if row[2] is None else int(row[2]) for row in rows], [int(row[3]) for row in rows]]
    found = [embedded(*pair) for pair in zip(embeddings, codes, strict=True)]
    return torch.cat([number / torch.sqrt(1 + (number / 3) ** 2), one_hot, *found], dim=1)


def follow(rows, y, parameters, kind, arguments, decay, batch_norm):
    """Train from the given parameters, and return what happened as lists."""
    pieces = torch.tensor(parameters).split([math.prod(shape) for shape in SHAPES])
    tensors = [piece.reshape(shape).clone().requires_grad_() for piece, shape in zip(pieces, SHAPES, strict=True)]
    *embeddings, first, bias, second, last = tensors
    norms, normalise = [], None
    if batch_norm:
        normalise = torch.nn.BatchNorm1d(SIZES[1], dtype=torch.float64)
        normalise.bias = torch.nn.Parameter(bias.detach())
        tensors[3] = bias = normalise.bias
        norms = [normalise.weight, normalise.running_mean, normalise.running_var]
        for tensor, values in zip(norms, FIRST_NORM, strict=True):
            tensor.data[:] = torch.tensor(values)
    groups = [
        {"params": [*embeddings, first, second], "weight_decay": decay},
        {"params": [bias, last, *norms[:1]], "weight_decay": 0.0},
    ]
    stepper = getattr(torch.optim, kind)(groups, **arguments)
    told = []
    for _ in range(EPOCHS):
        for begin in range(0, N_ROWS, BATCH_SIZE):
            here = slice(begin, begin + BATCH_SIZE)
            product = features(rows[here], embeddings) @ first
            hidden = torch.tanh(product + bias if normalise is None else normalise(product))
            loss = torch.nn.functional.cross_entropy(hidden @ second + last, torch.tensor(y[here]))
            told.append(-loss.item())
            stepper.zero_grad()
            loss.backward()
            stepper.step()
    final = torch.cat([tensor.detach().ravel() for tensor in (*tensors, *norms)])
    return {"log_likelihood": told, "parameters": final.tolist()}


def main():
    """Write the file."""
    rows, y, parameters = draw_problem()
    content = {
        "made_with": f"PyTorch {torch.__version__}, NumPy {np.__version__}",
        "batch_size": BATCH_SIZE,
        "epochs": EPOCHS,
        "X": rows,
        "y": y.tolist(),
        "first_parameters": parameters.tolist(),
        "first_norm": FIRST_NORM,
        "cases": {
            name: {"optimizer": [kind, arguments, decay], "batch_norm": batch_norm}
            | follow(rows, y, parameters, kind, arguments, decay, batch_norm)
            for name, (kind, arguments, decay, batch_norm) in CASES.items()
        },
    }
    Path(__file__).with_name("trajectories.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
