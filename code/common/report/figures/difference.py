"""Paired differences to the baseline as a forest plot, and the labels that each arm saves."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator

from common.arms import BASELINE, is_control
from common.report.curves import Curves
from common.report.figures.palette import Look, look_of
from common.report.figures.style import (
    SMALL,
    STYLE,
    WIDTH,
    footing,
    heading,
    lay_out,
    write,
)
from common.report.reading import flat
from common.report.tables import facts, marked
from common.stats.estimates import MIN_BLOCKS
from common.stats.savings import Reached

FAR = 2.0    # times the arms' span: what of controls is beyond it is off the axis
APART, LETTER = 0.065, 0.036  # inches between labels, and of half a letter
OFF = 450.0  # per cent: where "not reached" is drawn
THICK, THIN = 3.4, 1.1  # points: adjusted intervals, which are the claim, and all others
BAND = 0.08   # opacity of the differences that cannot be told from zero
BELOW = 0.27  # rows: the unadjusted interval and the seeds lie below an arm's mean
CUT = 0.9     # quantile of the adjusted intervals' ends that the axis has room for
TOP, FOOT = 0.8, 1.08  # inches


def draw(curves: Curves, path: Path) -> bool:
    """A panel a fraction, a row an arm; False if there is nothing to compare with the baseline."""
    arms, fractions = compared(curves)
    if not arms or not fractions:
        return False
    number = len(fractions) + saves(curves)
    columns = number if number <= 4 else 3
    high = 0.2 + 0.27 * len(arms)
    lines = -(-number // columns)
    left = 0.3 + 0.078 * max(len(marked(arm)) for arm in arms)  # inches, for the names
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, TOP + lines * high + (lines - 1) * 0.56 + FOOT))
        panels = lay_out(figure, number, columns, top=TOP, height=high, gap=0.56, left=left,
                         between=0.24)
        forest = panels[:len(fractions)]
        ends = limits(curves, fractions)
        for panel, fraction in zip(forest, fractions, strict=True):
            panel.set_xlim(ends)
            differences(panel, curves, arms, fraction)
            panel.xaxis.set_major_locator(MaxNLocator(5 if columns < 4 else 4, steps=[1, 2, 5, 10]))
        if saves(curves):
            reached(panels[-1], curves, arms)
        for place, panel in enumerate(panels):
            rows(panel, curves, arms, named=place % columns == 0)
        _words(figure, curves, forest)
        write(figure, path)
    return True


def compared(curves: Curves) -> tuple[list[str], list[int]]:
    """The arms beside the baseline, and the fractions at which there is one to compare with."""
    return ([task for task in curves.tasks if task != BASELINE],
            [fraction for fraction in curves.fractions if any(
                point.difference for point in curves.points if point.fraction == fraction)])


def limits(curves: Curves, fractions: Sequence[int]) -> tuple[float, float]:
    """One axis for all: seeds and plain intervals whole, the widest adjusted ones cut.

    Where there are intervals the means of controls, then the ends of their intervals, stay out of
    it as far as the others would keep less than half of the axis.
    """
    points = [point for point in curves.points if point.fraction in fractions and point.difference]
    bounded = any(point.interval for point in points)
    controls = [point for point in points if bounded and is_control(point.task)]
    points = [point for point in points if not bounded or not is_control(point.task)] or points
    values, lows, highs = [0.0], [], []
    for point in points:
        assert point.difference
        values += [*point.difference.scores, *(point.difference.interval or ())]
        if point.interval:
            lows.append(point.interval[0])
            highs.append(point.interval[1])
    low = min([*values, *([float(np.quantile(lows, 1 - CUT))] if lows else [])])
    high = max([*values, *([float(np.quantile(highs, CUT))] if highs else [])])
    near = [point.difference.mean for point in controls if point.difference]
    wide = [end for point in controls if point.difference for end in (
        *(point.interval or ()), *point.difference.scores)]
    span = high - low
    for found in (near, wide):
        for end in sorted(found, key=lambda end: max(low - end, end - high)):  # the nearest first
            if max(high, end) - min(low, end) <= FAR * span:
                low, high = min(low, end), max(high, end)
    room = (0.06 if bounded else 0.2) * (high - low) or 0.05
    return low - room, high + room


def rows(panel: Axes, curves: Curves, arms: list[str], *, named: bool) -> None:
    """A row an arm, with its name in its colour where a line of panels begins."""
    panel.set_yticks(range(len(arms)), [marked(arm) for arm in arms] if named else
                     [""] * len(arms))
    panel.tick_params(axis="y", length=0, pad=9)  # beside the arrow heads
    panel.tick_params(axis="x", labelsize=8)
    panel.set_ylim(len(arms) - 0.4, -0.6)
    panel.grid(False, axis="y")
    panel.spines["left"].set_visible(False)
    for label, task in zip(panel.get_yticklabels(), arms, strict=True):
        label.set(color=look_of(task, curves.tasks).colour, fontweight="bold", fontsize=8.5)


def differences(panel: Axes, curves: Curves, arms: list[str], fraction: int) -> None:
    """Mean paired difference on the claim's interval; below, thin, the plain one and the seeds.

    Grey, a row of its own for each arm: where a mean cannot be told from zero.
    """
    panel.axvline(0, color="#000000", linewidth=1.0, zorder=1)
    for point in curves.points:
        gain = point.difference
        if point.fraction != fraction or gain is None:
            continue
        row, look = arms.index(point.task), look_of(point.task, curves.tasks)
        if point.could_show:
            half = point.could_show[0]
            panel.add_patch(Rectangle((-half, row - 0.5), 2 * half, 1, color="#000000",
                                      alpha=BAND, linewidth=0, zorder=0))
        if point.interval and gain.interval:
            _interval(panel, point.interval, row, look, THICK)
            _interval(panel, gain.interval, row + BELOW, look, THIN)
        low, high = panel.get_xlim()
        for score in gain.scores:  # of a seed beyond the axis a head at its end
            panel.plot([min(max(score, low), high)], [row + BELOW], "." if low <= score <= high
                       else "<" if score < low else ">", color=look.colour, markersize=3.5,
                       alpha=0.7, clip_on=low <= score <= high)
        _mark(panel, gain.mean, row, look)
    panel.set_title(f"{fraction} %: {curves.labelled(fraction)} labels", fontsize=9, pad=3)


def _interval(panel: Axes, ends: tuple[float, float], row: float, look: Look,
              width: float) -> None:
    """A line between both ends; where the axis cuts it, an arrow head."""
    low, high = panel.get_xlim()
    start, stop = max(ends[0], low), min(ends[1], high)
    if start < stop:
        panel.plot([start, stop], [row, row], color=look.colour, linewidth=width, alpha=0.55 if
                   width == THICK else 1.0, solid_capstyle="butt", zorder=2)
    for cut, limit, side in ((ends[0] < low, low, -1), (ends[1] > high, high, 1)):
        if cut:  # an open head, which no arm's marker has
            panel.annotate("", (limit, row), (-9 * side, 0), textcoords="offset points",
                           annotation_clip=False, arrowprops={
                               "arrowstyle": "->", "color": look.colour, "shrinkA": 0,
                               "shrinkB": 0, "linewidth": THIN, "mutation_scale": 9})


def _mark(panel: Axes, value: float, row: float, look: Look) -> None:
    """The arm's marker; a number at the edge if it lies outside the axis."""
    low, high = panel.get_xlim()
    if low <= value <= high:
        panel.plot([value], [row], look.marker, color=look.colour, markerfacecolor=look.face,
                   markersize=5.5, zorder=4, markeredgecolor=look.colour if look.control else
                   "white", markeredgewidth=1.0 if look.control else 0.5)
        return
    panel.plot([low if value < low else high], [row], "<" if value < low else ">",
               color=look.colour, markersize=THICK + 3, clip_on=False)
    panel.text(low + 0.05 * (high - low) if value < low else high - 0.05 * (high - low),
               row - BELOW, f"{value:+.3f}", fontsize=SMALL, color=look.colour, va="center",
               ha="left" if value < low else "right")


def saves(curves: Curves) -> bool:
    """Whether the baseline gains from labels, and an arm has fractions to say where it is as good.
    """
    return not flat(curves) and any(task != BASELINE for task in curves.reached)


def reached(panel: Axes, curves: Curves, arms: list[str]) -> None:
    """Labelled fraction at which each arm is as good as the baseline on all labels."""
    least = min(one.fractions[0] for one in curves.reached.values())
    base = curves.reached.get(BASELINE)
    if base and base.bounded:
        panel.axvspan(base.low or OFF, base.high or OFF, color="#000000", alpha=0.08,
                      linewidth=0)
    if base:
        panel.axvline(base.fraction or OFF, color="#000000", linewidth=1.0)
    panel.set_xscale("log")
    panel.set_xlim(least / 1.25, OFF * 1.75)
    for row, task in enumerate(arms):
        if (one := curves.reached.get(task)) is not None:
            _span(panel, one, row, look_of(task, curves.tasks))
        else:
            why = "one fraction" if len(curves.of_task(task)) < 2 else "not all seeds yet"
            panel.text(least, row, why, fontsize=7, va="center", color="#555555")
    ticks = [fraction for fraction in curves.fractions if fraction >= least]
    inches = panel.bbox.width / panel.figure.dpi / np.log(OFF * 1.75 / (least / 1.25))
    labels = {float(ticks[-1]): str(ticks[-1]), OFF: "not\nreached"}
    for tick in ticks[-2::-1]:  # the largest first, others where there is room
        text, after = f"≤{tick}" if tick == ticks[0] else str(tick), min(labels)
        if inches * np.log(after / tick) > APART + LETTER * (len(text) + len(labels[after])):
            labels[tick] = text
    panel.set_xticks([*ticks, OFF], [labels.get(tick, "") for tick in [*ticks, OFF]])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_title("as good as all labels at", fontsize=9, pad=3)


def _span(panel: Axes, one: Reached, row: int, look: Look) -> None:
    """An arm's interval and estimate; what is not reached lies beyond 100 %."""
    low, middle, high = (value or OFF for value in (one.low, one.fraction, one.high))
    if one.bounded:
        _interval(panel, (low, high), row, look, THIN)
    _mark(panel, middle, row, look)
    if one.fraction == one.fractions[0]:  # there or before
        panel.annotate("≤", (middle, row), (-9, 0), textcoords="offset points", fontsize=7,
                       ha="center", va="center", color=look.colour)


def _words(figure: Figure, curves: Curves, forest: Sequence[Axes]) -> None:
    """Title, one label for all axes, and what the marks are."""
    heading(figure, f"{curves.dataset}: difference to the baseline, {curves.metric}", curves,
            "; ".join([*([curves.network] if curves.network else []), facts(curves)[0]]))
    below = forest[-1].get_position().y0 - 0.44 / figure.get_size_inches()[1]
    figure.text(forest[0].get_position().x0, below, f"difference in {curves.metric}; right of 0: "
                "better than the baseline →", fontsize=8.5, ha="left", va="center")
    intervals = any(point.interval for point in curves.points)
    lines = ["Paired by seed and test case. " + (
        "Thick: the claim, 95 % intervals adjusted for the arms of the fraction"
        + " (the primary's is not)" * any(point.primary for point in curves.points)
        + "; arrow: goes on." if intervals else
        f"Dots: single seeds; under {MIN_BLOCKS} seeds no intervals.")]
    if intervals:
        lines.append("Thin, below: 95 % intervals, not adjusted; dots: seeds (heads: beyond the "
                     "axis). Grey: where the row's mean would not be told from zero.")
    if saves(curves):
        base = curves.reached.get(BASELINE)
        bounded = base is not None and base.bounded
        lines.append("Last panel: labelled share, %, at which an arm reaches the baseline's score "
                     f"on all labels{', 95 % intervals, not adjusted' if bounded else ''}; line"
                     f"{', grey' if bounded else ''}: the baseline itself.")
    footing(figure, *lines)
