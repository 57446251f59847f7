"""The data-efficiency curves: test score against labelled share, each arm beside the baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from common.arms import BASELINE, is_control
from common.report.curves import Curves, Point
from common.report.figures.palette import look_of
from common.report.figures.style import (
    STYLE,
    WIDTH,
    footing,
    grid_of,
    handle,
    heading,
    lay_out,
    named,
    titles,
    write,
)
from common.report.tables import facts, marked
from common.stats.estimates import MIN_BLOCKS
from common.stats.measures import Measure

TOGETHER = 3    # arms that one panel may hold; more have a panel each
LONG = 10       # letters of a last label that is written to the left of its tick
MARGIN = 0.09   # of the fractions' range, beyond either end
CLASSES = 4     # small panels at most; the tables have them all
SMALL_LETTERS = 7  # points, of the published curves' legend
LETTERS = 0.27  # inches that a label below the axis needs
DODGE = 0.15    # inches between neighbouring arms of a panel
DOTS = 0.05     # inches from a bar to its seeds, which it would hide
TOP, SMALL_HIGH, PUBLISHED_HIGH = 0.98, 1.05, 2.5  # inches
PUBLISHED_CURVES = Path(__file__).with_name("published_curves.json")  # of the paper, and others


@dataclass(frozen=True)
class Published:
    """Curves of others in one metric: name -> score at FRACTIONS; dashed if not comparable."""

    label: str
    fractions: Sequence[int]
    curves: Mapping[str, Sequence[float]]
    dashed: bool = False


def draw(curves: Curves, path: Path, *, axis: str, panels: Sequence[Measure],
         paper: Measure | None = None, published: Sequence[Published] = ()) -> None:
    """Draw every arm beside the baseline, classes small and, if asked, the published curves.

    ``axis`` labels the headline; ``panels`` are drawn small; ``paper`` is the measure that the
    published curves are in.
    """
    groups = grouped(curves)
    columns = grid_of(len(groups))
    small = panels[:CLASSES]
    rows = -(-len(groups) // columns)
    high, gap = (2.7, 0.0) if len(groups) == 1 else (1.8 if rows == 1 else 1.4, 0.3)
    block = rows * high + (rows - 1) * gap
    lines = _words(curves, len(small), len(panels), alone=len(groups) > 1)
    with plt.rc_context(STYLE):
        height = (TOP + block + 0.66 + (SMALL_HIGH + 0.72) * bool(small)
                  + (PUBLISHED_HIGH + 0.3) * bool(published) + 0.155 * len(lines) + 0.05)
        figure = plt.figure(figsize=(WIDTH, height))
        _arms(figure, curves, groups, axis=axis, high=high, gap=gap)
        below = TOP + block + 0.86
        if small:
            _small(figure, curves, small, below)
            below += SMALL_HIGH + 0.76
        if published and paper is not None:
            _compared(figure, curves, paper, published, below)
        heading(figure, f"{curves.dataset}: {curves.metric}, {curves.network}".rstrip(", "), curves,
                facts(curves)[0])
        legend = [handle(task, curves.tasks) for task in curves.tasks
                  if task == BASELINE or len(groups) == 1]  # other panels have their arm's name
        figure.legend(handles=legend, loc="upper left", fontsize=8.5, columnspacing=1.4,
                      bbox_to_anchor=(0.003, 1 - 0.47 / height), ncols=len(legend),
                      handlelength=2.6)
        footing(figure, *lines)
        write(figure, path)


def _arms(figure: Figure, curves: Curves, groups: list[list[str]], *, axis: str, high: float,
          gap: float) -> None:
    """The headline's panels: one of all arms, or one an arm, on the same axes."""
    measure = curves.measures[0]
    columns = grid_of(len(groups))
    drawn = lay_out(figure, len(groups), columns, top=TOP, height=high, gap=gap)
    for place, (panel, group) in enumerate(zip(drawn, groups, strict=True)):
        fill(panel, curves, group, counts=place + columns >= len(groups))
        if place % columns:
            panel.tick_params(labelleft=False)
    if len(groups) > 1:
        titles(drawn, [marked(arm) for arm, in groups],
               [look_of(arm, curves.tasks).colour for arm, in groups])
    alike(drawn, measure)
    middle = (drawn[0].get_position().y1 + drawn[-1].get_position().y0) / 2
    figure.text(0.012, middle, axis, rotation=90, va="center", ha="left", fontsize=8.5)
    figure.text(0.5, drawn[-1].get_position().y0 - 0.5 / figure.get_size_inches()[1],
                "labelled share of the training cases, % (number of cases), logarithmic",
                fontsize=8.5, ha="center", va="center")


def grouped(curves: Curves) -> list[list[str]]:
    """The arms that share a panel; the baseline, which is in all of them, left out."""
    arms = [task for task in curves.tasks if task != BASELINE]
    return [arms] if len(arms) <= TOGETHER else [[arm] for arm in arms]


def fill(panel: Axes, curves: Curves, group: Sequence[str], *, counts: bool) -> None:
    """Draw the baseline and a group of arms in the headline; lines have their arm for a gid.

    ``counts``: whether the ticks have labels.
    """
    measure = curves.measures[0]
    _share(panel, curves, counts=counts)
    family = [task for task in curves.tasks if task != BASELINE and not is_control(task)]
    _baseline(panel, curves, measure, banded=not family or bool({*family} & {*group}))
    for number, task in enumerate(group):
        _arm(panel, curves, task, measure, shift=DODGE * (number - (len(group) - 1) / 2))


def _baseline(panel: Axes, curves: Curves, measure: Measure, *, banded: bool) -> None:
    """The baseline's mean; as a band what cannot be told from it; seeds if there is none.

    Not ``banded``: controls do not share the arms' spread.
    """
    points = curves.of_task(BASELINE)
    x = [float(point.fraction) for point in points]
    estimates = [point.means[measure.name] for point in points]
    _line(panel, curves, BASELINE, measure)
    wide = [(place, ends) for place, point in zip(x, points, strict=True)
            if banded and (ends := _band(curves, point, measure))]
    if len(wide) == 1:  # a band as wide as a mark
        wide = [(wide[0][0] * factor, wide[0][1]) for factor in (0.98, 1.02)]
    if wide:
        low, high = zip(*(ends for _, ends in wide), strict=True)
        panel.fill_between([place for place, _ in wide], low, high, color="black", alpha=0.14,
                           linewidth=0, zorder=1)
    else:
        for place, estimate in zip(x, estimates, strict=True):
            panel.plot([place] * len(estimate.scores), estimate.scores, ".", color="black",
                       markersize=3, alpha=0.5)


def _band(curves: Curves, point: Point, measure: Measure) -> tuple[float, float] | None:
    """The means that cannot be told from the baseline's; without other arms, its interval."""
    estimate, could = point.means[measure.name], curves.could_show(point.fraction)
    if could is None:
        return estimate.interval
    return estimate.mean - could[0][0], estimate.mean + could[0][0]


def _arm(panel: Axes, curves: Curves, task: str, measure: Measure, *, shift: float) -> None:
    """An arm's mean as a thick line, seeds as dots; its interval as bars if it is alone."""
    look = look_of(task, curves.tasks)
    points = curves.of_task(task)
    x = [_moved(panel, point.fraction, shift) for point in points]
    estimates = [point.means[measure.name] for point in points]
    panel.plot(*_joined(curves, points, x, [e.mean for e in estimates]), color=look.colour,
               marker=look.marker, linestyle=look.dash, markerfacecolor=look.face, markersize=4.5,
               linewidth=2.2, zorder=4, gid=task)
    bars = [(place, e) for place, point, e in zip(x, points, estimates, strict=True)
            if e.half is not None and curves.could_show(point.fraction) is None]
    if bars:
        panel.errorbar([place for place, _ in bars], [e.mean for _, e in bars],
                       [e.half or 0 for _, e in bars], fmt="none", ecolor=look.colour,
                       elinewidth=1.0, capsize=2, zorder=3)
    for place, estimate in zip(x, estimates, strict=True):
        panel.plot([_moved(panel, place, DOTS)] * len(estimate.scores), estimate.scores, ".",
                   color=look.colour, markersize=3.5, alpha=0.7, zorder=2)


def _joined(curves: Curves, points: Sequence[Point], x: Sequence[float],
            y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Both lists, with a gap where a fraction of other arms lies between and was not run."""
    there = {point.fraction: both for point, *both in zip(points, x, y, strict=True)}
    ends = (points[0].fraction, points[-1].fraction) if points else (0, 0)
    row = [there.get(fraction, [float(fraction), float("nan")])
           for fraction in curves.fractions if ends[0] <= fraction <= ends[1]]
    return [place for place, _ in row], [value for _, value in row]


def _moved(panel: Axes, fraction: float, inches: float) -> float:
    """The share that lies so many inches to the right of a fraction."""
    low, high = panel.get_xlim()
    return fraction * float((high / low) ** (inches / _width(panel)))


def _width(panel: Axes) -> float:
    """Inches."""
    return float(panel.bbox.width / panel.figure.dpi)


def _ends(curves: Curves) -> tuple[float, float]:
    """Both ends of the axis of labelled shares, so far out that panels' labels do not touch."""
    least, most = curves.fractions[0], curves.fractions[-1]
    room = max(1.2, (most / least) ** MARGIN)
    return least / room, most * room


def _share(panel: Axes, curves: Curves, *, counts: bool) -> None:
    """A logarithmic axis with ticks at the fractions, labels where there is room."""
    low, high = _ends(curves)
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    cases = {fraction: curves.labelled(fraction) for fraction in curves.fractions}
    places = {fraction: _width(panel) * float(np.log(fraction / low) / np.log(high / low))
              for fraction in cases}
    labels, taken = dict.fromkeys(cases, ""), list[float]()
    first = [curves.primary_fraction] if curves.primary_fraction in cases else []
    for fraction in dict.fromkeys([*first, min(cases), max(cases), *sorted(cases, reverse=True)]):
        if all(abs(places[fraction] - other) >= LETTERS for other in taken):
            labels[fraction] = f"{fraction}\n({cases[fraction]})" if counts else ""
            taken.append(places[fraction])
    panel.set_xticks(list(labels), list(labels.values()), fontsize=7.5)
    last = panel.get_xticklabels()[-1]
    if len(cases) > 1 and len(last.get_text()) > LONG:
        last.set_horizontalalignment("right")  # or it would run out of the panel
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(False, axis="x")
    panel.tick_params(axis="y", labelsize=8)


def alike(drawn: Sequence[Axes], measure: Measure) -> None:
    """The same axis of scores in all panels, within what the measure can be."""
    limits = [limit for panel in drawn for limit in panel.get_ylim()]
    for panel in drawn:
        panel.set_ylim(max(min(limits), measure.bounds[0] - 0.01),
                       min(max(limits), measure.bounds[1]))
        panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _means(panel: Axes, curves: Curves, measure: Measure) -> None:
    """The means of all arms, without intervals."""
    for task in curves.tasks:
        _line(panel, curves, task, measure)


def _line(panel: Axes, curves: Curves, task: str, measure: Measure) -> None:
    """An arm's means as a thin line."""
    look, points = look_of(task, curves.tasks), curves.of_task(task)
    panel.plot(*_joined(curves, points, [point.fraction for point in points],
                        [point.means[measure.name].mean for point in points]),
               color=look.colour, linestyle=look.dash, marker=look.marker,
               markerfacecolor=look.face, markersize=3, linewidth=1.2, zorder=2.5, gid=task)


def _small(figure: Figure, curves: Curves, measures: Sequence[Measure], top: float) -> None:
    """A small panel a measure with the means of all arms."""
    drawn = lay_out(figure, len(measures), max(2, len(measures)), top=top,
                    height=SMALL_HIGH, between=0.5)
    for panel, measure in zip(drawn, measures, strict=True):
        _means(panel, curves, measure)
        _share(panel, curves, counts=True)
        alike([panel], measure)
    room = min(72 * _width(panel) / (0.52 * len(measure.label))  # letters: half as wide as high
               for panel, measure in zip(drawn, measures, strict=True))
    for panel, measure in zip(drawn, measures, strict=True):
        panel.set_title(measure.label, fontsize=min(8.5, room), loc="left", pad=3)


def _compared(figure: Figure, curves: Curves, paper: Measure, published: Sequence[Published],
              top: float) -> None:
    """This run's means in the paper's measure, others' curves, and whose they are."""
    panel, legend = lay_out(figure, 2, 2, top=top, height=PUBLISHED_HIGH - 0.6, between=0.1)
    place = panel.get_position()
    panel.set_position((place.x0, place.y0, 1.28 * place.width, place.height))
    _means(panel, curves, paper)
    handles = [Line2D([], [], color="#555555", marker="o", linewidth=1.1, label="this run")]
    for source in published:
        line: Any = (0, (3, 2)) if source.dashed else "-"
        for task, values in source.curves.items():
            there = [(fraction, value) for fraction, value in
                     zip(source.fractions, values, strict=True) if fraction in curves.fractions]
            panel.plot([x for x, _ in there], [v for _, v in there], linestyle=line, linewidth=1,
                       alpha=0.6, color=look_of(task, [*curves.tasks, *source.curves]).colour)
        handles.append(Line2D([], [], color="#555555", alpha=0.7, linewidth=1, linestyle=line,
                              label=source.label))
    _share(panel, curves, counts=True)
    panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.set_title(paper.label, fontsize=8.5, loc="left", pad=3)
    every = dict.fromkeys([*curves.tasks, *sorted({t for one in published for t in one.curves})])
    for task in every:
        only = "" if task in curves.tasks else " (published only)"
        look = look_of(task, list(every))
        handles.append(Line2D([], [], color=look.colour, linestyle=look.dash, linewidth=1,
                              marker="" if only else look.marker, markerfacecolor=look.face,
                              markersize=3, label=named(task) + only))
    legend.set_axis_off()
    legend.legend(handles=handles, fontsize=SMALL_LETTERS, loc="upper right", handlelength=2.6,
                  borderaxespad=0, labelspacing=0.25)


def _words(curves: Curves, small: int, measures: int, *, alone: bool) -> list[str]:
    """What the marks are, how models were chosen, and what is missing."""
    banded = any(curves.could_show(fraction) for fraction in curves.fractions)
    intervals = any(estimate.half is not None for point in curves.points
                    for estimate in point.means.values())
    lines = ["Large marks, thick lines: an arm's mean over seeds" + (
        "; dots: seeds. Intervals of the means: see the tables." if banded else
        ", with bars of its 95 % interval; dots: seeds." if intervals else
        f"; dots: seeds; under {MIN_BLOCKS} seeds no intervals.")
        + " Small panels: means." * bool(small), *facts(curves)[1:]]
    if BASELINE in curves.tasks:
        apart = ", but for controls, which have their own spread" * any(
            map(is_control, curves.tasks))
        band = (f"; grey: a mean in it cannot be told from the baseline's{apart}" if banded else
                "; grey: its interval" if intervals else "")
        lines.insert(1, f"Black{', in every panel' * alone}: the baseline{band}.")
    if measures > small:
        lines.append(f"{measures - small} more classes: see the tables.")
    if curves.missing:
        more = f" and {len(curves.missing) - 3} more" if len(curves.missing) > 3 else ""
        lines.append(f"Missing: {'; '.join(curves.missing[:3])}{more}.")
    return lines
