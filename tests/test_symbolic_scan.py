"""Loops of the notation: values and gradients as Theano's, whatever is moved out of them."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

import fastnn.symbolic as theano
import fastnn.symbolic.tensor as T

FOLDER = Path(__file__).parent / "golden" / "scan"
CASES = runpy.run_path(str(FOLDER / "cases.py"))
RESULTS = json.loads((FOLDER / "results.json").read_text())


@pytest.fixture(autouse=True)
def _float64(monkeypatch):
    monkeypatch.setattr(theano.config, "floatX", "float64")


@pytest.mark.parametrize("name", RESULTS)
def test_a_loop_gives_what_theano_does(name):
    calls, updated = CASES["run"](theano, T, name)
    tolerance = 1e-5 if "float32" in name else 1e-11
    for found, wanted in zip(calls, RESULTS[name][0], strict=True):
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(updated, RESULTS[name][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance)
