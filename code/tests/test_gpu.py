"""What must hold on a graphics card; run with -m gpu. The same bodies run on the CPU as slow tests.

exp.py finds the card by itself (--device auto), with one card in sight.
"""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.schedule import workers
from common.tasks.batches import generator

CODE = Path(__file__).resolve().parents[1]
FLAGS = ["--fractions", "100", "--seeds", "0", "--tasks", "baseline", "rotation",
         "--validations", "2", "--warmup-epochs", "1"]
TINY = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "2", "--folds", "3"],
        "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
               "--batch-size", "4"]}
SHORT = ["--pretext-epochs", "2", "--finetune-epochs", "3"]
LONG = ["--pretext-epochs", "60", "--finetune-epochs", "60"]
PATIENCE = 180  # seconds until a checkpoint must be there
ACCURATE = 1e-5  # relative; TF32 keeps 10 bits of the mantissa and is at some 1e-4
TRANSFORMED = 3e-5  # of 2D convolutions, for which cuDNN has float32 algorithms that round more

on_each_device = pytest.mark.parametrize("device", [
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device")]),
    pytest.param("cpu", marks=pytest.mark.slow)])
in_each_tree = pytest.mark.parametrize("tree", ["3d", "2d"])


class Command(NamedTuple):
    """exp.py and graph.py of a tree, its data set, and what the device is called."""

    tree: str
    data: Path
    device: str

    def start(self, folder: Path, *flags: object) -> "subprocess.Popen[str]":
        """exp.py with records and cache in ``folder``; checkpoints after every epoch."""
        often = ("import runpy, sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[:3]\n"
                 "from common.runs import training; training.CHECKPOINT_EVERY = 0\n"
                 "training.CHECKPOINT_SHARE = 1.0\n"
                 "runpy.run_path(sys.argv[0], run_name='__main__')")
        script = CODE / self.tree / "exp.py"
        where = [] if self.device == "cuda" else ["--device", self.device, "--workers", "1"]
        command = [sys.executable, "-c", often, script.parent, CODE, script, "--data", self.data,
                   "--results", folder / "results", "--cache", folder.parent / "cache",
                   *TINY[self.tree], *FLAGS, *where, *flags]
        return subprocess.Popen([str(part) for part in command], text=True, cwd="/",
                                env=one_card(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, folder: Path, *flags: object) -> str:
        """Run exp.py to its end, which must be a good one; what it says."""
        process = self.start(folder, *flags)
        said, complaint = process.communicate()
        assert process.returncode == 0, said + complaint
        lines = (said + complaint).splitlines()
        assert not [line for line in lines if line.startswith("warning:")], lines
        return said

    def draw(self, folder: Path) -> None:
        """Run graph.py on the records."""
        subprocess.run([sys.executable, str(CODE / self.tree / "graph.py"), "--results",
                        str(folder / "results")], check=True, capture_output=True, cwd="/")

    def records(self, folder: Path) -> Path:
        """Where the runs are."""
        return next((folder / "results" / self.tree).iterdir())


def one_card() -> dict[str, str]:
    """The environment with exactly one card in sight."""
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    return {**os.environ, "CUDA_VISIBLE_DEVICES": cards[0]}


def command(tree: str, device: str, scans: Path, photographs: Path) -> Command:
    return Command(tree, {"3d": scans, "2d": photographs}[tree], device)


@in_each_tree
@on_each_device
@pytest.mark.parametrize(("precision", "runs", "layout"), [
    ("bfloat16", 1, "channels_last"), ("float32", 2, "contiguous")])  # each of them once
def test_both_commands_end_well_and_records_say_where(
        tree: str, device: str, precision: str, runs: int, layout: str, scans: Path,
        photographs: Path, tmp_path: Path) -> None:
    precision = precision if device == "cuda" else "float32"
    tried = command(tree, device, scans, photographs)
    several = ["--runs-per-gpu", runs] if device == "cuda" else ["--workers", runs]
    said = tried.run(tmp_path / "a", *SHORT, "--precision", precision, "--layout", layout, *several)
    assert {1: "1 run at a time", 2: "2 runs at a time"}[runs] in said
    configs = [json.loads(path.read_text())
               for path in tried.records(tmp_path / "a").rglob("config.json")]
    assert len(configs) == 3
    for config in configs:
        made = config["provenance"]
        assert made["device"] == {"cuda": "cuda:0", "cpu": "cpu"}[device]
        assert config["identity"]["precision"] == precision
        if device == "cuda":
            assert made["card"] == torch.cuda.get_device_name(0)
            assert made["cuda"] == torch.version.cuda and made["cudnn"]
        else:
            assert not any(made[key] for key in ("card", "driver", "cuda", "cudnn"))
    check_weights(tried.records(tmp_path / "a"))
    check_numbers(tried.records(tmp_path / "a"))
    tried.draw(tmp_path / "a")
    table, = (tmp_path / "a/results").glob("train_*.md")
    assert "| rotation | 100 % |" in table.read_text()
    if device == "cuda":  # last: all else matters more
        assert all(str(config["provenance"]["driver"])[0].isdigit() for config in configs)


def check_weights(records: Path) -> None:
    """Whoever has no card must be able to load what a card has trained, and in float32."""
    files = [*records.rglob("encoder.pt"), *records.rglob("best.pt")]
    assert len(files) == 3 and not list(records.rglob("last.pt"))
    for file in files:
        state = torch.load(file, weights_only=True)  # where they were saved from
        tensors = state.get("state_dict", state)
        assert {tensor.device.type for tensor in tensors.values()} == {"cpu"}, file
        assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}, file


def check_numbers(records: Path) -> None:
    """Every loss, in training and validation, is finite."""
    logs = [json.loads(line) for path in records.rglob("log.jsonl")
            for line in path.read_text().splitlines()]
    losses = [line.get("val", line)["loss"] for line in logs]
    assert len(losses) >= 3 and all(map(math.isfinite, losses))


@in_each_tree
@on_each_device
def test_an_interrupted_run_goes_on_from_its_checkpoint(
        tree: str, device: str, scans: Path, photographs: Path, tmp_path: Path) -> None:
    tried = command(tree, device, scans, photographs)
    folder = tmp_path / "a"
    kept = []
    for stage in ("pretrain", "finetune"):
        process = tried.start(folder, *LONG)
        checkpoint = wait_for(process, folder, f"{stage}/**/last.pt")
        process.send_signal(signal.SIGTERM)
        said, complaint = process.communicate(timeout=60)
        assert process.returncode == 143, said + complaint
        epochs = torch.load(checkpoint, weights_only=True,
                            map_location="cpu")["state"]["epoch"]
        times = (checkpoint.parent / "time.jsonl").read_text().splitlines()
        assert 1 <= epochs <= len(times) < 60
        kept.append((checkpoint.parent, times[:epochs]))
    tried.run(folder, *LONG)
    for run, times in kept:  # seconds of an epoch are like no others: these were not trained again
        now = (run / "time.jsonl").read_text().splitlines()
        assert now[:len(times)] == times
        numbers = [json.loads(line)["epoch"] for line in now]
        assert numbers == [*range(1, len(now)), len(now) - 1]  # the last of the test
        assert (run / "scores.json").exists() and not (run / "last.pt").exists()
    check_weights(tried.records(folder))
    check_numbers(tried.records(folder))


def wait_for(process: "subprocess.Popen[str]", folder: Path, pattern: str) -> Path:
    """The first file that appears; fails with what the process said if it ends before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := next(iter(folder.glob(f"results/*/*/{pattern}")), None):
            return found
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise AssertionError("\n".join(process.communicate()))


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    yield importlib.import_module("bench.gpu.card_steps")


@pytest.fixture(scope="module")
def opened() -> dict[tuple[str, str], Any]:
    """Trees that are open already, by name and device."""
    return {}


def open_tree(bench: ModuleType, opened: dict[tuple[str, str], Any], tree: str, device: str,
              folder: Path) -> Any:
    if (tree, device) not in opened:
        opener = getattr(importlib.import_module("bench.trees"), f"open_{tree}")
        place = torch.device("cuda:0" if device == "cuda" else device)
        opened[tree, device] = opener(folder, place, bench.SMOKE)
        if device == "cuda":
            assert opened[tree, device].cases.images.device == place
    return opened[tree, device]


@on_each_device
@in_each_tree
def test_a_step_of_every_task_is_finite_and_never_waits_for_the_device(
        tree: str, device: str, bench: ModuleType, opened: dict[tuple[str, str], Any],
        tmp_path: Path) -> None:
    made = open_tree(bench, opened, tree, device, tmp_path)
    rows = importlib.import_module("bench.rows.step_rows")
    precision = "bfloat16" if device == "cuda" else "float32"
    changed = replace(made, study=replace(made.study, precision=precision))
    for name in ["baseline", *made.study.pretexts]:
        step = rows.Step(changed, name)
        losses = [step()]  # kernels are chosen in the first
        with never_waiting(device):
            losses += [step(), step()]
        assert all(torch.isfinite(loss) for loss in losses), name
        assert all(weight.isfinite().all() for weight in step.model.state_dict().values()), name
        assert {weight.device.type for weight in step.model.state_dict().values()} == {device}


@contextmanager
def never_waiting(device: str) -> Iterator[None]:
    """Let whatever makes the host wait for the card be an error."""
    if device == "cpu":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_each_device
def test_float32_is_float32_as_a_run_has_it(device: str, bench: ModuleType,
                                            opened: dict[tuple[str, str], Any],
                                            tmp_path: Path) -> None:
    study = open_tree(bench, opened, "3d", device, tmp_path).study
    workers._set_up(replace(study, precision="float32"),
                 torch.device("cuda:0" if device == "cuda" else device))
    for name, function, values in products():
        exact = function(*(value.double() for value in values))
        made = function(*(value.to(device) for value in values)).cpu().double()
        most = TRANSFORMED if name == "conv2d" else ACCURATE
        assert far(made, exact) < most, name
        shortened = function(*map(ten_bits, values)).double()
        assert far(shortened, exact) > 10 * most, f"{name}: the test would not see TF32"


def products() -> Iterator[tuple[str, Any, list[Tensor]]]:
    """What TF32 would be used for, in sizes of the networks."""
    rng = generator(0, "products")

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)
    yield "matmul", torch.matmul, [drawn(256, 512), drawn(512, 256)]
    yield "linear", F.linear, [drawn(64, 2048), drawn(1024, 2048)]
    yield "conv2d", F.conv2d, [drawn(8, 64, 28, 28), drawn(32, 64, 3, 3)]
    for channels in (1, 32):
        yield (f"conv3d of {channels}", F.conv3d,
               [drawn(2, channels, 20, 20, 20), drawn(32, channels, 3, 3, 3)])
    form = torch.channels_last_3d
    yield "conv3d, channels last", F.conv3d, [
        value.to(memory_format=form) for value in (drawn(2, 32, 20, 20, 20),
                                                   drawn(32, 32, 3, 3, 3))]


def far(made: Tensor, exact: Tensor) -> float:
    """The largest error, relative to the largest value."""
    return float((made - exact).abs().max() / exact.abs().max())


def ten_bits(value: Tensor) -> Tensor:
    """The value with the mantissa of TF32."""
    return ((value.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
