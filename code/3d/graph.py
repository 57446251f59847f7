"""Draw the 3D data-efficiency curves: records -> results/train_<dataset>.png, .md, .csv.

    python code/3d/graph.py                    every data set in results/3d
    python code/3d/graph.py --published        pancreas: with the paper's curves beside
    python code/3d/graph.py --demo             the generated data of exp.py --demo
    python code/3d/graph.py --records DIR      published records

Needs neither torch nor the data; takes seconds.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import reporting
from common.errors import exit_status
from common.plot import Published
from common.records import ROOT, Json, read_json
from common.stats import Measure, mean_of, pooled_dice_of


def main() -> None:
    """Draw what is there."""
    reporting.run(TREE, str(__doc__))


def measures(run: Json) -> list[Measure]:
    """Mean foreground Dice, each class, and the paper's metric."""
    return [mean_of("dice", "Dice, mean of foreground"),
            *(mean_of(f"dice_{name}", f"Dice, {name}") for name in run["classes"]),
            pooled_dice_of("dice_paper", "Dice as in the paper (pooled, with background)")]


def axis(run: Json) -> str:
    """Metric and number of cases, for the axis."""
    return (f"Test Dice, mean of foreground classes\n(n = {run['test_cases']} cases, "
            f"on the {run['resolution']}³ grid)")


def published() -> list[Published]:
    """The paper's Fig. 3 and the earlier code's curves, from published_curves.json."""
    data = read_json(ROOT / "code/common/published_curves.json")
    paper = data["paper_fig3_pancreas"]["curves"]
    own = {task: values for task, values in paper.items() if not task.endswith(" 2D")}
    return [Published("paper, Fig. 3 (read off, ±0.004)", data["fractions"], own),
            Published("earlier code: not comparable\n(soft Dice, mean over all epochs)",
                      data["fractions"], data["earlier_pancreas_plotted"]["curves"], dashed=True)]


TREE = reporting.Tree(name="3d", default="pancreas", measures=measures,
                      panels=lambda every: every[1:-1], paper=lambda every: every[-1],
                      axis=axis, published=published)

if __name__ == "__main__":
    sys.exit(exit_status(main))
