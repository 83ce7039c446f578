"""Train a network on scikit-learn's digits with plain PyTorch, as anybody would, and keep what an audit needs.

Each record is trained on or left out by a fair coin, so that the audit can also show an epsilon. Writes next to this
file: `model.safetensors`, `members.npz`, `nonmembers.npz`, `population.npz`.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

HERE = Path(__file__).parent
EPOCHS, BATCH_SIZE, LEARNING_RATE, MOMENTUM = 60, 32, 0.05, 0.9

rng = np.random.default_rng(2026)
torch.manual_seed(2026)
digits = load_digits()
x, y = (digits.data / 16).astype(np.float32).reshape(-1, 1, 8, 8), digits.target.astype(np.int64)
order = rng.permutation(len(y))
pool, outside = order[:1500], order[1500:]
coins = rng.random(len(pool)) < 0.5
members, nonmembers = pool[coins], pool[~coins]

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
features, labels = torch.from_numpy(x[members]), torch.from_numpy(y[members])
for _ in range(EPOCHS):
    for lot in torch.randperm(len(members)).split(BATCH_SIZE):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features[lot]), labels[lot]).backward()
        optimizer.step()

save_file(model.state_dict(), HERE / "model.safetensors")
for name, chosen in (("members", members), ("nonmembers", nonmembers), ("population", outside)):
    np.savez(HERE / f"{name}.npz", x=x[chosen], y=y[chosen])
print(
    f"Trained on {len(members)} records, left out {len(nonmembers)}; wrote model.safetensors and the three .npz files."
)
