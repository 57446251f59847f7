"""Ctrl-C, once and again, to every process of a command: one line, and nothing left behind."""

import gzip
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import CODE, TINY, until

from common import errors
from common.data import cache
from common.errors import deaf

loader = importlib.import_module("3d.loader")
CASES, SIDE = 100, 64  # a second of work at a resolution of 16
POOLED = """
import sys
sys.path[:0] = {folders}
import exp
from common.data import cache
from common.errors import exit_status
if __name__ == "__main__":
    cache.POOL_FROM = 0.0
    sys.exit(exit_status(exp.main))
"""  # exp.py, with a pool however fast the machine is; its workers import it again
ONCE = """
import atexit, os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from common import errors
from common.errors import exit_status
first, *more = (getattr(signal, name) for name in sys.argv[2:])

def again():
    for number in more:
        os.kill(os.getpid(), number)
        time.sleep(0.01)  # Python looks for signals now

def main():
    try:
        os.kill(os.getpid(), first)
        time.sleep(60)
    finally:
        again()
        print("cleaned up")

def later():
    errors.AGAIN = 0
    os.kill(os.getpid(), signal.SIGINT)

atexit.register(later)
sys.exit(exit_status(main))
"""


@pytest.mark.parametrize(("numbers", "status"), [
    (["SIGINT"], 130), (["SIGINT", "SIGINT", "SIGINT"], 130), (["SIGTERM", "SIGINT"], 143),
    (["SIGINT", "SIGTERM"], 130), (["SIGTERM", "SIGTERM"], 143)])
def test_told_again_while_it_ends_it_says_no_more(numbers: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, "-c", ONCE, str(CODE), *numbers], check=False,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "cleaned up\n"), done.stderr
    assert done.stderr == "stopped; the same command goes on from here\n"


def test_who_presses_on_and_on_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may get lost in a destructor; what is not heard must not put the next one off."""
    now = 100.0
    monkeypatch.setattr(errors.time, "monotonic", lambda: now)
    stop = errors.stopper()
    with pytest.raises(KeyboardInterrupt):
        stop(signal.SIGINT, None)
    heard = 0
    for _ in range(8):
        now += errors.AGAIN / 2
        try:
            stop(signal.SIGINT, None)
        except KeyboardInterrupt:
            heard += 1
    assert heard == 2  # of eight: every third is late enough


def test_an_interrupt_while_the_last_case_is_waited_for_ends_its_worker(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is not wanted any more."""
    def pressed(number: int, frame: object) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(cache, "POOL_FROM", -1.0)
    before = signal.signal(signal.SIGALRM, pressed)
    results = iter(cache._pooled(time.sleep, [0.0, 0.01, 60.0], 1))  # type: ignore[arg-type,list-item]
    begun = 0.0
    try:
        with pytest.raises(KeyboardInterrupt):
            for place, _ in enumerate(results):
                if place == 1:  # the last one is left
                    begun = time.monotonic()
                    signal.setitimer(signal.ITIMER_REAL, 0.5)
        assert begun and time.monotonic() - begun < 30
    finally:
        signal.signal(signal.SIGALRM, before)


def test_it_goes_on_where_a_shell_has_it_not_hear_ctrl_c() -> None:
    """As in the background of a script."""
    program = ONCE.replace("time.sleep(60)", "return 0")
    done = subprocess.run(["sh", "-c", 'trap "" INT; "$@"', "sh", sys.executable, "-c", program,
                           str(CODE), "SIGINT"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_deaf_process_does_not_hear_it_and_its_starter_does() -> None:
    with deaf():
        child = get_context("spawn").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        status = Path(f"/proc/{child.pid}/status").read_text()
        blocked = int(next(line for line in status.splitlines() if line.startswith("SigBlk"))[8:],
                      16)
        assert blocked >> (signal.SIGINT - 1) & 1
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        child.terminate()
        child.join()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A set of many scans, all links to one, in which the grid of a tree would have work."""
    folder = tmp_path / "Task99_Many"
    rng = np.random.default_rng(0)
    label = np.zeros((SIDE,) * 3, np.uint8)
    label[30:50, 30:50, 30:50] = 1
    for part, voxels in (("imagesTr", rng.integers(0, 900, label.shape, np.int16)),
                         ("labelsTr", label)):
        (folder / part).mkdir(parents=True)
        first = folder / part / "c_000.nii.gz"
        first.write_bytes(gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes(), 1))
        for number in range(1, CASES):
            os.link(first, folder / part / f"c_{number:03d}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}, "training": [
            {"image": f"imagesTr/c_{n:03d}.nii.gz", "label": f"labelsTr/c_{n:03d}.nii.gz"}
            for n in range(CASES)], "test": []}))
    return folder


def of_group(group: int) -> list[str]:
    """Numbers of the living processes of a process group; of the dead and dying none has memory."""
    table = subprocess.run(["ps", "-eo", "pgid,rss,pid"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    return [line.split()[2] for line in table
            if line.split()[0] == str(group) and line.split()[1] != "0"]


def importing(group: int) -> bool:
    """Whether a worker that the first of a group has started is loading what it needs.

    (Any other process that it starts has its own memory, and so numpy, for a moment.)
    """
    return any("spawn_main" in Path(f"/proc/{one}/cmdline").read_text()
               and "numpy" in Path(f"/proc/{one}/maps").read_text() for one in of_group(group)
               if one != str(group))


def started(folder: Path, *command: object) -> subprocess.Popen[str]:
    """A command as a process group of its own, as a shell has it."""
    script = folder / "main.py"
    script.write_text(POOLED.format(folders=[str(CODE / "3d"), str(CODE)]))
    return subprocess.Popen([sys.executable, str(script), *map(str, command)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)


def done_of(folder: Path) -> bool:
    """Whether the fourth case has come from the pool and is among the arrays."""
    for file in folder.rglob("*.partial/images.npy"):
        with suppress(ValueError):  # its header is being written
            return bool(np.load(file, mmap_mode="r")[3].any())
    return False


def interrupted(command: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """Status, and lines on stderr but for bars, of a command to all of which Ctrl-C goes twice."""
    for _ in range(2):
        os.killpg(command.pid, signal.SIGINT)
        time.sleep(0.05)
    said = command.communicate(timeout=60)[1].replace("\r", "\n").splitlines()
    assert not of_group(command.pid)
    return command.returncode, [line for line in said if line.strip() and not line.startswith(
        ("checksums:", "preprocess:"))]


@pytest.mark.parametrize("at", ["as the pool starts", pytest.param(
    "in the midst of it", marks=pytest.mark.slow)])
def test_ctrl_c_to_all_processes_that_preprocess(at: str, many: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    command = started(tmp_path, "--data", many, "--results", tmp_path / "results", "--cache",
                      tmp_path / "data", *TINY["3d"], "--device", "cpu")
    until(lambda: importing(command.pid))
    if at == "in the midst of it":
        until(lambda: done_of(tmp_path))
    status, lines = interrupted(command)
    assert (status, lines) == (130, ["stopped; the same command goes on from here"])
    assert not list(tmp_path.rglob("manifest.json")) and list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(cache, "POOL_FROM", float("inf"))  # here, which takes less
    dataset = loader.open_dataset(many)
    made = loader.build_cache(dataset, tmp_path / "data", resolution=16, intensity="percentile",
                              workers=1)
    image, label, facts = loader.preprocess(dataset.sources[0], classes=2, channels=1,
                                            resolution=16, intensity="percentile")
    assert np.array_equal(made.images(), np.stack([image] * CASES))
    assert np.array_equal(made.labels(), np.stack([label] * CASES))
    assert all(made.facts[source.id] == facts for source in dataset.sources)
    assert not list(tmp_path.rglob("*.partial"))
