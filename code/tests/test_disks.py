"""Full and unwritable disks: one line, and nothing half-written."""

import errno
import importlib
import signal
from pathlib import Path

import pytest
import torch

from common import errors
from common.data import cache
from common.errors import InputError, exit_status
from common.runs import checkpoint


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
