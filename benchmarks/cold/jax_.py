"""JAX from a cold process to 98 % on MNIST's test images: ``python benchmarks/cold/jax_.py FOLDER``.

FOLDER holds MNIST's IDX files.  784-512-10 with ReLU, batches of 128 of all 60,000 training images, and Adam; the
learning rate falls from epoch to epoch.  An epoch is one jitted call, a scan over its batches.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from mnist import load

BATCH_SIZE = 128

X, y, X_test, y_test = map(jnp.asarray, load(sys.argv[1]))
generator = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)


def draw(n_in, n_out):
    return jnp.asarray(generator.normal(0, np.sqrt(2 / n_in), (n_in, n_out)), jnp.float32), jnp.zeros(n_out)


def logits(layers, X):
    (W1, b1), (W2, b2) = layers
    return jax.nn.relu(X @ W1 + b1) @ W2 + b2


def loss(layers, X, y):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(layers, X)), y[:, None], axis=1).mean()


def train_epoch(state, X, y, order, learning_rate):
    def adam(state, batch):
        layers, mean, square, step = state
        gradient = jax.grad(loss)(layers, X[batch], y[batch])
        step = step + 1
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, square, gradient)
        rate, correction = learning_rate / (1 - 0.9**step), 1 / (1 - 0.999**step)
        layers = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(correction * v) + 1e-8), layers, mean, square)
        return (layers, mean, square, step), None

    return jax.lax.scan(adam, state, order)[0]


train_epoch = jax.jit(train_epoch, donate_argnums=0)
wrong = jax.jit(lambda layers: (logits(layers, X_test).argmax(axis=1) != y_test).mean())

layers = [draw(784, 512), draw(512, 10)]
state = (layers, jax.tree.map(jnp.zeros_like, layers), jax.tree.map(jnp.zeros_like, layers), 0.0)
n_batches = len(X) // BATCH_SIZE
for epoch in range(1, 21):
    order = generator.permutation(len(X))[: n_batches * BATCH_SIZE].reshape(n_batches, BATCH_SIZE)
    state = train_epoch(state, X, y, order, 0.004 * 0.3 ** (epoch - 1))
    error = float(wrong(state[0]))
    print(f"{epoch} epochs, {100 * error:.2f} % error")
    if error <= 0.02:
        break
