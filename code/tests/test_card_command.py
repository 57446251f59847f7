"""From the command to the records on a machine with cards that are not there: see fake_card.py."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_card
import pytest
import torch
from commands import TINY, Result, call
from fake_card import Machine
from torch import Tensor, nn

from common import cache as arrays
from common import devices, grid, parallel, training
from common.errors import RunFailed
from common.task import Batch

CARD = torch.device("cuda", 0)
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


@pytest.mark.parametrize(("tree", "capability", "memory"), [
    ("3d", (8, 0), 10**9), ("2d", (9, 0), 10**9), ("2d", (7, 5), 10**9), ("3d", (7, 5), 10**5)])
def test_the_command_trains_on_one_card_from_start_to_end(
        tree: str, capability: tuple[int, int], memory: int, command: Command, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    plain, there = training._step, set()

    def step(model: nn.Module, task: Any, batch: Batch, *args: Any) -> Tensor:
        there.add(batch.stored[0].device == batch.device == CARD)
        waits = len(machine.waits)
        loss = plain(model, task, batch, *args)
        assert machine.waits[waits:] == []
        return loss
    monkeypatch.setattr(training, "_step", step)
    with fake_card.machine(capability=capability, memory=memory) as machine:
        result = command(machine, tree)
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
    ([], [0, 1]), (["--runs-per-gpu", "2"], [0, 1, 0, 1]), (["--workers", "3"], [0, 1, 0]),
    (["--device", "cuda:1", "--workers", "2"], [1, 1])])
def test_two_cards_are_dealt_to_the_workers_in_turn(
        flags: list[str], expected: list[int], command: Command,
        monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[torch.device] = []

    def process(*, args: Any, **_: Any) -> Any:
        def start() -> None:
            assert machine.used == 0  # the parent has no context on a card beside its workers
            given.append(args[1])
        return SimpleNamespace(start=start, join=lambda: None, is_alive=lambda: False, exitcode=0)
    queue = SimpleNamespace(put=None, empty=lambda: True)
    monkeypatch.setattr(grid, "multiprocessing", SimpleNamespace(get_context=lambda _: (
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
    monkeypatch.setattr(parallel, "launch", launch)
    with fake_card.machine(cards=2) as machine:
        assert command(machine, "3d", "--ranks-per-run", "2").returncode == 1
    assert given and all(places == [torch.device("cuda:0"), torch.device("cuda:1")]
                         for places in given)
