"""Scores as sums over test cases agree with the metrics; the bootstrap draws the same cases."""

import numpy as np
import pytest

from common.downstream import metrics
from common.stats import measures
from common.stats.measures import Case, Measure, mean_of


def score(measure: Measure, cases: list[Case]) -> float:
    return float(measure.combine(measure.contributions(cases).sum(axis=0)))


def test_null_cases_do_not_count() -> None:
    assert score(mean_of("dice", ""), [{"dice": 0.5}, {"dice": None}, {"dice": 1.0}]) == 0.75


def test_the_measures_agree_with_the_metrics() -> None:
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 5, (2, 30))
    kappa = score(measures.kappa_of("kappa", "QWK", 5),
                  [{"truth": int(t), "predicted": int(p)} for t, p in grades.T])
    assert kappa == pytest.approx(metrics.quadratic_weighted_kappa(*grades))
    counts = rng.integers(1, 50, (4, 3))
    pooled = score(measures.pooled_dice_of("dice_paper", "paper"),
                   [{"both": row.tolist(), "truth": (row + 3).tolist(),
                     "predicted": (row + 5).tolist()} for row in counts])
    assert pooled == pytest.approx(metrics.pooled_dice(counts, counts + 3, counts + 5))


@pytest.mark.parametrize(("pairs", "kappa", "accuracy"), [
    ([(0, 0), (0, 1), (1, 1), (2, 2), (2, 1), (3, 3), (4, 4), (4, 2)], 0.8, 5 / 8),
    ([(0, 4), (4, 0), (0, 4), (4, 0)], -1.0, 0.0),
    ([(2, 2), (2, 2)], 0.0, 1.0),                  # constant: no agreement beyond chance
    ([(0, 0), (0, 2), (2, 2), (2, 2)], 0.5, 0.75),  # a grade of which none is there
    ([(0, 1), (1, 2), (2, 3), (3, 4)], 5 / 7, 0.0)])
def test_kappa_and_accuracy_of_tables_by_hand(pairs: list[tuple[int, int]], kappa: float,
                                              accuracy: float) -> None:
    cases: list[Case] = [{"truth": truth, "predicted": predicted} for truth, predicted in pairs]
    assert score(measures.kappa_of("kappa", "", 5), cases) == pytest.approx(kappa)
    assert score(measures.accuracy_of("accuracy", ""), cases) == pytest.approx(accuracy)


def test_the_papers_dice_pools_voxels_and_has_the_background() -> None:
    cases: list[Case] = [{"both": [90, 0], "truth": [90, 10], "predicted": [100, 0]},
                         {"both": [0, 30], "truth": [0, 30], "predicted": [0, 30]}]
    assert score(measures.pooled_dice_of("dice_paper", ""), cases) == pytest.approx(
        (2 * 90 / 190 + 2 * 30 / 70) / 2)


def test_the_same_cases_are_drawn_in_every_call_and_process() -> None:
    first = measures.resamples(7).copy()
    assert first.shape == (measures.RESAMPLES, 7) and (first.sum(axis=1) == 7).all()
    assert first[0].tolist() == [1, 0, 0, 0, 3, 3, 0]
    measures.resamples.cache_clear()
    assert np.array_equal(measures.resamples(7), first)


def test_no_measure_can_be_beyond_its_bounds() -> None:
    assert mean_of("dice", "").bounds == (0, 1) and measures.accuracy_of("", "").bounds == (0, 1)
    assert measures.kappa_of("kappa", "", 5).bounds == (-1, 1)
