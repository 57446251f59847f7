"""Labels saved: known curves cross where they should, with the interval they should have."""

import numpy as np
import pytest

from common import labels
from common.stats import mean_of

MEASURE = mean_of("dice", "Dice")
FRACTIONS = (5, 10, 25, 50, 100)


def arm(level: float, noise: float = 0.0, seeds: int = 3, cases: int = 40,
        shift: float = 0.0, draw: int = 0) -> dict[int, dict[str, dict[str, float]]]:
    hard = np.random.default_rng(0).normal(0, 0.1, cases)
    rng = np.random.default_rng(draw)
    return {seed: {f"c{i}": {"dice": level + hard[i] + shift * seed + e}
                   for i, e in enumerate(rng.normal(0, noise, cases))} for seed in range(seeds)}


def curve(slope: float, start: float, **how: float
          ) -> dict[int, dict[int, dict[str, dict[str, float]]]]:
    return {f: arm(start + slope * np.log(f / 5) / np.log(20), **how)  # type: ignore[arg-type]
            for f in FRACTIONS}


def test_a_curve_crosses_where_its_line_does() -> None:
    target = arm(0.7)
    found = labels.reached(MEASURE, curve(0.4, 0.5), target)  # .7 half way up, at sqrt(5 * 100) %
    assert found is not None and found.fraction is not None
    assert found.fraction == pytest.approx(500**0.5, rel=0.01)
    assert found.low is not None and found.high is not None  # what varies by case is paired
    assert found.low == pytest.approx(found.fraction, rel=0.01) == found.high
    assert found.shown(found.fraction) == "22 %"


def test_never_always_and_without_intervals() -> None:
    target = arm(0.7)
    below = labels.reached(MEASURE, curve(0.1, 0.5), target)
    assert below is not None and below.fraction is below.high is None
    assert below.shown(below.fraction) == "not reached"
    above = labels.reached(MEASURE, curve(0.1, 0.75), target)
    assert above is not None and above.shown(above.high) == "at most 5 %"
    few = labels.reached(MEASURE, curve(0.4, 0.5, seeds=2), arm(0.7, seeds=2))
    assert few is not None and few.fraction is not None and few.low is few.high is None
    assert labels.reached(MEASURE, {5: arm(0.5)}, target) is None
    assert labels.reached(MEASURE, curve(0.1, 0.5), {9: target[0]}) is None


def test_noise_between_seeds_widens_the_interval_until_nothing_can_be_claimed() -> None:
    steady = labels.reached(MEASURE, curve(0.4, 0.5, noise=0.02), arm(0.7, noise=0.02, draw=1))
    assert steady is not None and steady.low is not None and steady.fraction is not None
    assert steady.high is not None and 5 < steady.low < steady.fraction < steady.high < 100
    unsteady = labels.reached(MEASURE, curve(0.22, 0.4, shift=0.1), arm(0.7))
    assert unsteady is not None and unsteady.fraction is not None and unsteady.high is None
