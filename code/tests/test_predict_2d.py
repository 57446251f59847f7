"""predict.py of the 2D tree: grades in a table, and where the network looked."""

import csv
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Result, Trial, alone, call
from PIL import Image
from torch.nn import functional as F

from common.downstream.grading import Grading
from common.predict import command

RUN = "finetune/rotation/fraction100/seed0"


def grade(*arguments: object) -> Result:
    return call("2d/predict.py", *arguments, "--device", "cpu")


def rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return {Path(row["image"]).stem: row for row in csv.DictReader(file)}


def test_grades_are_those_of_the_study(trial_2d: Trial, tmp_path: Path) -> None:
    run = trial_2d.runs(trial_2d.folder) / RUN
    best = shutil.copy(run / "best.pt", tmp_path)
    said = grade("--run", best, trial_2d.data / "train_images", "--to", tmp_path / "out")
    assert (said.returncode, said.stderr) == (0, "") and "Not for clinical use" in said.stdout
    found = rows(tmp_path / "out")
    assert len(found) == 20
    for case, figures in json.loads((run / "scores.json").read_text())["cases"].items():
        assert int(found[case]["grade"]) == figures["predicted"]
    for row in found.values():
        at_least = [float(row[f"at_least_{number}"]) for number in range(5)]
        assert float(row["expected"]) == pytest.approx(sum(at_least[1:]), abs=3e-4)
        assert int(row["grade"]) == max(0, sum(one > 0.5 for one in at_least) - 1)
        assert all(0 <= one <= 1 for one in at_least) and row["note"].startswith("Not for clinical")


@pytest.mark.parametrize(("count", "terminal", "shown"), [(2, True, True), (2, False, False),
                                                         (1, True, False)])
def test_progress_bars_are_for_terminals(count: int, terminal: bool, shown: bool,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stream)
    files = {f"{number}.png": Path(f"{number}.png") for number in range(count)}
    assert dict(command.bar(files, "image")) == files
    assert bool(stream.getvalue()) == shown


def test_the_grade_follows_from_the_columns_that_are_shown() -> None:
    with alone("2d"):
        import predict as script
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    grades = Grading(5, lambda images, rng: images).decode(logits)  # as exp.py scores a test case
    assert (logits[:, 0] < 0).any()  # hardly trained: not even sure of at least 0
    for row, grade in zip(logits.sigmoid(), grades, strict=True):
        shown = script.of_grades(row)
        columns = [float(value) for name, value in shown.items() if name.startswith("at_least_")]
        assert shown["grade"] == int(grade) == max(0, sum(one > 0.5 for one in columns) - 1)
        assert len(columns) == 5


def test_a_table_goes_on_after_a_stop_and_bad_images_are_named(trial_2d: Trial, tmp_path: Path
                                                               ) -> None:
    run, images = trial_2d.runs(trial_2d.folder) / RUN, tmp_path / "images"
    shutil.copytree(trial_2d.data / "train_images", images)
    out = tmp_path / "out"
    grade("--run", run, images, "--to", out)
    whole = (out / "predictions.csv").read_text()
    lines = whole.splitlines(keepends=True)
    (out / "predictions.csv").write_text("".join(lines[:9]) + lines[9][:11])  # stopped in a row
    (images / "bad.png").write_bytes(b"nothing of the kind")
    said = grade("--run", run, images, "--to", out)
    assert said.returncode == 2 and "kept      8 of 21 images" in said.stdout
    assert f"error: {images / 'bad.png'}: not a readable image" in said.stderr
    assert said.lines[-1].startswith("error: 1 of 13 images could not be predicted: bad.png")
    assert sorted((out / "predictions.csv").read_text().splitlines()) == sorted(whole.splitlines())
    other = trial_2d.runs(trial_2d.folder) / "finetune/baseline/fraction050/seed0"
    said = grade("--run", other, images, "--to", out)
    assert said.returncode == 2 and "is there with other weights" in said.lines[-1]
    (out / "predictions.csv").write_text("name,age\n")
    said = grade("--run", run, images, "--to", out)
    assert said.returncode == 2 and "was not made by predict.py" in said.lines[-1]
    assert (out / "predictions.csv").read_text() == "name,age\n"


def test_heat_maps_of_images_of_one_stem_do_not_meet(trial_2d: Trial, tmp_path: Path) -> None:
    run, images, out = trial_2d.runs(trial_2d.folder) / RUN, tmp_path / "images", tmp_path / "out"
    images.mkdir()
    source = sorted((trial_2d.data / "train_images").glob("[!.]*"))[0]
    with Image.open(source) as picture:
        for name in ("a.jpg", "a.png", "a.jpg.png", "b.png"):
            picture.convert("RGB").save(images / name)
    said = grade("--run", run, images, "--to", out, "--heat")
    assert said.returncode == 0
    assert sorted(file.name for file in out.iterdir()) == [
        "a.jpg.png_heat.png", "a.jpg_heat.png", "a.png_heat.png", "b_heat.png", "predictions.csv"]
    assert "kept      4 of 4" in grade("--run", run, images, "--to", out, "--heat").stdout
    with (out / "predictions.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {
            "a.jpg", "a.png", "a.jpg.png", "b.png"}


def test_heat_is_grad_cam_of_the_expected_grade(trial_2d: Trial, tmp_path: Path) -> None:
    run = trial_2d.runs(trial_2d.folder) / RUN
    image = sorted((trial_2d.data / "train_images").glob("[!.]*"))[0]
    assert grade("--run", run, image, "--to", tmp_path, "--heat").returncode == 0
    with Image.open(tmp_path / f"{image.stem}_heat.png") as picture:
        assert picture.size == (320 + 6 + 320, 320 + 28)
        assert np.asarray(picture)[320:].max() > 200  # the grade, in white
    with alone("2d"):
        import predict as script

        from common.predict.command import Ensemble
        from common.runs import trained

        one = trained.read(run, "2d")
        network = script.network(one)
        network.load_state_dict(one.weights)
        network.eval()
        images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        found = script.heat_maps(Ensemble([one], [network], torch.device("cpu")), images)
        with torch.no_grad():
            maps = network.encoder.stages(images)[-2]
            gradient = gradient_of(lambda logits: logits[:, 1:].sigmoid().double().sum(1), network,
                                   maps)
    assert maps.shape[2:] == (3, 3)
    cam = (gradient[:, :, None, None] * maps).sum(1).relu()
    wanted = F.interpolate(cam[:, None], (96, 96), mode="bilinear", align_corners=False)[:, 0]
    wanted /= wanted.amax((1, 2), keepdim=True)
    assert found == pytest.approx(wanted, abs=0.02) and wanted.min() < 0.9


def gradient_of(answer: Callable[[torch.Tensor], torch.Tensor], network: Any, maps: torch.Tensor
                ) -> torch.Tensor:
    """The mean gradient of an answer (B,) by every channel, (B, C), by finite differences."""
    def said(values: torch.Tensor) -> torch.Tensor:
        return answer(network.head(values.mean((2, 3)).double().float()))
    step = 1e-2
    columns = []
    for channel in range(maps.shape[1]):
        change = torch.zeros_like(maps)
        change[:, channel] = step
        columns.append((said(maps + change) - said(maps - change)) / (2 * step))
    return torch.stack(columns, 1).float() / maps[0, 0].numel()
