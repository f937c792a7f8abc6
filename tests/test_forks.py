"""Children that are forked while other threads train or predict, or within a fit: they always work."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")

HEAD = """
    import os, signal, threading, time
    import numpy as np, fastnn
    from fastnn.layers import Conv2D, Dense, MaxPool2D
    from threadpoolctl import threadpool_info

    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((2000, 30)), rng.integers(0, 3, 2000)
    network = fastnn.Network([30, 100, 3])
    expected = network.predict_proba(X)

    def blas_threads():
        return {library["filepath"]: library["num_threads"] for library in threadpool_info()}

    limits = blas_threads()

    def child_is_well(work):
        # Waits for half a minute at most.
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
        for _ in range(3000):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0, status
                return
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("the child hangs")
"""

SCRIPTS = {
    # About one child in five hung, and one in sixty where the other thread trained.
    "while others predict": """
        small, stop = fastnn.Network([30, 20, 3]), threading.Event()

        def predict():
            while not stop.is_set():
                small.predict(X[:64])

        def work():
            np.testing.assert_array_equal(network.predict_proba(X), expected)
            assert blas_threads() == limits, blas_threads()

        threads = [threading.Thread(target=predict) for _ in range(2)]
        [thread.start() for thread in threads]
        try:
            for k in range(40):
                time.sleep(0.001 * (k % 7))
                child_is_well(work)
        finally:
            stop.set()
            [thread.join() for thread in threads]
    """,
    "while others train": """
        trained = fastnn.Network([30, 20, 3])
        optimizers = [fastnn.SGD(0.1), fastnn.LBFGS(), fastnn.Adam()]
        stop = threading.Event()

        def train():
            k = 0
            while not stop.is_set():
                optimizer = optimizers[k % 3]
                batch_size = None if isinstance(optimizer, fastnn.LBFGS) else 20
                fastnn.Trainer(trained, optimizer, batch_size, n_threads=2).fit(X, y, epochs=2)
                k += 1

        def work():
            assert blas_threads() == limits, blas_threads()
            np.testing.assert_array_equal(network.predict_proba(X), expected)
            fastnn.Trainer(trained, n_threads=2).fit(X, y, epochs=1)  # which another thread was training

        thread = threading.Thread(target=train)
        thread.start()
        try:
            for k in range(25):
                time.sleep(0.001 * (k % 7))
                child_is_well(work)
        finally:
            stop.set()
            thread.join()
    """,
    # The engine of the fit was made before the fork, for threads that the child does not have.
    "within a fit": """
        class Fork(fastnn.callbacks.Callback):
            child = None

            def on_epoch(self, fit):
                if len(fit.history) == 1:
                    self.child = os.fork()

        def train(*callbacks):
            net = fastnn.Network(layers, input_shape=shape)
            optimizer = fastnn.LBFGS() if by_lbfgs else fastnn.SGD(0.1, 0.9)
            trainer = fastnn.Trainer(net, optimizer, None if by_lbfgs else 50, n_threads=2, callbacks=callbacks)
            trainer.fit(X, y, epochs=4)
            return net.parameters

        images = [Conv2D(20, 3), MaxPool2D(2), Dense(3)]
        cases = [([30, 100, 3], None, False), ([30, 100, 3], None, True), (images, (6, 5), False)]
        for layers, shape, by_lbfgs in cases:
            plain = train()
            fork = Fork()
            signal.alarm(30)
            equal = np.array_equal(train(fork), plain)
            if fork.child == 0:
                os._exit(0 if equal else 1)
            assert equal
            assert os.waitpid(fork.child, 0)[1] == 0
            assert blas_threads() == limits, blas_threads()
    """,
    "with a compiled function": """
        import fastnn.symbolic as theano
        import fastnn.symbolic.tensor as T

        x, labels = T.dmatrix("x"), T.lvector("y")
        W = theano.shared(np.zeros((30, 100)), "W")
        b = theano.shared(np.zeros(100), "b")
        P = T.nnet.softmax(T.dot(x, W) + b)
        LL = T.mean(T.log(P)[T.arange(P.shape[0]), labels])
        step = theano.function([x, labels], LL, updates=[(p, p + 0.5 * T.grad(LL, p)) for p in (W, b)])
        [step(X, y) for _ in range(4)]

        def work():
            before = W.get_value()
            step(X, y)
            assert np.isfinite(W.get_value()).all()
            assert not np.array_equal(W.get_value(), before)

        child_is_well(work)
    """,
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_children_work(kind, tmp_path):
    script = textwrap.dedent(HEAD) + textwrap.dedent(SCRIPTS[kind])
    command = [sys.executable, "-W", "ignore:.*fork:DeprecationWarning", "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stderr


def test_small_work_leaves_threads_to_later_children(tmp_path):
    # One thread does it, so none is lost in a fork.
    script = """
        import numpy as np, fastnn
        from fastnn.engine.threads import forks

        X, y = np.ones((4, 6)), np.array([0, 1, 2, 0])
        network = fastnn.Network([6, 40, 3])
        network.predict(X[:1])
        trainer = fastnn.Trainer(network, n_threads=4)
        trainer.plan(np.ones((5000, 6)), np.zeros(5000, int))
        trainer.fit(X, y, epochs=1)
        assert not forks.threads_started
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
