"""What a training step of every arm takes at a small size: seconds beside the plain way, memory.

The plain step gets its inputs ready-made, as in step_rows.py; of today's tasks it trains the same
network in float32 and the usual memory layout, and fetches their scores at every step.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from bench.measure import MIB, Row, seconds
from bench.memory import Live
from bench.rows import plain
from bench.rows.step_rows import SEED, Step, made, plain_step
from bench.trees import Tree
from common.arms import BASELINE, SEMI
from common.runs.records import SilentRun
from common.runs.semi import KINDS
from common.settings import Settings
from common.tasks.batches import generator

NETWORKS = {"3d": "3D U-Net", "2d": "DenseNet-121"}


def every(tree: Tree, rounds: int, told: Callable[[Row], None]) -> None:
    """Tell a row for finetuning, each rival of pretraining, and each pretext task."""
    base = 0.0
    for name in arms(tree):
        row = of_arm(tree, name, rounds, base)
        base = base or (row.ours or 0.0)
        told(row)


def arms(tree: Tree) -> list[str]:
    """Every arm whose steps differ; variants of the exemplar cost what it does."""
    rivals = [name for name in KINDS if tree.study.tree == "2d" or name != "fixmatch"]
    tasks = [name for name in tree.study.pretexts if not name.startswith("exemplar_")]
    return [BASELINE, *rivals, *tasks]


def of_arm(tree: Tree, name: str, rounds: int, base: float) -> Row:
    """The row of one arm; ``base``: seconds of a finetuning step."""
    device, study = tree.cases.device, tree.study
    if name in SEMI:
        ours: Step = Rival(tree, name)
        taken, plainly = seconds(device, rounds, ours)[0], None
        note = f"{taken / base:.1f} steps of the baseline" if base else ""
    else:
        ours, usual = Step(tree, name), of_any(tree, name)
        taken, plainly = seconds(device, rounds, ours, usual)
        note = f"plain {alive(usual):.0f}"
    steps = study.task(name).steps if name in study.pretexts else 0
    held = alive(ours)
    gc.collect()
    side = f"{study.settings.RESOLUTION}{'³' if study.dimensions == 3 else ' px'}"
    stage = "finetune" if name == BASELINE else name
    return Row(f"{NETWORKS[study.tree]}, {stage}, batch {ours.recipe.batch_size} at {side}",
               taken, plainly, "s", note="; ".join(part for part in (
                   f"{held:.0f} MiB made and alive at most", note,
                   f"{steps} steps by default" if steps else "") if part),
               details={"alive_mib": held})


def of_any(tree: Tree, name: str) -> Callable[[], None]:
    """The plain step of any pretext task, or of finetuning."""
    if name in (BASELINE, *tree.defaults.TASKS):
        return plain_step(tree, name)
    settings = Settings(**{**vars(tree.study.settings), "LAYOUT": "contiguous"})
    recipe, task, model = made(replace(tree, study=replace(tree.study, settings=settings)), name)
    rows = (tree.cases.rows(tree.study.part(SEED).train) * recipe.batch_size)[:recipe.batch_size]
    views, targets = task.prepare(tree.cases.batch(rows, labelled=task.labelled),
                                  generator(SEED, "bench"), training=True)
    step = plain.stepper(model, task.loss, partial(plain.mean_score, task), recipe.lr)
    return lambda: step(views, targets)


class Rival(Step):
    """A step of a rival of pretraining: a labelled batch, and one of the pool beside it."""

    def __init__(self, tree: Tree, name: str) -> None:
        super().__init__(tree, BASELINE)
        self.fit = KINDS[name](self.fit.model, self.task, self.cases, train=self.rows,
                               val=self.rows, run=SilentRun(Path(), {}), recipe=self.recipe,
                               unlabelled=self.rows)
        self.fit.model.train()
        self.epoch = 0

    def __call__(self) -> torch.Tensor:
        """Take a step, with the first batch of another order of the pool."""
        self.epoch += 1
        self.fit._begin(self.epoch)
        return super().__call__()


def alive(step: Callable[[], object]) -> float:
    """MiB of what a step makes or looks at, at the most at any moment; kernels' own not counted."""
    with Live(torch.nn.Module()) as live:
        step()
    return live.peak / MIB
