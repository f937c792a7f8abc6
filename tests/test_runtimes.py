"""Other libraries' threads in the process: fits keep their bits beside them, and in forked children."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn.engine import threads

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

SCRIPT = """
import os, sys
import runtimes

fit = runtimes.fits("narrow")
expected = [fit(), fit()]
work = runtimes.PEERS[sys.argv[1]]()
fit = runtimes.fits("narrow")
work()
assert fit() == expected[0]
work()
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(fit() != expected[1])
    assert os.waitpid(child, 0)[1] == 0
assert fit() == expected[1]
work()
"""


@pytest.mark.parametrize("peer", ["sklearn", "torch"])
def test_fits_keep_their_bits_beside_others(peer, tmp_path):
    pytest.importorskip(peer)
    paths = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", SCRIPT, peer], cwd=tmp_path, env=environment, check=True, timeout=120)


@pytest.mark.parametrize("place", ["scipy.libs", "scipy/.dylibs"])
def test_scipys_blas_is_found(place, monkeypatch):
    import threadpoolctl

    class Controller:
        def select(self, user_api=None, filepath=None):
            self.chosen = filepath
            return self

        def info(self):
            return [{"filepath": f"/venv/site-packages/{folder}/libopenblas"} for folder in ("numpy/.dylibs", place)]

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", Controller)
    assert threads._blas.__wrapped__().chosen == [f"/venv/site-packages/{place}/libopenblas"]


@pytest.mark.parametrize(
    ("system", "before", "after"), [("darwin", None, "True"), ("win32", "0", "0"), ("linux", None, None)]
)
def test_clangs_openmp_may_be_there_twice(system, before, after, tmp_path):
    name = "KMP_DUPLICATE_LIB_OK"
    environment = {key: value for key, value in os.environ.items() if key != name} | ({name: before} if before else {})
    script = f"""
import importlib, os, sys
import fastnn
sys.platform = {system!r}
importlib.reload(fastnn.kernels)
print(os.environ.get({name!r}))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(after)
