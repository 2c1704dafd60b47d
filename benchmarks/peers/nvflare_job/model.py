"""A model of equal tensors of random numbers."""

import torch


class Net(torch.nn.Module):
    def __init__(self, tensors: int, values: int) -> None:
        super().__init__()
        for i in range(tensors):
            self.register_parameter(f"layer{i}", torch.nn.Parameter(torch.rand(values), requires_grad=False))
