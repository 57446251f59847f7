"""The simulated table of hours against GPUs."""

import importlib
from pathlib import Path

import pytest

from common.files import write_json
from common.runs.records import Run

scaling = importlib.import_module("bench.scaling")
HOUR = 3600.0


def test_whoever_is_free_claims_the_first_run_whose_encoder_exists() -> None:
    runs = [scaling.Timed("A", None, 3 * HOUR), scaling.Timed("B", None, HOUR),
            scaling.Timed("a", "A", HOUR), scaling.Timed("b", "B", HOUR),
            scaling.Timed("c", None, 2 * HOUR)]
    # Two: A 0-3 and a 3-4 beside B 0-1, b 1-2, c 2-4. Three: c begins at once.
    assert [scaling.hours(runs, count) for count in (1, 2, 3, 9)] == [8.0, 4.0, 4.0, 4.0]
    assert "| 2 | 4.0 | 2.0 | 100% |" in scaling.table(runs, [1, 2])


def test_the_modelled_grid_is_the_plan_of_the_default_experiment() -> None:
    runs = scaling.modelled([])
    assert len(runs) == 35 + 200 and [run.needs for run in runs[:35]] == [None] * 35
    assert runs[0].name == "pretrain/exemplar/seed0"  # whole volumes, two views
    assert runs[0].seconds == max(run.seconds for run in runs)
    assert {run.needs for run in runs[35:]} == {None, *(run.name for run in runs[:35])}
    total = sum(run.seconds for run in runs) / HOUR
    assert scaling.hours(runs, 1) == pytest.approx(total)
    chain = max(run.seconds for run in runs) + runs[-1].seconds
    assert scaling.hours(runs, 1000) == pytest.approx(chain / HOUR)


def test_times_of_finished_runs_are_read(tmp_path: Path) -> None:
    def record(name: str, identity: dict[str, object], seconds: float) -> None:
        run = Run(tmp_path / name, identity)
        run.start({})
        for epoch in (1, 2):
            run.log("time", {"epoch": epoch, "seconds": seconds / 2})
        write_json(run.folder / "scores.json", {})
    record("pretrain/rpl/seed0", {"stage": "pretrain", "task": "rpl", "seed": 0}, 20.0)
    record("finetune/rpl/fraction005/seed0", {"stage": "finetune", "task": "rpl", "seed": 0,
                                              "encoder": {"task": "rpl"}}, 6.0)
    record("finetune/baseline/fraction005/seed0",
           {"stage": "finetune", "task": "baseline", "seed": 0, "encoder": None}, 8.0)
    assert scaling.measured(tmp_path) == [
        scaling.Timed("pretrain/rpl/seed0", None, 20.0),
        scaling.Timed("finetune/baseline/fraction005/seed0", None, 8.0),
        scaling.Timed("finetune/rpl/fraction005/seed0", "pretrain/rpl/seed0", 6.0)]
