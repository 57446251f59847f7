"""The contract of a task, pretext or downstream, and the siamese model of a pretext task.

Views have one shape everywhere: (B, V, C, *space), V views a case. Views, targets and outputs are
a Tensor or a tuple of them; the loop in training.py never looks inside.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.devices import send

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


class PretextModel(nn.Module):
    """One encoder shared by all views, under the head of a pretext task."""

    def __init__(self, encoder: nn.Module, task: Pretext, views: Nested) -> None:
        """``views``: any batch of the task's views, for the size of the head."""
        super().__init__()
        self.encoder = encoder
        self.stages = task.stages
        self.head = task.head(nested(self._widths, views))
        others = len(views) - 1 if isinstance(views, tuple) else 0
        self.statistics = nn.ModuleList(Statistics(encoder) for _ in range(others))

    def forward(self, views: Nested) -> Nested:
        """Encode every view, (B, V, C, *space), and pass the features (B, V, F) to the head.

        Of a tuple, the first uses the encoder's own running statistics, every other its own set.
        """
        if not isinstance(views, tuple):
            return self.head(self.features(views))
        features = [self.features(views[0])]
        for own, kind in zip(self.statistics, views[1:], strict=True):
            assert isinstance(own, Statistics)
            with own.within(self.encoder):
                features.append(self.features(kind))
        return self.head(tuple(features))

    def features(self, views: Tensor) -> Tensor:
        """The flattened code of every view, after the mean of each stage's map if asked for."""
        parts = self._parts(views.flatten(0, 1))
        return torch.cat(parts, dim=1).unflatten(0, views.shape[:2])  # (B * V, F) -> (B, V, F)

    def _parts(self, views: Tensor) -> list[Tensor]:
        if not self.stages:
            return [self.encoder(views).flatten(1)]
        assert callable(self.encoder.stages)
        *maps, code = self.encoder.stages(views)
        return [*(part.flatten(2).mean(2) for part in maps), code.flatten(1)]

    def _widths(self, views: Tensor) -> list[int]:
        """Features of each part of one view; leaves the encoder as it was."""
        training = self.encoder.training
        self.encoder.eval()
        with torch.no_grad():
            widths = [part.shape[1] for part in self._parts(views[:1, 0])]
        self.encoder.train(training)
        return widths


class Statistics(nn.Module):
    """BatchNorm's running statistics of an encoder for one kind of views, its weights shared.

    Patches and whole images differ in mean and spread. In training each batch is normalised by its
    own; one running mean of both fits neither, so that in evaluation a joint arm on the hippocampus
    got .08 of relative places right that with the batch's own statistics got .32, and .25 of the
    puzzles instead of .99. Source: the auxiliary BatchNorm of AdvProp (Xie et al. 2020, section 3).
    """

    names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(batch_norms(encoder)):
            for name in self.names:
                self.register_buffer(f"{name}_{number}", getattr(layer, name).clone())

    @contextmanager
    def within(self, encoder: nn.Module) -> Iterator[None]:
        """Let these be the statistics that ``encoder`` uses and, in training, updates."""
        layers = batch_norms(encoder)
        kept = [[getattr(layer, name) for name in self.names] for layer in layers]
        for number, layer in enumerate(layers):
            for name in self.names:
                setattr(layer, name, getattr(self, f"{name}_{number}"))
        try:
            yield
        finally:
            for layer, values in zip(layers, kept, strict=True):
                for name, value in zip(self.names, values, strict=True):
                    setattr(layer, name, value)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a network, in its order."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def nested(function: Callable[[Tensor], Any], value: Nested) -> Nested:
    """Apply ``function`` to a tensor, or to each of a tuple."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


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


def means(scores: Scores) -> dict[str, float]:
    """Mean over cases of each figure."""
    return {name: float(np.mean(values)) for name, values in scores.items()}
