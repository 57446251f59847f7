"""predict.py of the 2D tree: grades in a table, and where the network looked."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Result, Trial, alone, call
from PIL import Image
from torch.nn import functional as F

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
    assert said.returncode == 0 and "Not for clinical use" in said.stdout
    found = rows(tmp_path / "out")
    assert len(found) == 20
    for case, figures in json.loads((run / "scores.json").read_text())["cases"].items():
        assert int(found[case]["grade"]) == figures["predicted"]
    for row in found.values():
        at_least = [float(row[f"at_least_{number}"]) for number in range(1, 5)]
        assert float(row["expected"]) == pytest.approx(sum(at_least), abs=3e-4)
        assert all(0 <= one <= 1 for one in at_least) and row["note"].startswith("Not for clinical")


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


def test_heat_is_grad_cam_of_the_expected_grade(trial_2d: Trial, tmp_path: Path) -> None:
    run = trial_2d.runs(trial_2d.folder) / RUN
    image = sorted((trial_2d.data / "train_images").glob("[!.]*"))[0]
    assert grade("--run", run, image, "--to", tmp_path, "--heat").returncode == 0
    with Image.open(tmp_path / f"{image.name}.png") as picture:
        assert picture.size == (320 + 6 + 320, 320)
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
            gradient = by_differences(network, maps)
    assert maps.shape[2:] == (3, 3)
    cam = (gradient[:, :, None, None] * maps).sum(1).relu()
    wanted = F.interpolate(cam[:, None], (96, 96), mode="bilinear", align_corners=False)[:, 0]
    wanted /= wanted.amax((1, 2), keepdim=True)
    assert found == pytest.approx(wanted, abs=0.02) and wanted.min() < 0.9


def by_differences(network: Any, maps: torch.Tensor) -> torch.Tensor:
    """The mean gradient of the expected grade by every channel, (B, C), by finite differences."""
    def expected(values: torch.Tensor) -> torch.Tensor:
        return network.head(values.mean((2, 3)).double().float())[:, 1:].sigmoid().double().sum(1)
    step = 1e-2
    columns = []
    for channel in range(maps.shape[1]):
        change = torch.zeros_like(maps)
        change[:, channel] = step
        columns.append((expected(maps + change) - expected(maps - change)) / (2 * step))
    return torch.stack(columns, 1).float() / maps[0, 0].numel()
