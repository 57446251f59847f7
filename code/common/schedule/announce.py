"""What will be done, on what, and how long it will take; said before it is done."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from common import arms
from common.arms import BASELINE, is_control
from common.data.splits import duplicates
from common.errors import InputError
from common.files import Json
from common.machine import devices
from common.runs import rates
from common.runs.records import FEW_STEPS, cases_of, folds_of, read_runs
from common.runs.study import Study
from common.schedule.plan import Job, drawn_at, primary, shares, step_bytes
from common.schedule.progress import in_words
from common.stats import power
from common.stats.estimates import MIN_BLOCKS, Design
from common.stats.measures import Measure

FEW_VALIDATION = 10  # cases; below, the best epoch on them says little
FEW_SEEDS = 10     # up to it, one seed may be meant as a number of seeds
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
    left = sum(job.work - job.behind() for job in jobs)
    return left * taken / (2 * side**study.dimensions) / workers / 3600


def announce(study: Study, jobs: Sequence[Job], places: Sequence[torch.device], workers: int,
             shown: Sequence[power.Expected]) -> None:
    """Say what will be done before doing it; InputError if that is a day or more unasked for.

    ``shown`` is what expected() says of the study.
    """
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
          f"          {_kept_at(study.home / 'splits.json')}\n"
          f"twins     exact duplicates: {len(twins.groups)} cases kept on one side, "
          f"{len(twins.contradicting)} left out for contradicting labels, "
          f"{len(twins.unlabelled)} unlabelled left out\n"
          f"pool      {_range(map(len, pools.values()))} cases to pretrain on; "
          f"test cases in the pretraining pool: {leaked}; encoders are chosen on validation"
          f"{_pools(study)}\n"
          f"runs      {len(jobs)}: {first} pretraining, {len(jobs) - first} finetuning; "
          f"{_states(jobs, done)}\n"
          f"          tasks {' '.join(s.TASKS)}; fractions {' '.join(map(str, s.FRACTIONS))} %; "
          f"seeds {' '.join(map(str, s.SEEDS))}{_design(study)}\n"
          f"device    {', '.join(map(str, places))}, {study.precision}, {_shares(study, workers)}")
    if arms.BASELINE not in s.TASKS:
        print(f"note      no {arms.BASELINE} among the tasks: unless one lies there already, "
              "nothing is compared")
    if len(s.SEEDS) == 1 and 1 < s.SEEDS[0] <= FEW_SEEDS:
        print(f"note      seed number {s.SEEDS[0]} alone; for {s.SEEDS[0]} seeds give --seeds "
              f"{' '.join(map(str, range(s.SEEDS[0])))}")
    if (val := len(study.splits.val)) < FEW_VALIDATION:
        print(f"note      {val} validation cases: which epoch is best is partly chance with so "
              f"few; the scores of the last weights stand in train_{study.folder.name}.md too")
    if s.PROTOCOL:
        print(f"protocol  of finetuning: {s.PROTOCOL}; its runs lie in {study.folder}, encoders "
              f"and splits in {study.home}")
    print(f"steps     {_steps(study)}")
    if study.rates:
        print(f"rates     chosen on validation by --tune: {rates.described(study.rates)}")
    for line in [*same_cases(study), *power_lines(study, shown)]:
        print(line)
    print(f"memory    {_memory(study, device)}")
    if done < len(jobs):
        tell_time(study, jobs, device, workers)


def _steps(study: Study) -> str:
    """Optimiser steps of a finetuning run, of a fraction each where they differ; of pretrainings.
    """
    recipes = {fraction: study.finetune_recipe(arms.BASELINE, fraction, study.settings.SEEDS[0])
               for fraction in sorted(study.settings.FRACTIONS)}
    steps = {fraction: one.epochs * one.steps for fraction, one in recipes.items()}
    largest = recipes[max(recipes)].steps
    same = len(set(steps.values())) == 1
    said = str(max(steps.values())) if same else ", ".join(map(str, steps.values()))
    return (f"{said} optimiser steps a finetuning run"
            + ("" if same else f", at {', '.join(map(str, steps))} %")
            + (f": too few to learn much; {FEW_STEPS} and more take FINETUNE_EPOCHS = "
               f"{-(-FEW_STEPS // largest)}" if max(steps.values()) < FEW_STEPS else "")
            + _pretext_steps(study))


def _pretext_steps(study: Study) -> str:
    """Optimiser steps of the pretrainings, which patience may end; the same number named once."""
    arms_of: dict[int, list[str]] = {}
    for name in study.pretrainings():
        one = study.pretrain_recipe(study.task(name), study.settings.SEEDS[0])
        arms_of.setdefault(one.epochs * one.steps, []).append(name)
    said = [f"{steps} ({', '.join(names)})" if len(arms_of) > 1 else str(steps)
            for steps, names in arms_of.items()]
    return f"\n          at most {', '.join(said)} a pretraining" if said else ""


def tell_time(study: Study, jobs: Sequence[Job], device: torch.device, workers: int) -> None:
    """Say how long it takes; InputError if that is a day or more on a CPU, unasked for."""
    s = study.settings
    if device.type == "cuda":
        print("time      is told after the first steps; an epoch is "
              f"{', '.join(_epochs(study))} steps")
        return
    hours = estimate(study, jobs, workers * devices.place().size)
    print(f"time      at most about {in_words(hours)} if nothing else runs, estimated from one "
          "small step"
          + (f"; that is more than a day: make it smaller ({study.networks.smaller}, fewer "
             "--tasks and --seeds), or give --device cpu"
             if s.PLAN and hours > CPU_HOURS and s.DEVICE != "cpu" else ""))
    if hours > CPU_HOURS and s.DEVICE != "cpu" and not s.PLAN:
        raise InputError(f"no usable GPU, and on this CPU all runs would take about "
                         f"{in_words(hours)}; give --device cpu to do it all the same, or make "
                         f"it smaller: {study.networks.smaller}, --pretext-epochs, "
                         "--finetune-epochs, --tasks, --fractions, --seeds")


def _states(jobs: Sequence[Job], done: int) -> str:
    """How many runs are done, begun and to do; and the share of all work, as progress counts it."""
    begun, behind = sum(job.begun() for job in jobs), sum(job.behind() for job in jobs)
    said = f"{done} done, {f'{begun} begun, ' if begun else ''}{len(jobs) - done - begun} to do"
    share = f"; {100 * behind / sum(job.work for job in jobs):.0f} % of the work is done"
    return said + (share if begun or 0 < done < len(jobs) else "")


def _kept_at(path: Path) -> str:
    """Where something lies, or will: --plan writes nothing there."""
    return str(path) if path.exists() else f"will be written to {path}"


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
    named, count = primary(study), study.settings.DRAWS
    return (f"; primary: {named[0]} at {named[1]} %" if named else "") + (
        f"; {count} draws at {drawn_at(study)} %" if count > 1 else "")


def _pools(study: Study) -> str:
    """The shares of the pool that are learnt from, if there are several, and at which fraction."""
    s = study.settings
    if s.POOL == [100]:
        return ""
    found = [arm for arm in s.TASKS if shares(study, arm) != [100]]
    return (f"; shares {' '.join(map(str, sorted(s.POOL)))} % at {drawn_at(study)} %"
            + ("" if found else ", of none of these tasks"))


def _range(numbers: Iterable[int]) -> str:
    """Numbers as one, or as least to most."""
    found = sorted(numbers)
    return str(found[0]) if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def expected(study: Study) -> list[power.Expected]:
    """What the study will show at each of its fractions; none without arms, or under 3 seeds.

    By the spreads of its own finished runs, else by those of a published study.
    """
    s = study.settings
    enough = len({Design(s.FOLDS).block(seed) for seed in s.SEEDS}) >= MIN_BLOCKS
    return _expected(study, len(s.SEEDS)) if enough else []


def _expected(study: Study, seeds: int) -> list[power.Expected]:
    """The same with as many seeds, on different folds."""
    s = study.settings
    arms = [arm for arm in s.TASKS if arm != BASELINE]
    family = [arm for arm in arms if not is_control(arm)]
    if not arms:
        return []
    named = (primary(study) or ("", 0))[1]
    known = _own_spreads(study) or power.published(study.dataset, study.measure().name)
    return [power.expected(known, Design(s.FOLDS, fraction),
                           labelled=len(study.labelled(fraction, s.SEEDS[0])),
                           arms=max(1, len(family)), adjusted=1 if fraction == named else 0,
                           seeds=seeds, tested=len(study.part(s.SEEDS[0]).test), gain=s.DETECT)
            for fraction in sorted(s.FRACTIONS)]


def _own_spreads(study: Study) -> list[power.Known]:
    """The spreads of the data set's own finished runs."""
    runs = read_runs(study.folder, "finetune")
    return spreads_of(runs, study.measure(), "this data set's finished runs") if runs else []


def spreads_of(runs: Sequence[Json], measure: Measure, name: str) -> list[power.Known]:
    """The spreads of finished finetuning runs at every fraction that has enough of them."""
    controls = {run["task"] for run in runs if is_control(run["task"])}
    return power.of_runs(measure, cases_of(runs),
                         {run["fraction"]: run["labelled"] for run in runs}, baseline=BASELINE,
                         folds=folds_of(runs[0]), study=name, controls=controls)


def same_cases(study: Study) -> list[str]:
    """A note for each set of fractions that are the same labelled cases at every seed."""
    s = study.settings
    alike: dict[str, list[int]] = {}
    for fraction in sorted(s.FRACTIONS):
        subsets = [sorted(study.labelled(fraction, seed)) for seed in s.SEEDS]
        alike.setdefault(str(subsets), []).append(fraction)
    return [f"note      {' and '.join(f'{one} %' for one in same)} are the same "
            f"{len(study.labelled(same[0], s.SEEDS[0]))} cases: leave "
            f"{'one' if len(same) == 2 else f'{len(same) - 1}'} out (--fractions)"
            for same in alike.values() if len(same) > 1]


def power_lines(study: Study, found: Sequence[power.Expected]) -> list[str]:
    """What can be shown, a fraction a line, and how many seeds DETECT takes there."""
    s = study.settings
    if s.TASKS == [BASELINE]:
        return []
    wanted = f"; seeds that show {s.DETECT:g} in four of five" if s.DETECT else ""
    lines = [f"power     gain in {study.measure().label} that is shown, in half of all repetitions "
             f"of the study and in four of five{wanted}"]
    if not found:
        lines = [f"power     under {MIN_BLOCKS} seeds{' on different folds' * (s.FOLDS > 1)} there "
                 f"are no intervals: nothing can be shown{wanted}"]
    said = found or (_expected(study, MIN_BLOCKS) if s.DETECT else [])
    for one in said:
        gains = f" {one.half:.4f} in half; {one.most:.4f} in four of five" if found else ""
        takes = f"; {_takes(one, study)}" if s.DETECT else ""
        lines.append(f"          {one.fraction} % ({one.labelled} cases, {_arms(one.arms)}):"
                     f"{gains}{takes}".replace(":;", ":"))
    if said:
        guess = power.of_another(said[0].source, study.dataset)
        lines.append(f"          if runs scatter as in {said[0].source}"
                     + (", of another data set: a rough guess" if guess else "")
                     + "; arms share their spread"
                     + ("; further draws are not counted" if s.DRAWS > 1 else ""))
    return lines


def _arms(number: int) -> str:
    return "one arm" if number == 1 else f"{number} arms"


def _takes(one: power.Expected, study: Study) -> str:
    """What a wanted gain takes."""
    if one.seeds is not None:
        return f"{one.seeds} seeds"
    folds = study.settings.FOLDS
    there = folds * len(study.part(study.settings.SEEDS[0]).test)
    why = (f"it takes at least {one.cases} test cases, here are {there}" if one.cases > there else
           f"they show {one.least:.4f}" + ", since seeds share training cases" * (folds > 1))
    return f"not with {power.MOST_SEEDS} seeds: {why}"


def _epochs(study: Study) -> list[str]:
    """Steps an epoch of each pretraining, and of finetuning on all labels."""
    return [f"{study.pretrain_recipe(study.task(name), 0).steps} ({name})"
            for name in study.pretrainings()] + [
        f"{study.finetune_recipe(arms.BASELINE, 100, 0).steps} (finetuning)"]


def _memory(study: Study, device: torch.device) -> str:
    """What the largest training step keeps, and what changes that if it is too much."""
    s = study.settings
    needed, there = step_bytes(study) / s.RANKS_PER_RUN, devices.memory(device)
    names = ["BATCH_SIZE", "PRETEXT_BATCH_SIZE", "RESOLUTION", "CHECKPOINTING", "RANKS_PER_RUN"]
    remedy = ", ".join(name for name in names if hasattr(s, name))
    line = (f"at most about {needed / 1e9:.1f} GB of activations in the largest step (in float32),"
            f" of {there / 1e9:.0f} GB")
    return line if needed < there else f"{line}: too much; change one of {remedy}"


def _shares(study: Study, workers: int) -> str:
    """How many runs are trained at a time, and by how many processes."""
    group, ranks = devices.place().size, study.settings.RANKS_PER_RUN
    return (f"{workers} run{'s' * (workers != 1)} at a time"
            + (f" in each of {group} processes" if group > 1 else "")
            + (f", {ranks} ranks a run" if ranks > 1 else ""))
