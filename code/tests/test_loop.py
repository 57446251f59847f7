"""What fit() and evaluate() promise: which batches, which weights, when; whose score is whose."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fit
from torch import Tensor, nn

from common.runs import records, training
from common.runs.records import Run
from common.runs.stages import last_and_best
from common.runs.training import Fit, Recipe, State, evaluate
from common.tasks.batches import Cases
from common.tasks.contract import Batch, Task

RECIPE = Recipe(seed=3, epochs=3, steps=4, batch_size=2, lr=1e-2)
TRAIN, VAL = list(range(7)), [7, 8, 9]


class Net(nn.Module):
    """A weight in the encoder, one behind it; remembers the modes it was called in."""
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.decoder = nn.Linear(3, 1)
        self.modes: list[tuple[bool, bool, bool]] = []
        nn.init.constant_(self.encoder[0].weight, 0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        first = self.encoder[0].weight
        self.modes.append((self.training, self.encoder.training, bool(first.requires_grad)))
        out: Tensor = self.decoder(self.encoder(x.flatten(1)[:, :1]))
        return out


class Watched(Task):
    """Regression that writes down every batch; its validation figures can be given in advance."""

    name, labelled, monitor = "watched", True, "figure"

    def __init__(self, figures: list[float | None] | None = None, scale: float = 1.0) -> None:
        self.figures = figures
        self.scale = scale
        self.trained: list[list[int]] = []
        self.evaluated: list[tuple[list[int], float]] = []

    def prepare(self, batch: Batch, rng: torch.Generator, *,
                training: bool) -> tuple[Tensor, Tensor]:
        drawn = float(torch.rand(1, generator=rng))
        if training:
            self.trained.append(batch.cases)
        else:
            self.evaluated.append((batch.cases, drawn))
        assert batch.labels is not None
        return batch.images, batch.labels.float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.scale * (outputs.flatten() - targets).square().mean()

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"truth": targets, "output": outputs.flatten()}

    def summarise(self, scores: dict[str, Any]) -> dict[str, Any]:
        return {"figure": self.figures.pop(0) if self.figures else 0.0}


def cases(count: int = 10) -> Cases:
    images = torch.arange(float(count)).view(-1, 1, 1, 1) / count
    return Cases(images, torch.arange(count), [f"c{i}" for i in range(count)], torch.device("cpu"))


def run_in(folder: Path, name: str = "a") -> Run:
    run = Run(folder / "finetune" / name / "fraction100" / "seed0", {"stage": "finetune"})
    run.start({})
    return run


def fitted(folder: Path, task: Watched, recipe: Recipe = RECIPE, net: Net | None = None,
           **given: Any) -> tuple[Net, State]:
    torch.manual_seed(0)
    net = net or Net()
    run = given.get("run") or run_in(folder)
    state = fit(net, task, cases(), train=TRAIN, val=VAL, run=run, recipe=recipe,
                report=given.get("report", lambda steps: None))
    return net, state


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


# Batches.

def test_every_epoch_draws_other_batches_and_every_case_comes(tmp_path: Path) -> None:
    task = Watched()
    fitted(tmp_path, task)
    epochs = [task.trained[4 * e:4 * e + 4] for e in range(3)]
    assert len({str(batches) for batches in epochs}) == 3
    for batches in epochs:  # 7 cases in 4 batches of 2: the last is filled from the first
        assert {case for batch in batches for case in batch} == set(TRAIN)
        assert all(len(set(batch)) == 2 for batch in batches)
        assert batches[3][1] == batches[0][0]


def test_another_seed_draws_other_batches_and_the_same_the_same(tmp_path: Path) -> None:
    tasks = [Watched() for _ in range(3)]
    for name, seed, task in zip("abc", (3, 3, 4), tasks, strict=True):
        fitted(tmp_path, task, replace(RECIPE, seed=seed), run=run_in(tmp_path, name))
    assert tasks[0].trained == tasks[1].trained != tasks[2].trained


# Validation and the choice of the weights.

@pytest.mark.parametrize(("validations", "at"), [
    (None, [4, 8, 12]), (4, [3, 6, 9, 12]), (5, [3, 5, 8, 10, 12]), (1, [12]),
    (50, list(range(1, 13)))])
def test_validations_are_evenly_spread_and_see_the_validation_cases(
        tmp_path: Path, validations: int | None, at: list[int]) -> None:
    task = Watched()
    fitted(tmp_path, task, replace(RECIPE, validations=validations))
    log = records.read_log(run_in(tmp_path).folder)
    assert [line["step"] for line in log if "val" in line] == at
    assert {case for rows, _ in task.evaluated for case in rows} == set(VAL)
    assert [line["step"] for line in log if "val" not in line] == [4, 8, 12]
    assert len(task.trained) == 12


@pytest.mark.parametrize(("figures", "smoothing", "best"), [
    ([0.1, 0.9, 0.3, 0.8], 1, 2), ([0.1, 0.9, 0.9, 0.2], 1, 2), ([None, 0.2, 0.1, None], 1, 2),
    ([-3.0, -1.0, -2.0, -2.5], 1, 2), ([0.9, 0.1, 0.5, 0.6], 2, 4), ([0.6, 0.5, 0.1, 0.7], 2, 2),
    ([0.9, 0.1, 0.2, 0.3], 9, 4)])  # fewer than a window: the last
def test_the_weights_kept_are_those_of_the_best_smoothed_validation(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: list[float | None],
        smoothing: int, best: int) -> None:
    made: list[dict[str, Tensor]] = []
    real = training.evaluate

    def watched(model: nn.Module, *rest: Any) -> Any:
        made.append({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *rest)
    monkeypatch.setattr(training, "evaluate", watched)
    net, state = fitted(tmp_path, Watched(list(figures)),
                        replace(RECIPE, validations=4, smoothing=smoothing))
    assert state.best_step == 3 * best and state.best_weights is not None
    assert equal(state.best_weights, made[best - 1])
    assert state.history == [figure or 0.0 for figure in figures]
    if best < 4:
        assert not equal(state.best_weights, net.state_dict())  # which has gone on


def test_a_task_without_a_figure_of_its_own_is_chosen_by_the_lowest_loss(tmp_path: Path) -> None:
    task = Watched()
    task.monitor = "-loss"  # type: ignore[misc]
    _, state = fitted(tmp_path, task)
    losses = [line["val"]["loss"] for line in records.read_log(run_in(tmp_path).folder)
              if "val" in line]
    assert state.history == [-loss for loss in losses]
    assert state.best == -min(losses) and state.best_step == 4 * (losses.index(min(losses)) + 1)


@pytest.mark.parametrize(("start", "epochs"), [(0, 5), (20, 8)])
def test_patience_counts_validations_without_a_better_one(tmp_path: Path, start: int,
                                                          epochs: int) -> None:
    figures: list[float | None] = [0.5, 0.6, *[0.1] * 30]
    _, state = fitted(tmp_path, Watched(figures), replace(RECIPE, epochs=30, patience=3,
                                                          patience_from=start))
    assert (state.epoch, state.best_step) == (epochs, 8)


# Training.

def test_training_goes_on_in_training_mode_after_a_validation(tmp_path: Path) -> None:
    net, _ = fitted(tmp_path, Watched(), replace(RECIPE, validations=12))
    assert net.modes == [(True, True, True), (False, False, True)] * 12


def test_warm_up_freezes_the_encoder_for_its_epochs_and_not_longer(tmp_path: Path) -> None:
    before = Net()
    net, _ = fitted(tmp_path, Watched(), replace(RECIPE, warmup=2))
    trained = [mode for mode in net.modes if mode[0]]
    assert trained == [(True, False, False)] * 8 + [(True, True, True)] * 4
    frozen = Net()
    frozen.load_state_dict(before.state_dict())
    start = {name: value.clone() for name, value in frozen.state_dict().items()}
    fitted(tmp_path, Watched(), replace(RECIPE, epochs=2, warmup=2), frozen,
           run=run_in(tmp_path, "b"))
    after = frozen.state_dict()
    assert all(torch.equal(after[name], start[name]) for name in after if "encoder" in name)
    assert not torch.equal(after["decoder.weight"], start["decoder.weight"])


def test_dropout_is_another_in_every_epoch_and_for_every_seed(tmp_path: Path) -> None:
    def masks(name: str, seed: int) -> list[str]:
        net, seen = Net(), []
        net.encoder[2].register_forward_hook(lambda layer, given, out: seen.append(
            str((out != 0).tolist())) if layer.training else None)
        fitted(tmp_path, Watched(), replace(RECIPE, seed=seed), net, run=run_in(tmp_path, name))
        return ["".join(seen[4 * epoch:4 * epoch + 4]) for epoch in range(3)]
    first = masks("a", 3)
    assert len(set(first)) == 3 and first == masks("b", 3) and first != masks("c", 4)


# Stopping and going on.

@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_goes_on_from_its_last_checkpoint_bit_for_bit(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
    monkeypatch.setattr(training, "CHECKPOINT_SHARE", 1e9)  # after every epoch
    recipe = replace(RECIPE, epochs=5, warmup=2, validations=7, smoothing=2)
    figures: list[float | None] = [0.1, 0.5, 0.2, 0.9, 0.3, 0.2, 0.1]
    whole, state = fitted(tmp_path, Watched(list(figures)), recipe)
    run = run_in(tmp_path, "parts")
    steps: list[int] = []

    def interrupt(done: int) -> None:
        steps.append(done)
        if sum(steps) == 4 * (stop + 1):
            raise KeyboardInterrupt  # trained and logged, not saved
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, Watched(list(figures)), recipe, run=run, report=interrupt)
    saved = torch.load(run.folder / "last.pt", weights_only=True)
    assert saved["state"]["epoch"] == stop
    left = figures[len(saved["state"]["history"] or []):]
    torch.manual_seed(99)  # whatever the process has drawn before has no part in it
    task = Watched(left)
    torch.rand(7)
    net = Net()
    steps.clear()
    other = fit(net, task, cases(), train=TRAIN, val=VAL, run=run, recipe=recipe,
                report=steps.append)
    assert steps == [4 * stop] + [4] * (5 - stop)
    assert len(task.trained) == 4 * (5 - stop)
    assert equal(whole.state_dict(), net.state_dict())
    assert equal(state.best_weights, other.best_weights) and state.history == other.history
    assert (state.best_step, state.best_at, state.best) == (other.best_step, other.best_at,
                                                            other.best)
    logs = [(one.folder / "log.jsonl").read_text() for one in (run_in(tmp_path), run)]
    assert logs[0] == logs[1]
    times = records.read_log(run.folder, "time")
    assert [line["epoch"] for line in times] == [1, 2, 3, 4, 5]


# Evaluation.

def test_every_score_is_that_of_its_own_case_in_the_order_asked_for() -> None:
    rows = [9, 2, 5, 0, 7]
    for size in (2, 3, 5):
        net = nn.Module()
        net.forward = lambda x: 10 * x.flatten(1)  # type: ignore[method-assign,assignment]
        figures, scores = evaluate(net, Watched(), cases(), rows, replace(RECIPE, batch_size=size))
        assert scores["truth"].tolist() == rows
        assert scores["output"].tolist() == pytest.approx(rows)
        assert figures["loss"] == pytest.approx(0, abs=1e-10)


def test_the_loss_is_the_mean_over_cases_although_the_batches_are_uneven() -> None:
    rows = [1, 2, 3, 4, 8]
    net = nn.Module()
    net.forward = lambda x: 0 * x.flatten(1)  # type: ignore[method-assign,assignment]
    for size in (2, 3, 4, 5):
        figures, _ = evaluate(net, Watched(), cases(), rows, replace(RECIPE, batch_size=size))
        assert figures["loss"] == pytest.approx(np.mean(np.square(rows)))


def test_evaluation_is_the_same_every_time_and_changes_nothing() -> None:
    net, task = Net(), Watched()
    net(torch.rand(4, 1, 1, 1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    recipe = replace(RECIPE, draws=3)
    first, _ = evaluate(net.train(), task, cases(), VAL, recipe)
    torch.manual_seed(1)
    second, scores = evaluate(net.train(), task, cases(), VAL, recipe)
    assert first == second and equal(before, net.state_dict())
    half = len(task.evaluated) // 2
    assert task.evaluated[:half] == task.evaluated[half:]
    assert scores["truth"].tolist() == VAL * 3  # fixed draws of every case
    drawn = [draw for _, draw in task.evaluated[:half]]
    assert len(set(drawn)) == len(drawn)  # each another view
    task.evaluated.clear()
    evaluate(net, task, cases(), VAL, replace(recipe, seed=4))
    assert [draw for _, draw in task.evaluated] != drawn


# What is scored at the end.

@pytest.mark.parametrize(("figures", "runs"), [([0.1, 0.2, 0.3], 1), ([0.1, 0.3, 0.2], 2)])
def test_chosen_weights_that_are_the_last_are_not_run_again(
        figures: list[float | None], runs: int, tmp_path: Path) -> None:
    task, net = Watched(figures), Net()
    one = Fit(net, task, cases(), train=TRAIN, val=VAL, run=run_in(tmp_path), recipe=RECIPE)
    while one.due():
        one.epoch()
    task.evaluated.clear()
    trained = {name: value.clone() for name, value in net.state_dict().items()}
    last, best = last_and_best(one, {"test": [0, 1], "val": VAL})
    assert [*last] == [*best] == ["test", "val"]
    assert sum(len(some) for some, _ in task.evaluated) == runs * (2 + len(VAL))
    assert equal(net.state_dict(), one.state.best_weights)
    same = all(np.array_equal(last[part][1]["output"], best[part][1]["output"]) for part in last)
    assert same == (runs == 1) == equal(net.state_dict(), trained)
