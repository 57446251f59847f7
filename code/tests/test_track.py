"""--track: a tracker is told what the log holds, once, and the records do not know of it."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import Trial, numbers

from common.errors import InputError
from common.files import Json
from common.runs.records import Run, read_log
from common.track import tracked, trackers
from common.track.tracked import figures

IDENTITY = {"stage": "finetune", "task": "rpl", "settings": {"RESOLUTION": 32}}
NAME = "finetune/rpl/fraction005/seed0"


class Fake:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        self.said.append((step, dict(values)))

    def settings(self, settings: Json) -> None:
        self.said.append(settings)

    def picture(self, path: Path) -> None:
        self.said.append(path.name)

    def close(self, *, done: bool) -> None:
        self.said.append("done" if done else "closed")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Fake]]:
    """What was opened: name, step it begins behind, and the tracker."""
    made: list[tuple[str, int, Fake]] = []

    def opened(kind: str, folder: Path, name: str, *, past: int) -> Fake:
        made.append((name, past, Fake()))
        return made[-1][2]
    monkeypatch.setattr(tracked, "opened", opened)
    return made


def write(run: Run) -> None:
    """A run that is killed in its third epoch, goes on from its second, and ends."""
    run.start({})
    run.cut_log("log", 0)
    for epoch in (1, 2):
        run.log("log", {"epoch": epoch, "step": 10 * epoch, "val": {"dice": epoch / 4, "x": None}})
        run.log("log", {"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch})
        run.log("time", {"epoch": epoch, "seconds": 1.0})
    run.log("log", {"epoch": 3, "step": 25, "val": {"dice": 9.0}})
    run.cut_log("log", 2)
    run.log("log", {"epoch": 3, "step": 30, "loss": 0.1})
    run.finish({"stage": "finetune", "seed": 3, "test": {"dice": 0.5}, "cases": {"a": {"dice": 1}},
                "metric": "dice", "best": True})


def test_a_tracker_is_told_what_the_log_holds_and_where_a_start_begins(
        tmp_path: Path, fakes: list[tuple[str, int, Fake]]) -> None:
    plain, told = tmp_path / "plain/3d/set", tmp_path / "told/3d/set"
    write(Run(plain / NAME, IDENTITY))
    run = tracked.tracked(Run(told / NAME, IDENTITY), "tensorboard", tmp_path / "told")
    assert run.place == tmp_path / "told/track/tensorboard"
    write(run)
    for name in ("log.jsonl", "time.jsonl", "scores.json", "config.json"):
        assert (told / NAME / name).read_bytes() == (plain / NAME / name).read_bytes()
    assert [(name, past) for name, past, _ in fakes] == [(f"3d/set/runs/{NAME}", 0),
                                                         (f"3d/set/runs/{NAME}", 20)]
    first, second = (fake.said for *_, fake in fakes)
    assert first == [{"RESOLUTION": 32}, (10, {"val/dice": 0.25}), (10, {"train/loss": 1.0}),
                     (20, {"val/dice": 0.5}), (20, {"train/loss": 0.5}), (25, {"val/dice": 9.0}),
                     "closed"]
    assert second == [{"RESOLUTION": 32}, (30, {"train/loss": 0.1}),
                      (30, {"scores/test/dice": 0.5}), "done"]


def test_only_finite_numbers_are_told_by_their_place() -> None:
    record = {"epoch": 1, "step": 5, "loss": float("nan"), "flag": True, "word": "x",
              "val": {"dice": 0.5, "none": None, "deep": {"a": 2}}}
    assert dict(figures(record)) == {"val/dice": 0.5, "val/deep/a": 2.0}


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    trackers.check("none")
    with pytest.raises(InputError, match="the package mlflow is not installed; install it"):
        trackers.check("mlflow")


def test_pictures_of_the_data_set_are_told_and_no_others(
        tmp_path: Path, fakes: list[tuple[str, int, Fake]]) -> None:
    for name in ("train_set.png", "views_set.png", "train_other.png", "set.html"):
        (tmp_path / name).write_bytes(b"")
    pictures = tracked.pictures_of(tmp_path, "set")
    assert [path.name for path in pictures] == ["train_set.png", "views_set.png"]
    tracked.tell_pictures("mlflow", tmp_path, tmp_path / "3d/set", pictures)
    assert fakes[0][:2] == ("3d/set/runs/study", 1)
    assert fakes[0][2].said == ["train_set.png", "views_set.png", "done"]


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve of a run in TensorBoard: (step, value) in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(one.step, one.value) for one in found.Scalars(name)]
            for name in found.Tags()["scalars"]}


def test_tensorboard_shows_a_resumed_run_as_one_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    def start(run: str, past: int, steps: Mapping[int, float]) -> None:
        one = trackers.opened("tensorboard", tmp_path, f"3d/set/runs/{run}", past=past)
        one.settings({"RESOLUTION": 32})
        for step, loss in steps.items():
            one.numbers(step, {"train/loss": loss})
        one.close(done=False)
    start("a", 0, {1: 1.0, 2: 2.0, 3: 3.0})
    start("saved nothing", 0, {1: 1.0, 2: 2.0})
    time.sleep(1.1)  # TensorBoard orders starts by the second
    start("a", 2, {3: 30.0})
    start("saved nothing", 0, {1: 10.0})
    assert events(tmp_path / "3d/set/runs/a") == {"train/loss": [(1, 1.0), (2, 2.0), (3, 30.0)]}
    assert events(tmp_path / "3d/set/runs/saved nothing") == {"train/loss": [(1, 10.0)]}


def test_exp_tells_tensorboard_every_line_and_its_numbers_stay(trial_2d: Trial,
                                                               tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    said = trial_2d.run(tmp_path, "--track", "tensorboard")
    assert said.returncode == 0, said.stderr
    assert f"tracked   tensorboard --logdir {tmp_path}/results/track/tensorboard" in said.stdout
    runs = trial_2d.runs(tmp_path)
    assert numbers(tmp_path / "results") == numbers(trial_2d.folder / "results")
    logs = sorted(runs.rglob("log.jsonl"))
    assert len(logs) > 3
    for log in logs:
        shown = events(tmp_path / "results/track/tensorboard/2d" / runs.name / "runs"
                       / log.parent.relative_to(runs))
        losses = [(line["step"], line["loss"]) for line in read_log(log.parent) if "loss" in line]
        assert shown["train/loss"] == [(step, pytest.approx(loss)) for step, loss in losses]
        scores = json.loads((log.parent / "scores.json").read_text())
        if "test" in scores:
            assert shown["scores/test/kappa"][-1][1] == pytest.approx(scores["test"]["kappa"])


def test_mlflow_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    for past, steps in ((0, (1, 2)), (2, (3,))):
        one = trackers.opened("mlflow", tmp_path, "3d/set/runs/a@b", past=past)
        one.settings({"RESOLUTION": 32})
        for step in steps:
            one.numbers(step, {"val/dice (x)": float(step)})
        one.close(done=past > 0)
    client = one.client
    group = client.get_experiment_by_name("3d/set")
    runs = client.search_runs([group.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]
    history = client.get_metric_history(runs[0].info.run_id, "val/dice _x_")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert runs[0].data.params == {"RESOLUTION": "32"}
    fresh = trackers.opened("mlflow", tmp_path, "3d/set/runs/a@b", past=0)
    assert len(client.search_runs([group.experiment_id])) == 1
    assert fresh.run != runs[0].info.run_id  # begun anew
    assert "mlflow" in sys.modules
