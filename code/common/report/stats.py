"""Means, intervals and paired comparisons over seeds and test cases.

A score is a function of sums over test cases (``Measure``), so that one bootstrap serves the mean
of per-case values, a Dice of pooled voxels and kappa alike. Half the interval of a mean, or of a
paired difference, is

    sqrt((t(seeds - 1) * SE over seeds)^2 + (t(cases - 1) * SE over test cases)^2):

each spread with the quantile of its own degrees of freedom. On simulated data (test_stats.py) it
covers 95 to 99 %, whichever spread is the larger. With t(seeds - 1) for both, 3 seeds give up to
twice the width and cover up to 100 %; with the degrees of freedom of Satterthwaite (1946)
it covers too little where the seeds differ more than the cases do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # Student's t; scipy.stats takes a second to import

LEVEL = 0.95  # coverage of every interval
MIN_SEEDS = 3  # fewer seeds get no interval: t(1) is 12.7, and one seed has no spread at all
RESAMPLES = 2000  # bootstrap draws of test cases; their own error of an SE is 1.6 %
BOOTSTRAP_SEED = 0  # the same draws in every call, so that arms are compared on the same cases

Floats = NDArray[np.float64]
Case = Mapping[str, Any]
Arm = Mapping[int, Mapping[str, Case]]  # seed -> case id -> what the run recorded of the case


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
    bounds: tuple[float, float] = (0.0, 1.0)  # what the score can be; an axis shows no more


@dataclass(frozen=True)
class Spread:
    """Standard errors of an estimate, and of how many seeds and test cases."""

    over_seeds: float
    over_cases: float
    seeds: int
    cases: int

    def half(self, alpha: float = 1 - LEVEL) -> float:
        """Half the width of the interval that misses with probability ``alpha``."""
        return float(np.hypot(_quantile(self.seeds, alpha) * self.over_seeds,
                              _quantile(self.cases, alpha) * self.over_cases))

    def p(self, estimate: float) -> float:
        """The ``alpha`` whose interval ends at zero (by bisection): the two-sided p."""
        if self.over_seeds == self.over_cases == 0:
            return 1.0 if estimate == 0 else 0.0
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self.half(middle) < abs(estimate) else (middle, high)
        return high


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a mean paired difference, with its interval."""

    mean: float
    spread: Spread | None  # None under MIN_SEEDS
    seeds: tuple[int, ...]
    scores: tuple[float, ...]  # one a seed
    counted: tuple[int, ...]  # test cases that count, one number a seed
    dropped: tuple[str, ...] = ()  # seeds and cases left out because not every run has them

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None under MIN_SEEDS."""
        return self.spread.half() if self.spread else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the interval, None under MIN_SEEDS."""
        return self.adjusted(1)

    @property
    def p(self) -> float | None:
        """Two-sided, against zero; None under MIN_SEEDS."""
        return self.spread.p(self.mean) if self.spread else None

    def adjusted(self, comparisons: int) -> tuple[float, float] | None:
        """The ends of an interval that, with as many others, covers with LEVEL (Bonferroni)."""
        if self.spread is None:
            return None
        half = self.spread.half((1 - LEVEL) / comparisons)
        return self.mean - half, self.mean + half


def mean(measure: Measure, arm: Arm) -> Estimate:
    """Estimate the mean over an arm's seeds, on the test cases that all of them have."""
    seeds = sorted(arm)
    cases, dropped = _common_cases([arm[seed] for seed in seeds])
    rows = _rows(measure, arm, seeds, cases)
    return estimate(measure, rows, np.zeros_like(rows), seeds, dropped)


def difference(measure: Measure, arm: Arm, baseline: Arm) -> Estimate | None:
    """Estimate the mean of arm minus baseline, paired by seed and by test case.

    A case that does not count in one of a pair counts in neither, so the difference of two means
    is the mean of the per-case differences. None if the two have no seed in common.
    """
    seeds = sorted(set(arm) & set(baseline))
    if not seeds:
        return None
    alone = sorted(set(arm) ^ set(baseline))
    notes = (f"{_listed('seed', alone)} not in both arms",) if alone else ()
    cases, dropped = _common_cases([runs[seed] for seed in seeds for runs in (arm, baseline)])
    ours, theirs = (_rows(measure, runs, seeds, cases) for runs in (arm, baseline))
    both = np.logical_and(ours.any(axis=2), theirs.any(axis=2))[..., np.newaxis]
    return estimate(measure, ours * both, theirs * both, seeds, notes + dropped)


def holm(p_values: Sequence[float | None], comparisons: int = 0) -> list[float | None]:
    """Adjust p-values for their number, or a larger one (Holm 1979); None stays None."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    number = max(comparisons, len(known))
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (number - rank)))  # never below a smaller p's
        adjusted[index] = largest
    return adjusted


def mean_of(key: str, label: str) -> Measure:
    """Return the measure "mean over cases of the value at ``key``"; null cases do not count."""

    def contributions(cases: Sequence[Case]) -> Floats:
        values = np.array([case[key] for case in cases], float)  # None becomes nan
        return np.stack([np.nan_to_num(values), np.isfinite(values)], axis=1).astype(float)

    return Measure(key, label, contributions, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def kappa_of(name: str, label: str, grades: int) -> Measure:
    """Return quadratic-weighted kappa of the cases' ``truth`` and ``predicted``, 0..grades-1.

    The same definition as metrics.quadratic_weighted_kappa, over any number of resamples at once.
    """
    index = np.arange(grades)
    weights = (index[:, None] - index[None, :]) ** 2.0

    def contributions(cases: Sequence[Case]) -> Floats:
        pairs = [case["truth"] * grades + case["predicted"] for case in cases]
        return np.eye(grades * grades)[pairs]  # (cases, grades^2): one pair each

    def combine(sums: Floats) -> Floats:
        observed = sums.reshape(*sums.shape[:-1], grades, grades)
        expected = observed.sum(-1)[..., :, None] * observed.sum(-2)[..., None, :]
        disagreement = (weights * expected).sum((-2, -1)) / sums.sum(-1)
        seen = (weights * observed).sum((-2, -1))
        return np.where(disagreement > 0, 1 - _ratio(seen, disagreement), 0.0)

    return Measure(name, label, contributions, combine, bounds=(-1.0, 1.0))


def accuracy_of(name: str, label: str) -> Measure:
    """Return the measure "share of cases whose ``predicted`` equals their ``truth``"."""

    def contributions(cases: Sequence[Case]) -> Floats:
        return np.array([[case["truth"] == case["predicted"], 1] for case in cases], float)

    return Measure(name, label, contributions, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


@lru_cache(maxsize=8)
def resamples(cases: int) -> Floats:
    """How often each case is in each bootstrap draw: (RESAMPLES, cases), rows sum to ``cases``."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    return rng.multinomial(cases, np.full(cases, 1 / cases), size=RESAMPLES).astype(float)


def _rows(measure: Measure, arm: Arm, seeds: Sequence[int], cases: Sequence[str]) -> Floats:
    """Contributions of every seed and case: (seeds, cases, k)."""
    return np.stack([measure.contributions([arm[seed][case] for case in cases])
                     for seed in seeds])


def estimate(measure: Measure, ours: Floats, theirs: Floats, seeds: Sequence[int],
             dropped: tuple[str, ...] = ()) -> Estimate:
    """Estimate ``ours`` minus ``theirs`` (all zero: none), each (seeds, cases, k)."""
    scores = _score(measure, ours.sum(axis=1)) - _score(measure, theirs.sum(axis=1), none=True)
    spread = None
    if len(seeds) >= MIN_SEEDS and np.isfinite(scores).all():
        draws = resamples(ours.shape[1])
        drawn = _score(measure, draws @ ours) - _score(measure, draws @ theirs, none=True)
        cases = int(ours.any(axis=(0, 2)).sum())
        # a draw without any case that counts has no score, and says nothing about the spread
        se_cases = float(np.nanstd(drawn.mean(axis=0), ddof=1))  # (seeds, draws) -> (draws,)
        se_cases *= (cases / max(1, cases - 1)) ** 0.5  # a bootstrap's variance is (n - 1)/n of it
        se_seeds = float(scores.std(ddof=1)) / len(seeds) ** 0.5
        spread = Spread(se_seeds, se_cases, len(seeds), cases)
    counted = tuple(int(number) for number in ours.any(axis=2).sum(axis=1))
    return Estimate(float(scores.mean()), spread, tuple(seeds),
                    tuple(float(score) for score in scores), counted, dropped)


def _score(measure: Measure, sums: Floats, *, none: bool = False) -> Floats:
    """Combine sums; with ``none``, sums that are all zero stand for no second arm and score 0."""
    if none and not sums.any():
        return np.zeros(sums.shape[:-1])
    return measure.combine(sums)


def _quantile(number: int, alpha: float) -> float:
    """How many standard errors half an interval over so many seeds or cases is."""
    return float(-stdtrit(max(1, number - 1), alpha / 2))


def _common_cases(runs: Sequence[Mapping[str, Case]]) -> tuple[list[str], tuple[str, ...]]:
    """The cases that every run has, sorted, and a note on those that not all have."""
    common = set.intersection(*(set(run) for run in runs))
    lost = sorted(set.union(*(set(run) for run in runs)) - common)
    return sorted(common), (f"{_listed('case', lost)} not in every run",) if lost else ()


def _listed(word: str, items: Sequence[object], limit: int = 5) -> str:
    """Write "seed 1", "seeds 1, 2" or "cases a, b, c, d, e and 4 more"."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{word}{'s' * (len(items) > 1)} {', '.join(map(str, items[:limit]))}{more}"


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide elementwise, nan where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan),
                     where=np.asarray(denominator) > 0)


def pooled_dice_of(name: str, label: str) -> Measure:
    """Return the paper's Dice: voxels of all cases pooled, macro mean including background."""

    def contributions(cases: Sequence[Case]) -> Floats:
        return np.array([[*case["both"], *case["truth"], *case["predicted"]] for case in cases],
                        float)

    def combine(sums: Floats) -> Floats:
        both, truth, predicted = np.split(sums, 3, axis=-1)
        return np.nanmean(_ratio(2 * both, truth + predicted), axis=-1)

    return Measure(name, label, contributions, combine)
