"""Full and unwritable disks, shared memory too: one line, and nothing half-written."""

import errno
import importlib
import os
import pickle
import re
import signal
from collections.abc import Iterator
from multiprocessing import synchronize
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Trial

from common import errors
from common.data import cache
from common.errors import InputError, exit_status
from common.machine import limits
from common.runs import checkpoint, encoders
from common.schedule import workers


@pytest.mark.parametrize(("number", "said"), [
    (errno.ENOSPC, "make room"), (errno.EROFS, "permissions"), (errno.ENOSYS, "flock")])
def test_a_disk_that_cannot_be_written_is_one_line(number: int, said: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(number, "no", "/some/file")
    assert exit_status(fail) == 2
    line = capsys.readouterr().err
    assert said in line and "/some/file" in line and line.count("\n") == 1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"a": 1})

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="GB are free") as caught:
        checkpoint.save(path, {"a": 2})
    assert errors.disk_problem(caught.value) and checkpoint.load(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_cache_that_does_not_fit_says_how_much_it_needs(photographs: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    loader = importlib.import_module("2d.loader")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="are needed for preprocessed images"):
        loader.build_cache(loader.open_dataset(photographs), tmp_path, resolution=32, workers=1)
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.fixture
def no_semaphores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where /dev/shm is full."""
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as patch:
        patch.setattr(synchronize.SemLock, "__init__", full)
        yield


ROOM = r"/dev/shm: No space left on device; [0-9.]+ of [0-9.]+ MB are free.* --shm-size"


@pytest.mark.usefixtures("no_semaphores")
def test_full_shared_memory_is_one_line_where_cases_are_preprocessed(
        photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "POOL_FROM", 0.0)
    loader = importlib.import_module("2d.loader")
    with pytest.raises(InputError, match=ROOM):
        loader.build_cache(loader.open_dataset(photographs), tmp_path, resolution=32, workers=1)
    assert not list(tmp_path.rglob("manifest.json"))


@pytest.mark.parametrize(("flags", "status"), [(["--workers", "2"], 2),
                                               (["--ranks-per-run", "2"], 1)])
@pytest.mark.usefixtures("no_semaphores")
def test_full_shared_memory_is_one_line_where_processes_train(
        flags: list[str], status: int, trial_3d: Trial, tmp_path: Path) -> None:
    result = trial_3d.run(tmp_path, *flags, "--tasks", "baseline")  # two runs
    assert result.returncode == status and "Traceback" not in result.stderr
    assert re.search(f"(error|failed): {ROOM}", result.stderr), result.stderr
    assert "--results" not in result.stderr  # the remedy of a disk


def test_shared_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch,
                                                 tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "SHARED", tmp_path / "shm")
    with pytest.raises(InputError, match="shm: Function not implemented; it is not there, "), \
            limits.sharing():
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    with pytest.raises(OSError, match="/a/file"), limits.sharing():
        raise OSError(errno.ENOSPC, "full", "/a/file")  # another disk's


def test_nccls_shared_memory_is_one_line() -> None:
    said = ("NCCL error: unhandled system error\nLast error:\nError while creating shared memory "
            "segment /dev/shm/nccl-a (size 9637888), error: No space left on device (28)")
    run: Any = type("Run", (), {"name": "a run", "identity": {"stage": "finetune"}})
    reason = workers._reason(run, RuntimeError(said))
    assert reason and "--shm-size" in reason and "\n" not in reason


def test_workers_are_sent_no_tensors(tmp_path: Path) -> None:
    """torch would send them by shared memory, a file each."""
    torch.save({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, tmp_path / "e.pt")
    nobody: Any = type("Nobody", (), {"facts": {}, "val": [], "of": None})
    made = encoders.from_files({"mine": tmp_path / "e.pt"}, one_layer, nobody, nobody, seeds=[])
    assert b"rebuild_tensor" not in pickle.dumps(made)
    before = torch.get_rng_state()
    assert pickle.loads(pickle.dumps(made))["mine"].load()["weight"] == 1
    assert torch.equal(torch.get_rng_state(), before)


def one_layer() -> torch.nn.Module:
    return torch.nn.Linear(1, 1)
