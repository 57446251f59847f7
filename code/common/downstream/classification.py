"""Classification: one class an image, in no order, scored by unweighted kappa."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from common.downstream import metrics
from common.downstream.whole_image import WholeImage
from common.tasks.contract import Scores


class Classification(WholeImage):
    """Give each image a class 0..classes-1: a softmax, two outputs for two classes."""

    name = "classification"
    monitor = "unweighted_kappa"

    def decode(self, outputs: Tensor) -> Tensor:
        """Classes (B,) from logits (B, classes): that of the largest."""
        return outputs.argmax(1)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of every class: (B, classes)."""
        return outputs.float().softmax(1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy, mean over cases; all classes weigh the same."""
        return F.cross_entropy(outputs.float(), targets)

    def own_answer(self, weak: Tensor, strong: Tensor) -> tuple[Tensor, Tensor]:
        """The largest probability; cross-entropy with its class (Sohn et al. 2020)."""
        sure, answer = weak.softmax(1).max(1)
        return sure, F.cross_entropy(strong, answer, reduction="none")

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Unweighted kappa, accuracy, macro-F1, and the confusion matrix (rows: truth)."""
        labels = scores["truth"], scores["predicted"], self.labels
        return {"unweighted_kappa": metrics.unweighted_kappa(*labels),
                "accuracy": metrics.accuracy(*labels[:2]),
                "macro_f1": metrics.macro_f1(*labels),
                "confusion": metrics.confusion(*labels).tolist()}
