"""--tune: every arm's rates from as many trials, on validation, on seeds used for nothing else."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import InputError
from common.files import Json, read_json, write_json
from common.runs import rates, stages
from common.runs.rates import Rates
from common.runs.study import Study
from common.schedule import grid as runs_grid
from common.schedule import tuning
from common.settings import Settings

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
from wiring import Doubles, study_of  # noqa: E402

CPU = [torch.device("cpu")]
SEEDS = ["--tune-seeds", "7"]
TASKS = ["--tasks", "baseline", "rotation", "oracle", "rotation@shuffled"]
TUNED = ["baseline", "rotation", "oracle"]  # rotation@shuffled goes with rotation
BEST = {"baseline": Rates(0.06, 1.0, 0), "rotation": Rates(0.03, 0.3, 2),
        "oracle": Rates(0.09, 0.0, 0)}


class Scored(Doubles):
    """Finetunings score by their rates: BEST is best in the mean, another at 50 % alone."""

    def __init__(self) -> None:
        super().__init__()
        self.run: Any = None
        self.tried: list[Any] = []
        self.oracle = 0.5

    def fit(self, *given: Any, **named: Any) -> Any:
        self.run = named["run"]
        if self.run.identity["stage"] == "tune":
            self.tried.append(self.run)
        return super().fit(*given, **named)

    def evaluate(self, *given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        figures, scores = super().evaluate(*given)
        said = self.run.identity
        if said["stage"] == "tune":
            best = Rates(**said["rates"]) == BEST[said["task"]]
            second = said["rates"]["factor"] == 0.1 or said["rates"]["lr"] == 0.03 / 10
            value = (0.5 if best else 0.55 if second else 0.2) if said["fraction"] == 50 else (
                0.6 if best else 0.1)
            figures = dict.fromkeys(figures, value + 0.02 * (said["seed"] == 8))
        elif said["task"] == "oracle":
            figures = dict.fromkeys(figures, self.oracle)
        return figures, scores


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scored]:
    made = Scored()
    monkeypatch.setattr(stages, "Fit", made.fit)
    monkeypatch.setattr(stages, "evaluate", made.evaluate)
    yield made


@pytest.fixture
def study(request: pytest.FixtureRequest, scans: Path, photographs: Path, tmp_path: Path) -> Study:
    """A study asked to tune, of volumes unless asked for another; its trials are doubles."""
    tree, *more = getattr(request, "param", ["3d"])
    return study_of(tree, {"3d": scans, "2d": photographs}[tree], tmp_path, "--tune", *SEEDS,
                    *more, *TASKS)


def plan_of(study: Study) -> Json:
    found: Json = read_json(study.folder / "plan.json")
    return found


def asked(study: Study, **settings: Any) -> Study:
    """The study started again, with these settings."""
    return dataclasses.replace(study, settings=Settings(**{**vars(study.settings), "TUNE": False,
                                                           **settings}))


@pytest.mark.parametrize("study", [["2d", "8"]], indirect=True)
def test_every_arm_has_as_many_trials_and_the_best_in_the_mean_is_chosen(
        study: Study, doubles: Scored) -> None:
    assert runs_grid.run(study, CPU, 1) == 0
    found = plan_of(study)["rates"]
    assert list(found["arms"]) == TUNED and found["seeds"] == [7, 8]
    assert found["fractions"] == [50, 100]
    for arm, said in found["arms"].items():
        assert len(said["trials"]) == len(tuning.TRIALS) == len(tuning.RATES) == 6
        assert len({(one["lr"], one["factor"], one["warmup"]) for one in said["trials"]}) == 6
        assert Rates(**said["chosen"]) == BEST[arm]  # though another is better at 50 %
        scores = next(one["scores"] for one in said["trials"] if one["scores"][1] > 0.5)
        assert scores == pytest.approx([0.51, 0.61])  # means over the seeds
    others = [[{**one, "scores": 0} for one in found["arms"][arm]["trials"]] for arm in TUNED[1:]]
    assert others[0] == others[1]
    assert all((one["factor"], one["warmup"]) == (1, 0)
               for one in found["arms"]["baseline"]["trials"])
    assert len(doubles.tried) == 3 * 6 * 2 * 2


@pytest.mark.parametrize("study", [["3d", "8"]], indirect=True)
def test_trials_see_no_test_case_and_no_seed_of_the_study(study: Study, doubles: Scored) -> None:
    runs_grid.run(study, CPU, 1)
    ids = stages.load_cases(study, CPU[0]).ids
    val = set(study.splits.val)
    assert {run.identity["seed"] for run in doubles.tried} == {7, 8}
    assert not {7, 8} & {*study.settings.SEEDS}
    assert all({ids[row] for row in one.rows} <= val for one in doubles.evaluations)
    held_out = {seed: {*study.part(seed).test, *val} for seed in (7, 8)}
    for run in doubles.tried:
        assert "test" not in run.scores() and "cases" not in run.scores()
    assert not list(study.folder.glob("finetune/**/scores.json"))
    for fit in doubles.fits:
        learnt = {ids[row] for row in fit.train}
        assert any(not learnt & out for out in held_out.values())


def test_runs_take_the_choice_and_say_so(study: Study, doubles: Scored) -> None:
    before = asked(study)
    assert runs_grid.rated(before).rates == {}  # nothing is chosen yet
    runs_grid.run(study, CPU, 1)
    rated = runs_grid.rated(asked(study))
    assert rated.rates == BEST
    for arm in study.settings.TASKS:
        own, recipe = BEST[rates.key(arm)], rated.finetune_recipe(arm, 50, 0)
        assert (recipe.lr, recipe.start_lr_factor, recipe.warmup) == (own.lr, own.factor,
                                                                      own.warmup)
        run = rated.finetune_run(arm, 50, 0)
        assert run.identity["rates"] == vars(own)
        assert "warmup" not in (run.identity["encoder"] or {})
    oracle = rated.pretrain_run("oracle", 0)  # trained as the baseline is
    assert oracle.identity["rates"] == vars(BEST["baseline"])
    assert rated.pretrain_recipe(rated.task("oracle"), 0).lr == BEST["baseline"].lr
    assert rated.pretrain_run("rotation", 0).identity == before.pretrain_run("rotation", 0).identity
    assert runs_grid.rated(asked(study, TUNED=False)).rates == {}
    assert runs_grid.rated(asked(study, PAPER=True)).rates == {}


def test_the_oracle_of_the_trials_is_trained_at_the_baselines_rate(study: Study,
                                                                   doubles: Scored) -> None:
    runs_grid.run(study, CPU, 1)
    config = read_json(study.folder / "pretrain" / "oracle" / "seed7" / "config.json")
    assert config["identity"]["rates"] == vars(BEST["baseline"])


@pytest.mark.parametrize(("own", "said"), [(0.5, "keeps 100 %"), (0.6, "under 95 %")])
def test_it_is_said_how_much_the_oracle_keeps(
        study: Study, doubles: Scored, capsys: pytest.CaptureFixture[str], own: float,
        said: str) -> None:
    doubles.oracle = own
    runs_grid.run(study, CPU, 1)
    out = capsys.readouterr().out
    assert said in out and ("show little" in out) == (own == 0.6)
    assert plan_of(study)["rates"]["arms"]["oracle"]["kept"] == pytest.approx(0.5 / own)
    assert "36 runs" in out and "no test case is looked at" in out
    assert "time      at most about" in out
    assert "rotation 0.03 x 0.3, frozen 2 epochs" in out
    assert "phase     1 of 2: baseline;" in out and "phase     2 of 2: rotation, oracle;" in out
    assert "one seed" in out


def test_what_is_done_is_not_done_again_and_arms_can_be_added(study: Study,
                                                              doubles: Scored) -> None:
    few = dataclasses.replace(study, settings=Settings(**{
        **vars(study.settings), "TASKS": ["baseline", "oracle"]}))
    runs_grid.run(few, CPU, 1)
    assert len(doubles.tried) == 2 * 12
    runs_grid.run(few, CPU, 1)
    assert len(doubles.tried) == 2 * 12
    with pytest.raises(InputError, match="no rates for rotation, rotation@shuffled"):
        runs_grid.rated(asked(study))
    more = dataclasses.replace(study, settings=Settings(**{
        **vars(study.settings), "TASKS": ["baseline", "rotation", "rotation@shuffled"]}))
    runs_grid.run(more, CPU, 1)
    assert len(doubles.tried) == 3 * 12
    assert {*plan_of(study)["rates"]["arms"]} == {*TUNED}
    again = dataclasses.replace(few, settings=Settings(**{**vars(few.settings),
                                                          "TUNE_SEEDS": [9]}))
    runs_grid.run(again, CPU, 1)  # other trials: what they did not choose is not kept
    assert {*plan_of(study)["rates"]["arms"]} == {"baseline", "oracle"}


def test_a_choice_that_does_not_hold_is_refused(study: Study, doubles: Scored) -> None:
    runs_grid.run(study, CPU, 1)
    assert runs_grid.rated(asked(study)).rates
    with pytest.raises(InputError, match=r"plan.json.*FINETUNE_EPOCHS: 5 -> 6.*--tune.*--no-tuned"):
        runs_grid.rated(asked(study, FINETUNE_EPOCHS=6))
    with pytest.raises(InputError, match="SEEDS: 7 has chosen the rates"):
        runs_grid.rated(asked(study, SEEDS=[0, 7]))
    plan = plan_of(study)
    del plan["rates"]["arms"]["rotation"]["chosen"]["lr"]
    write_json(study.folder / "plan.json", plan)
    with pytest.raises(InputError, match=r"plan.json: not what exp.py writes there"):
        runs_grid.rated(asked(study))


def test_a_trial_that_fails_leaves_nothing_chosen(
        study: Study, doubles: Scored, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    real = doubles.evaluate

    def evaluate(*given: Any) -> Any:
        if doubles.run.identity.get("rates", {}).get("lr") == 0.06:
            raise InputError("baseline: the loss is not finite")
        return real(*given)
    monkeypatch.setattr(stages, "evaluate", evaluate)
    assert runs_grid.run(study, CPU, 1) == 1
    assert "nothing is chosen" in capsys.readouterr().err
    assert not (study.folder / "plan.json").exists()


def test_too_few_epochs_to_tell_trials_apart(study: Study) -> None:
    short = dataclasses.replace(study, settings=Settings(**{
        **vars(study.settings), "FINETUNE_EPOCHS": 1, "WARMUP_EPOCHS": 0}))
    with pytest.raises(InputError, match="FINETUNE_EPOCHS = 1: too few for --tune.*at least 2"):
        tuning.trials(short, "rotation")


@pytest.mark.parametrize(("flags", "message"), [
    (["--tune-seeds", "4", "9"], "TUNE_SEEDS: 4 is one of SEEDS"),
    (["--tune-seeds", "9", "9"], "TUNE_SEEDS: 9 is given twice"),
    (["--paper", *SEEDS], "--tune goes without --paper")])
def test_trials_share_no_seed_with_the_study(flags: list[str], message: str, scans: Path,
                                             tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        study_of("3d", scans, tmp_path, "--tune", *flags)


def test_other_seeds_may_choose_another_rate_and_the_oracle_is_trained_anew(
        study: Study, doubles: Scored, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    def asking(seeds: list[int]) -> Study:
        return dataclasses.replace(study, settings=Settings(**{
            **vars(study.settings), "TUNE_SEEDS": seeds, "TASKS": ["baseline", "oracle"]}))
    runs_grid.run(asking([7]), CPU, 1)
    trained = len(doubles.tried)
    monkeypatch.setitem(BEST, "baseline", Rates(0.03, 1.0, 0))
    for path in (study.folder / "tune/baseline").rglob("scores.json"):
        path.unlink()  # as if the second seed had changed the mean
    runs_grid.run(asking([7, 8]), CPU, 1)
    assert "set aside: pretrain/oracle/seed7" in capsys.readouterr().out
    assert (study.folder / "pretrain/oracle/seed7.old-1").exists()
    assert len(doubles.tried) == trained + 2 * 24  # all of both seeds
    config = read_json(study.folder / "pretrain/oracle/seed7/config.json")
    assert config["identity"]["rates"]["lr"] == 0.03
    longer = dataclasses.replace(asking([7]), settings=Settings(**{
        **vars(asking([7]).settings), "FINETUNE_EPOCHS": 6}))
    with pytest.raises(InputError, match="FINETUNE_EPOCHS: 5 -> 6"):  # of no other rate alone
        runs_grid.run(longer, CPU, 1)


def test_an_edge_of_the_grid_and_an_unfinished_choice_are_said(
        study: Study, doubles: Scored, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    (study.folder / "tune").mkdir(parents=True)
    assert runs_grid.rated(asked(study)).rates == {}
    assert "was begun and not finished" in capsys.readouterr().err
    runs_grid.run(study, CPU, 1)
    assert "rate that the baseline tried" not in capsys.readouterr().out
    monkeypatch.setitem(BEST, "baseline", Rates(0.09, 1.0, 0))
    again = dataclasses.replace(study, settings=Settings(**{
        **vars(study.settings), "TUNE_SEEDS": [9], "TASKS": ["baseline"]}))
    runs_grid.run(again, CPU, 1)
    assert "0.09 is the highest rate that the baseline tried" in capsys.readouterr().out
    assert runs_grid.rated(asked(study, TASKS=["baseline"])).rates
    assert "begun" not in capsys.readouterr().err
