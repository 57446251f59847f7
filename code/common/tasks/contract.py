"""The contract of a task, pretext or downstream.

Views have one shape everywhere: (B, V, C, *space), V views a case. Views, targets and outputs are
a Tensor or a tuple of them; the loop in training.py never looks inside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from common.machine.devices import send
from common.tasks.siamese import Nested, Siamese

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

    def views(self, stored: Tensor) -> Tensor:
        """Move what was cut or turned from ``stored`` to the device, as float32."""
        values = send(stored, self.device).float()
        return values.div_(255) if stored.dtype == torch.uint8 else values


class Task:
    """What is learnt: views and targets of a batch, a loss, and figures; a base class.

    A task overrides what differs from these defaults.
    """

    name = ""
    labelled = False   # whether prepare() reads the labels
    monitor = "-loss"  # key of the validation figures that chooses weights; "-loss": lowest loss

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Nested, Nested]:
        """Make views (float32) and targets of a whole batch, on its device.

        ``rng`` is a CPU generator, the only source of chance. ``training=False``: centred patches
        and no augmentation beyond what the task itself needs.
        """
        raise NotImplementedError

    def loss(self, outputs: Nested, targets: Nested) -> Tensor:
        """Mean loss of the batch: a scalar."""
        raise NotImplementedError

    def score(self, outputs: Nested, targets: Nested) -> dict[str, Tensor]:
        """Figures of every case of the batch, each (B, ...); evaluate() joins the batches."""
        return {}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Turn the figures of all cases into what is reported: sum over cases, divide once."""
        return means(scores)

    def sums(self, outputs: Nested, targets: Nested) -> Tensor | None:
        """Make the sums over cases that the loss is made of, as Dice is; None where it is not.

        The ranks of a run (RANKS_PER_RUN) exchange these sums, else their outputs, whose first
        axis is the cases: what compares cases belongs in loss(), not in a head.
        """
        return None

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """Mean loss of the batch from its sums: a scalar."""
        raise NotImplementedError

    def after_step(self, model: nn.Module) -> None:
        """Do what follows an optimiser step, as for a moving average of the weights."""

    def collapsed(self, figures: Mapping[str, Any]) -> str:
        """Say how the codes have collapsed, by validation figures; "" where they have not.

        Asked once a tenth of the steps is done; the run then stops with that line.
        """
        return ""


@dataclass(frozen=True)
class Parts:
    """What a pretraining's network is made of."""

    encoder: nn.Module  # its stages(images) are the map of every level, then the code
    decoder: Callable[[int], nn.Module]  # output channels -> a network from an encoder's stages
    downstream: Callable[[], nn.Module]  # the whole downstream network, on that encoder
    views: Nested       # of a few cases, for the sizes of heads


class Pretext(Task):
    """A task that makes its targets from the images alone; a base class with defaults.

    ``size`` is the side of an image, ``batch_size`` the cases of a training batch; chance and guess
    may depend on both. A constant of exp.py that is not 0 overrides batch, rate and steps.
    """

    batch_size = 32        # cases
    lr = 1e-4              # Adam
    steps = 0              # optimiser steps; 0: as many as PRETEXT_EPOCHS and patience give
    schedule = "constant"  # of the rate, with patience; or "cosine" over all steps, without
    chance: Mapping[str, float] = {}  # score of a guess, by the names summarise() gives; without
    #                                   one nothing is compared
    guess = 1.0            # loss of a guess, the unit of a joint loss
    joins = True           # whether it may be joined with others, as in rotation+rpl
    stages = False         # whether the head also gets the mean features of every encoder stage
    decodes = False        # whether it trains the decoder too, which <task>@decoder hands on
    alone = 0              # views that are encoded; 0: all of them
    side: int              # pixels or voxels a side of the smallest view

    def __init__(self, size: int, batch_size: int = 0) -> None:
        self.side = size
        self.batch_size = batch_size or self.batch_size

    def network(self, parts: Parts) -> nn.Module:
        """Make the network to train, its encoder under the name ``encoder``.

        Weights that have the name of a weight of the downstream network are handed on.
        """
        return Siamese(parts.encoder, self.head, parts.views, stages=self.stages)

    def head(self, widths: Nested) -> nn.Module:
        """Make the head: features of one case (B, V, sum(widths)) -> outputs.

        ``widths`` is a sequence with the features of each stage asked for, the code last; for a
        tuple of views a tuple of such sequences.
        """
        raise NotImplementedError

    def chance_of(self, figures: Mapping[str, Any]) -> Mapping[str, float]:
        """Scores of a guess, where they depend on how many cases were compared."""
        return self.chance

    def caption(self, targets: Nested, case: int) -> str:
        """Say what is asked of one case of a batch, in a few words; for pictures of the views."""
        return ""

    def pictures(self, views: Nested, outputs: Nested, targets: Nested) -> Tensor | None:
        """Pictures of what was shown, answered and wanted, (B, 3, C, *space) in 0..1, if any."""
        return None


def means(scores: Scores) -> dict[str, Any]:
    """Mean over cases of each figure."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
