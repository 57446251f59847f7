import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from common.downstream import metrics


def test_dice_by_hand() -> None:
    truth = np.array([1, 1, 0, 0])
    assert metrics.dice(truth, truth, 2)[1] == 1
    assert metrics.dice(truth, 1 - truth, 2)[1] == 0
    assert metrics.dice(truth, [1, 0, 1, 0], 2)[1] == 0.5
    assert np.isnan(metrics.dice([0, 0], [0, 0], 2)[1])  # in neither: not counted
    assert metrics.dice([0, 0], [0, 1], 2)[1] == 0  # absent but predicted
    assert metrics.dice([0, 1], [0, 0], 2)[1] == 0  # present but missed


def test_predicting_background_scores_a_third_in_the_papers_metric() -> None:
    truth = np.zeros(30000, int)
    truth[:10], truth[10:20] = 1, 2
    table = metrics.confusion(truth, np.zeros_like(truth), 3)
    score = metrics.pooled_dice(np.diagonal(table)[None], table.sum(1)[None], table.sum(0)[None])
    assert score == pytest.approx(0.333, abs=1e-3)


def test_kappa_by_hand_and_against_a_library() -> None:
    truth, predicted = [0, 0, 1, 2, 2, 3, 4, 4], [0, 1, 1, 2, 1, 3, 4, 2]
    assert metrics.quadratic_weighted_kappa(truth, predicted) == pytest.approx(0.8)
    assert metrics.quadratic_weighted_kappa([0, 4, 0, 4], [4, 0, 4, 0]) == pytest.approx(-1)
    assert metrics.quadratic_weighted_kappa([0, 1, 2, 3, 4], [2, 2, 2, 2, 2]) == 0
    assert metrics.quadratic_weighted_kappa([2, 2], [2, 2]) == 0  # nothing beyond chance
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.choice([0, 3, 4], (2, 30))  # grades 1 and 2 never occur: the labels are fixed
        assert metrics.quadratic_weighted_kappa(a, b) == pytest.approx(
            cohen_kappa_score(a, b, labels=range(5), weights="quadratic"))


def test_confusion_has_the_truth_in_rows() -> None:
    assert metrics.confusion([0, 0, 1], [1, 1, 2], 3).tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_the_papers_dice_pools_the_voxels_of_all_cases() -> None:
    both, truth, predicted = [[90, 0], [0, 30]], [[90, 10], [0, 30]], [[100, 0], [0, 30]]
    assert metrics.pooled_dice(both, truth, predicted) == pytest.approx(
        (2 * 90 / 190 + 2 * 30 / 70) / 2)


def test_accuracy_counts_equal_ones_alone() -> None:
    assert metrics.accuracy([0, 1, 2, 3], [0, 2, 1, 3]) == 0.5
