"""All runs of an experiment: which there are, what they will cost, and who trains which.

Processes share the grid by claims alone (an exclusive lock per run that dies with its process):
each takes the next run whose encoder exists. Nothing else schedules runs, so torchrun, srun or N
shells may start exp.py as often as they like.
"""

import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from common import memory, records
from common.arms import BASELINE
from common.errors import InputError, RunFailed, disk_problem
from common.experiment import (
    Study,
    duplicates,
    encoder_damage,
    load_cases,
    train,
)
from common.progress import Progress
from common.records import Run
from common.task import Batch, nested
from common.training import generator

LOOK_AGAIN = 1.0   # seconds between looks for a run that another process may have freed
CPU_HOURS = 24     # a longer estimate without a GPU has to be asked for with --device cpu


@dataclass(frozen=True)
class Job:
    """One run of the grid and its cost; the identity is made anew at each look.

    (An encoder's weights become part of the finetuning runs' identity once they exist.)
    """

    make: Callable[[], Run]
    needs: Callable[[], Run] | None  # the pretraining run it starts from
    steps: int                       # at most
    work: float                      # voxels through the downstream network, at most

    def ready(self) -> bool:
        """Whether the encoder it starts from exists."""
        return self.needs is None or self.needs().done()


def run(study: Study, device: torch.device, workers: int) -> int:
    """Say what will be done, and do what is not done yet; exit status 1 if any run failed."""
    jobs = plan(study)
    mend(jobs)
    check_stale(jobs, rerun=study.settings.RERUN)
    announce(study, jobs, device, workers)
    return work(study, device, workers)


def plan(study: Study) -> list[Job]:
    """Every run: pretraining first, the longest first, then finetuning by fraction."""
    s = study.settings
    pretexts = [task for task in s.TASKS if study.pretrained_here(task)]
    jobs = []
    for task in pretexts:
        recipe = study.pretext_recipe(study.pretext(task), 0)
        steps = recipe.epochs * recipe.steps
        work = steps * recipe.batch_size * view_voxels(study, task) * study.encoder_share
        jobs += [Job(partial(study.pretrain_run, task, seed), None, steps, work)
                 for seed in s.SEEDS]
    jobs.sort(key=lambda job: -job.work)
    for fraction in sorted(s.FRACTIONS):
        for task in s.TASKS:
            recipe = study.finetune_recipe(task, fraction, s.SEEDS[0])
            steps = recipe.epochs * recipe.steps
            work = float(steps * recipe.batch_size * s.RESOLUTION**study.dimensions)
            jobs += [Job(partial(study.finetune_run, task, fraction, seed),
                         partial(study.pretrain_run, task, seed) if task in pretexts else None,
                         steps, work) for seed in s.SEEDS]
    return jobs


def view_voxels(study: Study, name: str) -> int:
    """Voxels of all views of one case of a pretext task, or of one case of the baseline."""
    space = (study.settings.RESOLUTION,) * study.dimensions
    if name == BASELINE:
        return int(math.prod(space))
    batch = Batch(list(torch.zeros(2, 1, *space)), None, [0, 1])
    views, _ = study.pretext(name).prepare(batch, generator(0, "plan"), training=False)
    sizes = nested(lambda each: each[0].numel(), views)
    return sum(sizes) if isinstance(sizes, tuple) else int(sizes)


def mend(jobs: Sequence[Job]) -> None:
    """Set runs with damaged records or encoders aside, saying so; they are then trained anew."""
    for job in jobs:  # pretraining first: finetuning runs read its scores
        run = job.make()
        if _damage(run) is None:
            continue
        with run.claim() as mine:  # looked at again: another process may have mended it meanwhile
            if mine and (damage := _damage(run)):
                print(f"warning: {damage}; {run.name} is set aside as {run.set_aside().name} and "
                      "trained anew", file=sys.stderr)


def _damage(run: Run) -> str | None:
    """What is wrong with a run's records or its encoder, in one line; None if they are sound."""
    damage = run.damage()
    if damage is None and run.identity["stage"] == "pretrain" and run.done():
        return encoder_damage(run)
    return damage


def check_stale(jobs: Sequence[Job], *, rerun: bool) -> None:
    """Stop before training if runs on disk were made with other settings, or set them aside."""
    stale = [(run, changes) for run in (job.make() for job in jobs) if (changes := run.changes())]
    if stale and not rerun:
        run, changes = stale[0]
        raise InputError(f"{run.folder}: made with other settings ({'; '.join(changes[:4])}), as "
                         f"were {len(stale) - 1} more runs; give --results OTHER to keep both, or "
                         "--rerun to set the old ones aside")
    for run, _ in stale:
        with run.claim() as mine:
            if not mine:
                raise InputError(f"{run.folder}: another process is training it; stop that first")
            print(f"set aside: {run.name} -> {run.set_aside().name}")


def estimate(study: Study, jobs: Sequence[Job], workers: int) -> float:
    """Hours the unfinished runs take on the CPU at most, from one small timed training step."""
    torch.set_num_threads(study.settings.THREADS)
    network = study.make_network(study.make_encoder())
    images = torch.rand(2, study.channels, *(study.probe,) * study.dimensions)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        network(images).square().mean().backward()
        optimiser.step()
        taken = time.perf_counter() - started
    left = sum(job.work for job in jobs if not job.make().done())
    return left * taken / (2 * study.probe**study.dimensions) / workers / 3600


def announce(study: Study, jobs: Sequence[Job], device: torch.device, workers: int) -> None:
    """Say what will be done before doing it; InputError if that is a day or more unasked for."""
    s, parts = study.settings, study.splits
    done = sum(job.make().done() for job in jobs)
    first = sum(job.make().identity["stage"] == "pretrain" for job in jobs)
    leaked = len(set(study.pool) & {*parts.test, *parts.val})
    twins = duplicates(study.cache)
    print(f"data      {study.dataset}{' (generated)' if study.generated else ''}: "
          f"{study.cache.labelled} labelled, {len(study.cache.facts) - study.cache.labelled} "
          f"unlabelled cases; classes {', '.join(study.classes)}\n"
          f"splits    {len(parts.train)} train, {len(parts.val)} validation, {len(parts.test)} test"
          f" ({study.folder / 'splits.json'})\n"
          f"twins     exact duplicates: {len(twins.groups)} cases kept on one side, "
          f"{len(twins.contradicting)} left out for contradicting labels, "
          f"{len(twins.unlabelled)} unlabelled left out\n"
          f"pool      {len(study.pool)} cases to pretrain on; "
          f"test cases in the pretraining pool: {leaked}\n"
          f"runs      {len(jobs)}: {first} pretraining, {len(jobs) - first} finetuning; "
          f"{done} done, {len(jobs) - done} to do\n"
          f"          tasks {' '.join(s.TASKS)}; fractions {' '.join(map(str, s.FRACTIONS))} %; "
          f"seeds {' '.join(map(str, s.SEEDS))}\n"
          f"device    {device}, {study.precision}, {workers} runs at a time")
    if device.type == "cpu" and done < len(jobs):
        hours = estimate(study, jobs, workers)
        print(f"time      at most about {_hours(hours)}, estimated from one small step")
        if hours > CPU_HOURS and s.DEVICE != "cpu":
            raise InputError(f"no usable GPU, and on this CPU all runs would take about "
                             f"{_hours(hours)}; give --device cpu to do it all the same, or make it"
                             " smaller: --resolution 32 --levels 2, --pretext-epochs, "
                             "--finetune-epochs, --tasks, --fractions, --seeds")


def _hours(hours: float) -> str:
    return f"{hours:.0f} hours" if hours >= 10 else (
        f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(hours * 60))} minutes")


def work(study: Study, device: torch.device, workers: int) -> int:
    """Train every unfinished run, ``workers`` at a time; exit status 1 if any failed."""
    jobs = plan(study)
    for job in jobs:
        (job.make().folder / "failed.json").unlink(missing_ok=True)  # another start, another try
    progress = Progress(sum(job.work for job in jobs if not job.make().done()))
    try:
        _share(study, device, workers, progress)
    except KeyboardInterrupt as stop:
        raise type(stop)(progress.where()) from None
    progress.close()
    return _summary(study, progress.failures)


def _share(study: Study, device: torch.device, workers: int, progress: Progress) -> None:
    """Train in this process, or in several that share the runs by their claims."""
    if workers == 1:
        _work(study, device, progress.put)
    else:
        context = multiprocessing.get_context("spawn")  # a fork would share torch's threads
        queue = context.Queue()
        processes = [context.Process(target=_worker, daemon=True,
                                     args=(study, _own(device, index), queue.put, os.getpid()))
                     for index in range(workers)]
        for process in processes:
            process.start()
        progress.follow(queue, processes)


def _own(device: torch.device, index: int) -> torch.device:
    """The device of the worker with this index: GPUs in turn."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", index % torch.cuda.device_count())
    return device


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
    torch.set_num_threads(study.settings.THREADS)
    if device.type == "cpu":
        memory.keep()
    torch.backends.cudnn.benchmark = True  # sizes never change within a run
    cases = load_cases(study, device)
    provenance = records.provenance(str(device), study.settings.THREADS)
    jobs = plan(study)
    while jobs:
        jobs = [job for job in jobs if not job.make().done() and not _failed(job)]
        try:
            if not any(_train_if_free(study, job, cases, provenance, put) for job in jobs):
                time.sleep(LOOK_AGAIN)
        except RunFailed:  # told already, but not recorded: going on would try it for ever
            return


def _failed(job: Job) -> bool:
    """Whether the run, or the pretraining it needs, has failed since the command was started."""
    runs = [job.make()] if job.needs is None else [job.make(), job.needs()]
    return any((run.folder / "failed.json").exists() for run in runs)


def _train_if_free(study: Study, job: Job, cases: Any, provenance: records.Json,
                   put: Callable[[Any], None]) -> bool:
    """Train the job's run if its encoder exists and no other process holds it."""
    if not job.ready():
        return False
    run = job.make()
    with run.claim() as mine:
        if not mine or run.done():
            return False
        unit = job.work / job.steps
        reported = 0

        def report(steps: int) -> None:
            nonlocal reported
            reported += steps
            put(("work", run.name, steps * unit))
        try:
            if run.changes():
                raise RunFailed(f"{run.name}: begun with other settings or another encoder "
                                f"({run.changes()[0]}); start again with --rerun")
            run.start(provenance)
            started = time.monotonic()
            line = train(study, run, cases, report)
            put(("work", run.name, (job.steps - reported) * unit))  # patience may have saved steps
            put(("done", run.name, f"{line}, {time.monotonic() - started:.0f} s"))
        except (RunFailed, InputError, OSError, RuntimeError) as error:
            if (text := _reason(run, error)) is None:
                raise
            with suppress(OSError):  # a full disk takes no more records
                records.write_json(run.folder / "failed.json", {"reason": text})
            put(("failed", run.name, text))
            if not _failed(job):
                raise RunFailed(text) from None
    return True


def _reason(run: Run, error: Exception) -> str | None:
    """One line on why a run could not be trained; None if it is a defect of the program."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{run.name}: out of GPU memory; lower BATCH_SIZE, RESOLUTION or WORKERS"
    if isinstance(error, OSError):
        problem = disk_problem(error)
        return f"{run.name}: {problem}" if problem else None
    if isinstance(error, RuntimeError):
        full = "allocate memory" in str(error)
        return f"{run.name}: out of memory; lower BATCH_SIZE, RESOLUTION or WORKERS" if full else (
            None)
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
