"""Seeds are fixed before the first look: what is asked for is kept, and a look on the way is said.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t
from test_reading import TWO, made
from wiring import study_of

from common.errors import InputError
from common.report import looks, reading
from common.report.page import answer
from common.runs import records
from common.runs.study import Study
from common.schedule import grid, plan
from common.settings import Settings


def asked(*steps: tuple[list[int], int]) -> dict[str, Any]:
    return {"seeds": [{"seeds": seeds, "scores_then": there} for seeds, there in steps]}


def test_a_study_whose_seeds_are_all_done_says_nothing() -> None:
    assert looks.sentences(made(TWO)) == []  # records from before seeds were kept
    assert looks.sentences(made(TWO, plan=asked(([0, 1, 2, 3, 4], 0)))) == []
    assert looks.sentences(made(TWO, plan=asked(([0, 1, 2], 0), ([3, 4], 0)))) == []
    assert looks.sentences(made(TWO, plan={"seeds": [{"seeds": [0, 1, 2, 3, 4]}]})) == []


def test_a_look_before_all_seeds_are_done_is_said() -> None:
    five = asked(([0, 1, 2, 3, 4], 0))
    [said] = looks.sentences(made(TWO, seeds=range(3), plan=five))
    assert said == ("A look on the way: of 5 seeds that were asked for 2 are not done for every "
                    "arm (3, 4). What is shown now may not be shown then.")
    found = made(TWO, seeds=range(4), plan=five)
    assert "1 is not done for every arm (4)" in looks.sentences(found)[0]
    assert looks.sentences(found)[0] in reading.sentences(found)
    assert looks.sentences(found)[0] in answer.rest(found)


def test_seeds_that_were_added_after_scores_are_said() -> None:
    found = made(TWO, plan=asked(([0, 1, 2], 0), ([3], 24), ([4], 32)))
    assert looks.sentences(found) == [
        "Seeds were asked for later (3 when there were 24 test scores; 4 when there were 32 test "
        "scores): intervals hold for a number of seeds that was fixed before."]


@pytest.fixture
def study(scans: Path, tmp_path: Path) -> Study:
    return study_of("3d", scans, tmp_path)


def with_seeds(study: Study, *seeds: int) -> None:
    plan.record_seeds(replace(study, settings=Settings(**{**vars(study.settings),
                                                          "SEEDS": [*seeds]})))


def test_every_step_of_asking_is_kept_once(study: Study) -> None:
    def kept() -> Any:
        return records.read_plan(study.folder)["seeds"]
    with_seeds(study, 0, 1, 2)
    with_seeds(study, 2, 1)  # nothing new
    assert kept() == [{"seeds": [0, 1, 2], "scores_then": 0}]
    for seed in (0, 1):
        run = study.folder / f"finetune/rotation/fraction050/seed{seed}-draw1"
        run.mkdir(parents=True)
        (run / "scores.json").write_text("{}")
    with_seeds(study, 4, 3, 0)
    assert kept()[1:] == [{"seeds": [3, 4], "scores_then": 2}]
    for edited in ("[3]", '[{"seeds": 3}]', '[{"seeds": "3"}]', '[{"seeds": ["3"]}]', "[{}]", "3"):
        (study.folder / "plan.json").write_text(f'{{"seeds": {edited}}}')
        with pytest.raises(InputError, match="not what exp.py writes there"):
            records.read_plan(study.folder)


def test_of_scores_from_before_seeds_were_kept_nobody_knows_what_was_asked_for(study: Study
                                                                              ) -> None:
    for name in ("seed7", "seed0.old-1"):  # the second was set aside
        run = study.folder / f"finetune/baseline/fraction050/{name}"
        run.mkdir(parents=True)
        (run / "scores.json").write_text("{}")
    with_seeds(study, 7, 8)
    first = {"seeds": [7, 8]}
    assert json.loads((study.folder / "plan.json").read_text()) == {"seeds": [first]}
    with_seeds(study, 9)
    found = records.read_plan(study.folder)
    assert found == {"seeds": [first, {"seeds": [9], "scores_then": 2}]}
    assert looks.sentences(made(TWO, seeds=(7, 8, 9), plan={"seeds": [first]})) == []


def test_what_is_refused_asks_for_no_seeds(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise InputError("more than a day")
    monkeypatch.setattr(grid, "announce", refused)
    with pytest.raises(InputError, match="more than a day"):
        grid.begin(study, [torch.device("cpu")], 1)
    assert not (study.folder / "plan.json").exists()


def test_looks_at_three_four_and_five_seeds_find_twice_as_much_as_they_claim() -> None:
    seeds = np.random.default_rng(0).normal(size=(40_000, 5))  # an arm that gains nothing

    def shown(count: int) -> Any:
        some = seeds[:, :count]
        half = t.ppf(0.975, count - 1) * some.std(1, ddof=1) / count**0.5
        return np.abs(some.mean(1)) > half
    assert shown(5).mean() == pytest.approx(0.05, abs=0.005)
    assert (shown(3) | shown(4) | shown(5)).mean() == pytest.approx(0.10, abs=0.005)
