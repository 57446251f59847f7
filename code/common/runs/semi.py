"""Learning from labels and from unlabelled images at once: rivals of pretraining.

The same steps and the same labelled batches as the baseline, from the same random weights; beside
each labelled batch lies one of the pool.
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

DECAY = 0.99      # of the teacher's weights at most; at first their plain mean
WEIGHT = 1.0      # of what is learnt from unlabelled images, at most
RAMP = 0.3        # share of the steps in which the teacher's weight rises, by exp(-5 (1 - t)^2)
CONFIDENT = 0.95  # probability from which an answer is taken for the truth


class Beside(Fit):
    """A run that learns from unlabelled images beside the labels; a base class."""

    passes = 2.0  # time of a step, over the baseline's
    held = 2      # batches whose activations a step keeps

    def __init__(self, *args: Any, unlabelled: list[int], **named: Any) -> None:
        """``unlabelled`` are rows of the pool; the rest as for Fit."""
        super().__init__(*args, **named)
        self.unlabelled, self.done = unlabelled, 0
        self.downstream: Any = self.task  # whose pair() and probabilities() are called

    def views(self, batch: Batch) -> Tensor:
        """What the network is shown of an unlabelled batch."""
        raise NotImplementedError

    def also(self, outputs: Tensor) -> Tensor:
        """The loss of what it answers there: a scalar."""
        raise NotImplementedError

    def step(self, batch: Batch, rng: Generator) -> Tensor:
        """Take one optimiser step on a labelled batch and an unlabelled one."""
        views, targets = self.task.prepare(batch, rng, training=True)
        mine = parallel.part(views, len(batch.cases))
        network = self.model if self.network is None else self.network
        seen = self.views(self.cases.batch(next(self.stream), labelled=False))
        with autocast(batch.device, self.recipe.precision):
            outputs = network(torch.cat([mine, seen]))  # one batch for BatchNorm
            loss = loss_of(self.task, outputs[:len(mine)], targets, len(batch.cases))
            loss = loss + self.also(outputs[len(mine):])
        self.descend(loss)
        return loss.detach()

    def _begin(self, epoch: int) -> None:
        super()._begin(epoch)
        # Chance of its own: the labelled batches stay those of the baseline.
        self.drawn = generator(self.recipe.seed, "unlabelled", epoch)
        self.stream = batches(self.unlabelled, self.recipe.batch_size, self.drawn)

    def _set_rate(self, done: int) -> None:
        super()._set_rate(done)
        self.done = done


class MeanTeacher(Beside):
    """The student has to agree with a teacher, the moving average of its weights.

    Sources: Tarvainen and Valpola 2017; for segmentation Yu et al. 2019.
    """

    passes = 7 / 3  # twice the images, and the teacher's forward pass

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.teacher.train()  # normalised by its batch, as the student is

    def views(self, batch: Batch) -> Tensor:
        """One view for the student; the teacher answers to another."""
        seen, self.taught = (parallel.part(view, len(batch.cases))
                             for view in self.downstream.pair(batch, self.drawn))
        own: Tensor = seen
        return own

    def also(self, outputs: Tensor) -> Tensor:
        """The weighted disagreement."""
        with torch.no_grad():
            wanted = self.downstream.probabilities(self.teacher(self.taught))
        return self.weight() * disagreement(self.downstream.probabilities(outputs), wanted)

    def step(self, batch: Batch, rng: Generator) -> Tensor:
        """Take the student's step, then the teacher's."""
        loss = super().step(batch, rng)
        decay = min(1 - 1 / (self.done + 1), DECAY)
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        return loss

    def weight(self) -> float:
        """Of the disagreement at this step; it rises while the teacher knows little."""
        share = min(1.0, self.done / max(1.0, RAMP * self.recipe.epochs * self.recipe.steps))
        return WEIGHT * math.exp(-5 * (1 - share) ** 2)

    def _more(self) -> dict[str, torch.nn.Module]:
        return {"teacher": self.teacher}


class FixMatch(Beside):
    """What the network is sure of in a weakly changed image it has to say of a strong change of it.

    Source: Sohn et al. 2020; as many unlabelled images as labelled ones.
    """

    passes, held = 3.0, 3

    def views(self, batch: Batch) -> Tensor:
        """Both, the weakly changed first."""
        weak, strong = (parallel.part(view, len(batch.cases))
                        for view in self.downstream.weak_and_strong(batch, self.drawn))
        return torch.cat([weak, strong])

    def also(self, outputs: Tensor) -> Tensor:
        """Cross-entropy of the strongly changed, where the weakly changed are sure."""
        weak, strong = outputs.float().chunk(2)
        sure, losses = self.downstream.own_answer(weak, strong)
        return WEIGHT * mean_of((losses * (sure >= CONFIDENT)).sum(), len(losses))


KINDS: dict[str, type[Beside]] = {"meanteacher": MeanTeacher, "fixmatch": FixMatch}


def disagreement(said: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference of probabilities, over all ranks."""
    return mean_of((said - wanted).square().sum(), said.numel())


def mean_of(total: Tensor, count: int) -> Tensor:
    """A sum over its count, both over all ranks."""
    sums = torch.stack([total, total.new_full((), float(count))])
    if parallel.ranks() > 1:
        sums = parallel.total(sums)
    return sums[0] / sums[1]
