"""Learning curves: validation score against step, and what the pretext tasks have learnt."""

from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from common.arms import BASELINE
from common.report.curves import Curves
from common.report.figures.style import STYLE, heading, style_of, write

LINES = ("-", "--", ":")  # of the tasks of a joint arm, in the order of its name


def learning(curves: Curves, path: Path) -> bool:
    """Validation score against step, a panel a fraction; pretext accuracy; False without logs."""
    if not any(log for run in curves.runs for log in run["validations"].values()):
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
                _pretext(panel, curves)
            else:
                _finetuning(panel, curves, fraction, labelled=number % columns == 0)
        for panel in axes.flat[len(panels):]:
            panel.set_visible(False)
        _alike([panel for panel, fraction in zip(axes.flat, panels, strict=False) if fraction])
        handles = [Line2D([], [], color=style_of(task, curves.tasks)[0], linewidth=2.2 if
                          task == BASELINE else 1.3, label=task) for task in curves.tasks]
        figure.legend(handles=handles, loc="upper left", ncols=min(8, len(handles)), fontsize=8,
                      bbox_to_anchor=(0.003, 1 - 0.27 / height), columnspacing=1.2)
        figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.85 / height,
                               bottom=0.68 / height, wspace=0.24, hspace=0.46)
        heading(figure, f"{curves.dataset}: learning curves on validation", curves, height)
        joint = (" Joint arms: solid, dashed and dotted in the order of their names."
                 if any("+" in task for task in curves.tasks) else "")
        figure.text(0.012, 0.06 / height, "Lines: means over seeds, as far as all of them go; "
                    f"dotted: single seeds of the baseline.{joint}", fontsize=7.5, color="#333333",
                    va="bottom")
        write(figure, path)
    return True


def _finetuning(panel: Axes, curves: Curves, fraction: int, *, labelled: bool) -> None:
    """Validation score of every arm at one fraction."""
    name, label = curves.measures[0].name, curves.measures[0].label
    for task in curves.tasks:
        colour = style_of(task, curves.tasks)[0]
        logs = [log for run in curves.runs if (run["task"], run["fraction"]) == (task, fraction)
                if (log := run["validations"].get(name))]
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


def _pretext(panel: Axes, curves: Curves) -> None:
    """Accuracy of every pretext task between chance and 1, against the share of its steps."""
    found: dict[tuple[str, int], list[list[tuple[float, float]]]] = defaultdict(list)
    for run in curves.pretraining:
        for number, (name, chance) in enumerate(run["chance"].items()):
            log = run["validations"].get(name, [])
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
