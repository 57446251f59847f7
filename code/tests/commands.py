"""The user's commands as the tests give them: in this process, in one that can be killed, for real.

An interpreter takes 3 to 6 s of CPU to import torch; call() runs the same main() here instead, in
milliseconds. What is about processes starts them: Child for what is to be killed or signalled,
shell() for what a user types.
"""

import importlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkContext
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch

from common.errors import exit_status
from common.machine import launcher
from common.runs import training
from common.runs.training import Fit, State

CODE = Path(__file__).resolve().parents[1]
# Scripts import neighbours by their bare names.
FOLDERS = ("2d", "3d", "bench", "bench/choose", "bench/grid")
NAMES = {file.stem for folder in FOLDERS for file in (CODE / folder).glob("*.py")}
TINY = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "2", "--folds", "3"],
        "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
               "--batch-size", "4", "--folds", "1"]}  # one tree with folds, the other without
SHORT = ["--pretext-epochs", "3", "--finetune-epochs", "3", "--warmup-epochs", "1",
         "--validations", "2", "--device", "cpu", "--workers", "1", "--fractions", "50", "100",
         "--seeds", "0", "--tasks", "baseline", "rotation"]
WITHOUT_TORCH = ("-c", "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
                 "runpy.run_path(sys.argv[0], run_name='__main__')")
PATIENCE = 90  # seconds that a process may take for what it does in one or two

# Of processes that are killed semaphores are left; who cleans them up would say so at the end.
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")

_loaded: dict[str, dict[str, ModuleType]] = {folder: {} for folder in FOLDERS}


class Result(NamedTuple):
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """What it said of errors, line by line."""
        return self.stderr.strip().splitlines()


def call(script: str, *arguments: object) -> Result:
    """Run ``python code/<script> ...`` in this process; a defect comes out as its exception."""
    out, errors = io.StringIO(), io.StringIO()
    with _as_found(), alone(str(Path(script).parent)), redirect_stdout(out), \
            redirect_stderr(errors):
        module = importlib.import_module(Path(script).stem)
        sys.argv = [str(CODE / script), *map(str, arguments)]
        try:
            status = exit_status(module.main)
        except SystemExit as end:  # argparse: --help, or flags it does not know
            status = end.code if isinstance(end.code, int) else 1
    return Result(status, out.getvalue(), errors.getvalue())


def shell(script: str, *arguments: object, program: Sequence[str] = ()) -> Result:
    """Run it as from a shell, in another folder."""
    done = subprocess.run([sys.executable, *program, str(CODE / script), *map(str, arguments)],
                          capture_output=True, text=True, check=False, cwd="/")
    return Result(done.returncode, done.stdout, done.stderr)


@contextmanager
def alone(folder: str) -> Iterator[None]:
    """Let bare names mean the modules of one folder, loaded once; the other trees' are away."""
    others = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    path = list(sys.path)
    sys.modules.update(_loaded[folder])
    sys.path.insert(0, str(CODE / folder))
    try:
        yield
    finally:
        _loaded[folder] |= {name: sys.modules[name] for name in NAMES if name in sys.modules}
        for name in NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(others)
        sys.path[:] = path


def loaded(folder: str, name: str) -> ModuleType:
    """A script's module as call() has it."""
    return _loaded[folder][name]


@contextmanager
def _as_found() -> Iterator[None]:
    """Leave the process as it was; freed memory stays kept, which changes nothing."""
    argv, threads = sys.argv, torch.get_num_threads()
    heard = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    state, benchmark = torch.get_rng_state(), torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        sys.argv = argv
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        torch.backends.cudnn.benchmark = benchmark


class Trial(NamedTuple):
    """A tiny experiment: its data, and the finished grid that others are compared with."""

    tree: str
    data: Path
    folder: Path
    said: Result

    def flags(self, folder: Path, *more: object) -> list[str]:
        """The flags of exp.py with records and cache in ``folder``; the last of two counts."""
        return ["--data", str(self.data), "--results", str(folder / "results"), "--cache",
                str(folder / "data"), *TINY[self.tree], *SHORT, *map(str, more)]

    def run(self, folder: Path, *more: object) -> Result:
        """Run exp.py in this process."""
        return call(f"{self.tree}/exp.py", *self.flags(folder, *more))

    def start(self, folder: Path, *more: object, change: Callable[[], None] | None = None
              ) -> "Child":
        """Start exp.py in a process of its own."""
        command = partial(_command, f"{self.tree}/exp.py", self.flags(folder, *more))
        return Child(command, folder, change)

    def copy(self, folder: Path) -> None:
        """Copy records and cache of the finished grid, their times too."""
        subprocess.run(["cp", "-a", f"{self.folder}/.", str(folder)], check=True)

    def runs(self, folder: Path) -> Path:
        """Where the command leaves its runs."""
        return next((folder / "results" / self.tree).iterdir())


def finish(tree: str, data: Path, folder: Path) -> Trial:
    """Train the tiny experiment of a tree."""
    said = Trial(tree, data, folder, Result(0, "", "")).run(folder)
    assert said.returncode == 0, said.stderr
    return Trial(tree, data, folder, said)


def numbers(folder: Path) -> dict[str, str]:
    """All records that must agree bit for bit."""
    return {str(path.relative_to(folder)): path.read_text()
            for name in ("scores.json", "log.jsonl", "splits.json")
            for path in folder.rglob(name) if ".old-" not in str(path)}


class Child:
    """A process and session of its own for ``job``, forked from one that has loaded torch.

    ``change`` is called first. Both are picklable; what the job returns is the exit status.
    """

    def __init__(self, job: Callable[[], int | None], folder: Path,
                 change: Callable[[], None] | None = None) -> None:
        context = get_context("forkserver")  # a fork of this process would have its threads
        context.set_forkserver_preload(["torch", "torchvision", "common.schedule.grid"])
        folder.mkdir(parents=True, exist_ok=True)
        self.said = folder / f"said{time.monotonic_ns()}"
        self.process = context.Process(target=_fresh, args=(self.said, job, change))
        self.process.start()
        self.pid = self.process.pid or 0

    def kill(self) -> None:
        """End it as a machine does that runs out of memory; the processes it started are left."""
        os.kill(self.pid, signal.SIGKILL)
        self.process.join()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> Result:
        """Wait for its end."""
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it did not end"
        return Result(self.process.exitcode,
                      *(Path(f"{self.said}.{name}").read_text() for name in ("out", "err")))

    def alive(self) -> list[str]:
        """Living processes of its session: itself and what it has started, however orphaned."""
        table = subprocess.run(["ps", "-eo", "sid,stat,args"], capture_output=True, text=True,
                               check=True).stdout.splitlines()
        return [line for line in table if line.split()[0] == str(self.pid)
                and not line.split()[1].startswith("Z")]  # a zombie has ended


def _fresh(said: Path, job: Callable[[], int | None], change: Callable[[], None] | None) -> None:
    """What the child does: its output goes to files, its signals are those of a new process."""
    os.setsid()
    for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
        with Path(f"{said}.{name}").open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    if change is not None:
        change()
    sys.exit(job())


def _command(script: str, flags: list[str]) -> int:
    with alone(str(Path(script).parent)):
        module = importlib.import_module(Path(script).stem)
        sys.argv = [str(CODE / script), *flags]
        return exit_status(module.main)


def fit(*given: Any, **named: Any) -> State:
    """Train a run to its end, as stages.train() does."""
    one = Fit(*given, **named)
    one.start()
    while one.due():
        one.epoch()
    return one.state


def slowly(log: Path, pause: float) -> None:
    """Make a checkpoint after every epoch, note each epoch as it begins, and pause in it."""
    training.CHECKPOINT_EVERY, training.CHECKPOINT_SHARE = 0, float("inf")
    train_epoch = Fit.epoch

    def epoch(self: Fit) -> None:
        with log.open("a") as file:
            file.write(f"{self.run.name} {self.state.epoch + 1}\n")
        time.sleep(pause)
        train_epoch(self)
    Fit.epoch = epoch  # type: ignore[method-assign]
    forked()


def forked() -> None:
    """Let workers and ranks be forks of the command's process: there at once, and changed as it."""
    multiprocessing.get_context = launcher.get_context = (  # type: ignore[assignment]
        lambda method: ForkContext())


def noted(log: Path) -> list[tuple[str, int]]:
    """(run, epoch) of every epoch begun."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def until(holds: Callable[[], Any], within: float = PATIENCE) -> Any:
    """Wait until something holds; returns it."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with suppress(OSError):  # a file that is being replaced
            if found := holds():
                return found
        time.sleep(0.02)
    raise AssertionError(f"it did not happen within {within} s")
