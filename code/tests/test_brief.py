"""What is said at the end: a line an arm; and the check of what the demo promises."""

import json
from pathlib import Path
from typing import Any

import check_demo
import pytest
from test_graph import make

from common.report import brief, claims, curves, reading
from common.report.curves import Curves, Point
from common.runs import records
from common.stats.measures import mean_of


def of(folder: Path) -> Curves:
    return curves.of(records.read(folder), [mean_of("dice", "Dice")])


def test_a_line_an_arm_says_its_first_difference_and_whether_its_task_was_learnt(
        tmp_path: Path) -> None:
    found = of(make(tmp_path))
    said, _, words = brief.text(found).partition("\npancreas: in words:\n")
    assert [" ".join(one.split()) for one in f"\n{words}".split("\n  - ")[1:]] == [
        " ".join(one) for one in reading.by_topic(found).values() if one]
    assert all(line[:4] in ("  - ", "    ") and len(line) <= 100 for line in words.splitlines())
    lines = said.splitlines()
    assert [line.split(": ")[1] for line in lines] == found.tasks
    head, point = found.measures[0].name, found.of_task("baseline")[0]
    assert f"{point.means[head].mean:.3f} at {point.fraction} %" in lines[0]
    for task, line in zip(found.tasks[1:], lines[1:], strict=True):
        point = found.of_task(task)[0]
        assert point.difference is not None and point.interval is not None
        assert f"{point.difference.mean:+.3f} ({point.interval[0]:+.3f} to" in line
        runs = [run for run in found.pretraining if run["task"] == task]
        assert ("pretext accuracy" in line) == bool(runs)


def write(folder: Path, stage: str, task: str, place: str, **scores: Any) -> None:
    path = folder / stage / task / place
    path.mkdir(parents=True, exist_ok=True)
    (path / "scores.json").write_text(json.dumps({"stage": stage, "task": task, **scores}))
    (path / "config.json").write_text(json.dumps({"identity": {"stage": stage, "task": task}}))


def demo(folder: Path, baseline: tuple[float, float, float] = (0.3, 0.5, 0.7),
         oracle: float = 0.6, accuracy: float = 0.9) -> Path:
    """Records as the demo leaves them, with these scores."""
    for name in check_demo.DATASETS:
        for task, values in (("baseline", baseline), ("oracle", (oracle, 0.7, 0.7))):
            for fraction, value in zip(check_demo.FRACTIONS, values, strict=True):
                write(folder / name, "finetune", task, f"fraction{fraction:03d}/seed0",
                      fraction=fraction, seed=0, metric="dice", test={"dice": value}, cases={})
        write(folder / name, "pretrain", "rotation", "seed0", seed=0, chance={"accuracy": 0.25},
              score={"accuracy": accuracy})
    return folder


@pytest.mark.parametrize(("given", "broken"), [
    ({}, None), ({"baseline": (0.3, 0.29, 0.7)}, "rises with the labels"),
    ({"baseline": (0.3, 0.7, 0.69)}, None),
    ({"baseline": (0.55, 0.57, 0.6)}, "by at least"), ({"oracle": 0.3}, "oracle is above it"),
    ({"accuracy": 0.4}, "rotation comes")])
def test_the_demos_promises_are_checked(given: Any, broken: str | None, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["check_demo.py", str(demo(tmp_path, **given))])
    assert check_demo.main() == (broken is not None)
    said = capsys.readouterr().err
    assert said.count("broken promise") == (2 if broken else 0) and (broken or "") in said


def test_without_a_demo_the_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check_demo.py", str(tmp_path)])
    assert check_demo.main() == 1


@pytest.mark.parametrize(("interval", "word"), [
    ((0.001, 0.2), "above"), ((-0.2, -0.001), "below"), ((-0.1, 0.1), "not shown"),
    ((0.0, 0.2), "not shown"), ((-0.2, 0.0), "not shown"), (None, "")])
def test_the_verdict_of_an_interval(interval: tuple[float, float] | None, word: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Point, "interval", property(lambda point: interval))
    assert claims.verdict(Point("cpc", 5, (9,), {}, 0.0, None)) == word
