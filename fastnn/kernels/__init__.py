"""The engine room: compiled kernels.  Their arguments are checked already; see ``fastnn.reference``.

The same source is compiled for several instruction sets: for any processor of the architecture, and on
x86-64 also for AVX2 with FMA (in ``avx2/``) and for AVX-512 (in ``avx512/``).  Importing this package
chooses the best that both the build and the processor have, or the one that the environment variable
FASTNN_INSTRUCTION_SET names, and imports it as ``fastnn.kernels.epoch`` and so on.
"""

import importlib
import os
import sys
from importlib.util import find_spec
from pkgutil import iter_modules

# Wheels bring a copy of OpenMP's runtime each.  Clang's, on these systems, would end a process that has two, for fear
# of parallel regions of one within those of the other, which kernels never begin.  scikit-learn sets the same.
if sys.platform in ("darwin", "win32"):
    os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "True")

try:
    from fastnn.kernels import _cpu
except ImportError as error:
    raise ImportError(
        f"the kernels in {os.path.dirname(__file__)} are not compiled: this is the source folder, not the installed "
        "package. Run Python from another folder, or compile in place: pip install -e ."
    ) from error

VARIABLE = "FASTNN_INSTRUCTION_SET"


def _is_built(name: str) -> bool:
    return name == "baseline" or find_spec(f"{__name__}.{name}.epoch") is not None


def _choose() -> str:
    wanted = os.environ.get(VARIABLE, "").lower()
    if not wanted:
        return AVAILABLE[0]
    if wanted not in AVAILABLE:
        raise ImportError(f"{VARIABLE}={wanted} cannot be had here; this machine and build have {', '.join(AVAILABLE)}")
    return wanted


#: Instruction sets that can be chosen here, best first.
AVAILABLE = [name for name in _cpu.supported() if _is_built(name)]

#: The chosen one.
INSTRUCTION_SET = _choose()

if INSTRUCTION_SET != "baseline":
    for _info in iter_modules(__path__):
        if not _info.ispkg and not _info.name.startswith("_"):
            _module = importlib.import_module(f"{__name__}.{INSTRUCTION_SET}.{_info.name}")
            sys.modules[f"{__name__}.{_info.name}"] = _module
            globals()[_info.name] = _module
