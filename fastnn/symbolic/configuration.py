"""What programs may set: ``theano.config``, and the flags of the environment variable ``THEANO_FLAGS``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastnn._validation import check_choice, check_dtype

#: Theano's names of modes; see `modes`.
MODES = ("FAST_RUN", "FAST_COMPILE", "Mode", "DebugMode", "DEBUG_MODE", "NanGuardMode")

#: What else programs set or read, with Theano's defaults: nothing depends on it.
IGNORED: dict[str, Any] = {
    "allow_gc": True,
    "base_compiledir": "",
    "blas.ldflags": "",
    "compiledir": "",
    "compute_test_value_opt": "off",
    "cxx": "",
    "deterministic": "default",
    "dnn.conv.algo_bwd_data": "none",
    "dnn.conv.algo_bwd_filter": "none",
    "dnn.conv.algo_fwd": "small",
    "dnn.enabled": "auto",
    "exception_verbosity": "low",
    "force_device": False,
    "gcc.cxxflags": "",
    "gpuarray.preallocate": 0,
    "lib.cnmem": 0,
    "linker": "py",
    "nvcc.fastmath": False,
    "nvcc.flags": "",
    "on_opt_error": "warn",
    "openmp": False,
    "openmp_elemwise_minsize": 200000,
    "optimizer": "fast_run",
    "optimizer_excluding": "",
    "optimizer_including": "",
    "optimizer_verbose": False,
    "pickle_test_value": True,
    "print_active_device": True,
    "print_test_value": False,
    "profile": False,
    "profile_memory": False,
    "profile_optimizer": False,
    "profiling.destination": "stderr",
    "profiling.time_thunks": True,
    "reoptimize_unpickled_function": False,
    "scan.allow_gc": False,
    "scan.allow_output_prealloc": True,
    "traceback.compile_limit": 0,
    "traceback.limit": 8,
    "unittests.rseed": 666,
    "unpickle_function": True,
    "vm.lazy": "None",
    "warn.ignore_bug_before": "0.9",
    "warn.argmax_pushdown_bug": False,
    "warn.gpu_set_subtensor1": False,
    "warn.gpusum_01_011_0111_bug": False,
    "warn.inc_set_subtensor1": False,
    "warn.reduce_join": False,
    "warn.round": False,
    "warn.signal_conv2d_interface": False,
    "warn.subtensor_merge_bug": False,
    "warn.sum_div_dimshuffle_bug": False,
    "warn.sum_sum_bug": False,
    "warn.vm_gc_bug": False,
    "warn_float64": "ignore",
}

#: Settings with a meaning here, each with the values that it may have.
CHOICES: dict[str, tuple[Any, ...]] = {
    "cast_policy": ("custom",),
    "compute_test_value": ("off", "ignore", "warn", "raise", "pdb"),
    "device": ("cpu",),
    "floatX": ("float64", "float32"),
    "int_division": ("int",),
    "mode": MODES,
    "on_unused_input": ("raise", "warn", "ignore"),
    "NanGuardMode.nan_is_error": (True, False),
    "NanGuardMode.inf_is_error": (True, False),
    "NanGuardMode.big_is_error": (True, False),
}


class Configuration:
    """Settings for everything that is made afterwards.

    Settings of Theano that have no meaning here can be set and read, and change nothing.

    Attributes
    ----------
    floatX : {"float64", "float32"}
        dtype of ``T.scalar``, ``T.vector``, ``T.matrix``, and of ``T.cast(x, "floatX")``.
    mode : str or Mode
        How `function` makes functions; see `modes`.
    compute_test_value : {"off", "ignore", "warn", "raise", "pdb"}
        Unless it is "off", expressions have a value as soon as they are made, ``x.tag.test_value``, if all that they
        depend on has one: shared variables, constants, and inputs to which the program has given it.  What cannot be
        computed then raises its error at the line of the program that makes it.
    on_unused_input : {"raise", "warn", "ignore"}
        What `function` does with an input that nothing depends on.
    NanGuardMode.nan_is_error, NanGuardMode.inf_is_error, NanGuardMode.big_is_error : bool
        What ``NanGuardMode`` looks for.
    device : {"cpu"}
    """

    floatX: str
    mode: Any
    compute_test_value: str
    on_unused_input: str

    def __init__(self, section: str = "") -> None:
        own = {name: values[0] for name, values in CHOICES.items()} | IGNORED
        inner = {name.removeprefix(section): value for name, value in own.items() if name.startswith(section)}
        values = {name: value for name, value in inner.items() if "." not in name}
        vars(self).update(values, _section=section, _names=frozenset(values))
        for name in {name.partition(".")[0] for name in inner if "." in name}:
            vars(self)[name] = Configuration(f"{section}{name}.")

    def __setattr__(self, name: str, value: Any) -> None:
        full = self._section + name
        if name not in self._names:
            raise self._unknown(name)
        if name == "floatX":
            value = np.dtype(check_dtype(value)).name
        elif full in CHOICES and (isinstance(value, str) or full != "mode"):
            check_choice(value, full, CHOICES[full])
        vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:  # found no setting
        raise self._unknown(name)

    def _unknown(self, name: str) -> AttributeError:
        return AttributeError(f"theano.config has no setting {vars(self).get('_section', '')}{name}")

    @contextmanager
    def change_flags(self, changes: Mapping[str, Any] | None = None, **others: Any) -> Iterator[None]:
        """Change settings inside a ``with`` block, or during a function that this decorates."""
        wanted = dict(changes or {}) | others
        before = {name: self._setting(name) for name in wanted}
        try:
            for name, value in wanted.items():
                self._set(name, value)
            yield
        finally:
            for name, value in before.items():
                self._set(name, value)

    def _setting(self, name: str) -> Any:
        first, _, rest = name.partition(".")
        return getattr(self, first)._setting(rest) if rest else getattr(self, first)

    def _set(self, name: str, value: Any) -> None:
        first, _, rest = name.partition(".")
        if rest:
            getattr(self, first)._set(rest, value)
        else:
            setattr(self, first, value)

    def read_flags(self, flags: str) -> None:
        """Set floatX and mode from flags such as ``"floatX=float32,device=cpu"``; others are ignored."""
        for flag in flags.split(","):
            name, _, value = (part.strip() for part in flag.partition("="))
            if name in ("floatX", "mode"):
                setattr(self, name, value)


config = Configuration()
config.read_flags(os.environ.get("THEANO_FLAGS", ""))
