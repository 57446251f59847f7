"""Scores as functions of sums over test cases, and their bootstrap.

A score of a run is ``combine`` of the sum of its cases' ``contributions``, so that one bootstrap
serves the mean of per-case values, a Dice of pooled voxels and kappa alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000  # bootstrap draws of test cases; their own error of an SE is 1.6 %
BOOTSTRAP_SEED = 0  # the same draws in every call, so that arms are compared on the same cases

Floats = NDArray[np.float64]
Case = Mapping[str, Any]           # what a run recorded of a test case
Cases = Mapping[str, Case]         # case id -> case
Arm = Mapping[int, Mapping[int, Cases]]  # seed -> draw of the labelled subset -> test cases


@dataclass(frozen=True)
class Measure:
    """A score as a function of sums over test cases.

    ``contributions`` turns cases into rows (cases, k); a row of zeros is a case that does not
    count. ``combine`` turns sums of rows (..., k) into scores (...), nan where nothing counts.
    """

    name: str  # the key in scores.json
    label: str  # on an axis
    contributions: Callable[[Sequence[Case]], Floats]
    combine: Callable[[Floats], Floats]
    bounds: tuple[float, float] = (0.0, 1.0)  # what the score can be; no interval goes beyond


def mean_of(key: str, label: str, *, most: float = 1.0) -> Measure:
    """Return the measure "mean over cases of the value at ``key``"; null cases do not count.

    ``most``: the largest value that there is; inf for a distance.
    """

    def contributions(cases: Sequence[Case]) -> Floats:
        values = np.array([case[key] for case in cases], float)  # None becomes nan
        return np.stack([np.nan_to_num(values), np.isfinite(values)], axis=1).astype(float)

    return Measure(key, label, contributions, lambda sums: _ratio(sums[..., 0], sums[..., 1]),
                   bounds=(0.0, most))


def kappa_of(name: str, label: str, grades: int, *, ordered: bool = True) -> Measure:
    """Return quadratic-weighted kappa of the cases' ``truth`` and ``predicted``, 0..grades-1.

    Of classes in no order (not ``ordered``) it is unweighted: one mistake is as bad as another.
    The same definitions as in metrics.py, over any number of resamples at once.
    """
    index = np.arange(grades)
    weights = (index[:, None] - index[None, :]) ** 2.0 if ordered else 1 - np.eye(grades)

    def combine(sums: Floats) -> Floats:
        observed = sums.reshape(*sums.shape[:-1], grades, grades)
        expected = observed.sum(-1)[..., :, None] * observed.sum(-2)[..., None, :]
        disagreement = (weights * expected).sum((-2, -1)) / sums.sum(-1)
        seen = (weights * observed).sum((-2, -1))
        return np.where(disagreement > 0, 1 - _ratio(seen, disagreement), 0.0)

    return Measure(name, label, partial(_pairs, grades), combine, bounds=(-1.0, 1.0))


def macro_f1_of(name: str, label: str, classes: int) -> Measure:
    """Return the mean over ``classes`` of F1; 0 for one that neither truth nor prediction has."""

    def combine(sums: Floats) -> Floats:
        table = sums.reshape(*sums.shape[:-1], classes, classes)
        right = np.diagonal(table, axis1=-2, axis2=-1)
        return np.nan_to_num(_ratio(2 * right, table.sum(-1) + table.sum(-2))).mean(-1)

    return Measure(name, label, partial(_pairs, classes), combine)


def _pairs(classes: int, cases: Sequence[Case]) -> Floats:
    """The pair of truth and prediction of each case: (cases, classes^2)."""
    pairs = [case["truth"] * classes + case["predicted"] for case in cases]
    return np.eye(classes * classes)[pairs]


def accuracy_of(name: str, label: str) -> Measure:
    """Return the measure "share of cases whose ``predicted`` equals their ``truth``"."""

    def contributions(cases: Sequence[Case]) -> Floats:
        return np.array([[case["truth"] == case["predicted"], 1] for case in cases], float)

    return Measure(name, label, contributions, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def pooled_dice_of(name: str, label: str) -> Measure:
    """Return the paper's Dice: voxels of all cases pooled, macro mean including background."""

    def contributions(cases: Sequence[Case]) -> Floats:
        return np.array([[*case["both"], *case["truth"], *case["predicted"]] for case in cases],
                        float)

    def combine(sums: Floats) -> Floats:
        both, truth, predicted = np.split(sums, 3, axis=-1)
        return np.nanmean(_ratio(2 * both, truth + predicted), axis=-1)

    return Measure(name, label, contributions, combine)


@lru_cache(maxsize=8)
def resamples(cases: int) -> Floats:
    """How often each case is in each bootstrap draw: (RESAMPLES, cases), rows sum to ``cases``."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return rng.multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(float)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide elementwise, nan where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan),
                     where=np.asarray(denominator) > 0)
