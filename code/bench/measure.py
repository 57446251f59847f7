"""Time and memory: medians over interleaved rounds, peaks of fresh processes, counted FLOPs."""

import gc
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.machine import limits

MIB = 2**20
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the product that rates a device


@dataclass(frozen=True)
class Sizes:
    """How large the work is that is measured."""

    scan: tuple[int, int, int]     # voxels of the scan that is preprocessed
    side: int                      # voxels a side of views and batches
    pool: tuple[int, int]          # pairs preprocessed by a pool; the difference excludes its start
    pictures: int                  # photographs decoded
    growth: tuple[int, ...]        # scans
    volumes: tuple[str, ...]       # flags of code/3d/exp.py
    photographs: tuple[str, ...]   # flags of code/2d/exp.py
    few_voxels: tuple[str, ...]    # of code/3d/exp.py, where every arm's step is timed
    few_pixels: tuple[str, ...]    # of code/2d/exp.py, likewise


@dataclass(frozen=True)
class Row:
    """One line of the table: the project beside the plain way, measured in the same run."""

    what: str
    ours: float | None       # None: it could not be done, the note says why
    plain: float | None      # None: nothing to compare with
    unit: str
    target: str = ""         # issue's words, for two idle CPU cores
    met: bool | None = None  # None: no target on this device
    note: str = ""
    details: dict[str, float] = field(default_factory=dict)  # for the JSON

    @property
    def ratio(self) -> float | None:
        """How many times less the project takes than the plain way."""
        return None if self.plain is None or not self.ours else self.plain / self.ours


def machine(packages: Sequence[str]) -> str:
    """Processor and versions: what numbers measured here hold for."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines()
              if line.startswith("model name")] if info.exists() else []
    processor = models[0] if models else platform.machine()
    return (f"{limits.cores()} cores of {processor}; Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in packages))


def wait(device: torch.device) -> None:
    """Let queued work of a GPU end, so that time is that of the work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, rounds: int, *jobs: Callable[[], Any]) -> list[float]:
    """Median time of each job over ``rounds``, in turns so that noise meets all of them alike.

    One round before is not counted: memory formats, kernels and caches settle in it.
    """
    times: list[list[float]] = [[] for _ in jobs]
    for turn in range(rounds + 1):
        for taken, job in zip(times, jobs, strict=True):
            gc.collect()
            wait(device)
            started = time.perf_counter()
            job()
            wait(device)
            if turn:
                taken.append(time.perf_counter() - started)
    return [median(taken) for taken in times]


def gpu_peak(device: torch.device, job: Callable[[], Any]) -> float | None:
    """MiB of GPU memory a job takes at most; None on the CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    job()
    return torch.cuda.max_memory_allocated(device) / MIB


def flops(job: Callable[[], Any]) -> float:
    """Floating-point operations of matrix products and convolutions in a job."""
    with FlopCounterMode(display=False) as counter:
        job()
    return float(counter.get_total_flops())


def matrix_rate(device: torch.device, precision: torch.dtype, size: int = 0) -> float:
    """FLOP/s of a large matrix product: what the device reaches at best in practice."""
    size = size or MATRIX[device.type]
    a = torch.rand(size, size, device=device).to(precision)
    return 2 * size**3 / seconds(device, 5, lambda: a @ a)[0]


def in_new_process(program: str, *arguments: str) -> Any:
    """Run a Python program that prints one JSON value last; return that value."""
    code = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=code, check=True,
                          capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def high_water() -> float:
    """The most memory this process has held, MiB (Linux)."""
    return _status("VmHWM")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


class Anonymous:
    """The most memory this process holds of its own, pages mapped from files not counted, MiB."""

    def __init__(self) -> None:
        self.most, self.over = 0.0, Event()
        self.thread = Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self.over.wait(0.01):
            self.most = max(self.most, _status("RssAnon"))

    def __enter__(self) -> "Anonymous":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
