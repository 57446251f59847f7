"""Fit and evaluate(): the only loop, for every task of both trees.

Everything random is seeded anew each epoch from (seed, purpose, epoch), the global generator too
(dropout draws from it), so that a run resumed at an epoch boundary repeats the uninterrupted one
bit for bit on the CPU without generator states being saved.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor, nn

from common.errors import InputError, RunFailed
from common.machine import parallel
from common.runs import checkpoint
from common.runs.checkpoint import handed_on
from common.runs.records import CHECKPOINT, Run
from common.tasks.batches import Cases, batches, even_chunks, generator, number
from common.tasks.contract import Batch, Scores, Task
from common.tasks.siamese import Nested, batch_norms

ADAM_EPS = 1e-7         # official code (Keras' default)
CHECKPOINT_EVERY = 60   # seconds at least between checkpoints
CHECKPOINT_SHARE = 0.02  # of the time at most, where saving is slow


@dataclass(frozen=True)
class Recipe:
    """How one run is trained; everything in it is part of the run's identity."""

    seed: int
    epochs: int                    # at most, with patience
    steps: int                     # optimiser steps an epoch
    batch_size: int
    lr: float
    schedule: str = "constant"     # of the rate; "cosine": down to 0 at the last step
    ramp: int = 0                  # steps in which the rate rises linearly to lr
    decoder: bool = False          # whether the decoder too may have been handed on
    warmup: int = 0                # epochs in which what was handed on is frozen
    start_lr_factor: float = 1.0   # rate of what was handed on, over lr
    start_norm: str = "train"      # its BatchNorm once it is free; "eval": the statistics it has
    norm_momentum: float | None = None  # of every BatchNorm; None: as it was made
    dropout: float | None = None   # of every dropout layer; None: as it was made
    clip: float | None = None      # global norm of the gradient
    validations: int | None = None  # evenly over the run; None: at the end of every epoch
    smoothing: int = 1             # validations averaged before they are compared
    patience: int | None = None    # validations without improvement before stopping
    patience_from: int = 0         # steps before which patience does not count
    draws: int = 1                 # fixed draws of every validation case
    precision: str = "float32"


@dataclass
class State:
    """What a run remembers between epochs, beside weights and optimiser."""

    epoch: int = 0
    history: list[float] | None = None   # monitored figure of every validation, higher is better
    best: float = -math.inf
    best_step: int = 0
    best_at: int = 0                     # validations made when the best was found
    best_weights: dict[str, Tensor] | None = None


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the forward pass, where the run asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class Fit:
    """One run: a model learns a task from some cases; others choose the weights that are kept.

    ``report`` is given first the steps that an earlier process has done, then those of every epoch.
    """

    def __init__(self, model: nn.Module, task: Task, cases: Cases, *, train: list[int],
                 val: list[int], run: Run, recipe: Recipe,
                 report: Callable[[int], None] = lambda steps: None) -> None:
        self.model, self.task, self.cases = model, task, cases
        self.train, self.val = train, val  # rows
        self.run, self.recipe, self.report = run, recipe, report
        for layer in batch_norms(model) if recipe.norm_momentum is not None else []:
            layer.momentum = recipe.norm_momentum
        for module in model.modules():
            if isinstance(module, nn.Dropout) and recipe.dropout is not None:
                module.p = recipe.dropout
        parallel.synchronise(model)
        self.optimiser = self._fresh_optimiser()
        self.state = State()
        self.network: nn.Module | None = None  # the model as the ranks train it
        self.saved, self.wait = time.monotonic(), float(CHECKPOINT_EVERY)
        self.spent: dict[str, float] = {}  # seconds beside the steps since the last line of times

    def start(self) -> None:
        """Go on from last.pt where there is one."""
        self.state = parallel.in_turn(self._resume)
        self.report(self.state.epoch * self.recipe.steps)

    def due(self) -> bool:
        """Whether there is another epoch to train."""
        return self.state.epoch < self.recipe.epochs and not self._out_of_patience()

    def epoch(self) -> None:
        """Train an epoch, with the validations that fall into it; keep logs and checkpoints.

        Raises RunFailed on a loss that is not finite.
        """
        begun, recipe, task, epoch = time.monotonic(), self.recipe, self.task, self.state.epoch + 1
        self._begin(epoch)
        torch.manual_seed(number(recipe.seed, task.name, "dropout", epoch, *parallel.number()))
        rng = generator(recipe.seed, f"{task.name} training", epoch)
        losses = torch.zeros(recipe.steps, device=self.cases.device)
        stream = islice(batches(self.train, recipe.batch_size, rng), recipe.steps)
        for index, rows in enumerate(stream):
            step = (epoch - 1) * recipe.steps + index + 1
            self._set_rate(step - 1)
            losses[index] = self.step(self.cases.batch(rows, labelled=task.labelled), rng)
            if _validates_at(step, recipe):
                _check_finite(losses[:index + 1], epoch, step - index, self.run)
                with self.timed("validating"):
                    self.validate(step, epoch)
                self._train_mode(frozen=epoch <= recipe.warmup)
        _check_finite(losses, epoch, (epoch - 1) * recipe.steps + 1, self.run)
        self.state.epoch = epoch
        self.run.log("log", {"epoch": epoch, "step": epoch * recipe.steps,
                             "loss": float(losses.mean())})
        self.log_time(time.monotonic() - begun)
        self.report(recipe.steps)
        with self.timed("saving"):
            self._save_now_and_then()

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Count the seconds of what is done beside the steps."""
        begun = time.monotonic()
        yield
        self.spent[what] = self.spent.get(what, 0.0) + time.monotonic() - begun

    def log_time(self, seconds: float) -> None:
        """A line of times: seconds of the epoch, of what was done beside its steps, the clock."""
        taken = {"seconds": seconds, **self.spent, "ended": time.time()}
        self.run.log("time", {"epoch": self.state.epoch, **{name: round(value, 3) for name, value
                                                            in taken.items()}})
        self.spent.clear()

    def step(self, batch: Batch, rng: Generator) -> Tensor:
        """Take one optimiser step; the loss stays on the device, so that nothing waits for it."""
        views, targets = self.task.prepare(batch, rng, training=True)
        count = len(batch.cases)
        network = self.model if self.network is None else self.network
        with autocast(batch.device, self.recipe.precision):
            outputs = network(parallel.part(views, count))
            loss = loss_of(self.task, outputs, targets, count)
        self.descend(loss)
        return loss.detach()

    def descend(self, loss: Tensor) -> None:
        """Take the optimiser's step down a loss, and what follows it."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.task.after_step(self.model)

    def validate(self, step: int, epoch: int) -> None:
        """Validate, log it, and keep the weights if the smoothed figure is the best so far."""
        task, state, recipe = self.task, self.state, self.recipe
        figures = parallel.from_first(
            lambda: evaluate(self.model, task, self.cases, self.val, recipe)[0])
        if step * 10 >= recipe.epochs * recipe.steps and (said := task.collapsed(figures)):
            raise RunFailed(f"{self.run.name}: {said} at epoch {epoch}, step {step}: the encoder "
                            "would know nothing. Try another PRETEXT_LR, a larger "
                            "PRETEXT_BATCH_SIZE, or another task; the last good checkpoint stays")
        monitored = -figures["loss"] if task.monitor == "-loss" else figures[task.monitor] or 0.0
        if not math.isfinite(monitored):
            raise RunFailed(f"{self.run.name}: validation {task.monitor} is {monitored} at epoch "
                            f"{epoch}, step {step}; the last good checkpoint stays")
        state.history = [*(state.history or []), monitored]
        recent = state.history[-recipe.smoothing:]
        smoothed = sum(recent) / len(recent)
        # Full windows only: BatchNorm's first statistics make the first epochs' outputs all alike,
        # and their loss, that of a guess, would win over a network that has begun to learn.
        full = len(recent) == recipe.smoothing or step == recipe.epochs * recipe.steps
        if full and smoothed > state.best:
            state.best, state.best_step, state.best_at = smoothed, step, len(state.history)
            state.best_weights = checkpoint.weights(self.model)
        self.run.log("log", {"epoch": epoch, "step": step, "val": figures})

    def _begin(self, epoch: int) -> None:
        """Freeze or free what was handed on; where it is freed the optimiser starts anew."""
        frozen = epoch <= self.recipe.warmup
        self._train_mode(frozen=frozen)
        if epoch == self.recipe.warmup + 1 and self.recipe.warmup:
            self.optimiser = self._fresh_optimiser()  # its moments of what was frozen are none
            self.network = None
        if self.network is None:
            self.network = parallel.wrapped(self.model)

    def _train_mode(self, *, frozen: bool) -> None:
        """Training mode; what is frozen gets no gradient, and its BatchNorm stays in evaluation."""
        self.model.train()
        for part in handed_on(self.model, decoder=self.recipe.decoder):
            part.train(not frozen)
            part.requires_grad_(not frozen)
            if self.recipe.start_norm == "eval":
                for layer in batch_norms(part):
                    layer.eval()

    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        """Adam; what may have been handed on has a rate of its own."""
        recipe, parts = self.recipe, handed_on(self.model, decoder=self.recipe.decoder)
        first = dict.fromkeys(weight for part in parts for weight in part.parameters())
        rest = [weight for weight in self.model.parameters() if weight not in first]
        groups: list[dict[str, Any]] = [
            {"params": weights, "lr": rate, "initial_lr": rate} for weights, rate in
            ((list(first), recipe.lr * recipe.start_lr_factor), (rest, recipe.lr)) if weights]
        return torch.optim.Adam(groups, lr=recipe.lr, eps=ADAM_EPS, fused=True)

    def _set_rate(self, done: int) -> None:
        """Give every group its rate after ``done`` steps. Cosine: Loshchilov and Hutter 2017."""
        recipe = self.recipe
        if recipe.schedule != "cosine" and not recipe.ramp:
            return
        share = done / (recipe.epochs * recipe.steps)
        factor = (1 + math.cos(math.pi * share)) / 2 if recipe.schedule == "cosine" else 1.0
        if done < recipe.ramp:
            factor *= (done + 1) / (recipe.ramp + 1)
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _out_of_patience(self) -> bool:
        state, recipe = self.state, self.recipe
        if recipe.patience is None or state.epoch * recipe.steps < recipe.patience_from:
            return False
        counted_from = max(state.best_at, math.ceil(recipe.patience_from / recipe.steps))
        return len(state.history or []) - counted_from >= recipe.patience

    def _more(self) -> dict[str, nn.Module]:
        """What else a resumed run has to have again, by name."""
        return {}

    def _save_now_and_then(self) -> None:
        """Write last.pt at the end, and before it as often as it costs little."""
        begun = time.monotonic()
        if not parallel.leads() or (self.due() and begun - self.saved <= self.wait):
            return
        checkpoint.save(self.run.folder / CHECKPOINT, {"model": self.model.state_dict(),
                                                      "optimiser": self.optimiser.state_dict(),
                                                      "state": vars(self.state),
                                                      **{name: part.state_dict() for name, part
                                                         in self._more().items()}})
        self.saved = time.monotonic()
        self.wait = max(self.wait, (self.saved - begun) / CHECKPOINT_SHARE)

    def _resume(self) -> State:
        """The state in last.pt, if it is there and sound; the logs are cut back to its epoch.

        A damaged last.pt is named and moved aside, and the run starts anew.
        """
        state, path = State(), self.run.folder / CHECKPOINT
        if path.exists():
            initial, unused = checkpoint.weights(self.model), self.optimiser.state_dict()
            more = {name: checkpoint.weights(part) for name, part in self._more().items()}
            try:
                saved = checkpoint.load(path, self.cases.device)
                self.model.load_state_dict(saved["model"])
                self.optimiser.load_state_dict(saved["optimiser"])
                for name, part in self._more().items():
                    part.load_state_dict(saved[name])
                state = State(**saved["state"])
            except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
                path.replace(aside := path.with_name(f"{CHECKPOINT}.damaged"))
                print(f"warning: {path}: damaged ({' '.join(str(error).split())[:150]}); moved to "
                      f"{aside.name}, this run starts anew", file=sys.stderr)
                self.model.load_state_dict(initial)
                self.optimiser.load_state_dict(unused)
                for name, part in self._more().items():
                    part.load_state_dict(more[name])
        for name in ("log", "time"):
            self.run.cut_log(name, state.epoch)
        return state


def loss_of(task: Task, outputs: Nested, targets: Nested, cases: int) -> Tensor:
    """The loss of the whole batch of ``cases``, from this rank's outputs and all targets."""
    if parallel.ranks() == 1:
        return task.loss(outputs, targets)
    sums = task.sums(outputs, parallel.part(targets, cases))
    if sums is not None:
        return task.loss_of_sums(parallel.total(sums))
    return task.loss(parallel.whole(outputs, cases), targets)


def evaluate(model: nn.Module, task: Task, cases: Cases, rows: list[int],
             recipe: Recipe) -> tuple[dict[str, Any], Scores]:
    """Figures over ``rows``: those task.summarise() makes and the mean loss; and per-case scores.

    The same views every time: chance comes from (seed, "validation") and the order is fixed.
    """
    model.eval()
    rng = generator(recipe.seed, f"{task.name} validation")
    total = torch.zeros((), dtype=torch.float64, device=cases.device)
    parts: dict[str, list[Tensor]] = {}
    with torch.inference_mode():
        for _ in range(recipe.draws):
            for chunk in even_chunks(rows, recipe.batch_size):
                batch = cases.batch(chunk, labelled=task.labelled)
                views, targets = task.prepare(batch, rng, training=False)
                with autocast(cases.device, recipe.precision):
                    outputs = model(views)
                    total += task.loss(outputs, targets).double() * len(chunk)
                for name, values in task.score(outputs, targets).items():
                    parts.setdefault(name, []).append(values)
    scores = {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}
    loss = float(total) / (recipe.draws * len(rows))
    return {**task.summarise(scores), "loss": loss}, scores


def _validates_at(step: int, recipe: Recipe) -> bool:
    """Whether a validation is due after ``step``."""
    if recipe.validations is None:
        return step % recipe.steps == 0
    total = recipe.epochs * recipe.steps
    count = min(recipe.validations, total)
    return step * count // total > (step - 1) * count // total


def _check_finite(losses: Tensor, epoch: int, first_step: int, run: Run) -> None:
    """Stop the run at the first loss that is not finite; one wait for the device an epoch."""
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise RunFailed(f"{run.name}: the loss is not finite at epoch {epoch}, step "
                        f"{first_step + int(bad[0])}; the last good checkpoint stays")
