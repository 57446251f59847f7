"""Dice, kappa, accuracy and macro-F1, from counts; plain numpy."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def confusion(truth: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count (truth, predicted) pairs of integer labels 0..classes-1: (classes, classes)."""
    pairs = np.asarray(truth).ravel().astype(np.int64) * classes + np.asarray(predicted).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def dice_from_counts(both: ArrayLike, truth: ArrayLike, predicted: ArrayLike) -> Floats:
    """Dice = 2 |A and B| / (|A| + |B|), elementwise; nan where truth and prediction are both empty.

    A class absent from the truth but predicted, or present but missed, scores 0.
    """
    total = np.asarray(truth, float) + np.asarray(predicted, float)
    return np.divide(2 * np.asarray(both, float), total,
                     out=np.full(total.shape, np.nan), where=total > 0)


def dice(truth: ArrayLike, predicted: ArrayLike, classes: int) -> Floats:
    """Hard Dice of every class of one case, background first: (classes,), nan where absent."""
    counts = confusion(truth, predicted, classes)
    return dice_from_counts(np.diagonal(counts), counts.sum(1), counts.sum(0))


def pooled_dice(both: ArrayLike, truth: ArrayLike, predicted: ArrayLike) -> float:
    """The paper's metric: voxels pooled over cases, macro mean including background.

    Each count is (cases, classes). Predicting only background scores 1/3 with three classes.
    """
    sums = [np.asarray(count).sum(axis=0) for count in (both, truth, predicted)]
    return float(np.nanmean(dice_from_counts(*sums)))


def quadratic_weighted_kappa(truth: ArrayLike, predicted: ArrayLike, grades: int = 5) -> float:
    """Cohen's kappa with quadratic weights, labels fixed to 0..grades-1 (Cohen 1968).

    The labels are fixed because a grade missing from a sample would change the weights. When the
    expected disagreement is zero (both constant and equal) there is no agreement beyond chance: 0.
    """
    index = np.arange(grades)
    return _kappa(confusion(truth, predicted, grades), (index[:, None] - index[None, :]) ** 2)


def unweighted_kappa(truth: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """Cohen's kappa of classes in no order, every mistake as bad as another (Cohen 1960).

    Labels are fixed, and 0 where no disagreement is expected, as above.
    """
    return _kappa(confusion(truth, predicted, classes), 1 - np.eye(classes))


def macro_f1(truth: ArrayLike, predicted: ArrayLike, classes: int) -> float:
    """F1 of every class, 2 TP / (2 TP + FP + FN), their mean; labels fixed to 0..classes-1.

    A class that neither truth nor prediction has counts as 0 (scikit-learn's zero_division=0).
    """
    return float(np.nan_to_num(dice(truth, predicted, classes)).mean())


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of predictions equal to the truth."""
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def _kappa(table: NDArray[np.int64], weights: NDArray[Any]) -> float:
    """1 - disagreement over that expected by chance, of a confusion; 0 where none is expected."""
    observed = table.astype(float)
    expected = np.outer(observed.sum(1), observed.sum(0)) / observed.sum()
    disagreement = (weights * expected).sum()
    return float(1 - (weights * observed).sum() / disagreement) if disagreement else 0.0
