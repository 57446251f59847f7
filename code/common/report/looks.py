"""Looks on the way: seeds that were asked for and are not done, seeds that were added later."""

from common.arms import is_control
from common.report.curves import Curves


def sentences(curves: Curves) -> list[str]:
    """What plan.json tells of the seeds; nothing where they were fixed before and all are done.

    Who looks at every seed and stops when a gain is shown finds one that is not there in a tenth of
    all studies of five seeds, not in a twentieth (simulated: looks at three, four and five).
    """
    asked = curves.plan.get("seeds") or []
    planned = {seed for one in asked for seed in one["seeds"]}
    compared = [point.difference for point in curves.points
                if point.difference is not None and not is_control(point.task)]
    left = {seed for seed in planned if any(seed not in one.seeds for one in compared)}
    lines = []
    if left:
        lines.append(f"A look on the way: of {len(planned)} seeds that were asked for {len(left)} "
                     f"{'is' if len(left) == 1 else 'are'} not done for every arm "
                     f"({_numbers(left)}). What is shown now may not be shown then.")
    if added := [one for one in asked[1:] if one.get("scores_then")]:
        said = "; ".join(f"{_numbers(one['seeds'])} when there were {one['scores_then']} test "
                         "scores" for one in added)
        lines.append(f"Seeds were asked for later ({said}): intervals hold for a number of seeds "
                     "that was fixed before.")
    return lines


def _numbers(seeds: set[int] | list[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))
