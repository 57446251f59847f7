"""Nothing lost, nothing silently wrong: kills, damage, two at once, disks.

What both trees share is tried in 3D, where a run takes least.
"""

import errno
import json
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from commands import Trial, noted, numbers, slowly, until

from common import files
from common.runs import checkpoint
from common.tasks import puzzles

GONE = 30  # seconds until a process has ended that should: torch takes seconds of CPU to leave


def kill_and_go_on(trial: Trial, folder: Path, kills: int, seed: int) -> int:
    """Kill the command in the middle of runs, then let it end; the numbers must be the same.

    Returns how many times a run was gone on with from its checkpoint.
    """
    draw, log, resumed = random.Random(seed), folder / "epochs", 0
    left: dict[str, int] = {}
    for _ in range(kills):
        begun = len(noted(log))
        child = trial.start(folder, "--workers", draw.choice((1, 2)),
                            change=partial(slowly, log, 0.2))
        more = draw.randint(2, 4)
        until(lambda: len(noted(log)) >= begun + more and noted(log)[-1][1] > 1)  # noqa: B023
        child.kill()
        until(lambda: not child.alive(), GONE)  # noqa: B023
        resumed += went_on(left, noted(log)[begun:])
        left = {"/".join(path.parent.relative_to(trial.runs(folder)).parts):
                checkpoint.load(path)["state"]["epoch"] for path in folder.rglob("last.pt")}
    begun = len(noted(log))
    result = trial.start(folder, change=partial(slowly, log, 0.0)).wait()
    assert result.returncode == 0, result.stderr
    assert numbers(folder) == numbers(trial.folder)
    return resumed + went_on(left, noted(log)[begun:])


def went_on(left: dict[str, int], trained: list[tuple[str, int]]) -> int:
    """How many of the runs with a checkpoint were trained; each from the epoch after it."""
    first = dict(reversed(trained))
    for name, epoch in left.items():
        assert first.get(name, epoch + 1) == epoch + 1, f"{name}: not from its checkpoint"
    return len(left.keys() & first.keys())


def test_killed_three_times_it_goes_on_to_the_same_numbers(trial_3d: Trial,
                                                           tmp_path: Path) -> None:
    assert kill_and_go_on(trial_3d, tmp_path, 3, seed=1) >= 2


@pytest.mark.slow
def test_killed_twenty_times_it_goes_on_to_the_same_numbers(trial: Trial, tmp_path: Path) -> None:
    for round_ in range(5):
        assert kill_and_go_on(trial, tmp_path / str(round_), 4, seed=10 + round_) >= 2


def test_workers_end_with_a_killed_command(trial_3d: Trial, tmp_path: Path) -> None:
    child = trial_3d.start(tmp_path, "--workers", 2, "--finetune-epochs", 4000)
    until(lambda: list(tmp_path.rglob("finetune/**/log.jsonl")))
    assert len(child.alive()) >= 3
    child.kill()
    until(lambda: not child.alive(), GONE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [1, 2])
def test_signals_stop_in_one_line_and_leave_no_worker(trial_3d: Trial, tmp_path: Path,
                                                      workers: int, number: int,
                                                      status: int) -> None:
    child = trial_3d.start(tmp_path, "--workers", workers, "--finetune-epochs", 4000)
    until(lambda: list(tmp_path.rglob("finetune/**/log.jsonl")))
    child.signal(number)
    result = child.wait()
    assert result.returncode == status, result.stderr
    stops = [line for line in result.lines if line.startswith("stopped at ")]
    assert len(stops) == 1 and "the same command goes on" in stops[0]
    assert "Traceback" not in result.stderr
    until(lambda: not child.alive(), GONE)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.write_text('{"some": "other file"}')


@pytest.mark.parametrize("harm", [truncate, foreign, Path.unlink])
@pytest.mark.parametrize("name", [
    "pretrain/rotation/seed0/encoder.pt", "pretrain/rotation/seed0/scores.json",
    "finetune/rotation/fraction050/seed0/scores.json",
    "finetune/baseline/fraction100/seed0/config.json"])
def test_damaged_records_are_named_and_made_again(trial_3d: Trial, tmp_path: Path, name: str,
                                                  harm: Callable[[Path], None]) -> None:
    trial_3d.copy(tmp_path)
    if name.endswith("encoder.pt"):  # nothing is made again for runs that are all done
        shutil.rmtree(trial_3d.runs(tmp_path) / "finetune/rotation/fraction100")
    harm(trial_3d.runs(tmp_path) / name)
    result = trial_3d.run(tmp_path)
    assert result.returncode == 0, result.stderr
    if not (harm is Path.unlink and name.endswith("scores.json")):  # then it is just not done
        assert Path(name).name in result.stderr and "set aside" in result.stderr
    assert numbers(tmp_path) == numbers(trial_3d.folder)


@pytest.mark.parametrize("harm", [truncate, foreign])
def test_damaged_splits_stop_with_one_line(trial_3d: Trial, tmp_path: Path,
                                           harm: Callable[[Path], None]) -> None:
    trial_3d.copy(tmp_path)
    harm(trial_3d.runs(tmp_path) / "splits.json")
    result = trial_3d.run(tmp_path)
    assert result.returncode == 2 and "splits.json" in result.stderr
    assert len(result.lines) == 1


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "damage"), [("images.npy", truncate), ("manifest.json", truncate),
                                              ("images.npy", flip_one_bit)])
def test_a_damaged_cache_is_named_and_made_again(trial_3d: Trial, tmp_path: Path, name: str,
                                                 damage: Callable[[Path], None]) -> None:
    trial_3d.copy(tmp_path)
    damage(next(tmp_path.rglob(name)))
    result = trial_3d.run(tmp_path)
    assert result.returncode == 0 and "damaged" in result.stderr
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def test_two_at_once_share_the_work(trial_3d: Trial, tmp_path: Path) -> None:
    said = [child.wait() for child in [trial_3d.start(tmp_path) for _ in range(2)]]
    assert [result.returncode for result in said] == [0, 0], said
    done = [line.split(":")[0] for result in said for line in result.stdout.splitlines()
            if line.startswith("done ")]
    assert len(done) == len(set(done)) == 5  # no run was trained twice
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def test_a_changed_data_set_is_named(trial: Trial, tmp_path: Path) -> None:
    trial.copy(tmp_path)
    data = tmp_path / trial.data.name
    subprocess.run(["cp", "-a", str(trial.data), str(data)], check=True)
    if trial.tree == "2d":
        table = data / "train.csv"
        lines = table.read_text().splitlines()
        table.write_text("\n".join(lines[:-1]) + "\n")
        gone = lines[-1].split(",")[0]
    else:
        content = json.loads((data / "dataset.json").read_text())
        gone = Path(content["training"].pop()["image"]).name.removesuffix(".nii.gz")
        (data / "dataset.json").write_text(json.dumps(content))
    result = trial._replace(data=data).run(tmp_path)
    assert result.returncode == 2 and gone in result.stderr and "--rerun" in result.stderr
    assert numbers(tmp_path) == numbers(trial.folder)


def test_results_below_a_file_are_refused(trial_3d: Trial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = trial_3d.run(trial_3d.folder, "--results", tmp_path / "file")
    assert result.returncode == 2 and len(result.lines) == 1, result.stderr


def test_a_lock_left_by_a_dead_process_does_not_block(trial_3d: Trial, tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    for lock in tmp_path.rglob("*.lock"):
        lock.write_text("99999")
    (trial_3d.runs(tmp_path) / "finetune/rotation/fraction050/seed0/scores.json").unlink()
    assert trial_3d.run(tmp_path).returncode == 0
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def not_finite(task: Any, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.sum() * float("nan")


def no_memory(task: Any, outputs: torch.Tensor, targets: torch.Tensor) -> NoReturn:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(("loss", "said"), [
    (not_finite, "the loss is not finite at epoch 1, step 1"),
    (no_memory, "out of GPU memory; lower PRETEXT_BATCH_SIZE, RESOLUTION or WORKERS")])
def test_a_run_that_cannot_be_trained_fails_alone_and_can_be_tried_again(
        trial_3d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        loss: Callable[..., torch.Tensor], said: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(puzzles.Rotation, "loss", loss)
        result = trial_3d.run(tmp_path)
    assert result.returncode == 1, result.stderr
    assert f"pretrain/rotation/seed0: {said}" in result.stderr
    assert "3 runs are not done" in result.stderr  # the encoder and what would start from it
    done = {path.relative_to(trial_3d.runs(tmp_path)).parts[1]
            for path in tmp_path.rglob("scores.json")}
    assert done == {"baseline"}
    assert trial_3d.run(tmp_path).returncode == 0  # another start, another try
    assert numbers(tmp_path) == numbers(trial_3d.folder)


@pytest.mark.parametrize("fails", [False, True])  # whether the failure itself cannot be recorded
def test_a_full_disk_is_told_and_after_room_is_made_the_command_goes_on(
        trial_3d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    write = files.write_json

    def full(*_: object) -> NoReturn:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    def write_json(path: Path, content: Any) -> None:
        if fails and path.name == "failed.json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        patch.setattr(files, "write_json", write_json)
        result = trial_3d.run(tmp_path)
    assert result.returncode == 1, result.stderr
    assert "last.pt" in result.stderr and "GB are free" in result.stderr
    assert "make room" in result.stderr and not list(tmp_path.rglob("last.pt"))
    assert trial_3d.run(tmp_path).returncode == 0
    assert numbers(tmp_path) == numbers(trial_3d.folder)


def test_finetuning_from_an_encoder_of_other_settings_is_stale(trial_3d: Trial,
                                                               tmp_path: Path) -> None:
    trial_3d.copy(tmp_path)
    result = trial_3d.run(tmp_path, "--pretext-epochs", 4)
    assert result.returncode == 2 and "PRETEXT_EPOCHS: 3 -> 4" in result.stderr
    assert "2 more runs" in result.stderr  # the encoder and the two runs that started from it
    assert trial_3d.run(tmp_path, "--pretext-epochs", 4, "--tasks", "baseline").returncode == 0
