"""Paired differences to the baseline as a forest plot, and the labels that each arm saves."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from common.arms import BASELINE
from common.report.curves import Curves
from common.report.figures.style import STYLE, style_of, write
from common.report.savings import Reached
from common.report.stats import MIN_SEEDS
from common.report.tables import facts

OFF = 230.0  # per cent: where "not reached" is drawn


def draw(curves: Curves, path: Path) -> bool:
    """A panel a fraction, a row an arm; False if there is nothing to compare with the baseline."""
    arms = [task for task in curves.tasks if task != BASELINE]
    fractions = [fraction for fraction in curves.fractions if any(
        point.difference for point in curves.points if point.fraction == fraction)]
    if not arms or not fractions:
        return False
    with plt.rc_context(STYLE):
        columns = len(fractions) + bool(curves.reached)
        height = 2.2 + 0.3 * len(arms)
        left = 0.35 + 0.078 * max(map(len, arms))  # inches, for the names
        width = max(8.6, left + 0.3 + 1.75 * columns)
        figure, axes = plt.subplots(1, columns, figsize=(width, height), squeeze=False)
        panels = list(axes[0])
        for panel, fraction in zip(panels, fractions, strict=False):
            _differences(panel, curves, arms, fraction)
        limits = [limit for panel in panels[:len(fractions)] for limit in panel.get_xlim()]
        for panel in panels[:len(fractions)]:
            panel.set_xlim(min(limits), max(limits))
            panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            panel.set_xlabel("better than the baseline →", fontsize=8, loc="right")
        if curves.reached:
            _reached(panels[-1], curves, arms)
        for panel in panels:
            panel.set_yticks(range(len(arms)), arms if panel is panels[0] else [""] * len(arms))
            panel.tick_params(axis="y", length=0)
            panel.set_ylim(len(arms) - 0.4, -0.6)
            panel.grid(False, axis="y")
            panel.spines["left"].set_visible(False)
        for label, task in zip(panels[0].get_yticklabels(), arms, strict=True):
            label.set(color=style_of(task, curves.tasks)[0], fontweight="bold")
        figure.subplots_adjust(left=left / width, right=1 - 0.2 / width, top=1 - 0.88 / height,
                               bottom=1.2 / height, wspace=0.14)
        _words(figure, curves, height)
        write(figure, path)
    return True


def _differences(panel: Axes, curves: Curves, arms: list[str], fraction: int) -> None:
    """Mean paired difference, its interval (thick), the adjusted one (thin), seeds as dots."""
    panel.axvline(0, color="#000000", linewidth=1.0, zorder=1)
    for point in curves.points:
        found = point.difference
        if point.fraction != fraction or found is None:
            continue
        row = arms.index(point.task)
        colour, marker = style_of(point.task, curves.tasks)
        if point.interval and found.interval:
            # an artist does not widen the axis: the adjusted interval may go on beyond it
            panel.add_artist(Line2D(point.interval, [row, row], color=colour, linewidth=0.9,
                                    zorder=2))
            panel.plot(found.interval, [row, row], color=colour, linewidth=2.6, zorder=3,
                       solid_capstyle="butt")
        panel.plot(found.scores, [row + 0.24] * len(found.scores), ".", color=colour,
                   markersize=3.5, alpha=0.55)
        panel.plot([found.mean], [row], marker, color=colour, markersize=5.5, zorder=4,
                   markeredgecolor="white", markeredgewidth=0.5)
    panel.set_title(f"{fraction} % of the labels", fontsize=9)


def _reached(panel: Axes, curves: Curves, arms: list[str]) -> None:
    """Labelled fraction at which each arm is as good as the baseline on all labels."""
    least = min(one.fractions[0] for one in curves.reached.values())
    base = curves.reached.get(BASELINE)
    if base and base.bounded:
        panel.axvspan(base.low or OFF, base.high or OFF, color="#000000", alpha=0.08,
                      linewidth=0)
    if base:
        panel.axvline(base.fraction or OFF, color="#000000", linewidth=1.0)
    for row, task in enumerate(arms):
        if (one := curves.reached.get(task)) is not None:
            _span(panel, one, row, *style_of(task, curves.tasks))
        else:
            panel.text(least, row, "not all seeds yet", fontsize=7, va="center", color="#555555")
    panel.set_xscale("log")
    panel.set_xlim(least / 1.25, OFF * 1.15)
    ticks = [fraction for fraction in curves.fractions if fraction >= least]
    panel.set_xticks([*ticks, OFF], [f"≤{ticks[0]}", *map(str, ticks[1:]), "not"])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_title("as good as all labels at", fontsize=9)
    panel.set_xlabel("labelled share, %", fontsize=8, loc="right")


def _span(panel: Axes, one: Reached, row: int, colour: str, marker: str) -> None:
    """An arm's interval and estimate; what is not reached lies beyond 100 %."""
    low, middle, high = (value or OFF for value in (one.low, one.fraction, one.high))
    if one.bounded:
        panel.plot([low, high], [row, row], color=colour, linewidth=2.6, solid_capstyle="butt")
    panel.plot([middle], [row], marker, color=colour, markersize=5.5, zorder=4,
               markeredgecolor="white", markeredgewidth=0.5)
    if one.fraction == one.fractions[0]:  # there or before
        panel.annotate("≤", (middle, row), (-9, 0), textcoords="offset points", fontsize=7,
                       ha="center", va="center", color=colour)


def _words(figure: plt.Figure, curves: Curves, height: float) -> None:
    """Title, and what the marks are."""
    title = f"{curves.dataset}: difference to the baseline"
    if curves.generated:
        title += " (generated data)"
    if curves.missing:
        title += " (partial)"
    figure.text(0.008, 1 - 0.25 / height, title, fontsize=11, fontweight="bold")
    figure.text(0.008, 1 - 0.45 / height, f"{curves.measures[0].label}; {facts(curves)[0]}",
                fontsize=8.5, color="#333333")
    intervals = any(point.interval for point in curves.points)
    lines = ["Paired by seed and test case. " + (
        "Thick: 95 % intervals; thin: adjusted for the number of arms (they may go on beyond the "
        "axis: see the table); dots: seeds." if intervals else
        f"Dots: single seeds; under {MIN_SEEDS} seeds no intervals.")]
    if curves.reached:
        base = curves.reached.get(BASELINE)
        bounded = base is not None and base.bounded
        lines.append("Right: labelled share at which an arm reaches the baseline's score on all "
                     f"labels{', 95 % intervals, not adjusted' if bounded else ''}; line"
                     f"{' and grey' if bounded else ''}: the baseline itself; not: not reached.")
    figure.text(0.008, 0.08 / height, "\n".join(lines), fontsize=7.5, color="#333333",
                va="bottom", linespacing=1.35)
