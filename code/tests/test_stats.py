import numpy as np
import pytest
from scipy.stats import t as student

from common.downstream import metrics
from common.report import stats
from common.report.stats import Arm, mean_of

DICE = mean_of("dice", "Dice")


def arm(values: np.ndarray) -> Arm:
    return {seed: {f"c{i}": {"dice": value} for i, value in enumerate(row)}
            for seed, row in enumerate(values.tolist())}


def simulate(rng: np.random.Generator, seeds: int, cases: np.ndarray, level: float,
             spread: float = 0.03) -> np.ndarray:
    values: np.ndarray = (level + cases + rng.normal(0, spread, (seeds, 1))
                          + rng.normal(0, 0.05, (seeds, len(cases))))
    return values


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03, 0.1])  # over seeds; that of the cases is .01
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_the_truth(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds)
    covered = np.zeros(3)
    trials = 400
    for _ in range(trials):
        cases = rng.normal(0, 0.05, 40)
        own = rng.normal(0, 0.03, 40)  # what the arm changes differs from case to case
        base = arm(simulate(rng, seeds, cases, 0.5, spread))
        other = arm(simulate(rng, seeds, cases + own, 0.52, spread))
        mean, result = stats.mean(DICE, base), stats.difference(DICE, other, base)
        assert result is not None and (wide := result.adjusted(7)) is not None
        for index, (ends, truth) in enumerate([(mean.interval, 0.5), (result.interval, 0.02),
                                               (wide, 0.02)]):
            assert ends is not None
            covered[index] += ends[0] <= truth <= ends[1]
    share = covered / trials
    assert (share[:2] > 0.93).all() and (share[:2] <= 0.999).all(), share  # .95 less two errors
    assert share[1] < 0.995 or spread < 0.03, share  # on the safe side where cases vary more
    assert share[2] > 0.985, share                                         # of .993


def test_each_spread_has_its_own_degrees_of_freedom() -> None:
    only_seeds, only_cases = stats.Spread(0.1, 0, 3, 50), stats.Spread(0, 0.1, 3, 51)
    assert only_seeds.half() == pytest.approx(0.4303, abs=1e-4)   # t(2, .975) = 4.303
    assert only_cases.half() == pytest.approx(0.2009, abs=1e-4)   # t(50, .975) = 2.009
    assert only_seeds.p(0.4303) == pytest.approx(0.05, abs=1e-4)
    both = stats.Spread(0.1, 0.2, 3, 51)
    assert both.half() == pytest.approx(np.hypot(0.4303, 0.4017), abs=1e-3)
    assert both.half(both.p(0.7)) == pytest.approx(0.7)
    assert both.p(0.0) == 1.0 and stats.Spread(0, 0, 3, 9).p(0.1) == 0.0


def test_under_three_seeds_there_is_no_interval() -> None:
    result = stats.mean(DICE, arm(np.full((2, 5), 0.4)))
    assert result.interval is None and result.p is None and result.mean == pytest.approx(0.4)


def test_a_paired_difference_is_formed_per_seed_and_case_and_says_what_it_drops() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((3, 8))
    result = stats.difference(DICE, arm(base + 0.1), arm(base))
    assert result is not None and result.mean == pytest.approx(0.1)
    assert result.half == pytest.approx(0, abs=1e-9)
    alone = stats.difference(DICE, arm(base + 0.1), arm(base[:2]))
    assert alone is not None and alone.seeds == (0, 1) and "seed 2" in alone.dropped[0]


def test_null_cases_do_not_count() -> None:
    runs: Arm = {0: {"a": {"dice": 0.5}, "b": {"dice": None}, "c": {"dice": 1.0}}}
    result = stats.mean(DICE, runs)
    assert result.mean == pytest.approx(0.75) and result.counted == (2,)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert stats.holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_measures_agree_with_the_metrics() -> None:
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 5, (2, 30))
    cases = {f"c{i}": {"truth": int(t), "predicted": int(p)}
             for i, (t, p) in enumerate(grades.T)}
    kappa = stats.mean(stats.kappa_of("kappa", "QWK", 5), {0: cases})
    assert kappa.mean == pytest.approx(metrics.quadratic_weighted_kappa(*grades))
    counts = rng.integers(1, 50, (4, 3))
    voxels = {f"c{i}": {"both": row.tolist(), "truth": (row + 3).tolist(),
                        "predicted": (row + 5).tolist()} for i, row in enumerate(counts)}
    pooled = stats.mean(stats.pooled_dice_of("dice_paper", "paper"), {0: voxels})
    assert pooled.mean == pytest.approx(metrics.pooled_dice(counts, counts + 3, counts + 5))


def test_holm_counts_arms_that_are_not_trained_yet() -> None:
    assert stats.holm([0.02, None, None], 3) == pytest.approx([0.06, None, None])
    assert stats.holm([0.02, 0.04], 1) == pytest.approx([0.04, 0.04])


def alike(values: list[float | None], seeds: int = 3) -> Arm:
    """Every seed has the same scores of the cases: nothing varies over seeds."""
    return {seed: {f"c{i}": {"dice": value} for i, value in enumerate(values)}
            for seed in range(seeds)}


def test_the_spread_over_seeds_by_hand() -> None:
    arm = {seed: {f"c{i}": {"dice": score} for i in range(6)}
           for seed, score in enumerate((0.4, 0.5, 0.6))}  # deviation .1, with n - 1
    result = stats.mean(DICE, arm)
    assert result.spread is not None and result.spread.over_cases == pytest.approx(0, abs=1e-12)
    assert result.spread.over_seeds == pytest.approx(0.1 / 3**0.5)
    for comparisons in (1, 2, 7):  # Bonferroni: each at .05 / comparisons, two-sided, t(2)
        half = student.ppf(1 - 0.05 / comparisons / 2, 2) * 0.1 / 3**0.5
        assert result.adjusted(comparisons) == pytest.approx((0.5 - half, 0.5 + half))
    assert result.interval == result.adjusted(1) and result.half == pytest.approx(0.24841, abs=1e-4)


def test_the_spread_over_cases_by_hand() -> None:
    values = [0.1, 0.5, 0.9, 0.4, 0.6]
    result = stats.mean(DICE, alike([*values, None, None, None]))
    assert result.spread is not None and result.spread.over_seeds == pytest.approx(0, abs=1e-12)
    assert result.spread.cases == 5 and result.counted == (5, 5, 5)  # null cases do not count
    plain = stats.mean(DICE, alike(values))
    assert plain.spread is not None
    assert plain.spread.over_cases == pytest.approx(np.std(values, ddof=1) / 5**0.5, rel=0.05)
    # Cases are the same for every seed: what cancels over the seeds case by case is no spread.
    opposite = np.array([values, [1 - value for value in values], [0.5] * 5])
    cancelled = stats.mean(DICE, arm(opposite))
    assert cancelled.spread is not None
    assert cancelled.spread.over_cases == pytest.approx(0, abs=1e-12)


def test_the_same_cases_are_drawn_in_every_call_and_process() -> None:
    first = stats.resamples(7).copy()
    assert first.shape == (stats.RESAMPLES, 7) and (first.sum(axis=1) == 7).all()
    stats.resamples.cache_clear()
    assert np.array_equal(stats.resamples(7), first)


def test_a_loss_is_the_gain_the_other_way_round() -> None:
    rng = np.random.default_rng(3)
    base = arm(simulate(rng, 3, rng.normal(0, 0.05, 30), 0.5))
    other = arm(simulate(rng, 3, rng.normal(0, 0.05, 30), 0.7))
    gain, loss = stats.difference(DICE, other, base), stats.difference(DICE, base, other)
    assert gain is not None and loss is not None and gain.interval and loss.interval
    assert gain.mean > 0 and loss.mean == pytest.approx(-gain.mean)
    assert gain.p == pytest.approx(loss.p) and gain.p is not None and 0 < gain.p < 0.5
    assert loss.interval == pytest.approx((-gain.interval[1], -gain.interval[0]))


def test_a_case_that_counts_in_one_arm_alone_counts_in_neither() -> None:
    ours, theirs = alike([0.6, None, 0.9]), alike([0.5, 0.1, None])
    result = stats.difference(DICE, ours, theirs)
    assert result is not None and result.mean == pytest.approx(0.1)
    assert result.counted == (1, 1, 1)


def test_cases_and_seeds_that_not_all_have_are_left_out_and_named() -> None:
    ours, theirs = alike([0.6, 0.7, 0.8]), alike([0.5, 0.6])
    result = stats.difference(DICE, {5: ours[0], **ours}, theirs)
    assert result is not None and result.mean == pytest.approx(0.1)
    assert result.seeds == (0, 1, 2)
    assert result.dropped == ("seed 5 not in both arms", "case c2 not in every run")
    same = stats.difference(DICE, theirs, theirs)
    assert same is not None and same.dropped == () and same.p == 1.0
    assert stats.difference(DICE, {1: ours[1]}, {2: theirs[2]}) is None


def graded(pairs: list[tuple[int, int]]) -> Arm:
    return {0: {f"c{i}": {"truth": truth, "predicted": predicted}
                for i, (truth, predicted) in enumerate(pairs)}}


@pytest.mark.parametrize(("pairs", "kappa", "accuracy"), [
    ([(0, 0), (0, 1), (1, 1), (2, 2), (2, 1), (3, 3), (4, 4), (4, 2)], 0.8, 5 / 8),
    ([(0, 4), (4, 0), (0, 4), (4, 0)], -1.0, 0.0),
    ([(2, 2), (2, 2)], 0.0, 1.0),                  # constant: no agreement beyond chance
    ([(0, 0), (0, 2), (2, 2), (2, 2)], 0.5, 0.75),  # a grade of which none is there
    ([(0, 1), (1, 2), (2, 3), (3, 4)], 5 / 7, 0.0)])
def test_kappa_and_accuracy_of_tables_by_hand(pairs: list[tuple[int, int]], kappa: float,
                                              accuracy: float) -> None:
    assert stats.mean(stats.kappa_of("kappa", "", 5), graded(pairs)).mean == pytest.approx(kappa)
    assert stats.mean(stats.accuracy_of("accuracy", ""), graded(pairs)
                      ).mean == pytest.approx(accuracy)


def test_the_papers_dice_pools_voxels_and_has_the_background() -> None:
    arm: Arm = {0: {"a": {"both": [90, 0], "truth": [90, 10], "predicted": [100, 0]},
                    "b": {"both": [0, 30], "truth": [0, 30], "predicted": [0, 30]}}}
    result = stats.mean(stats.pooled_dice_of("dice_paper", ""), arm)
    assert result.mean == pytest.approx((2 * 90 / 190 + 2 * 30 / 70) / 2)


def test_holm_never_falls_below_a_smaller_p_and_ends_at_one() -> None:
    assert stats.holm([0.02, 0.019, 0.5]) == pytest.approx([0.057, 0.057, 0.5])
    assert stats.holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert stats.holm([0.9], 7) == [1.0]
