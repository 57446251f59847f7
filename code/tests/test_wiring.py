"""What the loop is given: rows, recipes, weights and seeds of every run, in both trees.

fit() and evaluate() are doubles that write down what they get (wiring.py). Each sentence of the
protocol is then checked on rows, not on lists of names.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.downstream import metrics
from common.files import read_json
from common.runs import checkpoint, stages
from common.runs.records import Run
from common.runs.trained import weights_of
from common.runs.training import Recipe, State
from common.schedule import mending, plan
from common.tasks.siamese import batch_norms

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
from wiring import (  # noqa: E402
    FRACTIONS,
    PRETRAININGS,
    SEEDS,
    Grid,
    encoder,
    equal,
    grid_of,
    ids,
    study_of,
    trained,
    weights,
)


@pytest.fixture(scope="module", params=["3d", "2d"])
def grid(request: pytest.FixtureRequest, scans: Path, photographs: Path,
         tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """Every run of five arms, two fractions and two seeds, trained by doubles."""
    return grid_of(study_of(request.param, {"3d": scans, "2d": photographs}[request.param],
                            tmp_path_factory.mktemp("wiring")))


# Who is seen when.

def test_weights_are_chosen_on_the_validation_cases_and_on_no_other(grid: Grid) -> None:
    for one in grid.runs.values():
        assert ids(grid, one.fit.val) == grid.study.splits.val  # the same for every seed


def test_no_test_case_is_anywhere_but_in_the_last_evaluations_of_finetuning(grid: Grid) -> None:
    folds = grid.study.splits.folds
    for key, one in grid.runs.items():
        fold = int(key[-1]) % len(folds)
        test = set(grid.cases.rows(folds[fold]))
        assert one.run.identity["fold"] == one.scores["fold"] == fold and len(test) >= 2
        assert not test & {*one.fit.train, *one.fit.val}
        seen = [evaluation for evaluation in one.evaluations if test & set(evaluation.rows)]
        assert len(seen) == (2 if key[0] == "finetune" else 0)  # best and, beside it, last weights
        assert all(set(evaluation.rows) == test for evaluation in seen)


def test_pretraining_sees_the_training_cases_and_the_unlabelled_and_nobody_else(grid: Grid) -> None:
    parts, labelled = grid.study.splits, grid.cases.ids[:grid.study.cache.labelled]
    unlabelled = grid.cases.ids[grid.study.cache.labelled:]
    assert len(unlabelled) == 2
    for seed in SEEDS:
        train = {*labelled} - {*parts.val, *parts.folds[seed % len(parts.folds)]}
        for task in ("rotation", "exemplar"):
            seen = ids(grid, grid.pretrained(task, seed).fit.train)
            assert sorted(seen) == sorted([*train, *unlabelled])
        oracle = ids(grid, grid.pretrained("oracle", seed).fit.train)
        assert sorted(oracle) == sorted(train)


def test_a_labelled_subset_is_the_same_for_every_arm_and_another_for_every_seed(grid: Grid) -> None:
    found = grid.finetuned()
    subsets: dict[tuple[int, int], list[int]] = {}
    for (_, fraction, seed), one in found.items():
        rows = subsets.setdefault((fraction, seed), one.fit.train)
        assert one.fit.train == rows
        assert one.scores["labelled_cases"] == sorted(ids(grid, rows))
        assert one.scores["labelled"] == len(rows) == len(set(rows))
        train = grid.study.part(seed).train
        assert len(rows) == max(2, round(len(train) * fraction / 100))
        assert set(ids(grid, rows)) <= set(train)
    for seed in SEEDS:
        small, large = (set(subsets[fraction, seed]) for fraction in FRACTIONS)
        assert small < large == set(grid.cases.rows(grid.study.part(seed).train))
    assert set(subsets[50, SEEDS[0]]) != set(subsets[50, SEEDS[1]])


def test_the_smallest_subset_that_can_has_every_class_for_every_seed(grid: Grid) -> None:
    facts = grid.study.cache.facts
    enough = 34 if grid.study.tree == "3d" else 36  # percent: two scans, five photographs
    for seed in range(12):
        train = grid.study.part(seed).train
        classes = {label for case in train for label in facts[case]["contains"]}
        drawn = grid.study.labelled(enough, seed)
        assert {label for case in drawn for label in facts[case]["contains"]} == classes


# How it is trained.

def test_every_arm_has_the_same_recipe_and_steps_and_the_baseline_is_never_frozen(
        grid: Grid) -> None:
    batch = grid.study.settings.BATCH_SIZE
    parts = [grid.study.part(seed) for seed in range(5)]
    steps = -(-max(len(part.train) for part in parts) // batch)
    assert len({len(part.train) for part in parts}) > 1  # and yet as many steps in every fold
    for (task, _, seed), one in grid.finetuned().items():
        baseline = task == "baseline"
        assert one.fit.recipe == Recipe(
            seed=seed, epochs=5, steps=steps, batch_size=batch, lr=0.03,
            warmup=0 if baseline else 2, start_lr_factor=1.0 if baseline else 0.25, clip=0.5,
            schedule="cosine", ramp=round(0.05 * 5 * steps), norm_momentum=0.1, validations=9,
            dropout={"3d": 0.0, "2d": None}[grid.study.tree])
        assert one.scores["steps"] == 5 * steps
        assert one.fit.task == {"3d": "segmentation", "2d": "grading"}[grid.study.tree]


def test_pretext_tasks_are_trained_as_set_and_the_oracle_as_the_baseline(grid: Grid) -> None:
    finetuned = grid.finetuned()
    for seed in SEEDS:
        for task in ("rotation", "exemplar"):
            one = grid.pretrained(task, seed)
            assert one.fit.recipe == Recipe(
                seed=seed, epochs=7, steps=-(-len(grid.study.pool(seed)) // 3), batch_size=3,
                lr=0.02, smoothing=5, patience=6, patience_from=11, draws=4,
                dropout={"3d": 0.0, "2d": None}[grid.study.tree])
            assert one.fit.task == task and one.scores["pool"] == len(grid.study.pool(seed))
        oracle = grid.pretrained("oracle", seed).fit.recipe
        assert oracle.seed not in SEEDS  # another initialisation than the baseline's
        assert replace(oracle, seed=seed) == finetuned["baseline", 100, seed].fit.recipe


# With which weights.

def test_encoder_and_decoder_start_alike_in_every_arm_of_a_seed(grid: Grid) -> None:
    found = grid.finetuned()
    for seed in SEEDS:
        own = found["baseline", 50, seed].fit.start
        torch.manual_seed(seed)
        fresh = grid.study.networks.downstream(grid.study.networks.encoder())
        assert equal(own, weights(fresh))
        for (_, _, other), one in found.items():
            behind = {name: value for name, value in one.fit.start.items()
                      if not name.startswith("encoder.")}
            same = all(torch.equal(value, own[name]) for name, value in behind.items())
            assert same == (other == seed)


def test_encoders_start_alike_in_every_pretext_task_of_a_seed(grid: Grid) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        fresh = weights(grid.study.networks.encoder())
        for task in ("rotation", "exemplar"):
            assert equal(encoder(grid.pretrained(task, seed).fit.start), fresh)
        oracle = encoder(grid.pretrained("oracle", seed).fit.start)
        assert not any(torch.equal(oracle[name], value) for name, value in fresh.items()
                       if value.numel() > 9 and value.std() > 0)  # not the baseline's start


def test_every_arm_starts_from_the_encoder_of_its_own_task_and_seed(grid: Grid) -> None:
    for (task, _, seed), one in grid.finetuned().items():
        if task in ("baseline", "rotation@shuffled"):
            continue
        trained = grid.pretrained(task, seed)
        start = encoder(one.fit.start)
        assert equal(start, encoder(trained.fit.best), learnt=True)  # the best, not the last
        assert equal(start, checkpoint.load(trained.run.encoder))
        assert trained.scores["encoder"] == checkpoint.weights_digest(start)
        assert one.run.identity["encoder"]["weights"] == trained.scores["encoder"]


def test_a_shuffled_start_has_the_values_of_its_task_and_not_their_places(grid: Grid) -> None:
    for (task, _, seed), one in grid.finetuned().items():
        if task != "rotation@shuffled":
            continue
        learnt = encoder(grid.pretrained("rotation", seed).fit.best)
        start = encoder(one.fit.start)
        for name, value in start.items():
            if "running" not in name and "num_batches" not in name:
                assert torch.equal(value.flatten().sort()[0], learnt[name].flatten().sort()[0])
                assert value.numel() < 9 or not torch.equal(value, learnt[name])
        again = encoder(grid.finetuned()[task, 50, seed].fit.start)
        assert equal(start, again)  # the same for every fraction


def test_a_handed_on_encoder_has_the_statistics_of_whole_images_of_the_pool(grid: Grid) -> None:
    """Those of the views would normalise wrongly; taken from the images, batch by batch."""
    seed = SEEDS[1]
    rows = grid.cases.rows(grid.study.pool(seed))
    images = grid.cases.batch(rows, labelled=False).images
    for task in PRETRAININGS:
        one = grid.pretrained(task, seed)
        made = grid.study.networks.encoder()
        made.load_state_dict(encoder(one.fit.best))
        seen: list[Tensor] = []
        first = batch_norms(made)[0]
        first.register_forward_pre_hook(
            lambda layer, given, kept=seen: kept.append(given[0].detach()))
        made.eval()(images)
        name = next(name for name, layer in made.named_modules() if layer is first)
        kept = checkpoint.load(one.run.encoder)[f"{name}.running_mean"]
        expected = seen[0].transpose(0, 1).flatten(1).mean(1)
        assert torch.allclose(kept, expected, rtol=0.05, atol=0.02 * float(seen[0].std()))
        assert not torch.equal(kept, encoder(one.fit.best)[f"{name}.running_mean"])


def test_what_is_reported_is_that_of_the_best_weights_and_beside_it_of_the_last(grid: Grid) -> None:
    metric = {"3d": "dice", "2d": "kappa"}[grid.study.tree]
    for (_, _, seed), one in grid.finetuned().items():
        scores, part = one.scores, grid.study.part(seed)
        test, val = (grid.cases.rows(cases) for cases in (part.test, part.val))
        for rows, state, reported in (
                (test, one.fit.best, scores["test"]), (val, one.fit.best, scores["val"]),
                (test, one.fit.last, scores["last"]["test"]),
                (val, one.fit.last, scores["last"]["val"])):
            mine = [evaluation for evaluation in one.evaluations
                    if evaluation.rows == rows and equal(evaluation.weights, state)]
            assert [evaluation.figure for evaluation in mine] == [reported[metric]]
        assert len(one.evaluations) == 4 and scores["metric"] == metric
        assert equal(weights_of(one.run.folder / "best.pt"), one.fit.best)
        assert scores["selected"]["step"] == one.fit.recipe.steps
        assert (scores["test_cases"], scores["validation"]) == (len(test), len(val))


def test_a_pretext_tasks_figures_are_those_of_the_best_weights_on_validation(grid: Grid) -> None:
    for task in PRETRAININGS:
        one = grid.pretrained(task, 0)
        evaluation, = one.evaluations
        assert evaluation.rows == grid.cases.rows(grid.study.splits.val)
        assert equal(evaluation.weights, one.fit.best)
        assert set(one.scores["score"].values()) == {evaluation.figure}
        assert one.scores["epochs"] == one.fit.recipe.epochs and one.scores["best_epoch"] == 1
    chance = {"3d": 0.1, "2d": 0.25}[grid.study.tree]
    assert grid.pretrained("rotation", 0).scores["chance"] == {"accuracy": chance}


# Whose score is whose.

def test_every_cases_score_is_written_under_its_own_name(grid: Grid) -> None:
    folds = grid.study.splits.folds
    for (_, _, seed), one in grid.finetuned().items():
        kept = one.scores["cases"]
        assert list(kept) == folds[seed % len(folds)]
        for case, score in kept.items():
            row = score["both"][0] if grid.study.tree == "3d" else score["truth"]
            assert grid.cases.ids[row] == case


class Level(nn.Module):
    """Says of every voxel, or of a whole photograph, what its brightness says."""

    def __init__(self, within: nn.Module, classes: int, flat: bool) -> None:
        super().__init__()
        self.encoder, self.classes, self.flat = within, classes, flat

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean((1, 2, 3))[:, None] if self.flat else images[:, :1]
        steps = torch.arange(self.classes).view(-1, *(1,) * (level.dim() - 2)) / self.classes
        if self.flat:
            return level - steps / 4  # ordinal: how many of the steps it exceeds
        return -(level - steps - 1 / self.classes / 2).abs()


def test_with_known_answers_every_case_has_the_score_that_it_should(
        grid: Grid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real evaluate(), a network without weights, and a reference of one case at a time."""
    flat = grid.study.tree == "2d"
    classes = 5 if flat else 2
    known = replace(grid.study, networks=replace(
        grid.study.networks, downstream=lambda within: Level(within, classes, flat)))

    def fit(model: nn.Module, task: Any, cases: Any, **given: Any) -> Any:
        return trained(State(epoch=1, best_step=1, best_weights=weights(model)), model=model,
                       task=task, cases=cases, **given)
    monkeypatch.setattr(stages, "Fit", fit)
    run = Run(tmp_path / "finetune/baseline/fraction100/seed0",
              {"stage": "finetune", "task": "baseline", "fraction": 100, "seed": 0,
               "fold": 0, "draw": 0})
    run.start({})
    stages.train(known, run, grid.cases, lambda steps: None)
    network, found = Level(nn.Identity(), classes, flat), run.scores()["cases"]
    images, maps, facts = (known.cache.images(), known.cache.labels(), known.cache.facts)
    assert len({str(score) for score in found.values()}) > 1
    for case in known.part(0).test:
        row = list(facts).index(case)
        image = torch.from_numpy(np.array(images[row]))[None].float() / (255 if flat else 1)
        outputs = network(image)
        if flat:
            grade = min(4, max(0, int((outputs > 0).sum()) - 1))
            assert found[case] == {"truth": facts[case]["truth"], "predicted": grade}
        else:
            assert maps is not None
            expected = metrics.dice(maps[row], outputs.argmax(1)[0], 2)
            for name, value in zip(known.classes, expected[1:], strict=True):
                stated = found[case][f"dice_{name}"]
                assert stated is None if np.isnan(value) else stated == pytest.approx(value)


def test_cases_that_change_sides_make_other_runs(grid: Grid) -> None:
    parts = grid.study.splits
    for swapped in (replace(parts, val=parts.folds[0], folds=[parts.val, *parts.folds[1:]]),
                    replace(parts, folds=[parts.folds[1], parts.folds[0], *parts.folds[2:]])):
        assert replace(grid.study, splits=swapped).finetune_run("baseline", 50, 0).changes()
    assert not grid.study.finetune_run("baseline", 50, 0).changes()


# What others are told of a start.

def test_beside_an_encoder_stands_which_images_it_has_seen(grid: Grid) -> None:
    facts = grid.study.cache.facts

    def pixels(rows: list[int]) -> list[str]:
        return sorted(facts[case]["pixels"] for case in ids(grid, rows))
    for task in PRETRAININGS:
        one = grid.pretrained(task, 0)
        origin = read_json(one.run.encoder.with_suffix(".json"))
        assert origin["learnt from"] == pixels(one.fit.train)
        assert origin["chosen on"] == pixels(one.fit.val)


def test_an_encoder_that_is_not_the_one_trained_is_noticed(grid: Grid, tmp_path: Path) -> None:
    one = grid.pretrained("exemplar", 0).run
    assert mending.encoder_damage(one) is None
    copy = Run(tmp_path / "pretrain" / "exemplar" / "seed0", one.identity)
    shutil.copytree(one.folder, copy.folder)
    other = grid.pretrained("exemplar", SEEDS[1]).run
    checkpoint.save(copy.encoder, checkpoint.load(other.encoder))
    assert "not the weights" in str(mending.encoder_damage(copy))
    copy.encoder.unlink()
    assert "missing" in str(mending.encoder_damage(copy))


def test_a_run_waits_for_its_own_encoder(grid: Grid) -> None:
    assert all(job.ready() and job.make().done() for job in plan.plan(grid.study))
    fewer = replace(grid.study, unlabelled=grid.study.unlabelled[:-1])  # not pretrained on yet
    waits = {job.make().identity["task"] for job in plan.plan(fewer) if not job.ready()}
    assert waits == {"rotation", "exemplar", "rotation@shuffled"}
