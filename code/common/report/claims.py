"""What the interval of a difference says: of an arm, and of an arm beside its shuffled start."""

from collections.abc import Set

from common.arms import SHUFFLED, is_control
from common.report.curves import Curves, Point
from common.runs.records import cases_of
from common.stats.estimates import Design, Estimate
from common.stats.family import compare


def verdict(point: Point) -> str:
    """What an interval says: "above", "below", "not shown", or "" without one."""
    return side(point.interval) if point.interval else ""


def gain(point: Point) -> str:
    """An arm's difference at a fraction with the interval that a claim rests on."""
    return f"{point.task} at {point.fraction} % {ends(point)}"


def ends(point: Point) -> str:
    """The difference and its interval."""
    assert point.difference is not None and point.interval is not None
    return between(point.difference.mean, point.interval)


def between(mean: float, interval: tuple[float, float]) -> str:
    """As "+0.006 (-0.001 to +0.012)"."""
    low, high = interval
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


def apart(curves: Curves, point: Point, other: Point, *, last: bool = False) -> Estimate:
    """An arm less another at the same fraction, paired by seed and test case.

    ``last``: with the last weights instead of those chosen on validation.
    """
    cases, measure = cases_of(curves.runs), curves.measures[0]
    two = {one.task: cases[one.task, one.fraction] for one in (point, other)}
    scores = {task: {seed: _last(curves, task, point.fraction, seed, {*draws}.intersection(
        *(arm.get(seed, ()) for arm in two.values()))) for seed, draws in arm.items()}
        for task, arm in two.items()} if last else None
    return compare(measure, two, other.task, Design(curves.folds, point.fraction),
                   scores=scores).differences[point.task]


def _last(curves: Curves, task: str, fraction: int, seed: int, draws: Set[int]) -> float:
    """The headline of a seed's last weights, a mean over draws."""
    name = curves.measures[0].name
    found = [run["last"]["test"][name] or 0.0 for run in curves.runs
             if (run["task"], run["fraction"], run["seed"]) == (task, fraction, seed)
             and run.get("draw", 0) in draws]
    return sum(found) / len(found) if found else 0.0


def pairs(curves: Curves) -> list[tuple[Point, Point]]:
    """Each arm at each fraction whose shuffled start was run there, and that start."""
    at = {(point.task, point.fraction): point for point in curves.points}
    return [(point, other) for point in curves.points
            if (other := at.get((f"{point.task}@{SHUFFLED}", point.fraction)))]


def side(interval: tuple[float, float]) -> str:
    """On which side of zero an interval lies: "above", "below", "not shown"."""
    return "above" if interval[0] > 0 else "below" if interval[1] < 0 else "not shown"


def starts(curves: Curves) -> list[tuple[Point, Point, Estimate]]:
    """Each shown gain whose shuffled start was run: the two, and the one less the other.

    The primary comparison's first, then by fraction.
    """
    found = [(point, other, less) for point, other in pairs(curves)
             if not is_control(point.task) and verdict(point) == "above" and other.interval
             and (less := apart(curves, point, other)).interval]
    return sorted(found, key=lambda one: (not one[0].primary, one[0].fraction))


def beside_starts(curves: Curves) -> list[str]:
    """Which gains are more than those of a start that has lost what it had learnt, which are not.

    The primary comparison's side first. Where that start's own gain is shown, another sentence
    has the doubt.
    """
    above, doubted = [], []
    for point, undone, less in starts(curves):
        assert less.interval is not None
        said = (f"{point.task} at {point.fraction} % by {between(less.mean, less.interval)}, that "
                f"start itself at {ends(undone)}")
        if less.interval[0] > 0:
            above.append((point, said))
        elif verdict(undone) != "above":
            doubted.append((point, said))
    sides = [("Shown", above, ""), ("Not shown", doubted,
                                     " What is gained there need not come from what was learnt.")]
    sides.sort(key=lambda side: not any(point.primary for point, _ in side[1]))
    names = iter(("its shuffled start, which has lost all it had learnt", "its shuffled start"))
    return [f"{word} to lie above {next(names)}: {'; '.join(said for _, said in found)} (not "
            f"adjusted).{end}" for word, found, end in sides if found]
