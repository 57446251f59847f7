"""What this process may use of the machine, and how it keeps its memory; imports no torch.

A container or a batch job often gets less than the machine has; its limits stand in the files of
its control group (cgroup) and of every group around it. Source: the kernel's admin-guide, cgroup-v2
(cpu.max, memory.max) and cgroup-v1 (cpu.cfs_quota_us, memory.limit_in_bytes).
"""

import ctypes
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from common.errors import InputError

OWN = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
SHARED = Path("/dev/shm")  # where Linux keeps what processes share
# Parameters of mallopt(3): freed memory is kept, and no large block is mapped apart.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
NEVER, AHEAD, NONE = -1, 64 << 20, 0
USUAL = {M_TRIM_THRESHOLD: 128 << 10, M_TOP_PAD: 128 << 10, M_MMAP_MAX: 65536}  # glibc's
KEPT = {M_TRIM_THRESHOLD: NEVER, M_TOP_PAD: AHEAD, M_MMAP_MAX: NONE}
in_force = dict(USUAL)  # of this process


def cores() -> int:
    """Processor cores this process may use, at least one."""
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)
    return max(1, min([machine, *map(math.ceil, _shares())]))


def memory() -> int:
    """Bytes of main memory this process may use."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_bytes()])


def _shares() -> Iterator[float]:
    """Cores' worth of time a period that each group around this process may use."""
    for folder in _groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:  # version 1
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):
            yield int(quota) / int(period)


def _bytes() -> Iterator[int]:
    """Bytes of memory that each group around this process may use."""
    for folder in _groups("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        if limit.isdigit():  # "max": none
            yield int(limit)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the group of this process that has ``controller``, and of all groups around it."""
    for line in _read(OWN).splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS if number == "0" and not controllers else GROUPS / controller
        group = root / path.lstrip("/")
        yield from (folder for folder in (group, *group.parents)
                    if folder == root or root in folder.parents)


def _read(file: Path) -> str:
    """The text of a file, empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@contextmanager
def sharing() -> Iterator[None]:
    """Make what processes meet by, semaphores; InputError where there is no room for one.

    They are all that this code has in shared memory: arrays go through pipes and files. NCCL has
    more there, of the ranks of a run on cards.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise InputError(shared_problem(str(error.strerror))) from None


def shared_problem(found: str) -> str:
    """One line on shared memory that is full or not there, with the remedy."""
    try:
        room = shutil.disk_usage(SHARED)
        found += f"; {room.free / 1e6:.1f} of {room.total / 1e6:.1f} MB are free"
    except OSError:
        found += "; it is not there"
    return (f"{SHARED}: {found}, and processes that work together need some; remove what ended "
            "programs left there, or give the container more (docker run --shm-size=1g)")


def keep_memory() -> None:
    """Let this process keep freed memory for its next step or case (glibc only).

    By default every large array is mapped anew and its pages are cleared by the system: a quarter
    of the time of a 3D training step on the CPU, and of preprocessing a small scan (measured).
    Numbers do not change.
    """
    _set(KEPT)


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Within, keep_memory(); afterwards, unless it held before, what is free is given back."""
    before = dict(in_force)
    keep_memory()
    try:
        yield
    finally:
        if before != KEPT and _set(before):
            ctypes.CDLL(None).malloc_trim(0)


def _set(parameters: Mapping[int, int]) -> bool:
    """Set parameters of glibc's malloc; whether it is there."""
    in_force.update(parameters)
    there = platform.libc_ver()[0] == "glibc"
    if there:
        for parameter, value in parameters.items():
            ctypes.CDLL(None).mallopt(parameter, value)
    return there
