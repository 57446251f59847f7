"""What every way trains alike: the network, its start, cases, steps, rates, validations.

The project's own exp.py says all of it, under FLAGS; a plan carries it, as JSON, to the fresh
processes, so that the ways of others need nothing of the project but its network's file.
"""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from bench import trees
from common.arms import BASELINE
from common.data.cache import Source
from common.errors import InputError
from common.files import write_json
from common.runs.study import Study
from common.settings import Settings, from_flags
from common.tasks.batches import initialise

# float32 for all, since only the project would take bfloat16 by itself.
ALIKE = ("--tasks", BASELINE, "--fractions", "100", "--precision", "float32", "--no-unlabelled",
         "--device", "cpu")
# Flags of each exp.py: sizes that two cores train in a minute or two.
FLAGS = {"3d": [*ALIKE, "--resolution", "32", "--levels", "2", "--filters", "8",
                "--finetune-lr", "9e-3"],  # hippocampus: chosen on validation by --tune
         "2d": [*ALIKE, "--resolution", "96", "--blocks", "2", "4", "4", "2", "--growth", "16",
                "--augment-flips", "horizontal", "--finetune-lr", "1e-3"]}  # as in the screening
STEPS = {"3d": 282, "2d": 285}  # optimiser steps: six epochs of hippocampus, five of the knees
HEADS = {"3d": "UNet", "2d": "Grader"}  # classes of each model.py that are finetuned


class Case(NamedTuple):
    """A labelled case by its files; a photograph has a grade and no label map."""

    image: str
    label: str
    grade: int


@dataclass(frozen=True)
class Plan:
    """One run, and what may be used for it."""

    tree: str
    dataset: str
    folder: str               # where a way keeps what it has prepared
    flags: list[str]          # of the project's exp.py
    seed: int
    cores: int                # that the process may use
    side: int                 # voxels or pixels, of the network's grid
    encoder: list[Any]        # arguments of the Encoder of the tree's model.py
    classes: int
    dropout: float | None     # of every dropout layer; None: as the network was made
    batch: int
    lr: float
    ramp: int                 # steps in which the rate rises to lr; then a cosine down to 0
    clip: float | None        # global norm of the gradient
    epochs: int
    steps: int                # in all
    validations: int
    changes: dict[str, float]  # of training images: zoom, and in 3D degrees and share
    cases: dict[str, list[Case]]  # train, val, test

    def write(self, path: Path) -> Path:
        """Write it as JSON."""
        write_json(path, asdict(self))
        return path

    @staticmethod
    def read(path: Path) -> "Plan":
        """Read what write() has written."""
        content = json.loads(path.read_text(encoding="utf-8"))
        cases = {part: [Case(*case) for case in some] for part, some in content["cases"].items()}
        return Plan(**{**content, "cases": cases})


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


def network(plan: Plan) -> nn.Module:
    """The project's network with the weights that its own run of this seed starts from."""
    model = importlib.import_module(f"{plan.tree}.model")
    initialise(plan.seed)
    made: nn.Module = getattr(model, HEADS[plan.tree])(model.Encoder(*plan.encoder), plan.classes)
    for module in made.modules():
        if isinstance(module, nn.Dropout) and plan.dropout is not None:
            module.p = plan.dropout
    return made


def rate(plan: Plan, done: int) -> float:
    """The rate after ``done`` steps, over plan.lr: a linear ramp, along a cosine."""
    factor = (1 + math.cos(math.pi * done / plan.steps)) / 2
    return factor * (done + 1) / (plan.ramp + 1) if done < plan.ramp else factor


def due(plan: Plan) -> set[int]:
    """The steps after which a run is validated, evenly over it."""
    count = min(plan.validations, plan.steps)
    return {math.ceil(number * plan.steps / count) for number in range(1, count + 1)}
