"""Which runs, draws and cases a study lacks, as the other arms and fractions tell.

A baseline that was also trained at fractions of its own lacks nothing: its curve is denser. Nor
does an arm that has all its seeds at the primary comparison's fraction, and no run elsewhere.
"""

from collections.abc import Callable, Mapping

from common.arms import BASELINE
from common.files import Json
from common.stats.family import Family

Grid = Mapping[tuple[str, int], Mapping[int, Mapping[int, Json]]]  # as curves.Grid


def runs(grid: Grid, order: Callable[[str], tuple[bool, bool, str]], primary: int = 0) -> list[str]:
    """Runs that some other arm, fraction, seed or draw suggests should be there, arms in order.

    ``primary``: the fraction of the primary comparison; 0: none was named.
    """
    seeds = {seed for there in grid.values() for seed in there}
    wanted = {fraction: {draw for (_, at), there in grid.items() if at == fraction
                         for one in there.values() for draw in one} for _, fraction in grid}
    lines, of_baseline = [], _dense(grid)
    for task in sorted({task for task, _ in grid}, key=order):
        at_one = {at for name, at in grid if name == task} == {primary} and not (
            seeds - grid[task, primary].keys())
        for fraction, draws in sorted(wanted.items()):
            if task != BASELINE and (fraction in of_baseline or at_one and fraction != primary):
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
    """Fractions that are the baseline's alone, where there are other arms: so planned."""
    others = {fraction for task, fraction in grid if task != BASELINE}
    return {fraction for _, fraction in grid} - others if others else set()


def _named(word: str, numbers: set[int]) -> str:
    """Write "seed 1" or "seeds 1, 2"."""
    return f"{word}{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"
