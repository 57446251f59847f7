"""Two protocols of finetuning in one figure: the baseline's scores, and every arm's gain."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from common.arms import BASELINE
from common.report.curves import Curves, Point
from common.report.figures.palette import Look, look_of
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
from common.report.protocols import Pair, pairs
from common.report.tables import facts, steps

ASIDE = 0.13  # of the way to the next fraction, between the two protocols
TOP, HIGH, GAP, FOOT = 0.95, 1.9, 0.62, 0.85  # inches


def draw(ours: Curves, papers: Curves, path: Path, *, axis: str) -> bool:
    """A panel an arm, the baseline's first; False if no arm is there under both."""
    both = pairs(ours, papers)
    tasks = list(dict.fromkeys(pair.task for pair in both))
    if BASELINE not in tasks or len(tasks) < 2:
        return False
    columns = grid_of(len(tasks))
    rows = -(-len(tasks) // columns)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(WIDTH, TOP + rows * HIGH + (rows - 1) * GAP + FOOT))
        panels = lay_out(figure, len(tasks), columns, top=TOP, height=HIGH, gap=GAP, between=0.52)
        for panel, task in zip(panels, tasks, strict=True):
            _panel(panel, [pair for pair in both if pair.task == task], look_of(task, tasks))
        titles(panels, [f"{task}: {'score' if task == BASELINE else 'less the baseline'}"
                        for task in tasks], [look_of(task, tasks).colour for task in tasks])
        for panel in panels[1:]:  # gains share an axis
            panel.set_ylim(min(one.get_ylim()[0] for one in panels[1:]),
                           max(one.get_ylim()[1] for one in panels[1:]))
        panels[0].set_ylabel(axis)
        figure.legend(handles=[
            Line2D([], [], color="#333333", marker="o", linestyle="-", label="ours"),
            Line2D([], [], color="#333333", marker="o", linestyle=":", markerfacecolor="white",
                   label="the paper's")], loc="upper right", ncols=2, fontsize=8.5,
            bbox_to_anchor=(0.995, 1.0))
        heading(figure, f"{ours.dataset}: two protocols of finetuning", ours,
                "; ".join([*([ours.network] if ours.network else []), facts(ours)[0]]),
                f"The second: {papers.protocol or 'as recorded'}; {steps(papers)} steps a run.")
        footing(figure, "The same splits, labelled subsets and pretext encoders. First panel: the "
                "baseline's score; the others: an arm less the baseline of the same protocol.",
                "95 % intervals: of the baseline its own, of differences adjusted for the arms of "
                "the fraction (controls, and a primary comparison, have their own).")
        write(figure, path)
    return True


def _panel(panel: Axes, both: Sequence[Pair], look: Look) -> None:
    """One arm under both, fraction by fraction."""
    if both[0].ours.difference is not None:
        panel.axhline(0, color="#000000", linewidth=1.0, zorder=1)
    for points, aside, dash, face in (([pair.ours for pair in both], -ASIDE, "-", look.colour),
                                      ([pair.papers for pair in both], ASIDE, ":", "white")):
        places = [place + aside for place in range(len(both))]
        values = [_value(point) for point in points]
        panel.plot(places, values, look.marker, color=look.colour, linestyle=dash, linewidth=1.2,
                   markerfacecolor=face, markersize=5.5, zorder=3)
        for place, point in zip(places, points, strict=True):
            ends = point.interval if point.difference else next(iter(point.means.values())).interval
            if ends:
                panel.plot([place, place], ends, color=look.colour, linewidth=2.2 if aside < 0
                           else 1.1, alpha=0.6, zorder=2)
    panel.set_xticks(range(len(both)), [f"{pair.fraction} %" for pair in both])
    panel.set_xlim(-0.5, len(both) - 0.5)
    panel.set_xlabel("labelled", fontsize=8.5)


def _value(point: Point) -> float:
    """The gain, of the baseline the score."""
    return point.difference.mean if point.difference else next(iter(point.means.values())).mean
