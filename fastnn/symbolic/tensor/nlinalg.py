"""Linear algebra: ``T.nlinalg``."""

from __future__ import annotations

from fastnn.symbolic import ops
from fastnn.symbolic.graph import Operand, Variable, as_variable
from fastnn.symbolic.ops import det, matrix_inverse
from fastnn.symbolic.tensor.basic import diag, diagonal

__all__ = ["alloc_diag", "det", "diag", "extract_diag", "matrix_dot", "matrix_inverse", "trace"]


def trace(X: Operand) -> Variable:
    """Sum of the elements on the main diagonal."""
    return ops.sum_(diagonal(X))


def matrix_dot(*args: Operand) -> Variable:
    """Product of matrices, from the left."""
    found = as_variable(args[0])
    for each in args[1:]:
        found = ops.dot(found, each)
    return found


extract_diag = diagonal
alloc_diag = diag
