"""fit() and evaluate(): the only loop, for every task of both trees.

Everything random is seeded anew each epoch from (seed, purpose, epoch), the global generator too
(dropout draws from it), so that a run resumed at an epoch boundary repeats the uninterrupted one
bit for bit on the CPU without generator states being saved.
"""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor, nn

from common.errors import InputError, RunFailed
from common.machine import parallel
from common.machine.devices import send
from common.runs import checkpoint
from common.runs.records import Run
from common.tasks.contract import Batch, Nested, Scores, Summed, Task

ADAM_EPS = 1e-7         # official code (Keras' default)
CHECKPOINT_EVERY = 60   # seconds at least between checkpoints
CHECKPOINT_SHARE = 0.02  # of the time at most, where saving is slow


@dataclass(frozen=True)
class Cases:
    """Preprocessed cases: images (N, C, *space), labels of the first rows or None, ids of rows."""

    images: Tensor
    labels: Tensor | None
    ids: list[str]
    device: torch.device

    def rows(self, ids: Sequence[str]) -> list[int]:
        """Row numbers of case ids, in their order."""
        place = {case: row for row, case in enumerate(self.ids)}
        return [place[case] for case in ids]

    def batch(self, rows: list[int], *, labelled: bool) -> Batch:
        """The images of rows, and their labels gathered on the device."""
        labels = None
        if labelled and self.labels is not None:
            labels = send(torch.stack([self.labels[row] for row in rows]), self.device)
        return Batch([self.images[row] for row in rows], labels, rows, self.device)


@dataclass(frozen=True)
class Recipe:
    """How one run is trained; everything in it is part of the run's identity."""

    seed: int
    epochs: int                    # at most, with patience
    steps: int                     # optimiser steps an epoch
    batch_size: int
    lr: float
    schedule: str = "constant"     # of the rate; "cosine": down to 0 at the last step
    warmup: int = 0                # epochs with a frozen encoder
    start_lr_factor: float = 1.0   # rate of the encoder over lr
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


def generator(seed: int, purpose: str, epoch: int = 0) -> Generator:
    """A CPU generator that depends on nothing but its arguments."""
    return torch.Generator().manual_seed(_number(seed, purpose, epoch))


def _number(*parts: object) -> int:
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the forward pass, where the run asks for it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def fit(model: nn.Module, task: Task, cases: Cases, *, train: list[int], val: list[int], run: Run,
        recipe: Recipe, report: Callable[[int], None]) -> State:
    """Train ``model`` and return the state that holds the weights chosen on validation.

    Goes on from last.pt where there is one; the model ends with its final weights. ``report`` is
    given first the steps that an earlier process has done, then those done since it was last
    called. Raises RunFailed on a non-finite loss.
    """
    parallel.synchronise(model)
    optimiser = _optimiser(model, recipe)
    state = parallel.in_turn(lambda: _resume(model, optimiser, run, cases.device))
    report(state.epoch * recipe.steps)
    network: nn.Module | None = None
    saved, wait = time.monotonic(), float(CHECKPOINT_EVERY)
    for epoch in range(state.epoch + 1, recipe.epochs + 1):
        if _out_of_patience(state, recipe):
            break
        if epoch == recipe.warmup + 1 and recipe.warmup:
            optimiser = _optimiser(model, recipe)  # fresh: the encoder's moments start with it
        if network is None or epoch == recipe.warmup + 1:
            _train_mode(model, frozen=epoch <= recipe.warmup)
            network = parallel.wrapped(model)
        started = time.monotonic()
        _train_epoch(epoch, model, network, task, cases, train, val, run, recipe, optimiser, state)
        run.log("time", {"epoch": epoch, "seconds": round(time.monotonic() - started, 3)})
        report(recipe.steps)
        last = epoch == recipe.epochs or _out_of_patience(state, recipe)
        if parallel.leads() and (last or time.monotonic() - saved > wait):
            begun = time.monotonic()
            _save(model, optimiser, run, state)
            saved = time.monotonic()
            wait = max(wait, (saved - begun) / CHECKPOINT_SHARE)
    return state


def _train_epoch(epoch: int, model: nn.Module, network: nn.Module, task: Task, cases: Cases,
                 train: list[int], val: list[int], run: Run, recipe: Recipe,
                 optimiser: torch.optim.Optimizer, state: State) -> None:
    """One epoch of recipe.steps steps, with the validations that fall into it, and its log."""
    torch.manual_seed(_number(recipe.seed, task.name, "dropout", epoch, *parallel.number()))
    rng = generator(recipe.seed, f"{task.name} training", epoch)
    frozen = epoch <= recipe.warmup
    _train_mode(model, frozen=frozen)
    losses = torch.zeros(recipe.steps, device=cases.device)
    stream = islice(batches(train, recipe.batch_size, rng), recipe.steps)
    for index, rows in enumerate(stream):
        batch = cases.batch(rows, labelled=task.labelled)
        step = (epoch - 1) * recipe.steps + index + 1
        _set_rate(optimiser, recipe, step - 1)
        losses[index] = _step(network, task, batch, rng, recipe, optimiser)
        if _validates_at(step, recipe):
            _check_finite(losses[:index + 1], epoch, step - index, run)
            _validate(step, model, task, cases, val, run, recipe, state, epoch)
            _train_mode(model, frozen=frozen)
    _check_finite(losses, epoch, (epoch - 1) * recipe.steps + 1, run)
    state.epoch = epoch
    run.log("log", {"epoch": epoch, "step": epoch * recipe.steps, "loss": float(losses.mean())})


def _step(model: nn.Module, task: Task, batch: Batch, rng: Generator, recipe: Recipe,
          optimiser: torch.optim.Optimizer) -> Tensor:
    """One optimiser step; the loss stays on the device, so that nothing waits for it."""
    views, targets = task.prepare(batch, rng, training=True)
    with autocast(batch.device, recipe.precision):
        outputs = model(parallel.part(views, len(batch.cases)))
        loss = _loss(task, outputs, targets, len(batch.cases))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimiser.step()
    return loss.detach()


def _loss(task: Task, outputs: Nested, targets: Nested, cases: int) -> Tensor:
    """The loss of the whole batch of ``cases``, from this rank's outputs and all targets."""
    if parallel.ranks() == 1:
        return task.loss(outputs, targets)
    if isinstance(task, Summed):
        return task.loss_of_sums(parallel.total(task.sums(outputs, parallel.part(targets, cases))))
    return task.loss(parallel.whole(outputs, cases), targets)


def _validate(step: int, model: nn.Module, task: Task, cases: Cases, val: list[int], run: Run,
              recipe: Recipe, state: State, epoch: int) -> None:
    """Validate, log it, and keep the weights if the smoothed figure is the best so far."""
    figures = parallel.from_first(lambda: evaluate(model, task, cases, val, recipe)[0])
    monitored = -figures["loss"] if task.monitor == "-loss" else figures[task.monitor] or 0.0
    if not math.isfinite(monitored):
        raise RunFailed(f"{run.name}: validation {task.monitor} is {monitored} at epoch {epoch}, "
                        f"step {step}; the last good checkpoint stays")
    state.history = [*(state.history or []), monitored]
    recent = state.history[-recipe.smoothing:]
    smoothed = sum(recent) / len(recent)
    # Full windows only: BatchNorm's first statistics make the first epochs' outputs all alike, and
    # their loss, that of a guess, would win over a network that has begun to learn.
    full = len(recent) == recipe.smoothing or step == recipe.epochs * recipe.steps
    if full and smoothed > state.best:
        state.best, state.best_step, state.best_at = smoothed, step, len(state.history)
        state.best_weights = checkpoint.weights(model)
    run.log("log", {"epoch": epoch, "step": step, "val": figures})


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


def batches(rows: Sequence[int], size: int, rng: Generator) -> Iterator[list[int]]:
    """Yield full batches for ever, pass after pass, each pass in a new random order.

    The last batch of a pass is filled from the start of the same order, so that no case is twice
    in a batch; a set smaller than ``size`` is one batch. Raises InputError under 2 cases.
    """
    if len(rows) < 2:
        raise InputError(f"{len(rows)} training case: BatchNorm and negatives need at least 2; "
                         "add cases or raise the fraction")
    size = min(size, len(rows))
    while True:
        order = [rows[i] for i in torch.randperm(len(rows), generator=rng).tolist()]
        for start in range(0, len(rows), size):
            batch = order[start:start + size]
            yield batch + order[:size - len(batch)]


def even_chunks(rows: list[int], size: int) -> list[list[int]]:
    """Cut rows into chunks of about equal length, none over ``size``; and none of one case.

    (Three rows at size 2 make one chunk of three: an exemplar needs another case beside it.)
    """
    count = max(1, min(math.ceil(len(rows) / size), len(rows) // 2))
    edges = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def _validates_at(step: int, recipe: Recipe) -> bool:
    """Whether a validation is due after ``step``."""
    if recipe.validations is None:
        return step % recipe.steps == 0
    total = recipe.epochs * recipe.steps
    count = min(recipe.validations, total)
    return step * count // total > (step - 1) * count // total


def _train_mode(model: nn.Module, *, frozen: bool) -> None:
    """Training mode; a frozen encoder gets no gradient and its BatchNorm stays in evaluation."""
    model.train()
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    encoder.train(not frozen)
    encoder.requires_grad_(not frozen)


def _optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam; the encoder, which may have been handed on, has a rate of its own."""
    assert isinstance(model.encoder, nn.Module)
    handed_on = dict.fromkeys(model.encoder.parameters())  # in their order, and quick to look up
    rest = [weight for weight in model.parameters() if weight not in handed_on]
    groups: list[dict[str, Any]] = [
        {"params": list(handed_on), "initial_lr": recipe.lr * recipe.start_lr_factor},
        {"params": rest, "initial_lr": recipe.lr}]
    groups = [{**group, "lr": group["initial_lr"]} for group in groups]
    return torch.optim.Adam(groups, lr=recipe.lr, eps=ADAM_EPS, fused=True)


def _set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, done: int) -> None:
    """Give every group its rate after ``done`` steps. Cosine: Loshchilov and Hutter 2017."""
    if recipe.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done / (recipe.epochs * recipe.steps))) / 2
        for group in optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor


def _check_finite(losses: Tensor, epoch: int, first_step: int, run: Run) -> None:
    """Stop the run at the first loss that is not finite; one wait for the device an epoch."""
    bad = (~torch.isfinite(losses)).nonzero()
    if len(bad):
        raise RunFailed(f"{run.name}: the loss is not finite at epoch {epoch}, step "
                        f"{first_step + int(bad[0])}; the last good checkpoint stays")


def _out_of_patience(state: State, recipe: Recipe) -> bool:
    if recipe.patience is None or state.epoch * recipe.steps < recipe.patience_from:
        return False
    counted_from = max(state.best_at, math.ceil(recipe.patience_from / recipe.steps))
    return len(state.history or []) - counted_from >= recipe.patience


def _save(model: nn.Module, optimiser: torch.optim.Optimizer, run: Run, state: State) -> None:
    checkpoint.save(run.folder / "last.pt", {"model": model.state_dict(),
                                             "optimiser": optimiser.state_dict(),
                                             "state": vars(state)})


def _resume(model: nn.Module, optimiser: torch.optim.Optimizer, run: Run,
            device: torch.device) -> State:
    """Go on from last.pt if it is there and sound; the logs are cut back to its epoch.

    A damaged last.pt is named and moved aside, and the run starts anew.
    """
    state = State()
    path = run.folder / "last.pt"
    if path.exists():
        initial, unused = checkpoint.weights(model), optimiser.state_dict()
        try:
            saved = checkpoint.load(path, device)
            model.load_state_dict(saved["model"])
            optimiser.load_state_dict(saved["optimiser"])
            state = State(**saved["state"])
        except (InputError, RuntimeError, KeyError, TypeError, ValueError) as error:
            path.replace(path.with_name("last.pt.damaged"))
            print(f"warning: {path}: damaged ({' '.join(str(error).split())[:150]}); moved to "
                  "last.pt.damaged, this run starts anew", file=sys.stderr)
            model.load_state_dict(initial)
            optimiser.load_state_dict(unused)
    for name in ("log", "time"):
        run.cut_log(name, state.epoch)
    return state
