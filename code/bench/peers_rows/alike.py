"""The plans of a data set, from what the project's own exp.py does under FLAGS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import trees
from bench.peers_rows.plan import Case, Plan
from common.arms import BASELINE
from common.data.cache import Source
from common.errors import InputError
from common.runs.study import Study
from common.settings import Settings, from_flags

# float32 for all, since only the project would take bfloat16 by itself.
ALIKE = ("--tasks", BASELINE, "--fractions", "100", "--precision", "float32", "--no-unlabelled",
         "--device", "cpu")
# Flags of each exp.py: sizes that two cores train in a minute or two.
FLAGS = {"3d": [*ALIKE, "--resolution", "32", "--levels", "2", "--filters", "8",
                "--finetune-lr", "9e-3"],  # hippocampus: chosen on validation by --tune
         "2d": [*ALIKE, "--resolution", "96", "--blocks", "2", "4", "4", "2", "--growth", "16",
                "--augment-flips", "horizontal", "--finetune-lr", "1e-3"]}  # as in the screening
STEPS = {"3d": 282, "2d": 285}  # optimiser steps: six epochs of hippocampus, five of the knees


def plans(tree: str, data: Path, folder: Path, *, seeds: Sequence[int], steps: int) -> list[Plan]:
    """The plan of each seed; ``steps`` rounded to whole epochs. Makes the splits, in ``folder``."""
    exp = trees.script(tree)
    flags = ["--data", str(data.absolute()), *FLAGS[tree], "--seeds", *map(str, seeds)]
    study = opened(exp, flags, folder)
    each = study.finetune_recipe(BASELINE, 100, seeds[0]).steps
    flags += ["--finetune-epochs", str(max(1, round(steps / each)))]
    study = opened(exp, flags, folder)
    sources = {source.id: source for source in _sources(exp, study.settings)}
    return [_of_seed(study, seed, flags, sources) for seed in seeds]


def opened(exp: Any, flags: Sequence[str], folder: Path) -> Study:
    """The study of exp.py with cache and records in ``folder``."""
    places = ["--cache", str(folder / "cache"), "--results", str(folder / "results")]
    settings = from_flags(vars(exp), [*flags, *places])
    return trees.study_of(exp, settings, torch.device("cpu"))


def _sources(exp: Any, settings: Settings) -> list[Source]:
    """The labelled cases as the tree's loader finds them; InputError for more than one channel."""
    dataset = exp.loader.open_dataset(Path(settings.DATA), unlabelled=False)
    found: list[Source] = dataset.sources
    if len(getattr(dataset, "channels", ["one"])) > 1:
        raise InputError(f"{settings.DATA}: {len(dataset.channels)} channels; the ways compared "
                         "here read one, give a data set that has one")
    return found


def _of_seed(study: Study, seed: int, flags: list[str], sources: dict[str, Source]) -> Plan:
    s, part = study.settings, study.part(seed)
    recipe = study.finetune_recipe(BASELINE, 100, seed)
    assert recipe.schedule == "cosine" and recipe.validations is not None and not recipe.warmup
    cases = {name: [_case(sources[case]) for case in ids]
             for name, ids in (("train", part.train), ("val", part.val), ("test", part.test))}
    encoder = ([len(study.channels), s.FILTERS, s.LEVELS] if study.tree == "3d"
               else [s.BLOCKS, s.GROWTH])
    changes = {"zoom": s.AUGMENT_ZOOM, "degrees": s.AUGMENT_DEGREES,
               "share": getattr(s, "AUGMENT_SHARE", 1.0)}
    return Plan(study.tree, study.dataset, "", flags, seed, 1, s.RESOLUTION, encoder,
                len(study.classes) + (study.tree == "3d"),  # the background is a class there
                recipe.dropout, recipe.batch_size, recipe.lr, recipe.ramp, recipe.clip,
                recipe.epochs, recipe.epochs * recipe.steps, recipe.validations, changes, cases)


def _case(source: Source) -> Case:
    return Case(str(source.image), "" if source.label is None else str(source.label),
                -1 if source.target is None else source.target)
