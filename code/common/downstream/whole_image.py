"""One label an image: what grades and unordered classes have alike."""

from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor

from common.tasks import augment
from common.tasks.contract import Batch, Scores, Task


class WholeImage(Task):
    """Give each image one of ``labels`` numbers, from 0; a base class."""

    labelled = True

    def __init__(self, labels: int, augment: Callable[[Tensor, Generator], Tensor]) -> None:
        self.labels = labels
        self.augment = augment  # of training images (B, C, *space), the same for every arm

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The images, augmented in training, and their labels (B,)."""
        assert batch.labels is not None
        return self.augment(batch.images, rng) if training else batch.images, batch.labels.long()

    def pair(self, batch: Batch, rng: Generator) -> tuple[Tensor, Tensor]:
        """Two views of unlabelled images that have the same label: augmented twice."""
        return self.augment(batch.images, rng), self.augment(batch.images, rng)

    def weak_and_strong(self, batch: Batch, rng: Generator) -> tuple[Tensor, Tensor]:
        """Augmented; and augmented, re-lit, with noise and a box of its mean."""
        weak, strong = self.pair(batch, rng)
        count = len(strong)
        strong = augment.gamma(strong, augment.uniform(count, 0.5, 2.0, rng))
        strong = augment.brightness_contrast(strong, augment.uniform(count, -0.3, 0.3, rng),
                                             augment.uniform(count, 0.5, 1.5, rng))
        strong = augment.noise(strong, augment.uniform(count, 0.01, 0.1, rng), rng)
        return weak, augment.boxed(strong, 1 / 4, 1 / 2, rng)

    def plane(self, labels: Tensor) -> None:
        """A photograph is shown whole."""

    def decode(self, outputs: Tensor) -> Tensor:
        """Labels (B,) from logits (B, labels)."""
        raise NotImplementedError

    def own_answer(self, weak: Tensor, strong: Tensor) -> tuple[Tensor, Tensor]:
        """How sure an answer is, 0 to 1, and the loss of another image for it: (B,) each.

        From logits (B, labels) of the first and of the other.
        """
        raise NotImplementedError

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Truth and predicted label of every case: (B,) each."""
        return {"truth": targets, "predicted": self.decode(outputs)}

    def cases(self, scores: Scores) -> list[dict[str, Any]]:
        """Truth and predicted label of each case."""
        return [{"truth": int(truth), "predicted": int(predicted)} for truth, predicted
                in zip(scores["truth"], scores["predicted"], strict=True)]
