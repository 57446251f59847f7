"""Exchange rates in tables and words: labels to a score, labels worth, what more would bring."""

import csv
import io

import numpy as np

from common.arms import BASELINE, is_control
from common.report.claims import between
from common.report.curves import Curves
from common.report.section import Section, some
from common.stats.exchange import BEYOND, Fit
from common.stats.shares import WHOLE, Pool
from common.stats.worth import POWER_FRACTIONS, Value

HEAD = ["dataset", "task", "what", "at", "value", "low", "high", "extrapolated"]


def words(curves: Curves) -> str:
    """What the table holds and when, for who reads it alone."""
    assert curves.exchange is not None
    most = curves.exchange.rates[BASELINE].fit.most
    return (
        "From a curve through each arm's means: an inverse power law of the labelled cases where "
        f"there are {POWER_FRACTIONS} fractions and it is better than a line in their logarithm, "
        "else that line. Nothing is looked up "
        f"beyond {BEYOND * most:.0f} labelled cases (not reached, open); what lies above the "
        "largest number measured is extrapolated; from a line it is too good where scores level "
        "off. " + (
            "95 % intervals, of one arm each; that an arm saves labels is said above where it is "
            "shown for all arms at once." if curves.exchange.bounded else
            "Without intervals: nothing can be claimed."))


def table(curves: Curves) -> tuple[list[str], list[list[str]]]:
    """An arm a row."""
    assert curves.exchange is not None
    rows = []
    for task, rate in curves.exchange.rates.items():
        rows.append([
            task, "power law" if rate.fit.power else "line", labels(rate.reach, rate.fit),
            saved(rate.saved) if rate.saved else "the reference",
            score(rate.twice) + " (extrapolated)"])
    return ["task", "curve", f"labels to reach {curves.exchange.target:.3f}", "labels saved there",
            "twice the labels bring"], rows


def sentences(curves: Curves) -> list[str]:
    """Labels to the score asked for on fitted curves: the baseline's, and arms that need fewer."""
    found = curves.exchange
    if found is None or not found.bounded or len(found.rates) < 2:
        return []
    base = found.rates[BASELINE]
    start = (f"To reach {found.target:.3f} the baseline's curve, fitted through all its fractions, "
             f"needs {_cases(labels(base.reach, base.fit))}")
    arms = {task: one for task, one in found.rates.items() if one.saved}
    fewer = [f"{task} {labels(one.reach, one.fit)}, saving {saved(one.saved)}"
             for task, one in arms.items() if one.saved and one.fewer]
    if fewer:
        return [f"{start}; {some(fewer)} (intervals of one arm each; that they need fewer is shown "
                f"for {f'all {len(arms)} arms at once' if len(arms) > 1 else 'one arm'})."]
    task = min(arms, key=lambda name: arms[name].reach.value)
    if not np.isfinite(arms[task].reach.value):
        return [f"{start}; no arm is seen to reach it."]
    return [f"{start}; that an arm needs fewer is not shown, the smallest estimate is {task} with "
            f"{labels(arms[task].reach, arms[task].fit)}."]


def _cases(text: str) -> str:
    """A number of labelled cases in words, "not reached" among them."""
    if text.startswith("not reached"):
        return "more than are looked up" + text.removeprefix("not reached")
    number, bracket, rest = text.partition(" (")
    number, far, _ = number.partition(" extrapolated")
    return f"{number} labelled cases{',' * bool(far)}{far}{bracket}{rest}"


def worth(value: Value, curves: Curves) -> str:
    """As "125 (109 to 159)"; "over 182" where the baseline does not come to the arm's score."""
    assert curves.exchange is not None
    fit = curves.exchange.rates[BASELINE].fit
    return labels(value, fit).replace("not reached", f"over {fit.most:.0f}")


def worth_section(curves: Curves) -> Section:
    """An arm a row, a fraction a column."""
    assert curves.exchange is not None
    found = curves.exchange.worth
    fractions = sorted({fraction for values in found.values() for fraction in values})
    return Section(
        "Labels worth", "With how many labelled cases the baseline has the score that an arm has "
        "with those of the column, on lines between the baseline's means over the logarithm of "
        "their number; given where the baseline has "
        f"{POWER_FRACTIONS} fractions. More than the column's: the arm saves labels there, shown "
        "where its adjusted difference to the baseline is above zero. " + (
            "95 % intervals, of one arm each." if curves.exchange.bounded else
            "Without intervals: nothing can be claimed.") + _left_out(curves),
        ["task", *(f"{curves.labelled(fraction)} are worth" for fraction in fractions)],
        [[task, *(worth(values[fraction], curves) if fraction in values else ""
                  for fraction in fractions)] for task, values in found.items()])


def pool_table(pools: list[Pool]) -> tuple[list[str], list[list[str]]]:
    """A share of a pool a row; behind the largest what a doubling brings and a label is worth."""
    rows = []
    for pool in pools:
        for share, gain in pool.gains.items():
            ends = gain.interval
            last = share == max(pool.gains)
            rows.append([
                pool.task, f"{pool.fraction} %", f"{share} %",
                f"{pool.images[share]:.0f}" if pool.images else "",
                score(Value(gain.mean, *(ends or (None, None)))),
                score(pool.doubling) if last and pool.doubling else "",
                (images(pool.worth) if pool.worth else "not shown") if last else ""])
    return ["task", "labels", "share of the pool", "images", "difference",
            "a doubling of the pool brings", "images that a label is worth"], rows


def labels(value: Value, fit: Fit) -> str:
    """As "120 (30 to 250 extrapolated)"; "at most 9", "not reached"."""
    def one(number: float) -> str:
        if number == float("inf"):
            return "not reached"
        if number <= fit.least:
            return f"at most {fit.least:.0f}"
        return f"{number:.0f}" + " extrapolated" * beyond(number, fit)
    if value.low is None or value.high is None:
        return one(value.value)
    low, high = one(value.low), one(value.high)  # alike where the score is the curve's own best
    return one(value.value) + ("" if low == high == one(value.value) else f" ({low} to {high})")


def beyond(number: float, fit: Fit) -> bool:
    """Whether a number of labels is above the largest measured, by more than rounding."""
    return number > fit.most + 0.5


def saved(value: Value) -> str:
    """As "63 (-12 to open)"; "not given" where neither reaches the score."""
    def one(number: float) -> str:
        return "open" if abs(number) == float("inf") else f"{number:.0f}"
    if value.value != value.value:
        return "not given"
    return one(value.value) + ("" if value.low is None or value.high is None else
                               f" ({one(value.low)} to {one(value.high)})")


def score(value: Value) -> str:
    """As "+0.006 (-0.001 to +0.012)"."""
    return (f"{value.value:+.3f}" if value.low is None or value.high is None else
            between(value.value, (value.low, value.high)))


def images(value: Value) -> str:
    """As "14 (6.2 to open)"."""
    def one(number: float) -> str:
        return "open" if number == float("inf") else f"{number:.{number < 10:d}f}"
    assert value.low is not None and value.high is not None
    return f"{one(value.value)} ({one(value.low)} to {one(value.high)})"


def _left_out(curves: Curves) -> str:
    """The points of arms that labels worth lack, which have not all of the baseline's seeds."""
    assert curves.exchange is not None
    lack = [f"{point.task} at {point.fraction} %" for point in curves.points
            if point.task != BASELINE and not is_control(point.task)
            and point.fraction not in curves.exchange.worth.get(point.task, {})]
    return f" Left out, without all of the baseline's seeds: {some(lack)}." if lack else ""


def csv_text(curves: Curves) -> str:
    """A number a row: of what, at which score, fraction or share."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)

    def row(task: str, what: str, at: str, value: Value, *, extrapolated: bool = False) -> None:
        writer.writerow([curves.dataset, task, what, at, *(
            "" if number is None or number != number else f"{number:.6g}"
            for number in (value.value, value.low, value.high)), "yes" * extrapolated])

    if curves.exchange is not None:
        target, base = f"{curves.exchange.target:.6g}", curves.exchange.rates[BASELINE].fit
        for task, rate in curves.exchange.rates.items():
            for name, values in zip("abc", (rate.fit.a, rate.fit.b, rate.fit.c), strict=True):
                row(task, f"{'power law' if rate.fit.power else 'line'} {name}", "",
                    Value(float(values[0])))
            row(task, "labels to reach", target, rate.reach,
                extrapolated=beyond(rate.reach.value, rate.fit))
            row(task, "twice the labels", f"{rate.fit.most:.6g}", rate.twice, extrapolated=True)
            if rate.saved:
                row(task, "labels saved", target, rate.saved, extrapolated=beyond(max(
                    rate.reach.value, curves.exchange.rates[BASELINE].reach.value), base))
            for at, value in rate.along:
                row(task, "labels saved", f"{at:.6g}", value)
        for task, worths in curves.exchange.worth.items():
            for fraction, value in worths.items():
                row(task, "labels worth", f"{fraction} %", value)
    for pool in curves.pools:
        for share, gain in pool.gains.items():
            row(pool.task, f"gain at {pool.fraction} %", f"{share} % of the pool",
                Value(gain.mean, *(gain.interval or (None, None))))
        for what, found in (("a doubling of the pool", pool.doubling),
                            ("a doubling of the labels", pool.labels),
                            ("images a label is worth", pool.worth)):
            if found is not None:
                row(pool.task, what, f"{pool.fraction} %, {WHOLE} % of the pool", found)
    return out.getvalue()
