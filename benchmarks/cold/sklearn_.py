"""scikit-learn from a cold process to 98 % on MNIST's test images: ``python benchmarks/cold/sklearn_.py FOLDER``.

FOLDER holds MNIST's IDX files.  784-512-10 with ReLU, batches of 256 of all 60,000 training images, and Adam; the
learning rate falls from epoch to epoch, each of which is a warm start.
"""

import sys
import warnings

from mnist import load
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

warnings.simplefilter("ignore", ConvergenceWarning)  # one epoch a fit is meant

X, y, X_test, y_test = load(sys.argv[1])
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
model = MLPClassifier(512, batch_size=256, alpha=0, max_iter=1, warm_start=True)

for epoch in range(1, 21):
    model.set_params(learning_rate_init=0.005 * 0.5 ** (epoch - 1), random_state=seed + 1000 * epoch)
    model.fit(X, y)
    error = (model.predict(X_test) != y_test).mean()
    print(f"{epoch} epochs, {100 * error:.2f} % error")
    if error <= 0.02:
        break
