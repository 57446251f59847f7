"""Pretraining on a part of the pool: which cases and runs there are, and that nothing else changes.

Nothing is trained; that no run learns from a case that is held out is in test_design.py.
"""

import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch

from common.errors import InputError
from common.files import Json, read_json
from common.runs import checkpoint, encoders, records, stages
from common.runs.records import Run
from common.runs.study import Study
from common.schedule import announce, grid, plan
from common.settings import Settings
from common.tasks.batches import batches, generator

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
from wiring import SEEDS, Doubles, Fitted, encoder, equal, ids_of, study_of  # noqa: E402

SHARES = [100, 40, 60]  # the least that fills a batch of 3, in both trees


@pytest.fixture(scope="module", params=["3d", "2d"])
def study(request: pytest.FixtureRequest, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Seven or eight volumes in the pool of a seed, 16 or 17 photographs; batches of three."""
    return study_of(request.param, {"3d": scans, "2d": photographs}[request.param],
                    tmp_path_factory.mktemp("pool"), "--pool", *map(str, SHARES))


def with_settings(study: Study, **values: Any) -> Study:
    return replace(study, settings=Settings(**{**vars(study.settings), **values}))


class Made(NamedTuple):
    """A run by the doubles, and the rows that BatchNorm's statistics were taken from."""

    run: Run
    fit: Fitted
    statistics: list[str]
    scores: Json


@pytest.fixture(scope="module")
def made(study: Study) -> dict[tuple[str, int], Made]:
    """Pretraining and finetuning of a seed from all and from 40 % of its pool."""
    cases, seed = stages.load_cases(study, torch.device("cpu")), SEEDS[1]
    done = {}
    with pytest.MonkeyPatch.context() as patch:
        doubles = Doubles()
        seen: list[str] = []
        patch.setattr(stages, "Fit", doubles.fit)
        patch.setattr(stages, "evaluate", doubles.evaluate)
        patch.setattr(encoders, "check_rows",
                      lambda _, cases, seed, train: seen.extend(ids_of(cases, train)))
        for pool in (100, 40):
            for make in (partial(study.pretrain_run, "rotation", seed, pool=pool),
                         partial(study.finetune_run, "rotation", 50, seed, pool=pool)):
                run = make()  # a start's weights are known by then
                seen.clear()
                run.start({})
                stages.train(study, run, cases, lambda steps: None)
                done[run.identity["stage"], pool] = Made(run, doubles.fits[-1], [*seen],
                                                         run.scores())
    return done


def test_parts_of_a_pool_are_nested_and_every_seed_has_its_own(study: Study) -> None:
    for seed in range(9):
        pool = study.pool(seed)
        found = [study.pool(seed, share) for share in range(1, 100)]
        assert [len(part) for part in found] == [round(len(pool) * share / 100)
                                                 for share in range(1, 100)]
        assert all(part == found[-1][:len(part)] for part in found)
        assert set(found[-1]) <= set(pool) and study.pool(seed, 100) == pool
    folds = len(study.splits.folds)
    assert len({tuple(study.pool(seed, 40)) for seed in range(0, 9 * folds, folds)}) > 3
    assert {case in study.part(seed).train for seed in range(9)
            for case in study.pool(seed, 40)} == {True, False}  # with labels and without


def test_arms_that_learn_from_the_pool_are_made_from_parts_of_it_at_one_fraction(
        study: Study) -> None:
    def runs(**values: Any) -> dict[tuple[str, ...], set[int]]:
        found: dict[tuple[str, ...], set[int]] = {}
        jobs = [job.make() for job in plan.plan(with_settings(study, **values))]
        assert len({run.folder for run in jobs}) == len(jobs)
        for run in jobs:
            key = [run.identity[name] for name in ("stage", "task", "fraction", "draw")
                   if name in run.identity]
            found.setdefault(tuple(map(str, key)), set()).add(records.share_of(run.identity))
        return {key: shares for key, shares in found.items() if shares != {100}}
    every, arms = {100, 40, 60}, ("rotation", "exemplar")
    pretrained = {("pretrain", arm): every for arm in arms}
    assert runs() == pretrained | {("finetune", arm, "50", "0"): every for arm in arms}
    assert runs(DRAWS=2, PRIMARY=["exemplar", "100"]) == pretrained | {
        ("finetune", arm, "100", draw): every for arm in arms for draw in "01"}
    assert runs(POOL=[100]) == runs(TASKS=["baseline", "oracle", "rotation@shuffled"]) == {}
    assert runs(TASKS=["exemplar@shuffled", "exemplar@decoder"], FRACTIONS=[100]) == {
        ("pretrain", "exemplar"): every, ("finetune", "exemplar@decoder", "100", "0"): every}
    first = [job.make().identity for job in plan.plan(study) if job.make().identity["seed"] == 0]
    assert [records.share_of(one) for one in first if (one["stage"], one["task"]) == (
        "pretrain", "rotation")] == [100, 60, 40]  # what the others are compared with first
    elsewhere: Any = {"rotation": SimpleNamespace(identity={"file": "digest"})}
    for job in plan.plan(replace(study, external=elsewhere)):
        assert job.make().identity["task"] != "rotation" or "pool" not in job.make().identity


def test_a_part_of_the_pool_is_a_run_of_its_own_and_the_whole_is_what_it_was(study: Study) -> None:
    def both(pool: int, draw: int = 0) -> list[Run]:
        return [study.pretrain_run("rotation", 0, pool=pool),
                study.finetune_run("rotation", 50, 0, draw=draw, pool=pool)]
    assert both(100) == [study.pretrain_run("rotation", 0), study.finetune_run("rotation", 50, 0)]
    assert [run.name for run in both(100)] == ["pretrain/rotation/seed0",
                                               "finetune/rotation/fraction050/seed0"]
    assert [run.name for run in both(40, 1)] == [
        "pretrain/rotation/pool040/seed0", "finetune/rotation/fraction050/pool040/seed0-draw1"]
    (learnt, tuned), (part, from_it) = ([run.identity for run in both(pool)] for pool in (100, 40))
    assert "pool" not in {*learnt, *tuned}
    images = study.cache.arrays(study.pool(0, 40))
    assert part == {**learnt, "pool": 40, "pool images": images}
    assert learnt["pool images"] != images
    assert from_it == {**tuned, "pool": 40,
                       "encoder": {**tuned["encoder"], "pool": 40, "pool images": images}}
    other = len(study.splits.folds)  # of the same fold, and yet from other images
    assert study.pretrain_run("rotation", other).identity == {**learnt, "seed": other}
    assert {study.pretrain_run("rotation", seed * other, pool=40).identity["pool images"]
            for seed in range(9)} > {images}


def test_a_part_of_the_pool_is_learnt_from_by_the_recipe_of_the_whole(
        study: Study, made: dict[tuple[str, int], Made]) -> None:
    cases = stages.load_cases(study, torch.device("cpu"))
    whole, part = made["pretrain", 100], made["pretrain", 40]
    assert part.fit.recipe == whole.fit.recipe
    assert part.fit.recipe.steps == -(-len(study.pool(SEEDS[1])) // 3)  # an epoch of the whole
    assert part.fit.val == whole.fit.val and equal(part.fit.start, whole.fit.start)
    learnt = study.pool(SEEDS[1], 40)
    assert ids_of(cases, part.fit.train) == learnt
    assert sorted(part.statistics) == sorted(learnt)
    assert sorted(whole.statistics) == sorted(study.pool(SEEDS[1]))
    for rows in (part.fit.train, cases.rows(study.pool(SEEDS[1], 60))):  # the second: no threes
        stream = [*islice(batches(rows, 3, generator(0, "")), part.fit.recipe.steps)]
        assert len(stream) == part.fit.recipe.steps and {len({*batch}) for batch in stream} == {3}
    origin = read_json(part.run.encoder.with_suffix(".json"))
    assert origin["learnt from"] == sorted(study.cache.facts[case]["pixels"] for case in learnt)


def test_finetuning_starts_from_the_encoder_of_its_part_of_the_pool(
        made: dict[tuple[str, int], Made]) -> None:
    for pool in (100, 40):
        start = encoder(made["finetune", pool].fit.start)
        assert equal(start, checkpoint.load(made["pretrain", pool].run.encoder))
        identity = made["finetune", pool].run.identity["encoder"]
        assert identity["weights"] == made["pretrain", pool].scores["encoder"]
    (whole, part) = (made["finetune", pool].fit for pool in (100, 40))
    assert not equal(encoder(whole.start), encoder(part.start))
    assert (part.recipe, part.train, part.val) == (whole.recipe, whole.train, whole.val)


def test_records_say_from_which_part_of_the_pool_and_do_not_mix_them(
        study: Study, made: dict[tuple[str, int], Made]) -> None:
    assert made["pretrain", 40].scores["pool_share"] == made["finetune", 40].scores["pool"] == 40
    assert made["pretrain", 40].scores["pool"] == len(study.pool(SEEDS[1], 40))
    assert made["pretrain", 100].scores["pool"] == len(study.pool(SEEDS[1]))
    assert "pool_share" not in made["pretrain", 100].scores
    assert "pool" not in made["finetune", 100].scores
    read = records.read(study.folder)
    for stage, runs in (("pretrain", read.pretrain), ("finetune", read.finetune)):
        assert [records.share_of(run) for run in runs] == [40, 100]
        for run, pool in zip(runs, (40, 100), strict=True):
            assert records.run_folder(study.folder, run) == made[stage, pool].run.folder
            assert records.of_share(runs, pool) == [run]
    for given, pool in (({}, 100), ({"pool": 40}, 40)):
        cases = records.cases_of(read.finetune[::-1], **given)  # type: ignore[arg-type]
        assert cases == {("rotation", 50): {SEEDS[1]: {0: made["finetune", pool].scores["cases"]}}}
    assert made["finetune", 40].scores["cases"].keys() == {*study.part(SEEDS[1]).test}
    assert records.cases_of(read.finetune, pool=60) == {}


def test_a_run_waits_for_the_encoder_of_its_part_of_the_pool(
        study: Study, made: dict[tuple[str, int], Made]) -> None:
    assert made["pretrain", 40].run.done()
    ready = {(str(job.make().folder.parent.name), job.make().identity["seed"])
             for job in plan.plan(with_settings(study, TASKS=["rotation"], FRACTIONS=[50]))
             if job.finetunes and job.ready()}
    assert ready == {("fraction050", SEEDS[1]), ("pool040", SEEDS[1])}


@pytest.mark.parametrize(("pool", "message"), [
    ([10, 30], "POOL = 10 30: 100 is missing, .* add it"), ([], "POOL is empty"),
    ([100, 30, 30], "POOL: 30 is given twice"), ([0, 100], "POOL = 0: must be at least 1"),
    ([100, 101], "POOL = 101: .*a percentage from 1 to 100")])
def test_what_is_no_part_of_the_pool_is_refused(study: Study, pool: list[int],
                                                message: str) -> None:
    tree: Any = SimpleNamespace(pretexts=study.pretexts, library={}, decoder=True,
                                check=lambda settings: None, smallest=lambda settings: 1)
    with pytest.raises(InputError, match=message) as one:
        grid.check(with_settings(study, POOL=pool).settings, tree)
    assert "\n" not in str(one.value)
    grid.check(with_settings(study, POOL=[100]).settings, tree)


def test_a_part_that_fills_no_batch_is_refused_before_anything_is_trained(study: Study) -> None:
    whole = min(len(study.pool(seed)) for seed in SEEDS)
    least = next(share for share in range(100) if round(whole * share / 100) >= 3)
    small = with_settings(study, POOL=[100, least - 1])
    with pytest.raises(InputError, match=f"POOL = {least - 1}: 2 of the {whole} cases of the pretra"
                       f"ining pool, and a batch of rotation takes 3; give at least {least}, or "
                       "set a smaller PRETEXT_BATCH_SIZE"):
        plan.plan(small)
    assert plan.plan(with_settings(study, POOL=[100, least]))
    assert plan.plan(with_settings(small, TASKS=["baseline", "oracle", "rotation@shuffled"]))
    wide = with_settings(study, PRETEXT_BATCH_SIZE=whole + 1)
    with pytest.raises(InputError, match="POOL = 40: .*; leave it out, or set a smaller PRETEXT"):
        plan.plan(wide)
    assert plan.plan(with_settings(wide, POOL=[100]))  # the whole is one batch then, as ever


def test_the_parts_are_said_beforehand(study: Study) -> None:
    assert announce._pools(study) == "; shares 40 60 100 % at 50 %"
    assert announce._pools(with_settings(study, PRIMARY=["rotation", 100])).endswith(" at 100 %")
    assert announce._pools(with_settings(study, POOL=[100])) == ""
    assert announce._pools(with_settings(study, TASKS=["baseline", "oracle"])).endswith(
        "; shares 40 60 100 % at 50 %, of none of these tasks")
