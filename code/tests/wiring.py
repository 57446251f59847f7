"""Doubles of fit() and evaluate() that write down what they are given; all runs of a tiny study.

For test_wiring.py, which checks each sentence of the protocol on what stands here.
"""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common import settings
from common.data import cache
from common.files import Json
from common.runs import stages
from common.runs.records import Run
from common.runs.study import Study
from common.runs.training import Recipe, State
from common.schedule import grid as runs_grid
from common.tasks.batches import Cases, generator

CODE = Path(__file__).resolve().parents[1]
SMALL = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "2", "--batch-size", "2",
                "--folds", "3"],
         "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
                "--batch-size", "3"]}
TASKS = ["baseline", "rotation", "exemplar", "oracle", "rotation@shuffled"]
PRETRAININGS = ["rotation", "exemplar", "oracle"]
FRACTIONS, SEEDS = (50, 100), (0, 4)  # of two folds, in both trees
GIVEN = ["--tasks", *TASKS, "--fractions", *map(str, FRACTIONS), "--seeds", *map(str, SEEDS),
         "--pretext-batch-size", "3", "--pretext-epochs", "7", "--pretext-lr", "0.02",
         "--pretext-patience", "6", "--pretext-min-steps", "11", "--finetune-epochs", "5",
         "--finetune-lr", "0.03", "--warmup-epochs", "2", "--validations", "9",
         "--start-lr-factor", "0.25", "--finetune-clip", "0.5", "--device", "cpu"]


class Fitted(NamedTuple):
    """One call of fit()."""

    task: str
    train: list[int]
    val: list[int]
    recipe: Recipe
    start: dict[str, Tensor]  # weights of the network that training starts with
    best: dict[str, Tensor]   # what the double says was best on validation
    last: dict[str, Tensor]   # what it leaves in the network


class Evaluated(NamedTuple):
    """One call of evaluate(); its figures are numbers that no other call has."""

    rows: list[int]
    weights: dict[str, Tensor]
    figure: float


class Trained(NamedTuple):
    """What a run was given, and what it has recorded."""

    run: Run
    fit: Fitted
    evaluations: list[Evaluated]

    @property
    def scores(self) -> Json:
        return self.run.scores()


class Grid(NamedTuple):
    """All runs of a study, and what they were made of."""

    study: Study
    cases: Cases
    runs: dict[tuple[str, ...], Trained]  # ("pretrain", task, seed), ("finetune", task, %, seed)

    def __repr__(self) -> str:
        return f"Grid({self.study.tree})"  # not every tensor, where a test fails

    def finetuned(self) -> dict[tuple[str, int, int], Trained]:
        return {(key[1], int(key[2]), int(key[3])): one
                for key, one in self.runs.items() if key[0] == "finetune"}

    def pretrained(self, task: str, seed: int) -> Trained:
        return self.runs["pretrain", task, str(seed)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("encoder."): value for name, value in state.items()
            if name.startswith("encoder.")}


def equal(a: dict[str, Tensor], b: dict[str, Tensor], learnt: bool = False) -> bool:
    """Whether two states agree; ``learnt``: without BatchNorm's running statistics."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a
                                        if not learnt or "running" not in name
                                        and "num_batches" not in name)


def changed(state: dict[str, Tensor], what: str) -> dict[str, Tensor]:
    """The weights of a state, a little different for every ``what``."""
    rng = generator(0, what)
    return {name: value + 0.01 * torch.rand(value.shape, generator=rng)
            if value.is_floating_point() else value.clone() for name, value in state.items()}


def trained(state: State, **given: Any) -> Any:
    """A Fit that has nothing left to do."""
    return SimpleNamespace(state=state, start=lambda: None, due=lambda: False, spent={},
                           timed=lambda what: nullcontext(), log_time=lambda seconds: None,
                           **given)


class Doubles:
    """In the place of fit() and evaluate() of one run after another."""

    def __init__(self) -> None:
        self.fits: list[Fitted] = []
        self.evaluations: list[Evaluated] = []
        self.calls = 0

    def fit(self, model: nn.Module, task: Any, cases: Cases, *, train: list[int], val: list[int],
            run: Run, recipe: Recipe, report: Any) -> Any:
        start, name = weights(model), run.name
        best, last = changed(start, f"{name} best"), changed(start, f"{name} last")
        model.load_state_dict(last)
        self.fits.append(Fitted(task.name, train, val, recipe, start, best, last))
        return trained(State(epoch=recipe.epochs, best_step=recipe.steps, best_weights=best),
                       model=model, task=task, cases=cases, train=train, val=val, run=run,
                       recipe=recipe)

    def evaluate(self, model: nn.Module, task: Any, cases: Cases, rows: list[int],
                 recipe: Recipe) -> tuple[dict[str, Any], dict[str, Any]]:
        self.calls += 1
        self.evaluations.append(Evaluated(rows, weights(model), float(self.calls)))
        figures = {name: float(self.calls) for name in
                   (*getattr(task, "chance", {}), "loss", "dice", "kappa")}
        segmented = getattr(task, "downstream", task)  # the oracle's is within
        count = len(segmented.classes) if segmented.name == "segmentation" else 2
        table = np.zeros((len(rows), count, count), int)
        table[:, 0, 0] = rows  # every case's score tells which row it is of
        return figures, {"confusion": table, "truth": np.array(rows), "predicted": np.array(rows)}


def exp_of(tree: str) -> Any:
    """exp.py of a tree, its siblings imported by their bare names as its command does."""
    siblings = ("loader", "model", "phantom", "pretext")
    kept = {name: sys.modules.pop(name) for name in siblings if name in sys.modules}
    path = list(sys.path)
    sys.path.insert(0, str(CODE / tree))
    try:
        found = importlib.util.spec_from_file_location(f"wired_{tree}", CODE / tree / "exp.py")
        assert found is not None and found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = path
        for name in siblings:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def study_of(tree: str, data: Path, folder: Path, *more: str) -> Study:
    """The study of a tree on generated data, made as its command makes it."""
    exp = exp_of(tree)
    chosen = settings.from_flags(vars(exp), ["--data", str(data), "--results", str(folder / "r"),
                                             "--cache", str(folder / "c"), *SMALL[tree], *GIVEN,
                                             *more])
    runs_grid.check(chosen, exp.TREE)
    with pytest.MonkeyPatch.context() as patch:  # ten small files need no processes
        patch.setattr(cache, "ProcessPoolExecutor", lambda workers, **_: ThreadPoolExecutor(1),
                      raising=False)
        study: Study = exp.make_study(chosen, "float32", {})
    return study


def grid_of(study: Study) -> Grid:
    """Train every run of the arms, fractions and seeds, by doubles."""
    cases = stages.load_cases(study, torch.device("cpu"))
    runs = {("pretrain", task, str(seed)): (study.pretrain_run, (task, seed))
            for task in PRETRAININGS for seed in SEEDS}
    runs |= {("finetune", task, str(fraction), str(seed)): (study.finetune_run,  # type: ignore[misc]
                                                            (task, fraction, seed))
             for task in TASKS for fraction in FRACTIONS for seed in SEEDS}
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        doubles = Doubles()
        patch.setattr(stages, "Fit", doubles.fit)
        patch.setattr(stages, "evaluate", doubles.evaluate)
        for key, (make, given) in runs.items():
            doubles.fits, doubles.evaluations = [], []
            run = make(*given)
            run.start({})
            torch.manual_seed(len(done))  # what was drawn before must not matter
            stages.train(study, run, cases, lambda steps: None)
            assert len(doubles.fits) == 1 and run.done()
            done[key] = Trained(run, doubles.fits[0], doubles.evaluations)
    return Grid(study, cases, done)


def ids(grid: Grid, rows: list[int]) -> list[str]:
    return ids_of(grid.cases, rows)


def ids_of(cases: Cases, rows: list[int]) -> list[str]:
    return [cases.ids[row] for row in rows]
