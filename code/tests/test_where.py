"""Where a study's time goes: the clocks of its runs, and the table that is made of them."""

import json
from pathlib import Path

import pytest
from commands import Trial, call

from bench.grid import where
from bench.grid.where import Busy
from common.runs.records import read_log


def test_waiting_is_what_workers_could_have_done_and_pauses_are_not() -> None:
    busy = [Busy(0, 10), Busy(0, 4), Busy(6, 10), Busy(1000, 1004)]
    idle, there, workers = where.waiting(busy)
    assert workers == 2
    assert there == 2 * 10 + 2 * 4           # the 990 seconds between are a stop
    assert idle == 2 + 4                     # one worker from 4 to 6, one from 1000 to 1004
    near = [Busy(0, 10), Busy(10 + where.PAUSE, 20 + where.PAUSE)]
    assert where.waiting(near) == (where.PAUSE, 20 + where.PAUSE, 1)


def test_a_run_is_one_stretch_unless_it_was_stopped() -> None:
    lines = [{"seconds": 4.0, "starting": 1.0, "ended": 105.0}, {"seconds": 5.0, "ended": 109.999},
             {"seconds": 5.0, "starting": 1.0, "ended": 900.0},
             {"seconds": 0.0, "finishing": 2.0, "ended": 902.0}]
    first, second = where.stretches([{"epoch": 1, **line} for line in lines])
    assert (first.start, first.end) == (pytest.approx(100.0, abs=0.02), 109.999)
    assert (second.start, second.end) == (pytest.approx(894.0, abs=0.02), 902.0)
    one_after_another = [first, Busy(109.9995, 120.0)]  # never two at once
    assert where.waiting(one_after_another)[2] == 1


def test_parts_of_a_line_hold_an_epoch_once() -> None:
    line = {"epoch": 2, "seconds": 9.0, "validating": 2.0, "saving": 0.5, "starting": 1.0,
            "ended": 50.0}
    assert where.parts_of(line) == {"steps": 7.0, "validating": 2.0, "saving": 0.5,
                                    "starting": 1.0, "finishing": 0.0}


def test_table_says_shares_of_all_the_workers_time(tmp_path: Path) -> None:
    lines = [{"epoch": 1, "seconds": 8.0, "validating": 2.0, "starting": 1.0, "ended": 109.0},
             {"epoch": 1, "seconds": 0.0, "finishing": 3.0, "ended": 112.0}]
    for stage, name in (("pretrain", "pretrain/rotation/seed0"),
                        ("finetune", "finetune/rotation/fraction100/seed0")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "scores.json").write_text(json.dumps({"stage": stage}))
        shift = 12.0 * (stage == "finetune")
        (folder / "time.jsonl").write_text("".join(
            json.dumps({**line, "ended": line["ended"] + shift}) + "\n" for line in lines))
    silent = tmp_path / "finetune/baseline/fraction100/seed0"
    silent.mkdir(parents=True)
    (silent / "scores.json").write_text(json.dumps({"stage": "finetune"}))
    (silent / "time.jsonl").write_text(json.dumps({"epoch": 1, "seconds": 5.0}) + "\n")
    text = where.table(*where.measured(tmp_path))
    assert "| pretraining | 1 | 0.00 | 25.0% | 8.3% | 0.0% | 4.2% | 12.5% |" in text
    assert "| **all** | 2 | 0.01 | 50.0% | 16.7% | 0.0% | 8.3% | 25.0% |" in text
    assert ("of 1 worker: 50.0% in steps, 0.0% waiting, 50.0% not training. Left out, without "
            "clocks: 1.") in text


def test_a_study_tells_where_its_time_went(trial: Trial) -> None:
    home = trial.runs(trial.folder)
    said = call("bench/grid/where.py", home)
    assert said.returncode == 0, said.stderr
    found, busy, silent = where.measured(home)
    runs = sorted(home.glob("*/**/scores.json"))
    assert silent == 0 and sum(spent.runs for spent in found.values()) == len(runs)
    assert all(one.start < one.end for one in busy)
    for path in runs:
        first, *_, last = read_log(path.parent, "time")
        assert first["starting"] > 0 and last["finishing"] > 0
        assert any(line.get("validating", 0) > 0 for line in read_log(path.parent, "time"))
    said = call("bench/grid/where.py", home / "nothing")
    assert said.returncode == 2 and "no finished run whose time.jsonl has clocks" in said.lines[-1]
