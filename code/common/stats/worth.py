"""What an arm's n labelled cases are worth: with how many the baseline has the arm's score.

On lines between the baseline's means, over the logarithm of n. It takes no curve of the arm, so one
fraction is enough, and none of the baseline: it is more than n just where the arm lies above the
baseline, as a curve that misses the mean at n would not have it. A line between two fractions lies
under a curve that flattens, which overstates worth by little where they are near: POWER_FRACTIONS
of the baseline are asked for. Intervals are percentiles of joint draws of all means (exchange.py),
of one arm each. That an arm's labels are worth more than n is shown for all arms of a fraction at
once where its adjusted difference to the baseline leaves out zero. Coverage: bench/coverage.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.stats.measures import Floats

POWER_FRACTIONS = 5  # of the baseline: fewer tell no power law's three numbers
TAIL = 0.025         # of the draws beyond each end of an interval


@dataclass(frozen=True)
class Value:
    """A number with its interval, both None under MIN_BLOCKS; inf: beyond what is looked up."""

    value: float
    low: float | None = None
    high: float | None = None


def worth(drawn: Mapping[str, Floats], labelled: Mapping[int, float]
          ) -> dict[str, dict[int, Value]]:
    """What each arm's labels are worth, in the baseline's; none under POWER_FRACTIONS of it.

    ``drawn`` as for ``rates``. Inf: more than the most that were measured.
    """
    (_, own), *arms = drawn.items()
    n = np.array(list(labelled.values()))
    if len(n) < POWER_FRACTIONS:
        return {}
    return {arm: {fraction: interval(_level(own, n, place, y[:, place]))
                  for place, fraction in enumerate(labelled) if np.isfinite(y[0, place])}
            for arm, y in arms}


def _level(own: Floats, n: Floats, place: int, score: Floats) -> Floats:
    """Where rows of means (rows, fractions) at n first have a score (rows), seen from n[place].

    Upwards where the score is above the row's mean there, else downwards.
    """
    above = score > own[:, place]
    found = np.where(above, np.inf, np.where(score < own[:, place], n[0], n[place]))
    segments = [*((left, above) for left in reversed(range(place, len(n) - 1))),
                *((left, score < own[:, place]) for left in range(place))]  # the nearest last
    for left, looked in segments:
        low, high = own[:, left], own[:, left + 1]
        crossed = looked & (low <= score) & (high >= score) & (low < high)
        part = np.divide(score - low, high - low, out=np.zeros(len(own)), where=crossed)
        found = np.where(crossed, n[left] * (n[left + 1] / n[left]) ** part, found)
    return found


def interval(numbers: Floats, tail: float = TAIL) -> Value:
    """The first number, with the percentiles of the others."""
    if len(numbers) == 1:
        return Value(float(numbers[0]))
    ranked = np.sort(numbers[1:])
    beyond = int(tail * len(ranked))
    return Value(float(numbers[0]), float(ranked[beyond]), float(ranked[-1 - beyond]))
