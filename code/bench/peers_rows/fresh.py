"""A part of a way in a fresh process: its seconds, and the memory of it and its children."""

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NamedTuple

import torch

from bench.peers_rows.plan import Plan
from bench.peers_rows.usual import Watch
from common.errors import InputError

CODE = Path(__file__).resolve().parents[2]
LOOK = 1.0     # seconds between two looks at the memory: one takes 12 ms a process or so
LAST = 15      # lines of a process's errors that are told
Figures = dict[str, float]

# The cores are given away before anything counts them.
PROGRAM = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[3])])
sys.path.insert(0, ".")
from bench.peers_rows import fresh
fresh.child(*sys.argv[1:3])
"""


class Way(NamedTuple):
    """One way of the same run, by the module that has its run() and perhaps prepare()."""

    name: str        # in the records
    heading: str     # of its columns
    module: str
    prepares: bool = True
    needs: str = ""  # a package that the environment may lack


OURS = Way("ours", "this project", "ours")
WAYS = {"3d": [OURS, Way("monai", "MONAI", "monai_way", needs="monai"),
               Way("earlier", "the earlier way", "earlier_3d")],
        "2d": [OURS, Way("torchvision", "torchvision", "torchvision_way", prepares=False),
               Way("earlier", "the earlier way", "earlier_2d")]}


def measured(way: Way, part: str, plan: Plan) -> Figures:
    """Do ``part`` of a way ("prepare" or "run") in a fresh process, by the figures of child().

    Beside them "command", seconds from its start to its end, "cpu", those of all its cores and
    children, and "memory", MiB at the most. InputError with its last words if it fails.
    """
    file = plan.write(Path(plan.folder) / f"{part}.json")
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        begun, spent, most = time.perf_counter(), _cpu(), 0.0
        with subprocess.Popen([sys.executable, "-c", PROGRAM, f"{way.module}.{part}", str(file),
                               str(plan.cores)], cwd=CODE, stdout=out,
                              stderr=errors) as process:
            try:
                while process.poll() is None:
                    most = max(most, memory(process.pid))
                    time.sleep(LOOK)
            except BaseException:
                process.kill()
                raise
        taken = time.perf_counter() - begun
        said, wrong = (_read(stream) for stream in (out, errors))
    if process.returncode:
        raise InputError(f"{way.heading}, {part}, in {plan.folder}: ended with "
                         f"{process.returncode}\n" + "\n".join(wrong[-LAST:]))
    return {**json.loads(said[-1]), "command": taken, "cpu": _cpu() - spent, "memory": most}


def _cpu() -> float:
    """Processor seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read(stream: IO[bytes]) -> list[str]:
    stream.seek(0)
    return stream.read().decode(errors="replace").splitlines()


def child(job: str, file: str) -> None:
    """Do a part of a way, and print its figures: seconds by name, and the score of a run."""
    module, part = job.split(".")
    plan = Plan.read(Path(file))
    torch.set_num_threads(plan.cores)
    print(json.dumps(done(module, part, plan)), flush=True)


def done(module: str, part: str, plan: Plan) -> Figures:
    """Do a part of a way in this process."""
    way, watch = importlib.import_module(f"bench.peers_rows.{module}"), Watch()
    if part == "run":
        score = way.run(plan, watch)
        return {**dict.fromkeys(("data", "validation"), 0.0), **watch.seconds, "score": score}
    way.prepare(plan, watch)
    return watch.seconds


def torch_alone() -> float:
    """MiB that a process holds which has imported torch and done nothing else."""
    program = "import time, torch; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = memory(process.pid)
        process.kill()
    return found


def memory(pid: int) -> float:
    """MiB that a process and its children hold, a page that several share counted once (PSS)."""
    try:
        shares = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        own = next(int(line.split()[1]) for line in shares.splitlines() if line.startswith("Pss:"))
        tasks = [Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="utf-8")
                 for task in os.listdir(f"/proc/{pid}/task")]
    except (OSError, StopIteration):  # it has ended meanwhile
        return 0.0
    return own / 1024 + sum(memory(int(one)) for text in tasks for one in text.split())
