"""Exchange rates: curves through the means, labels saved at every score, gains by pool size."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from common.arms import BASELINE
from common.report.curves import Curves
from common.report.figures.efficiency import TOGETHER
from common.report.figures.palette import Look, look_of
from common.report.figures.style import (
    SMALL,
    STYLE,
    WIDTH,
    bare,
    footing,
    handle,
    heading,
    lay_out,
    write,
)
from common.report.tables import facts
from common.stats.estimates import MIN_BLOCKS
from common.stats.exchange import BEYOND, Rate
from common.stats.shares import WHOLE

SMOOTH = 100           # points of a curve
BAND, SHADE = 0.18, 0.1  # opacity of an interval, and of what is extrapolated
TOP, HIGH, FOOT = 0.75, 2.5, 1.12  # inches
COLUMNS, HANDLE = 4, 4   # of the legend; the length of a line in letters: gaps are seen
LETTER, GAP = 0.032, 0.06  # inches: half of a digit below an axis, and between two labels
BESIDE = 1.08          # times the pool's size, from one arm to the next


def draw(curves: Curves, path: Path, *, axis: str) -> bool:
    """Two panels, and a third where there are shares of the pool; False without curves."""
    found = curves.exchange
    if found is None:
        return False
    number = 2 + bool(curves.pools)
    arms = [task for task in curves.tasks if task in found.rates or task in found.worth]
    rows = -(-len(arms) // COLUMNS)
    with plt.rc_context(STYLE):
        top = TOP + 0.2 * rows
        figure = plt.figure(figsize=(WIDTH, top + HIGH + FOOT))
        panels = lay_out(figure, number, number, top=top, height=HIGH, between=0.62)
        _curves(panels[0], curves, axis)
        second = (_worth if _at_primary(curves) else _saved)(panels[1], curves)
        if curves.pools:
            _pools(panels[2], curves)
        heading(figure, f"{curves.dataset}: what pretraining is worth in labels", curves,
                facts(curves)[0])
        figure.legend(handles=[handle(task, curves.tasks) for task in arms], fontsize=SMALL,
                      loc="upper left", ncols=COLUMNS, handlelength=HANDLE, columnspacing=1.4,
                      bbox_to_anchor=(0.003, 1 - 0.5 / figure.get_size_inches()[1]))
        footing(figure, *_words(curves, second))
        write(figure, path)
    return True


def _at_primary(curves: Curves) -> bool:
    """Whether the second panel is what labels are worth at the primary comparison's fraction.

    Labels saved at every score take an axis on which a few labels are not seen.
    """
    assert curves.exchange is not None
    found, at = curves.exchange, curves.primary_fraction
    along = any(rate.along for rate in found.rates.values())
    return bool(found.worth) and (not along or any(at in one for one in found.worth.values()))


def _curves(panel: Axes, curves: Curves, axis: str) -> None:
    """Means over labelled cases with their curves, dashed beyond what was measured."""
    assert curves.exchange is not None
    for task, rate in curves.exchange.rates.items():
        look, fit = look_of(task, curves.tasks), rate.fit
        width = 1.3 if task == BASELINE else 1.8
        for low, high, dash in ((fit.least, fit.most, look.dash),
                                (fit.most, BEYOND * fit.most, "--")):
            n = np.geomspace(low, high, SMOOTH)
            panel.plot(n, [fit.at(one)[0] for one in n], linestyle=dash, color=look.colour,
                       linewidth=width, zorder=3 if task == BASELINE else 2)
        _marks(panel, list(rate.points.values()), look)
    name, labelled = curves.measures[0].name, curves.exchange.labelled
    for task in curves.exchange.worth:
        if task not in curves.exchange.rates:  # of one fraction, without a curve
            _marks(panel, [(labelled[point.fraction], point.means[name].mean) for point in
                           curves.of_task(task) if point.fraction in labelled],
                   look_of(task, curves.tasks))
    panel.axhline(curves.exchange.target, color="#555555", linewidth=1.0, linestyle=":")
    panel.annotate(f"{curves.exchange.target:.3f}", (0, curves.exchange.target), (3, 3),
                   xycoords=("axes fraction", "data"), textcoords="offset points",
                   fontsize=SMALL, color="#555555")
    most = max(rate.fit.most for rate in curves.exchange.rates.values())
    panel.axvspan(most, BEYOND * most, color="#000000", alpha=SHADE, linewidth=0,
                  zorder=0)
    panel.annotate("extrapolated", (most, 0), (3, 4), xycoords=("data", "axes fraction"),
                   textcoords="offset points", fontsize=SMALL, color="#555555", rotation=90)
    ticks = sorted({n for rate in curves.exchange.rates.values() for n, _ in rate.points.values()})
    panel.set_xscale("log")
    panel.set_xticks(ticks, _apart(panel, ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(False, axis="x")
    _named(panel, "labelled cases (logarithmic)", axis, "score by labelled cases")


def _apart(panel: Axes, ticks: list[float]) -> list[str]:
    """Labels of ticks on a logarithmic axis, the largest first, others where there is room."""
    low, high = np.log(panel.get_xlim())
    inches = panel.bbox.width / panel.figure.dpi / (high - low)
    labels: dict[float, str] = {}
    for tick in reversed(ticks):
        text, after = f"{tick:.0f}", min(labels, default=np.inf)
        if inches * np.log(after / tick) > LETTER * (len(text) + len(labels.get(after, ""))) + GAP:
            labels[tick] = text
    return [labels.get(tick, "") for tick in ticks]


def _marks(panel: Axes, points: list[tuple[float, float]], look: Look) -> None:
    panel.plot([x for x, _ in points], [y for _, y in points], look.marker, color=look.colour,
               markerfacecolor=look.face, markersize=4, zorder=4)


def _saved(panel: Axes, curves: Curves) -> list[str]:
    """Labels saved at the scores that both curves reach; returns the words below."""
    assert curves.exchange is not None
    arms = {task: rate for task, rate in curves.exchange.rates.items() if rate.along}
    if not arms:
        bare(panel)
        panel.text(0.5, 0.5, "no score that an arm and\nthe baseline both reach", ha="center",
                   va="center", transform=panel.transAxes, fontsize=SMALL, color="#555555")
        _named(panel, "", "", "labels saved at every score")
        return []
    lines = ["Labels saved: the baseline's less the arm's, at scores that both reach "
             "on what was measured; above 0: the arm needs fewer. Controls are left out."]
    banded = list(arms) if curves.exchange.bounded else []
    if len(arms) > TOGETHER and banded:
        banded = [max(arms, key=lambda task: _area(arms[task]))]
    values = [0.0, *(value.value for rate in arms.values() for _, value in rate.along)]
    panel.axhline(0, color="#000000", linewidth=1.0, zorder=1)
    for task, rate in arms.items():
        look, scores = look_of(task, curves.tasks), [score for score, _ in rate.along]
        panel.plot(scores, [value.value for _, value in rate.along], linestyle=look.dash,
                   color=look.colour, linewidth=1.8, zorder=3)
        if task in banded:
            panel.fill_between(scores, *_ends(rate), color=look.colour, alpha=BAND, linewidth=0,
                               zorder=2)
    low, high = min(values), max(values)
    room = max(1.0, 0.6 * (high - low))  # a band may go on beyond it
    ends = [one for task in banded for side in _ends(arms[task]) for one in side]
    panel.set_ylim(max(low - room, min(low, *ends, 0) - 0.1 * room),
                   min(high + room, max(high, *ends, 0) + 0.1 * room))
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    _named(panel, f"score ({curves.metric})", "labelled cases saved", "labels saved at every score")
    if banded:
        lines.append(f"Band: 95 % interval, not adjusted, of {', '.join(banded)}"
                     + ("." if len(banded) == len(arms) else
                        ", the arm that saves most; of the others see the csv."))
    return lines


def _worth(panel: Axes, curves: Curves) -> list[str]:
    """What the labels of a fraction are worth with each arm; returns the words below."""
    assert curves.exchange is not None
    found, labelled = curves.exchange.worth, curves.exchange.labelled
    there = {at for values in found.values() for at in values}
    fraction = curves.primary_fraction if curves.primary_fraction in there else min(there)
    arms = {task: found[task][fraction] for task in curves.tasks if fraction in found.get(task, {})}
    most, far = max(labelled.values()), False
    panel.axvline(labelled[fraction], color="#000000", linewidth=1.0, zorder=1)
    panel.annotate(f"{labelled[fraction]:.0f}", (labelled[fraction], 1), (3, -9),
                   xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=SMALL)
    for row, (task, value) in enumerate(arms.items()):
        look, ends = look_of(task, curves.tasks), [value.low, value.high]
        panel.annotate(task, (0.98, row - 0.4), xycoords=("axes fraction", "data"), fontsize=6.5,
                       color=look.colour, fontweight="bold", ha="right", va="center",
                       bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6})
        if value.low is not None and value.high is not None:
            panel.plot(np.minimum([value.low, value.high], most), [row, row], color=look.colour,
                       linewidth=1.8)
        if float("inf") in (value.value, *ends):  # it is not known how far
            far = True
            panel.plot(most, row, ">", color=look.colour, markersize=5)
        if np.isfinite(value.value):
            panel.plot(value.value, row, look.marker, color=look.colour,
                       markerfacecolor=look.face, markersize=6)
    panel.set_ylim(len(arms) - 0.4, -0.6)
    panel.set_yticks([])
    panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    _named(panel, "labelled cases of the baseline", "",
           f"what {curves.labelled(fraction)} labels are worth")
    others = [task for task in found if task not in arms]
    return ["Labels worth: with how many labelled cases the baseline has the arm's score, on lines "
            "between its means; right of the black line the arm saves labels.",
            "95 % intervals, not adjusted. " * curves.exchange.bounded
            + f"Arrow: over {most:.0f}. " * far + "Controls are left out."
            + f" At other fractions only: {', '.join(others)}." * bool(others)]


def _area(rate: Rate) -> float:
    """Labels saved, the mean over scores."""
    return float(np.mean([value.value for _, value in rate.along]))


def _ends(rate: Rate) -> tuple[list[float], list[float]]:
    """Both ends of the intervals; what is open goes on beyond the axis."""
    far = 10 * BEYOND * rate.fit.most
    return ([max(-far, value.low if value.low is not None else 0) for _, value in rate.along],
            [min(far, value.high if value.high is not None else 0) for _, value in rate.along])


def _pools(panel: Axes, curves: Curves) -> None:
    """Gains over the baseline by the size of the pool, with their intervals."""
    known = all(pool.images for pool in curves.pools)
    panel.axhline(0, color="#000000", linewidth=1.0, zorder=1)
    places: dict[float, None] = {}
    for number, pool in enumerate(curves.pools):
        look = look_of(pool.task, curves.tasks)
        at = [pool.images[share] if known else float(share) for share in pool.gains]
        x = [place * BESIDE ** (number - (len(curves.pools) - 1) / 2) for place in at]
        panel.plot(x, [gain.mean for gain in pool.gains.values()], look.marker,
                   linestyle=look.dash, color=look.colour, markerfacecolor=look.face, markersize=4)
        for place, gain in zip(x, pool.gains.values(), strict=True):
            if gain.interval:
                panel.plot([place, place], gain.interval, color=look.colour, linewidth=1.1)
        places |= dict.fromkeys(at)
    panel.set_xscale("log")
    panel.set_xlim(min(places) / 1.15, max(places) * 1.15)
    panel.set_xticks(list(places), [f"{place:.0f}" for place in places])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(False, axis="x")
    fractions = " and ".join(dict.fromkeys(f"{pool.fraction} %" for pool in curves.pools))
    _named(panel, "images pretrained on" if known else f"share of the pool, % ({WHOLE}: whole)",
           f"difference in {curves.metric}", f"gain at {fractions} of the labels")


def _named(panel: Axes, below: str, beside: str, above: str) -> None:
    """Labels and title of a panel, in one size."""
    panel.set_xlabel(below, fontsize=8.5)
    panel.set_ylabel(beside, fontsize=8.5)
    panel.set_title(above, fontsize=9, loc="left", pad=4)
    panel.tick_params(labelsize=8)


def _words(curves: Curves, second: list[str]) -> list[str]:
    """What the marks are; ``second``: those of the second panel."""
    assert curves.exchange is not None
    lines = ["Left: means over seeds with a curve through them (power law or line: see the "
             "tables); grey: extrapolated; dotted: the score of the table.", *second]
    if not curves.exchange.bounded:
        lines.append(f"Under {MIN_BLOCKS} seeds no intervals: nothing can be claimed.")
    if curves.pools:
        lines.append("Right: an arm pretrained on shares of its pool, less the baseline; 95 % "
                     "intervals, not adjusted.")
    return lines
