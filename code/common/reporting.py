"""What every graph.py does: find the records, draw the figure, write the tables."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common import curves, plot, tables
from common.curves import Curves
from common.errors import InputError
from common.records import ROOT, Json, read_json, write_text
from common.stats import Measure


@dataclass(frozen=True)
class Tree:
    """What a graph.py says of its tree."""

    name: str                                        # folder below RESULTS
    measures: Callable[[Json], list[Measure]]        # from any record; headline first
    panels: Callable[[list[Measure]], list[Measure]]  # of these, the ones drawn small
    axis: Callable[[Json], str]                      # label of the headline's axis
    published: Mapping[str, tuple[str, Callable[[], list[plot.Published]]]]
    """Data set -> key of the measure its published curves are in, and the curves."""


def run(tree: Tree, description: str, arguments: Sequence[str] | None = None) -> None:
    """Draw every data set found, or the one asked for; InputError if there is none."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="where records are and figures go [results]")
    parser.add_argument("--dataset", help="draw this data set only")
    parser.add_argument("--demo", action="store_true", help="the same as --results results/demo")
    parser.add_argument("--records", type=Path, metavar="DIR",
                        help="a folder of published records, holding finetune/ and pretrain/")
    parser.add_argument("--published", action="store_true",
                        help="add a panel with the published curves (of "
                        f"{' and '.join(tree.published)})")
    given = parser.parse_args(arguments)
    results = (given.results or ROOT / ("results/demo" if given.demo else "results")).absolute()
    for folder in _folders(tree, results, given.records, given.dataset):
        _report(tree, folder, results, published=given.published)


def _folders(tree: Tree, results: Path, records: Path | None, dataset: str | None) -> list[Path]:
    """Folders of records, one a data set."""
    if records is not None:
        return [records.absolute()]
    below = results / tree.name
    found = sorted({path.parents[4] for path in below.glob("*/finetune/*/*/*/scores.json")})
    if dataset:
        found = [folder for folder in found if folder.name == dataset]
    if not found:
        what = f"data set {dataset}" if dataset else "data set"
        raise InputError(f"{below}: no finished runs of any {what}; train some with "
                         f"python code/{tree.name}/exp.py (--demo for generated data)")
    return found


def _report(tree: Tree, folder: Path, results: Path, *, published: bool) -> None:
    """Draw one data set's figure and write its tables."""
    splits = folder / "splits.json"
    name = read_json(splits)["dataset"] if splits.exists() else folder.name.split("-")[0]
    first = next(iter(sorted(folder.glob("finetune/*/*/*/scores.json"))), None)
    measures = tree.measures(read_json(first)) if first else []
    data: Curves = curves.read(folder, name, measures)
    key, read_others = tree.published.get(name, ("", list)) if published else ("", list)
    if published and not key:
        print(f"{name}: no published curves to compare with (there are some for "
              f"{' and '.join(tree.published)})")
    figure = results / f"train_{name}.png"
    plot.draw(data, figure, axis=tree.axis(data.runs[0]), panels=tree.panels(measures),
              paper=next((m for m in measures if m.name == key), None), published=read_others())
    write_text(figure.with_suffix(".md"), tables.markdown(data))
    write_text(figure.with_suffix(".csv"), tables.csv_text(data))
    for line in data.missing:
        print(f"{name}: missing {line}")
    print(f"{name}: {len(data.runs)} runs -> {figure}, .md and .csv beside it")
