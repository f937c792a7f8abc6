"""Searches over machines: scikit-learn's and joblib's work on Dask, here on two worker processes with a thread each."""

import os
import re
import runpy
from pathlib import Path

import joblib
import numpy as np
import pytest
from dask_tasks import fit, process, threads
from sklearn.model_selection import GridSearchCV

import fastnn
from fastnn.layers import Dense
from fastnn.sklearn import NetworkClassifier

distributed = pytest.importorskip("distributed", reason="needs the extra dask")

# Fits of three epochs end before they converge, in the workers too: scikit-learn hands its filters on.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)  # the environment's would go before Dask's own setting
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import dask_tasks
        before = dict(os.environ)
        with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=":0") as client:
            yield client
        os.environ.clear()  # of what Dask has set for its workers, in this process too
        os.environ.update(before)


def test_a_search_has_the_scores_of_one_without_dask(client, mnist):
    X, y = mnist[0].X[:600], mnist[0].y[:600]
    callbacks = [fastnn.callbacks.EarlyStopping(patience=2)]
    model = NetworkClassifier(max_iter=3, early_stopping=True, callbacks=callbacks, random_state=0)
    grid = {"layers": [(20,), [Dense(40, "relu")]], "optimizer": [fastnn.Adam(0.01), fastnn.SGD(0.1, 0.9)]}
    scoring = {"accuracy": "accuracy", "loss": "neg_log_loss", "process": process, "threads": threads}
    search = GridSearchCV(model, grid, scoring=scoring, refit="loss", cv=3)
    expected = search.fit(X, y)
    with joblib.parallel_config("dask"):
        found = GridSearchCV(**search.get_params(deep=False)).fit(X, y)

    for split in range(3):
        for score in ("accuracy", "loss"):
            name = f"split{split}_test_{score}"
            np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    assert found.best_params_ == expected.best_params_
    np.testing.assert_array_equal(found.predict_proba(X), expected.predict_proba(X))

    workers = set(client.run(os.getpid).values())
    processes = {pid for split in range(3) for pid in found.cv_results_[f"split{split}_test_process"]}
    assert os.getpid() not in workers
    assert processes <= workers
    assert {number for split in range(3) for number in found.cv_results_[f"split{split}_test_threads"]} == {1}


def test_a_trainer_trains_at_a_worker_and_goes_on_here(client, mnist):
    X, y = mnist[0].X[:600], mnist[0].y[:600]
    networks = [fastnn.Network([784, 20, 10], seed=0) for _ in range(2)]
    here, there = (fastnn.Trainer(network, fastnn.Adam(), batch_size=50, seed=0) for network in networks)
    for _ in range(2):
        fit(here, X, y)
        there = client.submit(fit, there, X, y, pure=False).result()
        np.testing.assert_array_equal(there.network.parameters, here.network.parameters)
    fit(here, X, y), fit(there, X, y)
    np.testing.assert_array_equal(there.network.parameters, here.network.parameters)


def test_the_example(client, capsys):
    main = runpy.run_path(str(Path(__file__).parent.parent / "examples" / "search_on_dask.py"))["main"]
    main.__globals__.update(N_ROWS=500, SETTINGS={"hidden_layer_sizes": [(20,), (30,)], "learning_rate_init": [0.01]})
    main(client.scheduler.address)
    first, _, *rows, last = capsys.readouterr().out.splitlines()
    assert first.startswith("6 fits on 2 workers in ")
    errors = [float(re.search(r"([\d.]+) %$", row)[1]) for row in rows]
    assert len(errors) == 2
    assert errors == sorted(errors)
    assert float(re.fullmatch(r"test error of the best: (\d+\.\d\d) %", last)[1]) < 25
