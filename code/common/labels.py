"""Labels saved: the labelled fraction at which an arm reaches the baseline's score on all labels.

Between measured fractions a score is taken as linear in the logarithm of the fraction. The interval
holds the fractions at which the difference to the baseline's score on all labels, paired by seed
and case, has an interval (stats.py: over seeds and test cases together) with zero in it, so that it
agrees with the tables. Where its upper end is not reached, no saving can be claimed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common import stats
from common.stats import Arm, Floats, Measure

POINTS = 401  # fractions looked at, evenly over their logarithm: 0.75 % apart from 5 to 100 %


@dataclass(frozen=True)
class Reached:
    """Fractions in percent; None where not reached up to the largest."""

    fraction: float | None  # of the estimate
    low: float | None       # from here on it may be as good
    high: float | None      # from here on it is; None also without an interval
    smallest: int           # fraction measured: a value as small may lie below
    bounded: bool           # whether there are seeds enough for an interval

    @property
    def interval(self) -> str:
        """Both ends; nothing without an interval."""
        return f"{self.shown(self.low)} to {self.shown(self.high)}" if self.bounded else ""

    def shown(self, value: float | None) -> str:
        """A fraction as in "12 %", "at most 5 %" or "not reached"."""
        if value is None:
            return "not reached"
        return f"at most {self.smallest} %" if value <= self.smallest else f"{value:.0f} %"


def reached(measure: Measure, arm: Mapping[int, Arm], target: Arm) -> Reached | None:
    """Where the curve ``arm`` (fraction -> runs) reaches the score of ``target``.

    None with fewer than two fractions, or if no seed has all of them.
    """
    fractions = sorted(arm)
    seeds = sorted(set.intersection(set(target), *(set(runs) for runs in arm.values())))
    if len(fractions) < 2 or not seeds:
        return None
    runs = [target, *(arm[fraction] for fraction in fractions)]
    cases = sorted(set.intersection(*(set(one[seed]) for one in runs for seed in seeds)))
    drawn_and_scores = [_scores(measure, one, seeds, cases) for one in runs]
    scores = np.stack([one for one, _ in drawn_and_scores])  # (1 + fractions, seeds)
    drawn = np.stack([one for _, one in drawn_and_scores])   # (1 + fractions, seeds, draws)
    grid = np.linspace(np.log(fractions[0]), np.log(fractions[-1]), POINTS)
    weights = _weights(grid, np.log(fractions))              # (points, fractions)
    gain = weights @ scores[1:] - scores[0]                  # (points, seeds)
    mean = gain.mean(1)
    estimate = _first(mean >= 0, grid)
    if len(seeds) < stats.MIN_SEEDS:
        return Reached(estimate, None, None, fractions[0], bounded=False)
    over_draws = weights @ drawn[1:].mean(1) - drawn[0].mean(0)  # (points, draws)
    error = np.hypot(gain.std(1, ddof=1) / len(seeds) ** 0.5, np.nanstd(over_draws, axis=1, ddof=1))
    half = stats.student(len(seeds)) * error
    return Reached(estimate, _first(mean + half >= 0, grid), _first(mean - half >= 0, grid),
                   fractions[0], bounded=True)


def _scores(measure: Measure, arm: Arm, seeds: list[int],
            cases: list[str]) -> tuple[Floats, Floats]:
    """Scores of every seed, (seeds,), and of every bootstrap draw, (seeds, draws)."""
    rows = np.stack([measure.contributions([arm[seed][case] for case in cases])
                     for seed in seeds])
    return measure.combine(rows.sum(1)), measure.combine(stats.resamples(len(cases)) @ rows)


def _weights(points: Floats, knots: Floats) -> Floats:
    """What each knot counts at each point, linear between two knots: (points, knots)."""
    return np.stack([np.interp(points, knots, row) for row in np.eye(len(knots))], axis=1)


def _first(reaches: np.ndarray, grid: Floats) -> float | None:
    """The fraction of the first point that reaches; None if none does."""
    return float(np.exp(grid[reaches.argmax()])) if reaches.any() else None
