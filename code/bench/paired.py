"""Do precision and memory format change scores? Runs both ways, paired by seed and test case.

    python code/bench/paired.py 2d precision -- --data FOLDER --tasks baseline --fractions 100 ...
    python code/bench/paired.py 3d layout -- --data FOLDER --resolution 32 --levels 2 ...

Everything behind -- are flags of the tree's exp.py; --results says where both sets of runs go.
Prints each way's mean test score and the difference with its 95 % interval. Finished runs are
used again. Cost: twice that of exp.py with the same flags; one process.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trees

from common import devices, grid
from common.errors import exit_status
from common.experiment import Study
from common.records import read_runs
from common.settings import from_flags
from common.stats import Arm, difference, mean

WAYS = {"precision": ("float32", "bfloat16"), "layout": ("contiguous", "channels_last")}


def main() -> int:
    """Run both ways, then compare every task and fraction."""
    parser = trees.parser(__doc__)
    parser.add_argument("change", choices=tuple(WAYS))
    asked, flags = trees.arguments(parser)
    studies = [study_of(asked.tree, asked.change, way, flags) for way in WAYS[asked.change]]
    device = devices.choose(studies[0].settings.DEVICE, ranks=1)[0]
    for study in studies:
        if grid.run(study, [device], 1):
            return 1
    compare(studies, WAYS[asked.change])
    return 0


def study_of(tree: str, change: str, way: str, flags: list[str]) -> Study:
    """The study of exp.py with one thing changed and its runs in a folder of their own."""
    exp = trees.script(tree)
    settings = from_flags(vars(exp), flags)
    settings.RESULTS = str(Path(settings.RESULTS) / f"{change}-{way}")
    setattr(settings, change.upper(), way)
    return trees.study_of(tree, exp, settings, devices.choose(settings.DEVICE, ranks=1)[0])


def compare(studies: list[Study], ways: tuple[str, str]) -> None:
    """Print means and the paired difference of every arm and fraction."""
    arms = [arms_of(study) for study in studies]
    measure = trees.headline(studies[0])
    for key in arms[0]:
        first, second = (mean(measure, part[key]) for part in arms)
        change = difference(measure, arms[1][key], arms[0][key])
        assert change is not None
        ends = ("no interval under 3 seeds" if change.interval is None else
                f"95 % interval {change.interval[0]:+.3f} to {change.interval[1]:+.3f}")
        print(f"{key[0]}, {key[1]} %: {measure.label} {ways[0]} {first.mean:.3f}, {ways[1]} "
              f"{second.mean:.3f}; difference {change.mean:+.3f}, {ends} ({len(change.seeds)} seeds"
              f", {change.counted[0]} cases; by seed "
              f"{' '.join(f'{score:+.3f}' for score in change.scores)})")


def arms_of(study: Study) -> dict[tuple[str, int], Arm]:
    """Per task and fraction: the recorded test cases of every seed."""
    found: dict[tuple[str, int], dict[int, dict[str, dict[str, object]]]] = {}
    for run in read_runs(study.folder, "finetune"):
        found.setdefault((run["task"], run["fraction"]), {})[run["seed"]] = run["cases"]
    return dict(found)


if __name__ == "__main__":
    sys.exit(exit_status(main))
