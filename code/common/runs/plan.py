"""Which runs there are, in which order they are claimed, and what each will cost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from common import arms
from common.errors import InputError
from common.runs.records import Run
from common.runs.study import Study
from common.runs.training import generator
from common.tasks.contract import Batch, nested


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
