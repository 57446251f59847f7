"""Heads of networks and what they are made of; loss and figures of those that label places."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def overlaps(outputs: Tensor, targets: Tensor, *, cross_entropy: bool) -> Tensor:
    """Sums of p t and of p + t of each class: (2, K); then of -log p t, and places: (2, 1).

    Of logits (B, K, *space) and classes (B, *space); sums over batch and space.
    """
    both, total = [], []
    # Class by class: a third of the time of one-hot labels (measured), and no copy of them.
    for label, probability in enumerate(outputs.float().softmax(1).unbind(1)):  # (B, *space)
        truth = targets == label
        both.append((probability * truth).sum())
        total.append(probability.sum() + truth.sum())
    if cross_entropy:
        both.append(F.cross_entropy(outputs.float(), targets.long(), reduction="sum"))
        total.append(both[-1].new_full((), targets.numel()))
    return torch.stack([torch.stack(both), torch.stack(total)])


def dice_and_entropy(sums: Tensor, classes: int) -> Tensor:
    """1 - the mean over classes of soft Dice; and mean cross-entropy where there are its sums."""
    dice = 1 - (2 * sums[0, :classes] / sums[1, :classes].clamp(min=1e-6)).mean()
    return dice + sums[0, classes] / sums[1, classes] if sums.shape[1] > classes else dice


def confusion(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Places of each (truth, predicted) pair of every case: (B, K, K), of classes (B, *space)."""
    kind = torch.uint8 if classes**2 <= 256 else torch.int32  # a quarter of the time (measured)
    pairs = (targets.to(kind) * classes + predicted.to(kind)).flatten(1)  # (B, places)
    table = torch.stack([case.bincount(minlength=classes**2) for case in pairs])
    return table.view(-1, classes, classes)
