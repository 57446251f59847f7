"""The benchmark of many cases: its table, the records it makes up, and the whole of it (slow)."""

from pathlib import Path

import numpy as np
import pytest
from commands import Trial, alone, call

from bench import trees
from bench.grid import scale
from common.runs import records
from common.settings import from_flags

ROW = {"first start": 10.0, "later start": 1.0, "plan": 1.0, "draw": 2.0, "own": 100.0,
       "drawing": 200.0, "cache": 4000.0}


def test_table_says_what_is_neither_linear_nor_flat() -> None:
    grown = {name: 10 * value for name, value in ROW.items()} | {
        "plan": 14.0, "own": 110.0, "drawing": 400.0}
    text = scale.table("3d", [{"count": 100, **ROW}, {"count": 1000, **grown}])
    assert "| 100 | 10.00 | 1.00 | 1.00 | 2.00 | 100 | 200 | 4.0 |" in text
    assert "- first start: 1.00 times as long a case at 1000 as at 100\n" in text
    assert "- plan: 1.40 times as long a case at 1000 as at 100: **not linear**" in text
    assert "- opening: 1.10 times the memory at 1000 as at 100\n" in text
    assert "- drawing: 2.00 times the memory at 1000 as at 100: **not flat**" in text
    assert "10,000 volumes of 128³, one channel: 42 GB of images in the cache, 21 GB" in text
    assert "100,000 photographs of 224 px: 15 GB of images" in text


def test_made_up_runs_are_records_that_are_read_as_any(trial: Trial, tmp_path: Path) -> None:
    flags = [str(flag) for flag in trial.flags(tmp_path, "--tasks", "baseline", "rotation")]
    exp = trees.script(trial.tree)
    with alone(trial.tree):
        study = trees.study_of(exp, from_flags(vars(exp), flags), trees.torch.device("cpu"))
        scale.pretend(study)
    found = records.read_runs(study.folder, "finetune")
    settings = study.settings
    assert len(found) == 2 * len(settings.FRACTIONS) * len(settings.SEEDS)
    for run in found:
        assert set(run["cases"]) == set(study.part(run["seed"]).test)
        assert run["labelled"] == len(study.labelled(run["fraction"], run["seed"]))
        assert np.isfinite(run["test"][run["metric"]])


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["2d", "3d"])
def test_counts_are_measured_step_by_step(tree: str, tmp_path: Path) -> None:
    said = call("bench/grid/scale.py", tree, "--counts", 40, 80, "--out", tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("times as long a case at 80 as at 40") == len(scale.STEPS)
    assert (tmp_path / f"scale-{tree}.md").read_text() == said.stdout
