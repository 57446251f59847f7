"""Labels saved: known curves cross where they should, with the interval they should have."""

import numpy as np
import pytest
from scipy.stats import t as student
from test_estimates import FIXED, flat
from test_family import rest_by_loops

from common.stats import savings
from common.stats.estimates import Design
from common.stats.family import compare
from common.stats.measures import Arm, mean_of
from common.stats.savings import Reached, across, within

MEASURE = mean_of("dice", "Dice")
FRACTIONS = (5, 10, 25, 50, 100)


def arm(level: float, noise: float = 0.0, seeds: int = 3, cases: int = 40,
        shift: float = 0.0, draw: int = 0) -> dict[int, dict[int, dict[str, dict[str, float]]]]:
    hard = np.random.default_rng(0).normal(0, 0.1, cases)
    rng = np.random.default_rng(draw)
    return {seed: {0: {f"c{i}": {"dice": level + hard[i] + shift * seed + e}
                       for i, e in enumerate(rng.normal(0, noise, cases))}}
            for seed in range(seeds)}


def curve(slope: float, start: float, **how: float) -> dict[int, Arm]:
    return {f: arm(start + slope * np.log(f / 5) / np.log(20), **how)  # type: ignore[arg-type]
            for f in FRACTIONS}


def reached(grid: dict[int, Arm], target: Arm) -> Reached | None:
    """Where an arm's curve reaches the score of the baseline, trained on all labels alone."""
    arms = {("baseline", 100): target, **{("cpc", f): one for f, one in grid.items()}}
    return savings.reached(MEASURE, arms, "baseline").get("cpc")


def test_a_curve_crosses_where_its_line_does() -> None:
    target = arm(0.7)
    found = reached(curve(0.4, 0.5), target)  # .7 half way up, at sqrt(5 * 100) %
    assert found is not None and found.fraction is not None
    assert found.fraction == pytest.approx(500**0.5, rel=0.01)
    assert found.low is not None and found.high is not None  # what varies by case is paired
    assert found.low == pytest.approx(found.fraction, rel=0.01) == found.high
    assert found.estimate == "22 %" and found.seeds == (0, 1, 2)


def test_never_always_and_without_intervals() -> None:
    target = arm(0.7)
    below = reached(curve(0.1, 0.5), target)
    assert below is not None and below.fraction is below.high is None
    assert below.estimate == "not reached"
    above = reached(curve(0.1, 0.75), target)
    assert above is not None and above.interval == "at most 5 % to at most 5 %"
    few = reached(curve(0.4, 0.5, seeds=2), arm(0.7, seeds=2))
    assert few is not None and few.fraction is not None and few.low is few.high is None
    assert few.interval == "none under 3 seeds"
    assert reached({5: arm(0.5)}, target) is None
    assert reached(curve(0.1, 0.5), {9: target[0]}) is None


def test_a_fraction_with_more_labelled_subsets_has_them_all() -> None:
    grid, target = curve(0.4, 0.5), arm(0.7)
    once = reached(grid, target)
    grid[5] = {seed: {0: runs[0], 1: {case: {"dice": one["dice"] + 0.6}
                                      for case, one in runs[0].items()}}
               for seed, runs in grid[5].items()}  # with both draws it starts at .8
    found = reached(grid, target)
    assert once is not None and once.estimate == "22 %"
    assert found is not None and found.estimate == "at most 5 %"


def test_noise_between_seeds_widens_the_interval_until_nothing_can_be_claimed() -> None:
    steady = reached(curve(0.4, 0.5, noise=0.02), arm(0.7, noise=0.02, draw=1))
    assert steady is not None and steady.low is not None and steady.fraction is not None
    assert steady.high is not None and 5 < steady.low < steady.fraction < steady.high < 100
    unsteady = reached(curve(0.22, 0.4, shift=0.1), arm(0.7))
    assert unsteady is not None and unsteady.fraction is not None and unsteady.high is None


def difference(runs: Arm, target: Arm) -> tuple[float, float] | None:
    return compare(MEASURE, {"all": target, "cpc": runs}, "all", FIXED).differences["cpc"].interval


def test_it_agrees_with_the_paired_differences_at_measured_fractions() -> None:
    for seed in range(6):
        grid: dict[int, Arm] = {f: arm(0.5 + 0.06 * i, noise=0.05, draw=10 * seed + i,
                                       shift=0.01 * (i - 2)) for i, f in enumerate(FRACTIONS)}
        target = arm(0.65, noise=0.05, draw=99 + seed)
        found = reached(grid, target)
        assert found is not None
        for fraction in FRACTIONS:
            one = difference(grid[fraction], target)
            assert one is not None
            low, high = one
            assert (low < 0) or (found.high is not None)
            if found.high is not None and fraction >= found.high:
                assert low >= -1e-9
            if found.low is None or fraction < found.low - 1e-9:
                assert high < 0
        if found.high is None:
            last = difference(grid[100], target)
            assert last is not None and last[0] < 0


def test_a_curve_that_dips_again_is_not_there_for_good() -> None:
    levels = (0.75, 0.6, 0.6, 0.6, 0.6)
    found = reached({f: arm(v, noise=0.01, draw=i) for i, (f, v) in
                                     enumerate(zip(FRACTIONS, levels, strict=True))}, arm(0.7))
    assert found is not None and found.low == 5 and found.high is None
    assert found.interval == "at most 5 % to not reached"


def test_odd_fractions_cases_that_do_not_count_and_partial_grids() -> None:
    ten = {f: one for f, one in curve(0.1, 0.75).items() if f >= 10}
    found = reached(ten, arm(0.7))
    assert found is not None and found.estimate == "at most 10 %"
    target = arm(0.7)
    empty: Arm = {seed: {0: {**run[0], **{f"e{i}": {"dice": None} for i in range(6)}}}
                  for seed, run in target.items()}
    invented: dict[int, Arm] = {
        f: {seed: {0: {**run[0], **{f"e{i}": {"dice": 0.0} for i in range(6)}}}
            for seed, run in one.items()} for f, one in curve(0.4, 0.5).items()}
    found = reached(invented, empty)
    assert found is not None and found.estimate == "22 %"
    partial = curve(0.4, 0.5)
    partial[100] = {0: partial[100][0]}
    found = reached(partial, target)
    assert found is not None and found.fractions == (5, 10, 25, 50)
    short = {f: one for f, one in curve(0.1, 0.5).items() if f <= 25}
    found = reached(short, target)
    assert found is not None and found.estimate == "not reached up to 25 %"
    same = flat([0.0] * 3)
    assert reached({5: same, 100: same}, same) is None


def test_a_true_crossing_lies_in_the_interval_as_often_as_it_should() -> None:
    rng, inside = np.random.default_rng(1), 0
    cases = 30
    for _ in range(200):
        hard, noise = rng.normal(0, 0.1, cases), lambda: rng.normal(0, 0.02, cases)
        runs: dict[int, Arm] = {f: {seed: {0: {f"c{i}": {"dice": v} for i, v in enumerate(
            0.5 + 0.4 * np.log(f / 5) / np.log(20) + hard + noise() + rng.normal(0, 0.02))}}
            for seed in range(3)} for f in FRACTIONS}
        target: Arm = {seed: {0: {f"c{i}": {"dice": v} for i, v in enumerate(
            0.7 + hard + noise() + rng.normal(0, 0.02))}} for seed in range(3)}
        found = reached(runs, target)
        assert found is not None
        inside += (found.low or 101) <= 500**0.5 <= (found.high or 101)
    assert inside >= 180


def test_between_two_fractions_the_wider_of_their_intervals_holds() -> None:
    wide, sharp, target = flat([0.4, 0.5, 0.6]), flat([0.8] * 3), flat([0.7] * 3)
    found = reached({10: wide, 100: sharp}, target)
    assert found is not None and found.fraction == pytest.approx(10 * 10 ** (2 / 3), rel=0.01)
    assert found.low == 10 and found.high == 100  # half a width of .25 all the way to the last
    other = reached({10: sharp, 100: wide}, target)
    assert other is not None and other.low == other.fraction == 10 and other.high is None


def scores(seed: int, arms: int = 3, seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Scores (arms, seeds) at a fraction, and (seeds) of the baseline on all labels."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.5, 0.02, (arms, seeds)), rng.normal(0.6, 0.01, seeds)


def test_an_arm_of_a_family_less_all_labels_has_two_spreads_by_hand() -> None:
    family, goal = scores(1)
    square, df = rest_by_loops(family.tolist())
    apart = student.ppf(0.975, df) * (square * (1 - 1 / 3) / 5) ** 0.5
    shared = student.ppf(0.975, 4) * (family.mean(axis=0) - goal).std(ddof=1) / 5**0.5
    assert across(family, goal, range(5), FIXED, over_cases=0.0, cases=9) == pytest.approx(
        np.hypot(apart, shared))
    over_cases = student.ppf(0.975, 8) * 0.01
    assert across(family, goal, range(5), FIXED, over_cases=0.01, cases=9) == pytest.approx(
        (apart**2 + shared**2 + over_cases**2) ** 0.5)
    factor = (1 / 5 + 0.1 / 4) * 5, (1 / 5 + 1 / 4) * 5  # overlap at 10 %, and of all labels
    assert across(family, goal, range(5), Design(5, 10), over_cases=0.0, cases=9) == pytest.approx(
        np.hypot(apart * factor[0] ** 0.5, shared * factor[1] ** 0.5))
    assert across(family[:, :2], goal[:2], range(2), FIXED, over_cases=0.0, cases=9) is None


def test_an_arm_on_all_labels_has_the_spread_of_its_family_by_hand() -> None:
    family, _ = scores(2)
    square, df = rest_by_loops(family.tolist())
    runs, of_cases = student.ppf(0.975, df) * (2 * square / 5) ** 0.5, student.ppf(0.975, 8) * 0.01
    for number in (1, 2):
        assert within(family, number, range(5), FIXED, over_cases=0.01, cases=9) == pytest.approx(
            np.hypot(runs, of_cases))
    assert within(family[:, :2], 1, range(2), FIXED, over_cases=0.01, cases=9) is None


@pytest.mark.parametrize("folds", [1, 5])
def test_reached_takes_the_spread_of_the_family(folds: int) -> None:
    few, goal = scores(3)
    few[1] += goal.mean() - few[1].mean() + 1e-9  # at 5 % as good as the baseline on all labels
    many, _ = scores(4)
    many[0] = goal
    many[1:] += 0.2
    names = ("baseline", "cpc", "rpl")
    arms = {(name, fraction): flat(row, folds) for fraction, rows in ((5, few), (100, many))
            for name, row in zip(names, rows.tolist(), strict=True)}
    found = savings.reached(MEASURE, arms, "baseline", folds)
    assert found["cpc"].low == 5 and found["cpc"].fraction == pytest.approx(5)
    half = across(few, goal, range(5), Design(folds, 5), over_cases=0.0, cases=4)
    other = within(many, 1, range(5), Design(folds, 100), over_cases=0.0, cases=4)
    assert half is not None and other is not None
    mean = many[1].mean() - goal.mean()
    assert found["cpc"].high == pytest.approx(5 * 20 ** (max(half, other) / mean), rel=0.01)
    wild = {("oracle", fraction): flat([0.1, 0.9, 0.2, 0.8, 0.5], folds) for fraction in (5, 100)}
    more = savings.reached(MEASURE, {**arms, **wild}, "baseline", folds, ["oracle"])
    assert {name: more[name] for name in found} == found and "oracle" in more  # controls: outside
    assert savings.reached(MEASURE, {**arms, **wild}, "baseline", folds)["cpc"] != found["cpc"]


def test_without_the_baseline_on_all_labels_nothing_is_reached() -> None:
    arms = {("baseline", 5): flat([0.5] * 3), ("cpc", 5): flat([0.6] * 3),
            ("cpc", 100): flat([0.7] * 3)}
    assert savings.reached(MEASURE, arms, "baseline") == {}


def test_seeds_of_two_folds_bound_nothing() -> None:
    runs = {("baseline", 100): flat([0.5, 0.6, 0.5, 0.6], 2), ("cpc", 5): flat([0.5] * 4, 2),
            ("cpc", 100): flat([0.7] * 4, 2)}
    found = savings.reached(MEASURE, runs, "baseline", 2)["cpc"]
    assert not found.bounded and found.low is found.high is None
    assert found.interval == "none under 3 seeds"
