"""The design of a study: test folds, draws of the labels, the primary comparison; nothing trained.

Who is tested when is in test_splits.py and, on rows, in test_wiring.py.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import arms
from common.errors import InputError, RunFailed
from common.runs import encoders, records, snapshots, stages
from common.runs.study import DRAW_SEED, ORACLE_SEED, Study
from common.schedule import announce, grid, plan
from common.settings import Settings, from_flags
from common.tasks.batches import Cases

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
from wiring import ids_of, study_of  # noqa: E402

SEEDS = range(7)


@pytest.fixture(scope="module", params=["3d", "2d"])
def study(request: pytest.FixtureRequest, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Three folds of ten scans, five of twenty photographs."""
    return study_of(request.param, {"3d": scans, "2d": photographs}[request.param],
                    tmp_path_factory.mktemp("design"))


@pytest.fixture(scope="module")
def cases(study: Study) -> Cases:
    return stages.load_cases(study, torch.device("cpu"))


def with_settings(study: Study, folder: Path | None = None, **values: Any) -> Study:
    where = {"RESULTS": str(folder)} if folder else {}
    return replace(study, settings=Settings(**{**vars(study.settings), **values, **where}))


# Folds.

def test_no_seed_pretrains_on_validation_or_on_its_own_test_fold(study: Study) -> None:
    everybody = {*study.splits.val, *study.unlabelled}.union(*study.splits.folds)
    for seed in SEEDS:
        test = study.splits.folds[seed % len(study.splits.folds)]
        assert sorted(study.pool(seed)) == sorted(everybody - {*test, *study.splits.val})
        assert sorted(study.learnt_from(study.task("oracle"), seed)) == study.part(seed).train


def test_a_pretraining_depends_on_its_fold_and_within_one_on_its_seed_alone(study: Study) -> None:
    folds = len(study.splits.folds)
    for task in ("rotation", "oracle"):
        first, again, other = (study.pretrain_run(task, seed).identity
                               for seed in (0, folds, 1))
        assert again == {**first, "seed": folds} and first["fold"] == again["fold"] == 0
        assert other["fold"] == 1
    images = [study.pretrain_run("rotation", seed).identity["pool images"] for seed in SEEDS]
    assert len(set(images)) == folds and images[folds:] == images[:len(SEEDS) - folds]


@pytest.mark.parametrize("leak", ["test", "val", "chosen on test"])
def test_a_run_that_would_learn_from_a_held_out_row_is_stopped(
        study: Study, cases: Cases, leak: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has gone wrong before: looked at again on rows, just before training."""
    other, seed = replace(study), 1
    right = study.part(seed)
    held_out = right.val if leak == "val" else right.test
    runs = [(stages.pretraining, study.pretrain_run("rotation", seed)),
            (stages.pretraining, study.pretrain_run("rotation", seed, pool=60)),
            (stages.pretraining, study.pretrain_run("oracle", seed)),
            (stages.finetuning, study.finetune_run("baseline", 50, seed))]
    monkeypatch.setattr(stages, "Fit", lambda *_, **__: "trained")
    for stage, run in runs:
        assert stage(other, run, cases, lambda steps: None) == "trained"
    if leak == "chosen on test":
        monkeypatch.setattr(Study, "part", lambda *_: right._replace(
            val=[*right.val, held_out[0]]))
    known = [*right.train, *([] if leak == "chosen on test" else held_out[:1])]
    monkeypatch.setattr(Study, "labelled", lambda *_, **__: known)
    monkeypatch.setattr(Study, "pool", lambda *_: known)
    for stage, run in runs:
        with pytest.raises(RunFailed, match=f"seed 1, fold 1: {held_out[0]}: held out") as one:
            stage(other, run, cases, lambda steps: None)
        assert "\n" not in str(one.value)
    if leak != "chosen on test":  # BatchNorm's statistics are learnt too
        weights = {f"encoder.{name}": value
                   for name, value in study.networks.encoder().state_dict().items()}
        with pytest.raises(RunFailed, match="would be learnt from"):
            encoders.for_whole_images(other, weights, cases, seed)


def test_an_encoder_that_has_seen_a_test_case_of_any_fold_in_use_is_refused(
        study: Study, tmp_path: Path) -> None:
    from common.runs import checkpoint
    file, folds = tmp_path / "encoder.pt", study.splits.folds
    checkpoint.save(file, study.networks.encoder().state_dict())
    pixels = {case: fact["pixels"] for case, fact in study.cache.facts.items()}
    encoders.write_origin(file, "set", learnt_from=[pixels[folds[1][0]]], chosen_on=[])

    def check(*seeds: int) -> None:
        encoders.from_files({"mine": file}, study.networks.encoder, study.cache, study.splits,
                            seeds=seeds)
    check(0, len(folds))  # fold 0 alone
    for seeds in ((0, 1), (1 + len(folds),)):
        with pytest.raises(InputError, match=f"1 of the test cases .{folds[1][0]}"):
            check(*seeds)


def test_what_is_said_of_the_splits(study: Study) -> None:
    wide = with_settings(study, SEEDS=[0, 1, 2, 3, 4])
    few = with_settings(study, SEEDS=[0, len(study.splits.folds)])
    expected = {"3d": "2 validation, 8 in 3 folds of 2 to 3: each seed is tested on one, trains "
                      "on the others (5 to 6)",
                "2d": "2 validation, 18 in 5 folds of 3 to 4: each seed is tested on one, trains "
                      "on the others (14 to 15)"}[study.tree]
    assert announce._splits(wide) == expected
    assert announce._splits(few) == f"{expected}; these seeds test 1 of the folds"
    one = replace(study.splits, folds=study.splits.folds[:1],
                  rest=sorted(case for fold in study.splits.folds[1:] for case in fold))
    fixed = announce._splits(replace(wide, splits=one))
    assert fixed == {"3d": "6 train, 2 validation, 2 test",
                     "2d": "15 train, 2 validation, 3 test"}[study.tree]


def test_with_equal_steps_no_fold_takes_fewer(study: Study) -> None:
    exact = with_settings(study, BATCH_SIZE=1)  # so that a case more is a step more
    sizes = [len(study.part(seed).train) for seed in SEEDS]
    assert min(sizes) < max(sizes)
    assert {exact.finetune_recipe("baseline", fraction, seed, draw=draw).steps
            for fraction in (50, 100) for seed in SEEDS for draw in (0, 1)} == {max(sizes)}


def test_seeds_that_share_a_fold_draw_other_subsets_of_its_training_cases(study: Study) -> None:
    seeds = range(0, 9 * len(study.splits.folds), len(study.splits.folds))
    drawn = {tuple(sorted(study.labelled(50, seed))) for seed in seeds}
    assert len(drawn) > 3 and set().union(*map(set, drawn)) <= set(study.part(0).train)


def test_without_equal_steps_an_epoch_is_a_pass_over_the_subset(study: Study) -> None:
    other = with_settings(study, EQUAL_STEPS=False, FINETUNE_CLIP=0.0)
    for seed in SEEDS:
        for fraction in (50, 100):
            recipe = other.finetune_recipe("baseline", fraction, seed)
            assert recipe.steps == -(-len(study.labelled(fraction, seed)) // recipe.batch_size)
            assert recipe.clip is None
    rotation = with_settings(study, PRETEXT_BATCH_SIZE=0).task("rotation")
    assert study.pretexts["rotation"].batch_size == rotation.batch_size != 3
    assert study.pretrain_recipe(rotation, 0).batch_size == rotation.batch_size


# Draws.

def test_further_draws_are_made_at_one_fraction_and_for_every_arm(study: Study) -> None:
    def drawn(**values: Any) -> dict[int, set[str]]:
        jobs = [job.make() for job in plan.plan(with_settings(study, **values)) if job.finetunes]
        found: dict[int, set[str]] = {}
        for run in jobs:
            found.setdefault(run.identity["fraction"], set()).add(
                f"{run.identity['task']} {run.folder.name}")
        assert len({run.folder for run in jobs}) == len(jobs)
        return found
    tasks, seeds = study.settings.TASKS, study.settings.SEEDS
    first = {f"{task} seed{seed}" for task in tasks for seed in seeds}
    more = {f"{task} seed{seed}-draw{draw}" for task in tasks for seed in seeds for draw in (1, 2)}
    assert drawn() == {50: first, 100: first}
    assert drawn(DRAWS=3) == {50: first | more, 100: first}
    assert drawn(DRAWS=3, PRIMARY=["rotation", "100"]) == {50: first, 100: first | more}


def test_a_draw_has_its_own_labels_and_finetuning_and_the_seeds_fold_and_encoder(
        study: Study) -> None:
    drawn = [study.finetune_run("rotation", 50, 4, draw=draw).identity for draw in range(9)]
    assert drawn[0] == study.finetune_run("rotation", 50, 4).identity
    assert [one["draw"] for one in drawn] == list(range(9))
    assert len({one["labelled"] for one in drawn}) > 3  # few cases: some are the same
    same = [{**one, "draw": 0, "labelled": ""} for one in drawn]
    assert same == [same[0]] * 9
    for fraction, draw in ((50, 1), (50, 2)):
        small, large = (study.labelled(part, 4, draw=draw) for part in (fraction, 100))
        assert small == large[:len(small)] and sorted(large) == study.part(4).train
    recipes = [study.finetune_recipe("rotation", 50, 4, draw=draw) for draw in range(3)]
    assert [recipe.seed for recipe in recipes] == [4, 4 + 2**33, 4 + 2**34]
    assert [replace(recipe, seed=4) for recipe in recipes] == [recipes[0]] * 3
    assert ORACLE_SEED + 2**32 <= DRAW_SEED  # no user's seed, nor an oracle's, is that of a draw


def test_a_draw_is_trained_on_its_labels_from_an_initialisation_of_its_own(
        study: Study, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "Fit", lambda model, *_, **given: SimpleNamespace(
        start=model.state_dict(), **given))
    fits = []
    for draw in (0, 1, 1):
        run = study.finetune_run("baseline", 50, 0, draw=draw)
        fit: Any = stages.finetuning(study, run, cases, lambda steps: None)
        assert ids_of(cases, fit.train) == study.labelled(50, 0, draw=draw)
        assert fit.recipe == study.finetune_recipe("baseline", 50, 0, draw=draw)
        assert ids_of(cases, fit.val) == study.splits.val
        fits.append(torch.cat([value.flatten().float() for value in fit.start.values()]))
    assert not torch.equal(fits[0], fits[1]) and torch.equal(fits[1], fits[2])


def test_folders_of_draws_lie_beside_the_seed_and_old_records_have_the_first(
        study: Study, tmp_path: Path) -> None:
    old = {"stage": "finetune", "task": "rpl", "fraction": 5, "seed": 2}
    assert records.run_folder(Path(), old) == Path("finetune/rpl/fraction005/seed2")
    assert records.run_folder(Path(), {**old, "draw": 0}) == records.run_folder(Path(), old)
    run = records.Run(records.run_folder(tmp_path, {**old, "draw": 3}), {**old, "draw": 3})
    assert run.name == "finetune/rpl/fraction005/seed2-draw3"
    other = with_settings(study, tmp_path)
    for name in ("seed3-draw1", "seed4", "seed3.old-1", "seed10"):
        scores = other.folder / "finetune/baseline/fraction050" / name / "scores.json"
        scores.parent.mkdir(parents=True)
        scores.write_text("{}")
    assert snapshots._smallest(other) == (50, 4)


# The primary comparison.

def finished(study: Study, arm: str, name: str = "seed0") -> None:
    folder = study.folder / "finetune" / arm / "fraction100" / name
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text("{}")


def test_the_primary_comparison_is_recorded_once_before_its_scores(
        study: Study, tmp_path: Path) -> None:
    asked = with_settings(study, tmp_path, PRIMARY=["rotation", 50])
    finished(asked, "baseline")
    finished(asked, "exemplar")
    assert records.read_plan(asked.folder) == {}
    plan.record_primary(with_settings(asked, PRIMARY=[]))
    assert not (asked.folder / "plan.json").exists()
    plan.record_primary(asked)
    text = (asked.folder / "plan.json").read_text()
    primary = json.loads(text)["primary"]
    assert (primary["arm"], primary["fraction"], primary["scores_then"]) == ("rotation", 50, 2)
    assert primary.keys() == {"arm", "fraction", "scores_then", "commit", "date"}
    assert primary["commit"] == records.commit() and primary["date"].endswith("+00:00")
    assert records.read_plan(asked.folder) == {"primary": primary}
    (tmp_path / "plan.json").write_text(text)
    assert records.read(tmp_path).plan == {"primary": primary}
    finished(asked, "rotation")  # the same again: nothing is written, and nothing refused
    plan.record_primary(with_settings(asked, PRIMARY=["rotation", "50"]))
    assert (asked.folder / "plan.json").read_text() == text
    for other in (["exemplar", "50"], ["rotation", "100"]):
        with pytest.raises(InputError, match="plan.json names rotation 50; .*--results OTHER"):
            plan.record_primary(with_settings(asked, PRIMARY=other))
    later = with_settings(asked, PRIMARY=[], DRAWS=2, FRACTIONS=[20, 50])
    assert plan.primary(later) == ("rotation", 50)
    assert [plan.draws(later, fraction) for fraction in (20, 50)] == [1, 2]
    (asked.folder / "plan.json").write_text("[]")
    with pytest.raises(InputError, match="plan.json: not what exp.py writes there"):
        plan.primary(later)


@pytest.mark.parametrize("name", ["seed0", "seed0-draw1", "seed0.old-1"])
def test_an_arm_with_test_scores_can_no_longer_be_primary(study: Study, tmp_path: Path,
                                                          name: str) -> None:
    asked = with_settings(study, tmp_path, PRIMARY=["rotation", "50"])
    finished(asked, "rotation", name)
    with pytest.raises(InputError, match="after test scores of rotation exist, it can't be primary"
                       "; leave PRIMARY out .*--results OTHER") as one:
        plan.record_primary(asked)
    assert "\n" not in str(one.value) and not (asked.folder / "plan.json").exists()


def test_a_command_records_its_primary_comparison_before_it_trains(
        study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = with_settings(study, tmp_path, PRIMARY=["rotation", "100"], DRAWS=2)
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(grid, "announce", lambda study, jobs, *_: seen.append(
        {**records.read_plan(study.folder), "runs": len(jobs)}))
    grid.begin(asked, [torch.device("cpu")], 1)
    more = len(asked.settings.TASKS) * len(asked.settings.SEEDS)
    assert seen[0]["primary"]["arm"] == "rotation"
    assert seen[0]["runs"] == len(plan.plan(with_settings(asked, DRAWS=1))) + more


@pytest.mark.parametrize(("given", "message"), [
    (["rotation"], "expected an arm and a fraction"), (["rotation", "x"], "an arm and a fraction"),
    (["rotation", "50", "5"], "an arm and a fraction"),
    (["jigsaw", 50], "jigsaw is none of TASKS; add it there, or leave PRIMARY out: plan.json"),
    (["rotation", 25], "25 is none of FRACTIONS"), ([arms.BASELINE, 50], "baseline is it"),
    (["oracle", "50"], "oracle is a control"), (["rotation@shuffled", 50], "is a control"),
    (["rotation", 0], "PRIMARY = 0: must be at least 1")])
def test_only_a_comparison_that_is_made_can_be_primary(study: Study, given: list[Any],
                                                       message: str) -> None:
    tree = SimpleNamespace(pretexts=study.pretexts, library={}, decoder=True,
                           check=lambda settings: None, smallest=lambda settings: 1)
    values = {**vars(study.settings), "PRIMARY": given}
    with pytest.raises(InputError, match=message):
        grid.check(Settings(**values), tree)  # type: ignore[arg-type]
    grid.check(Settings(**{**values, "PRIMARY": ["rotation", 50]}), tree)  # type: ignore[arg-type]


def test_the_primary_comparison_is_a_flag_of_two_words(script: Any) -> None:
    assert from_flags(vars(script), ["--primary", "rpl", "5"]).PRIMARY == ["rpl", "5"]
    assert from_flags(vars(script), []).PRIMARY == []
    with pytest.raises(InputError, match="--primary: expected 2 arguments"):
        from_flags(vars(script), ["--primary", "rpl"])
