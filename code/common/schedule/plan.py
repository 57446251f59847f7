"""Which runs there are, in which order they are claimed, what each costs, which one is primary."""

import datetime
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import torch

from common import arms
from common.errors import InputError
from common.files import write_json
from common.runs import records
from common.runs.records import Run
from common.runs.semi import KINDS
from common.runs.study import Study, Tree, part_of
from common.settings import Settings
from common.settings import primary as given_primary
from common.stats import power
from common.tasks import joint
from common.tasks.batches import generator
from common.tasks.contract import Batch, Pretext
from common.tasks.siamese import nested


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
    epochs: int = 1                  # that the steps are made in; a checkpoint counts these

    def begun(self) -> bool:
        """Whether it is not done, and goes on from a checkpoint."""
        run = self.make()
        return (run.folder / records.CHECKPOINT).exists() and not run.done() and not run.changes()

    def behind(self) -> float:
        """The work that is not made again: all of a finished run, that of a begun one's epochs."""
        run = self.make()
        if run.done():
            return self.work
        if not self.begun():
            return 0.0
        return self.work * _epochs_in(run.folder / records.CHECKPOINT) / self.epochs

    def ready(self) -> bool:
        """Whether the encoder it starts from exists."""
        return self.needs is None or self.needs().done()


def _epochs_in(path: Path) -> int:
    """The epochs that a checkpoint has behind it; 0 of a damaged one, which begins anew.

    Its tensors are mapped and not read: there may be gigabytes of them.
    """
    try:
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return int(saved["state"]["epoch"])
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, KeyError,
            TypeError, ValueError):
        return 0


def plan(study: Study) -> list[Job]:
    """Every run in the order in which they are claimed; InputError as check_pool() raises it."""
    check_pool(study)
    return in_order([*pretrainings(study), *(
        finetuning(study, partial(study.finetune_run, arm, fraction, seed, draw=draw, pool=pool),
                   arm, fraction, seed, pool=pool)
        for fraction in sorted(study.settings.FRACTIONS) for arm in study.settings.TASKS
        for seed in study.settings.SEEDS for draw in range(draws(study, fraction))
        for pool in (shares(study, arm) if fraction == drawn_at(study) else [100]))])


def pretrainings(study: Study) -> list[Job]:
    """The pretraining runs that the arms of TASKS need, of every seed."""
    jobs = []
    for name in study.pretrainings():
        task = study.task(name)
        each = voxels(study, task)
        for seed in study.settings.SEEDS:
            recipe = study.pretrain_recipe(task, seed)
            steps = recipe.epochs * recipe.steps
            jobs += [Job(partial(study.pretrain_run, name, seed, pool=pool), None, steps,
                         steps * recipe.batch_size * each, epochs=recipe.epochs)
                     for pool in pools(study, name)]
    return jobs


def finetuning(study: Study, make: Callable[[], Run], arm: str, fraction: int, seed: int, *,
               pool: int = 100) -> Job:
    """The job of a run that finetunes an arm, as ``make`` makes it."""
    recipe = study.finetune_recipe(arms.BASELINE, fraction, seed)  # as long as any arm's
    steps = recipe.epochs * recipe.steps
    passes = KINDS[arm].passes if arm in KINDS else 1.0
    return Job(make, partial(study.pretrain_run, arm, seed, pool=pool)
               if study.pretrained_here(arm) else None, steps,
               float(passes * steps * recipe.batch_size
                     * study.settings.RESOLUTION**study.dimensions),
               finetunes=True, epochs=recipe.epochs)


def draws(study: Study, fraction: int) -> int:
    """How many labelled subsets a seed has: DRAWS at one fraction."""
    return study.settings.DRAWS if fraction == drawn_at(study) else 1


def drawn_at(study: Study) -> int:
    """The fraction at which there are DRAWS and POOL: the primary's, else the smallest."""
    named = primary(study)
    return named[1] if named else min(study.settings.FRACTIONS)


def shares(study: Study, arm: str) -> list[int]:
    """Percentages of the pool that an arm starts from, the whole first: what is compared with.

    100 alone for the baseline, controls and encoders from elsewhere.
    """
    ours = study.pretrained_here(arm) and not arms.is_control(arm)
    return sorted(study.settings.POOL, reverse=True) if ours else [100]


def pools(study: Study, name: str) -> list[int]:
    """Percentages of the pool that a pretraining learns from: those of all arms that share it."""
    return sorted({pool for arm in study.settings.TASKS if arms.pretraining(arm) == name
                   for pool in shares(study, arm)}, reverse=True)


def primary(study: Study) -> tuple[str, int] | None:
    """The primary comparison, arm and fraction: as given, else as recorded before."""
    if named := given_primary(study.settings):
        return named
    recorded = records.read_plan(study.folder).get("primary")
    return (recorded["arm"], recorded["fraction"]) if recorded else None


def record_primary(study: Study, *, keep: bool = True) -> None:
    """Write down which comparison is primary, before any of its arm's test scores exists.

    Runs that have been set aside count: their scores were there to be seen. Raises InputError if it
    is named too late, or if another was named before. Only one process at a time may do this.
    Without ``keep`` it is only checked.
    """
    if (named := given_primary(study.settings)) is None:
        return
    arm, fraction = named
    plan = records.read_plan(study.folder)
    if before := plan.get("primary"):
        if (before["arm"], before["fraction"]) != named:
            raise InputError(f"PRIMARY = {arm} {fraction}: {study.folder / 'plan.json'} names "
                             f"{before['arm']} {before['fraction']}; there is one primary "
                             "comparison a data set: leave PRIMARY out, or start with --results "
                             "OTHER")
        return
    if any((study.folder / "finetune" / arm).rglob("scores.json")):
        raise InputError(f"PRIMARY = {arm} {fraction}: named after test scores of {arm} exist, it "
                         "can't be primary; leave PRIMARY out (all comparisons are adjusted), or "
                         "start with --results OTHER")
    if not keep:
        return
    write_json(study.folder / "plan.json", {**plan, "primary": {
        "arm": arm, "fraction": fraction,
        "scores_then": len(list((study.folder / "finetune").rglob("scores.json"))),
        "commit": records.commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}})


def record_seeds(study: Study) -> None:
    """Write down which seeds are asked for, and how many test scores existed when they were.

    Where scores are from before this was kept nobody knows what was asked for: then it is all that
    is asked for now. Only one process at a time may do this.
    """
    plan = records.read_plan(study.folder)
    scores = [*(study.folder / "finetune").rglob("scores.json")]
    asked = plan.get("seeds", [])
    if new := sorted({*study.settings.SEEDS}.difference(*(one["seeds"] for one in asked))):
        then = {"scores_then": len(scores)} if asked or not scores else {}
        write_json(study.folder / "plan.json", {**plan, "seeds": [*asked, {"seeds": new, **then}]})


def record_power(study: Study, found: Sequence[power.Expected]) -> None:
    """Write down what the study is expected to show, as long as no test score exists."""
    plan = records.read_plan(study.folder)
    if found and not any((study.folder / "finetune").rglob("scores.json")):
        write_json(study.folder / "plan.json", {**plan, "power": [
            {"fraction": one.fraction, "arms": one.arms, "seeds": len(study.settings.SEEDS),
             "half": round(one.half, 4), "most": round(one.most, 4), "source": one.source}
            for one in found]})


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Pretraining first, the longest first; then finetuning, the longest first.

    A long run begun last would keep one process busy while all others have nothing left to do.
    """
    return sorted(jobs, key=lambda job: (job.finetunes, -job.work))


def check_ranks(study: Study) -> None:
    """Check that every batch has a case for every rank; InputError if one has not."""
    s = study.settings
    smallest = {name: study.pretrain_recipe(study.task(name), 0).batch_size
                for name in study.pretrainings()}
    smallest["finetuning"] = min(s.BATCH_SIZE, *(
        len(study.labelled(fraction, seed)) for fraction in s.FRACTIONS for seed in s.SEEDS))
    for what, size in smallest.items():
        if size < s.RANKS_PER_RUN:
            raise InputError(f"RANKS_PER_RUN = {s.RANKS_PER_RUN}: more than the {size} cases of a "
                             f"batch ({what}); lower it")


def check_pool(study: Study) -> None:
    """Check that every part of the pool that is learnt from fills a batch; InputError if not."""
    whole = min(len(study.pool(seed)) for seed in study.settings.SEEDS)
    sizes = {name: study.task(name).batch_size for name in study.pretrainings()}
    for name, size in sorted(sizes.items(), key=lambda one: -one[1]):
        for pool in sorted(pools(study, name)):
            there = part_of(whole, pool)
            if pool < 100 and there < size:
                least = next((more for more in range(pool, 100) if part_of(whole, more) >= size),
                             None)
                raise InputError(f"POOL = {pool}: {there} of the {whole} cases of the pretraining "
                                 f"pool, and a batch of {name} takes {size}; "
                                 + (f"give at least {least}" if least else "leave it out")
                                 + ", or set a smaller PRETEXT_BATCH_SIZE")


def check_views(settings: Settings, tree: Tree) -> None:
    """Check that the network takes the smallest view of every task; InputError if not."""
    least = tree.smallest(settings)
    for arm in settings.TASKS:
        name = arms.pretraining(arm)
        side = partial(_side, tree, name)
        if side(settings.RESOLUTION) < least:
            about = settings.RESOLUTION * least * 9 // (10 * side(settings.RESOLUTION))
            first = about if side(about) < least else least
            wanted = next(resolution for resolution in count(first) if side(resolution) >= least)
            raise InputError(f"RESOLUTION = {settings.RESOLUTION}: the views of {arm} have "
                             f"{side(settings.RESOLUTION)} pixels or voxels a side, the network "
                             f"needs {least}; raise RESOLUTION to at least {wanted}, or leave {arm}"
                             " out of TASKS")


def _side(tree: Tree, name: str, resolution: int) -> int:
    """Side of the smallest view of a pretraining; without one of ours the whole image."""
    ours = set(arms.parts(name)) <= set(tree.pretexts)
    return joint.make(name, tree.pretexts, resolution).side if ours else resolution


def step_bytes(study: Study) -> float:
    """Bytes of activations of the largest training step, in float32: any arm, either stage."""
    s, finetuned = study.settings, study.networks.step_bytes
    each = finetuned / (s.BATCH_SIZE * s.RESOLUTION**study.dimensions)
    rival = max([1, *(KINDS[arm].held for arm in s.TASKS if arm in KINDS)])
    return max([finetuned * rival, *(
        each * voxels(study, task) * study.pretrain_recipe(task, s.SEEDS[0]).batch_size
        for task in map(study.task, study.pretrainings()))])


def voxels(study: Study, task: Pretext) -> float:
    """Voxels through the downstream network that cost what a case of a pretraining costs."""
    share = 1.0 if task.decodes else study.networks.encoder_share
    return share * (study.settings.RESOLUTION**study.dimensions if task.labelled
                    else view_voxels(study, task))


def view_voxels(study: Study, task: Pretext) -> int:
    """Voxels of all views of one case of a pretext task that are encoded."""
    return int(study.once(("voxels", task.name), lambda: _counted(study, task)))


def _counted(study: Study, task: Pretext) -> int:
    space = (study.settings.RESOLUTION,) * study.dimensions
    batch = Batch(list(torch.zeros(2, 1, *space)), None, [0, 1])
    views, _ = task.prepare(batch, generator(0, "plan"), training=False)
    sizes = nested(lambda each: each[0, :task.alone or None].numel(), views)
    return sum(sizes) if isinstance(sizes, tuple) else int(sizes)
