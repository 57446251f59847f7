"""Joint and multi-stage pretraining: one encoder under several heads, or a head on every stage.

    rotation+rpl            two tasks at once          rotation@stages    on every encoder stage
    rotation+rpl@stages     both

Every task makes its own views of the same batch and has its own head. Each loss is divided by that
of a guess, so that all start at one, and the mean is taken: a task of a hundred classes weighs no
more than a binary one. The loss of a guess as the reference is that of GradNorm (Chen et al. 2018,
section 3.2: log(classes)); its changing weights are left out, since a task that has been solved
stops pulling by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from common import arms
from common.tasks.contract import Batch, Pretext, Scores
from common.tasks.siamese import Nested

Pretexts = Mapping[str, Callable[[int, int], Pretext]]  # by name: size, batch size -> a task


def make(name: str, pretexts: Pretexts, size: int, batch_size: int = 0) -> Pretext:
    """Make the task of a pretraining: one of ``pretexts``, or several of them joined.

    ``batch_size`` 0 is the task's own.
    """
    if name in pretexts:
        return pretexts[name](size, batch_size)
    tasks = [pretexts[part](size, batch_size) for part in arms.parts(name)]
    # The smallest batch fits every task; two cases are what BatchNorm in a head needs.
    smallest = max(2, min(task.batch_size for task in tasks))
    return Joint(name, [pretexts[part](size, smallest) for part in arms.parts(name)],
                 stages=arms.sees_stages(name))


class Joint(Pretext):
    """Several pretext tasks as one: views, targets and outputs are tuples, one entry a task."""

    def __init__(self, name: str, tasks: Sequence[Pretext], *, stages: bool) -> None:
        super().__init__(min(task.side for task in tasks), tasks[0].batch_size)
        self.name = name
        self.tasks = tasks
        self.stages = stages
        self.lr = min(task.lr for task in tasks)
        self.steps = max(task.steps for task in tasks)
        self.schedule = tasks[0].schedule
        self.chance = {f"{task.name} {figure}": chance for task in tasks
                       for figure, chance in task.chance.items()}

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Nested, Nested]:
        """Every task's own views of the same batch."""
        views, targets = zip(*(task.prepare(batch, rng, training=training) for task in self.tasks),
                             strict=True)
        return views, targets

    def head(self, widths: Nested) -> nn.Module:
        """One head a task."""
        return Heads(task.head(width) for task, width in zip(self.tasks, widths, strict=True))

    def loss(self, outputs: Nested, targets: Nested) -> Tensor:
        """Mean of the tasks' losses, each in units of a guess."""
        return torch.stack([task.loss(*pair) / task.guess
                            for task, *pair in self._each(outputs, targets)]).mean()

    def score(self, outputs: Nested, targets: Nested) -> dict[str, Tensor]:
        """The figures of every task under its name."""
        return {f"{task.name} {figure}": values for task, *pair in self._each(outputs, targets)
                for figure, values in task.score(*pair).items()}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """What every task makes of its own figures."""
        summary: dict[str, Any] = {}
        for task in self.tasks:
            own = {name.removeprefix(f"{task.name} "): values for name, values in scores.items()
                   if name.startswith(f"{task.name} ")}
            summary |= {f"{task.name} {name}": value
                        for name, value in task.summarise(own).items()}
        return summary

    def caption(self, targets: Nested, case: int) -> str:
        """The captions of all tasks."""
        return "; ".join(task.caption(own, case)
                         for task, own in zip(self.tasks, targets, strict=True))

    def after_step(self, model: nn.Module) -> None:
        """What every task does."""
        for task in self.tasks:
            task.after_step(model)

    def _each(self, outputs: Nested, targets: Nested) -> Iterator[tuple[Any, Any, Any]]:
        return zip(self.tasks, outputs, targets, strict=True)


class Heads(nn.ModuleList):
    """Heads side by side: a tuple of features -> a tuple of outputs."""

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Nested, ...]:
        """Give every head its own features."""
        return tuple(head(own) for head, own in zip(self, features, strict=True))
