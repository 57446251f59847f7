"""The figures of a page: the panels of graph.py's figures, each by itself, wide enough for a phone.

What is drawn is drawn by figures/efficiency.py and figures/difference.py; here is where it stands
and what is said where one points at it.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from common.arms import BASELINE
from common.report import claims
from common.report.curves import Curves, Point
from common.report.figures import difference, efficiency
from common.report.figures.palette import look_of
from common.report.figures.style import STYLE, handle, titles
from common.report.page import svg
from common.report.page.svg import Spot
from common.report.tables import cell, marked, shown

WIDE = 3.9            # inches, of a panel; a phone shows it 350 pixels wide, letters 9 pixels high
CURVE, ROW = 1.9, 0.44  # inches: a panel of curves, and a row of arms, whose name is above it
LEFT, RIGHT, TOP, FOOT = 0.48, 0.12, 0.3, 0.5  # inches round a panel
LINE = 0.17           # inches, of a legend's line
POINT = 14.0          # points, of the square that says the values of a point
INCH = 72.0           # points
MOST = 24             # panels of curves in a page; train_<dataset>.png has all


def curve_panels(curves: Curves) -> list[str]:
    """The test score against the labelled share: a panel of all arms, or one an arm; at most MOST.

    All have the same axes.
    """
    groups = efficiency.grouped(curves)[:MOST]
    with plt.rc_context(STYLE):
        drawn = [_figure(CURVE, legend=_legend(curves, group)) for group in groups]
        for (_, panel), group in zip(drawn, groups, strict=True):
            efficiency.fill(panel, curves, group, counts=True)
            if len(group) == 1:
                titles([panel], [marked(group[0])], [look_of(group[0], curves.tasks).colour])
        efficiency.alike([panel for _, panel in drawn], curves.measures[0])
        return [svg.drawn(figure, _points(panel, curves), name=f"curve{number}",
                          alt=_curve_alt(curves, group))
                for number, ((figure, panel), group) in enumerate(zip(drawn, groups, strict=True))]


def left_out(curves: Curves) -> int:
    """How many arms have no panel of curves."""
    return len(efficiency.grouped(curves)[MOST:])


def difference_panels(curves: Curves) -> list[str]:
    """Each arm less the baseline, a panel a fraction; none where nothing is compared."""
    arms, fractions = difference.compared(curves)
    if not arms:
        return []
    ends, found = difference.limits(curves, fractions), []
    with plt.rc_context(STYLE):
        for fraction in fractions:
            figure, panel = _figure(ROW * len(arms))
            panel.set_xlim(ends)
            difference.differences(panel, curves, arms, fraction)
            panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            here = {point.task: words(point, curves) for point in curves.points
                    if point.fraction == fraction and point.difference}
            spots = _rows(panel, curves, arms, here)
            found.append(svg.drawn(
                figure, spots, name=f"difference{fraction}",
                alt=f"Difference of {', '.join(map(marked, here))} to the baseline at {fraction} % "
                f"of the labels, {curves.metric}; the numbers are in the table below"))
    return found


def reached_panels(curves: Curves) -> list[str]:
    """The labelled share at which each arm is as good as the baseline on all labels, if known."""
    arms, fractions = difference.compared(curves)
    if not curves.reached or not arms or not fractions:
        return []
    with plt.rc_context(STYLE):
        figure, panel = _figure(ROW * len(arms))
        difference.reached(panel, curves, arms)
        spots = _rows(panel, curves, arms, {
            task: f"{marked(task)}\nas good as the baseline on all labels at {one.estimate} "
            f"({one.interval})" for task, one in curves.reached.items()})
        return [svg.drawn(figure, spots, name="reached", alt="Labelled share at which "
                          f"{', '.join(map(marked, arms))} reach the baseline's score on all "
                          "labels; the numbers are in the table below")]


def words(point: Point, curves: Curves) -> str:
    """What is said of a point, in lines: its arm, its score, its difference; as the tables say it.

    Claims are those of the reading.
    """
    head, said = curves.measures[0], claims.verdict(point)
    lines = [f"{marked(point.task)} at {point.fraction} % of the labels "
             f"({curves.labelled(point.fraction)} cases)",
             f"{head.label}: {shown(point.means[head.name])}"]
    if point.difference is not None:
        lines.append(f"to the baseline: {cell(point, curves)}"
                     + (f", {said}" if said == "not shown" else f", {said} it" if said else ""))
    return "\n".join(lines)


def _figure(high: float, legend: Sequence[Line2D] = ()) -> tuple[Figure, Axes]:
    """A figure of one panel, ``high`` inches high, below a legend in two columns."""
    top = LINE * (1 + -(-len(legend) // 2)) if legend else TOP
    height = top + high + FOOT
    figure = plt.figure(figsize=(WIDE, height))
    if legend:
        figure.legend(handles=legend, loc="upper left", bbox_to_anchor=(0, 1), fontsize=8, ncols=2,
                      handlelength=2.4, columnspacing=1.0, labelspacing=0.25, borderaxespad=0.1)
    return figure, figure.add_axes((LEFT / WIDE, FOOT / height, (WIDE - LEFT - RIGHT) / WIDE,
                                    high / height))


def _legend(curves: Curves, group: Sequence[str]) -> list[Line2D]:
    """Entries of a panel that several arms share; one arm is named above it."""
    return [handle(task, curves.tasks) for task in (BASELINE, *group)
            if len(group) != 1 and task in curves.tasks]


def _points(panel: Axes, curves: Curves) -> list[Spot]:
    """A spot a point of every line that has its arm for a gid."""
    spots = []
    for line in panel.get_lines():
        points = curves.of_task(str(line.get_gid()))
        places = np.asarray(line.get_xydata()) if points else np.empty((0, 2))
        there = places[np.isfinite(places[:, 1])]  # the rest are gaps
        for point, at in zip(points, there, strict=True):
            x, y = _place(panel, at)
            spots.append(Spot(x - POINT / 2, y - POINT / 2, POINT, POINT, words(point, curves)))
    return spots


def _rows(panel: Axes, curves: Curves, arms: list[str], said: dict[str, str]) -> list[Spot]:
    """Name every row above its marks; a spot over each of which something is said."""
    difference.rows(panel, curves, arms, named=False)
    panel.tick_params(axis="y", length=0)
    right = INCH * WIDE * panel.get_position().x1
    spots = []
    for row, task in enumerate(arms):
        panel.annotate(marked(task), (0, row - 0.33), xycoords=("axes fraction", "data"),
                       xytext=(-LEFT * INCH + 2, 0), textcoords="offset points", fontsize=8,
                       fontweight="bold", va="center", color=look_of(task, curves.tasks).colour,
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8})
        if task in said:
            (_, top), (_, foot) = (_place(panel, (0, row + off)) for off in (-0.5, 0.5))
            spots.append(Spot(0, top, right, foot - top, said[task]))
    return spots


def _place(panel: Axes, place: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Where a point of the data lies in the drawing, in points from its top left."""
    x, y = panel.transData.transform(place)
    scale = INCH / panel.figure.dpi
    return float(x * scale), float((panel.figure.bbox.height - y) * scale)


def _curve_alt(curves: Curves, group: Sequence[str]) -> str:
    """What a panel of curves shows."""
    return (f"Test {curves.metric} of {', '.join(map(marked, group)) or 'the baseline'} against "
            f"the labelled share, {', '.join(map(str, curves.fractions))} %, beside the baseline; "
            "the numbers are in the tables below")
