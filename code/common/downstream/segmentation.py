"""Segmentation: a class for every voxel, scored by Dice, in any number of dimensions."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from common.downstream import metrics
from common.tasks import augment
from common.tasks.contract import Batch, Scores, Task
from common.tasks.heads import confusion, dice_and_entropy, overlaps

NOISE = 0.05  # standard deviation between two views of an unlabelled image, of 0..1

Augment = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]  # images, label maps


class Segmentation(Task):
    """Label every voxel: soft Dice loss in training, hard Dice per case and class in reports.

    With ``cross_entropy`` the loss is the sum of both (Isensee et al. 2021, nnU-Net).
    """

    name = "segmentation"
    labelled = True
    monitor = "dice"

    def __init__(self, classes: Sequence[str], augment: Augment | None = None, *,
                 cross_entropy: bool = False) -> None:
        self.classes = list(classes)  # background first
        self.augment = augment        # of training images and labels, the same for every arm
        self.cross_entropy = cross_entropy

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The images, augmented in training where asked for, and labels (B, *space) as uint8."""
        assert batch.labels is not None
        if training and self.augment is not None:
            return self.augment(batch.images, batch.labels, rng)
        return batch.images, batch.labels

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Soft Dice loss: 1 - 2 sum(p t) / sum(p + t), sums over batch and space, mean of classes.

        Source: official code (weighted_dice_coefficient_loss, equal weights), Milletari 2016. With
        cross-entropy its mean over voxels is added.
        """
        return self.loss_of_sums(self.sums(outputs, targets))

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums of p t and of p + t of each class: (2, K); then of -log p t, and voxels: (2, 1)."""
        return overlaps(outputs, targets, cross_entropy=self.cross_entropy)

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """1 - the mean over classes of soft Dice, and cross-entropy where asked for."""
        return dice_and_entropy(sums, len(self.classes))

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Voxels of each (truth, predicted) pair of every case: (B, K, K)."""
        return {"confusion": confusion(self.decode(outputs), targets, outputs.shape[1])}

    def pair(self, batch: Batch, rng: Generator) -> tuple[Tensor, Tensor]:
        """Two views of unlabelled images that have the same label map: they differ by noise."""
        images = batch.images
        if self.augment is not None:
            images, _ = self.augment(images, images.new_zeros(images[:, 0].shape), rng)
        deviation = torch.full((len(images),), NOISE)
        return augment.noise(images, deviation, rng), augment.noise(images, deviation, rng)

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Of every class at every voxel: (B, K, *space)."""
        return outputs.float().softmax(1)

    def decode(self, outputs: Tensor) -> Tensor:
        """Class numbers (B, *space) from logits (B, K, *space)."""
        return outputs.max(1).indices  # argmax takes ten times as long on the CPU (measured)

    def plane(self, labels: Tensor) -> int:
        """The slice across the last axis with most foreground; of (D, H, W) labels."""
        return int((labels > 0).flatten(0, -2).sum(0).argmax())

    def summarise(self, scores: Scores) -> dict[str, float | None]:
        """Mean over cases of foreground Dice, each class, the whole; the paper's pooled Dice."""
        both, truth, predicted = self._counts(scores)
        per_class = metrics.dice_from_counts(both, truth, predicted)[:, 1:]  # (cases, foreground)
        summary = {"dice": _mean(_row_means(per_class))}
        for index, name in enumerate(self.classes[1:]):
            summary[f"dice_{name}"] = _mean(per_class[:, index])
        return {**summary, "dice_whole": _mean(self._whole(scores)),
                "dice_paper": metrics.pooled_dice(both, truth, predicted)}

    def cases(self, scores: Scores) -> list[dict[str, Any]]:
        """The figures of each case; null where a class is in neither truth nor prediction."""
        both, truth, predicted = self._counts(scores)
        per_class = metrics.dice_from_counts(both, truth, predicted)[:, 1:]
        whole = self._whole(scores)
        return [{"dice": _null(_row_means(row[None])[0]),
                 **{f"dice_{name}": _null(value)
                    for name, value in zip(self.classes[1:], row, strict=True)},
                 "dice_whole": _null(whole[i]), "truth": truth[i].tolist(),
                 "predicted": predicted[i].tolist(), "both": both[i].tolist()}
                for i, row in enumerate(per_class)]

    @staticmethod
    def _whole(scores: Scores) -> np.ndarray:
        """Dice of all foreground classes taken as one (BraTS: whole tumour), (cases,)."""
        table = scores["confusion"]
        return metrics.dice_from_counts(table[:, 1:, 1:].sum((1, 2)), table[:, 1:].sum((1, 2)),
                                        table[:, :, 1:].sum((1, 2)))

    @staticmethod
    def _counts(scores: Scores) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxels in both, truth and prediction, each (cases, K)."""
        table = scores["confusion"]
        return np.diagonal(table, axis1=1, axis2=2), table.sum(2), table.sum(1)


def _row_means(table: np.ndarray) -> np.ndarray:
    """Mean of each row over its values that are not nan; nan for a row without any."""
    known = ~np.isnan(table)
    return np.divide(np.nansum(table, axis=1), known.sum(1),
                     out=np.full(len(table), np.nan), where=known.any(1))


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
