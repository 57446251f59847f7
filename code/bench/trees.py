"""The two experiments as users run them, on generated data of a size that suits the measurement."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch

from bench.measure import Sizes
from common.arms import BASELINE
from common.data.splits import hold_out
from common.files import ROOT
from common.machine import devices
from common.runs.records import read_runs
from common.runs.stages import load_cases
from common.runs.study import Study
from common.schedule import grid
from common.schedule.plan import view_voxels
from common.settings import Settings, from_flags
from common.stats.measures import Measure
from common.tasks.batches import Cases

SCRIPT = "exp"
SIBLINGS = ("loader", "model", "phantom", "pretext")
SCANS = 14          # generated scans; enough for splits, and for jigsaw's batch of 8
SCAN_SIDE = 48      # voxels; what the network sees is resized
PHOTOGRAPHS = 48    # more than a batch of 32 to train on
STRATA = 3          # as of terciles of foreground; how many hardly matters for the counts


class Grid(NamedTuple):
    """The data set of a tree's default grid, by its counts."""

    name: str
    labelled: int
    unlabelled: int


GRIDS = {"3d": Grid("pancreas", 281, 139),      # MSD Task07_Pancreas
         "2d": Grid("APTOS 2019", 3662, 1928)}  # without a grade: the competition's test set


@dataclass(frozen=True)
class Tree:
    """A tree's study of generated data, its cases on the device, and its default settings."""

    study: Study
    cases: Cases
    defaults: Settings
    sound_on_cpu: bool = False  # whether bfloat16 is


def parser(text: str | None) -> argparse.ArgumentParser:
    """For a script of this folder that takes a tree, and behind -- the flags of its exp.py."""
    made = argparse.ArgumentParser(description=text,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("tree", choices=("2d", "3d"))
    return made


def arguments(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """What was given to the script itself, and the flags of exp.py."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    return parser.parse_args(sys.argv[1:end]), sys.argv[end + 1:]


def script(tree: str) -> ModuleType:
    """A tree's exp.py as a module; it imports its siblings by their bare names.

    The last one is known as exp, by which worker processes find its functions.
    """
    for name in (SCRIPT, *SIBLINGS):  # the other tree's
        sys.modules.pop(name, None)
    sys.path.insert(0, str(ROOT / "code" / tree))  # stays: processes that preprocess need it too
    return importlib.import_module(SCRIPT)


def open_3d(folder: Path, device: torch.device, sizes: Sizes, scans: int = SCANS) -> Tree:
    """Volumes: the default study, or a smaller one, on generated scans."""
    exp = script("3d")
    data = folder / "Task00_Steps"
    exp.phantom.generate(data, labelled=scans, unlabelled=0, size=SCAN_SIDE)
    return _open(exp, data, device, sizes.volumes)


def open_2d(folder: Path, device: torch.device, sizes: Sizes) -> Tree:
    """Photographs: the default study, or a smaller one, on generated photographs."""
    exp = script("2d")
    data = folder / "steps"
    exp.phantom.generate(data, labelled=PHOTOGRAPHS, unlabelled=0, size=128)
    return _open(exp, data, device, sizes.photographs)


def _open(exp: ModuleType, data: Path, device: torch.device,
          flags: Sequence[str]) -> Tree:
    folder = data.parent
    places = ["--data", data, "--cache", folder / "cache", "--results", folder / "results"]
    settings = from_flags(vars(exp), [*map(str, places), *flags])
    study = study_of(exp, settings, device)
    return Tree(study, load_cases(study, device), from_flags(vars(exp), []),
                exp.TREE.bfloat16_on_cpu)


def study_of(exp: ModuleType, settings: Settings, device: torch.device) -> Study:
    """The study that exp.py makes of ``settings``; InputError as there."""
    files = grid.check(settings, exp.TREE)
    precision = devices.precision(settings.PRECISION, [device],
                                  sound_on_cpu=exp.TREE.bfloat16_on_cpu)
    study: Study = exp.make_study(settings, precision, files)
    return study


def headline(study: Study) -> Measure:
    """The measure that the tree's graph.py puts first; needs a finished run."""
    graph = importlib.import_module(f"{study.tree}.graph")
    measure: Measure = graph.TREE.measures(read_runs(study.folder, "finetune")[0])[0]
    return measure


def full(tree: Tree) -> Study:
    """The default study of exp.py as it would be with the data set of GRIDS; has no images."""
    grid = GRIDS[tree.study.tree]
    labelled = {f"labelled{n}": n % STRATA for n in range(grid.labelled)}
    parts = hold_out(labelled, seed=tree.defaults.SPLIT_SEED, folds=tree.defaults.FOLDS)
    free = [f"unlabelled{n}" for n in range(grid.unlabelled)]
    digests = dict.fromkeys([*labelled, *free], ["", ""])
    return replace(tree.study, settings=tree.defaults, splits=parts, unlabelled=free,
                   cache=replace(tree.study.cache, digests=digests))


def scale(tree: Tree, name: str) -> float:
    """Voxels of a case's views at the default resolution, over those that were measured."""
    whole, used = full(tree), tree.study
    if whole.settings.RESOLUTION == used.settings.RESOLUTION:
        return 1.0
    if name == BASELINE:  # whole images
        return float((whole.settings.RESOLUTION / used.settings.RESOLUTION) ** used.dimensions)
    return view_voxels(whole, whole.task(name)) / view_voxels(used, used.task(name))
