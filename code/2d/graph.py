"""Draw the 2D data-efficiency curves: records -> results/train_<dataset>.png, .md, .csv; all on
one page, results/<dataset>.html.

    python code/2d/graph.py                    every data set in results/2d
    python code/2d/graph.py --published        fundus: with the paper's curves beside
    python code/2d/graph.py --demo             the generated data of exp.py --demo
    python code/2d/graph.py --records DIR      published records

Needs neither torch nor the data; takes seconds.
"""

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
from common.runs.records import unordered
from common.stats.measures import Measure, accuracy_of, kappa_of, macro_f1_of

SHORT = {"jig": "jigsaw", "rot": "rotation", "exe": "exemplar"}  # names in the paper's figure


def main() -> None:
    """Draw what is there."""
    run(TREE, str(__doc__))


def measures(run: Json) -> list[Measure]:
    """Kappa and accuracy; of classes without an order unweighted, with macro-F1."""
    count = len(run["classes"])
    if unordered(run):
        return [kappa_of("unweighted_kappa", "Unweighted kappa", count, ordered=False),
                accuracy_of("accuracy", "Accuracy"), macro_f1_of("macro_f1", "Macro-F1", count)]
    return [kappa_of("kappa", "Quadratic-weighted kappa", count),
            accuracy_of("accuracy", "Accuracy")]


def axis(run: Json) -> str:
    """Metric and size, for the axis."""
    kind = "unweighted" if unordered(run) else "quadratic-weighted"
    return f"Test {kind} kappa\n(of {run['resolution']} x {run['resolution']} px)"


def published() -> list[Published]:
    """The paper's Fig. 4 (pretrained on the same images) and the earlier code's curves."""
    data = read_json(PUBLISHED_CURVES)
    paper = {name.removesuffix("-kaggle"): values
             for name, values in data["paper_fig4_retinopathy"]["curves"].items()
             if not name.endswith("-ukb")}  # those were pretrained on UK Biobank
    return [Published("paper, Fig. 4 (read off, ±0.004; mean of 5 folds)", data["fractions"],
                      {SHORT.get(task, task): values for task, values in paper.items()}),
            Published("earlier code (mean of 5 folds, last epoch)", data["fractions"],
                      data["earlier_retinopathy"]["curves"], dashed=True)]


TREE = Tree(name="2d", measures=measures, panels=lambda every: every[1:], axis=axis,
                      examples=examples.grades, published={"fundus": ("kappa", published)})

if __name__ == "__main__":
    sys.exit(exit_status(main))
