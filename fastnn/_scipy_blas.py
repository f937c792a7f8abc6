"""SciPy's BLAS for the kernels, without the rest of ``scipy.linalg``, which is slower to import than all of fastnn.

The kernels call functions of ``scipy.linalg.cython_blas``, a compiled module that needs nothing of the package around
it.  An ordinary import would run the whole package first.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

import scipy

NAME = "scipy.linalg.cython_blas"


def _load() -> bool:
    """Put the module where the kernels look for it; return whether that worked."""
    folders = [os.path.join(folder, "linalg") for folder in scipy.__path__]
    spec = PathFinder.find_spec(NAME, folders)
    if spec is None or spec.loader is None:
        return False
    try:
        module = sys.modules[NAME] = module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError:
        sys.modules.pop(NAME, None)
        return False
    return True


@contextmanager
def cython_blas_alone() -> Iterator[None]:
    """Within, ``scipy.linalg.cython_blas`` is importable without its package.

    Afterwards it is removed from ``sys.modules``, so that a later import of ``scipy.linalg`` is complete.  If it cannot
    be loaded alone, the kernels import it with its package.
    """
    loaded = "scipy.linalg" not in sys.modules and _load()
    try:
        yield
    finally:
        if loaded:
            del sys.modules[NAME]


with cython_blas_alone():
    from fastnn.kernels import blas  # noqa: F401
