"""Pictures: which cases, what a montage looks like; published records give the same again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import caught, texts

from common.files import digest
from common.report.curves import Curves
from common.report.figures import examples, learning
from common.report.figures.style import scale
from common.runs import pictures

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"


def tiles(count: int, *space: int) -> torch.Tensor:
    """Views (V, 1, *space), each filled with its own number."""
    return torch.stack([torch.full((1, *space), number / 255) for number in range(count)])


def test_nine_patches_lie_as_they_were_cut() -> None:
    image = pictures.montage(tiles(9, 4, 4))
    assert image.shape == (15, 15) and image.dtype == np.uint8
    assert image[::5, ::5].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert (image[4] == 255).all()  # a white line between


def test_a_grid_of_a_volume_lies_layer_by_layer_axis_0_to_the_right_axis_1_up() -> None:
    image = pictures.montage(tiles(27, 4, 4, 4))
    assert image.shape == (15, 3 * 18)
    firsts = [image[::5, 18 * k:18 * k + 15:5].tolist() for k in range(3)]
    assert firsts[0] == [[6, 15, 24], [3, 12, 21], [0, 9, 18]]  # number = 9 i + 3 j + k
    assert firsts[2] == [[8, 17, 26], [5, 14, 23], [2, 11, 20]]


def test_a_pair_lies_side_by_side_in_colour() -> None:
    image = pictures.montage(tiles(2, 6, 6).expand(-1, 3, -1, -1))
    assert image.shape == (7, 14, 3) and image[0, 7].tolist() == [1, 1, 1]


def test_a_volume_is_shown_with_its_right_on_the_right_and_its_front_on_top() -> None:
    volume = torch.zeros(1, 6, 6, 6)
    volume[0, 5, 0, 3] = 1.0  # right, back
    assert pictures.montage(volume[None])[5, 5] == 255


def curves_of(runs: list[dict[str, Any]]) -> Curves:
    class Fake:
        measures = [type("M", (), {"name": "score", "label": "Score"})]
    fake = Fake()
    fake.runs = runs  # type: ignore[attr-defined]
    return fake  # type: ignore[return-value]


def run(task: str, seed: int, val: float, cases: dict[str, Any]) -> dict[str, Any]:
    made = {"task": task, "fraction": 5, "seed": seed, "val": {"score": val}, "cases": cases,
            "classes": ["a", "b"]}
    return {**made, "digest": digest(made)}


def test_the_arm_is_chosen_on_validation_and_the_cases_by_the_baseline() -> None:
    dice = {"u": 0.4, "v": 0.9, "w": 0.6, "x": None, "y": 0.1}
    cases = {name: {"dice": value} for name, value in dice.items()}
    better_on_test = {name: {"dice": 1.0} for name in dice}
    runs = [run("baseline", 0, 0.9, cases), run("jigsaw", 0, 0.2, better_on_test),
            run("rotation", 0, 0.3, cases), run("rotation", 1, 0.3, cases)]
    saved = {"ids": np.array(list(dice)), "tasks": np.array(["baseline", "jigsaw", "rotation"]),
             "fraction": np.array(5), "seed": np.array(0), "truth": np.zeros((5, 4, 4)),
             "runs": np.array([one["digest"] for one in runs[:3]])}
    shown = examples.choose_segmentations(saved, curves_of(runs))
    assert shown.best == "rotation" and shown.index["rotation"] == 2
    assert shown.rows == {"worst": 4, "median": 2, "best": 1}
    assert examples.kept(saved, curves_of(runs)) == [1, 2, 4]
    assert "seed 0; rotation" in shown.words
    control = run("oracle", 0, 0.99, cases)
    with_control = {**saved, "tasks": np.array([*saved["tasks"], "oracle"]),
                    "runs": np.array([*saved["runs"], control["digest"]])}
    assert examples.choose_segmentations(
        with_control, curves_of([*runs, control])).best == "rotation"  # controls do not compete
    runs[2] = {**runs[2], "digest": "another"}  # trained anew since: its predictions are not shown
    again = examples.choose_segmentations(saved, curves_of(runs))
    assert again.best == "jigsaw" and "rotation" not in again.index
    nothing = run("baseline", 0, 0.9, {name: {"dice": None} for name in dice})
    saved["runs"][0] = nothing["digest"]
    assert examples.kept(saved, curves_of([nothing, *runs[1:]])) == []


def test_of_every_grade_one_right_and_the_worst_mistake() -> None:
    saved = {"ids": np.array(list("stuvw")), "tasks": np.array(["baseline", "rpl"]),
             "fraction": np.array(5), "seed": np.array(0), "truth": np.array([0, 0, 0, 1, 0]),
             "predicted": np.array([[0, 1, 1, 0, 0], [0, 0, 2, 0, 4]])}
    runs = [run("baseline", 0, 0.1, {}), run("rpl", 0, 0.3, {})]
    saved["runs"] = np.array([one["digest"] for one in runs])
    shown = examples.choose_grades(saved, curves_of(runs))
    assert shown.grids == {"graded right": [0, None], "worst mistake": [4, 3]}
    assert examples.kept(saved, curves_of(runs)) == [0, 3, 4]


def test_classes_without_an_order_have_names_and_no_worst_mistake() -> None:
    saved = {"ids": np.array(list("stuv")), "tasks": np.array(["baseline"]),
             "fraction": np.array(5), "seed": np.array(0), "truth": np.array([0, 0, 0, 1]),
             "predicted": np.array([[1, 2, 0, 1]]), "images": np.zeros((4, 8, 8, 3), np.uint8)}
    one = {**run("baseline", 0, 0.3, {}), "resolution": 16, "classes": ["a$b", "c" * 30, "d"],
           "identity": {"settings": {"CLASSES": 3}}}
    saved["runs"] = np.array([one["digest"]])
    curves = curves_of([one])
    curves.dataset, curves.generated, curves.missing = "x", False, []  # type: ignore[misc]
    assert examples.choose_grades(saved, curves).grids == {"right": [2, 3, None],
                                                           "wrong": [0, None, None]}
    with caught() as figures:
        examples.grades(saved, curves, Path("examples_x.png"))
    said = texts(figures["examples_x.png"])
    cut = f"{'c' * 15}…"
    for words in (r"true a\$b", f"baseline: {cut} ✗", f"baseline: {cut} ✓", "predicted classes"):
        assert words in said, (words, said)


def test_the_edges_of_a_class_go_round_its_voxels() -> None:
    inside = np.zeros((4, 5), bool)
    inside[1, 2:4] = True  # x from 1.5 to 3.5, y from .5 to 1.5
    edges = {frozenset(edge) for edge in examples._edges(inside)}
    assert edges == {frozenset(edge) for edge in (
        ((1.5, 0.5), (2.5, 0.5)), ((2.5, 0.5), (3.5, 0.5)), ((1.5, 1.5), (2.5, 1.5)),
        ((2.5, 1.5), (3.5, 1.5)), ((1.5, 0.5), (1.5, 1.5)), ((3.5, 0.5), (3.5, 1.5)))}
    assert examples._edges(np.zeros((3, 3), bool)) == []


def test_grades_are_right_or_wrong_by_sign_not_by_colour_alone() -> None:
    saved = {"ids": np.array(list("st")), "tasks": np.array(["baseline", "rpl"]),
             "fraction": np.array(5), "seed": np.array(0), "truth": np.array([0, 1]),
             "predicted": np.array([[0, 1], [0, 0]]), "images": np.zeros((2, 8, 8, 3), np.uint8)}
    runs = [{**run(task, 0, 0.3, {}), "resolution": 16} for task in ("baseline", "rpl")]
    saved["runs"] = np.array([one["digest"] for one in runs])
    curves = curves_of(runs)
    curves.dataset, curves.generated, curves.missing = "x", False, []  # type: ignore[misc]
    with caught() as figures:
        examples.grades(saved, curves, Path("examples_x.png"))
    said = texts(figures["examples_x.png"])
    for words in ("baseline: 0 ✓", "rpl: 0 ✓", "baseline: 1 ✓", "rpl: 0 ✗", "bar: 5 pixels"):
        assert words in said, words


def test_a_bar_is_as_long_as_it_says() -> None:
    from matplotlib import pyplot as plt
    figure, panel = plt.subplots()
    panel.imshow(np.zeros((64, 64)))  # of an image of 224 pixels
    assert scale(panel, 224, most=224) == 50
    bar = panel.artists[0] if panel.artists else panel.get_lines()[0]
    start, end = bar.get_xdata()  # type: ignore[attr-defined]
    assert end - start == pytest.approx(50 * 64 / 224)
    plt.close(figure)


def test_the_window_keeps_all_classes_and_half_of_the_image_at_least() -> None:
    small, large = np.zeros((64, 64)), np.zeros((64, 64))
    small[60:62, 3:5] = 1
    large[10:60, 20:30] = 2
    rows, columns = examples._window([small])
    assert rows.stop - rows.start == columns.stop - columns.start == 32
    assert rows.stop == 64 and columns.start == 0
    rows, columns = examples._window([small, large])
    assert (rows, columns) == (slice(0, 64), slice(0, 64))
    assert examples._window([np.zeros((8, 8))]) == (slice(0, 8), slice(0, 8))


def test_means_of_learning_curves_go_as_far_as_every_seed_does() -> None:
    logs = [[(10.0, 0.2), (20.0, 0.4), (30.0, 0.9)], [(10.0, 0.4), (20.0, 0.6)]]
    steps, mean = learning._mean(logs)
    assert steps == [10.0, 20.0] and mean == pytest.approx([0.3, 0.5])
    assert learning._mean([]) == ([], [])


def test_learning_curves_of_some_logs_are_those_logs() -> None:
    from matplotlib import pyplot as plt
    made = {**run("baseline", 0, 0.5, {}), "validations": {"score": [(5, 0.1), (10, 0.3)]}}
    curves = curves_of([made, {**made, "seed": 1, "validations": {"score": []}}])
    curves.tasks = ["baseline"]  # type: ignore[misc]
    figure, panel = plt.subplots()
    learning._finetuning(panel, curves, ("baseline", 5))
    drawn = [[*map(list, zip(*line.get_data(), strict=True))] for line in panel.get_lines()]
    assert drawn == [[[5, 0.1], [10, 0.3]]] * 4  # the seed's own, and the mean of what there is
    plt.close(figure)
