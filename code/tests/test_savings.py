"""Labels saved: known curves cross where they should, with the interval they should have."""

import numpy as np
import pytest

from common.report import savings
from common.report.stats import difference, mean_of

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
    found = savings.reached(MEASURE, curve(0.4, 0.5), target)  # .7 half way up, at sqrt(5 * 100) %
    assert found is not None and found.fraction is not None
    assert found.fraction == pytest.approx(500**0.5, rel=0.01)
    assert found.low is not None and found.high is not None  # what varies by case is paired
    assert found.low == pytest.approx(found.fraction, rel=0.01) == found.high
    assert found.estimate == "22 %" and found.seeds == (0, 1, 2)


def test_never_always_and_without_intervals() -> None:
    target = arm(0.7)
    below = savings.reached(MEASURE, curve(0.1, 0.5), target)
    assert below is not None and below.fraction is below.high is None
    assert below.estimate == "not reached"
    above = savings.reached(MEASURE, curve(0.1, 0.75), target)
    assert above is not None and above.interval == "at most 5 % to at most 5 %"
    few = savings.reached(MEASURE, curve(0.4, 0.5, seeds=2), arm(0.7, seeds=2))
    assert few is not None and few.fraction is not None and few.low is few.high is None
    assert few.interval == "none under 3 seeds"
    assert savings.reached(MEASURE, {5: arm(0.5)}, target) is None
    assert savings.reached(MEASURE, curve(0.1, 0.5), {9: target[0]}) is None


def test_noise_between_seeds_widens_the_interval_until_nothing_can_be_claimed() -> None:
    steady = savings.reached(MEASURE, curve(0.4, 0.5, noise=0.02), arm(0.7, noise=0.02, draw=1))
    assert steady is not None and steady.low is not None and steady.fraction is not None
    assert steady.high is not None and 5 < steady.low < steady.fraction < steady.high < 100
    unsteady = savings.reached(MEASURE, curve(0.22, 0.4, shift=0.1), arm(0.7))
    assert unsteady is not None and unsteady.fraction is not None and unsteady.high is None


def test_it_agrees_with_the_paired_differences_at_measured_fractions() -> None:
    for seed in range(6):
        grid = {f: arm(0.5 + 0.06 * i, noise=0.05, draw=10 * seed + i, shift=0.01 * (i - 2))
                for i, f in enumerate(FRACTIONS)}
        target = arm(0.65, noise=0.05, draw=99 + seed)
        found = savings.reached(MEASURE, grid, target)
        assert found is not None
        for fraction in FRACTIONS:
            one = difference(MEASURE, grid[fraction], target)
            assert one is not None and one.interval is not None
            low, high = one.interval
            assert (low < 0) or (found.high is not None)
            if found.high is not None and fraction >= found.high:
                assert low >= -1e-9
            if found.low is None or fraction < found.low - 1e-9:
                assert high < 0
        if found.high is None:
            last = difference(MEASURE, grid[100], target)
            assert last is not None and last.interval is not None and last.interval[0] < 0


def test_a_curve_that_dips_again_is_not_there_for_good() -> None:
    levels = (0.75, 0.6, 0.6, 0.6, 0.6)
    found = savings.reached(MEASURE, {f: arm(v, noise=0.01, draw=i) for i, (f, v) in
                                     enumerate(zip(FRACTIONS, levels, strict=True))}, arm(0.7))
    assert found is not None and found.low == 5 and found.high is None
    assert found.interval == "at most 5 % to not reached"


def test_odd_fractions_cases_that_do_not_count_and_partial_grids() -> None:
    ten = {f: one for f, one in curve(0.1, 0.75).items() if f >= 10}
    found = savings.reached(MEASURE, ten, arm(0.7))
    assert found is not None and found.estimate == "at most 10 %"
    target = arm(0.7)
    empty = {seed: cases | {f"e{i}": {"dice": None} for i in range(6)}
             for seed, cases in target.items()}
    invented = {f: {seed: cases | {f"e{i}": {"dice": 0.0} for i in range(6)}
                    for seed, cases in one.items()} for f, one in curve(0.4, 0.5).items()}
    found = savings.reached(MEASURE, invented, empty)  # type: ignore[arg-type]
    assert found is not None and found.estimate == "22 %"
    partial = curve(0.4, 0.5)
    partial[100] = {0: partial[100][0]}
    found = savings.reached(MEASURE, partial, target)
    assert found is not None and found.fractions == (5, 10, 25, 50)
    short = {f: one for f, one in curve(0.1, 0.5).items() if f <= 25}
    found = savings.reached(MEASURE, short, target)
    assert found is not None and found.estimate == "not reached up to 25 %"
    same = {seed: {case: {"dice": 0.0} for case in cases} for seed, cases in target.items()}
    assert savings.reached(MEASURE, {5: same, 100: same}, same) is None


def test_a_true_crossing_lies_in_the_interval_as_often_as_it_should() -> None:
    rng, inside = np.random.default_rng(1), 0
    cases = 30
    for _ in range(200):
        hard, noise = rng.normal(0, 0.1, cases), lambda: rng.normal(0, 0.02, cases)
        runs = {f: {seed: {f"c{i}": {"dice": v} for i, v in enumerate(
            0.5 + 0.4 * np.log(f / 5) / np.log(20) + hard + noise() + rng.normal(0, 0.02))}
            for seed in range(3)} for f in FRACTIONS}
        target = {seed: {f"c{i}": {"dice": v} for i, v in enumerate(
            0.7 + hard + noise() + rng.normal(0, 0.02))} for seed in range(3)}
        found = savings.reached(MEASURE, runs, target)
        assert found is not None
        inside += (found.low or 101) <= 500**0.5 <= (found.high or 101)
    assert inside >= 180


def test_between_two_fractions_the_wider_of_their_intervals_holds() -> None:
    wide = {seed: {case: {"dice": 0.5 + 0.1 * (seed - 1)} for case in "abcd"} for seed in range(3)}
    sharp, target = ({seed: {case: {"dice": level} for case in "abcd"} for seed in range(3)}
                     for level in (0.8, 0.7))
    found = savings.reached(MEASURE, {10: wide, 100: sharp}, target)
    assert found is not None and found.fraction == pytest.approx(10 * 10 ** (2 / 3), rel=0.01)
    assert found.low == 10 and found.high == 100  # half a width of .25 all the way to the last
    other = savings.reached(MEASURE, {10: sharp, 100: wide}, target)
    assert other is not None and other.low == other.fraction == 10 and other.high is None
