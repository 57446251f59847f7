"""What exp.py says before training that it can show: from whose spreads, for how many arms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wiring import study_of

from bench import spreads
from common.errors import InputError
from common.files import ROOT, write_json
from common.report import published
from common.runs import records
from common.runs.records import Records
from common.runs.study import Study
from common.schedule import announce, grid, plan
from common.settings import Settings
from common.stats import power
from common.stats.estimates import Design

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["3d", "2d"])
def study(request: pytest.FixtureRequest, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_of(request.param, {"3d": scans, "2d": photographs}[request.param],
                    tmp_path_factory.mktemp("planned"))


def asked(study: Study, **values: Any) -> Study:
    return replace(study, settings=Settings(**{**vars(study.settings), **values}))


def test_the_spreads_on_file_are_those_of_the_published_records() -> None:
    assert (ROOT / power.KNOWN).read_text(encoding="utf-8") == spreads.text(spreads.known())


def knees() -> Records:
    """Three arms of the knee's study at the fraction that has several labelled subsets."""
    whole = published.read(ROOT / "results/published/knee_kl-study/records.json.gz")
    return replace(whole, finetune=[run for run in whole.finetune if run["fraction"] == 5 and run[
        "task"] in ("baseline", "vicreg", "simclr")])


def test_a_spread_of_few_runs_is_not_on_file() -> None:
    whole = knees()
    few = [run for run in whole.finetune if run["task"] in ("baseline", "vicreg")
           and run["seed"] < 3]
    assert spreads.spreads(whole) is not None  # two arms, five seeds
    assert spreads.spreads(replace(whole, finetune=few)) is None  # two degrees of freedom


def test_a_data_set_without_a_study_takes_the_first_with_its_metric() -> None:
    for dataset, metric, study in (
            ("lidcnodule", "dice", "results/published/lidcnodule-study"),
            ("other", "dice", "results/published/hippocampus-controls"),
            ("other", "kappa", "results/published/knee_kl-study"),  # not one that left the folder
            ("other", "unweighted_kappa", "results/published/knee_kl-study"),
            ("idrid384", "kappa", "idrid384-grid, in the folder until commit f10b3b8")):
        found = power.published(dataset, metric)[0].study
        assert found == study and power.of_another(found, dataset) == (dataset == "other")
        assert (ROOT / study).is_dir() or dataset == "idrid384"


def test_spreads_on_file_are_of_one_labelled_subset_a_seed() -> None:
    whole = knees()
    first = [run for run in whole.finetune if not run.get("draw")]
    assert len(first) < len(whole.finetune)
    assert spreads.spreads(whole) == spreads.spreads(replace(whole, finetune=first))


def test_it_is_for_the_arms_that_are_compared_and_the_seeds_asked_for(study: Study) -> None:
    tasks = ["baseline", "rotation", "exemplar", "oracle", "rotation@shuffled"]
    wide = asked(study, TASKS=tasks, FRACTIONS=[50, 100], SEEDS=[0, 1, 2], PRIMARY=[], DETECT=0.05)
    known = power.published(study.dataset, study.measure().name)
    tested = len(study.part(0).test)
    for one, fraction in zip(announce.expected(wide), (50, 100), strict=True):
        assert (one.fraction, one.arms) == (fraction, 2)  # controls are no family
        near = power.nearest(known, one.labelled)
        spread = near.spread(Design(study.settings.FOLDS, fraction), arms=2, seeds=3, tested=tested)
        assert (one.half, one.most) == pytest.approx(power.shown(spread, 2))
        assert one.source == near.study and one.cases > 0
    primary = asked(wide, PRIMARY=["rotation", 50])
    first, second = announce.expected(primary)
    assert (first.arms, second.arms) == (1, 2)  # it alone is not adjusted
    assert first.half < announce.expected(wide)[0].half  # and shares the arms' spread
    controls = announce.expected(asked(wide, TASKS=["baseline", "oracle"]))
    assert [one.arms for one in controls] == [1, 1]
    assert announce.expected(asked(wide, TASKS=["baseline"])) == []


def test_under_three_seeds_or_folds_nothing_can_be_shown_and_it_is_said(study: Study) -> None:
    folds = study.settings.FOLDS
    for seeds in ([0, 1], [0, folds, 2 * folds, 1]):  # the second: four seeds of two folds
        few = asked(study, TASKS=["baseline", "rotation"], SEEDS=seeds)
        assert announce.expected(few) == []
        [line] = announce.power_lines(few, [])
        assert line.endswith("nothing can be shown")
        first, *rest = announce.power_lines(asked(few, DETECT=0.3), [])
        assert first.endswith("nothing can be shown; seeds that show 0.3 in four of five")
        assert len(rest) == len(few.settings.FRACTIONS) + 1 and "seeds" in rest[0]
    assert announce.power_lines(asked(study, TASKS=["baseline"]), []) == []


def test_finished_runs_of_the_data_set_tell_its_own_spreads(
        study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    score = (lambda: {"dice": float(rng.random())}) if study.tree == "3d" else (
        lambda: {"truth": int(rng.integers(5)), "predicted": int(rng.integers(5))})
    runs = [{"task": task, "fraction": 50, "seed": seed, "fold": seed % study.settings.FOLDS,
             "labelled": 4, "identity": {"settings": {"FOLDS": study.settings.FOLDS}},
             "cases": {case: score() for case in study.part(seed).test}}
            for task in ("baseline", "rotation", "oracle") for seed in range(3)]
    monkeypatch.setattr(announce, "read_runs", lambda folder, stage: runs)
    found = announce.expected(asked(study, TASKS=["baseline", "rotation"], SEEDS=[0, 1, 2],
                                    FRACTIONS=[50]))
    assert [one.source for one in found] == ["this data set's finished runs"]
    known = power.of_runs(study.measure(), records.cases_of(runs), {50: 4}, baseline="baseline",
                          folds=study.settings.FOLDS, study="", controls=["oracle"])
    spread = known[0].spread(Design(study.settings.FOLDS, 50), arms=1, seeds=3,
                             tested=len(study.part(0).test))
    assert found[0].half == pytest.approx(spread.half())


def expected(half: float, seeds: int | None = None, cases: int = 0) -> power.Expected:
    return power.Expected(50, 4, 2, half, 2 * half, "somewhere", seeds, cases, 0.07)


def test_the_lines_name_both_gains_their_source_and_what_a_wanted_gain_takes(study: Study) -> None:
    wide = asked(study, TASKS=["baseline", "rotation", "exemplar"], SEEDS=[0, 1, 2], DETECT=0.02)
    metric, there = study.measure().label, study.settings.FOLDS * len(study.part(0).test)
    lines = announce.power_lines(wide, [expected(0.01, 9), replace(expected(0.02), fraction=100)])
    shared = ", since seeds share training cases"
    assert lines == [
        f"power     gain in {metric} that is shown, in half of all repetitions of the study and in "
        "four of five; seeds that show 0.02 in four of five",
        "          50 % (4 cases, 2 arms): 0.0100 in half; 0.0200 in four of five; 9 seeds",
        "          100 % (4 cases, 2 arms): 0.0200 in half; 0.0400 in four of five; not with 50 "
        "seeds: they show 0.0700" + shared,
        "          if runs scatter as in somewhere; arms share their spread"]
    assert f"at least {there + 1} test cases, here are {there}" in announce._takes(
        expected(0.01, None, there + 1), wide)
    plain = announce.power_lines(asked(wide, DETECT=0.0, DRAWS=4), [expected(0.01)])
    assert plain[1].endswith("0.0100 in half; 0.0200 in four of five")
    assert "draws are not counted" in plain[2]


def test_a_spread_of_other_images_is_called_a_guess(study: Study) -> None:
    wide = asked(study, TASKS=["baseline", "rotation"], SEEDS=[0, 1, 2])
    for dataset, guess in (("other", True), ("knee_kl", False)):
        source = replace(expected(0.01), source="results/published/knee_kl-study")
        last = announce.power_lines(replace(wide, dataset=dataset), [source])[-1]
        assert ("results/published/knee_kl-study, of another data set: a rough guess;" in last
                ) == guess


def test_fractions_of_the_same_cases_are_said_to_be_so(study: Study) -> None:
    for fractions, said in (
            ([50, 100], []), ([100], []),
            ([5, 100, 10], ["5 % and 10 % are the same {} cases: leave one out (--fractions)"]),
            ([1, 2, 3], ["1 % and 2 % and 3 % are the same {} cases: leave 2 out (--fractions)"])):
        few = asked(study, FRACTIONS=fractions, SEEDS=[0, 1, 2])
        number = len(study.labelled(fractions[0], 0))
        assert announce.same_cases(few) == [f"note      {line.format(number)}" for line in said]


def test_the_plan_is_said_and_nothing_is_touched(
        study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announce, "estimate", lambda *_: 1e6)  # hours: without --plan refused
    wide = asked(study, TASKS=["baseline", "rotation"], SEEDS=[0, 1, 2], PLAN=True, DETECT=0.05,
                 RESULTS=str(tmp_path), DEVICE="auto", PRIMARY=["rotation", 50], FRACTIONS=[50])
    assert grid.run(wide, [CPU], 1) == 0
    said = capsys.readouterr().out
    assert "power     gain in" in said and "nothing is trained" in said
    assert "more than a day: make it smaller (" in said and "or give --device cpu" in said
    assert not (wide.folder / "plan.json").exists() and not (wide.folder / "finetune").exists()
    done = wide.folder / "finetune/rotation/fraction050/seed0"
    done.mkdir(parents=True)
    (done / "scores.json").write_text("{}")
    with pytest.raises(InputError, match="named after test scores"):  # as the run itself would
        grid.run(wide, [CPU], 1)
    other = {"identity": {**wide.finetune_run("baseline", 50, 0).identity, "precision": "other"}}
    write_json(wide.finetune_run("baseline", 50, 0).folder / "config.json", other)
    with pytest.raises(InputError, match="made with other settings"):
        grid.run(asked(wide, PRIMARY=[]), [CPU], 1)


def test_what_is_expected_is_recorded_until_the_first_test_score(study: Study,
                                                                tmp_path: Path) -> None:
    wide = asked(study, RESULTS=str(tmp_path), SEEDS=[0, 1, 2], PRIMARY=["rotation", 50],
                 TASKS=["baseline", "rotation"], FRACTIONS=[50])
    plan.record_primary(wide)
    plan.record_power(wide, [])
    assert "power" not in records.read_plan(wide.folder)
    for half in (0.01, 0.02):  # changed before there is a score: the later holds
        plan.record_power(wide, [expected(half)])
    kept = records.read_plan(wide.folder)
    assert kept["power"] == [{"fraction": 50, "arms": 2, "seeds": 3, "half": 0.02, "most": 0.04,
                              "source": "somewhere"}]
    assert kept["primary"]["arm"] == "rotation"
    run = wide.folder / "finetune/baseline/fraction050/seed0"
    run.mkdir(parents=True)
    (run / "scores.json").write_text("{}")
    plan.record_power(wide, [expected(0.5)])
    assert records.read_plan(wide.folder) == kept
    for text in ('{"power": 3}', '{"power": [{"half": 1}]}', '{"primary": 1}'):
        (wide.folder / "plan.json").write_text(text)
        with pytest.raises(Exception, match="not what exp.py writes there"):
            records.read_plan(wide.folder)


def test_the_largest_step_of_any_arm_is_counted(study: Study) -> None:
    large = asked(study, RESOLUTION={"3d": 16, "2d": 96}[study.tree], POOL=[100])
    base = study.networks.step_bytes
    each = base / (large.settings.BATCH_SIZE * large.settings.RESOLUTION**large.dimensions)

    def needed(*arms: str, batch: int = 2) -> float:
        return plan.step_bytes(asked(large, TASKS=["baseline", *arms], PRETEXT_BATCH_SIZE=batch))
    assert needed() == base and needed("meanteacher") == 2 * base
    if study.tree == "2d":
        assert needed("meanteacher", "fixmatch") == 3 * base
    views = {name: plan.view_voxels(asked(large, TASKS=[name]), large.task(name))
             for name in ("mae", "simclr")}
    whole = large.settings.RESOLUTION**large.dimensions
    assert views == {"mae": whole, "simclr": 2 * whole}  # what says what is hidden is not encoded
    assert needed("simclr", batch=200) == pytest.approx(
        each * 200 * 2 * whole * study.networks.encoder_share)
    assert needed("mae", batch=200) == pytest.approx(each * 200 * whole)
