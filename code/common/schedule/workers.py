"""Who trains which run: processes that claim them, one after another.

Processes share the grid by claims alone (an exclusive lock per run that dies with its process):
each takes the next run whose encoder exists. Nothing else schedules runs, so torchrun, srun or N
shells may start exp.py as often as they like; what a killed one has begun, another goes on with.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common.errors import (
    InputError,
    RunFailed,
    Terminated,
    deaf,
    disk_problem,
    ending,
    stopper,
)
from common.files import read_json, write_json
from common.machine import devices, limits, parallel
from common.machine.launcher import Report, launch
from common.runs import records
from common.runs.records import Run, SilentRun
from common.runs.stages import load_cases, train
from common.runs.study import Study, results_folder
from common.schedule.plan import Job
from common.schedule.progress import Progress
from common.tasks.batches import Cases
from common.track.tracked import begin, tracked

LOOK_AGAIN = 1.0   # seconds between looks for a run that another process may have freed

Jobs = Callable[[Study], list[Job]]  # which runs there are: plan.plan, or the trials of --tune


def work_off(study: Study, jobs_of: Jobs, places: Sequence[torch.device],
             workers: int) -> list[str]:
    """Train the runs of ``jobs_of`` that are not done; returns why some could not be.

    ``places`` are the devices that the workers get in turn.
    """
    jobs = jobs_of(study)
    for job in jobs:
        _failure(job.make()).unlink(missing_ok=True)  # another start, another try
    left = [job for job in jobs if not job.make().done()]
    progress = Progress(sum(job.work for job in jobs),
                        behind={job.make().name: job.behind() for job in jobs})
    crew = partial(_share, study, jobs_of)
    try:
        if left:
            if (kind := study.settings.TRACK) != "none":
                begin(kind, results_folder(study.settings), study.folder)
            crew(places, min(workers, len(left)), progress)
        if workers > len(places) and (crowded := [job for job in jobs if _was_crowded(job)]):
            _forget(crowded, progress)
            crew(places, len(places), progress)
    except KeyboardInterrupt as stop:
        raise type(stop)(progress.where(sum(job.behind() for job in jobs))) from None
    progress.close()
    return progress.failures


def _forget(crowded: Sequence[Job], progress: Progress) -> None:
    """Let runs that did not fit beside another on their GPU be tried again, each alone."""
    print(f"memory    {len(crowded)} runs did not fit beside another on their GPU; once more, each "
          "alone", flush=True)
    for job in crowded:
        with suppress(ValueError):  # another process may have told it
            progress.failures.remove(read_json(_failure(job.make()))["reason"])
        _failure(job.make()).unlink(missing_ok=True)


def _share(study: Study, jobs_of: Jobs, places: Sequence[torch.device], workers: int,
           progress: Progress) -> None:
    """Train in several processes that share the runs by their claims; in this one for one."""
    if workers == 1:
        Worker(study, jobs_of, places[0], progress.put).work()
        return
    context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
    with limits.sharing():
        queue = context.Queue()
    processes = [context.Process(
        target=_in_process,
        daemon=study.settings.RANKS_PER_RUN == 1,  # daemons may not have the ranks as children
        args=(study, jobs_of, places[index % len(places)], queue.put, os.getpid()))
        for index in range(workers)]
    try:
        with deaf():
            for process in processes:
                process.start()
        progress.follow(queue, processes)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()


def _in_process(study: Study, jobs_of: Jobs, device: torch.device, put: Callable[[Any], None],
                parent: int) -> None:
    """A worker process; ends with its parent, however that ends."""
    def put_or_end(event: Any) -> None:
        if os.getppid() != parent:
            sys.exit(1)
        put(event)
    if study.settings.RANKS_PER_RUN > 1:  # else it ends at once, in the middle of a step
        signal.signal(signal.SIGTERM, stopper())
    try:
        Worker(study, jobs_of, device, put_or_end).work()
    except Terminated:
        ending()
        sys.exit(143)


class Worker:
    """Claims and trains runs, one after another, on one device; ``put`` takes what it tells."""

    def __init__(self, study: Study, jobs_of: Jobs, device: torch.device,
                 put: Callable[[Any], None]) -> None:
        self.study, self.jobs_of, self.device, self.put = study, jobs_of, device, put
        self.provenance = records.provenance(str(device), study.settings.THREADS,
                                             devices.described(device))
        self.lost: set[Path] = set()  # runs that others make with other settings meanwhile
        self.cases: Cases | None = None  # held here unless new processes train each run
        if study.settings.RANKS_PER_RUN == 1:
            _set_up(study, device)
            self.cases = load_cases(study, device)

    def work(self) -> None:
        """Train until no run is left that could be trained."""
        jobs = self.jobs_of(self.study)
        while jobs := [job for job in jobs
                       if not job.make().done() and not _failed(job, self.lost)]:
            trained = False
            for job in jobs:
                with self._claimed(job) as report:
                    if report is None:
                        continue
                    trained = True
                    if self.cases is None:
                        line = self._launch(report)
                    else:
                        line = train(self.study, report.run, self.cases, report)
                    report.done(line)
                break  # the longest that is free comes next
            if not trained:
                time.sleep(LOOK_AGAIN)

    def _launch(self, report: "_Report") -> str:
        """Train a run by RANKS_PER_RUN new processes."""
        places = [devices.of_rank(self.device, rank)
                  for rank in range(self.study.settings.RANKS_PER_RUN)]
        return launch(places, partial(_train_rank, self.study, report.run), report)

    @contextmanager
    def _claimed(self, job: Job) -> Iterator["_Report | None"]:
        """Hold the job's run if its encoder exists and no other process holds it, else None.

        What goes wrong in training it is recorded and told.
        """
        run = job.make()
        if not job.ready():
            yield None
            return
        with run.claim() as mine:
            if not mine or run.done():
                yield None
                return
            if changes := run.changes():  # another's by now: nothing may be written there
                self.lost.add(run.folder)
                self.put(("failed", run.name, f"{run.name}: begun with other settings or another "
                          f"encoder ({changes[0]}); start again with --rerun"))
                yield None
                return
            try:
                run.collect()
                run.start(self.provenance)
                yield _Report(job, _told(self.study, run), self.put)
            except (RunFailed, InputError, OSError, RuntimeError) as error:
                self._give_up(job, run, error)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # runs differ in their shapes, and others may share the card

    def _give_up(self, job: Job, run: Run, error: Exception) -> None:
        """Record and tell why a run could not be trained; a defect of the program is raised."""
        if (text := _reason(run, error)) is None:
            raise error
        with suppress(OSError):  # a full disk takes no more records
            write_json(_failure(run), {
                "reason": text, "gpu memory": isinstance(error, torch.OutOfMemoryError)})
        self.put(("failed", run.name, text))
        if not _failed(job, ()):
            self.lost.add(run.folder)  # told, but not recorded: going on would try it for ever


def _told(study: Study, run: Run) -> Run:
    """The run as it is, or one that also tells a tracker what it logs."""
    if (kind := study.settings.TRACK) == "none":
        return run
    return tracked(run, kind, results_folder(study.settings))


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
    batch = {"pretrain": "PRETEXT_BATCH_SIZE"}.get(run.identity["stage"], "BATCH_SIZE")
    remedy = f"lower {batch}, RESOLUTION or WORKERS"
    if isinstance(error, torch.OutOfMemoryError):
        return f"{run.name}: out of GPU memory; {remedy}"
    if isinstance(error, OSError):
        problem = disk_problem(error)
        return f"{run.name}: {problem}" if problem else None
    if isinstance(error, RuntimeError):
        if str(limits.SHARED) in str(error):  # NCCL's, of ranks on cards
            return f"{run.name}: {limits.shared_problem('No space left for NCCL')}"
        return f"{run.name}: out of memory; {remedy}" if "allocate memory" in str(error) else None
    return str(error).splitlines()[0]
