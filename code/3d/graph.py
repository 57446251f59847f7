"""Draw the 3D data-efficiency curves: records -> results/train_<dataset>.png, .md, .csv; all on
one page, results/<dataset>.html.

    python code/3d/graph.py                    every data set in results/3d
    python code/3d/graph.py --published        pancreas, braintumour: the paper's curves beside
    python code/3d/graph.py --demo             the generated data of exp.py --demo
    python code/3d/graph.py --records DIR      published records

Needs neither torch nor the data; takes seconds.
"""

import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["MPLBACKEND"] = "agg"  # a notebook's own may not be installed here

from common.errors import exit_status
from common.files import Json, read_json
from common.report.figures import examples
from common.report.figures.efficiency import PUBLISHED_CURVES, Published
from common.report.main import Tree, run
from common.stats.measures import Measure, mean_of, pooled_dice_of


def main() -> None:
    """Draw what is there."""
    run(TREE, str(__doc__))


def measures(run: Json) -> list[Measure]:
    """Mean foreground Dice, each class, all as one, the paper's metric; then in the scans' grids.

    Under the paper's protocol its metric comes second. HD95 and NSD only where there is true
    spacing; runs of earlier versions have none of the three.
    """
    kinds = [("native_dice", "Dice in the scan's own grid", 1.0),
             ("hd95", "HD95, mm (lower is better)", math.inf),
             ("nsd", "Surface Dice at 1 mm", 1.0)]
    own = [mean_of(f"{kind}{name and '_'}{name}", f"{label}{name and ', '}{name}", most=most)
           for kind, label, most in kinds if kind in run["test"]
           for name in ("", *(run["classes"] if len(run["classes"]) > 1 else []))]
    whole = [mean_of("dice_whole", "Dice, whole foreground as one class")]
    first = mean_of("dice", "Dice, mean of foreground")
    rest = [*(mean_of(f"dice_{name}", f"Dice, {name}") for name in run["classes"]),
            *(whole if "dice_whole" in run["test"] else [])]
    paper = pooled_dice_of("dice_paper", "Dice as in the paper (pooled, with background)")
    return [first, paper, *rest, *own] if "protocol" in run else [first, *rest, paper, *own]


def classes(every: list[Measure]) -> list[Measure]:
    """The measures drawn small: each class, if there are several; before it the paper's metric.

    Then what is measured in mm.
    """
    paper = [measure for measure in every[1:2] if measure.name == "dice_paper"]
    found = [measure for measure in every if measure.name.startswith("dice_")
             and measure.name not in ("dice_whole", "dice_paper")]
    surfaces = [measure for measure in every if measure.name in ("hd95", "nsd")]
    return [*paper, *surfaces, *(found if len(found) > 1 else [])]


def axis(run: Json) -> str:
    """Metric and grid, for the axis."""
    return f"Test Dice, mean of foreground\n(on the {run['resolution']}³ grid)"


def published() -> list[Published]:
    """The paper's Fig. 3 and the earlier code's curves, from published_curves.json."""
    data = read_json(PUBLISHED_CURVES)
    paper = data["paper_fig3_pancreas"]["curves"]
    own = {task: values for task, values in paper.items() if not task.endswith(" 2D")}
    return [Published("paper, Fig. 3 (read off, ±0.004)", data["fractions"], own),
            Published("earlier code: not comparable\n(soft Dice, mean over all epochs)",
                      data["fractions"], data["earlier_pancreas_plotted"]["curves"], dashed=True)]


def brain_published() -> list[Published]:
    """The paper's whole-tumour curves on BraTS, of which Task01_BrainTumour is the open part."""
    data = read_json(PUBLISHED_CURVES)["paper_brats_whole_tumour"]
    return [Published("paper, BraTS (values of its plot script)", data["fractions"],
                      data["curves"])]


TREE = Tree(name="3d", measures=measures, panels=classes, axis=axis,
                      examples=examples.segmentations,
                      published={"pancreas": ("dice_paper", published),
                                 "braintumour": ("dice_whole", brain_published)})

if __name__ == "__main__":
    sys.exit(exit_status(main))
