"""The protocol of both trees: splits first, then pretraining and finetuning runs, each one whole.

A tree describes itself in a Study; everything here is the same for volumes and photographs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import arms
from common.arms import BASELINE
from common.data.cache import Cache
from common.data.splits import Splits, subset
from common.files import ROOT, Json, digest
from common.runs import checkpoint, records
from common.runs.encoders import External, for_whole_images, shuffle
from common.runs.records import Run
from common.runs.training import Cases, Recipe
from common.settings import Settings, warmup_epochs
from common.tasks import joint
from common.tasks.contract import Pretext

PRETEXT_DRAWS = 4      # fixed draws of every validation case
ORACLE_SEED = 2**32    # added to a seed for the oracle's own training; users' seeds are smaller
SMOOTHING = 5          # epochs of validation loss averaged before they are compared


@dataclass(frozen=True)
class Study:
    """One data set under one set of constants; picklable, so that worker processes get it."""

    settings: Settings
    dataset: str
    tree: str                                        # folder below RESULTS
    generated: bool
    cache: Cache
    splits: Splits
    strata: Mapping[str, Any]                        # labelled case id -> stratum
    pool: list[str]                                  # ids pretrained on
    pretexts: Mapping[str, Callable[[int], Pretext]]
    external: Mapping[str, External]                 # arms whose encoders were trained elsewhere
    downstream: Callable[[], Any]                    # -> a Task with cases()
    classes: list[str]                               # reported one by one
    channels: list[str]
    dimensions: int                                  # spatial axes
    probe: int                                       # a small side the network takes, for timing
    encoder_share: float                             # its part of a downstream step's operations
    make_encoder: Callable[[], nn.Module]
    make_network: Callable[[nn.Module], nn.Module]   # encoder -> downstream network
    channels_last: torch.memory_format               # of weights, with LAYOUT = "channels_last"
    precision: str
    rule: str                                        # how the model is chosen, for the figure
    step_bytes: float                                # activations of a finetuning step, float32

    @property
    def folder(self) -> Path:
        """Where the runs of this data set lie."""
        return results_folder(self.settings) / self.tree / self.dataset

    def labelled(self, fraction: float, seed: int) -> list[str]:
        """Ids of the labelled subset; the same for every task."""
        contains = {case: self.cache.facts[case]["contains"] for case in self.splits.train}
        return subset(self.splits.train, self.strata, contains,
                             fraction=fraction, seed=seed)

    def pretrain_run(self, task: str, seed: int) -> Run:
        """The run that trains an arm's start, of a task's name and seed.

        That of a pretext task depends on no label, and on no constant of finetuning; that of the
        oracle is finetuned on all labels, and depends on those alone.
        """
        own = {"stage": "pretrain", "task": arms.pretraining(task), "seed": seed}
        if arms.is_oracle(task):
            return self._run({**own, **self._of_finetuning})
        return self._run({**own, **self._of_pretraining})

    def finetune_run(self, task: str, fraction: int, seed: int) -> Run:
        """The finetuning run of a task, fraction and seed; its encoder's identity is part of it."""
        return self._run({"stage": "finetune", "task": task, "fraction": fraction, "seed": seed,
                          **self._of_finetuning, "labelled": self._subset(fraction, seed),
                          "encoder": self._start(task, seed)})

    def _run(self, identity: Json) -> Run:
        return Run(records.run_folder(self.folder, identity), identity)

    @cached_property
    def _of_pretraining(self) -> Json:
        """What reaches the numbers of every pretraining run."""
        return {"settings": self.settings.of_stage("pretrain"), "channels": self.channels,
                "pool images": self.cache.arrays(self.pool),
                "validation images": self.cache.arrays(self.splits.val), **self._always}

    @cached_property
    def _of_finetuning(self) -> Json:
        """What reaches the numbers of every finetuning run."""
        parts = self.splits.to_json()
        cases = [case for name in ("train", "val", "test") for case in parts[name]]
        return {"settings": self.settings.of_stage("finetune"), "channels": self.channels,
                "classes": self.classes, "splits": digest(parts),
                "images and labels": self.cache.arrays(cases, labels=True), **self._always}

    @cached_property
    def _always(self) -> Json:
        """What reaches every number; several ranks draw other dropout, and add in another order."""
        ranks = self.settings.RANKS_PER_RUN
        return {"precision": self.precision, "numbers": records.NUMBERS,
                **({"ranks": ranks} if ranks > 1 else {})}

    @cached_property
    def _subsets(self) -> dict[tuple[int, int], str]:
        """Digests of the labelled subsets that have been asked for, by fraction and seed."""
        return {}

    def _subset(self, fraction: int, seed: int) -> str:
        """The digest of a labelled subset, computed once."""
        if (fraction, seed) not in self._subsets:
            self._subsets[fraction, seed] = digest(self.labelled(fraction, seed))
        return self._subsets[fraction, seed]

    def _start(self, task: str, seed: int) -> Json | None:
        """What a finetuning run starts from: nothing, weights from elsewhere, or a pretraining."""
        if task == BASELINE:
            return None
        name = arms.pretraining(task)
        how = {"warmup": warmup_epochs(self.settings),
               "start lr factor": self.settings.START_LR_FACTOR,
               **({"shuffled": True} if arms.is_shuffled(task) else {})}
        if name in self.external:
            return {**self.external[name].identity, **how}
        pretrain = self.pretrain_run(name, seed)
        weights = {"weights": pretrain.scores()["encoder"]} if pretrain.done() else {}
        return {**pretrain.identity, **how, **weights}

    def load_start(self, encoder: nn.Module, task: str, seed: int, cases: Cases) -> None:
        """Put the weights that an arm starts from into ``encoder``."""
        if task == BASELINE:
            return
        name = arms.pretraining(task)
        if name in self.external:
            checkpoint.fit(encoder, self.external[name].load(), name)
        else:
            checkpoint.load_encoder(encoder, self.pretrain_run(name, seed).encoder)
        if arms.is_shuffled(task):
            shuffle(encoder, seed)
            encoder.load_state_dict(for_whole_images(self, encoder, cases, seed).state_dict())

    def pretrained_here(self, task: str) -> bool:
        """Whether an arm has a pretraining run."""
        return task != BASELINE and arms.pretraining(task) not in self.external

    def pretrainings(self) -> list[str]:
        """The pretraining runs that the arms need, by name; several may share one."""
        return list(dict.fromkeys(arms.pretraining(task) for task in self.settings.TASKS
                                  if self.pretrained_here(task)))

    def pretext(self, task: str) -> Pretext:
        """The pretext task of an arm."""
        return joint.make(arms.pretraining(task), self.pretexts, self.settings.RESOLUTION)

    def pretrain_recipe(self, name: str, seed: int) -> Recipe:
        """How the start of an arm is trained: by its pretext task, or as the baseline is."""
        if arms.is_oracle(name):
            return replace(self.finetune_recipe(BASELINE, 100, seed), seed=seed + ORACLE_SEED)
        return self.pretext_recipe(self.pretext(name), seed)

    def pretext_recipe(self, task: Pretext, seed: int) -> Recipe:
        """How the encoder of ``task`` is pretrained."""
        s = self.settings
        batch = s.PRETEXT_BATCH_SIZE or task.batch_size
        return Recipe(seed=seed, epochs=s.PRETEXT_EPOCHS, steps=math.ceil(len(self.pool) / batch),
                      batch_size=batch, lr=s.PRETEXT_LR, smoothing=SMOOTHING,
                      patience=s.PRETEXT_PATIENCE, patience_from=s.PRETEXT_MIN_STEPS,
                      draws=PRETEXT_DRAWS, precision=self.precision)

    def finetune_recipe(self, task: str, fraction: int, seed: int) -> Recipe:
        """How a labelled fraction is finetuned on; the same for every task but for the warm-up."""
        s = self.settings
        cases = self.splits.train if s.EQUAL_STEPS else self.labelled(fraction, seed)
        return Recipe(seed=seed, epochs=s.FINETUNE_EPOCHS,
                      steps=math.ceil(len(cases) / s.BATCH_SIZE), batch_size=s.BATCH_SIZE,
                      lr=s.FINETUNE_LR, schedule=s.FINETUNE_SCHEDULE,
                      warmup=0 if task == BASELINE else warmup_epochs(s),
                      start_lr_factor=1.0 if task == BASELINE else s.START_LR_FACTOR,
                      clip=s.FINETUNE_CLIP or None, validations=s.VALIDATIONS,
                      precision=self.precision)


def results_folder(settings: Settings) -> Path:
    """RESULTS; relative paths count from the repository, never from the working directory."""
    return ROOT / settings.RESULTS
