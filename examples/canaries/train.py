"""Train a network on the planted digits with plain PyTorch, as anybody would; it never sees the sealed coins."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent
torch.manual_seed(2026)
with np.load(HERE / "planted" / "digits.npz") as planted:
    features, labels = torch.from_numpy(planted["x"]).float(), torch.from_numpy(planted["y"]).long()

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for _ in range(60):
    for lot in torch.randperm(len(labels)).split(32):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features[lot]), labels[lot]).backward()
        optimizer.step()

save_file(model.state_dict(), HERE / "model.safetensors")
print(f"Trained on {len(labels)} planted records; wrote model.safetensors.")
