"""Labels saved: the labelled fraction at which an arm reaches the baseline's score on all labels.

Between measured fractions a score is taken as linear in the logarithm of the fraction, the width of
its interval as the larger of the two neighbours'. The interval goes from the first fraction at
which the arm may be as good as the baseline on all labels to the first from which on it is: where
the interval (stats.py) of the difference, paired by seed and case, has reached zero, and where it
has left it for good. It is not adjusted for the number of arms. An arm saves labels where its
interval ends before the baseline's own begins: a baseline as good on fewer labels saves the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.report import stats
from common.report.stats import Arm, Floats, Measure

POINTS = 401  # fractions looked at, evenly over their logarithm: 0.75 % apart from 5 to 100 %


@dataclass(frozen=True)
class Reached:
    """Fractions in percent; None where not reached up to the largest that was measured."""

    fraction: float | None      # of the estimate
    low: float | None           # from here on it may be as good
    high: float | None          # from here on it is; None also without an interval
    fractions: tuple[int, ...]  # measured with every one of
    seeds: tuple[int, ...]      # which are those of the baseline on all labels
    bounded: bool               # whether there are seeds enough for an interval

    @property
    def estimate(self) -> str:
        """The fraction of the estimate."""
        return self._shown(self.fraction)

    @property
    def interval(self) -> str:
        """Both ends; none, and no claim, under stats.MIN_SEEDS."""
        return (f"{self._shown(self.low)} to {self._shown(self.high)}" if self.bounded
                else f"none under {stats.MIN_SEEDS} seeds")

    def _shown(self, value: float | None) -> str:
        """A fraction as in "12 %", "at most 5 %" or "not reached"."""
        if value is None:
            most = self.fractions[-1]
            return "not reached" + (f" up to {most} %" if most < 100 else "")
        if value <= self.fractions[0]:
            return f"at most {self.fractions[0]} %"
        return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def reached(measure: Measure, arm: Mapping[int, Arm], target: Arm) -> Reached | None:
    """Where the curve ``arm`` (fraction -> runs) reaches the score of ``target``.

    Fractions without all seeds of ``target`` are left out; None with fewer than two, if a score
    cannot be had, or if nothing ever differs (all scores 0, say).
    """
    seeds = tuple(sorted(target))
    fractions = tuple(fraction for fraction in sorted(arm) if set(seeds) <= set(arm[fraction]))
    if len(fractions) < 2:
        return None
    runs = [target, *(arm[fraction] for fraction in fractions)]
    cases = sorted(set.intersection(*(set(one[seed]) for one in runs for seed in seeds)))
    rows = np.stack([[measure.contributions([one[seed][case] for case in cases]) for seed in seeds]
                     for one in runs])                          # (1 + fractions, seeds, cases, k)
    counted: NDArray[np.bool_] = np.logical_and.reduce(rows.any(axis=3), axis=0)
    rows = rows * counted[..., None]  # what does not count in one counts in none
    scores = measure.combine(rows.sum(2))                       # (1 + fractions, seeds)
    if not np.isfinite(scores).all() or np.ptp(scores) == 0:
        return None
    gains = [stats.estimate(measure, row, rows[0], seeds) for row in rows[1:]]
    bounded = len(seeds) >= stats.MIN_SEEDS
    widths = np.array([gain.half or 0.0 for gain in gains])
    knots = np.log(fractions)
    points = np.unique(np.concatenate([np.linspace(knots[0], knots[-1], POINTS), knots]))
    mean = np.interp(points, knots, [gain.mean for gain in gains])
    right = np.searchsorted(knots, points)                      # of each point; itself at a knot
    left = np.where(np.isin(points, knots), right, np.maximum(right - 1, 0))
    half = np.maximum(widths[left], widths[right])
    ends = [_exact(points, index, fractions) for index in (
        _first(mean >= 0), _first(mean + half >= 0), _for_good(mean - half >= 0))]
    low, high = ends[1:] if bounded else (None, None)
    return Reached(ends[0], low, high, fractions, seeds, bounded)


def _first(reaches: NDArray[np.bool_]) -> int | None:
    """The first point that reaches; None if none does."""
    return int(reaches.argmax()) if reaches.any() else None


def _for_good(reaches: NDArray[np.bool_]) -> int | None:
    """The first point from which on all reach; None if the last does not."""
    if not reaches[-1]:
        return None
    return int(np.flatnonzero(~reaches)[-1]) + 1 if not reaches.all() else 0


def _exact(points: Floats, index: int | None, fractions: tuple[int, ...]) -> float | None:
    """The fraction of a point, without the rounding of a logarithm at the ends."""
    if index is None or index in (0, len(points) - 1):
        return None if index is None else float(fractions[-1 if index else 0])
    return float(np.exp(points[index]))
