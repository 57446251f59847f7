"""Which runs, draws and cases a study lacks, as the other arms and fractions tell.

A baseline that was also trained at fractions of its own lacks nothing: its curve is denser.
"""

from collections.abc import Callable, Mapping

from common.arms import BASELINE
from common.files import Json
from common.stats.family import Family

Grid = Mapping[tuple[str, int], Mapping[int, Mapping[int, Json]]]  # as curves.Grid


def runs(grid: Grid, order: Callable[[str], tuple[bool, bool, str]]) -> list[str]:
    """Runs that some other arm, fraction, seed or draw suggests should be there, arms in order."""
    seeds = {seed for there in grid.values() for seed in there}
    wanted = {fraction: {draw for (_, at), there in grid.items() if at == fraction
                         for one in there.values() for draw in one} for _, fraction in grid}
    lines, of_baseline = [], _dense(grid)
    for task in sorted({task for task, _ in grid}, key=order):
        for fraction, draws in sorted(wanted.items()):
            if task != BASELINE and fraction in of_baseline:
                continue
            there = grid.get((task, fraction), {})
            lines += [f"{task} at {fraction} %: {_named('seed', seeds - there.keys())}"
                      ] if seeds - there.keys() else []
            lines += [f"{task} at {fraction} %: {_named('draw', draws - one.keys())} of "
                      f"seed {seed}" for seed, one in sorted(there.items()) if draws - one.keys()]
    return lines


def cases(families: Mapping[int, Family]) -> list[str]:
    """Cases and draws that not all runs of a fraction have."""
    return [f"{fraction} %: {note}" for fraction, one in families.items() for note in one.notes]


def _dense(grid: Grid) -> set[int]:
    """Fractions that are the baseline's alone, the others being at the same ones: so planned."""
    at = {task: {fraction for one, fraction in grid if one == task} for task, _ in grid}
    others = [fractions for task, fractions in at.items() if task != BASELINE]
    if not others or any(one != others[0] for one in others):
        return set()
    return at.get(BASELINE, set()) - others[0]


def _named(word: str, numbers: set[int]) -> str:
    """Write "seed 1" or "seeds 1, 2"."""
    return f"{word}{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"
