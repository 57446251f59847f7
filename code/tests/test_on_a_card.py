"""Every task, the loop and both commands on a machine with a card; fake_card.py is the card."""

import importlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_card
import pytest
import torch
from commands import TINY, Result, call, fit
from fake_card import CARD, CPU, Machine
from test_contract import TASKS, TREES, batch_of, encoder_of, parts_of, task_of
from torch import Tensor, nn

from common.data import cache as arrays
from common.downstream.classification import Classification
from common.downstream.grading import Grading
from common.downstream.segmentation import Segmentation
from common.errors import RunFailed
from common.machine import devices
from common.runs import checkpoint, training
from common.runs.records import Run, SilentRun
from common.runs.training import Recipe
from common.schedule import workers
from common.tasks import augment
from common.tasks.batches import Cases, generator
from common.tasks.contract import Batch

ALL = [*TASKS, ("3d", "segmentation"), ("2d", "grading"), ("2d", "classification")]
RECIPE = Recipe(seed=3, epochs=3, steps=2, batch_size=2, lr=1e-3, clip=1.0, warmup=1)


@pytest.fixture(name="machine")
def one_card() -> Iterator[Machine]:
    with fake_card.machine() as made:
        yield made


# Every task.


def cases_of(tree: str, device: torch.device, *, held: torch.device, side: int = 0) -> Cases:
    """Six cases for ``device`` as the cache has them, float16 volumes or uint8 photographs."""
    dimensions, usual, channels = TREES[tree]
    side = side or usual
    images = torch.rand(6, channels, *(side,) * dimensions, generator=generator(0, "images"))
    labels = (images[:, 0] > 0.5).byte() if tree == "3d" else torch.arange(6) % 5
    stored = images.half() if tree == "3d" else (images * 255).byte()
    return Cases(stored.to(held), labels.to(held), [f"case_{i}" for i in range(6)], device)


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """An augmentation such as 2d/exp.py has."""
    return augment.resample(images, augment.flips(len(images), 2, rng))


def model_and_task(tree: str, name: str) -> tuple[nn.Module, Any]:
    """A small network on the CPU; every dropout draws its numbers as on a card."""
    torch.manual_seed(0)
    encoder, networks = encoder_of(tree), importlib.import_module(f"{tree}.model")
    task: Any
    if name == "segmentation":
        model, task = networks.UNet(encoder, 2), Segmentation(["background", "organ"])
    elif name in ("grading", "classification"):
        model = networks.Grader(encoder, 5)
        task = (Grading if name == "grading" else Classification)(5, flipped)
    else:
        task = _task(tree, name)
        views, _ = task.prepare(batch_of(tree), generator(0, "views"), training=False)
        model = task.network(parts_of(encoder, views))
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.4  # not one half, for which 3d/model.py has another way on the CPU
    return model, task


_task = cache(task_of)  # a jigsaw chooses its permutations, which takes a while


def step(tree: str, name: str, cases: Cases, recipe: Recipe) -> tuple[nn.Module, Any, Tensor]:
    """Take one optimiser step on ``cases``, with the product's own code."""
    model, task = model_and_task(tree, name)
    model.to(cases.device)
    fit = fit_of(model, task, cases, recipe)
    machine = getattr(next(model.parameters()), "machine", None)
    if machine is not None:
        machine.waits.clear()  # those of the moves
    batch = cases.batch([0, 1, 2], labelled=task.labelled)
    return model, task, fit.step(batch, generator(0, "x"))


def fit_of(model: nn.Module, task: Any, cases: Cases, recipe: Recipe) -> training.Fit:
    """What takes steps; no run of it is on disk."""
    return training.Fit(model, task, cases, train=[0, 1, 2], val=[3, 4, 5],
                        run=SilentRun(Path(), {}), recipe=recipe)


@cache
def on_the_cpu(tree: str, name: str) -> tuple[float, dict[str, Any], dict[str, list[Any]]]:
    """The loss of the step, and the figures and scores after it."""
    cases = cases_of(tree, CPU, held=CPU)
    model, task, loss = step(tree, name, cases, RECIPE)
    figures, scores = training.evaluate(model, task, cases, [2, 3, 4, 5], RECIPE)
    return float(loss), figures, {key: value.tolist() for key, value in scores.items()}


@pytest.mark.parametrize(("tree", "name"), ALL)
@pytest.mark.parametrize("held", [CARD, CPU], ids=["card", "host"])
def test_a_task_trains_on_a_card_without_a_wait_and_as_on_the_cpu(
        tree: str, name: str, held: torch.device) -> None:
    loss, figures, scores = on_the_cpu(tree, name)
    with fake_card.machine() as machine:
        cases = cases_of(tree, CARD, held=held)
        model, task, on_card = step(tree, name, cases, RECIPE)
        assert machine.waits == [] and on_card.device == CARD
        assert all(p.device == CARD == p.grad.device for p in model.parameters()
                   if p.grad is not None)
        assert float(on_card) == pytest.approx(loss, abs=1e-6)
        machine.waits.clear()
        own, each = training.evaluate(model, task, cases, [2, 3, 4, 5], RECIPE)  # steps have moved
        assert own["loss"] == pytest.approx(figures["loss"], abs=1e-6)
        assert {key: value.tolist() for key, value in each.items()} == scores
        # The loss and each kind of score are fetched once; a table of classes counts its cases.
        fetches = ["copy to the CPU"] * len(scores) + ["item"]
        assert machine.kinds() == ["bincount"] * (4 * ("confusion" in scores)) + fetches


@pytest.mark.parametrize(("tree", "name"), [
    (tree, name) for tree, name in ALL  # the joint arms have every plain task in them
    if "+" in name or "_" in name or name in ("segmentation", "grading", "classification")])
def test_a_task_trains_on_a_card_in_bfloat16(tree: str, name: str, machine: Machine) -> None:
    cases = cases_of(tree, CARD, held=CARD)
    _, _, loss = step(tree, name, cases, replace(RECIPE, precision="bfloat16"))
    assert machine.waits == [] and machine.precisions == [torch.bfloat16]
    assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_activation_checkpointing_works_on_a_card(machine: Machine) -> None:
    networks, task = importlib.import_module("3d.model"), Segmentation(["background", "organ"])
    cases, losses = cases_of("3d", CARD, held=CARD), []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = networks.UNet(networks.Encoder(1, 4, 1, checkpointing=True), 2).to(CARD)
        recipe = replace(RECIPE, precision=precision)
        fit = fit_of(model, task, cases, recipe)
        machine.waits.clear()
        losses.append(fit.step(cases.batch([0, 1], labelled=True), generator(0, "x")))
        assert machine.waits == []
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=0.1)


# The loop.


def trained(folder: Path, device: torch.device, *, held: torch.device, recipe: Recipe = RECIPE,
        stop: int = 0) -> tuple[training.State, dict[str, Tensor]]:
    """Train a small segmentation, or until ``stop`` steps have been reported."""
    model, task = model_and_task("3d", "segmentation")
    model.to(device)
    cases = cases_of("3d", device, held=held, side=16)
    run = Run(folder / "finetune" / "a" / "fraction100" / "seed0", {"stage": "finetune"})
    run.start({})
    done = 0

    def report(steps: int) -> None:
        nonlocal done
        done += steps
        if stop and done > stop:
            raise RunFailed("stopped")
    with pytest.raises(RunFailed, match="stopped") if stop else nullcontext():
        state = fit(model, task, cases, train=[0, 1, 2], val=[3, 4, 5], run=run,
                    recipe=recipe, report=report)
    return (training.State(), {}) if stop else (state, checkpoint.weights(model))


@pytest.mark.parametrize("held", [CARD, CPU], ids=["card", "host"])
def test_a_run_on_a_card_is_that_on_the_cpu_and_can_be_resumed(
        held: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        machine: Machine) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 0)
    state, weights = trained(tmp_path / "cpu", CPU, held=CPU)
    trained(tmp_path / "card", CARD, held=held, stop=4)  # two epochs are kept
    own, after = trained(tmp_path / "card", CARD, held=held)
    assert own.history == pytest.approx(state.history) and own.best_step == state.best_step
    assert all(torch.allclose(after[name].cpu(), weights[name], atol=1e-6) for name in weights)


def test_a_checkpoint_holds_tensors_of_the_cpu(tmp_path: Path, machine: Machine) -> None:
    trained(tmp_path, CARD, held=CARD, recipe=replace(RECIPE, epochs=2))
    assert machine.saved == []  # for machines without a card


def test_the_waits_of_an_epoch_do_not_grow_with_its_steps(tmp_path: Path,
                                                          machine: Machine) -> None:
    counts = []
    for steps in (1, 3):
        machine.waits.clear()
        trained(tmp_path / str(steps), CARD, held=CPU,
                recipe=replace(RECIPE, epochs=2, steps=steps))
        counts.append(sorted(machine.waits))
    assert counts[0] == counts[1]


# From the command to the records.

GRID = ["--tasks", "baseline", "rotation", "--fractions", "100", "--seeds", "0",
        "--pretext-epochs", "1", "--finetune-epochs", "2", "--validations", "1"]
Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, scans: Path,
            photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """exp.py of a tree in this process, on the machine around it; records go to tmp_path."""
    monkeypatch.setattr(arrays, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    cached = tmp_path_factory.getbasetemp() / "arrays"  # made once for all

    def run(machine: Machine, tree: str, *flags: str) -> Result:
        card = devices.Card("Fake card", machine.capability, machine.memory)
        monkeypatch.setattr(devices, "cards", lambda: (card,) * machine.cards)
        return call(f"{tree}/exp.py", "--data", {"3d": scans, "2d": photographs}[tree], "--cache",
                    cached, "--results", tmp_path, *TINY[tree], *GRID, *flags)
    return run


@pytest.mark.parametrize(("tree", "arm", "capability", "memory"), [
    ("3d", "oracle", (8, 0), 10**9), ("2d", "rotation@shuffled", (9, 0), 10**9),
    ("2d", "rotation", (7, 5), 10**9), ("3d", "rotation", (7, 5), 10**5)],
    ids=["3d", "2d", "old", "full"])
def test_the_command_trains_on_one_card_from_start_to_end(
        tree: str, arm: str, capability: tuple[int, int], memory: int, command: Command,
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, there = training.Fit.step, set()

    def step(self: training.Fit, batch: Batch, rng: torch.Generator) -> Tensor:
        there.add(batch.stored[0].device == batch.device == CARD)
        waits = len(machine.waits)
        loss = plain(self, batch, rng)
        assert machine.waits[waits:] == []
        return loss
    monkeypatch.setattr(training.Fit, "step", step)
    with fake_card.machine(capability=capability, memory=memory) as machine:
        result = command(machine, tree, "--tasks", "baseline", arm)
    assert result.returncode == 0, result.stderr
    assert there == {memory == 10**9}  # a small card leaves the cases on the host
    precision = "bfloat16" if capability >= (8, 0) else "float32"
    assert set(machine.precisions) == ({torch.bfloat16} if precision == "bfloat16" else set())
    assert machine.saved == []  # files can be read where there is no card
    runs = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/*/**/config.json")]
    assert {run["identity"]["precision"] for run in runs} == {precision} and len(runs) == 3
    assert {run["provenance"]["device"] for run in runs} == {"cuda:0"}
    assert len([*tmp_path.glob("*/*/views.npz"), *tmp_path.glob("*/*/examples.npz")]) == 2


@pytest.mark.parametrize(("flags", "expected"), [
    ([], [0, 1]), (["--runs-per-gpu", "2", "--seeds", "0", "1"], [0, 1, 0, 1]),
    (["--workers", "3"], [0, 1, 0]),
    (["--device", "cuda:1", "--workers", "2"], [1, 1])])
def test_two_cards_are_dealt_to_the_workers_in_turn(
        flags: list[str], expected: list[int], command: Command,
        monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.device] = []

    def process(*, args: Any, **_: Any) -> Any:
        def start() -> None:
            assert machine.used == 0  # the parent has no context on a card beside its workers
            given.append(args[2])
        return SimpleNamespace(start=start, join=lambda: None, is_alive=lambda: False, exitcode=0)
    queue = SimpleNamespace(put=None, empty=lambda: True)
    monkeypatch.setattr(workers, "multiprocessing", SimpleNamespace(get_context=lambda _: (
        SimpleNamespace(Queue=lambda: queue, Process=process))))
    with fake_card.machine(cards=2) as machine:
        assert command(machine, "3d", *flags).returncode == 1  # nothing has been trained
    assert given == [torch.device("cuda", index) for index in expected]


def test_a_run_of_two_ranks_takes_both_cards(command: Command,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[torch.device]] = []

    def launch(places: list[torch.device], *_: Any) -> str:
        given.append(places)
        raise RunFailed("not trained")
    monkeypatch.setattr(workers, "launch", launch)
    with fake_card.machine(cards=2) as machine:
        assert command(machine, "3d", "--ranks-per-run", "2").returncode == 1
    assert given and all(places == [torch.device("cuda:0"), torch.device("cuda:1")]
                         for places in given)
