"""What every graph.py does: find the records, draw the figures, write the tables."""

import argparse
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arms import BASELINE
from common.errors import InputError
from common.files import ROOT, Json, read_json, write_json, write_text
from common.report import brief, curves, tables
from common.report.curves import Curves
from common.report.figures import difference, efficiency, examples, learning, views
from common.report.stats import Measure
from common.runs.records import run_folder


@dataclass(frozen=True)
class Tree:
    """What a graph.py says of its tree."""

    name: str                                        # folder below RESULTS
    measures: Callable[[Json], list[Measure]]        # from any record; headline first
    panels: Callable[[list[Measure]], list[Measure]]  # of these, the ones drawn small
    axis: Callable[[Json], str]                      # label of the headline's axis
    published: Mapping[str, tuple[str, Callable[[], list[efficiency.Published]]]]
    """Data set -> key of the measure its published curves are in, and the curves."""
    examples: Callable[[Mapping[str, examples.Array], Curves, Path], None]  # draws test cases


def run(tree: Tree, description: str, arguments: Sequence[str] | None = None) -> None:
    """Draw every data set found, or the one asked for; InputError if there is none."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="where records are and figures go [results; "
                        "with --records: beside those]")
    parser.add_argument("--dataset", help="draw this data set only")
    parser.add_argument("--demo", action="store_true", help="the same as --results results/demo")
    parser.add_argument("--records", type=Path, metavar="DIR",
                        help="a folder of published records, holding finetune/ and pretrain/")
    parser.add_argument("--published", action="store_true",
                        help="add a panel with the published curves (of "
                        f"{' and '.join(tree.published)})")
    parser.add_argument("--publish", metavar="NOTE",
                        help="copy the text records (no weights, no images) to "
                        "published/<dataset>-NOTE in the results")
    given = parser.parse_args(arguments)
    if given.publish and not re.fullmatch(r"[\w.-]+", given.publish):
        raise InputError(f"--publish {given.publish}: letters, digits, dots and dashes only; it "
                         "becomes part of a folder's name")
    results = (given.results or ROOT / ("results/demo" if given.demo else "results")).absolute()
    for folder in _folders(tree, results, given.records, given.dataset):
        beside = given.records is not None and given.results is None
        data = _report(tree, folder, folder if beside else results, published=given.published)
        print(brief.text(data))
        if given.publish:
            publish(folder, data, results / "published" / f"{data.dataset}-{given.publish}")


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


def _report(tree: Tree, folder: Path, results: Path, *, published: bool) -> Curves:
    """Draw one data set's figures and write its tables."""
    splits = folder / "splits.json"
    name = read_json(splits)["dataset"] if splits.exists() else folder.name.split("-")[0]
    first = next(iter(sorted(folder.glob("finetune/*/*/*/scores.json"))), None)
    record = read_json(first) if first else None
    measures = tree.measures(record) if record else []
    if record and record["metric"] != measures[0].name:
        raise InputError(f"{folder}: runs that report {record['metric']}; "
                         f"code/{tree.name}/graph.py draws {measures[0].name}, take the graph.py "
                         "of the other tree")
    data: Curves = curves.read(folder, name, measures)
    key, read_others = tree.published.get(name, ("", list)) if published else ("", list)
    if published and not key:
        print(f"{name}: no published curves to compare with (there are some for "
              f"{' and '.join(tree.published)})")
    figure = results / f"train_{name}.png"
    efficiency.draw(data, figure, axis=tree.axis(data.runs[0]), panels=tree.panels(measures),
              paper=next((m for m in measures if m.name == key), None), published=read_others())
    write_text(figure.with_suffix(".md"), tables.markdown(data))
    write_text(figure.with_suffix(".csv"), tables.csv_text(data))
    for line in data.missing:
        print(f"{name}: missing {line}")
    print(f"{name}: {len(data.runs)} runs -> {figure}, .md and .csv beside it")
    drawn = _pictures(tree, folder, data, results)
    if drawn:
        print(f"{name}: {', '.join(drawn)} beside it")
    return data


def _pictures(tree: Tree, folder: Path, data: Curves, results: Path) -> list[str]:
    """Draw what there are records and arrays for; returns the names of the files."""
    drawn = []
    name = f"difference_{data.dataset}.png"
    if difference.draw(data, results / name):
        drawn.append(name)
    name = f"learning_{data.dataset}.png"
    if learning.learning(folder, data, results / name):
        drawn.append(name)
    saved, shown = _arrays(folder / "examples.npz"), _arrays(folder / "views.npz")
    if _drawable(saved, data):
        drawn.append(f"examples_{data.dataset}.png")
        tree.examples(saved, data, results / drawn[-1])
    if shown and len(shown["tasks"]):
        drawn.append(f"views_{data.dataset}.png")
        views.views(shown, data, results / drawn[-1])
    if results / tree.name in folder.parents:  # not published records, which have no arrays
        for kind in ("difference", "learning", "examples", "views"):
            if (name := f"{kind}_{data.dataset}.png") not in drawn:
                (results / name).unlink(missing_ok=True)  # an old one would not fit the tables
    return drawn


def _arrays(path: Path) -> dict[str, examples.Array]:
    """The arrays of a file of snapshots.py; none if there is none."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(saved)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path}: not readable as exp.py's arrays; remove it, exp.py makes it "
                         "anew") from None


def _drawable(saved: Mapping[str, examples.Array], data: Curves) -> bool:
    """Whether there are predictions of the baseline's run, and test cases that have a score."""
    return (bool(saved) and BASELINE in examples.shown(saved, data)
            and bool(examples.kept(saved, data)))


def publish(folder: Path, data: Curves, target: Path) -> None:
    """Copy the text records that graph.py needs to ``target``: no weights, no images."""
    if target.resolve() == folder.resolve():
        raise InputError(f"{folder}: these are the published records; give another --publish NOTE")
    for old in ("finetune", "pretrain"):
        shutil.rmtree(target / old, ignore_errors=True)
    runs = [run_folder(folder, run) for run in (*data.runs, *data.pretraining)]
    for run in runs:
        for name in ("log.jsonl", "scores.json"):
            if (run / name).exists():
                write_text(target / run.relative_to(folder) / name,
                           (run / name).read_text(encoding="utf-8"))
        config = read_json(run / "config.json")
        config.get("provenance", {}).pop("host", None)  # says nothing to others
        write_json(target / run.relative_to(folder) / "config.json", config)
    if (folder / "splits.json").exists():
        write_text(target / "splits.json", (folder / "splits.json").read_text(encoding="utf-8"))
    print(f"{data.dataset}: {len(runs)} runs -> {target}")
