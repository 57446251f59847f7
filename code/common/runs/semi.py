"""Learning from labels and from unlabelled images at once: the mean teacher.

A rival of pretraining: the same steps and the same labelled batches as the baseline, from the same
random weights; beside each labelled batch one of the pool, on which the student has to agree with a
teacher, the moving average of its weights. Sources: Tarvainen and Valpola 2017; for segmentation Yu
et al. 2019.
"""

import copy
import math
from typing import Any

import torch
from torch import Generator, Tensor

from common.machine import parallel
from common.runs.training import Fit, autocast, loss_of
from common.tasks.batches import batches, generator
from common.tasks.contract import Batch

DECAY = 0.99     # of the teacher's weights at most; at first their plain mean
WEIGHT = 1.0     # of the disagreement at most
RAMP = 0.3       # share of the steps in which it rises to that, by exp(-5 (1 - t)^2)


class MeanTeacher(Fit):
    """A run whose student also learns to agree with its teacher on unlabelled images."""

    def __init__(self, *args: Any, unlabelled: list[int], **named: Any) -> None:
        """``unlabelled`` are rows of the pool; the rest as for Fit."""
        super().__init__(*args, **named)
        self.unlabelled, self.done = unlabelled, 0
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.teacher.train()  # normalised by its batch, as the student is

    def step(self, batch: Batch, rng: Generator) -> Tensor:
        """Take one optimiser step on a labelled batch and an unlabelled one; then the teacher's."""
        views, targets = self.task.prepare(batch, rng, training=True)
        other = self.cases.batch(next(self.stream), labelled=False)
        seen, taught = (parallel.part(view, len(other.cases))
                        for view in self.task.pair(other, self.drawn))  # type: ignore[attr-defined]
        mine = parallel.part(views, len(batch.cases))
        network = self.model if self.network is None else self.network
        with autocast(batch.device, self.recipe.precision):
            outputs = network(torch.cat([mine, seen]))  # one batch for BatchNorm
            loss = loss_of(self.task, outputs[:len(mine)], targets, len(batch.cases))
            with torch.no_grad():
                wanted = self.task.probabilities(  # type: ignore[attr-defined]
                    self.teacher(taught))
            said = self.task.probabilities(outputs[len(mine):])  # type: ignore[attr-defined]
            loss = loss + self.weight() * disagreement(said, wanted)
        self.descend(loss)
        decay = min(1 - 1 / (self.done + 1), DECAY)
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        return loss.detach()

    def weight(self) -> float:
        """Of the disagreement at this step; it rises while the teacher knows little."""
        share = min(1.0, self.done / max(1.0, RAMP * self.recipe.epochs * self.recipe.steps))
        return WEIGHT * math.exp(-5 * (1 - share) ** 2)

    def _begin(self, epoch: int) -> None:
        super()._begin(epoch)
        # Chance of its own: the labelled batches stay those of the baseline.
        self.drawn = generator(self.recipe.seed, "unlabelled", epoch)
        self.stream = batches(self.unlabelled, self.recipe.batch_size, self.drawn)

    def _set_rate(self, done: int) -> None:
        super()._set_rate(done)
        self.done = done

    def _more(self) -> dict[str, torch.nn.Module]:
        return {"teacher": self.teacher}


def disagreement(said: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference of probabilities, over all ranks."""
    sums = torch.stack([(said - wanted).square().sum(),
                        said.new_full((), float(said.numel()))])
    if parallel.ranks() > 1:
        sums = parallel.total(sums)
    return sums[0] / sums[1]
