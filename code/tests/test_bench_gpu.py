"""The one command for whoever has a card: tried whole on the CPU, and its arithmetic."""

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common.errors import InputError
from common.runs import training
from common.schedule import workers
from common.settings import from_flags

CODE = Path(__file__).resolve().parents[1]
TASKS = ["rotation", "jigsaw", "rpl", "exemplar", "cpc"]  # and by default one of today's
TODAYS = {"3d": "volumefusion", "2d": "vicreg"}
PARTS = ["imports", "machine", "tests", "steps", "demo3d", "demo2d"]


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    yield importlib.import_module("bench.gpu.parts")


def pancreas(*flags: str) -> Any:
    """The default study of 281 labelled and 139 unlabelled scans, without its images."""
    sys.path.insert(0, str(CODE / "3d"))
    settings = from_flags(runpy.run_path(str(CODE / "3d/exp.py")), flags)
    return importlib.import_module("bench.scaling").pancreas(settings)


def test_what_the_tests_on_a_card_use_is_there() -> None:
    """They run on a card, or as slow tests; a module that moves would be noticed there alone."""
    text = (CODE / "tests/test_gpu.py").read_text()
    named = set(re.findall(r'import_module\("([\w.]+)"\)', text))
    assert len(named) == text.count("import_module(") > 2
    trees, rows, bench = map(importlib.import_module, sorted(named, key=("bench.trees",
                             "bench.rows.step_rows", "bench.gpu.card_steps").index))
    assert trees.open_3d and trees.open_2d and rows.Step and bench.SMOKE
    for where, name in re.findall(r"\b(training|workers)\.(\w+)", text):
        assert hasattr({"training": training, "workers": workers}[where], name), name


def test_hours_of_a_grid_are_its_steps_times_their_seconds(gpu: ModuleType) -> None:
    steps = importlib.import_module("bench.gpu.card_steps")
    study = pancreas()
    known = dict.fromkeys(["baseline", *TASKS, TODAYS["3d"]], steps.Timing(0.5, 0.0))
    found = steps.cost(study, known, stopped=False)
    # 342 scans in batches of 4, 8, 32, 4 and 1, and 5,000 steps in batches of 8 in whole epochs of
    # 43; 203 in batches of 4, eight arms at five fractions, and the oracle's start.
    once = 117 * 43 + 41 * 150 * 51
    assert found.steps == 5 * (1000 * (86 + 43 + 11 + 86 + 342) + once)
    assert found.seconds == pytest.approx(found.steps / 2) and found.missing == []
    early = steps.cost(study, known, stopped=True)
    # 2000 steps in whole epochs, and 50 epochs of patience.
    assert early.steps == 5 * ((24 + 50) * 86 + (47 + 50) * 43 + (182 + 50) * 11 + (24 + 50) * 86
                               + (6 + 50) * 342 + once)
    del known["cpc"]
    assert steps.cost(study, known, stopped=True).missing == ["cpc"]
    validated = dict.fromkeys(known, steps.Timing(0.0, 1.0))
    one = pancreas("--tasks", "baseline", "--seeds", "0", "--fractions", "100")
    assert steps.cost(one, validated, stopped=False).seconds == 20 * 28 + 2 * (28 + 50)


def test_a_study_is_as_large_as_the_time_allows(gpu: ModuleType) -> None:
    steps = importlib.import_module("bench.gpu.card_steps")
    study = pancreas("--tasks", "baseline", "rotation", "--fractions", "10", "100")
    known = dict.fromkeys(["baseline", "rotation"], steps.Timing(0.1, 0.01))
    whole = gpu.fitting(study, known, 10**6)
    assert (whole["PRETEXT_EPOCHS"], whole["FINETUNE_EPOCHS"]) == (1000, 150)
    assert whole["SEEDS"] == [0, 1, 2]
    epochs = 10**9
    for seconds in (10000, 3000, 1000, 300, 60):
        chosen = gpu.fitting(study, known, seconds)
        assert 1 <= chosen["PRETEXT_EPOCHS"] * len(chosen["SEEDS"]) < epochs
        epochs = chosen["PRETEXT_EPOCHS"] * len(chosen["SEEDS"])
        runs = len(chosen["SEEDS"]) * 4
        assert runs * chosen["FINETUNE_EPOCHS"] * 51 * 0.1 <= seconds
    assert chosen["SEEDS"] == [0]
    with pytest.raises(InputError, match="give more --minutes"):
        gpu.fitting(study, known, 5)


def call(out: Path, *flags: object) -> "subprocess.CompletedProcess[str]":
    home = out.parent / "home"
    home.mkdir(exist_ok=True)
    command = [CODE / "bench/gpu.sh", "--out", out, "--python", sys.executable, "--device", "cpu",
               "--smoke", *flags]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          check=False, cwd="/", env={**os.environ, "HOME": str(home)})


def summary(out: Path) -> dict[str, list[str]]:
    """The lines of the table by part: status, seconds, key numbers."""
    rows = [line.strip("| ").split(" | ") for line in (out / "summary.md").read_text().splitlines()]
    return {row[0]: row[1:] for row in rows[2:]}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
            and not {".git", "venv", ".pytest_cache", ".ruff_cache"} & set(path.parts)}


@pytest.mark.slow
def test_every_part_has_its_line_and_one_that_fails_leaves_the_others(
        photographs: Path, tmp_path: Path) -> None:
    before = files(CODE.parent), files(photographs)
    result = call(tmp_path / "out", "--minutes", 20, "--data3d", tmp_path / "Task00_Nowhere",
                  "--data2d", photographs)
    lines = summary(tmp_path / "out")
    assert list(lines) == [*PARTS, "study3d", "study2d"], result.stderr
    assert {part: line[0] for part, line in lines.items() if line[0] != "ok"} == {
        "study3d": "failed (2)"}, lines
    assert result.returncode == 1 and "no such folder" in lines["study3d"][2]
    assert "skipped" in lines["tests"][2] and "runs/s" in lines["demo3d"][2]
    rows = [json.loads(line) for line in (tmp_path / "out/steps.jsonl").read_text().splitlines()]
    first = [(row["tree"], row["arm"]) for row in rows[:14]]
    assert first == [(tree, arm) for tree in ("3d", "2d")
                     for arm in ["baseline", *TASKS, TODAYS[tree]]]
    assert all(row["default"] for row in rows[:14]) and not any(row["default"] for row in rows[14:])
    assert all(row["status"] == "ok" and row["step_s"] > 0 for row in rows)
    grids = (tmp_path / "out/grids.md").read_text()
    assert "| pancreas | 281 + 139 | " in grids and "| APTOS 2019 | 3662 + 1928 | " in grids
    assert (tmp_path / "out/machine.txt").read_text().count("\n") > 6
    runs = list((tmp_path / "out/study2d").rglob("scores.json"))
    assert len(runs) % 5 == 0 and lines["study2d"][2].startswith(f"{len(runs)} of {len(runs)} runs")
    left = files(tmp_path / "out")
    assert not [name for name in left if name.endswith((".pt", ".npy", ".npz"))]
    assert sum(size for size, _ in left.values()) < 5e6
    assert (files(CODE.parent), files(photographs)) == before
    assert not list((tmp_path / "home").rglob("*")) and not list((tmp_path / "out").glob("work.*"))


@pytest.mark.slow
def test_little_time_is_kept_and_said(photographs: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    call(tmp_path / "out", "--minutes", 0.5, "--data2d", photographs)
    assert time.monotonic() - began < 35
    lines = summary(tmp_path / "out")
    assert list(lines) == [*PARTS, "study2d"]
    assert {"left out", "out of time"} & {line[0] for line in lines.values()}
    assert not list((tmp_path / "out").glob("work.*"))


@pytest.mark.parametrize(("flags", "said"), [
    (["--minutes", "many"], "not a number"), (["--mintues", "3"], "unknown argument --mintues"),
    (["--data3d"], "needs a value")])
def test_wrong_flags_are_one_line(flags: list[str], said: str, tmp_path: Path) -> None:
    result = call(tmp_path / "out", *flags)
    assert result.returncode == 2 and said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
