"""Check what the demo promises, on the records of ./setup.sh demo.

    python code/tests/check_demo.py [RESULTS]    default results/demo

Prints the numbers; exit status 1, and a line on each broken promise. Takes a second.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.files import ROOT, Json
from common.runs.records import read_runs

DATASETS = ("3d/ctphantom", "2d/fundusphantom")
FRACTIONS = (5, 25, 100)
LEAST_RISE = 0.1  # of the baseline's mean score, from 5 to 100 % of the labels
LEARNT = 1 / 3    # of the way from chance to 1 that every seed's rotation has to come; in 3D
                  # 40 % right of 24 views, 5 standard deviations above chance


def main() -> int:
    """Check both trees."""
    results = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT / "results/demo"
    broken = [f"{name}: {line}" for name in DATASETS for line in check(results / name)]
    for line in broken:
        print(f"broken promise: {line}", file=sys.stderr)
    return 1 if broken else 0


def check(folder: Path) -> list[str]:
    """One line for each promise that the records of a data set break."""
    runs, pretraining = read_runs(folder, "finetune"), read_runs(folder, "pretrain")
    learnt = [learning(run) for run in pretraining if run["task"] == "rotation"]
    needed = {(task, fraction) for task in ("baseline", "oracle") for fraction in FRACTIONS}
    if not learnt or not needed <= {(run["task"], run["fraction"]) for run in runs}:
        return [f"no finished demo in {folder}"]
    baseline = [mean(runs, "baseline", fraction) for fraction in FRACTIONS]
    oracle = mean(runs, "oracle", FRACTIONS[0])
    print(f"{folder.name}: baseline {' '.join(f'{score:.3f}' for score in baseline)}, oracle "
          f"{oracle:.3f} at {FRACTIONS[0]} %, rotation learnt "
          f"{' '.join(f'{share:.0%}' for share in learnt)}")
    promises = {
        "the baseline rises with the labels": min(baseline[1:]) > baseline[0],  # then may level off
        f"by at least {LEAST_RISE}": baseline[-1] - baseline[0] >= LEAST_RISE,
        f"the oracle is above it at {FRACTIONS[0]} %": oracle > baseline[0],
        f"rotation comes {LEARNT:.0%} of the way from chance to 1": min(learnt) >= LEARNT}
    return [promise for promise, kept in promises.items() if not kept]


def mean(runs: list[Json], task: str, fraction: int) -> float:
    """The mean test score over seeds."""
    scores = [run["test"][run["metric"]] or 0.0 for run in runs
              if (run["task"], run["fraction"]) == (task, fraction)]
    return sum(scores) / len(scores)


def learning(run: Json) -> float:
    """How far a pretext task has come from chance to 1."""
    chance: float = run["chance"]["accuracy"]
    return float((run["score"]["accuracy"] - chance) / (1 - chance))


if __name__ == "__main__":
    sys.exit(main())
