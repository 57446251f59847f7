"""Learning curves: validation score against step, and what the pretext tasks have learnt."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.arms import BASELINE
from common.files import Json
from common.report.curves import Curves, order
from common.report.figures.palette import look_of
from common.report.figures.style import (
    STYLE,
    WIDTH,
    footing,
    grid_of,
    heading,
    lay_out,
    titles,
    write,
)
from common.report.tables import facts, marked

LINES = ("-", "--", ":")  # of the tasks of a joint arm, in the order of its name
SMOOTH, EPOCHS = 5, 50  # epochs that a pretext line is the mean of, where it has so many
TOP, HIGH, GAP, FOOT = 0.86, 1.25, 0.46, 0.56  # inches

Log = list[tuple[float, float]]


def learning(curves: Curves, path: Path) -> bool:
    """A panel an arm over the baseline, and one a pretraining; False without logs."""
    name = curves.measures[0].name
    if not any(_log(run, name) for run in curves.runs):
        return False
    fraction, pretext = _fraction(curves), _pretext_logs(curves)
    columns = grid_of(len(curves.tasks))
    block = -(-len(curves.tasks) // columns) * (HIGH + GAP)
    more = grid_of(len(pretext)) if pretext else 1
    second = (-(-len(pretext) // more) * (HIGH + GAP) + 0.42) if pretext else 0.0
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, TOP + block + second + FOOT))
        drawn = lay_out(figure, len(curves.tasks), columns, top=TOP, height=HIGH, gap=GAP)
        for panel, task in zip(drawn, curves.tasks, strict=True):
            if task == BASELINE:
                _convergence(panel, curves)
            else:
                _finetuning(panel, curves, (task, fraction))
        _named(drawn, curves, curves.tasks)
        _alike(drawn)
        _label(figure, drawn, columns, fill(f"{curves.metric}, validation", 24), "optimiser step")
        if pretext:
            lower = lay_out(figure, len(pretext), more, top=TOP + block + 0.42, height=HIGH,
                            gap=GAP)
            for panel, (task, lines) in zip(lower, pretext.items(), strict=True):
                _pretext(panel, curves, task, lines)
            _named(lower, curves, list(pretext))
            _label(figure, lower, more, "pretext accuracy\n0: chance, 1: perfect",
                   "pretraining step")
        heading(figure, f"{curves.dataset}: learning curves on validation", curves,
                "; ".join([*([curves.network] if curves.network else []), facts(curves)[0]]))
        footing(figure, *_words(curves, fraction, pretext))
        write(figure, path)
    return True


def _fraction(curves: Curves) -> int:
    """Where the arms are drawn: at the primary comparison's fraction, else their smallest."""
    there = {point.fraction for point in curves.points if point.task != BASELINE}
    if curves.primary_fraction in there:
        return curves.primary_fraction
    return min(there, default=curves.fractions[0])  # the baseline may be denser


def _named(panels: Sequence[Axes], curves: Curves, tasks: Sequence[str]) -> None:
    """An arm's name over each panel."""
    titles(panels, ["baseline, all fractions" if task == BASELINE else marked(task)
                    for task in tasks], [look_of(task, curves.tasks).colour for task in tasks])


def _log(run: Json, name: str) -> Log:
    """(step, score) of every validation of a run; empty without a log."""
    return [(step, score) for step, score in run["validations"].get(name, [])]


def _logs(curves: Curves, place: tuple[str, int]) -> list[Log]:
    """The headline's validations of every seed of an arm at a fraction."""
    name = curves.measures[0].name
    return [log for run in curves.runs if (run["task"], run["fraction"]) == place
            if (log := _log(run, name))]


def _convergence(panel: Axes, curves: Curves) -> None:
    """The baseline at every fraction, the darker the more labels."""
    for number, fraction in enumerate(curves.fractions):
        steps, mean = _mean(_logs(curves, (BASELINE, fraction)))
        grey = 0.72 * (1 - number / max(1, len(curves.fractions) - 1))
        panel.plot(steps, mean, color=str(grey if len(curves.fractions) > 1 else 0), linewidth=1.4)


def _finetuning(panel: Axes, curves: Curves, place: tuple[str, int]) -> None:
    """An arm's mean over the baseline's at one fraction, seeds thin."""
    task, fraction = place
    look = look_of(task, curves.tasks)
    for arm, colour, width in ((BASELINE, "#8A8A8A", 1.6), (task, look.colour, 2.0)):
        logs = _logs(curves, (arm, fraction))
        for log in logs:
            panel.plot(*zip(*log, strict=True), color=colour, linewidth=0.6, alpha=0.6)
        panel.plot(*_mean(logs), color=colour, linewidth=width, zorder=3)


def _pretext_logs(curves: Curves) -> dict[str, list[tuple[str, list[Log]]]]:
    """Of each arm that has a chance level: its tasks, and the share of the way to 1 by step."""
    logs: dict[str, dict[str, list[Log]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(curves.pretraining, key=lambda run: order(run["task"])):
        for name, chance in run["chance"].items():
            if run["task"] in curves.tasks and (log := _log(run, name)):
                logs[run["task"]][name].append([(step, (value - chance) / (1 - chance))
                                                for step, value in log])
    return {task: list(lines.items()) for task, lines in logs.items()}


def _pretext(panel: Axes, curves: Curves, task: str, lines: list[tuple[str, list[Log]]]) -> None:
    """Accuracy of an arm's pretext tasks between chance and 1: seeds thin, their mean smoothed."""
    look = look_of(task, curves.tasks)
    for number, (name, logs) in enumerate(lines):
        for log in logs:
            panel.plot(*zip(*log, strict=True), color=look.colour, linewidth=0.5, alpha=0.3)
        steps, mean = _mean(logs)
        width = _smoothed(mean)
        panel.plot(steps[width - 1:], [float(np.mean(mean[end - width:end]))
                                       for end in range(width, len(mean) + 1)], linewidth=1.8,
                   color=look.colour, linestyle=LINES[number % len(LINES)], zorder=3,
                   label=name.partition(" ")[0])
    panel.axhline(0, color="#555555", linewidth=0.8)
    panel.set_ylim(-0.15, 1.3)  # room for a legend
    if len(lines) > 1:
        panel.legend(fontsize=6.5, loc="upper left", handlelength=1.8, borderaxespad=0.1,
                     ncols=3, columnspacing=0.7, handletextpad=0.4)


def _smoothed(mean: Sequence[float]) -> int:
    """Epochs that a point of a pretext line is the mean of: a short run's line would lag."""
    return SMOOTH if len(mean) >= EPOCHS else 1


def _label(figure: Figure, drawn: Sequence[Axes], columns: int, across: str, below: str) -> None:
    """One label a side for all panels, numbers at their rim only."""
    for place, panel in enumerate(drawn):
        panel.tick_params(labelsize=7.5)
        panel.tick_params(labelleft=place % columns == 0)
        panel.xaxis.set_major_locator(MaxNLocator(4, integer=True, prune="upper"))
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    first, last = drawn[0].get_position(), drawn[-1].get_position()
    figure.text(0.012, (first.y1 + last.y0) / 2, across, rotation=90, va="center", fontsize=8.5,
                ha="left")
    figure.text(0.5, last.y0 - 0.34 / figure.get_size_inches()[1], below, ha="center", va="center",
                fontsize=8.5)


def _words(curves: Curves, fraction: int,
           pretext: Mapping[str, list[tuple[str, list[Log]]]]) -> list[str]:
    """What the lines are."""
    shades = (f"; baseline alone: light grey {curves.fractions[0]} % to black "
              f"{curves.fractions[-1]} %" if len(curves.fractions) > 1 else "")
    lines = [f"Arms (colour) and baseline (grey) at {fraction} % of the labels: thick, means over "
             f"runs as far as all go; thin, runs{shades}."]
    if pretext:
        long = any(_smoothed(_mean(logs)[1]) > 1 for lines in pretext.values() for _, logs in lines)
        epochs = f" and, of {EPOCHS} epochs and more, over {SMOOTH} epochs" if long else ""
        lines.append(f"Below: the pretext tasks while pretraining; thick, mean over "
                     f"seeds{epochs}; thin, seeds.")
    return lines


def _mean(logs: list[Log]) -> tuple[list[float], list[float]]:
    """Mean over the seeds that have been validated at a step, as long as all go on."""
    values: dict[float, list[float]] = defaultdict(list)
    for log in logs:
        for step, value in log:
            values[step].append(value)
    steps = sorted(step for step, scores in values.items() if len(scores) == len(logs))
    return steps, [float(np.mean(values[step])) for step in steps]


def _alike(panels: Sequence[Axes]) -> None:
    """The same axes for all: from the lowest to the highest, the first tenth of steps left out."""
    lines = [np.asarray(line.get_ydata(), float) for panel in panels for line in panel.get_lines()]
    values = [value for line in lines for value in line[len(line) // 10:]]
    if values:
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 0.05  # flat curves too lie on an axis
        for panel in panels:
            panel.set_ylim(low - room, high + room)
