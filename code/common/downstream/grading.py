"""Grading: one ordinal grade an image, scored by quadratic-weighted kappa."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.downstream import metrics
from common.downstream.whole_image import WholeImage
from common.tasks.contract import Scores


class Grading(WholeImage):
    """Give each image a grade 0..grades-1: ordinal outputs, kappa and accuracy in reports.

    Grade g is coded as g + 1 leading ones: output k says "at least k" (official code; Cheng 2008).
    """

    name = "grading"
    monitor = "kappa"

    def code(self, targets: Tensor) -> Tensor:
        """Grades (B,) as leading ones (B, grades)."""
        steps = torch.arange(self.labels, device=targets.device)
        return (steps <= targets[:, None]).float()

    def decode(self, outputs: Tensor) -> Tensor:
        """Grades (B,) from logits (B, grades): outputs above one half, less one, within range."""
        return ((outputs > 0).sum(1) - 1).clamp(0, self.labels - 1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """That a grade is at least k, for every k: (B, grades)."""
        return outputs.float().sigmoid()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy, mean over cases and outputs."""
        return F.binary_cross_entropy_with_logits(outputs.float(), self.code(targets))

    def own_answer(self, weak: Tensor, strong: Tensor) -> tuple[Tensor, Tensor]:
        """As sure as the least sure of the ordinal outputs; the mean of their cross-entropies."""
        shares = weak.sigmoid()
        sure = torch.maximum(shares, 1 - shares).min(1).values  # (B,)
        return sure, F.binary_cross_entropy_with_logits(strong, (shares > 0.5).float(),
                                                        reduction="none").mean(1)

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Quadratic-weighted kappa, accuracy, and the confusion matrix (rows: truth)."""
        truth, predicted = scores["truth"], scores["predicted"]
        return {"kappa": metrics.quadratic_weighted_kappa(truth, predicted, self.labels),
                "accuracy": metrics.accuracy(truth, predicted),
                "confusion": metrics.confusion(truth, predicted, self.labels).tolist()}
