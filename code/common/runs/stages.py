"""The two stages, pretraining and finetuning: one run, whole."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from common import arms
from common.machine import parallel
from common.runs import checkpoint, pictures, trained
from common.runs.encoders import (
    check_rows,
    for_whole_images,
    keep,
    load_start,
    place,
    shared,
    write_origin,
)
from common.runs.rates import Rates
from common.runs.records import Run, share_of
from common.runs.semi import KINDS, MeanTeacher
from common.runs.study import Study
from common.runs.training import Fit, Recipe, autocast, evaluate
from common.tasks.batches import Cases, generator, initialise
from common.tasks.contract import Parts, Pretext, Scores

Evaluated = dict[str, tuple[dict[str, Any], Scores]]  # figures and scores of cases, by their part


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


def train(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> str:
    """Train one run of either stage to its end; returns one line on how it ended."""
    stage, finish = STAGES[run.identity["stage"]]
    begun = time.monotonic()
    fit = stage(study, run, cases, report)
    fit.start()
    fit.spent["starting"] = time.monotonic() - begun
    while fit.due():
        fit.epoch()
    if not parallel.leads():
        return ""  # the first rank alone reports
    with fit.timed("finishing"):
        line = finish(study, fit)
    fit.log_time(0.0)
    return line


def pretraining(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> Fit:
    """What trains the start of an arm."""
    seed, pool = run.identity["seed"], share_of(run.identity)
    task = study.task(run.identity["task"])
    recipe = study.pretrain_recipe(task, seed)
    model = pretext_network(study, task, cases, recipe)
    train, val = (cases.rows(ids) for ids in (study.learnt_from(task, seed, pool=pool),
                                              study.part(seed).val))
    check_rows(study, cases, seed, train=train, val=val)
    return Fit(model, task, cases, train=train, val=val, run=run, recipe=recipe, report=report)


def pretext_network(study: Study, task: Pretext, cases: Cases, recipe: Recipe) -> nn.Module:
    """A fresh network of a pretraining, on the device of ``cases``."""
    initialise(recipe.seed)
    encoder = study.networks.encoder()
    rows = cases.rows(study.splits.val[:2])
    views, _ = task.prepare(cases.batch(rows, labelled=task.labelled),
                            generator(recipe.seed, "shape"), training=False)
    model = task.network(Parts(encoder.to(cases.device), lambda outputs: study.networks.decoder(
        encoder, outputs), lambda: study.networks.downstream(encoder), views))
    place(study, model, cases.device)
    return model


def finish_pretraining(study: Study, fit: Fit) -> str:
    """Keep what is handed on, and how well the task was learnt."""
    run, state, recipe = fit.run, fit.state, fit.recipe
    assert isinstance(fit.task, Pretext) and state.best_weights is not None
    fit.model.load_state_dict(state.best_weights)
    figures, _ = evaluate(fit.model, fit.task, fit.cases, fit.val, recipe)
    weights = shared(fit.model, study.networks.downstream(study.networks.encoder()))
    digests = keep(for_whole_images(study, weights, fit.cases, run.identity["seed"],
                                    pool=share_of(run.identity)), run)
    if shown := pictures.answers(fit.model, fit.task, fit.cases, fit.val, recipe.precision):
        pictures.write_arrays(run.folder / pictures.ANSWERS, shown)
    learnt_from = [fit.cases.ids[row] for row in fit.train]
    write_origin(run.encoder, study.dataset, learnt_from=_pixels(study, learnt_from),
                 chosen_on=_pixels(study, study.splits.val))
    chance = dict(fit.task.chance_of(figures))
    # Figures that a guess is known for; without one what the weights were chosen by, if any.
    names = list(chance) or [name for name in [fit.task.monitor] if name in figures]
    run.finish({"stage": "pretrain", **{key: run.identity[key] for key in ("task", "seed", "fold")},
                "score": {name: figures[name] for name in names}, "chance": chance,
                "loss": figures["loss"], "epochs": state.epoch, "steps": state.epoch * recipe.steps,
                "batch": recipe.batch_size, "best_step": state.best_step,
                "best_epoch": state.best_step // recipe.steps,
                "pool": len(learnt_from),  # of its share where that is not the whole
                **({"pool_share": run.identity["pool"]} if "pool" in run.identity else {}),
                **digests, "generated": study.generated})
    said = ", ".join(f"{name} {figures[name]:.3f}" + (
        f" (chance {chance[name]:.3f})" if name in chance else " on validation")
        for name in names) or f"loss {figures['loss']:.3f} on validation"
    return f"{said} after {state.epoch} epoch{'s' if state.epoch != 1 else ''}"


def _pixels(study: Study, ids: list[str]) -> list[str]:
    """Digests of the images of cases as they lie on disk."""
    return [str(study.cache.facts[case]["pixels"]) for case in ids]


def finetuning(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> Fit:
    """What finetunes an arm on a labelled subset; in a trial of --tune with the trial's rates."""
    arm, fraction, seed = (run.identity[key] for key in ("task", "fraction", "seed"))
    draw = run.identity.get("draw", 0)
    trial = Rates(**run.identity["rates"]) if run.identity["stage"] == "tune" else None
    recipe = study.finetune_recipe(arm, fraction, seed, draw=draw, trial=trial)
    initialise(recipe.seed)  # encoder and decoder start alike in every arm, before loading
    model = study.networks.downstream(study.networks.encoder())
    load_start(study, model, arm, seed, cases, pool=share_of(run.identity))
    place(study, model, cases.device)
    labelled, val = study.labelled(fraction, seed, draw=draw), study.part(seed).val
    train, chooses = cases.rows(labelled), cases.rows(val)
    check_rows(study, cases, seed, train=train, val=chooses)
    kind: Callable[..., Fit] = Fit
    if arm in arms.SEMI:
        unlabelled = cases.rows(study.pool(seed))
        check_rows(study, cases, seed, train=unlabelled)
        kind = partial(KINDS[arm], unlabelled=unlabelled)
    return kind(model, study.downstream(), cases, train=train, val=chooses, run=run, recipe=recipe,
                report=report)


def finish_finetuning(study: Study, fit: Fit) -> str:
    """Test the weights chosen on validation, and beside them the last; keep every case's score."""
    run, state, recipe, task = fit.run, fit.state, fit.recipe, fit.task
    tested = study.part(run.identity["seed"]).test
    test = fit.cases.rows(tested)

    parts = {"test": test, "val": fit.val}
    taught = {name: evaluate(fit.teacher, task, fit.cases, rows, recipe)[0] for name, rows
              in parts.items()} if isinstance(fit, MeanTeacher) else {}
    last, best = last_and_best(fit, parts)
    figures, scores = best["test"]
    own = study.downstream().cases(scores)
    if study.native is not None:
        native = native_scores(study, fit, test)
        own = [{**case, **more} for case, more in zip(own, native, strict=True)]
        figures = {**figures, **{name: mean_of_known([case[name] for case in native])
                                 for name in native[0]}}
    trained.save(study, run, checkpoint.weights(fit.model))
    labelled = [fit.cases.ids[row] for row in fit.train]
    seed, arm = run.identity["seed"], run.identity["task"]
    if arms.pretraining(arm) not in study.external:  # of whose images nobody may know
        seen = {*labelled, *([] if arm == arms.BASELINE else study.pool(seed))}
        write_origin(run.folder / trained.NAME, study.dataset,
                     learnt_from=_pixels(study, sorted(seen)),
                     chosen_on=_pixels(study, study.splits.val))
    run.finish({"stage": "finetune", **{key: run.identity[key] for key in
                                        ("task", "fraction", "seed", "fold", "draw", "pool")
                                        if key in run.identity},
                "metric": task.monitor, "classes": study.classes,
                "resolution": study.settings.RESOLUTION, "labelled": len(labelled),
                "labelled_cases": sorted(labelled), "validation": len(fit.val),
                "test_cases": len(test), "steps": recipe.epochs * recipe.steps,
                "batch": min(recipe.batch_size, len(labelled)),
                "selected": {"step": state.best_step, "rule": study.rule},
                **({"protocol": study.settings.PROTOCOL} if study.settings.PAPER else {}),
                "test": figures, "val": best["val"][0],
                "last": {name: found for name, (found, _) in last.items()},
                **({"teacher": taught} if taught else {}),
                "generated": study.generated,
                "cases": dict(zip(tested, own, strict=True))})
    return f"test {task.monitor} {figures[task.monitor] or 0:.3f}"


def last_and_best(fit: Fit, parts: Mapping[str, list[int]]) -> tuple[Evaluated, Evaluated]:
    """What the last weights and those chosen on validation score on rows, by the names of parts.

    The model has the chosen ones afterwards. Where they are the last ones they are not run again.
    """
    def scored() -> Evaluated:
        return {name: evaluate(fit.model, fit.task, fit.cases, rows, fit.recipe)
                for name, rows in parts.items()}
    last, weights = scored(), fit.state.best_weights
    assert weights is not None
    if fit.state.best_step == fit.recipe.epochs * fit.recipe.steps:
        return last, last
    fit.model.load_state_dict(weights)
    return last, scored()


def native_scores(study: Study, fit: Fit, rows: list[int]) -> list[dict[str, Any]]:
    """What each case scores in its own grid."""
    assert study.native is not None
    found = []
    fit.model.eval()
    with torch.inference_mode():
        for row in rows:
            images = fit.cases.batch([row], labelled=False).images
            with autocast(fit.cases.device, study.precision):
                outputs = fit.model(images)
            found.append(study.native(study.downstream().probabilities(outputs)[0].cpu(),
                                      fit.cases.ids[row]))
    return found


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Their mean without those that are None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def finish_trial(study: Study, fit: Fit) -> str:
    """Keep what a trial of --tune scores on validation; no test case is looked at."""
    run, state, task = fit.run, fit.state, fit.task
    last, figures = (found["val"][0] for found in last_and_best(fit, {"val": fit.val}))
    run.finish({"stage": "tune", **{key: run.identity[key] for key in
                                    ("task", "fraction", "seed", "fold", "rates")},
                "metric": task.monitor, "labelled": len(fit.train), "validation": len(fit.val),
                "steps": fit.recipe.epochs * fit.recipe.steps, "val": figures,
                "selected": {"step": state.best_step, "rule": study.rule}, "last": {"val": last},
                "generated": study.generated})
    return f"validation {task.monitor} {figures[task.monitor] or 0:.3f}"


STAGES = {"pretrain": (pretraining, finish_pretraining),
          "finetune": (finetuning, finish_finetuning), "tune": (finetuning, finish_trial)}
