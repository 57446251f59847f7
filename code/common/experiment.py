"""The protocol of both trees: splits first, then pretraining and finetuning runs, each one whole.

A tree describes itself in a Study; everything here is the same for volumes and photographs.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import checkpoint, joint, parallel, records, splits
from common.arms import BASELINE
from common.cache import Cache
from common.errors import InputError
from common.external import External
from common.records import Json, Run
from common.settings import Settings, warmup_epochs
from common.task import Pretext, PretextModel, batch_norms
from common.training import Cases, Recipe, autocast, evaluate, even_chunks, fit, generator

PRETEXT_DRAWS = 4      # fixed draws of every validation case
STATISTICS_CASES, STATISTICS_BATCH = 512, 16  # whole images that set BatchNorm's statistics
SMOOTHING = 5          # epochs of validation loss averaged before they are compared


@dataclass(frozen=True)
class Study:
    """One data set under one set of constants; picklable, so that worker processes get it."""

    settings: Settings
    dataset: str
    tree: str                                        # folder below RESULTS
    generated: bool
    cache: Cache
    splits: splits.Splits
    strata: Mapping[str, Any]                        # labelled case id -> stratum
    pool: list[str]                                  # ids pretrained on
    pretexts: Mapping[str, Callable[[int], Pretext]]
    external: Mapping[str, External]                 # arms whose encoders were trained elsewhere
    downstream: Callable[[], Any]                    # -> a Task with cases()
    classes: list[str]                               # reported one by one
    channels: int
    dimensions: int                                  # spatial axes
    probe: int                                       # a small side the network takes, for timing
    encoder_share: float                             # its part of a downstream step's operations
    make_encoder: Callable[[], nn.Module]
    make_network: Callable[[nn.Module], nn.Module]   # encoder -> downstream network
    memory_format: torch.memory_format | None        # of weights on the CPU, where it is faster
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
        return splits.subset(self.splits.train, self.strata, contains,
                             fraction=fraction, seed=seed)

    def pretrain_run(self, task: str, seed: int) -> Run:
        """The pretraining run of a task and seed."""
        data = [self.cache.content(labelled=True), sorted(self.pool)]
        if self.settings.UNLABELLED:
            data.append(self.cache.content(labelled=False))
        return self._run({"stage": "pretrain", "task": task, "seed": seed,
                          "settings": self.settings.of_stage("pretrain"),
                          "data": records.digest(data), **self._identity()})

    def finetune_run(self, task: str, fraction: int, seed: int) -> Run:
        """The finetuning run of a task, fraction and seed; its encoder's identity is part of it."""
        return self._run({"stage": "finetune", "task": task, "fraction": fraction, "seed": seed,
                          "settings": self.settings.of_stage("finetune"),
                          "data": self.cache.content(labelled=True), **self._identity(),
                          "encoder": self._start(task, seed)})

    def _run(self, identity: Json) -> Run:
        return Run(records.run_folder(self.folder, identity), identity)

    def _start(self, task: str, seed: int) -> Json | None:
        """What a finetuning run starts from: nothing, weights from elsewhere, or a pretraining."""
        if task == BASELINE:
            return None
        warmup = {"warmup": warmup_epochs(self.settings)}
        if task in self.external:
            return {**self.external[task].identity, **warmup}
        pretrain = self.pretrain_run(task, seed)
        weights = {"weights": pretrain.scores()["encoder"]} if pretrain.done() else {}
        return {**pretrain.identity, **warmup, **weights}

    def load_start(self, encoder: nn.Module, task: str, seed: int) -> None:
        """Put the weights that an arm starts from into ``encoder``."""
        if task in self.external:
            checkpoint.fit(encoder, self.external[task].load(), task)
        elif task != BASELINE:
            checkpoint.load_encoder(encoder, self.pretrain_run(task, seed).encoder)

    def pretrained_here(self, task: str) -> bool:
        """Whether an arm has a pretraining run."""
        return task != BASELINE and task not in self.external

    def _identity(self) -> Json:
        return {"splits": records.digest(self.splits.to_json()), "precision": self.precision,
                "numbers": records.NUMBERS, **self._ranks()}

    def _ranks(self) -> Json:
        """Several ranks a run draw other dropout, and add in another order, than one."""
        ranks = self.settings.RANKS_PER_RUN
        return {"ranks": ranks} if ranks > 1 else {}

    def pretext(self, task: str) -> Pretext:
        """The pretext task of an arm."""
        return joint.make(task, self.pretexts, self.settings.RESOLUTION)

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
                      lr=s.FINETUNE_LR, warmup=0 if task == BASELINE else warmup_epochs(s),
                      clip=s.FINETUNE_CLIP or None, validations=s.VALIDATIONS,
                      precision=self.precision)


def results_folder(settings: Settings) -> Path:
    """RESULTS; relative paths count from the repository, never from the working directory."""
    return records.ROOT / settings.RESULTS


def load_cases(study: Study, device: torch.device) -> Cases:
    """The cached arrays: on the device if they fit in half its free memory, else on the host."""
    images, maps = torch.from_numpy(study.cache.images()), study.cache.labels()
    labels = torch.from_numpy(maps) if maps is not None else torch.tensor(
        [fact["truth"] for fact in list(study.cache.facts.values())[:study.cache.labelled]])
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if images.nbytes + labels.nbytes < free / 2:
            images, labels = images.to(device), labels.to(device)
    return Cases(images, labels, list(study.cache.facts), device)


def pretrain(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> str:
    """Pretrain one encoder; returns one line on how it ended."""
    task = study.pretext(run.identity["task"])
    seed = run.identity["seed"]
    recipe = study.pretext_recipe(task, seed)
    rows = cases.rows(study.splits.val)
    model = pretext_model(study, task, cases, seed)
    state = fit(model, task, cases, train=cases.rows(study.pool), val=rows, run=run,
                recipe=recipe, report=report)
    if not parallel.leads():  # the first rank alone reports
        return ""
    assert state.best_weights is not None
    model.load_state_dict(state.best_weights)
    figures, _ = evaluate(model, task, cases, rows, recipe)
    encoder = for_whole_images(study, model.encoder, cases, seed)
    weights = {name: tensor.cpu().contiguous() for name, tensor in
               checkpoint.weights(encoder).items()}
    checkpoint.save(run.encoder, weights)
    run.finish({"stage": "pretrain", "task": task.name, "seed": seed,
                "score": {name: figures[name] for name in task.chance}, "chance": task.chance,
                "loss": figures["loss"], "epochs": state.epoch, "steps": state.epoch * recipe.steps,
                "batch": recipe.batch_size, "best_epoch": state.best_step // recipe.steps,
                "pool": len(study.pool), "encoder": checkpoint.weights_digest(weights),
                "generated": study.generated})
    shown = ", ".join(f"{name} {figures[name]:.3f} (chance {guess:.3f})"
                      for name, guess in task.chance.items())
    return f"{shown} after {state.epoch} epochs"


def for_whole_images(study: Study, trained: nn.Module, cases: Cases, seed: int) -> nn.Module:
    """A copy of an encoder whose BatchNorm has the running statistics of whole images.

    Those of the views (patches, turned images) would normalise wrongly what a frozen encoder is
    shown in finetuning. One pass over the pool, or STATISTICS_CASES of it, without dropout.
    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, sections 3 and 5.
    """
    encoder = study.make_encoder()  # with plain layers, where the trained one's span ranks
    encoder.load_state_dict(trained.state_dict())
    place(study, encoder, cases.device)
    encoder.eval()
    for layer in batch_norms(encoder):
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    rows = cases.rows(study.pool)
    order = torch.randperm(len(rows), generator=generator(seed, "statistics")).tolist()
    chosen = [rows[index] for index in order[:STATISTICS_CASES]]
    # Without a gradient a volume takes a ninth of the memory of a training step (counted).
    size = min(STATISTICS_BATCH,
               max(2, 4 * (study.settings.BATCH_SIZE // study.settings.RANKS_PER_RUN)))
    with torch.inference_mode(), autocast(cases.device, study.precision):
        for chunk in even_chunks(chosen, size):
            encoder(cases.batch(chunk, labelled=False).images)
    return encoder


def pretext_model(study: Study, task: Pretext, cases: Cases, seed: int) -> PretextModel:
    """A fresh encoder under the head of ``task``, on the device of ``cases``."""
    torch.manual_seed(seed)
    encoder = study.make_encoder()
    rows = cases.rows(study.splits.val)[:2]
    views, _ = task.prepare(cases.batch(rows, labelled=task.labelled),
                            generator(seed, "shape"), training=False)
    encoder.to(cases.device)
    model = PretextModel(encoder, task, views)
    place(study, model, cases.device)
    return model


def finetune(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> str:
    """Finetune one arm on one labelled subset; returns one line on how it ended."""
    task, fraction, seed = (run.identity[key] for key in ("task", "fraction", "seed"))
    downstream, recipe = study.downstream(), study.finetune_recipe(task, fraction, seed)
    torch.manual_seed(seed)  # encoder and decoder start alike in every arm, before loading
    encoder = study.make_encoder()
    model = study.make_network(encoder)
    study.load_start(encoder, task, seed)
    place(study, model, cases.device)
    labelled, val, test = (cases.rows(ids) for ids in (study.labelled(fraction, seed),
                                                       study.splits.val, study.splits.test))
    state = fit(model, downstream, cases, train=labelled, val=val, run=run, recipe=recipe,
                report=report)
    if not parallel.leads():  # the first rank alone reports
        return ""
    last = {name: evaluate(model, downstream, cases, rows, recipe)[0]
            for name, rows in (("test", test), ("val", val))}
    assert state.best_weights is not None
    model.load_state_dict(state.best_weights)
    figures, scores = evaluate(model, downstream, cases, test, recipe)
    checkpoint.save(run.folder / "best.pt", checkpoint.weights(model))
    run.finish({"stage": "finetune", "task": task, "fraction": fraction, "seed": seed,
                "metric": downstream.monitor, "classes": study.classes,
                "resolution": study.settings.RESOLUTION, "labelled": len(labelled),
                "labelled_cases": sorted(cases.ids[row] for row in labelled),
                "validation": len(val), "test_cases": len(test),
                "steps": recipe.epochs * recipe.steps, "batch": min(recipe.batch_size,
                                                                    len(labelled)),
                "selected": {"step": state.best_step, "rule": study.rule},
                "test": figures, "val": evaluate(model, downstream, cases, val, recipe)[0],
                "last": last, "generated": study.generated,
                "cases": dict(zip(study.splits.test, downstream.cases(scores), strict=True))})
    return f"test {downstream.monitor} {figures[downstream.monitor] or 0:.3f}"


def encoder_damage(run: Run) -> str | None:
    """Why a finished run's encoder.pt cannot be used, in one line; None if it can."""
    if not run.encoder.exists():
        return f"{run.encoder}: missing"
    try:
        same = checkpoint.weights_digest(checkpoint.load(run.encoder)) == run.scores()["encoder"]
    except (InputError, AttributeError, TypeError) as error:
        return str(error)
    return None if same else f"{run.encoder}: not the weights this run has trained"


def place(study: Study, model: nn.Module, device: torch.device) -> None:
    """Move a model to its device, on the CPU in the memory format that is faster there."""
    model.to(device)
    if device.type == "cpu" and study.memory_format is not None:
        model.to(memory_format=study.memory_format)


def train(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> str:
    """Train one run of either stage."""
    stages = {"pretrain": pretrain, "finetune": finetune}
    return stages[run.identity["stage"]](study, run, cases, report)
