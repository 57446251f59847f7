"""What is compared: arms, splits, subsets, the identity and the recipe of every run.

A tree describes itself in a Study; everything here is the same for volumes and images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import arms
from common.arms import BASELINE
from common.data.cache import Cache
from common.data.splits import Part, Splits, pool_of, stratified_order, subset
from common.downstream.supervised import Supervised
from common.errors import InputError
from common.files import ROOT, Json, digest
from common.runs import rates, records
from common.runs.encoders import External
from common.runs.rates import Rates
from common.runs.records import Run, run_folder
from common.runs.training import Recipe
from common.settings import Settings
from common.stats.measures import Measure
from common.tasks import joint
from common.tasks.contract import Pretext, Task

PRETEXT_DRAWS = 4      # fixed draws of every validation case
ORACLE_SEED = 2**32    # added to a seed for the oracle's own training; users' seeds are smaller
DRAW_SEED = 2**33      # added to a seed for each draw after the first; never a seed or an oracle's
SMOOTHING = 5          # epochs of validation loss averaged before they are compared


@dataclass(frozen=True)
class Tree:
    """What an exp.py says of its tree."""

    name: str                                  # folder below RESULTS
    pretexts: Mapping[str, type[Pretext]]
    check: Callable[[Settings], None]          # of its own constants; InputError
    smallest: Callable[[Settings], int]        # side that its network needs
    make_study: Callable[[Settings, str, Mapping[str, Path]], "Study"]
    """From settings, the precision, and files of encoders by the names of their arms."""
    generate: Callable[[Path], None]           # makes the images of --demo
    bfloat16_on_cpu: bool                      # whether it is sound there
    decoder: bool                              # whether what is finetuned has one to be handed on
    library: Mapping[str, External] = field(default_factory=dict)  # arms from a library's weights


@dataclass(frozen=True)
class Networks:
    """How a tree's networks are made, and what a step of them costs; picklable."""

    encoder: Callable[[], nn.Module]
    decoder: Callable[[Any, int], nn.Module]        # encoder, output channels -> from its stages
    downstream: Callable[[nn.Module], nn.Module]    # encoder -> what is finetuned
    channels_last: torch.memory_format              # of weights, with LAYOUT = "channels_last"
    step_bytes: float                               # activations of a finetuning step, float32
    probe: int                                      # a small side the network takes, for timing
    smaller: str                                    # flags for who has no GPU
    encoder_share: float                            # its part of a downstream step's operations


@dataclass(frozen=True)
class Study:
    """One data set under one set of constants; picklable, so that worker processes get it."""

    settings: Settings
    tree: str                               # folder below RESULTS
    dataset: str
    generated: bool
    cache: Cache
    splits: Splits
    strata: Mapping[str, Any]               # labelled case id -> stratum
    unlabelled: list[str]                   # ids that every seed may pretrain on
    pretexts: Mapping[str, type[Pretext]]
    external: Mapping[str, External]        # arms whose encoders were trained elsewhere
    downstream: Callable[[], Any]           # -> a Task with cases(), decode() and plane()
    measure: Callable[[], Measure]          # of the headline score, in tables and figures
    networks: Networks
    classes: list[str]                      # reported one by one
    channels: list[str]
    dimensions: int                         # spatial axes
    axes: str                               # where these point in pictures of views
    precision: str
    rule: str                               # how the model is chosen, for the figure
    native: Callable[[Tensor, str], Json] | None = None
    """Scores of a case in its own grid from its probabilities (K, R, R, R); picklable."""
    rates: Mapping[str, Rates] = field(default_factory=dict)  # of each arm, where --tune chose them

    @property
    def folder(self) -> Path:
        """Where the runs of this data set lie; finetuned as in the paper, beside the others."""
        return self.home.with_name(self.dataset + records.PAPER * self.settings.PAPER)

    @property
    def home(self) -> Path:
        """Where the splits lie, and the pretrainings that no protocol of finetuning reaches."""
        return results_folder(self.settings) / self.tree / self.dataset

    def part(self, seed: int) -> Part:
        """The labelled cases that a seed learns from, is chosen on and is tested on."""
        return self.splits.of(seed)

    def pool(self, seed: int, share: int = 100) -> list[str]:
        """Ids that a seed pretrains on: neither validation nor its test fold.

        Of the whole pool, or of ``share`` percent of it, nested: one order of a seed's pool, of
        which every share takes the beginning.
        """
        pool = pool_of(self.part(seed), self.unlabelled)
        if share == 100:
            return pool
        order = stratified_order(dict.fromkeys(pool), seed=seed, purpose="pool")
        return order[:part_of(len(pool), share)]

    def labelled(self, fraction: float, seed: int, *, draw: int = 0) -> list[str]:
        """Ids of the labelled subset; the same for every task, another for every draw."""
        train = self.part(seed).train
        contains = {case: self.cache.facts[case]["contains"] for case in train}
        return subset(train, self.strata, contains, fraction=fraction, seed=seed + draw * DRAW_SEED)

    def task(self, name: str) -> Pretext:
        """The task of an arm's pretraining; made once, it remembers nothing."""
        start = arms.pretraining(name)
        if ("task", start) not in self._known:
            tasks: dict[str, Callable[[int, int], Pretext]] = {
                **self.pretexts, arms.ORACLE: partial(Supervised, downstream=self.downstream())}
            self._known["task", start] = joint.make(start, tasks, self.settings.RESOLUTION,
                                                    self.settings.PRETEXT_BATCH_SIZE)
        made: Pretext = self._known["task", start]
        return made

    def pretrain_run(self, name: str, seed: int, *, pool: int = 100) -> Run:
        """The run that trains an arm's start, of a task's name and seed.

        That of a pretext task depends on no label, and on no constant of finetuning; that of a
        task that reads labels is finetuned on all of them, and depends on those alone. ``pool``:
        the percentage of the pool it learns from; named where it is not the whole.
        """
        start = arms.pretraining(name)
        return self._run({"stage": "pretrain", "task": start, "seed": seed,
                          "fold": self.part(seed).fold, **_named(pool),
                          **self._of_task(start, seed, pool)})

    def finetune_run(self, arm: str, fraction: int, seed: int, *, draw: int = 0,
                     pool: int = 100) -> Run:
        """The finetuning run of an arm, fraction and seed; its start's identity is part of it.

        Every draw has a subset and a finetuning of its own; fold and encoder are the seed's, the
        encoder that from ``pool`` percent of its pool.
        """
        return self._run({"stage": "finetune", "task": arm, "fraction": fraction, "seed": seed,
                          "fold": self.part(seed).fold, "draw": draw, **_named(pool),
                          **self.made_with, **self._rated(arm),
                          "labelled": self._subset(fraction, seed, draw),
                          "encoder": self._start(arm, seed, pool, rated=bool(self.rates)),
                          **self._unlabelled(arm, seed)})

    def trial_run(self, arm: str, fraction: int, seed: int, trial: Rates, *, draw: int = 0) -> Run:
        """The run that tries rates for an arm; it is scored on validation alone."""
        return self._run({"stage": "tune", "task": arm, "fraction": fraction, "seed": seed,
                          "fold": self.part(seed).fold, **({"draw": draw} if draw else {}),
                          **self.made_with, "rates": vars(trial),
                          "labelled": self._subset(fraction, seed, draw),
                          "encoder": self._start(arm, seed, 100, rated=True),
                          **self._unlabelled(arm, seed)})

    def rates_of(self, arm: str) -> Rates:
        """Rate, start's factor and frozen epochs of an arm: as chosen, else by the constants."""
        return self.rates[rates.key(arm)] if self.rates else rates.of_constants(self.settings, arm)

    def pretrained_here(self, arm: str) -> bool:
        """Whether an arm has a pretraining run."""
        return arm not in arms.FROM_SCRATCH and arms.pretraining(arm) not in self.external

    def pretrainings(self) -> list[str]:
        """The pretraining runs that the arms need, by name; several may share one."""
        return list(dict.fromkeys(arms.pretraining(arm) for arm in self.settings.TASKS
                                  if self.pretrained_here(arm)))

    def learnt_from(self, task: Task, seed: int, *, pool: int = 100) -> list[str]:
        """Ids that a pretraining learns from: the pool, or the labelled training cases."""
        return self.labelled(100, seed) if task.labelled else self.pool(seed, pool)

    def pretrain_recipe(self, task: Pretext, seed: int) -> Recipe:
        """How the start of an arm is trained: as its task asks, or as the baseline is.

        As on the whole pool, whatever the share: a smaller one is gone through more often.
        """
        if task.labelled:
            return replace(self.finetune_recipe(BASELINE, 100, seed), seed=seed + ORACLE_SEED)
        s = self.settings
        steps = math.ceil(len(self.pool(seed)) / task.batch_size)  # an epoch
        most = s.PRETEXT_STEPS or task.steps
        plan = task.schedule if s.PRETEXT_SCHEDULE == "own" else s.PRETEXT_SCHEDULE
        return Recipe(seed=seed, steps=steps, batch_size=task.batch_size,
                      epochs=min(s.PRETEXT_EPOCHS, math.ceil(most / steps) or s.PRETEXT_EPOCHS),
                      lr=s.PRETEXT_LR or task.lr, schedule=plan, smoothing=SMOOTHING,
                      patience=s.PRETEXT_PATIENCE if plan == "constant" else None,
                      patience_from=s.PRETEXT_MIN_STEPS, draws=PRETEXT_DRAWS,
                      dropout=s.PRETEXT_DROPOUT, precision=self.precision)

    def finetune_recipe(self, arm: str, fraction: int, seed: int, *, draw: int = 0,
                        trial: Rates | None = None) -> Recipe:
        """How a labelled fraction is finetuned on; the same for every arm but for its rates.

        With EQUAL_STEPS every fraction, seed and draw takes as many steps as the largest training
        set needs.
        """
        s, own = self.settings, trial or self.rates_of(arm)
        cases = (max(len(part.train) for part in self.splits.every()) if s.EQUAL_STEPS
                 else len(self.labelled(fraction, seed, draw=draw)))
        steps = math.ceil(cases / s.BATCH_SIZE)
        return Recipe(seed=seed + draw * DRAW_SEED, epochs=s.FINETUNE_EPOCHS,
                      steps=steps, batch_size=s.BATCH_SIZE,
                      lr=own.lr, schedule=s.FINETUNE_SCHEDULE,
                      decoder=arms.hands_on_decoder(arm),
                      warmup=own.warmup, start_lr_factor=own.factor,
                      start_norm="train" if arm in arms.FROM_SCRATCH else s.START_NORM,
                      ramp=round(s.FINETUNE_RAMP * s.FINETUNE_EPOCHS * steps),
                      norm_momentum=s.NORM_MOMENTUM, dropout=s.FINETUNE_DROPOUT,
                      clip=s.FINETUNE_CLIP or None, validations=s.VALIDATIONS,
                      precision=self.precision)

    def _run(self, identity: Json) -> Run:
        both = identity["stage"] == "pretrain" and not self.task(identity["task"]).labelled
        return Run(run_folder(self.home if both else self.folder, identity), identity)

    @cached_property
    def _known(self) -> dict[Any, Any]:
        """What has been made once: tasks, subsets' digests, and what is a task's own."""
        return {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` returns, made once for a key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _of_task(self, name: str, seed: int, pool: int) -> Json:
        """What reaches the numbers of a pretraining; of its task what the constants leave open."""
        task = self.task(name)
        return {**self.made_with, **self._rated(BASELINE)} if task.labelled else {
            **self._of_pretraining(seed, pool), "own": {"batch": task.batch_size, "lr": task.lr,
                                                  "steps": task.steps, "schedule": task.schedule}}

    def _of_pretraining(self, seed: int, pool: int) -> Json:
        """What reaches the numbers of pretrainings on images alone; computed once.

        The same for all seeds of a fold; of a part of the pool for each seed another.
        """
        key = "pool", pool, self.part(seed).fold if pool == 100 else seed
        if key not in self._known:
            self._known[key] = {
                "settings": self.settings.of_stage("pretrain"), "channels": self.channels,
                "pool images": self.cache.arrays(self.pool(seed, pool)),
                "validation images": self.cache.arrays(self.splits.val), **self._always}
        return dict(self._known[key])

    def _rated(self, arm: str) -> Json:
        """What an identity says of rates that were chosen for the arm."""
        return {"rates": vars(self.rates_of(arm))} if self.rates else {}

    @cached_property
    def made_with(self) -> Json:
        """What reaches the numbers of every finetuning run."""
        parts = self.splits.to_json()
        cases = [case for part in (self.splits.val, *self.splits.folds, self.splits.rest)
                 for case in part]
        return {"settings": self.settings.of_stage("finetune"), "channels": self.channels,
                "classes": self.classes, "splits": digest(parts),
                "images and labels": self.cache.arrays(cases, labels=True), **self._always}

    @cached_property
    def _always(self) -> Json:
        """What reaches every number; several ranks draw other dropout, and add in another order."""
        ranks = self.settings.RANKS_PER_RUN
        return {"precision": self.precision, "numbers": records.NUMBERS,
                **({"ranks": ranks} if ranks > 1 else {})}

    def _subset(self, fraction: int, seed: int, draw: int) -> str:
        """The digest of a labelled subset, computed once."""
        return str(self.once((fraction, seed, draw),
                             lambda: digest(self.labelled(fraction, seed, draw=draw))))

    def _unlabelled(self, arm: str, seed: int) -> Json:
        """What an identity says of the unlabelled images that are learnt from beside the labels."""
        if arm not in arms.SEMI:
            return {}
        return {"unlabelled": self.once(("unlabelled", self.part(seed).fold),
                                        lambda: self.cache.arrays(self.pool(seed)))}

    def _start(self, arm: str, seed: int, pool: int, *, rated: bool) -> Json | None:
        """What a finetuning run starts from: nothing, weights from elsewhere, or a pretraining.

        How it is handled is said here, unless the run says it of itself (``rated``).
        """
        if arm in arms.FROM_SCRATCH:
            return None
        name = arms.pretraining(arm)
        own = rates.of_constants(self.settings, arm)
        how = {**({} if rated else {"warmup": own.warmup, "start lr factor": own.factor}),
               "norm": self.settings.START_NORM,
               **({"decoder": True} if arms.hands_on_decoder(arm) else {}),
               **({"shuffled": True} if arms.is_shuffled(arm) else {})}
        if name in self.external:
            return {**self.external[name].identity, **how}
        pretrain = self.pretrain_run(name, seed, pool=pool)
        return {**pretrain.identity, **how, **(
            {"weights": _weights(pretrain, how)} if pretrain.done() else {})}


def part_of(count: int, share: int) -> int:
    """How many of ``count`` cases are ``share`` percent."""
    return round(count * share / 100)


def _named(pool: int) -> Json:
    """What an identity says of the percentage of the pool: nothing of the whole."""
    return {"pool": pool} if pool < 100 else {}


def _weights(pretrain: Run, how: Json) -> str:
    """Digests of what a pretraining hands on: its encoder, and its decoder where asked for."""
    scores = pretrain.scores()
    named = ["encoder", "decoder"] if "decoder" in how else ["encoder"]
    return "+".join(scores[part] for part in named)


def results_folder(settings: Settings) -> Path:
    """RESULTS; relative paths count from the repository, never from the working directory."""
    return ROOT / settings.RESULTS


def home_of(settings: Settings, tree: str, dataset: str) -> Path:
    """Where a data set's runs lie; InputError if the other tree has one of that name there."""
    for other in sorted({"2d", "3d"} - {tree}):
        there = results_folder(settings) / other / dataset
        if there.is_dir():
            raise InputError(f"{there}: a data set of code/{other} with the name of this one; both "
                             f"would draw train_{dataset}.png; rename the folder of images, or give"
                             " --results OTHER")
    return results_folder(settings) / tree / dataset
