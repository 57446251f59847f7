"""The data-efficiency curves: test score against labelled share, an arm a line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.arms import BASELINE
from common.report.curves import Curves
from common.report.figures.style import STYLE, style_of, write
from common.report.stats import Measure
from common.report.tables import facts

DODGE = 0.028  # between neighbouring arms, as a share of the axis
WIDEST = 0.6   # of all arms of a fraction, as a share of the way to the next


@dataclass(frozen=True)
class Published:
    """Curves of others in one metric: name -> score at FRACTIONS; dashed if not comparable."""

    label: str
    fractions: Sequence[int]
    curves: Mapping[str, Sequence[float]]
    dashed: bool = False


def draw(curves: Curves, path: Path, *, axis: str, panels: Sequence[Measure],
         paper: Measure | None = None, published: Sequence[Published] = ()) -> None:
    """Draw headline, one small panel a class and, if asked, the published curves; write a PNG.

    ``axis`` labels the headline; ``panels`` are drawn beside it; ``paper`` is the measure that the
    published curves are in.
    """
    with plt.rc_context(STYLE):
        rows = max(1, len(panels))
        wide = bool(panels) + bool(published)
        ratios = [1.7] + ([1.0] if panels else []) + ([1.7] if published else [])
        width = 5.6 + 3.4 * wide + (2.2 if published else 0)
        figure = plt.figure(figsize=(width, 5.0))
        layout = figure.add_gridspec(rows, len(ratios), width_ratios=ratios, hspace=0.38,
                                     wspace=0.26, left=0.86 / width, right=0.985, top=0.845,
                                     bottom=0.245)
        main = figure.add_subplot(layout[:, 0])
        _panel(main, curves, curves.measures[0])
        main.set_ylabel(axis)
        main.set_xlabel("labelled share of the training cases (number of cases), evenly spaced")
        for row, measure in enumerate(panels):
            small = figure.add_subplot(layout[row, 1])
            _panel(small, curves, measure, counts=row == len(panels) - 1)
            small.set_title(measure.label, fontsize=9, loc="left")
        if published and paper is not None:
            other = figure.add_subplot(layout[:, -1])
            _panel(other, curves, paper)
            _published(other, curves, published)
            other.set_ylabel(paper.label)
        _words(figure, curves)
        write(figure, path)


def _panel(axes: Axes, curves: Curves, measure: Measure, *, counts: bool = True) -> None:
    """Mean and interval of every arm over the fractions, seeds as dots."""
    places = {fraction: index for index, fraction in enumerate(curves.fractions)}
    span = max(1, len(places) - 1)
    tasks = curves.tasks
    for number, task in enumerate(tasks):
        colour, marker = style_of(task, tasks)
        step = min(DODGE * (span + 0.6), WIDEST / len(tasks))
        shift = (number - (len(tasks) - 1) / 2) * step
        points = curves.of_task(task)
        x = [places[point.fraction] + shift for point in points]
        estimates = [point.means[measure.name] for point in points]
        plain = task == BASELINE
        axes.plot(x, [e.mean for e in estimates], color=colour, marker=marker,
                  markersize=6 if plain else 5, linewidth=2.4 if plain else 1.3,
                  zorder=4 if plain else 3)
        bars = [(place, e) for place, e in zip(x, estimates, strict=True) if e.half is not None]
        if bars:
            axes.errorbar([place for place, _ in bars], [e.mean for _, e in bars],
                          [e.half or 0 for _, e in bars], fmt="none", ecolor=colour,
                          elinewidth=1.1, capsize=2, zorder=3)
        for place, estimate in zip(x, estimates, strict=True):
            axes.plot([place] * len(estimate.scores), estimate.scores, ".", color=colour,
                      markersize=4, alpha=0.55, zorder=2)
    cases = {point.fraction: point.labelled for point in curves.points}
    axes.set_xticks(list(places.values()), [f"{fraction} %" + (f"\n({cases[fraction]})" if counts
                                            else "") for fraction in places])
    axes.set_xlim(-0.35, span + 0.35 if len(places) > 1 else 0.35)
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, measure.bounds[0] - 0.01), min(high, measure.bounds[1]))
    axes.grid(False, axis="x")


def _published(axes: Axes, curves: Curves, published: Sequence[Published]) -> None:
    """Thin lines of others' curves, and a legend of whose they are."""
    places = {fraction: index for index, fraction in enumerate(curves.fractions)}
    handles = [Line2D([], [], color="#555555", marker="o", linewidth=1.3, label="this run")]
    for source in published:
        line: Any = (0, (3, 2)) if source.dashed else "-"
        for task, values in source.curves.items():
            shown = [(places[f], v) for f, v in zip(source.fractions, values, strict=True)
                     if f in places]
            axes.plot([x for x, _ in shown], [v for _, v in shown], linestyle=line, linewidth=1,
                      alpha=0.55, color=style_of(task, [*curves.tasks, *source.curves])[0])
        handles.append(Line2D([], [], color="#555555", alpha=0.7, linewidth=1, linestyle=line,
                              label=source.label))
    alone = sorted({task for source in published for task in source.curves} - {*curves.tasks})
    handles += [Line2D([], [], color=style_of(task, alone)[0], alpha=0.7, linewidth=1,
                       label=f"{task} (published only)") for task in alone]
    axes.relim()
    axes.autoscale(axis="y")
    axes.legend(handles=handles, fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.13),
                borderaxespad=0)  # below: there is no free corner for sure


def _words(figure: Figure, curves: Curves) -> None:
    """Title, legend of the arms, and beneath the panels what a reader has to know."""
    title = f"{curves.dataset}: test score against labelled data"
    if curves.generated:
        title += " (generated data, not a result about patients)"
    if curves.missing:
        title += " (partial)"
    figure.text(0.012, 0.955, title, fontsize=11, fontweight="bold")
    handles = [Line2D([], [], color=style_of(task, curves.tasks)[0],
                      marker=style_of(task, curves.tasks)[1],
                      linewidth=2.4 if task == BASELINE else 1.3,
                      label="baseline (from scratch)" if task == BASELINE else task)
               for task in curves.tasks]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.003, 0.945),
                  ncols=min(6, len(handles)), columnspacing=1.4, handlelength=1.8)
    lines = facts(curves)
    if curves.missing:
        more = f" and {len(curves.missing) - 3} more" if len(curves.missing) > 3 else ""
        lines.append(f"Missing: {'; '.join(curves.missing[:3])}{more}.")
    figure.text(0.012, 0.015, "\n".join(lines), fontsize=7.5, color="#333333", va="bottom",
                linespacing=1.35)
