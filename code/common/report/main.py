"""What every graph.py does: find the records, draw the figures, write the tables."""

import argparse
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.arms import BASELINE
from common.errors import InputError
from common.files import ROOT, Json, write_text
from common.report import brief, curves, protocols, published, rates, tables
from common.report.curves import Curves
from common.report.figures import difference, efficiency, examples, exchange, learning, views
from common.report.figures import protocols as two_protocols
from common.report.page import document
from common.runs import records
from common.runs.records import Records
from common.settings import Parser
from common.stats.measures import Measure


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
    parser = Parser(description=description,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="where records are and figures go [results; "
                        "with --records: beside those]")
    parser.add_argument("--dataset", help="draw this data set only, under either protocol")
    parser.add_argument("--demo", action="store_true", help="the same as --results results/demo")
    parser.add_argument("--records", type=Path, metavar="DIR",
                        help="published records: a folder with records.json.gz, or with such "
                        "folders; beside those a page is drawn again, with --results made")
    parser.add_argument("--published", action="store_true",
                        help="add a panel with the published curves (of "
                        f"{' and '.join(tree.published)})")
    parser.add_argument("--publish", metavar="NOTE",
                        help="add the runs to published/<dataset>-NOTE/records.json.gz in the "
                        "results (no weights, no images), and draw what is there then")
    parser.add_argument("--target", type=float, metavar="SCORE", help="count labels to this score "
                        "of the headline [the best of the baseline's curve]")
    given = parser.parse_args(arguments)
    if given.publish and not re.fullmatch(r"[\w.-]+", given.publish):
        raise InputError(f"--publish {given.publish}: letters, digits, dots and dashes only; it "
                         "becomes part of a folder's name")
    if given.target is not None and not -1 < given.target <= 1:
        raise InputError(f"--target {given.target:g}: scores go up to 1; for Dice or kappa of "
                         "80 % give 0.8")
    results = (given.results or ROOT / ("results/demo" if given.demo else "results")).absolute()
    drawn = []
    for found in _found(tree, results, given.records, given.dataset):
        beside = given.records is not None and given.results is None
        data = _report(tree, found, found.folder if beside else results,
                       compared=given.published, target=given.target, paged=not beside)
        print(brief.text(data))
        drawn.append(data)
        if given.publish:
            target = results / "published" / f"{data.dataset}-{given.publish}"
            _publish(tree, found, target, compared=given.published, score=given.target)
    _protocols(tree, drawn, results if given.records is None or given.results else given.records)


def _protocols(tree: Tree, drawn: Sequence[Curves], folder: Path) -> None:
    """Draw what is there under this project's protocol and the paper's once more, together."""
    for ours, papers in protocols.found(drawn):
        figure = folder / f"protocols_{ours.dataset}.png"
        if two_protocols.draw(ours, papers, figure, axis=tree.axis(ours.runs[0])):
            write_text(figure.with_suffix(".md"), protocols.markdown(ours, papers))
            print(f"{ours.dataset}: both protocols -> {figure}, .md beside it")


def _found(tree: Tree, results: Path, given: Path | None, dataset: str | None) -> list[Records]:
    """The records to draw, one a data set or a published study."""
    if given is not None:
        return _published(tree, given.absolute())
    below = results / tree.name
    folders = sorted({path.parents[4] for path in below.glob("*/finetune/*/*/*/scores.json")})
    if dataset:  # under both protocols
        twin = dataset.removesuffix(records.PAPER)
        folders = [folder for folder in folders if folder.name in (twin, twin + records.PAPER)]
    if not folders:
        what = f"data set {dataset}" if dataset else "data set"
        raise InputError(f"{below}: no finished runs of any {what}; train some with "
                         f"python code/{tree.name}/exp.py (--demo for generated data)")
    return [*map(records.read, folders)]


def _published(tree: Tree, folder: Path) -> list[Records]:
    """The study in ``folder``, or all below it that are of this tree."""
    if (folder / "finetune").is_dir():  # a data set's runs as exp.py leaves them
        return [records.read(folder)]
    paths = published.below(folder)
    if not paths:
        raise InputError(f"{folder}: no {published.NAME} in it or below; graph.py --publish NOTE "
                         "writes one")
    studies = [*map(published.read, paths)]
    ours = [study for study in studies if _reports(tree, study)]
    for study in studies:
        if ours and not _reports(tree, study):
            print(f"{study.folder}: of the other tree, left to its graph.py")
    return ours or studies[:1]


def _reports(tree: Tree, found: Records) -> bool:
    """Whether the runs report what this tree's do."""
    return all(run["metric"] == tree.measures(run)[0].name for run in found.finetune[:1])


def _report(tree: Tree, found: Records, results: Path, *, compared: bool,
            target: float | None = None, paged: bool) -> Curves:
    """Draw one data set's figures and write its tables; ``paged``: and its page.

    Beside published records, which are in every clone, only a page that lies there is drawn again.
    """
    if not _reports(tree, found):
        raise InputError(f"{found.folder}: runs that report {found.finetune[0]['metric']}; "
                         f"code/{tree.name}/graph.py draws "
                         f"{tree.measures(found.finetune[0])[0].name}, take the graph.py of the "
                         "other tree")
    poorest = min(found.finetune, key=lambda run: len(run["test"]), default=None)
    measures = tree.measures(poorest) if poorest else []  # what every run has, of old ones too
    data, name = curves.of(found, measures, target=target), found.dataset
    key, read_others = tree.published.get(name.removesuffix(records.PAPER) if compared else "",
                                          ("", list))
    if key not in {measure.name for measure in measures}:  # none, or of another score
        key, read_others = "", list
    if compared and not key:
        print(f"{name}: no published curves to compare with (there are some for "
              f"{' and '.join(tree.published)})")
    figure = results / f"train_{name}.png"
    efficiency.draw(data, figure, axis=tree.axis(data.runs[0]), panels=tree.panels(measures),
              paper=next((m for m in measures if m.name == key), None), published=read_others())
    write_text(figure.with_suffix(".md"), tables.markdown(data))
    write_text(figure.with_suffix(".csv"), tables.csv_text(data))
    if data.exchange or data.pools:
        write_text(results / f"exchange_{name}.csv", rates.csv_text(data))
    else:
        (results / f"exchange_{name}.csv").unlink(missing_ok=True)
    for line in data.missing:
        print(f"{name}: missing {line}")
    print(f"{name}: {len(data.runs)} runs -> {figure}, .md and .csv beside it")
    drawn = _pictures(tree, found.folder, data, results)
    if drawn:
        print(f"{name}: {', '.join(drawn)} beside it")
    path = results / f"{name}.html"
    if paged or path.exists():
        document.write(path, data, axis=tree.axis(data.runs[0]),
                       pictures=[results / one for one in drawn])
        print(f"{name}: all on one page -> {path}")
    return data


def _pictures(tree: Tree, folder: Path, data: Curves, results: Path) -> list[str]:
    """Draw what there are records and arrays for; returns the names of the files."""
    drawn = []
    name = f"difference_{data.dataset}.png"
    if difference.draw(data, results / name):
        drawn.append(name)
    name = f"exchange_{data.dataset}.png"
    if exchange.draw(data, results / name, axis=tree.axis(data.runs[0])):
        drawn.append(name)
    name = f"learning_{data.dataset}.png"
    if learning.learning(data, results / name):
        drawn.append(name)
    saved, shown = _arrays(folder / "examples.npz"), _arrays(folder / "views.npz")
    if _drawable(saved, data):
        drawn.append(f"examples_{data.dataset}.png")
        tree.examples(saved, data, results / drawn[-1])
    if shown and len(shown["tasks"]):
        drawn.append(f"views_{data.dataset}.png")
        views.views(shown, data, results / drawn[-1])
    if results / tree.name in folder.parents:  # not published records, which have no arrays
        for kind in ("difference", "exchange", "learning", "examples", "views"):
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


def _publish(tree: Tree, found: Records, target: Path, *, compared: bool,
             score: float | None) -> None:
    """Add the runs to the records in ``target`` and draw all that it then holds there."""
    if target.resolve() == found.folder.resolve():
        raise InputError(f"{found.folder}: these are the published records; give another "
                         "--publish NOTE")
    merged = published.publish(found, target / published.NAME)
    print(f"{found.dataset}: {len(found.finetune)} finetuning and {len(found.pretrain)} "
          f"pretraining runs added or there already -> {target / published.NAME}")
    _report(tree, merged, target, compared=compared, target=score, paged=False)
    print(f"{found.dataset}: pictures of images are not published; the records name every case")
