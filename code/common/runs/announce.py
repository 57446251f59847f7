"""What will be done, on what, and how long it will take; said before it is done."""

import time
from collections.abc import Iterable, Sequence

import torch

from common import arms
from common.data.splits import duplicates
from common.errors import InputError
from common.machine import devices
from common.runs.plan import Job, primary
from common.runs.progress import in_words
from common.runs.study import Study

FEW_STEPS = 100    # below which a note is due; the demo's runs have 132, the published 276 and 540
CPU_HOURS = 24     # a longer estimate without a GPU has to be asked for with --device cpu


def estimate(study: Study, jobs: Sequence[Job], workers: int) -> float:
    """Hours the unfinished runs take on the CPU at most, from one small timed training step."""
    torch.set_num_threads(study.settings.THREADS)
    network = study.networks.downstream(study.networks.encoder())
    side = study.networks.probe
    images = torch.rand(2, len(study.channels), *(side,) * study.dimensions)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        network(images).square().mean().backward()
        optimiser.step()
        taken = time.perf_counter() - started
    left = sum(job.work for job in jobs if not job.make().done())
    return left * taken / (2 * side**study.dimensions) / workers / 3600


def announce(study: Study, jobs: Sequence[Job], places: Sequence[torch.device],
             workers: int) -> None:
    """Say what will be done before doing it; InputError if that is a day or more unasked for."""
    s = study.settings
    device = places[0]
    done = sum(job.make().done() for job in jobs)
    first = sum(not job.finetunes for job in jobs)
    pools = {study.part(seed).fold: study.pool(seed) for seed in s.SEEDS}
    leaked = sum(len({*study.part(fold).test, *study.part(fold).val}.intersection(pool))
                 for fold, pool in pools.items())
    twins = duplicates(study.cache)
    print(f"data      {study.dataset}{' (generated)' if study.generated else ''}: "
          f"{study.cache.labelled} labelled, {len(study.cache.facts) - study.cache.labelled} "
          f"unlabelled cases; classes {', '.join(study.classes)}\n"
          f"splits    {_splits(study)}\n"
          f"          {study.folder / 'splits.json'}\n"
          f"twins     exact duplicates: {len(twins.groups)} cases kept on one side, "
          f"{len(twins.contradicting)} left out for contradicting labels, "
          f"{len(twins.unlabelled)} unlabelled left out\n"
          f"pool      {_range(map(len, pools.values()))} cases to pretrain on; "
          f"test cases in the pretraining pool: {leaked}; encoders are chosen on validation\n"
          f"runs      {len(jobs)}: {first} pretraining, {len(jobs) - first} finetuning; "
          f"{done} done, {len(jobs) - done} to do\n"
          f"          tasks {' '.join(s.TASKS)}; fractions {' '.join(map(str, s.FRACTIONS))} %; "
          f"seeds {' '.join(map(str, s.SEEDS))}{_design(study)}\n"
          f"device    {', '.join(map(str, places))}, {study.precision}, {_shares(study, workers)}")
    if arms.BASELINE not in s.TASKS:
        print(f"note      no {arms.BASELINE} among the tasks: unless one lies there already, "
              "nothing is compared")
    recipe = study.finetune_recipe(arms.BASELINE, max(s.FRACTIONS), s.SEEDS[0])
    steps = recipe.epochs * recipe.steps
    print(f"steps     {steps} optimiser steps a finetuning run" + (
        f": too few to learn much; {FEW_STEPS} and more take FINETUNE_EPOCHS = "
        f"{-(-FEW_STEPS // recipe.steps)}" if steps < FEW_STEPS else ""))
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
                             f"it smaller: {study.networks.smaller}, --pretext-epochs, "
                             "--finetune-epochs, --tasks, --fractions, --seeds")


def _splits(study: Study) -> str:
    """Who is tested on: one fixed set, or a fold a seed."""
    splits, seeds = study.splits, study.settings.SEEDS
    parts, val = splits.every(), len(splits.val)
    if len(parts) == 1:
        return f"{len(parts[0].train)} train, {val} validation, {len(parts[0].test)} test"
    used = len({study.part(seed).fold for seed in seeds})
    return (f"{val} validation, {sum(map(len, splits.folds))} in {len(parts)} folds of "
            f"{_range(map(len, splits.folds))}: each seed is tested on one, trains on the others "
            f"({_range(len(part.train) for part in parts)})"
            + (f"; these seeds test {used} of the folds" if used < len(parts) else ""))


def _design(study: Study) -> str:
    """The primary comparison, and what is drawn more than once."""
    named, smallest = primary(study), min(study.settings.FRACTIONS)
    fraction = named[1] if named else smallest
    return (f"; primary: {named[0]} at {named[1]} %" if named else "") + (
        f"; {study.settings.DRAWS} draws at {fraction} %" if study.settings.DRAWS > 1 else "")


def _range(numbers: Iterable[int]) -> str:
    """Numbers as one, or as least to most."""
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _epochs(study: Study) -> list[str]:
    """Steps an epoch of each pretraining, and of finetuning on all labels."""
    return [f"{study.pretrain_recipe(study.task(name), 0).steps} ({name})"
            for name in study.pretrainings()] + [
        f"{study.finetune_recipe(arms.BASELINE, 100, 0).steps} (finetuning)"]


def _memory(study: Study, device: torch.device) -> str:
    """What a finetuning step keeps, and what changes that if it is too much."""
    s = study.settings
    needed, there = study.networks.step_bytes / s.RANKS_PER_RUN, devices.memory(device)
    names = ["BATCH_SIZE", "RESOLUTION", "CHECKPOINTING", "RANKS_PER_RUN"]
    remedy = ", ".join(name for name in names if hasattr(s, name))
    line = (f"at most about {needed / 1e9:.1f} GB of activations in a finetuning step (in float32),"
            f" of {there / 1e9:.0f} GB")
    return line if needed < there else f"{line}: too much; change one of {remedy}"


def _shares(study: Study, workers: int) -> str:
    """How many runs are trained at a time, and by how many processes."""
    group, ranks = devices.place().size, study.settings.RANKS_PER_RUN
    return (f"{workers} run{'s' * (workers != 1)} at a time"
            + (f" in each of {group} processes" if group > 1 else "")
            + (f", {ranks} ranks a run" if ranks > 1 else ""))
