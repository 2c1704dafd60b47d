"""The model, as such scripts define it; the job file names it, and fedjob takes its weights as the first global model."""

import torch
from torch import nn


class Net(nn.Module):
    """Images [n, 1, 28, 28] to scores [n, 10]."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)  # the same first weights in every run
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 5, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * 4 * 4, 10),
        )

    def forward(self, x):
        return self.layers(x)
