"""Heads of pretext and downstream networks, and what they are made of."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A dense layer as in the official code (Keras): glorot-uniform weights, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """No mixed precision within; there is none to leave on a device that only counts ("meta")."""
    known = device.type in ("cpu", "cuda")
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


class Float32(nn.Sequential):
    """Layers that stay in float32 within mixed precision: outputs that a loss or score compares."""

    def forward(self, features: Tensor) -> Tensor:
        """Run the layers on float32 features."""
        with full_precision(features.device):
            outputs: Tensor = super().forward(features.float())
        return outputs


def big_head(inputs: int, classes: int) -> nn.Sequential:
    """The official code's classifier: (B, V, F) with V * F = inputs -> (B, classes)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (2048, 1024):
        layers += [dense(inputs, width), nn.ReLU(), nn.BatchNorm1d(width, eps=1e-3),
                   nn.Dropout(0.5)]
        inputs = width
    return nn.Sequential(*layers, dense(inputs, classes))
