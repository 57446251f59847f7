"""Training steps beside the plain way, validation, and what both mean for the pancreas grid.

The project's step is Fit.step() on the model, recipe, memory format and precision that
exp.py would use; it makes its views from cached cases. The plain step gets its inputs ready-made.
"""

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.measure import Row, flops, gpu_peak, matrix_rate, seconds
from bench.rows import plain
from bench.trees import Tree, full, scale
from common.arms import BASELINE, ORACLE
from common.runs import training
from common.runs.encoders import place
from common.runs.records import SilentRun
from common.runs.stages import pretext_network
from common.runs.study import Study
from common.runs.training import Recipe
from common.settings import Settings
from common.tasks.batches import generator
from common.tasks.siamese import Siamese, nested

SEED = 0
PAPERS = ("rotation", "jigsaw", "rpl", "exemplar", "cpc")
PRETEXT_GAIN, FINETUNE_GAIN, GRADING_GAIN = 1.4, 1.2, 3.0  # times faster than the plain step
VALIDATION_SHARE = 10                                      # percent of a run at most
HOURS = {1: 2.0, 3: 5.0}  # seeds: hours of the grid on one H200
# TFLOP a step at 128^3 needs at least with 4 volumes; counted in the issue, from layer shapes.
FLOOR = {BASELINE: 2.86, "rotation": 0.85, "rpl": 0.043, "jigsaw": 0.58, "exemplar": 1.70,
         "cpc": 0.85,  # its 64 patches of 32^3 are one volume, as in rotation
         **dict.fromkeys(("mae", "genesis", "volumefusion"), 2.86)}  # the whole network
FLOOR_CASES = 4
# Dense bfloat16 FLOP/s of the data sheets; another card's peak is that of a matrix product.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Timed:
    """What a training step of one arm was measured to take; plain None on a GPU without room."""

    name: str                # a pretext task, or baseline for finetuning
    batch: int
    step: float              # seconds
    plain: float
    validation: float        # seconds a validation case
    flop: float              # of the project's step
    plain_flop: float
    peak: float | None       # MiB of GPU memory
    plain_peak: float | None


class Step:
    """One arm's training step as exp.py makes it; call it to take a step on drawn cases."""

    def __init__(self, tree: Tree, name: str, *, compiled: Callable[[Any], Any] | None = None
                 ) -> None:
        self.cases, self.recipe, self.task, model = tree.cases, *made(tree, name)
        self.model = compiled(model) if compiled else model
        self.rng = generator(SEED, "bench")
        labelled = tree.cases.rows(tree.study.part(SEED).train)
        # Few generated scans serve any batch; a case twice in it costs what another would.
        self.rows = (labelled * self.recipe.batch_size)[:self.recipe.batch_size]
        self.fit = training.Fit(model, self.task, self.cases, train=self.rows, val=self.rows,
                                run=SilentRun(Path(), {}), recipe=self.recipe)
        self.fit.network = self.model
        model.train()

    def __call__(self) -> Tensor:
        """Gather a batch, make its views, train on it; the loss stays on the device."""
        batch = self.cases.batch(self.rows, labelled=self.task.labelled)
        return self.fit.step(batch, self.rng)

    def validate(self) -> None:
        """Evaluate one batch of as many cases."""
        training.evaluate(self.model, self.task, self.cases, self.rows,
                          replace(self.recipe, draws=1))
        self.model.train()


def made(tree: Tree, name: str) -> tuple[Recipe, Any, nn.Module]:
    """Recipe, task and model of a pretext task, or of finetuning without pretraining."""
    study = tree.study
    if name == BASELINE:
        recipe = study.finetune_recipe(BASELINE, 100, SEED)
        torch.manual_seed(SEED)
        network = study.networks.downstream(study.networks.encoder())
        place(study, network, tree.cases.device)
        return recipe, study.downstream(), network
    task = study.task(name)
    recipe = study.pretrain_recipe(task, SEED)
    return recipe, task, pretext_network(study, task, tree.cases, recipe)


def plain_step(tree: Tree, name: str) -> Callable[[], None]:
    """The same arm the plain way: float32, usual layout, Adam, metrics at every step."""
    if name not in (BASELINE, *PAPERS):
        return _todays_step(tree, name)
    recipe, task, views, targets = _inputs(tree, name)
    device = tree.cases.device
    torch.manual_seed(SEED)
    encoder = tree.study.networks.encoder().to(device)
    if name == BASELINE:
        model, (loss, score) = tree.study.networks.downstream(encoder), _downstream(tree)
        targets = _coded(tree, task, targets)
    else:
        model = Siamese(encoder, task.head, views)
        other: dict[str, Any] = {"exemplar": (plain.triplet, plain.triplet_score),
                 "cpc": (task.loss, partial(plain.mean_score, task))}
        loss, score = other.get(name, (F.cross_entropy, plain.accuracy))
    step = plain.stepper(model.to(device), loss, score, recipe.lr)
    return lambda: step(views, targets)


def _todays_step(tree: Tree, name: str) -> Callable[[], None]:
    """A task whose network is not an encoder with a head: the same network, trained plainly."""
    settings = Settings(**{**vars(tree.study.settings), "LAYOUT": "contiguous"})
    recipe, task, model = made(replace(tree, study=replace(tree.study, settings=settings)), name)
    _, _, views, targets = _inputs(tree, name)
    step = plain.stepper(model, task.loss, partial(plain.mean_score, task), recipe.lr)
    return lambda: step(views, targets)


def _inputs(tree: Tree, name: str) -> tuple[Recipe, Any, Tensor, Tensor]:
    """Recipe, task, and a batch's views and targets, ready on the device."""
    study = tree.study
    task: Any = study.downstream() if name == BASELINE else study.task(name)
    recipe = (study.finetune_recipe(BASELINE, 100, SEED) if name == BASELINE
              else study.pretrain_recipe(task, SEED))
    rows = (tree.cases.rows(study.part(SEED).train) * recipe.batch_size)[:recipe.batch_size]
    views, targets = task.prepare(tree.cases.batch(rows, labelled=task.labelled),
                                  generator(SEED, "bench"), training=True)
    if name == "exemplar":  # the plain way encodes the negative once more
        views = torch.cat([views, views[targets, 1][:, None]], dim=1)
    return recipe, task, nested(Tensor.contiguous, views), targets


def _downstream(tree: Tree) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[..., Any]]:
    """Loss and score of finetuning, the plain way."""
    if tree.study.tree == "3d":
        return plain.dice_loss, plain.dice_scores
    return F.binary_cross_entropy_with_logits, plain.grading_score


def _coded(tree: Tree, task: Any, targets: Tensor) -> Tensor:
    """Targets as usual codes keep them: one-hot float64 labels; ordinal grades."""
    if tree.study.tree == "2d":
        return task.code(targets)
    return F.one_hot(targets.long(), len(tree.study.classes) + 1).movedim(-1, 1).double()


def measured(tree: Tree, name: str, rounds: int) -> Timed:
    """Time an arm's step both ways in turns, a validation batch, FLOPs and GPU memory."""
    device = tree.cases.device
    ours = Step(tree, name)
    usual = plain_step(tree, name)
    taken = seconds(device, rounds, ours, usual, ours.validate)
    found = Timed(name, ours.recipe.batch_size, taken[0], taken[1],
                  taken[2] / ours.recipe.batch_size, flops(ours), flops(usual),
                  None, None)
    if device.type == "cuda":  # each alone: the other's model must not count
        del usual
        peak = gpu_peak(device, ours)
        del ours
        gc.collect()
        found = replace(found, peak=peak, plain_peak=gpu_peak(device, plain_step(tree, name)))
    gc.collect()
    return found


def row(tree: Tree, timed: Timed, gain: float, rate: float) -> Row:
    """The row of one arm: seconds both ways, FLOP/s, and the share of a matrix product's rate."""
    study = tree.study
    stage = "finetune" if timed.name == BASELINE else f"pretext {timed.name}"
    network = "3D U-Net" if study.tree == "3d" else "DenseNet-121"
    side = f"{study.settings.RESOLUTION}{'³' if study.dimensions == 3 else ' px'}"
    speed, usual = timed.flop / timed.step, timed.plain_flop / timed.plain
    note = (f"{study.precision}; {timed.flop / 1e9:.0f} GFLOP at {speed / 1e9:.0f} GFLOP/s, "
            f"{100 * speed / rate:.0f} % of a large matrix product's; plain "
            f"{timed.plain_flop / 1e9:.0f} at {usual / 1e9:.0f}")
    if gain * usual > rate:
        note += (f"; {gain:g} times that is {gain * usual / 1e9:.0f}, more than a matrix product's "
                 f"{rate / 1e9:.0f}")
    details = {"flop": timed.flop, "flop_per_s": speed, "plain_flop": timed.plain_flop,
               "plain_flop_per_s": usual, "validation_s_per_case": timed.validation}
    if timed.peak is not None and timed.plain_peak is not None:
        note += f"; peak {timed.peak:.0f} MiB of GPU memory, plain {timed.plain_peak:.0f}"
        details |= {"peak_mib": timed.peak, "plain_peak_mib": timed.plain_peak}
    return Row(f"{network} step, {stage}, batch {timed.batch} at {side}", timed.step, timed.plain,
               "s", f"{gain}x", timed.plain / timed.step >= gain, note, details)


def steps(tree: Tree, rounds: int, told: Callable[[Row], None]) -> list[Timed]:
    """Measure every arm of a tree's exp.py, and finetuning; tell each row as it comes."""
    device = tree.cases.device
    rate = matrix_rate(device, getattr(torch, tree.study.precision))
    found = []
    volumes = tree.study.tree == "3d"
    tasks = [arm for arm in tree.defaults.TASKS if arm in tree.study.pretexts]
    for name in [BASELINE, *(tasks if volumes else [])]:
        gain = (PRETEXT_GAIN if name != BASELINE else FINETUNE_GAIN) if volumes else GRADING_GAIN
        timed = measured(tree, name, rounds)
        found.append(timed)
        told(row(tree, timed, gain, rate))
    return found


@dataclass(frozen=True)
class Plan:
    """What one run of the default grid does: optimiser steps and validation cases."""

    name: str
    steps: int
    cases: int   # evaluated, over all validations and at the end


def plans(study: Study, name: str, *, stopped: bool) -> Plan:
    """The plan of a run; ``stopped``: patience ends pretraining as soon as it can."""
    val = len(study.splits.val)
    if name == BASELINE:
        recipe = study.finetune_recipe(name, 100, SEED)
        assert recipe.validations is not None
        at_the_end = 2 * (val + len(study.part(SEED).test))  # best and last weights
        return Plan(name, recipe.epochs * recipe.steps, recipe.validations * val + at_the_end)
    recipe = study.pretrain_recipe(study.task(name), SEED)
    epochs = recipe.epochs
    if stopped and recipe.patience is not None:  # along a cosine there is none
        epochs = min(epochs, math.ceil(recipe.patience_from / recipe.steps) + recipe.patience)
    return Plan(name, epochs * recipe.steps, (epochs + 1) * val * recipe.draws)


def projections(tree: Tree, timed: list[Timed], told: Callable[[Row], None]) -> None:
    """Tell hours of the default pancreas grid, their share of the floor, and of validation."""
    study, device = full(tree), tree.cases.device
    known = {arm.name: arm for arm in timed}
    scales = {name: scale(tree, name) for name in known}
    measured_at = tree.study.settings.RESOLUTION
    how = ("measured at the default size" if max(scales.values()) == 1 else
           f"extrapolated by voxels from {measured_at}³")
    fractions, arms = len(tree.defaults.FRACTIONS), tree.defaults.TASKS
    for stopped in (False, True):
        hours = [0.0, 0.0]
        total = least = 0.0
        for name, arm in known.items():
            plan = plans(study, name, stopped=stopped)
            # Every arm is finetuned at every fraction; all of them with the same step. The oracle
            # is pretrained as the baseline is trained.
            runs = fractions * len(arms) + (ORACLE in arms) if name == BASELINE else 1
            for way, step in enumerate((arm.step, arm.plain)):
                hours[way] += runs * scales[name] * (
                    plan.steps * step + plan.cases * arm.validation) / 3600
            total += runs * plan.steps
            least += runs * plan.steps * FLOOR[name] * 1e12 * arm.batch / FLOOR_CASES
        told(_hours(device, hours, total, least, stopped=stopped, how=how))
    _shares(study, known, told)


def _hours(device: torch.device, hours: list[float], total: float, least: float, *,
           stopped: bool, how: str) -> Row:
    """The row of one projection."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak, whose = next(((rate, "data sheet") for name, rate in PEAKS.items() if name in card),
                       (matrix_rate(device, torch.bfloat16 if card else torch.float32),
                        "matrix product, measured"))
    floor = least / peak / 3600
    epochs = ("each pretraining stopped at PRETEXT_MIN_STEPS + patience, the earliest" if stopped
              else "all epochs")
    on_h200 = "H200" in card and stopped
    return Row(f"default pancreas grid, one seed, {epochs}", hours[0], hours[1], "h",
               f"{HOURS[1]:.0f} h on one H200 ({HOURS[3]:.0f} h for three seeds)",
               hours[0] < HOURS[1] and 3 * hours[0] < HOURS[3] if on_h200 else None,
               f"{total:.0f} steps, one run at a time, with validation; {how}; three seeds "
               f"{3 * hours[0]:.1f} h. {100 * floor / hours[0]:.0f} % of the floor of "
               f"{floor:.2f} h ({least / 1e15:.0f} PFLOP at {peak / 1e12:.2f} TFLOP/s, {whose})",
               {"steps": total, "floor_hours": floor, "three_seeds_hours": 3 * hours[0]})


def _shares(study: Study, known: dict[str, Timed], told: Callable[[Row], None]) -> None:
    """Tell validation's share of every kind of run, from counts and measured cases."""
    for name, arm in known.items():
        plan = plans(study, name, stopped=False)
        spent = plan.cases * arm.validation
        share = 100 * spent / (spent + plan.steps * arm.step)
        what = "finetuning run" if name == BASELINE else f"pretraining run, {name}"
        told(Row(f"validation's share of a {what}", share, None, "%", f"{VALIDATION_SHARE} %",
                 share < VALIDATION_SHARE,
                 f"{plan.cases} evaluated cases of {1e3 * arm.validation:.0f} ms beside "
                 f"{plan.steps} steps of {1e3 * arm.step:.0f} ms"))
