"""Pictures beside the curves: test cases with predictions, learning curves, pretext views.

Drawn from the records and from the small arrays that pictures.py has saved; needs no torch.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

matplotlib.use("Agg")  # files only; works without a screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from common import choice
from common.arms import BASELINE
from common.curves import Curves
from common.plot import STYLE, style_of, write
from common.records import run_folder, validations

CLASSES = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#F0E442")  # Okabe and Ito 2008
COVER = 0.6  # how much of the image a class hides
RIGHT, WRONG = "#1B7F4B", "#B3261E"
LINES = ("-", "--", ":")  # of the tasks of a joint arm, in the order of its name

Array = NDArray[Any]


def segmentations(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """Image, truth and two predictions of the baseline's worst, median and best test case."""
    shown = choice.segmentations(saved, curves)
    classes = curves.runs[0]["classes"]
    arms = [BASELINE, *([shown.best] if shown.best else [])]
    columns = ["image", "truth", *arms]
    with plt.rc_context(STYLE):
        foot = 0.75 + 0.2 * -(-len(classes) // 6)
        height = 0.4 + foot + 1.75 * len(shown.rows)
        figure, axes = plt.subplots(len(shown.rows), len(columns), squeeze=False,
                                    figsize=(0.9 + 1.75 * len(columns), height))
        for line, (name, row) in zip(axes, shown.rows.items(), strict=True):
            image = saved["images"][row]
            maps = [None, saved["truth"][row], *(saved["predicted"][shown.index[arm]][row]
                                                 for arm in arms)]
            window = _window([one for one in maps if one is not None])
            for column, (panel, labels) in enumerate(zip(line, maps, strict=True)):
                panel.imshow(_overlaid(image, labels, len(classes))[window])
                _bare(panel)
                if column >= 2:
                    dice = shown.cases[arms[column - 2]][str(saved["ids"][row])]["dice"]
                    panel.set_xlabel("no class" if dice is None else f"Dice {dice:.3f}", fontsize=8)
            line[0].set_ylabel(f"{name}\n{saved['ids'][row]}", fontsize=8)
        for panel, title in zip(axes[0], columns, strict=True):
            panel.set_title(title, fontsize=9)
        figure.legend(handles=[Patch(color=colour, label=name) for name, colour in
                               zip(classes, _colours(len(classes)), strict=True)],
                      loc="lower left", ncols=min(6, len(classes)), fontsize=8,
                      bbox_to_anchor=(0.003, 0.42 / height))
        figure.subplots_adjust(left=0.11, right=0.985, top=1 - 0.62 / height,
                               bottom=foot / height, wspace=0.06, hspace=0.2)
        _title(figure, f"{curves.dataset}: the baseline's worst, median and best test case", curves,
               height)
        figure.text(0.012, 0.1 / height, f"{shown.words} Axial slice with most foreground,\n"
                    "the subject's right on the right, resampled to a cube; Dice of the whole "
                    "volume, mean of foreground.", fontsize=7.5, va="bottom",
                    color="#333333")
        write(figure, path)


def grades(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """Of every true grade, a photograph that the best arm grades right, and its worst mistake."""
    shown = choice.grades(saved, curves)
    names = curves.runs[0]["classes"]
    other = shown.best or BASELINE
    with plt.rc_context(STYLE):
        height = 5.0
        figure, axes = plt.subplots(2, len(names), squeeze=False,
                                    figsize=(0.6 + 1.75 * len(names), height))
        for line, (title, rows) in zip(axes, shown.grids.items(), strict=True):
            for panel, row in zip(line, rows, strict=True):
                _bare(panel)
                if row is None:
                    panel.text(0.5, 0.5, "none", ha="center", va="center", fontsize=8,
                               transform=panel.transAxes, color="#777777")
                    continue
                panel.imshow(saved["images"][row])
                truth = int(saved["truth"][row])
                said = {arm: int(saved["predicted"][shown.index[arm]][row])
                        for arm in dict.fromkeys([BASELINE, other])}
                for place, (arm, grade) in enumerate(said.items()):
                    panel.text(0.5, -0.05 - 0.13 * place, f"{arm}: {grade}", fontsize=8,
                               ha="center", va="top", transform=panel.transAxes,
                               color=RIGHT if grade == truth else WRONG)
            line[0].set_ylabel(title, fontsize=8)
        for panel, name in zip(axes[0], names, strict=True):
            panel.set_title(f"true {name}", fontsize=9)
        figure.subplots_adjust(left=0.07, right=0.985, top=1 - 0.62 / height, bottom=0.16,
                               wspace=0.06, hspace=0.32)
        _title(figure, f"{curves.dataset}: predicted grades of test photographs", curves, height)
        figure.text(0.012, 0.02, f"{shown.words} Green: right, red: wrong.", fontsize=7.5,
                    color="#333333", va="bottom")
        write(figure, path)


def views(saved: Mapping[str, Array], curves: Curves, path: Path) -> None:
    """What each pretext task shows the network of two cases, and what it asks."""
    tasks = [str(name) for name in saved["tasks"]]
    shapes = [saved[f"views {task}"].shape[1:3] for task in tasks]
    with plt.rc_context(STYLE):
        # As many inches high as its aspect asks for, within reason.
        heights = [min(1.7, max(0.85, 3.3 * h / w)) for h, w in shapes]
        height = sum(heights) + 0.42 * len(tasks) + 0.9
        figure = plt.figure(figsize=(8.2, height))
        top = height - 0.5
        for task, inches in zip(tasks, heights, strict=True):
            images, captions = saved[f"views {task}"], saved[f"captions {task}"]
            figure.text(0.012, (top - inches / 2) / height, task, fontsize=10, fontweight="bold",
                        color=style_of(task, tasks)[0], va="center")
            for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
                panel = figure.add_axes((0.13 + 0.435 * column, (top - inches) / height, 0.42,
                                         inches / height))
                panel.imshow(image, cmap="gray", vmin=0, vmax=255)
                _bare(panel)
                panel.set_xlabel(str(caption), fontsize=8)
            top -= inches + 0.42
        _title(figure, f"{curves.dataset}: what the pretext tasks show, and ask", curves, height)
        figure.text(0.012, 0.08 / height, "Two cases of the pretraining pool. Of volumes the "
                    "middle axial slice of every view; a grid's layers lie side by side.\n"
                    f"{saved['axes']}", fontsize=7.5, color="#333333", va="bottom")
        write(figure, path)


def learning(folder: Path, curves: Curves, path: Path) -> bool:
    """Validation score against step, a panel a fraction; pretext accuracy; False without logs."""
    if not any((run_folder(folder, run) / "log.jsonl").exists() for run in curves.runs):
        return False
    with plt.rc_context(STYLE):
        panels = [*curves.fractions, *([None] if curves.pretraining else [])]
        columns = len(panels) if len(panels) <= 4 else 3
        rows = -(-len(panels) // columns)
        height = 0.95 + 2.45 * rows
        figure, axes = plt.subplots(rows, columns, squeeze=False,
                                    figsize=(max(7.0, 0.6 + 3.2 * columns), height))
        for number, (panel, fraction) in enumerate(zip(axes.flat, panels, strict=False)):
            if fraction is None:
                _pretext(panel, folder, curves)
            else:
                _finetuning(panel, folder, curves, fraction, labelled=number % columns == 0)
        for panel in axes.flat[len(panels):]:
            panel.set_visible(False)
        _alike([panel for panel, fraction in zip(axes.flat, panels, strict=False) if fraction])
        handles = [Line2D([], [], color=style_of(task, curves.tasks)[0], linewidth=2.2 if
                          task == BASELINE else 1.3, label=task) for task in curves.tasks]
        figure.legend(handles=handles, loc="upper left", ncols=min(8, len(handles)), fontsize=8,
                      bbox_to_anchor=(0.003, 1 - 0.27 / height), columnspacing=1.2)
        figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.85 / height,
                               bottom=0.68 / height, wspace=0.24, hspace=0.46)
        _title(figure, f"{curves.dataset}: learning curves on validation", curves, height)
        joint = (" Joint arms: solid, dashed and dotted in the order of their names."
                 if any("+" in task for task in curves.tasks) else "")
        figure.text(0.012, 0.06 / height, "Lines: means over seeds, as far as all of them go; "
                    f"dotted: single seeds of the baseline.{joint}", fontsize=7.5, color="#333333",
                    va="bottom")
        write(figure, path)
    return True


def _finetuning(panel: Axes, folder: Path, curves: Curves, fraction: int, *,
                labelled: bool) -> None:
    """Validation score of every arm at one fraction."""
    name, label = curves.measures[0].name, curves.measures[0].label
    for task in curves.tasks:
        colour = style_of(task, curves.tasks)[0]
        logs = [log for run in curves.runs if (run["task"], run["fraction"]) == (task, fraction)
                if (log := validations(run_folder(folder, run), name))]
        steps, mean = _mean(logs)
        plain = task == BASELINE
        if plain:
            for log in logs:
                panel.plot(*zip(*log, strict=True), ":", color=colour, linewidth=0.8)
        panel.plot(steps, mean, color=colour, linewidth=2.0 if plain else 1.1,
                   zorder=4 if plain else 3)
    panel.set_title(f"{fraction} % of the labels", fontsize=9, loc="left")
    panel.set_xlabel("optimiser step")
    if labelled:
        panel.set_ylabel(f"{label.partition(',')[0]}, validation", fontsize=8.5)


def _pretext(panel: Axes, folder: Path, curves: Curves) -> None:
    """Accuracy of every pretext task between chance and 1, against the share of its steps."""
    found: dict[tuple[str, int], list[list[tuple[float, float]]]] = defaultdict(list)
    for run in curves.pretraining:
        for number, (name, chance) in enumerate(run["chance"].items()):
            log = validations(run_folder(folder, run), name)
            found[run["task"], number].append([(step, (value - chance) / (1 - chance))
                                               for step, value in log])
    for (task, number), logs in found.items():
        if task in curves.tasks:
            steps, mean = _mean(logs)
            panel.plot(steps, mean, color=style_of(task, curves.tasks)[0], linewidth=1.1,
                       linestyle=LINES[number % len(LINES)])
    panel.axhline(0, color="#555555", linewidth=0.8)
    panel.set_title("pretext accuracy: 0 chance, 1 perfect", fontsize=9, loc="left")
    panel.set_xlabel("pretraining step (joint: one line a task)")


def _mean(logs: list[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """Mean over the seeds that have been validated at a step, as long as all go on."""
    values: dict[float, list[float]] = defaultdict(list)
    for log in logs:
        for step, value in log:
            values[step].append(value)
    steps = sorted(step for step, found in values.items() if len(found) == len(logs))
    return steps, [float(np.mean(values[step])) for step in steps]


def _alike(panels: list[Axes]) -> None:
    """One y axis for all: from the lowest to the highest, the first tenth of steps left out."""
    lines = [np.asarray(line.get_ydata(), float) for panel in panels for line in panel.get_lines()]
    values = [value for line in lines for value in line[len(line) // 10:]]
    if values:
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.05  # flat curves too lie on an axis
        for panel in panels:
            panel.set_ylim(low - room, high + room)


def _overlaid(image: Array, labels: Array | None, classes: int) -> Array:
    """A grey or coloured image (h, w[, 3]) with its classes in colour, (h, w, 3) in 0..1."""
    base = image / 255.0 if image.ndim == 3 else np.repeat(image[..., None] / 255.0, 3, axis=2)
    if labels is not None:
        for label in range(1, classes + 1):
            colour = np.array(_colours(classes)[label - 1])
            inside = labels == label
            base[inside] = (1 - COVER) * base[inside] + COVER * colour
    return base


def _colours(classes: int) -> list[tuple[float, float, float]]:
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


def _bare(panel: Axes) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _title(figure: Figure, text: str, curves: Curves, height: float) -> None:
    if curves.generated:
        text += " (generated data)"
    figure.text(0.012, 1 - 0.22 / height, text, fontsize=11, fontweight="bold")
