"""What the interval of a difference says: of an arm, and of an arm beside its shuffled start."""

from common.arms import SHUFFLED, is_control
from common.report.curves import Curves, Point
from common.runs.records import cases_of
from common.stats.estimates import Design, Estimate
from common.stats.family import compare


def verdict(point: Point) -> str:
    """What an interval says: "above", "below", "not shown", or "" without one."""
    if point.interval is None:
        return ""
    return ("above" if point.interval[0] > 0 else "below" if point.interval[1] < 0
            else "not shown")


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


def apart(curves: Curves, point: Point, other: Point) -> Estimate:
    """An arm less another at the same fraction, paired by seed and test case."""
    cases = cases_of(curves.runs)
    two = {one.task: cases[one.task, one.fraction] for one in (point, other)}
    return compare(curves.measures[0], two, other.task, Design(curves.folds, point.fraction)
                   ).differences[point.task]


def starts(curves: Curves) -> list[tuple[Point, Point, Estimate]]:
    """Each shown gain whose shuffled start was run: the two, and the one less the other.

    The primary comparison's first, then by fraction.
    """
    points = [point for point in curves.points if point.interval]
    found = [(point, other, less) for point in points for other in points
             if other.fraction == point.fraction and other.task == f"{point.task}@{SHUFFLED}"
             and not is_control(point.task) and verdict(point) == "above"
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
