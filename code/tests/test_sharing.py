"""Many processes share a grid: torchrun and srun, kills and take-overs; the numbers are one's."""

import importlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import devices, planning
from common.planning import Job

CODE = Path(__file__).resolve().parents[1]
TINY = ["--resolution", "16", "--levels", "1", "--filters", "2", "--pretext-epochs", "3",
        "--finetune-epochs", "3", "--warmup-epochs", "1", "--validations", "2", "--device", "cpu",
        "--fractions", "50", "100", "--seeds", "0"]
FEW = ["--tasks", "baseline", "rotation"]
MANY = ["--tasks", "baseline", "rotation", "exemplar", "--seeds", "0", "1", "2"]


def arguments(scans: Path, folder: Path, *more: str) -> list[str]:
    return [str(CODE / "3d/exp.py"), "--data", str(scans), "--results", str(folder / "results"),
            "--cache", str(folder / "data"), *TINY, *more]


def exp(scans: Path, folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run([sys.executable, *arguments(scans, folder, *more)], check=False,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result


def numbers(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text()
            for name in ("scores.json", "log.jsonl", "splits.json") for path in folder.rglob(name)}


@pytest.fixture(scope="module")
def alone(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    exp(scans, folder, *FEW, "--workers", "1")
    return folder


def test_torchrun_gives_the_numbers_of_one_process(scans: Path, alone: Path,
                                                   tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         *arguments(scans, tmp_path, *FEW)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    done = [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("done ")]
    assert len(done) == len(set(done)) == 5
    assert result.stdout.count("1 runs at a time in each of 2 processes") == 1  # said once
    assert numbers(tmp_path) == numbers(alone)


def test_checkpointing_gives_the_same_records(scans: Path, alone: Path, tmp_path: Path) -> None:
    result = exp(scans, tmp_path, *FEW, "--workers", "1", "--checkpointing")
    assert "of activations in a finetuning step" in result.stdout
    assert numbers(tmp_path) == numbers(alone)


@pytest.mark.parametrize(("environment", "expected"), [
    ({}, (0, 1, None)),
    ({"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "RANK": "5", "WORLD_SIZE": "8"}, (5, 8, 1)),
    ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "RANK": "1", "WORLD_SIZE": "2"}, (1, 2, None)),
    ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "4"}, (0, 1, None)),
    ({"SLURM_PROCID": "6", "SLURM_LOCALID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
      "SLURM_STEP_NUM_TASKS": "8"}, (6, 8, 2)),
    ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
      "SLURM_STEP_NUM_TASKS": "2"}, (1, 2, None)),
])
def test_the_place_among_processes_is_read_from_torchrun_and_srun(
        monkeypatch: pytest.MonkeyPatch, environment: dict[str, str],
        expected: tuple[int, int, int | None]) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "RANK", "WORLD_SIZE", "SLURM_PROCID",
                 "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert devices.place() == expected


def test_the_longest_come_first_and_pretraining_before_finetuning() -> None:
    def job(steps: int, work: float, finetunes: bool) -> Job:
        return Job(SimpleNamespace, None, steps, work, finetunes)  # type: ignore[arg-type]
    short, long = job(1, 5.0, False), job(2, 9.0, False)
    small, large, equal = job(3, 1.0, True), job(4, 100.0, True), job(5, 1.0, True)
    assert planning.in_order([small, short, equal, large, long]) == [long, short, large, small,
                                                                     equal]


PATCHED = """
import runpy, sys, time
sys.path[:0] = {paths!r}
from common import training
training.CHECKPOINT_EVERY = 0
train_epoch = training._train_epoch
def slower(epoch, *rest):
    with open({log!r}, "a") as file:
        print(epoch, file=file)
    time.sleep({pause})
    return train_epoch(epoch, *rest)
training._train_epoch = slower
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_killed_workers_run_is_taken_over_from_its_last_checkpoint(scans: Path, alone: Path,
                                                                     tmp_path: Path) -> None:
    only = ["--tasks", "baseline", "--fractions", "100", "--workers", "1"]
    shared = tmp_path / "shared"

    def start(name: str, pause: float) -> "subprocess.Popen[bytes]":
        program = PATCHED.format(paths=[str(CODE / "3d"), str(CODE)], pause=pause,
                                 log=str(tmp_path / name))
        return subprocess.Popen([sys.executable, "-c", program, *arguments(scans, shared, *only)],
                                stdout=subprocess.DEVNULL)
    first = start("first", 4.0)
    wait_for(tmp_path / "first", "1")
    second = start("second", 0.0)  # waits for the first's only run
    wait_for(tmp_path / "first", "3")
    first.kill()
    assert second.wait(timeout=60) == 0
    made = [int(epoch) for epoch in (tmp_path / "second").read_text().split()]
    assert made == [3]  # not from the start
    whole = numbers(alone)
    assert numbers(shared).items() <= whole.items() and len(numbers(shared)) == 3


def wait_for(path: Path, line: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists() and line in path.read_text().split():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path}: no line {line}")


def test_starts_at_once_agree_on_splits_and_rerun(scans: Path, alone: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", f"{alone}/.", str(tmp_path)], check=True)
    command = arguments(scans, tmp_path, "--tasks", "baseline", "--workers", "1", "--rerun",
                        "--finetune-epochs", "2", "--split-seed", "1")
    both = [subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    runs = tmp_path / "results/3d/ctphantom"
    assert [path.name for path in runs.glob("splits.json*.old-*")] == ["splits.json.old-1"]
    assert json.loads((runs / "splits.json").read_text())["seed"] == 1
    assert len(list((runs / "finetune/baseline").rglob("seed0.old-1"))) == 2
    assert not list((runs / "finetune/baseline").rglob("seed0.old-2"))


@pytest.mark.slow
def test_eight_processes_two_killed_end_with_the_records_of_one(scans: Path,
                                                                tmp_path: Path) -> None:
    exp(scans, tmp_path / "one", *MANY, "--workers", "1")
    command = arguments(scans, tmp_path / "eight", *MANY, "--workers", "1")
    processes = [subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
                 for _ in range(8)]
    draw = random.Random(7)
    for victim in draw.sample(range(8), 2):
        while not list(tmp_path.rglob("eight/**/log.jsonl")):
            time.sleep(0.2)
        time.sleep(draw.uniform(0.0, 20.0))
        processes[victim].kill()
    ends = sorted(process.wait(timeout=900) for process in processes)
    assert ends == [-9, -9, 0, 0, 0, 0, 0, 0]
    assert numbers(tmp_path / "eight") == numbers(tmp_path / "one")
    assert len(list(tmp_path.rglob("eight/**/scores.json"))) == 24
    assert importlib.import_module("common.records").read_runs(
        tmp_path / "eight/results/3d/ctphantom", "finetune")
