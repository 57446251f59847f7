"""The two stages: pretrain() and finetune(), each one run, whole."""

from collections.abc import Callable

import torch
from torch import nn

from common import arms
from common.machine import parallel
from common.runs import checkpoint
from common.runs.encoders import for_whole_images, place, write_origin
from common.runs.records import Run
from common.runs.study import ORACLE_SEED, Study
from common.runs.training import Cases, evaluate, fit, generator
from common.tasks.contract import Pretext, Task
from common.tasks.siamese import PretextModel


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
    """Train what an arm starts from and keep its encoder; returns one line on how it ended."""
    name, seed = run.identity["task"], run.identity["seed"]
    recipe = study.pretrain_recipe(name, seed)
    task, model, learnt_from = _pretraining(study, name, seed, cases)
    rows = cases.rows(study.splits.val)
    state = fit(model, task, cases, train=cases.rows(learnt_from), val=rows, run=run,
                recipe=recipe, report=report)
    if not parallel.leads():  # the first rank alone reports
        return ""
    assert state.best_weights is not None
    model.load_state_dict(state.best_weights)
    figures, _ = evaluate(model, task, cases, rows, recipe)
    assert isinstance(model.encoder, nn.Module)
    encoder = for_whole_images(study, model.encoder, cases, seed)
    weights = {name: tensor.cpu().contiguous() for name, tensor in
               checkpoint.weights(encoder).items()}
    checkpoint.save(run.encoder, weights)
    write_origin(run.encoder, study.dataset, learnt_from=_pixels(study, learnt_from),
                          chosen_on=_pixels(study, study.splits.val))
    # A pretext task's figures are those that a guess is known for; the oracle's is Dice or kappa.
    chance: dict[str, float] = getattr(task, "chance", {})
    shown = list(chance) or [task.monitor]
    run.finish({"stage": "pretrain", "task": name, "seed": seed,
                "score": {figure: figures[figure] for figure in shown}, "chance": chance,
                "loss": figures["loss"], "epochs": state.epoch, "steps": state.epoch * recipe.steps,
                "batch": recipe.batch_size, "best_step": state.best_step,
                "best_epoch": state.best_step // recipe.steps,
                "pool": len(learnt_from), "encoder": checkpoint.weights_digest(weights),
                "generated": study.generated})
    said = ", ".join(f"{figure} {figures[figure]:.3f}" + (
        f" (chance {chance[figure]:.3f})" if figure in chance else " on validation")
        for figure in shown)
    return f"{said} after {state.epoch} epochs"


def _pretraining(study: Study, name: str, seed: int,
                 cases: Cases) -> tuple[Task, nn.Module, list[str]]:
    """The task that trains an arm's start, its network, and the ids it learns from."""
    if arms.is_oracle(name):
        torch.manual_seed(seed + ORACLE_SEED)  # another initialisation than the baseline's
        model = study.make_network(study.make_encoder())
        place(study, model, cases.device)
        return study.downstream(), model, study.labelled(100, seed)
    task = study.pretext(name)
    return task, pretext_model(study, task, cases, seed), study.pool


def _pixels(study: Study, ids: list[str]) -> list[str]:
    """Digests of the images of cases as they lie on disk."""
    return [str(study.cache.facts[case]["pixels"]) for case in ids]


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
    study.load_start(encoder, task, seed, cases)
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


def train(study: Study, run: Run, cases: Cases, report: Callable[[int], None]) -> str:
    """Train one run of either stage."""
    stages = {"pretrain": pretrain, "finetune": finetune}
    return stages[run.identity["stage"]](study, run, cases, report)
