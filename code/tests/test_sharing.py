"""Many processes share a grid: torchrun and srun, kills and take-overs; the numbers are one's."""

import importlib
import json
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import CODE, Trial, noted, numbers, shell, slowly, until

from common.machine import devices
from common.schedule import plan
from common.schedule.plan import Job

MANY = ["--tasks", "baseline", "rotation", "exemplar", "--seeds", "0", "1", "2"]


@pytest.mark.slow  # three interpreters; places are tested below
def test_torchrun_gives_the_numbers_of_one_process(trial_3d: Trial, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = shell("3d/exp.py", *trial_3d.flags(tmp_path, "--workers", 0), program=torchrun)
    assert result.returncode == 0, result.stderr
    done = [line.split(":")[0] for line in result.stdout.splitlines() if line.startswith("done ")]
    assert len(done) == len(set(done)) == 5
    assert result.stdout.count("1 run at a time in each of 2 processes") == 1  # said once
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def test_checkpointing_gives_the_same_records(trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, "--checkpointing")
    assert "of activations in the largest step" in result.stdout
    assert numbers(tmp_path) == numbers(trial_3d.folder)


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
    assert plan.in_order([small, short, equal, large, long]) == [long, short, large, small,
                                                                     equal]


def test_a_killed_workers_run_is_taken_over_from_its_last_checkpoint(trial_3d: Trial,
                                                                     tmp_path: Path) -> None:
    only = ["--tasks", "baseline", "--fractions", "100"]
    shared = tmp_path / "shared"
    first = trial_3d.start(shared, *only, change=partial(slowly, tmp_path / "first", 2.0))
    until(lambda: noted(tmp_path / "first"))
    second = trial_3d.start(shared, *only, change=partial(slowly, tmp_path / "second", 0.0))
    until(lambda: len(noted(tmp_path / "first")) == 3)
    assert not noted(tmp_path / "second")  # it waits for the first's only run
    first.kill()
    assert second.wait().returncode == 0
    run = "finetune/baseline/fraction100/seed0"
    assert noted(tmp_path / "second") == [(run, 3)]  # not from the start
    assert numbers(shared).items() <= numbers(trial_3d.folder).items()
    assert len(numbers(shared)) == 3


def test_starts_at_once_agree_on_splits_and_rerun(trial_3d: Trial, tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    said = [child.wait() for child in [
        trial_3d.start(tmp_path, "--tasks", "baseline", "--rerun", "--finetune-epochs", 2,
                       "--split-seed", 1) for _ in range(2)]]
    assert [result.returncode for result in said] == [0, 0], said
    runs = trial_3d.runs(tmp_path)
    assert [path.name for path in runs.glob("splits.json*.old-*")] == ["splits.json.old-1"]
    assert json.loads((runs / "splits.json").read_text())["seed"] == 1
    assert len(list((runs / "finetune/baseline").rglob("seed0.old-1"))) == 2
    assert not list((runs / "finetune/baseline").rglob("seed0.old-2"))


@pytest.mark.slow
def test_eight_processes_two_killed_end_with_the_records_of_one(trial_3d: Trial,
                                                                tmp_path: Path) -> None:
    assert trial_3d.run(tmp_path / "one", *MANY).returncode == 0
    command = [sys.executable, str(CODE / "3d/exp.py"), *trial_3d.flags(tmp_path / "eight", *MANY)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(8)]
    draw = random.Random(7)
    for victim in draw.sample(range(8), 2):
        until(lambda: list(tmp_path.rglob("eight/**/log.jsonl")))
        time.sleep(draw.uniform(0.0, 20.0))
        processes[victim].kill()
    ends = sorted(process.wait(timeout=900) for process in processes)
    assert ends == [-9, -9, 0, 0, 0, 0, 0, 0]
    assert numbers(tmp_path / "eight") == numbers(tmp_path / "one")
    assert len(list(tmp_path.rglob("eight/**/scores.json"))) == 24
    assert importlib.import_module("common.runs.records").read_runs(
        tmp_path / "eight/results/3d/ctphantom", "finetune")
