"""An experiment: what is checked, said, trained and summed up, in this order."""

import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.arms import FROM_SCRATCH, ORACLE
from common.downstream.supervised import Supervised
from common.files import ROOT, starting
from common.machine import devices
from common.runs import rates, records, snapshots
from common.runs.encoders import named
from common.runs.study import Study, Tree, results_folder
from common.schedule.announce import announce, expected
from common.schedule.mending import check_stale, mend
from common.schedule.plan import (
    check_ranks,
    check_views,
    plan,
    record_power,
    record_primary,
    record_seeds,
    step_bytes,
)
from common.schedule.tuning import tune
from common.schedule.workers import work_off
from common.settings import Settings, check_common, from_flags
from common.track.tracked import pictures_of, place, tell_pictures
from common.track.trackers import VIEWS
from common.track.trackers import check as check_tracker


def prepare(script: Mapping[str, Any], tree: Tree) -> tuple[Study, list[torch.device], int]:
    """What an exp.py is asked to do: the study, the devices for the workers, how many of these.

    ``script`` are its globals(); flags override its constants. Raises InputError for whatever
    cannot be done, before anything is trained.
    """
    settings = from_flags(script)
    files = check(settings, tree)
    places = devices.choose(settings.DEVICE, ranks=settings.RANKS_PER_RUN)
    precision = devices.precision(settings.PRECISION, places, sound_on_cpu=tree.bfloat16_on_cpu)
    if settings.DEMO:
        tree.generate(ROOT / settings.DATA)
    study = rated(tree.make_study(settings, precision, files))
    return study, places, devices.workers(settings, places, step_bytes(study))


def rated(study: Study) -> Study:
    """The study with the rates that --tune has chosen, if it has; InputError if they do not hold.

    Under --paper rates are the paper's.
    """
    s, plan = study.settings, records.read_plan(study.folder)
    if s.TUNE or s.PAPER or not s.TUNED:
        return study
    if "rates" not in plan:
        if (study.folder / "tune").exists():
            print(f"note: {study.folder / 'tune'}: --tune was begun and not finished, so every arm "
                  "has the constants' rates", file=sys.stderr)
        return study
    rates.check(plan, study.made_with, tasks=s.TASKS, seeds=s.SEEDS,
                where=str(study.folder / "plan.json"))
    return replace(study, rates=rates.chosen(plan))


def check(settings: Settings, tree: Tree) -> dict[str, Path]:
    """Check all constants, before anything is read; returns the files of --encoder by name."""
    tasks = {**tree.pretexts, ORACLE: Supervised}
    files = named(settings, [*FROM_SCRATCH, *tree.library, *tasks])
    check_tracker(settings.TRACK)
    check_common(settings, tasks, [*tree.library, *files], decoder=tree.decoder)
    tree.check(settings)
    check_views(settings, tree)
    return files


def run(study: Study, places: Sequence[torch.device], workers: int) -> int:
    """Say what will be done, and do what is not done yet; exit status 1 if any run failed.

    ``places`` are the devices that the workers get in turn.
    """
    if study.settings.TUNE:
        return tune(study, places, workers)
    if study.settings.PLAN:
        jobs = plan(study)
        check_ranks(study)
        record_primary(study, keep=False)
        if not study.settings.RERUN:
            check_stale(jobs, rerun=False)
        announce(study, jobs, places, workers, expected(study))
        print("plan      nothing is trained, and no run touched; leave --plan out to go on")
        return 0
    begin(study, places, workers)
    failures = work_off(study, plan, places, workers)
    status = _summary(study, failures)
    snapshots.save(study, places[0])
    _tell_tracker(study)
    return status


def _tell_tracker(study: Study) -> None:
    """Give the study's figures to a tracker, and say how it is opened."""
    if (kind := study.settings.TRACK) != "none":
        results = results_folder(study.settings)
        tell_pictures(kind, results, study.folder, pictures_of(results, study.dataset))
        print(f"tracked   {VIEWS[kind].format(folder=place(kind, results))}")


def begin(study: Study, places: Sequence[torch.device], workers: int) -> None:
    """Set aside what must not be used, and say what will be done; InputError if it cannot be."""
    jobs = plan(study)
    check_ranks(study)
    with starting(study.folder):
        record_primary(study)
        mend(jobs)
        check_stale(jobs, rerun=study.settings.RERUN)
    quiet = devices.place().rank > 0  # one of those started together says it for all
    with redirect_stdout(io.StringIO()) if quiet else nullcontext():
        announce(study, jobs, places, workers, shown := expected(study))
    with starting(study.folder):
        record_power(study, shown)
        record_seeds(study)  # which nothing refuses any more


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
