"""The two or three sentences a paper would have, from the records: what was shown, what was not.

Every wording has its condition here and its test; nothing is worded by hand.
"""

from common.arms import BASELINE, ORACLE, is_control, is_shuffled, parts
from common.report import claims, looks, rates
from common.report.claims import beside_starts, ends, gain, verdict
from common.report.curves import Curves, Point
from common.report.section import every, some
from common.runs.records import FEW_STEPS
from common.stats.estimates import MIN_BLOCKS
from common.stats.worth import Value

LEARNT = 0.1  # of the way from chance to a perfect score, under which a task was not learnt
MUCH = 1.25   # times an expected gain, from which on it is said to be another


def sentences(curves: Curves) -> list[str]:
    """All that can be said, in the order in which it is read; each ends with a full stop."""
    return [line for lines in by_topic(curves).values() for line in lines]


def paragraphs(curves: Curves) -> list[str]:
    """The sentences of a topic together, a topic each."""
    return [" ".join(lines) for lines in by_topic(curves).values() if lines]


def by_topic(curves: Curves) -> dict[str, list[str]]:
    """The sentences by what they are about; "none" holds why nothing can be claimed."""
    if BASELINE not in curves.tasks:
        return {"none": ["There is no baseline: nothing is compared."]}
    compared = [point for point in curves.points if point.difference is not None]
    if not compared:
        return {"none": ["There is nothing beside the baseline to compare with it."]}
    if not any(point.interval for point in compared):
        return {"none": [f"Under {MIN_BLOCKS} seeds{' on different folds' * (curves.folds > 1)} "
                         "there are no intervals: nothing can be claimed."],
                "learnt": _learnt(curves)}
    return {"baseline": _short(curves), "seeds": looks.sentences(curves),
            "primary": _primary(compared, curves),
            "starts": beside_starts(curves), "oracle": _oracle(compared, curves),
            "kept": _kept(curves), "gain": _shown(compared, curves), "could": _could(curves),
            "planned": _planned(curves), "saved": _saved(curves), "worth": _worth(curves),
            "exchange": [] if flat(curves) else rates.sentences(curves), "pools": _pools(curves),
            "shuffled": _shuffled(compared), "learnt": _learnt(curves),
            "last": _last(compared, curves)}


def _short(curves: Curves) -> list[str]:
    """A baseline that has not learnt, or does not learn from labels."""
    steps = max(run["steps"] for run in curves.runs)
    lines = [f"Runs of {steps} steps learn little."] if steps < FEW_STEPS else []
    if (both := flat(curves)) is not None:
        lines.append(f"The baseline gains nothing from labels here ({both[0]:.3f} with the fewest, "
                     f"{both[1]:.3f} with all): there are none to be saved.")
    return lines


def flat(curves: Curves) -> tuple[float, float] | None:
    """The baseline's scores at its smallest and largest fraction, if the larger is no better."""
    points, name = curves.of_task(BASELINE), curves.measures[0].name
    if len(points) < 2 or points[-1].fraction < 100:
        return None
    both = points[0].means[name].mean, points[-1].means[name].mean
    return both if both[1] <= both[0] else None


def _primary(points: list[Point], curves: Curves) -> list[str]:
    """The comparison that was named first."""
    named = curves.plan.get("primary")
    if not named:
        return []
    found = [point for point in points if point.primary]
    what = f"{named['arm']} at {named['fraction']} %"
    if not found or not found[0].interval:
        return [f"Primary comparison: {what}, "
                + ("not run yet." if not found else f"under {MIN_BLOCKS} seeds yet.")]
    return [f"Primary comparison, named before it was made: {gain(found[0])}, not adjusted: "
            f"{_said(found[0])}."]


def _said(point: Point) -> str:
    return {"above": "a gain is shown", "below": "a loss is shown",
            "not shown": "no difference is shown"}[verdict(point)]


def _oracle(points: list[Point], curves: Curves) -> list[str]:
    """Whether the study could show anything, where it is asked."""
    run = oracles_of(points, curves)
    oracles = [point for point in run if point.interval]
    if run and not oracles:
        return [f"The oracle has fewer than {MIN_BLOCKS} seeds at {run[0].fraction} %: whether "
                "this recipe lets a gain through is not known yet."]
    if not oracles:
        return [f"No oracle was run at {min(point.fraction for point in points)} %: whether this "
                "recipe lets a gain through is not known."]
    lines = []
    for fraction in dict.fromkeys(point.fraction for point in oracles):
        here = [point for point in oracles if point.fraction == fraction]
        for point in here:
            above = verdict(point) == "above"
            lines.append(f"The {point.task}, which has seen all labels, "
                         f"{'lies' if above else 'is not shown to lie'} above the baseline at "
                         f"{fraction} %: {ends(point)}{_ceiling(point, curves) * above}.")
        if not any(verdict(point) == "above" for point in here):
            lines.append("There this study cannot judge any arm.")
    return lines


def oracles_of(points: list[Point], curves: Curves) -> list[Point]:
    """The oracles that say whether the study can show anything.

    Those at the primary comparison's fraction, then at the smallest.
    """
    asked = dict.fromkeys((curves.primary_fraction, min(point.fraction for point in points)))
    return [point for fraction in asked for point in points if parts(point.task) == [ORACLE]
            and not is_shuffled(point.task) and point.fraction == fraction]


def _kept(curves: Curves) -> list[str]:
    """An oracle that could not keep what it knew when its rates were chosen."""
    return [f"When its rates were chosen the {arm} kept {100 * one['kept']:.0f} % of its own "
            f"validation score at {curves.rates['fractions'][0]} %, under the "
            f"{100 * one['least']:.0f} % asked for: there the recipe holds a part of a gain back."
            for arm, one in curves.rates.get("arms", {}).items()
            if one.get("kept", 1.0) < one.get("least", 0.0)]


def _ceiling(point: Point, curves: Curves) -> str:
    """The oracle's share of the way from the baseline to all labels."""
    name = curves.measures[0].name
    base = {one.fraction: one.means[name].mean for one in curves.of_task(BASELINE)}
    if 100 not in base or point.fraction not in base or base[100] <= base[point.fraction]:
        return ""
    assert point.difference is not None
    share = point.difference.mean / (base[100] - base[point.fraction])
    return f", {100 * share:.0f} % of the way to the baseline on all labels"


def _shown(points: list[Point], curves: Curves) -> list[str]:
    """Arms that differ from the baseline, controls and the primary comparison apart."""
    arms = [point for point in points if not point.alone and point.interval]
    if not arms:
        return []
    lines = [f"Shown to {word} the baseline: {every([gain(point) for point in found])} "
             f"({_adjusted(arms)})." for word, said in (("lie above", "above"), ("lie below",
                                                                                "below"))
             if (found := [point for point in arms if verdict(point) == said])]
    if not any(verdict(point) == "above" for point in arms):
        best = max(arms, key=lambda point: point.difference.mean if point.difference else 0)
        what = "other comparison" if any(point.primary for point in points) else "arm"
        most = (f"the largest estimate is {gain(best)}" if best.difference
                and best.difference.mean > 0 else "no estimate is above zero")
        lines.append(f"No {what} is shown to lie above the baseline ({_adjusted(arms)}); {most}.")
    moderated = [str(fraction) for fraction, one in curves.families.items() if one.moderated]
    if moderated:
        lines.append(f"At {every(moderated)} % the arms vary unequally; those that vary more have "
                     "wider intervals there.")
    return lines


def _adjusted(points: list[Point]) -> str:
    numbers = sorted({point.difference.arms for point in points if point.difference})
    if numbers == [1]:
        return "one arm, so not adjusted"
    text = " to ".join(dict.fromkeys(map(str, (numbers[0], numbers[-1]))))
    return f"95 % intervals adjusted for the {text} arms of a fraction"


def _could(curves: Curves) -> list[str]:
    """What could have been shown: in the primary comparison, on the fewest and on all labels."""
    head, texts = curves.measures[0], []
    named = {point.fraction: shown for point in curves.points
             if point.primary and (shown := point.could_show)}
    widest = {fraction: (could[0][1], could[1][1]) for fraction in curves.fractions
              if (could := curves.could_show(fraction))}
    for fraction in dict.fromkeys([*named, *[*widest][:1], *[*widest][-1:]]):
        room = head.bounds[1] - next(point.means[head.name].mean for point in curves.of_task(
            BASELINE) if point.fraction == fraction)
        half, most = (f"{one:.3f}" if one < room else f"{one:.3f}, which the scale has no room for,"
                      for one in named.get(fraction, widest[fraction]))
        whose = " for the primary comparison" if fraction in named else ""
        texts.append(f"{half} at {fraction} %{whose} ({most} in four of five)")
    return [f"By its spread alone, a study like this shows in half of its repetitions a gain of "
            f"{every(texts)}."] if texts else []


def _planned(curves: Curves) -> list[str]:
    """What was expected before training, at the smallest fraction that was planned."""
    for one in curves.plan.get("power") or []:
        could = curves.could_show(one["fraction"])
        if could is None or len(curves.seeds) != one["seeds"]:
            continue
        ratio = could[0][1] / one["half"]
        word = (f"these runs scatter {ratio:.1f} times as much" if ratio > MUCH else
                f"these runs scatter less, {ratio:.1f} times as much" if ratio < 1 / MUCH else
                "these runs scatter alike")
        return [f"Expected at {one['fraction']} % before training were {one['half']:.3f}, by the "
                f"spread of {one['source']}: {word}."]
    return []


def _saved(curves: Curves) -> list[str]:
    """The arms that save labels."""
    arms, base = savers(curves), curves.reached.get(BASELINE)
    if arms is None or base is None:
        return []
    found = some([f"{task} at {curves.reached[task].estimate} of the labels "
                  f"({curves.reached[task].interval})" for task in arms])
    before = "" if base.low is None else f"; the baseline itself not before {base.low:.0f} %"
    return [f"As good as the baseline on all labels: {found}{before}." if arms else
            "At the measured fractions no arm is shown to be as good with fewer labels as the "
            "baseline on all."]


def savers(curves: Curves) -> list[str] | None:
    """Arms as good as the baseline on all labels, where it is not yet; None: cannot be said."""
    base = curves.reached.get(BASELINE)
    arms = {task: one for task, one in curves.reached.items()
            if task != BASELINE and not is_control(task)}
    if base is None or not base.bounded or not arms or flat(curves):
        return None
    start = base.low if base.low is not None else float("inf")
    return [task for task, one in arms.items() if one.high is not None and one.high < start]


def worth(curves: Curves) -> list[tuple[Point, Value]]:
    """Arms that are shown to gain, where their labels are worth more than as many of the baseline.

    At the primary fraction, else at the smallest that an arm has.
    """
    found = []
    if curves.exchange is None or flat(curves):
        return []
    for task, values in curves.exchange.worth.items():
        points = {point.fraction: point for point in curves.of_task(task)
                  if point.fraction in values and point.interval}
        point = points.get(curves.primary_fraction) or points.get(min(points, default=0))
        if point and verdict(point) == "above":
            value = values[point.fraction]
            if value.low is not None and value.low > curves.exchange.labelled[point.fraction]:
                found.append((point, value))
    return found


def _worth(curves: Curves) -> list[str]:
    """What labels are worth with the arms that are shown to gain."""
    arms: dict[int, list[str]] = {}
    for point, value in worth(curves):
        arms.setdefault(point.fraction, []).append(
            f"{rates.worth(value, curves)} with {point.task}")
    return [f"In labelled cases of the baseline {curves.labelled(fraction)} are worth "
            f"{some(found)} (95 % intervals of one arm each)." for fraction, found in arms.items()]


def _pools(curves: Curves) -> list[str]:
    """Whether more unlabelled images bring more, and how many are worth a label."""
    lines = []
    for pool in curves.pools:
        more = pool.doubling
        if more is not None and more.low is not None and more.high is not None:
            smallest, largest = (pool.images.get(at(pool.gains)) for at in (min, max))
            of = f", {smallest:.0f} to {largest:.0f} images," if smallest and largest else ""
            lines.append(
                f"At {pool.fraction} % of the labels a doubling of the pool{of} brings {pool.task} "
                f"{rates.score(more)}, not adjusted: "
                + ("more images are better." if more.low > 0 else
                   "more images are worse." if more.high < 0 else
                   "that more images are better is not shown."))
        lines.append(
            f"At {pool.fraction} % of the labels one more label is worth as much to {pool.task} as "
            f"{rates.images(pool.worth)} more unlabelled images." if pool.worth else
            f"How many unlabelled images are worth a label to {pool.task} at {pool.fraction} % is "
            "not shown.")
    return lines


def _shuffled(points: list[Point]) -> list[str]:
    """Negative controls that gain."""
    return [f"{point.task}, whose start has lost all it had learnt, lies above the baseline too: "
            f"{gain(point)}. What {parts(point.task)[0]} gains there may be a matter of the "
            "weights' scale." for point in points
            if is_shuffled(point.task) and verdict(point) == "above"]


def _learnt(curves: Curves) -> list[str]:
    """Pretext tasks that an encoder guesses at."""
    found = [f"{task} ({name} {value:.3f}, chance {chance:.3f})"
             for task, name, value, chance in curves.learnt
             if value < chance + LEARNT * (1 - chance)]
    return [f"Not learnt: {some(found)}; what it starts from knows nothing."] if found else []


def _last(points: list[Point], curves: Curves) -> list[str]:
    """Whether the reading hangs on the choice of the weights on validation."""
    changed = []
    for point in points:
        other = curves.lasts[point.fraction].differences.get(point.task)
        if other is None or point.interval is None:
            continue
        interval = other.interval if point.alone else other.adjusted
        if interval is None:
            continue
        said = claims.side(interval)
        if said != verdict(point):
            changed.append(f"{point.task} at {point.fraction} % ({other.mean:+.3f}, "
                           f"{interval[0]:+.3f} to {interval[1]:+.3f}: {said})")
    for point, start in claims.pairs(curves):
        less, last = (claims.apart(curves, point, start, last=one) for one in (False, True))
        if less.interval and last.interval and claims.side(less.interval) != (
                said := claims.side(last.interval)):
            changed.append(f"{point.task} at {point.fraction} % less its shuffled start "
                           f"({last.mean:+.3f}, {last.interval[0]:+.3f} to {last.interval[1]:+.3f}"
                           f": {said})")
    if changed:
        return [f"With the last weights instead of those chosen on validation it reads otherwise "
                f"for {every(changed)}."]
    return ["With the last weights instead of those chosen on validation it reads the same."]
