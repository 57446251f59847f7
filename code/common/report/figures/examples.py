"""Test cases with their predictions: which are shown, and the figure.

Beside the baseline stands the arm that was best on validation.
Predictions are shown of runs whose records are those that they were made of, and of no others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from numpy.typing import NDArray

from common.arms import BASELINE, is_control
from common.files import Json
from common.report.curves import Curves
from common.report.figures.style import STYLE, WIDTH, bare, footing, heading, scale, write
from common.runs.records import unordered

CLASSES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#F0E442")  # Okabe and Ito 2008
LETTERS = 64  # of 8 points in half of the figure's width, about
COVER = 0.5  # how much of the image a class hides
RIGHT, WRONG = ("✓", "#1B7F4B"), ("✗", "#B3261E")

Array = NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """What is shown of the saved examples."""

    best: str | None                  # arm beside the baseline, None if there is none
    index: dict[str, int]             # arm -> its predictions' number
    words: str                        # how they were chosen, a sentence
    cases: dict[str, Json] = field(default_factory=dict)             # arm -> case id -> scores
    rows: dict[str, int] = field(default_factory=dict)               # name -> saved case
    grids: dict[str, list[int | None]] = field(default_factory=dict)  # name -> saved case a grade


def choose_segmentations(saved: Mapping[str, Array], curves: Curves) -> Choice:
    """The baseline's worst, median and best case by Dice."""
    best, index, runs, words = _arms(saved, curves)
    cases = {arm: run["cases"] for arm, run in runs.items()}
    scored = [(case["dice"], row) for row, name in enumerate(saved["ids"])
              if (case := cases[BASELINE].get(str(name))) and case["dice"] is not None]
    ordered = [row for _, row in sorted(scored)]
    if not ordered:
        return Choice(best, index, words, cases=cases)
    rows = {"worst": ordered[0], "median": ordered[len(ordered) // 2], "best": ordered[-1]}
    return Choice(best, index, words, cases=cases, rows=rows)


def choose_grades(saved: Mapping[str, Array], curves: Curves) -> Choice:
    """Of every grade the first case that the arm has right, and its worst mistake.

    Of classes without an order its first mistake: none is worse than another.
    """
    best, index, _, words = _arms(saved, curves)
    apart = not unordered(curves.runs[0])
    truth = saved["truth"].astype(int)
    arm = saved["predicted"][index[best or BASELINE]].astype(int)
    right: list[int | None] = []
    wrong: list[int | None] = []
    for grade in range(len(curves.runs[0]["classes"])):
        rows = np.flatnonzero(truth == grade).tolist()
        hits = [row for row in rows if arm[row] == grade]
        misses = sorted((-apart * abs(arm[row] - grade), row) for row in rows if arm[row] != grade)
        right.append(hits[0] if hits else None)
        wrong.append(misses[0][1] if misses else None)
    titles = ("graded right", "worst mistake") if apart else ("right", "wrong")
    return Choice(best, index, words, grids=dict(zip(titles, (right, wrong), strict=True)))


def kept(saved: Mapping[str, Array], curves: Curves) -> list[int]:
    """Rows of the saved cases that a picture shows; none if there is nothing to show."""
    if saved["truth"].ndim > 1:
        return sorted(set(choose_segmentations(saved, curves).rows.values()))
    grids = choose_grades(saved, curves).grids.values()
    return sorted({row for rows in grids for row in rows if row is not None})


def shown(saved: Mapping[str, Array], curves: Curves) -> dict[str, Json]:
    """The runs whose predictions are saved, by arm; without those made of other records."""
    place = (int(saved["fraction"]), int(saved["seed"]))
    if "runs" not in saved:  # of an earlier version
        return {}
    made = {str(task): str(run) for task, run in zip(saved["tasks"], saved["runs"], strict=True)}
    return {run["task"]: run for run in curves.runs
            if (run["fraction"], run["seed"]) == place and made.get(run["task"]) == run["digest"]}


def _arms(saved: Mapping[str, Array],
          curves: Curves) -> tuple[str | None, dict[str, int], dict[str, Json], str]:
    """The best arm on validation, the place of each arm's predictions, the runs they come from."""
    runs = shown(saved, curves)
    index = {str(task): number for number, task in enumerate(saved["tasks"]) if task in runs}
    fraction, seed = int(saved["fraction"]), int(saved["seed"])
    here = [run for run in curves.runs if run["fraction"] == fraction and run["task"] in index]
    metric = curves.measures[0].name
    means: dict[str, list[float]] = {}
    for run in here:
        means.setdefault(run["task"], []).append(run["val"][metric] or 0.0)
    ranked = sorted((is_control(task), -float(np.mean(values)), task)
                    for task, values in means.items() if task != BASELINE)
    best = ranked[0][2] if ranked else None  # a control for want of anything else
    why = ": the best arm there on validation, mean over seeds" * (len(ranked) > 1)
    words = f"{fraction} % of the labels, seed {seed}" + (f"; {best}{why}." if best else ".")
    return best, index, runs, words


def segmentations(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """Image, truth and two predictions of the baseline's worst, median and best test case."""
    choice = choose_segmentations(saved, curves)
    classes = curves.runs[0]["classes"]
    arms = [BASELINE, *([choice.best] if choice.best else [])]
    columns = ["image", "truth", *arms]
    with plt.rc_context(STYLE):
        foot = 0.95 + 0.2 * -(-len(classes) // 6)
        height = 0.4 + foot + 1.95 * len(choice.rows)
        figure, axes = plt.subplots(len(choice.rows), len(columns), squeeze=False,
                                    figsize=(WIDTH, height))
        bars = []
        for line, (name, row) in zip(axes, choice.rows.items(), strict=True):
            image, truth = saved["images"][row], saved["truth"][row]
            maps = [None, truth, *(saved["predicted"][choice.index[arm]][row] for arm in arms)]
            window = _window([one for one in maps if one is not None])
            for column, (panel, labels) in enumerate(zip(line, maps, strict=True)):
                panel.imshow(_overlaid(image, labels, len(classes))[window])
                bare(panel)
                if column >= 2:
                    _contours(panel, truth[window], len(classes))
                    dice = choice.cases[arms[column - 2]][str(saved["ids"][row])]["dice"]
                    panel.set_xlabel("no class" if dice is None else f"Dice {dice:.3f}", fontsize=8)
            side = window[1].stop - window[1].start
            bars.append(scale(line[0], side, most=side))
            line[0].set_ylabel(f"{name}\n{saved['ids'][row]}", fontsize=8)
        for panel, title in zip(axes[0], columns, strict=True):
            panel.set_title(title, fontsize=9)
        figure.legend(handles=[Patch(color=colour, label=name) for name, colour in
                               zip(classes, colours(len(classes)), strict=True)],
                      loc="lower left", ncols=min(6, len(classes)), fontsize=8,
                      bbox_to_anchor=(0.003, 0.58 / height))
        figure.subplots_adjust(left=0.08, right=0.985, top=1 - 0.6 / height,
                               bottom=foot / height, wspace=0.06, hspace=0.2)
        heading(figure, f"{curves.dataset}: the baseline's worst, median and best test case",
                curves)
        long = " or ".join(map(str, sorted(set(bars))))
        footing(figure, choice.words, "Filled: prediction; outlined: truth. Axial slice with most "
                f"foreground, the subject's right on the right, resampled to a cube; bar: {long} "
                "voxels.", "Dice of the whole volume, mean of foreground.")
        write(figure, path)


def _contours(panel: Axes, truth: Array, classes: int) -> None:
    """The edges of every class of a map, along the sides of its voxels."""
    for label, colour in enumerate(colours(classes), 1):
        lines = _edges(truth == label)
        for ink, width in (("black", 2.6), (colour, 1.3)):
            panel.add_collection(LineCollection(lines, colors=[ink], linewidths=width,
                                                capstyle="projecting"), autolim=False)


def _edges(inside: Array) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Sides between a voxel inside a mask and one outside it, as lines from (x, y) to (x, y)."""
    padded = np.pad(inside, 1).astype(int)
    level = np.argwhere(np.diff(padded, axis=0)[:, 1:-1])    # above row i, along column j
    upright = np.argwhere(np.diff(padded, axis=1)[1:-1])     # left of column j, along row i
    return ([((j - 0.5, i - 0.5), (j + 0.5, i - 0.5)) for i, j in level.tolist()]
            + [((j - 0.5, i - 0.5), (j - 0.5, i + 0.5)) for i, j in upright.tolist()])


def grades(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """Of every true grade, a photograph that the best arm grades right, and its worst mistake.

    Of classes one that it has right and one that it takes for another class, with their names.
    """
    choice, kind = choose_grades(saved, curves), "grades"
    names = curves.runs[0]["classes"]
    answers = [*map(str, range(len(names)))]
    if unordered(curves.runs[0]):
        names, kind = [_cut(name, len(names)) for name in names], "classes"
        answers = names
    bars = []
    with plt.rc_context(STYLE):
        side = min((WIDTH - 0.6) / len(names), 2.2)  # of a panel; what stands below grows with it
        below = 0.82 + 0.2 * max(0.0, side - 1.6)
        height = 0.28 + below + 2 * (side + 0.42)
        figure, axes = plt.subplots(2, len(names), squeeze=False, figsize=(WIDTH, height))
        for line, (title, rows) in zip(axes, choice.grids.items(), strict=True):
            for panel, row in zip(line, rows, strict=True):
                bare(panel)
                if row is None:
                    panel.text(0.5, 0.5, "none", ha="center", va="center", fontsize=8,
                               transform=panel.transAxes, color="#777777")
                    continue
                panel.imshow(saved["images"][row])
                pixels = curves.runs[0]["resolution"]
                bars.append(scale(panel, pixels, most=pixels))
                _said(panel, saved, row, choice, answers)
            line[0].set_ylabel(title, fontsize=8)
        for panel, name in zip(axes[0], names, strict=True):
            panel.set_title(f"true {name}", fontsize=9)
        figure.subplots_adjust(left=0.05, right=0.985, top=1 - 0.6 / height,
                               bottom=below / height, wspace=0.06, hspace=0.34)
        heading(figure, f"{curves.dataset}: predicted {kind} of test photographs", curves)
        footing(figure, choice.words, f"{RIGHT[0]} right, {WRONG[0]} wrong; bar: {bars[0]} pixels "
                "of the network's input.")
        write(figure, path)


def _said(panel: Axes, saved: Mapping[str, Array], row: int, choice: Choice,
          answers: Sequence[str]) -> None:
    """The baseline's and the best arm's answer to a photograph, right or wrong."""
    for place, arm in enumerate(dict.fromkeys([BASELINE, choice.best or BASELINE])):
        said = int(saved["predicted"][choice.index[arm]][row])
        sign, colour = RIGHT if said == int(saved["truth"][row]) else WRONG
        panel.text(0.5, -0.05 - 0.13 * place, f"{arm}: {answers[said]} {sign}", fontsize=8,
                   color=colour, ha="center", va="top", transform=panel.transAxes)


def _cut(name: str, classes: int) -> str:
    """A class's name in about half of its panel's width, the sign of formulas as a letter."""
    most = max(4, LETTERS // max(4, classes))
    return (name if len(name) <= most else f"{name[:most - 1]}…").replace("$", r"\$")


def _overlaid(image: Array, labels: Array | None, classes: int) -> Array:
    """A grey or coloured image (h, w[, 3]) with its classes in colour, (h, w, 3) in 0..1."""
    base = image / 255.0 if image.ndim == 3 else np.repeat(image[..., None] / 255.0, 3, axis=2)
    if labels is not None:
        for label in range(1, classes + 1):
            colour = np.array(colours(classes)[label - 1])
            inside = labels == label
            base[inside] = (1 - COVER) * base[inside] + COVER * colour
    return base


def colours(classes: int) -> list[tuple[float, float, float]]:
    """A colour a class: of six that any eye tells apart, or of twenty."""
    names = CLASSES if classes <= len(CLASSES) else [
        matplotlib.colors.to_hex(matplotlib.colormaps["tab20"](i % 20)) for i in range(classes)]
    return [matplotlib.colors.to_rgb(name) for name in names[:classes]]


def _window(maps: list[Array]) -> tuple[slice, slice]:
    """A square round all classes, with a margin, no smaller than half of the image."""
    height, width = maps[0].shape
    rows, columns = np.nonzero(np.any([one > 0 for one in maps], axis=0))
    if not len(rows):
        return slice(0, height), slice(0, width)
    side = 1 + int(max(np.ptp(rows), np.ptp(columns)))
    side = min(min(height, width), max(int(1.4 * side), min(height, width) // 2))
    place = [min(max(0, int(middle) - side // 2), full - side) for middle, full in
             (((rows.min() + rows.max() + 1) / 2, height),
              ((columns.min() + columns.max() + 1) / 2, width))]
    return slice(place[0], place[0] + side), slice(place[1], place[1] + side)
