"""The two controls on generated data with a known answer: is the instrument able to show a gain?"""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from common.runs import records
from common.stats.estimates import Design
from common.stats.family import compare
from common.stats.measures import Arm, kappa_of

CODE = Path(__file__).resolve().parents[1]
SEEDS = range(5)
# 10 % of 140 photographs are 14; START_LR_FACTOR lets the oracle keep what it knows.
FLAGS = ["--resolution", "48", "--blocks", "2", "2", "2", "2", "--growth", "8", "--batch-size",
         "16", "--finetune-epochs", "40", "--finetune-lr", "1e-3", "--validations", "8",
         "--start-lr-factor", "0.1", "--device", "cpu", "--workers", "2", "--fractions", "10",
         "--folds", "1",
         "--tasks", "baseline", "oracle", "oracle@shuffled"]


@pytest.mark.slow
def test_the_oracle_is_shown_above_the_baseline_and_its_shuffled_control_is_not(
        tmp_path: Path) -> None:
    data = tmp_path / "controls"
    importlib.import_module("2d.phantom").generate(data, labelled=200, unlabelled=0, size=64)
    command = [sys.executable, str(CODE / "2d/exp.py"), "--data", str(data), "--results",
               str(tmp_path / "results"), "--cache", str(tmp_path / "cache"), *FLAGS,
               "--seeds", *map(str, SEEDS)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    runs = records.read_runs(tmp_path / "results/2d/controls", "finetune")
    arms: dict[str, Arm] = {
        task: {run["seed"]: {0: run["cases"]} for run in runs if run["task"] == task}
        for task in ("baseline", "oracle", "oracle@shuffled")}
    folds = runs[0]["identity"]["settings"].get("FOLDS", 1)
    gains = compare(kappa_of("kappa", "kappa", 5), arms, "baseline",
                    Design(folds, 10)).differences  # adjusted for both
    for task, gain in gains.items():
        print(task, f"{gain.mean:+.3f}", gain.adjusted, [f"{x:+.2f}" for x in gain.scores])
    oracle, shuffled = (gains[task].adjusted for task in ("oracle", "oracle@shuffled"))
    assert oracle is not None and shuffled is not None
    assert oracle[0] > 0            # shown: the interval, adjusted for both, leaves out zero
    assert not shuffled[0] > 0      # not shown
