"""The oracle's pretraining: the downstream task itself, on the labels of all training cases."""

from typing import Any

from torch import Generator, Tensor, nn

from common.tasks.contract import Batch, Parts, Pretext, Scores, Task
from common.tasks.siamese import Nested


class Supervised(Pretext):
    """A downstream task in the place of a pretext task.

    It reads labels, so its run learns from the training cases alone, as the baseline's does.
    """

    labelled = True
    joins = False
    decodes = True

    def __init__(self, size: int, batch_size: int, downstream: Task) -> None:
        super().__init__(size, batch_size)
        self.downstream = downstream
        self.name, self.monitor = downstream.name, downstream.monitor

    def network(self, parts: Parts) -> nn.Module:
        """The whole downstream network."""
        return parts.downstream()

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Nested, Nested]:
        """Images and labels."""
        return self.downstream.prepare(batch, rng, training=training)

    def loss(self, outputs: Nested, targets: Nested) -> Tensor:
        """The downstream loss."""
        return self.downstream.loss(outputs, targets)

    def sums(self, outputs: Nested, targets: Nested) -> Tensor | None:
        """The downstream sums."""
        return self.downstream.sums(outputs, targets)

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """The downstream loss of these sums."""
        return self.downstream.loss_of_sums(sums)

    def score(self, outputs: Nested, targets: Nested) -> dict[str, Tensor]:
        """The downstream figures of every case."""
        return self.downstream.score(outputs, targets)

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """The downstream figures."""
        return self.downstream.summarise(scores)
