"""A step's parts: their shares are of the whole, and its operations are those of its layers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import alone, call

from bench import trees
from bench.grid import prepare, steps
from bench.rows.step_rows import Step
from common.arms import BASELINE


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> trees.Tree:
    with alone("3d"):
        return steps._opened("3d", tmp_path_factory.mktemp("steps"), torch.device("cpu"),
                             smoke=True)


def test_the_shares_of_a_step_are_of_all_of_it(opened: trees.Tree) -> None:
    found = steps.shares(Step(opened, BASELINE))
    assert sum(found.values()) == pytest.approx(1, abs=0.02)
    assert {"making the batch", *steps.PARTS, "rest"} == {*found}
    assert all(found[part] > 0 for part in ("making the batch", *steps.PARTS))


def test_operations_are_those_of_the_convolutions_forwards_and_backwards(
        opened: trees.Tree) -> None:
    step, counted = Step(opened, BASELINE), 0

    def count(layer: torch.nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        nonlocal counted
        voxels = given[0] if isinstance(layer, torch.nn.ConvTranspose3d) else made
        counted += 2 * voxels[0, 0].numel() * layer.weight.numel() * len(made)
    for layer in step.model.modules():
        if isinstance(layer, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
            layer.register_forward_hook(count)
    first = next(m for m in step.model.modules() if isinstance(m, torch.nn.Conv3d))
    step()
    images = step.cases.batch(step.rows, labelled=True).images
    unneeded = 2 * images[0, 0].numel() * first.weight.numel() * len(images)  # no gradient of these
    made = steps.measured(opened, BASELINE, 1)
    assert made.flop == pytest.approx(3 * counted - unneeded, rel=0.02)  # and of matrix products
    assert made.seconds > 0
    cells = steps.line("3d, baseline", made, made.flop / made.seconds).split(" | ")
    assert cells[0] == "| 3d, baseline" and cells[4] == "100 %"


def test_seconds_within_a_part_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spend(seconds: float) -> None:
        nonlocal now
        now += seconds
    monkeypatch.setattr(prepare, "time", SimpleNamespace(perf_counter=lambda: now))
    clock = prepare.Clock()
    inner = clock.timed("inner", lambda: spend(1.0))

    def outer() -> None:
        spend(2.0)
        inner()
        inner()
    clock.timed("outer", outer)()
    inner()
    assert clock.seconds == {"inner": 3.0, "outer": 2.0}
    lines = prepare.table(clock.seconds, 10).splitlines()
    assert lines[2:] == ["| inner | 300.00 | 60 % |", "| outer | 200.00 | 40 % |",
                         "| all | 500.00 | |"]


def test_the_parts_of_preprocessing_are_all_met(scans: Path) -> None:
    said = call("bench/grid/prepare.py", "--data", scans, "--resolution", 16, "--cases", 3)
    assert said.returncode == 0, said.stderr
    assert "\n3 scans and label maps of ctphantom, to 16³" in said.stdout
    for _, _, part in prepare.PARTS:
        assert f"| {part} | " in said.stdout
    assert "MB/s of what comes out" in said.stdout and "GB/s." in said.stdout
