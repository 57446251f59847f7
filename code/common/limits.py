"""What this process may use of the machine: cores and memory, within its control group's limits.

A container or a batch job often gets less than the machine has; its limits stand in the files of
its control group (cgroup) and of every group around it. Source: the kernel's admin-guide, cgroup-v2
(cpu.max, memory.max) and cgroup-v1 (cpu.cfs_quota_us, memory.limit_in_bytes).
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

OWN = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


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
