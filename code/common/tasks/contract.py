"""The contract of a task, pretext or downstream.

Views have one shape everywhere: (B, V, C, *space), V views a case. Views, targets and outputs are
a Tensor or a tuple of them; the loop in training.py never looks inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from common.machine.devices import send

Nested = Any  # a Tensor or a tuple of Tensors
Scores = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """Cases: images as stored, B of (C, *space); labels (B, ...) on the device; row numbers."""

    stored: Sequence[Tensor]  # float16 or uint8, not copied, wherever the cases lie
    labels: Tensor | None
    cases: list[int]
    device: torch.device = torch.device("cpu")

    @cached_property
    def images(self) -> Tensor:
        """All images on the device: (B, C, *space) float32."""
        return self.views(torch.stack(tuple(self.stored)))

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """As views() of a stack of ``parts``; without the stack where they lie on the device."""
        first = parts[0]
        if first.device != self.device:
            return self.views(torch.stack(tuple(parts)))
        values = torch.empty(len(parts), *first.shape, device=first.device)
        for place, part in zip(values, parts, strict=True):
            place.copy_(part)
        return values.div_(255) if first.dtype == torch.uint8 else values

    def views(self, stored: Tensor) -> Tensor:
        """Move what was cut or turned from ``stored`` to the device, as float32."""
        values = send(stored, self.device).float()
        return values.div_(255) if stored.dtype == torch.uint8 else values


class Task(Protocol):
    """What fit() and evaluate() ask of a task."""

    name: str
    labelled: bool  # whether prepare() reads the labels
    monitor: str  # key of the validation figures that chooses the weights; "-loss": the lowest loss

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Nested, Nested]:
        """Make views (float32) and targets of a whole batch, on its device.

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

    batch_size: int  # cases in a training batch
    chance: dict[str, float]  # score of a guess, by the names summarise() gives
    guess: float  # loss of a guess, the unit of a joint loss
    side: int  # pixels or voxels a side of the smallest view
    stages: bool  # whether the head also gets the mean features of every encoder stage

    def head(self, widths: Nested) -> nn.Module:
        """Make the head: features of one case (B, V, sum(widths)) -> outputs.

        ``widths`` is a sequence with the features of each stage asked for, the code last; for a
        tuple of views a tuple of such sequences.
        """

    def caption(self, targets: Tensor, case: int) -> str:
        """What is asked of one case of a batch, in a few words; for pictures of the views."""


def nested(function: Callable[[Tensor], Any], value: Nested) -> Nested:
    """Apply ``function`` to a tensor, or to each of a tuple."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


def means(scores: Scores) -> dict[str, float]:
    """Mean over cases of each figure."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
