"""All runs of an experiment: who trains which.

Processes share the grid by claims alone (an exclusive lock per run that dies with its process):
each takes the next run whose encoder exists. Nothing else schedules runs, so torchrun, srun or N
shells may start exp.py as often as they like; what a killed one has begun, another goes on with.
"""

import io
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.errors import InputError, RunFailed, disk_problem
from common.files import Json, read_json, starting, write_json
from common.machine import devices, limits, parallel
from common.machine.launcher import Report, launch
from common.runs import records, snapshots
from common.runs.announce import announce
from common.runs.mending import check_stale, mend
from common.runs.plan import Job, check_ranks, plan
from common.runs.progress import Progress
from common.runs.records import Run, SilentRun
from common.runs.stages import load_cases, train
from common.runs.study import Study

LOOK_AGAIN = 1.0   # seconds between looks for a run that another process may have freed

Trains = Callable[[Run, Report], str]


def run(study: Study, places: Sequence[torch.device], workers: int) -> int:
    """Say what will be done, and do what is not done yet; exit status 1 if any run failed.

    ``places`` are the devices that the workers get in turn.
    """
    jobs = plan(study)
    check_ranks(study)
    with starting(study.folder):
        mend(jobs)
        check_stale(jobs, rerun=study.settings.RERUN)
    quiet = devices.place().rank > 0  # one of those started together says it for all
    with redirect_stdout(io.StringIO()) if quiet else nullcontext():
        announce(study, jobs, places, workers)
    status = work(study, places, workers)
    snapshots.save(study, places[0])
    return status


def work(study: Study, places: Sequence[torch.device], workers: int) -> int:
    """Train every unfinished run, ``workers`` at a time; exit status 1 if any failed."""
    jobs = plan(study)
    for job in jobs:
        _failure(job.make()).unlink(missing_ok=True)  # another start, another try
    left = [job for job in jobs if not job.make().done()]
    progress = Progress(sum(job.work for job in left))
    try:
        if left:
            _share(study, places, min(workers, len(left)), progress)
        if workers > len(places) and (crowded := [job for job in jobs if _was_crowded(job)]):
            print(f"memory    {len(crowded)} runs did not fit beside another on their GPU; once "
                  "more, each alone", flush=True)
            for job in crowded:
                with suppress(ValueError):  # another process may have told it
                    progress.failures.remove(read_json(_failure(job.make()))["reason"])
                _failure(job.make()).unlink(missing_ok=True)
            _share(study, places, len(places), progress)
    except KeyboardInterrupt as stop:
        raise type(stop)(progress.where()) from None
    progress.close()
    return _summary(study, progress.failures)


def _share(study: Study, places: Sequence[torch.device], workers: int, progress: Progress) -> None:
    """Train in this process, or in several that share the runs by their claims."""
    if workers == 1:
        _work(study, places[0], progress.put)
        return
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    queue = context.Queue()
    processes = [context.Process(
        target=_worker,
        daemon=study.settings.RANKS_PER_RUN == 1,  # daemons may not have the ranks as children
        args=(study, places[index % len(places)], queue.put, os.getpid()))
        for index in range(workers)]
    try:
        for process in processes:
            process.start()
        progress.follow(queue, processes)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def _worker(study: Study, device: torch.device, put: Callable[[Any], None], parent: int) -> None:
    """A worker process; ends with its parent, however that ends."""
    def put_or_end(event: Any) -> None:
        if os.getppid() != parent:
            sys.exit(1)
        put(event)
    try:
        _work(study, device, put_or_end)
    except KeyboardInterrupt:
        sys.exit(130)


def _work(study: Study, device: torch.device, put: Callable[[Any], None]) -> None:
    """Claim and train runs until none is left that could be trained."""
    trains = _trainer(study, device)
    provenance = records.provenance(str(device), study.settings.THREADS, devices.described(device))
    jobs = plan(study)
    lost: set[Path] = set()  # runs that others make with other settings meanwhile
    while jobs:
        jobs = [job for job in jobs if not job.make().done() and not _failed(job, lost)]
        try:
            if not any(_train_if_free(job, trains, provenance, put, lost) for job in jobs):
                time.sleep(LOOK_AGAIN)
        except RunFailed:  # told already, but not recorded: going on would try it for ever
            return


def _trainer(study: Study, device: torch.device) -> Trains:
    """What trains a run: this process, or RANKS_PER_RUN new ones."""
    ranks = study.settings.RANKS_PER_RUN
    if ranks > 1:
        places = [devices.of_rank(device, rank) for rank in range(ranks)]
        return lambda run, report: launch(places, partial(_train_rank, study, run), report)
    _set_up(study, device)
    cases = load_cases(study, device)
    return lambda run, report: train(study, run, cases, report)


def _train_rank(study: Study, run: Run, device: torch.device, report: Report) -> str:
    """Train a run as one of its ranks."""
    try:
        _set_up(study, device)
        cases = load_cases(study, device)
        if not parallel.leads():
            return train(study, SilentRun(run.folder, run.identity), cases, report)
        with run.writing():
            return train(study, run, cases, report)
    except (InputError, OSError, RuntimeError) as error:
        if (text := _reason(run, error)) is None:
            raise
        raise RunFailed(text) from None


def _set_up(study: Study, device: torch.device) -> None:
    """What holds for every run of this process."""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # else each process also takes memory of the first GPU
        # float32 means float32: TF32 keeps 10 bits of a factor, under the identity of the CPU's 23.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_num_threads(study.settings.THREADS)
    if device.type == "cpu":
        limits.keep_memory()
    torch.backends.cudnn.benchmark = True  # sizes never change within a run


def _failed(job: Job, lost: Collection[Path]) -> bool:
    """Whether the run, or the pretraining it needs, has failed since the command was started."""
    runs = [job.make()] if job.needs is None else [job.make(), job.needs()]
    return any(_failure(run).exists() or run.folder in lost for run in runs)


def _failure(run: Run) -> Path:
    """Where a run's failure is recorded."""
    return run.folder / "failed.json"


def _was_crowded(job: Job) -> bool:
    """Whether the run failed for want of GPU memory, which it may have had to share."""
    path = _failure(job.make())
    return path.exists() and bool(read_json(path).get("gpu memory"))


def _train_if_free(job: Job, trains: Trains, provenance: Json, put: Callable[[Any], None],
                   lost: set[Path]) -> bool:
    """Train the job's run if its encoder exists and no other process holds it."""
    if not job.ready():
        return False
    run = job.make()
    with run.claim() as mine:
        if not mine or run.done():
            return False
        if changes := run.changes():  # another's by now: nothing may be written there
            lost.add(run.folder)
            put(("failed", run.name, f"{run.name}: begun with other settings or another encoder "
                 f"({changes[0]}); start again with --rerun"))
            return True
        report = _Report(job, run, put)
        try:
            run.collect()
            run.start(provenance)
            line = trains(run, report)
            report.done(line)
        except (RunFailed, InputError, OSError, RuntimeError) as error:
            if (text := _reason(run, error)) is None:
                raise
            with suppress(OSError):  # a full disk takes no more records
                write_json(_failure(run), {
                    "reason": text, "gpu memory": isinstance(error, torch.OutOfMemoryError)})
            put(("failed", run.name, text))
            if not _failed(job, ()):
                raise RunFailed(text) from None
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # runs differ in their shapes, and others may share the card
    return True


class _Report:
    """Tells the progress of one run: steps resumed first, then steps done, then steps saved."""

    def __init__(self, job: Job, run: Run, put: Callable[[Any], None]) -> None:
        self.run, self.put, self.steps = run, put, job.steps
        self.unit = job.work / job.steps
        self.reported, self.kind = 0, "skip"
        self.started = time.monotonic()

    def __call__(self, steps: int) -> None:
        self.put((self.kind, self.run.name, steps * self.unit))
        self.reported, self.kind = self.reported + steps, "work"

    def done(self, line: str) -> None:
        """Patience may have saved steps."""
        self.put(("skip", self.run.name, (self.steps - self.reported) * self.unit))
        seconds = time.monotonic() - self.started
        self.put(("done", self.run.name, f"{line}, {seconds:.0f} s"))


def _reason(run: Run, error: Exception) -> str | None:
    """One line on why a run could not be trained; None if it is a defect of the program."""
    batch = {"pretrain": "PRETEXT_BATCH_SIZE", "finetune": "BATCH_SIZE"}[run.identity["stage"]]
    remedy = f"lower {batch}, RESOLUTION or WORKERS"
    if isinstance(error, torch.OutOfMemoryError):
        return f"{run.name}: out of GPU memory; {remedy}"
    if isinstance(error, OSError):
        problem = disk_problem(error)
        return f"{run.name}: {problem}" if problem else None
    if isinstance(error, RuntimeError):
        return f"{run.name}: out of memory; {remedy}" if "allocate memory" in str(error) else None
    return str(error).splitlines()[0]


def _summary(study: Study, failures: list[str]) -> int:
    """Print how it ended; 1 if a run failed."""
    left = [job.make().name for job in plan(study) if not job.make().done()]
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    if left:
        print(f"{len(left)} runs are not done ({', '.join(left[:3])}...); the same command goes on",
              file=sys.stderr)
        return 1
    print(f"all runs are done; records in {study.folder}")
    return 0
