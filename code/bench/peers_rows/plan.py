"""What every way trains alike: the network, its start, cases, steps, rates, validations.

A plan carries it to the fresh processes, as JSON, so that the ways of others need nothing of the
project but its network's file, and import nothing else.
"""

import importlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from common.files import write_json
from common.tasks.batches import initialise

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
