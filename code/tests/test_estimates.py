"""Means over seeds and their intervals by hand: blocks, draws, cases, kappa per fold, bounds."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from common.errors import InputError
from common.stats import dunnett, estimates
from common.stats.estimates import Aligned, Design, Spread, mean, own_spread
from common.stats.measures import Arm, Cases, kappa_of, mean_of, resamples

DICE = mean_of("dice", "Dice")
KAPPA = kappa_of("kappa", "kappa", 5)
FIXED = Design()
Values = Sequence[float | None]


def cases(values: Values, first: int = 0) -> Cases:
    return {f"c{first + i:03d}": {"dice": value} for i, value in enumerate(values)}


def arm(values: Sequence[Values]) -> Arm:
    """Of values (seeds, cases), one draw, the same cases for every seed."""
    return {seed: {0: cases(row)} for seed, row in enumerate(values)}


def flat(scores: Sequence[float], folds: int = 1, tested: int = 4) -> Arm:
    """All cases of a run alike: nothing varies over them. Each fold has its own."""
    return {seed: {0: cases([score] * tested, 100 * (seed % folds))}
            for seed, score in enumerate(scores)}


def alike(values: Values, seeds: int = 3) -> Arm:
    """Every seed has the same scores of the cases: nothing varies over seeds."""
    return arm([values] * seeds)


def graded(*pairs: tuple[int, int], first: int = 0) -> Cases:
    return {f"c{first + i:03d}": {"truth": truth, "predicted": predicted}
            for i, (truth, predicted) in enumerate(pairs)}


def test_each_spread_has_its_own_degrees_of_freedom() -> None:
    only_runs, only_cases = Spread(0.1, 2), Spread(0.0, 2, 0.1, 50)
    assert only_runs.half() == pytest.approx(0.4303, abs=1e-4)   # t(2, .975) = 4.303
    assert only_cases.half() == pytest.approx(0.2009, abs=1e-4)  # t(50, .975) = 2.009
    assert only_runs.p(0.4303) == pytest.approx(0.05, abs=1e-4)
    both = Spread(0.1, 2, 0.2, 50)
    assert both.half() == pytest.approx(np.hypot(0.4303, 0.4017), abs=1e-3)
    assert both.error == pytest.approx(np.hypot(0.1, 0.2))
    for arms in (2, 7):
        assert both.half(arms) == pytest.approx(np.hypot(
            0.1 * dunnett.quantile(arms, 2), 0.2 * dunnett.quantile(arms, 50)))


@pytest.mark.parametrize("spread", [Spread(0.1, 8), Spread(0.1, 8, 0.2, 50)])
@pytest.mark.parametrize("arms", [1, 3])
def test_p_is_where_the_interval_ends_at_zero(spread: Spread, arms: int) -> None:
    for estimate in (0.02, 0.3, 0.5, 0.7):
        p = spread.p(estimate, arms)
        assert 0 < p < 1 and spread.half(arms, p) == pytest.approx(estimate, abs=1e-5)
        assert spread.p(-estimate, arms) == p
        assert (p < 0.05) == (estimate > spread.half(arms))
    assert spread.p(0.0, arms) == pytest.approx(1.0)
    assert Spread(0.0, 2).p(0.1) == 0.0 and Spread(0.0, 2).p(0.0) == 1.0


def test_under_three_seeds_there_is_no_interval() -> None:
    two, three = mean(DICE, flat([0.3, 0.5]), FIXED), mean(DICE, flat([0.3, 0.5, 0.4]), FIXED)
    assert two.mean == pytest.approx(0.4) and three.interval is not None
    assert (two.interval, two.adjusted, two.p, two.adjusted_p, two.half) == (None,) * 5


def test_three_seeds_of_two_folds_are_two_blocks_and_have_no_interval() -> None:
    runs = flat([0.3, 0.5, 0.4, 0.2, 0.3, 0.6], folds=5)
    few = {seed: runs[seed] for seed in (0, 1, 5)}
    assert mean(DICE, few, Design(5)).interval is None
    assert mean(DICE, few | {2: runs[2]}, Design(5)).interval is not None


def test_the_spread_over_seeds_by_hand() -> None:
    result = mean(DICE, flat([0.4, 0.5, 0.6]), FIXED)  # deviation .1, with n - 1
    assert result.spread is not None and result.spread.cases == pytest.approx(0, abs=1e-12)
    assert result.spread.runs == pytest.approx(0.1 / 3**0.5) and result.spread.runs_df == 2
    half = student.ppf(0.975, 2) * 0.1 / 3**0.5
    assert result.interval == pytest.approx((0.5 - half, 0.5 + half)) == result.adjusted
    assert result.half == pytest.approx(0.24841, abs=1e-4)
    wide = replace(result, arms=3).adjusted
    half = dunnett.quantile(3, 2) * 0.1 / 3**0.5
    assert wide == pytest.approx((0.5 - half, 0.5 + half))


def test_the_spread_over_cases_by_hand() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.6]
    result = mean(DICE, alike([*values, None, None, None]), FIXED)
    assert result.spread is not None and result.spread.runs == pytest.approx(0, abs=1e-12)
    assert result.spread.cases_df == 4 and result.counted == (5, 5, 5)  # null cases do not count
    plain = mean(DICE, alike(values), FIXED)
    assert plain.spread is not None
    assert plain.spread.cases == pytest.approx(np.std(values, ddof=1) / 5**0.5, rel=0.03)
    drawn = resamples(5) @ np.array(values) / 5
    assert plain.spread.cases == pytest.approx(drawn.std(ddof=1) * (5 / 4) ** 0.5)
    # Cases are the same for every seed: what cancels over the seeds case by case is no spread.
    cancelled = mean(DICE, arm([values, [1 - value for value in values], [0.5] * 5]), FIXED)
    assert cancelled.spread is not None
    assert cancelled.spread.cases == pytest.approx(0, abs=1e-12)


def test_half_the_interval_is_both_spreads_or_that_of_the_folds() -> None:
    values = np.random.default_rng(0).random((5, 9))
    fixed = mean(DICE, arm(values.tolist()), FIXED)
    over_cases = float((resamples(9) @ values.mean(axis=0) / 9).std(ddof=1)) * (9 / 8) ** 0.5
    over_seeds = float(values.mean(axis=1).std(ddof=1)) / 5**0.5
    assert fixed.half == pytest.approx(np.hypot(student.ppf(0.975, 4) * over_seeds,
                                                student.ppf(0.975, 8) * over_cases))
    rotated = mean(DICE, {seed: {0: cases(row, 100 * seed)}
                          for seed, row in enumerate(values.tolist())}, Design(5, 0))
    assert rotated.half == pytest.approx(student.ppf(0.975, 4) * over_seeds)
    assert rotated.spread is not None and rotated.spread.cases == 0


@pytest.mark.parametrize(("folds", "fraction", "overlap"), [
    (1, 100, 0.0), (5, 100, 0.25), (5, 5, 0.0125), (10, 100, 1 / 9), (3, 50, 0.25)])
def test_overlap_is_nadeaus_and_bengios_times_the_labelled_share(
        folds: int, fraction: float, overlap: float) -> None:
    assert Design(folds, fraction).overlap == pytest.approx(overlap)  # n_test / n_train


def test_training_sets_that_overlap_widen_the_interval_by_hand() -> None:
    scores = [0.4, 0.5, 0.6, 0.5, 0.45]
    variance = sum((score - 0.49) ** 2 for score in scores) / 4
    for fraction, factor in ((100, 1 / 5 + 1 / 4), (50, 1 / 5 + 1 / 8)):
        result = mean(DICE, flat(scores, folds=5), Design(5, fraction))
        assert result.spread is not None and result.spread.runs_df == 4
        assert result.spread.runs == pytest.approx((variance * factor) ** 0.5)


def test_seeds_of_one_fold_are_averaged_first() -> None:
    scores = [0.4, 0.5, 0.6, 0.5, 0.45, 0.46, 0.52, 0.5, 0.6, 0.43]  # two of each fold of five
    pairs = [(scores[fold], scores[fold + 5]) for fold in range(5)]
    blocks = [sum(pair) / 2 for pair in pairs]
    middle = sum(blocks) / 5
    between = sum((one - middle) ** 2 for one in blocks) / 4
    within = sum((one - other) ** 2 / 2 for one, other in pairs) / 5  # variance of two, 1 df each
    result = mean(DICE, flat(scores, folds=5), Design(5, 40))
    assert result.spread is not None and result.spread.runs_df == 4
    assert result.mean == pytest.approx(middle) and len(result.scores) == 10
    assert result.spread.runs == pytest.approx(
        (between / 5 + 0.4 / 4 * (between + within / 2)) ** 0.5)
    uneven = {seed: run for seed, run in flat(scores, folds=5).items() if seed != 9}
    assert mean(DICE, uneven, Design(5)).mean == pytest.approx(  # of folds, not of seeds
        (sum(blocks[:4]) + scores[4]) / 5)


def test_with_one_test_set_no_two_seeds_are_one_block() -> None:
    scores = [0.4, 0.5, 0.6, 0.5, 0.45, 0.46, 0.52]
    spread = own_spread(np.array(scores), range(7), FIXED, 0.0, 9)
    assert spread is not None and spread.runs_df == 6
    assert spread.runs == pytest.approx(np.std(scores, ddof=1) / 7**0.5)


def test_draws_are_averaged_before_anything_else() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.6]
    opposite = [1 - value for value in values]
    runs: Arm = {seed: {0: cases(values), 1: cases(opposite), 2: cases([0.2 + 0.1 * seed] * 5)}
                 for seed in range(3)}
    result = mean(DICE, runs, FIXED)
    assert result.scores == pytest.approx([(1 + 0.2 + 0.1 * seed) / 3 for seed in range(3)])
    assert result.spread is not None and result.spread.runs_df == 2
    assert result.spread.runs == pytest.approx(0.1 / 3 / 3**0.5)
    assert result.spread.cases == pytest.approx(0, abs=1e-12)  # cancels over the draws


def test_kappa_is_of_every_fold_and_predictions_are_never_pooled() -> None:
    right, wrong = ((0, 0), (0, 0), (1, 1), (1, 1)), ((0, 0), (0, 1), (1, 0), (1, 1))
    low = {0: {0: graded(*right)}, 1: {0: graded(*wrong, first=4)}}
    assert mean(KAPPA, low, Design(5)).scores == pytest.approx((1.0, 0.0))
    assert mean(KAPPA, low, Design(5)).mean == pytest.approx(0.5)
    # In either fold no better than chance; pooled, the folds' own shares would look like skill.
    guess = {0: {0: graded((0, 0), (0, 0), (0, 1), (4, 0))},
             1: {0: graded((4, 4), (4, 4), (4, 3), (0, 4), first=4)}}
    kappas = mean(KAPPA, guess, Design(5)).scores
    together = mean(KAPPA, {0: {0: {**guess[0][0], **guess[1][0]}}}, FIXED).mean
    assert max(kappas) < 0 and together > 0.4
    assert mean(KAPPA, guess, Design(5)).mean == pytest.approx(sum(kappas) / 2)
    # Of one test set: the mean of each network's kappa, not the kappa of all predictions.
    votes = {0: {0: graded(*right)}, 1: {0: graded(*wrong)}, 2: {0: graded(*wrong)}}
    assert mean(KAPPA, votes, FIXED).mean == pytest.approx(1 / 3)
    # And of draws: .6 of 1 and .2, where all eight predictions have .5.
    draws = {0: {0: graded((0, 0), (0, 0), (0, 0), (4, 4)),
                 1: graded((0, 4), (0, 4), (0, 0), (4, 4))}}
    assert mean(KAPPA, draws, FIXED).mean == pytest.approx((1 + 0.2) / 2)


def test_cases_are_drawn_within_their_folds() -> None:
    values = np.random.default_rng(1).random((2, 6))
    runs = {seed: {0: cases(row, 100 * seed)} for seed, row in enumerate(values.tolist())}
    aligned = Aligned(DICE, {"arm": runs}, Design(5))
    drawn = [resamples(6) @ row / 6 for row in values]
    variances = [float(one.var(ddof=1)) * 6 / 5 for one in drawn]
    assert aligned.over_cases("arm") == pytest.approx(sum(variances) ** 0.5 / 2)
    assert aligned.tested == 6 and aligned.test_sets == 2


def test_intervals_of_means_end_where_scores_do_and_no_others() -> None:
    runs = {seed: {0: graded(*(((0, 0), (4, 4), (0, wrong), (4, 4), (2, 2))))}
            for seed, wrong in enumerate((0, 1, 4))}
    result = mean(KAPPA, runs, FIXED)
    assert result.spread is not None and result.interval is not None
    assert result.mean + result.spread.half() > 1 and result.interval[1] == 1.0
    assert result.interval[0] == pytest.approx(result.mean - result.spread.half())
    dice = mean(DICE, flat([0.05, 0.5, 0.95]), FIXED)
    assert dice.interval == (0.0, 1.0)
    aligned = Aligned(DICE, {"": flat([0.05, 0.5, 0.95])}, FIXED)
    difference = estimates.own(aligned, aligned.scores[0], 0.0)
    assert difference.interval and difference.interval[0] < 0 and difference.interval[1] > 1


def test_null_cases_do_not_count() -> None:
    result = mean(DICE, arm([[0.5, None, 1.0]]), FIXED)
    assert result.mean == pytest.approx(0.75) and result.counted == (2,)


def test_the_same_to_the_last_digit_whatever_came_first() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((5, 8)).tolist()
    first = mean(DICE, arm(values), FIXED)
    resamples.cache_clear()
    turned = {seed: {0: dict(reversed(list(run[0].items())))} for seed, run in reversed(
        list(arm(values).items()))}
    assert mean(DICE, turned, FIXED) == first


def test_a_test_case_of_a_fold_is_no_case_of_another() -> None:
    runs = {0: {0: cases([0.2, 0.4])}, 1: {0: cases([0.6, 0.8, None], 100)}}
    aligned = Aligned(DICE, {"arm": runs}, Design(5))
    assert aligned.notes == [] and aligned.counted(0) == aligned.counted(1) == 2
    assert aligned.scores[0] == pytest.approx([0.3, 0.7])
    with pytest.raises(InputError, match="seed 0: no test case is in all of its runs"):
        Aligned(DICE, {"arm": runs}, FIXED)  # one test set: no case is of both


def test_two_standard_errors_of_runs_are_the_normal_interval_of_many() -> None:
    assert Spread(0.1, 1e6).half() == pytest.approx(norm.ppf(0.975) * 0.1, rel=1e-4)


def test_the_bootstrap_of_a_run_is_made_once() -> None:
    asked: list[tuple[int, ...]] = []
    counted = replace(DICE, combine=lambda sums: asked.append(sums.shape) or DICE.combine(sums))
    two = {seed: {draw: cases([0.2, 0.4 + draw / 10]) for draw in range(3)} for seed in range(2)}
    aligned = Aligned(counted, {"baseline": two, "cpc": two, "rpl": two}, FIXED)
    for other in ("cpc", "rpl", "cpc"):
        aligned.over_cases(other, "baseline")
    assert asked == [(len(resamples(2)), 3, 2)] * 6  # three arms, two seeds; all draws at once
    rows = aligned.rows["cpc"][1]
    assert np.allclose(aligned.drawn("cpc"), np.mean(
        [DICE.combine(resamples(2) @ one) for one in rows], axis=0))
