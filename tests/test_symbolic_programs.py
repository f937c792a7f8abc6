"""Programs in Theano's notation give what the genuine Theano 1.0.5 gave: values, types, gradients, and steps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import fastnn.symbolic as theano
from fastnn.symbolic import function

_spec = importlib.util.spec_from_file_location("running", Path(__file__).parent / "golden" / "programs" / "running.py")
running = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(running)

PROGRAMS, TRAINING = running.read(), running.read(running.TRAINING)


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("program", PROGRAMS, ids=[program["name"] for program in PROGRAMS])
def test_program_gives_theanos_results(program, mode):
    # From the third call with the same shapes on, functions go by a plan.
    with np.errstate(all="ignore"):
        found, variables = running.run(program, theano, calls=3, mode=mode)
    wanted = program["results"]
    assert running.differences(program, found, wanted) == []
    for name, (dtype, shape, _) in wanted["values"].items():
        assert (variables[name].dtype, variables[name].ndim) == (dtype, len(shape))


@pytest.mark.parametrize("mode", ["FAST_RUN", "FAST_COMPILE"])
@pytest.mark.parametrize("program", TRAINING, ids=[program["name"] for program in TRAINING])
def test_network_takes_theanos_steps(program, mode, monkeypatch):
    made = []

    def noted(*args, **options):
        made.append(function(*args, **options))
        return made[-1]

    monkeypatch.setattr(theano, "function", noted)
    found, _ = running.run(program, theano, mode=mode)
    assert running.differences(program, found, program["results"]) == []
    assert made[-1].recognised == (mode == "FAST_RUN")
