import numpy as np
import pytest

from common import metrics, stats
from common.stats import Arm, mean_of

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
