"""Dice as loss and as reported figure, by hand; every case's figures are its own."""

import numpy as np
import pytest
import torch

from common.downstream import metrics
from common.downstream.segmentation import Segmentation
from common.tasks.batches import generator
from common.tasks.contract import Batch

THREE = Segmentation(["background", "a", "b"])


def logits(predicted: torch.Tensor, classes: int = 3) -> torch.Tensor:
    return torch.nn.functional.one_hot(predicted.long(), classes).movedim(-1, 1) * 50.0


def scored(task: Segmentation, truth: torch.Tensor, predicted: torch.Tensor
           ) -> dict[str, np.ndarray]:
    scores = task.score(logits(predicted, len(task.classes)), truth)
    return {name: values.numpy() for name, values in scores.items()}


def test_soft_dice_of_a_guess_by_hand() -> None:
    truth = torch.zeros(2, 1, 1, 4, dtype=torch.uint8)
    truth[1, 0, 0, :2] = 2
    # p = 1/3 everywhere: 2 (6/3) / (8/3 + 6), 0 / (8/3), 2 (2/3) / (8/3 + 2): batch and space alike
    expected = 1 - (4 / (8 / 3 + 6) + 0 + (4 / 3) / (8 / 3 + 2)) / 3
    assert float(THREE.loss(torch.zeros(2, 3, 1, 1, 4), truth)) == pytest.approx(expected)


def test_soft_dice_takes_probabilities_from_softmax() -> None:
    outputs = torch.tensor([[[2.0], [0.0], [1.0]]])  # one voxel of class 2
    p = outputs.softmax(1)[0, :, 0].tolist()
    expected = 1 - (0 + 0 + 2 * p[2] / (p[2] + 1)) / 3
    assert float(THREE.loss(outputs, torch.tensor([[2]]))) == pytest.approx(expected)


def test_counts_are_right_for_any_number_of_classes() -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 3, 16, 17, 40):
        task = Segmentation([str(number) for number in range(classes)])
        truth, predicted = (torch.tensor(rng.integers(0, classes, (2, 500))) for _ in range(2))
        table = scored(task, truth, predicted)["confusion"]
        for case in range(2):
            expected = metrics.confusion(truth[case], predicted[case], classes)
            assert np.array_equal(table[case], expected)


def test_the_figures_of_two_cases_by_hand() -> None:
    truth = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 2, 2, 2, 2, 2]])
    predicted = torch.tensor([[0, 0, 0, 1, 1, 0, 0, 0], [0, 2, 2, 2, 2, 2, 0, 0]])
    scores = scored(THREE, truth, predicted)
    first, second = THREE.cases(scores)
    a, b = 2 * 2 / (4 + 2), 2 * 3 / (5 + 5)
    assert first["dice_a"] == pytest.approx(a) == first["dice"] and first["dice_b"] is None
    assert second["dice_a"] == 0 and second["dice_b"] == pytest.approx(b)
    assert second["dice"] == pytest.approx(b / 2)
    assert (first["truth"], first["predicted"], first["both"]) == ([4, 4, 0], [6, 2, 0], [4, 2, 0])
    assert (second["truth"], second["predicted"], second["both"]) == ([1, 2, 5], [3, 0, 5],
                                                                      [1, 0, 3])
    assert second["dice_whole"] == pytest.approx(2 * 5 / (7 + 5))  # a taken for b is found
    figures = THREE.summarise(scores)
    assert figures["dice"] == pytest.approx((a + b / 2) / 2)  # over classes, then over cases
    assert figures["dice_a"] == pytest.approx(a / 2) and figures["dice_b"] == pytest.approx(b)
    assert figures["dice_paper"] == pytest.approx(  # voxels pooled, with the background
        (2 * 5 / (5 + 9) + 2 * 2 / (6 + 2) + 2 * 3 / (5 + 5)) / 3)
    assert figures["dice_whole"] == pytest.approx((a + 10 / 12) / 2)


def test_a_case_without_foreground_that_gets_none_does_not_count() -> None:
    truth = torch.tensor([[0, 0], [0, 1], [0, 0]])
    scores = scored(THREE, truth, torch.tensor([[0, 0], [0, 1], [1, 0]]))
    assert [case["dice"] for case in THREE.cases(scores)] == [None, 1.0, 0.0]  # invented: 0
    assert THREE.summarise(scores)["dice"] == 0.5
    nothing = {"confusion": scores["confusion"][:1]}
    assert THREE.summarise(nothing)["dice"] is None


def test_volumes_are_given_as_they_are_and_chosen_by_dice() -> None:
    batch = Batch(torch.rand(2, 1, 4, 4, 4), torch.ones(2, 4, 4, 4, dtype=torch.uint8), [0, 1])
    for training in (True, False):
        views, targets = THREE.prepare(batch, generator(0, "x"), training=training)
        assert torch.equal(views, batch.images) and torch.equal(targets, batch.labels)
    assert THREE.monitor == "dice"  # what chooses the weights


def test_a_voxels_class_is_that_of_its_largest_logit() -> None:
    outputs = torch.tensor([[[1.0, -5.0], [3.0, -9.0], [2.0, -4.0]]])
    assert THREE.decode(outputs).tolist() == [[1, 2]]


def test_the_slice_shown_is_that_with_most_foreground() -> None:
    labels = torch.zeros(4, 4, 5, dtype=torch.int64)
    labels[0, 0, 1], labels[:2, 0, 3], labels[2, 2, 4] = 2, 1, 2
    assert THREE.plane(labels) == 3
