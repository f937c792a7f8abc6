"""A search over settings of a network on 10,000 images of MNIST, shared out by Dask to processes of many machines.

    python search_on_dask.py                           # two processes of this machine
    python search_on_dask.py tcp://10.0.0.1:8786       # the workers of the scheduler at this address

It needs the extra ``dask``, and the same versions on all machines.  On each of them, start a worker with one thread for
each processor:

    dask worker tcp://10.0.0.1:8786 --nworkers 8 --nthreads 1

Dask sets OMP_NUM_THREADS=1 for its workers, so each fit has one thread and as many fits as processors are under way.
If there are fewer fits than processors, start fewer workers, and give the fits of each more threads:

    OMP_NUM_THREADS=4 dask worker tcp://10.0.0.1:8786 --nworkers 2 --nthreads 1
"""

import sys
import time

import joblib
from dask.distributed import Client
from sklearn.model_selection import GridSearchCV

import fastnn
from fastnn.sklearn import MLPClassifier

N_ROWS = 10_000
SETTINGS = {"hidden_layer_sizes": [(50,), (100,), (200,)], "learning_rate_init": [0.001, 0.003, 0.01]}


def connect(address: str | None) -> Client:
    """Return a client of the scheduler at an address, or of one of its own with two processes of a thread each."""
    return Client(address) if address else Client(n_workers=2, threads_per_worker=1, dashboard_address=":0")


def main(address: str | None = None) -> None:
    """Search, and print a table of the settings, the best first."""
    train, _, test = fastnn.datasets.load_mnist()
    model = MLPClassifier(batch_size=100, early_stopping=True, n_iter_no_change=3, random_state=0)
    search = GridSearchCV(model, SETTINGS, cv=3)

    with connect(address) as client, joblib.parallel_config("dask"):
        start = time.perf_counter()
        search.fit(train.X[:N_ROWS], train.y[:N_ROWS])
        seconds = time.perf_counter() - start
        n_workers = len(client.ncores())

    results = search.cv_results_
    print(f"{search.n_splits_ * len(results['params'])} fits on {n_workers} workers in {seconds:.1f} s")
    print("units  learning rate  error on the folds")
    for i in results["rank_test_score"].argsort():
        (units,), rate = results["params"][i].values()
        print(f"{units:5}  {rate:13}  {100 - 100 * results['mean_test_score'][i]:.2f} %")
    print(f"test error of the best: {100 - 100 * search.score(test.X, test.y):.2f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
