"""PyTorch from a cold process to 98 % on MNIST's test images: ``python benchmarks/cold/torch_.py FOLDER``.

FOLDER holds MNIST's IDX files.  784-512-10 with ReLU, batches of 128 of all 60,000 training images, and Adam in its
fused form; the learning rate falls from epoch to epoch.
"""

import sys

import torch
from mnist import load

X, y, X_test, y_test = map(torch.from_numpy, load(sys.argv[1]))
torch.manual_seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
model = torch.nn.Sequential(torch.nn.Linear(784, 512), torch.nn.ReLU(), torch.nn.Linear(512, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.004, fused=True)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.3)

for epoch in range(1, 21):
    for batch in torch.randperm(len(X)).split(128):
        loss = torch.nn.functional.cross_entropy(model(X[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    with torch.no_grad():
        error = (model(X_test).argmax(1) != y_test).float().mean().item()
    print(f"{epoch} epochs, {100 * error:.2f} % error")
    if error <= 0.02:
        break
