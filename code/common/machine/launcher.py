"""New processes that train one run together, each a rank of a group."""

import os
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from common.errors import RunFailed, deaf, end_with
from common.machine import limits
from common.machine.parallel import leads

TIMEOUT = timedelta(hours=1)  # of a wait for other ranks: longer than a validation takes

Report = Callable[[int], None]


class Member(NamedTuple):
    """One rank of a group, its device, where the group meets, and who started it."""

    rank: int
    ranks: int
    device: torch.device
    meeting: Path
    parent: int  # process number


def launch(devices: Sequence[torch.device], job: Callable[[torch.device, Report], str],
           report: Report) -> str:
    """Run ``job`` as a group, one new process a device; return what it returns on the first.

    ``job`` must be picklable; what it reports on the first rank is passed on. If a rank fails, all
    are ended: RunFailed with its reason, or RuntimeError with its traceback for a defect.
    """
    context = get_context("spawn")
    with limits.sharing():
        queue = context.Queue()
    with TemporaryDirectory(prefix="ranks-") as folder:
        processes = [context.Process(
            target=_member, daemon=True,
            args=(Member(number, len(devices), device, Path(folder) / "meet", os.getpid()), job,
                  queue))
            for number, device in enumerate(devices)]
        try:
            with deaf():
                for process in processes:
                    process.start()
            return _follow(processes, queue, report)
        finally:
            for process in processes:
                if process.pid is not None:
                    process.kill()  # one that waits for a lost rank would not end by itself
                    process.join()


def _follow(processes: Sequence[BaseProcess], queue: Any, report: Report) -> str:
    """Pass reports on until the first rank is done or any has failed."""
    broken = ""
    while True:
        try:
            kind, what = queue.get(timeout=0.5)
        except Empty:
            ends = [process.exitcode for process in processes if process.exitcode]
            if ends and min(ends) < 0:
                raise RunFailed(f"a rank was ended by signal {-min(ends)} (killed, or out of "
                                "memory)") from None
            if broken or ends:
                raise RuntimeError(broken or f"a rank ended with status {ends[0]}") from None
            continue
        if kind == "work":
            report(what)
        elif kind == "done":
            return str(what)
        elif kind == "failed":
            raise RunFailed(what)
        else:  # perhaps only for the loss of a rank that tells, or shows, another reason
            broken = broken or what


def _member(self: Member, job: Callable[[torch.device, Report], str], queue: Any) -> None:
    """One rank: join the group, do the job, tell how it ended."""
    end_with(self.parent)
    on_card = self.device.type == "cuda"
    try:
        if on_card:
            torch.cuda.set_device(self.device)
        else:  # a machine's name need not resolve to an address that gloo could take
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("nccl" if on_card else "gloo", rank=self.rank,
                                world_size=self.ranks, init_method=self.meeting.as_uri(),
                                timeout=TIMEOUT)
        line = job(self.device, (lambda steps: queue.put(("work", steps))) if leads() else _silent)
        if leads():
            queue.put(("done", line))
        dist.destroy_process_group()
    except RunFailed as error:
        queue.put(("failed", str(error)))
    except Exception:
        queue.put(("broken", traceback.format_exc()))
        queue.close()
        queue.join_thread()
        os._exit(1)  # not by way of clean-up that may wait for the other ranks


def _silent(steps: int) -> None:
    """Report nothing: the first rank does."""
