"""All arms of a fraction against the baseline: every formula once more, in plain loops."""

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel
from test_estimates import DICE, FIXED, KAPPA, arm, cases, flat, graded

from common.stats import dunnett
from common.stats.estimates import Design
from common.stats.family import Family, compare, pool
from common.stats.measures import Arm, resamples

TABLE = [[0.40, 0.42, 0.45, 0.41],   # baseline; arms by seeds
         [0.44, 0.45, 0.50, 0.46],
         [0.39, 0.46, 0.44, 0.40],
         [0.50, 0.49, 0.57, 0.51]]
NAMES = ("baseline", "cpc", "mae", "rpl")
NAN = float("nan")


def study(table: list[list[float]], folds: int = 1) -> dict[str, Arm]:
    """Arms whose runs have these scores; nan: there is no run."""
    return {name: {seed: run for seed, run in flat(row, folds).items() if row[seed] == row[seed]}
            for name, row in zip((*NAMES, "sim", "cpc@stages", "jigsaw", "rotation"), table,
                                 strict=False)}


def of(table: list[list[float]], design: Design = FIXED) -> Family:
    return compare(DICE, study(table, design.folds), "baseline", design)


def rest_by_loops(table: list[list[float]]) -> tuple[float, int]:
    """s^2 and its degrees of freedom, as by a book on two-way tables."""
    arms, seeds = len(table), len(table[0])
    total = sum(sum(row) for row in table) / arms / seeds
    square = 0.0
    for row in table:
        for seed in range(seeds):
            of_arm = sum(row) / seeds
            of_seed = sum(other[seed] for other in table) / arms
            square += (row[seed] - of_arm - of_seed + total) ** 2
    return square / ((arms - 1) * (seeds - 1)), (arms - 1) * (seeds - 1)


def test_the_spread_is_pooled_over_arms_and_seeds_by_hand() -> None:
    square, df = rest_by_loops(TABLE)
    found = of(TABLE)
    assert found.pooled is not None and found.pooled.own is None and df == 9
    assert (found.pooled.block, found.pooled.df) == (pytest.approx(square), 9)
    assert found.arms == 3 and list(found.differences) == ["cpc", "mae", "rpl"]
    for row, one in zip(TABLE[1:], found.differences.values(), strict=True):
        gain = sum(row) / 4 - sum(TABLE[0]) / 4
        assert one.mean == pytest.approx(gain) and one.seeds == (0, 1, 2, 3) and one.arms == 3
        assert one.scores == pytest.approx(np.subtract(row, TABLE[0]))
        for ends, quantile in ((one.interval, student.ppf(0.975, 9)),
                               (one.adjusted, dunnett.quantile(3, 9))):
            half = quantile * (2 / 4 * square) ** 0.5
            assert ends == pytest.approx((gain - half, gain + half))
        assert one.p == pytest.approx(2 * student.sf(abs(gain) / (square / 2) ** 0.5, 9), rel=1e-6)
        assert one.adjusted_p == pytest.approx(
            dunnett.outside(gain / (square / 2) ** 0.5, 3, 9), rel=1e-6)
        assert one.adjusted_p is not None and one.p is not None
        assert one.p < one.adjusted_p < 3 * one.p


def test_one_arm_has_the_interval_and_the_p_of_a_paired_t_test() -> None:
    for row in TABLE[1:]:
        one = of([TABLE[0], row]).differences["cpc"]
        expected = ttest_rel(row, TABLE[0])
        ends = expected.confidence_interval(0.95)
        assert one.interval == pytest.approx((ends.low, ends.high), rel=1e-9) == one.adjusted
        assert one.p == pytest.approx(expected.pvalue, rel=1e-5)
        assert one.adjusted_p == one.p


def noisy(seed: int, arms: int = 4, seeds: int = 5, tested: int = 9) -> np.ndarray:
    """Scores (arms, seeds, cases)."""
    values: np.ndarray = np.random.default_rng(seed).random((arms, seeds, tested))
    return values


def test_with_one_test_set_both_spreads_have_dunnetts_quantile() -> None:
    values = noisy(0)
    runs = {name: arm(one.tolist()) for name, one in zip(NAMES, values, strict=True)}
    found = compare(DICE, runs, "baseline", FIXED)
    square, df = rest_by_loops(values.mean(axis=2).tolist())
    for one, row in zip(found.differences.values(), values[1:], strict=True):
        gains = (row - values[0]).mean(axis=0)  # of the cases
        drawn = (resamples(9) @ gains / 9).std(ddof=1) * (9 / 8) ** 0.5
        half = np.hypot(dunnett.quantile(3, df) * (2 / 5 * square) ** 0.5,
                        dunnett.quantile(3, 8) * drawn)
        assert one.adjusted == pytest.approx((gains.mean() - half, gains.mean() + half))


def test_with_rotated_folds_half_the_interval_is_that_of_the_folds_alone() -> None:
    values = noisy(12)  # in which the guard leaves all arms to the pooled spread
    runs: dict[str, Arm] = {
        name: {seed: {0: cases(row, 100 * seed)} for seed, row in enumerate(one.tolist())}
        for name, one in zip(NAMES, values, strict=True)}
    square, df = rest_by_loops(values.mean(axis=2).tolist())
    for fraction, factor in ((0, 1 / 5), (5, 1 / 5 + 0.05 / 4), (100, 1 / 5 + 1 / 4)):
        found = compare(DICE, runs, "baseline", Design(5, fraction))
        half = dunnett.quantile(3, df) * (2 * square * factor) ** 0.5
        assert found.test_sets == 5
        assert all(error > 0 for error in found.over_cases.values())
        for one in found.differences.values():
            assert one.spread is not None and one.spread.cases == 0 and one.adjusted is not None
            assert one.adjusted[1] - one.mean == pytest.approx(half)


def test_seeds_of_one_fold_are_averaged_before_they_are_pooled() -> None:
    rows = np.random.default_rng(2).normal(0.5, 0.05, (3, 10))
    found = of(rows.tolist(), Design(5, 60)).pooled
    between, df = rest_by_loops(((rows[:, :5] + rows[:, 5:]) / 2).tolist())
    within = sum(rest_by_loops(rows[:, [fold, fold + 5]].tolist())[0] for fold in range(5)) / 5
    assert found is not None and (found.block, found.df) == (pytest.approx(between), df) and df == 8
    assert found.single == pytest.approx(between + within / 2)
    one = of(rows.tolist(), Design(5, 60)).differences["mae"]
    assert one.spread is not None and one.spread.runs == pytest.approx(
        (2 * (between / 5 + 0.6 / 4 * (between + within / 2))) ** 0.5)
    assert one.mean == pytest.approx((rows[2] - rows[0]).mean()) and len(one.scores) == 10
    fixed = of(rows.tolist()).pooled  # ten seeds of one test set are ten blocks
    assert fixed is not None and fixed.df == 18


def test_draws_are_averaged_before_anything_else() -> None:
    values = noisy(3, arms=3, seeds=4)
    twice: dict[str, Arm] = {name: {seed: {0: cases(row), 3: cases([x * x for x in row])}
                                    for seed, row in enumerate(one.tolist())}
                             for name, one in zip(NAMES, values, strict=False)}
    once = {name: arm(one.tolist()) for name, one in zip(NAMES, (values + values**2) / 2,
                                                         strict=False)}
    first, second = (compare(DICE, runs, "baseline", FIXED) for runs in (twice, once))
    assert first.pooled is not None and second.pooled is not None
    assert first.pooled.df == second.pooled.df == 6
    assert first.pooled.block == pytest.approx(second.pooled.block)
    for one, other in zip(first.differences.values(), second.differences.values(), strict=True):
        assert one.interval == pytest.approx(other.interval)


def test_draws_that_not_every_arm_has_are_left_out_and_named() -> None:
    runs = study(TABLE)
    for name in ("baseline", "cpc"):
        more = {seed: {**run, 1: cases([0.9] * 4)} for seed, run in runs[name].items()}
        found = compare(DICE, {**runs, name: more}, "baseline", FIXED)
        assert found.differences == of(TABLE).differences
        assert found.notes == ("draw 1 not of every arm, left out",)


def test_differences_of_kappa_are_of_kappas_of_folds() -> None:
    right, wrong = ((0, 0), (0, 0), (4, 4), (4, 4)), ((0, 0), (0, 4), (4, 0), (4, 4))
    runs: dict[str, Arm] = {
        name: {seed: {0: graded(*pairs, first=4 * seed)} for seed, pairs in enumerate(rows)}
        for name, rows in {"baseline": [right, wrong, wrong], "cpc": [right, right, wrong]}.items()}
    one = compare(KAPPA, runs, "baseline", Design(3)).differences["cpc"]
    assert one.scores == pytest.approx((0, 1, 0)) and one.mean == pytest.approx(1 / 3)
    assert one.interval is not None and one.interval[1] > 1  # not cut, unlike that of a mean
    pooled: dict[str, Arm] = {name: {0: {0: {k: v for run in one.values() for k, v in
                                             run[0].items()}}} for name, one in runs.items()}
    together = compare(KAPPA, pooled, "baseline", FIXED).differences["cpc"].mean
    assert together == pytest.approx(1 / 3)  # balanced folds: alike; and of unbalanced ones not:
    guess = {"baseline": {0: {0: graded((0, 0), (0, 4), (4, 0), (4, 4))},
                          1: {0: graded((0, 0), (0, 4), (4, 0), (4, 4), first=4)}},
             "cpc": {0: {0: graded((0, 0), (0, 0), (4, 0), (4, 0))},
                     1: {0: graded((0, 4), (0, 4), (4, 4), (4, 4), first=4)}}}
    assert compare(KAPPA, guess, "baseline", Design(3)).differences["cpc"].scores == (0, 0)


def test_controls_keep_their_own_spread_and_change_nothing_for_the_arms() -> None:
    wild = [0.9, 0.2, 0.7, 0.99]
    runs = {**study(TABLE), "oracle": flat(wild), "cpc@shuffled": flat(TABLE[2])}
    found = compare(DICE, runs, "baseline", FIXED, controls=["oracle", "cpc@shuffled"])
    alone = of(TABLE)
    assert found.pooled == alone.pooled and found.arms == 3
    for name in NAMES[1:]:
        assert found.differences[name] == alone.differences[name]
    for name, row in (("oracle", wild), ("cpc@shuffled", TABLE[2])):
        one, expected = found.differences[name], ttest_rel(row, TABLE[0])
        ends = expected.confidence_interval(0.95)
        assert one.arms == 1 and one.adjusted == one.interval
        assert one.interval == pytest.approx((ends.low, ends.high))
        assert one.adjusted_p == pytest.approx(expected.pvalue)
    only = compare(DICE, {"baseline": runs["baseline"], "oracle": runs["oracle"]}, "baseline",
                   FIXED, controls=["oracle"])
    assert only.pooled is None and only.differences["oracle"] == found.differences["oracle"]


def test_without_some_runs_the_rest_is_that_of_the_additive_fit() -> None:
    table = [[0.40, 0.42, 0.45, 0.41], [0.44, NAN, 0.50, 0.46], [0.39, 0.46, 0.44, NAN],
             [0.50, 0.49, 0.57, 0.51]]
    of_arm, of_seed = np.zeros(4), np.zeros(4)
    there = ~np.isnan(table)
    for _ in range(2000):  # by turns, until nothing changes: least squares without a matrix
        for i in range(4):
            of_arm[i] = np.mean([table[i][j] - of_seed[j] for j in range(4) if there[i][j]])
        for j in range(4):
            of_seed[j] = np.mean([table[i][j] - of_arm[i] for i in range(4) if there[i][j]])
    square = sum((table[i][j] - of_arm[i] - of_seed[j]) ** 2
                 for i in range(4) for j in range(4) if there[i][j])
    df = 14 - (4 + 4 - 1)
    found = of(table)
    assert found.pooled is not None and found.pooled.own is None
    assert (found.pooled.block, found.pooled.df) == (pytest.approx(square / df), df)
    cpc, rpl = found.differences["cpc"], found.differences["rpl"]
    assert cpc.seeds == (0, 2, 3) and cpc.mean == pytest.approx((0.04 + 0.05 + 0.05) / 3)
    for one, seeds in ((cpc, 3), (rpl, 4)):
        assert one.spread is not None and one.spread.runs_df == df
        assert one.spread.runs == pytest.approx((2 * square / df / seeds) ** 0.5)


def test_seeds_that_the_baseline_lacks_are_no_pairs() -> None:
    table = [[0.4, 0.42, 0.45, NAN], [0.44, 0.45, 0.5, 0.9], [NAN, NAN, NAN, 0.5]]
    found = of(table)
    assert list(found.differences) == ["cpc"] and found.differences["cpc"].seeds == (0, 1, 2)
    assert found.differences["cpc"].mean == pytest.approx((0.04 + 0.03 + 0.05) / 3)
    few = of([[0.4, 0.42, 0.45, NAN], [0.44, 0.45, NAN, 0.9], [0.4, 0.41, 0.44, NAN]])
    assert few.differences["cpc"].interval is None and few.differences["mae"].interval is not None


def test_a_case_that_counts_in_one_arm_alone_counts_in_neither() -> None:
    runs = {"baseline": arm([[0.5, 0.1, None]] * 3), "cpc": arm([[0.6, None, 0.9]] * 3)}
    one = compare(DICE, runs, "baseline", FIXED).differences["cpc"]
    assert one.mean == pytest.approx(0.1) and one.counted == (1, 1, 1)


def test_cases_that_not_all_runs_have_are_left_out_and_named() -> None:
    runs = {"baseline": arm([[0.5, 0.6]] * 3), "cpc": arm([[0.6, 0.7, 0.8]] * 3)}
    found = compare(DICE, runs, "baseline", FIXED)
    assert found.differences["cpc"].mean == pytest.approx(0.1)
    assert found.notes == ("case c002 not in every run, left out",)
    many = {"baseline": arm([[0.5]] * 3), "cpc": arm([[0.5] * 8] * 3)}
    assert compare(DICE, many, "baseline", FIXED).notes == (
        "cases c001, c002, c003, c004, c005 and 2 more not in every run, left out",)
    assert of(TABLE).notes == ()


def test_a_paired_difference_is_formed_per_seed_and_case() -> None:
    base = noisy(5, arms=1, seeds=3)[0]
    runs = {"baseline": arm(base.tolist()), "cpc": arm((base + 0.1).tolist())}
    one = compare(DICE, runs, "baseline", FIXED).differences["cpc"]
    assert one.mean == pytest.approx(0.1) and one.half == pytest.approx(0, abs=1e-9)


def test_a_loss_is_the_gain_the_other_way_round() -> None:
    base, other = (arm(one.tolist()) for one in noisy(6, arms=2, seeds=3))
    gain = compare(DICE, {"a": base, "b": other}, "a", FIXED).differences["b"]
    loss = compare(DICE, {"a": base, "b": other}, "b", FIXED).differences["a"]
    assert gain.interval is not None and loss.mean == pytest.approx(-gain.mean)
    assert loss.p == pytest.approx(gain.p) and gain.p is not None and 0 < gain.p < 1
    assert loss.interval == pytest.approx((-gain.interval[1], -gain.interval[0]))


def test_scores_given_replace_those_of_the_cases_whose_spread_stands_in() -> None:
    values = noisy(10)
    runs = {name: arm(one.tolist()) for name, one in zip(NAMES, values, strict=True)}
    lasts = np.random.default_rng(11).normal(0.5, 0.01, (4, 5)).tolist()
    last = {name: dict(enumerate(row)) for name, row in zip(NAMES, lasts, strict=True)}
    plain = compare(DICE, runs, "baseline", FIXED)
    found = compare(DICE, runs, "baseline", FIXED, scores=last)
    square, df = rest_by_loops(lasts)
    assert found.pooled is not None and not found.moderated
    assert found.pooled.block == pytest.approx(square)
    for name, one in found.differences.items():
        assert one.scores == pytest.approx([last[name][seed] - last["baseline"][seed]
                                            for seed in range(5)])
        assert one.spread is not None and one.spread.runs == pytest.approx((2 * square / 5) ** 0.5)
        before = plain.differences[name].spread
        assert before is not None and one.spread.cases == before.cases > 0
        assert one.spread.runs_df == df


def test_under_three_blocks_or_arms_nothing_is_pooled() -> None:
    two = of([row[:2] for row in TABLE])
    assert two.pooled is None and all(one.interval is None for one in two.differences.values())
    assert pool(np.array(TABLE[:1]), range(4), FIXED) is None
    folds = study(TABLE, 2)  # four seeds of two folds
    assert compare(DICE, folds, "baseline", Design(2)).pooled is None
