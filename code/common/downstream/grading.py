"""Grading: one ordinal grade an image, scored by quadratic-weighted kappa."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from common.downstream import metrics
from common.tasks import augment
from common.tasks.contract import Batch, Scores, Task


class Grading(Task):
    """Give each image a grade 0..grades-1: ordinal outputs, kappa and accuracy in reports.

    Grade g is coded as g + 1 leading ones: output k says "at least k" (official code; Cheng 2008).
    """

    name = "grading"
    labelled = True
    monitor = "kappa"

    def __init__(self, grades: int, augment: Callable[[Tensor, Generator], Tensor]) -> None:
        self.grades = grades
        self.augment = augment  # of training images (B, C, *space), the same for every arm

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The images, augmented in training, and their grades (B,)."""
        assert batch.labels is not None
        return self.augment(batch.images, rng) if training else batch.images, batch.labels.long()

    def code(self, targets: Tensor) -> Tensor:
        """Grades (B,) as leading ones (B, grades)."""
        steps = torch.arange(self.grades, device=targets.device)
        return (steps <= targets[:, None]).float()

    def decode(self, outputs: Tensor) -> Tensor:
        """Grades (B,) from logits (B, grades): outputs above one half, less one, within range."""
        return ((outputs > 0).sum(1) - 1).clamp(0, self.grades - 1)

    def pair(self, batch: Batch, rng: Generator) -> tuple[Tensor, Tensor]:
        """Two views of unlabelled images that have the same grade: augmented twice."""
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

    def probabilities(self, outputs: Tensor) -> Tensor:
        """That a grade is at least k, for every k: (B, grades)."""
        return outputs.float().sigmoid()

    def plane(self, labels: Tensor) -> None:
        """A photograph is shown whole."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, mean over cases and outputs."""
        return F.binary_cross_entropy_with_logits(outputs.float(), self.code(targets))

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Truth and predicted grade of every case: (B,) each."""
        return {"truth": targets, "predicted": self.decode(outputs)}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Quadratic-weighted kappa, accuracy, and the confusion matrix (rows: truth)."""
        truth, predicted = scores["truth"], scores["predicted"]
        return {"kappa": metrics.quadratic_weighted_kappa(truth, predicted, self.grades),
                "accuracy": metrics.accuracy(truth, predicted),
                "confusion": metrics.confusion(truth, predicted, self.grades).tolist()}

    def cases(self, scores: Scores) -> list[dict[str, Any]]:
        """Truth and predicted grade of each case."""
        return [{"truth": int(truth), "predicted": int(predicted)} for truth, predicted
                in zip(scores["truth"], scores["predicted"], strict=True)]
