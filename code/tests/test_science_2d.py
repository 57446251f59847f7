"""The 2D tree against the paper: sizes, parameters, coding, and defects of earlier codes."""

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from common.data.splits import duplicates
from common.downstream.grading import Grading
from common.runs.checkpoint import load_into, save, weights
from common.tasks.batches import generator
from common.tasks.contract import Batch

model = importlib.import_module("2d.model")
pretext = importlib.import_module("2d.pretext")
graph = importlib.import_module("2d.graph")


def same(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    return images


def test_densenet_121_has_its_parameters_and_sizes() -> None:
    encoder = model.Encoder()
    assert sum(p.numel() for p in encoder.parameters()) == 6_953_856
    encoder.eval()
    with torch.no_grad():
        assert encoder(torch.rand(1, 3, 64, 64)).shape == (1, 1024)
        assert encoder(torch.rand(1, 3, model.SMALLEST, model.SMALLEST)).shape == (1, 1024)
        with pytest.raises(RuntimeError):
            encoder(torch.rand(1, 3, model.SMALLEST - 1, model.SMALLEST - 1))
        assert [tuple(s.shape[1:]) for s in encoder.stages(torch.rand(1, 3, 64, 64))] == [
            (256, 16, 16), (512, 8, 8), (1024, 4, 4), (1024, 2, 2), (1024,)]
    grader = model.Grader(encoder, 5)
    assert sum(p.numel() for p in grader.head.parameters()) == 1024 * 1025 + 2 * 1024 + 1025 * 5


def test_the_encoder_is_torchvisions_densenet() -> None:
    from torchvision.models import densenet121

    torch.manual_seed(0)
    theirs, ours = densenet121(weights=None), model.Encoder()
    ours.features.load_state_dict(theirs.features.state_dict())
    theirs.classifier = torch.nn.Identity()
    images = torch.rand(2, 3, 72, 72)  # 2 x 2 places are left for the average
    with torch.no_grad():
        assert torch.equal(ours.eval()(images), theirs.eval()(images))


def test_a_patch_encoder_loads_whole_into_the_full_size_network(tmp_path: Any) -> None:
    trained = model.Encoder((1, 1, 1, 1), 8)
    trained(torch.rand(4, 3, 32, 32))  # moves the running statistics
    save(tmp_path / "encoder.pt", weights(trained))
    grader = model.Grader(model.Encoder((1, 1, 1, 1), 8), 5)
    load_into(grader.encoder, tmp_path / "encoder.pt")
    mine = grader.encoder.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in trained.state_dict().items())
    assert grader(torch.rand(2, 3, 64, 64)).shape == (2, 5)


def test_patch_sizes_at_224_and_the_least_resolution() -> None:
    grid = pretext.RelativePatch(224).grid
    assert (grid.cell, grid.jitter, grid.patch, len(grid.cells)) == (74, 8, 66, 9)
    assert pretext.Jigsaw(96).grid.patch == 29 and pretext.Jigsaw(95).grid.patch < 29


def test_rotation_turns_by_quarters() -> None:
    task = pretext.Rotation(8)
    image = torch.arange(3 * 64.0).view(1, 3, 8, 8).repeat(64, 1, 1, 1)
    views, targets = task.prepare(Batch(image, None, list(range(64))), generator(0, "x"),
                                  training=True)
    assert set(targets.tolist()) == {0, 1, 2, 3} and task.chance == {"accuracy": 0.25}
    for view, target in zip(views[:, 0], targets.tolist(), strict=True):
        assert torch.equal(view, torch.rot90(image[0], target, (-2, -1)))


def test_rpl_reaches_every_place_but_the_centre() -> None:
    task = pretext.RelativePatch(96)
    image = torch.zeros(200, 3, 96, 96)
    for place in range(9):  # every cell says which it is
        row, column = divmod(place, 3)
        image[:, :, row * 32:(row + 1) * 32, column * 32:(column + 1) * 32] = place
    views, targets = task.prepare(Batch(image, None, list(range(200))), generator(0, "x"),
                                  training=True)
    assert (views[:, 0] == 4).all() and set(targets.tolist()) == set(range(8))
    expected = targets + (targets >= 4)
    assert torch.equal(views[:, 1].flatten(1).amin(1), expected.float())
    assert torch.equal(views[:, 1].flatten(1).amax(1), expected.float())  # never leaves its cell


def test_jigsaw_permutations_are_far_apart() -> None:
    table = pretext.Jigsaw(96).permutations
    apart = (table[:, None] != table[None]).sum(2) + 9 * torch.eye(100, dtype=torch.long)
    assert table.shape == (100, 9) and apart.min() >= 6
    assert not (table == torch.arange(9)).all(1).any()


def test_exemplar_negatives_are_other_cases() -> None:
    task = pretext.Exemplar(32)
    for count in (2, 3, 5):
        images = torch.rand(count, 3, 32, 32)
        views, negative = task.prepare(Batch(images, None, list(range(count))),
                                       generator(count, "x"), training=True)
        assert torch.equal(views[:, 1], images)
        assert (negative != torch.arange(count)).all()


def test_grades_are_coded_as_leading_ones_and_decoded() -> None:
    task = Grading(5, same)
    grades = torch.arange(5)
    code = task.code(grades)
    assert code.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0],
                             [1, 1, 1, 1, 1]]
    assert torch.equal(task.decode(code * 8 - 4), grades)
    assert task.decode(torch.full((1, 5), -4.0)).item() == 0  # clipped
    assert task.loss(code * 40 - 20, grades).item() < 1e-6
    assert task.loss(torch.zeros(5, 5), grades).item() == pytest.approx(np.log(2))
    logits = torch.tensor([[4.0, -4, 4, -4, -4], [1, 0.1, 0.1, -0.1, -3], [9, 9, 9, 9, 9]])
    assert task.decode(logits).tolist() == [1, 2, 4]  # outputs above one half, less one


def test_a_missing_grade_does_not_change_the_weights_of_kappa() -> None:
    task = Grading(5, same)
    scores = {"truth": np.array([0, 0, 1, 2, 2, 3, 4, 4]),
              "predicted": np.array([0, 1, 1, 2, 1, 3, 4, 2])}
    summary = task.summarise(scores)
    assert summary["kappa"] == pytest.approx(0.8) and summary["accuracy"] == 5 / 8
    assert summary["confusion"][1] == [0, 1, 0, 0, 0] and summary["confusion"][0][1] == 1
    assert task.monitor == "kappa"  # what chooses the weights
    assert np.array(summary["confusion"]).shape == (5, 5)
    few = {"truth": np.array([0, 2, 2]), "predicted": np.array([0, 2, 0])}
    measure = graph.measures({"classes": [""] * 5})[0]
    assert task.summarise(few)["kappa"] == pytest.approx(0.4)  # 1 - 4 / (20/3)
    rows = measure.contributions(task.cases(few))
    assert float(measure.combine(rows.sum(0))) == pytest.approx(task.summarise(few)["kappa"])


def test_training_images_are_augmented_and_others_are_not() -> None:
    task = Grading(5, lambda images, rng: images + 1)
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 3], dtype=torch.uint8), [0, 1])
    assert task.prepare(batch, generator(0, "x"), training=True)[0].unique().item() == 1
    views, targets = task.prepare(batch, generator(0, "x"), training=False)
    assert views.unique().item() == 0 and targets.dtype == torch.int64


def test_contradicting_duplicates_are_left_out_and_others_stay_together() -> None:
    class Fake:
        facts = {name: {"pixels": pixels, "truth": truth} for name, pixels, truth in (
            ("a", "p", 0), ("b", "p", 0), ("c", "q", 1), ("d", "q", 2), ("e", "r", 3),
            ("u", "p", None), ("v", "s", None), ("w", "q", None))}
        labelled = 5
    found: Any = duplicates(Fake())  # type: ignore[arg-type]
    assert found.groups == {"a": "a", "b": "a"} and found.contradicting == ["c", "d"]
    assert found.unlabelled == ["u", "w"]


def test_published_curves_carry_our_names() -> None:
    paper, earlier = graph.published()
    names = {"baseline", "rotation", "jigsaw", "rpl", "exemplar"}
    assert set(paper.curves) == names | {"cpc"} and set(earlier.curves) == names
    assert paper.curves["baseline"][0] == 0.012 and earlier.curves["rpl"][4] == 0.7545
