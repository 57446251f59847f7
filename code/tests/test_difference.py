"""The forest plot: the claim is the thick line, and what the axis cuts has an arrow head."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import caught, texts
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation
from test_graph import save

from common.report.curves import Curves, Point, of
from common.report.figures import difference, efficiency
from common.report.figures.palette import look_of
from common.runs import records
from common.stats.measures import mean_of

GAINS = {"baseline": (0.0, 0.0, 0.0), "cpc": (-0.02, -0.03, -0.04), "rpl": (0.03, 0.05, 0.1),
         "jigsaw": (0.01, 0.02, 0.01), "rotation": (0.0, 0.01, 0.01)}


def read_arms(folder: Path, arms: dict[str, tuple[float, ...]], *fractions: int) -> Curves:
    for task, gains in arms.items():
        for fraction in fractions:
            for seed, gain in enumerate(gains):
                learnt = 1e-6 * fraction  # labels help all alike, hardly
                cases = {name: {"dice": min(1.0, 0.3 + 0.1 * place + gain + learnt)}
                         for place, name in enumerate("abc")}
                made: dict[str, Any] = {
                    "stage": "finetune", "task": task, "fraction": fraction, "seed": seed,
                    "labelled": 4, "generated": False, "cases": cases, "steps": 9,
                    "last": {"test": {"dice": 0.5}}, "validation": 2, "test_cases": 3,
                    "selected": {"rule": "best"}}
                save(folder / f"finetune/{task}/fraction{fraction:03d}/seed{seed}", made)
    return of(records.read(folder), [mean_of("dice", "Dice")])


def forest(data: Curves) -> list[Axes]:
    with caught() as figures:
        assert difference.draw(data, Path("x.png"))
    return figures["x.png"].axes


def lines(panel: Axes, row: float) -> list[Line2D]:
    """Those with two ends that lie on a row."""
    return [line for line in panel.get_lines() if len(line.get_xdata()) == 2
            and list(line.get_ydata()) == [row, row] and line.get_linestyle() != "None"]


def heads(panel: Axes, row: float) -> set[str]:
    """Arrow heads on a row, at the axis' ends: open ones of intervals, a marker of a mean."""
    found = {str(line.get_marker()) for line in panel.get_lines() if line.get_marker() in "<>"
             and list(line.get_ydata()) == [row] and line.get_xdata()[0] in panel.get_xlim()}
    low, _ = panel.get_xlim()
    return found | {"<" if text.xy[0] == low else ">" for text in panel.texts
                    if isinstance(text, Annotation) and text.arrow_patch is not None
                    and text.xy[1] == row and text.xy[0] in panel.get_xlim()}


def points(data: Curves, fraction: int) -> dict[str, Point]:
    return {point.task: point for point in data.points if point.fraction == fraction}


def test_the_adjusted_interval_is_the_thicker_line_and_holds_the_plain_one(tmp_path: Path) -> None:
    data = read_arms(tmp_path, GAINS, 100)
    panel = forest(data)[0]
    arms = ["cpc", "jigsaw", "rotation", "rpl"]  # the order of the tables
    assert [label.get_text() for label in panel.get_yticklabels()] == arms
    low, high = panel.get_xlim()
    for row, task in enumerate(arms):
        point = points(data, 100)[task]
        assert point.difference and point.interval and point.difference.interval
        [thick], [thin] = lines(panel, row), lines(panel, row + difference.BELOW)
        assert thick.get_linewidth() > 2 * thin.get_linewidth()
        assert thick.get_xdata() == pytest.approx(np.clip(point.interval, low, high))
        assert thin.get_xdata() == pytest.approx(point.difference.interval)  # never cut
        assert thick.get_xdata()[0] < thin.get_xdata()[0] < thin.get_xdata()[1]
        assert {thick.get_color(), thin.get_color()} == {look_of(task, data.tasks).colour}


@pytest.mark.parametrize("sign", [1, -1])
def test_ends_that_the_axis_cuts_have_arrow_heads_and_no_others(tmp_path: Path, sign: int) -> None:
    data = read_arms(tmp_path, {task: tuple(sign * gain for gain in gains) for task, gains in {
        "baseline": (0, 0, 0), "cpc": (-0.01, 0, 0.01), "jigsaw": (0.01, -0.01, 0),
        "rotation": (0, 0.01, -0.01), "rpl": (0.05, 0.04, 0.03)}.items()}, 100)
    panel = forest(data)[0]
    low, high = panel.get_xlim()
    rows = [label.get_text() for label in panel.get_yticklabels()]
    for row, task in enumerate(rows):
        interval = points(data, 100)[task].interval
        assert interval
        assert heads(panel, row) == ({"<"} if interval[0] < low else set()) | (
            {">"} if interval[1] > high else set())
    assert heads(panel, rows.index("rpl")) and not heads(panel, rows.index("jigsaw"))


def test_the_grey_of_a_row_is_what_cannot_be_told_from_zero(tmp_path: Path) -> None:
    data = read_arms(tmp_path, GAINS | {"oracle": (0.4, 0.42, 0.6)}, 5, 100)
    data = replace(data, points=[replace(point, primary=(point.task, point.fraction) == ("rpl", 5))
                                 for point in data.points])
    for panel, fraction in zip(forest(data), (5, 100), strict=False):
        bands = {band.get_y() + 0.5: band for band in panel.patches if isinstance(band, Rectangle)}
        assert len(bands) == 5
        for row, task in enumerate(["cpc", "jigsaw", "rotation", "rpl", "oracle"]):
            point, band = points(data, fraction)[task], bands[row]
            assert point.difference and point.interval and band.get_height() == 1
            low, high = band.get_x(), band.get_x() + band.get_width()
            shown = not point.interval[0] <= 0 <= point.interval[1]
            assert low == -high and (low < point.difference.mean < high) == (not shown)
    narrow, wide = (points(data, fraction)["rpl"].could_show for fraction in (5, 100))
    assert narrow and wide and narrow[0] < wide[0]  # the primary's is its own


def test_no_panel_says_when_an_arm_is_as_good_where_the_baseline_gains_nothing(
        tmp_path: Path) -> None:
    data = read_arms(tmp_path, GAINS, 5, 100)
    assert difference.saves(data)
    (first, *others, last), rest = data.of_task("baseline"), [
        point for point in data.points if point.task != "baseline"]
    swapped = [replace(first, means=last.means), *others, replace(last, means=first.means)]
    assert not difference.saves(replace(data, points=[*swapped, *rest]))


def test_a_control_that_leaves_the_others_half_of_the_axis_lies_on_it(tmp_path: Path) -> None:
    low, high = forest(read_arms(tmp_path / "a", GAINS, 100))[0].get_xlim()
    far = high + 0.3 * (high - low)
    panel = forest(read_arms(tmp_path / "b", GAINS | {"oracle": (far,) * 3}, 100))[0]
    assert panel.get_xlim()[1] > far and np.ptp(panel.get_xlim()) < 2 * (high - low)


def test_intervals_of_controls_are_whole_as_far_as_the_arms_keep_their_room(tmp_path: Path) -> None:
    plain = np.ptp(forest(read_arms(tmp_path / "a", GAINS, 100))[0].get_xlim())
    for name, spread, whole in (("b", 0.01, True), ("c", 0.15, False)):
        data = read_arms(tmp_path / name, GAINS | {"oracle": (0.05 - spread, 0.05, 0.05 + spread)},
                         100)
        panel, control = forest(data)[0], points(data, 100)["oracle"]
        assert control.interval is not None
        low, high = panel.get_xlim()
        assert (low < control.interval[0] and control.interval[1] < high) == whole
        assert (heads(panel, 4) == set()) == whole
    both = {"oracle": (0.12, 0.13, 0.17), "rpl@shuffled": (-0.12, -0.09, -0.08)}
    panel = forest(read_arms(tmp_path / "d", GAINS | both, 100))[0]
    assert np.ptp(panel.get_xlim()) < 2 * plain  # all controls together, not each


def test_a_control_outside_the_axis_is_an_arrow_with_its_number(tmp_path: Path) -> None:
    without = forest(read_arms(tmp_path / "a", GAINS, 100))[0]
    data = read_arms(tmp_path / "b", GAINS | {"oracle": (0.4, 0.42, 0.41)}, 100)
    panel = forest(data)[0]
    assert np.ptp(panel.get_xlim()) < 1.5 * np.ptp(without.get_xlim())  # left out of the axis
    assert panel.get_yticklabels()[-1].get_text() == "oracle (control)"
    assert ">" in heads(panel, 4)
    assert "+0.410" in [text.get_text() for text in panel.texts]


def test_words_are_said_once_and_in_full(tmp_path: Path) -> None:
    data = read_arms(tmp_path, GAINS, 5, 25, 100)
    with caught() as figures:
        difference.draw(data, Path("x.png"))
    said = texts(figures["x.png"])
    assert said.count("better than the baseline") == 1 and "not\nreached" in said
    with caught() as figures:  # arms of one fraction beside a denser baseline: no such panel
        only = {"baseline": data.reached["rpl"]}
        difference.draw(replace(data, reached=only), Path("y.png"))
        some = [point for point in data.points if point.task != "rpl" or point.fraction == 5]
        kept = {task: one for task, one in data.reached.items() if task != "rpl"}
        difference.draw(replace(data, points=some, reached=kept), Path("z.png"))
    assert "not\nreached" not in texts(figures["y.png"])
    assert texts(figures["z.png"]).count("one fraction") == 1


def test_without_intervals_or_arms(tmp_path: Path) -> None:
    two = {task: gains[:2] for task, gains in GAINS.items()}
    panel = forest(read_arms(tmp_path / "two", two, 5))[0]
    assert not any(lines(panel, row + below) for row in range(4)
                   for below in (0, difference.BELOW))
    assert not panel.patches
    alone = read_arms(tmp_path / "alone", {"baseline": GAINS["baseline"]}, 5)
    assert not difference.draw(alone, tmp_path / "y.png") and not (tmp_path / "y.png").exists()


ARMS = {task: gains for task, gains in GAINS.items() if task in ("baseline", "cpc", "rpl")}


@pytest.mark.parametrize("fractions", [(1, 2, 5, 10, 25, 50, 100), (5, 10, 25, 50, 100), (50, 100)])
def test_labels_of_the_last_panel_keep_apart(tmp_path: Path, fractions: tuple[int, ...]) -> None:
    data = read_arms(tmp_path, ARMS | {"vicreg@shuffled": ARMS["rpl"]}, *fractions)
    with caught() as figures:
        difference.draw(data, Path("x.png"))
    figure = figures["x.png"]
    panel = next(one for one in figure.axes if one.get_title() == "as good as all labels at")
    shown = [one for one in panel.get_xticklabels() if one.get_text()]
    boxes = [one.get_window_extent() for one in shown]
    assert all(a.x1 + 5 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))  # pixels
    assert [one.get_text() for one in shown][-2:] == ["100", "not\nreached"]
    assert len(shown) == len(fractions) + (fractions[0] > 1)  # there is no room for 50 in the first


def test_the_primary_fraction_has_its_label(tmp_path: Path) -> None:
    data = read_arms(tmp_path, GAINS, 1, 2, 5, 10, 25, 50, 100)
    for fraction in (2, 5, 10):
        named = replace(data, plan={"primary": {"arm": "rpl", "fraction": fraction}})
        with caught() as figures:
            efficiency.draw(named, Path("x.png"), axis="Dice", panels=[])
        labels = [one.get_text() for panel in figures["x.png"].axes
                  for one in panel.get_xticklabels()]
        assert any(one.startswith(f"{fraction}\n") for one in labels), labels
        assert any(one.startswith("100\n") for one in labels) and "" in labels  # no room for all


def test_a_seed_beyond_the_axis_is_a_head_at_its_end_and_the_others_are_dots(tmp_path: Path
                                                                             ) -> None:
    data = read_arms(tmp_path, {"baseline": (0.0,) * 3, "rpl": (0.01, 0.02, 0.01),
                                "oracle": (0.1, 0.2, 0.6)}, 5)
    panel = forest(data)[0]
    low, high = panel.get_xlim()
    row = 1 + difference.BELOW
    seeds = [(str(line.get_marker()), float(line.get_xdata()[0])) for line in panel.get_lines()
             if list(line.get_ydata()) == [row]]
    gains = points(data, 5)["oracle"].difference
    assert gains is not None and len(seeds) == 3
    assert max(gains.scores) > high > low
    assert sorted(seeds) == sorted((".", score) if score <= high else (">", high)
                                   for score in gains.scores)
