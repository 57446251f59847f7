"""The contract of a task, pretext or downstream, and the siamese model of a pretext task.

Views have one shape everywhere: (B, V, C, *space), V views a case. Views, targets and outputs are
a Tensor or a tuple of them; the loop in training.py never looks inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

Nested = Any  # a Tensor or a tuple of Tensors
Scores = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """Cases on the device: images (B, C, *space) float32, labels (B, ...) or None, row numbers."""

    images: Tensor
    labels: Tensor | None
    cases: list[int]


class Task(Protocol):
    """What fit() and evaluate() ask of a task."""

    name: str
    labelled: bool  # whether prepare() reads the labels
    monitor: str  # key of the validation figures that chooses the weights; "-loss": the lowest loss

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Nested, Nested]:
        """Make views and targets of a whole batch, on its device.

        ``rng`` is a CPU generator, the only source of chance. ``training=False``: centred patches
        and no augmentation beyond what the task itself needs.
        """

    def loss(self, outputs: Nested, targets: Nested) -> Tensor:
        """Mean loss of the batch: a scalar."""

    def score(self, outputs: Nested, targets: Nested) -> dict[str, Tensor]:
        """Figures of every case of the batch, each (B, ...); evaluate() joins the batches."""

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Turn the figures of all cases into what is reported: sum over cases, divide once."""


@runtime_checkable
class Summed(Protocol):
    """What a task may add if its loss is made of sums over the batch, as Dice is.

    The ranks of a run (RANKS_PER_RUN) then exchange the sums. Of any other task they exchange the
    outputs, whose first axis is the cases: what compares cases belongs in loss(), not in a head.
    """

    def sums(self, outputs: Nested, targets: Nested) -> Tensor:
        """The sums over some cases of a batch."""

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """Mean loss of the batch from its sums: a scalar."""


class Pretext(Task, Protocol):
    """A task that makes its targets from the images alone."""

    batch_size: int  # cases in a training batch; science.md 3
    chance: dict[str, float]  # score of a guess, by the names summarise() gives

    def head(self, widths: Sequence[int]) -> nn.Module:
        """Make the head: features of one case (B, V, sum(widths)) -> outputs."""


class PretextModel(nn.Module):
    """One encoder shared by all views, under the head of a pretext task."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, views: Tensor) -> Nested:
        """Encode every view, (B, V, C, *space), and pass the flattened codes to the head."""
        flat: Tensor = self.encoder(views.flatten(0, 1)).flatten(1)  # (B * V, F)
        return self.head(flat.view(*views.shape[:2], -1))  # (B, V, F) -> outputs


def code_width(encoder: nn.Module, views: Tensor) -> int:
    """Numbers in the flattened code of one view; leaves the encoder as it was."""
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        width: int = encoder(views[:1, 0]).numel()
    encoder.train(training)
    return width


def dense(inputs: int, outputs: int) -> nn.Linear:
    """A dense layer as in the official code (Keras): glorot-uniform weights, zero bias."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def big_head(inputs: int, classes: int) -> nn.Sequential:
    """The official code's classifier: (B, V, F) with V * F = inputs -> (B, classes)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (2048, 1024):
        layers += [dense(inputs, width), nn.ReLU(), nn.BatchNorm1d(width, eps=1e-3),
                   nn.Dropout(0.5)]
        inputs = width
    return nn.Sequential(*layers, dense(inputs, classes))


def means(scores: Scores) -> dict[str, float]:
    """Mean over cases of each figure."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
