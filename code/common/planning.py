"""Which runs there are, in which order they are claimed, what they will cost; said beforehand."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from common import arms, devices
from common.errors import InputError
from common.experiment import Study
from common.heldout import duplicates
from common.progress import in_words
from common.records import Run
from common.task import Batch, nested
from common.training import generator

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
    finetunes: bool = False

    def ready(self) -> bool:
        """Whether the encoder it starts from exists."""
        return self.needs is None or self.needs().done()


def plan(study: Study) -> list[Job]:
    """Every run in the order in which they are claimed."""
    s = study.settings
    jobs = []
    for task in study.pretrainings():
        recipe = study.pretrain_recipe(task, 0)
        steps = recipe.epochs * recipe.steps
        work = steps * recipe.batch_size * voxels(study, task)
        jobs += [Job(partial(study.pretrain_run, task, seed), None, steps, work)
                 for seed in s.SEEDS]
    for fraction in sorted(s.FRACTIONS):
        for task in s.TASKS:
            recipe = study.finetune_recipe(task, fraction, s.SEEDS[0])
            steps = recipe.epochs * recipe.steps
            work = float(steps * recipe.batch_size * s.RESOLUTION**study.dimensions)
            jobs += [Job(partial(study.finetune_run, task, fraction, seed),
                         partial(study.pretrain_run, task, seed)
                         if study.pretrained_here(task) else None,
                         steps, work, finetunes=True) for seed in s.SEEDS]
    return in_order(jobs)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Pretraining first, the longest first; then finetuning, the longest first.

    A long run begun last would keep one process busy while all others have nothing left to do.
    """
    return sorted(jobs, key=lambda job: (job.finetunes, -job.work))


def check_ranks(study: Study) -> None:
    """Check that every batch has a case for every rank; InputError if one has not."""
    s = study.settings
    smallest = {task: study.pretrain_recipe(task, 0).batch_size for task in study.pretrainings()}
    smallest["finetuning"] = min(s.BATCH_SIZE, *(
        len(study.labelled(fraction, seed)) for fraction in s.FRACTIONS for seed in s.SEEDS))
    for what, size in smallest.items():
        if size < s.RANKS_PER_RUN:
            raise InputError(f"RANKS_PER_RUN = {s.RANKS_PER_RUN}: more than the {size} cases of a "
                             f"batch ({what}); lower it")


def voxels(study: Study, name: str) -> float:
    """Voxels through the downstream network that cost what a case of a pretraining run costs."""
    if arms.is_oracle(name):
        return float(study.settings.RESOLUTION**study.dimensions)
    return view_voxels(study, name) * study.encoder_share


def view_voxels(study: Study, name: str) -> int:
    """Voxels of all views of one case of a pretext task."""
    space = (study.settings.RESOLUTION,) * study.dimensions
    batch = Batch(list(torch.zeros(2, 1, *space)), None, [0, 1])
    views, _ = study.pretext(name).prepare(batch, generator(0, "plan"), training=False)
    sizes = nested(lambda each: each[0].numel(), views)
    return sum(sizes) if isinstance(sizes, tuple) else int(sizes)


def estimate(study: Study, jobs: Sequence[Job], workers: int) -> float:
    """Hours the unfinished runs take on the CPU at most, from one small timed training step."""
    torch.set_num_threads(study.settings.THREADS)
    network = study.make_network(study.make_encoder())
    images = torch.rand(2, len(study.channels), *(study.probe,) * study.dimensions)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        network(images).square().mean().backward()
        optimiser.step()
        taken = time.perf_counter() - started
    left = sum(job.work for job in jobs if not job.make().done())
    return left * taken / (2 * study.probe**study.dimensions) / workers / 3600


def announce(study: Study, jobs: Sequence[Job], places: Sequence[torch.device],
             workers: int) -> None:
    """Say what will be done before doing it; InputError if that is a day or more unasked for."""
    s, parts = study.settings, study.splits
    device = places[0]
    done = sum(job.make().done() for job in jobs)
    first = sum(not job.finetunes for job in jobs)
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
          f"test cases in the pretraining pool: {leaked}; encoders are chosen on validation\n"
          f"runs      {len(jobs)}: {first} pretraining, {len(jobs) - first} finetuning; "
          f"{done} done, {len(jobs) - done} to do\n"
          f"          tasks {' '.join(s.TASKS)}; fractions {' '.join(map(str, s.FRACTIONS))} %; "
          f"seeds {' '.join(map(str, s.SEEDS))}\n"
          f"device    {', '.join(map(str, places))}, {study.precision}, {_shares(study, workers)}")
    print(f"memory    {_memory(study, device)}")
    if device.type == "cuda" and done < len(jobs):
        print("time      is told after the first steps; an epoch is "
              f"{', '.join(_epochs(study))} steps")
    if device.type == "cpu" and done < len(jobs):
        hours = estimate(study, jobs, workers * devices.place().size)
        print(f"time      at most about {in_words(hours)}, estimated from one small step")
        if hours > CPU_HOURS and s.DEVICE != "cpu":
            raise InputError(f"no usable GPU, and on this CPU all runs would take about "
                             f"{in_words(hours)}; give --device cpu to do it all the same, or make "
                             "it smaller: --resolution 32 --levels 2, --pretext-epochs, "
                             "--finetune-epochs, --tasks, --fractions, --seeds")


def _epochs(study: Study) -> list[str]:
    """Steps an epoch of each pretraining, and of finetuning on all labels."""
    return [f"{study.pretrain_recipe(task, 0).steps} ({task})" for task in study.pretrainings()] + [
        f"{study.finetune_recipe(arms.BASELINE, 100, 0).steps} (finetuning)"]


def _memory(study: Study, device: torch.device) -> str:
    """What a finetuning step keeps, and what changes that if it is too much."""
    s = study.settings
    needed, there = study.step_bytes / s.RANKS_PER_RUN, devices.memory(device)
    names = ["BATCH_SIZE", "RESOLUTION", "CHECKPOINTING", "RANKS_PER_RUN"]
    remedy = ", ".join(name for name in names if hasattr(s, name))
    line = (f"at most about {needed / 1e9:.1f} GB of activations in a finetuning step (in float32),"
            f" of {there / 1e9:.0f} GB")
    return line if needed < there else f"{line}: too much; change one of {remedy}"


def _shares(study: Study, workers: int) -> str:
    """How many runs are trained at a time, and by how many processes."""
    group, ranks = devices.place().size, study.settings.RANKS_PER_RUN
    return (f"{workers} runs at a time" + (f" in each of {group} processes" if group > 1 else "")
            + (f", {ranks} ranks a run" if ranks > 1 else ""))
