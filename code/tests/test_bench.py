"""The benchmark runs, says everything, and compares with what really does the same work."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from commands import Result, call, loaded, shell
from torch.nn import functional as F

from common.data.cache import Source
from common.downstream.segmentation import Segmentation
from common.tasks.batches import generator
from common.tasks.contract import Batch

CLASSES = ["background", "organ", "tumour"]
PAPERS = ["rotation", "jigsaw", "rpl", "exemplar", "cpc"]
TASKS = [*PAPERS, "volumefusion"]  # the default pretext tasks of the volumes


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    yield importlib.import_module("bench.rows.plain")


def kind(what: str) -> str:
    """A row's name without its sizes."""
    return re.sub(r"\d+", "#", what)


STEPS = ["finetune", *(f"pretext {task}" for task in TASKS)]
KINDS = {
    "preprocess a #x#x# int# pair, one process", "the same with a pool of #, a pair",
    "peak memory of that, whole process",
    *(f"views for a batch of # at #³: {task}" for task in ("rotation", "rpl", "jigsaw",
                                                           "exemplar")),
    "finetune batch of # assembled", "its memory, as gathered from the cache",
    "Dice bookkeeping of a batch", "memory for # volumes and labels (counted)",
    "# photographs of # px, from the second command on",
    "exp.py from start to end of a two-step run, warm cache", "graph.py on the records of 115 runs",
    *(f"#D U-Net step, {step}, batch # at #³" for step in STEPS),
    "DenseNet-# step, finetune, batch # at # px", "default pancreas grid, one seed, all epochs",
    "default pancreas grid, one seed, each pretraining stopped at PRETEXT_MIN_STEPS + patience, "
    "the earliest", "validation's share of a finetuning run",
    *(f"validation's share of a pretraining run, {task}" for task in TASKS),
    *(f"{network}, {arm}, batch # at #{unit}" for network, unit in (("#D U-Net", "³"),
                                                                   ("DenseNet-#", " px"))
      for arm in ("finetune", "meanteacher", *PAPERS, "mae", "genesis", "simclr", "vicreg",
                  "volumefusion" if network == "#D U-Net" else "fixmatch")),
    "# generated scans preprocessed, a scan", "time a scan at # beside #",
    "own memory at # beside #"}


@pytest.mark.slow
def test_one_command_measures_every_row(tmp_path: Path) -> None:
    result = shell("bench/speed.py", "--smoke", "--rounds", 1, "--results", tmp_path)
    assert result.returncode == 0, result.stderr
    rows = rows_of(tmp_path, result)
    assert {kind(what) for what in rows} == KINDS
    assert sum("generated scans preprocessed" in what for what in rows) == 2
    assert all(row["ours"] > 0 for row in rows.values())
    step = next(row for what, row in rows.items() if "step, finetune" in what)
    assert step["details"]["flop"] == step["details"]["plain_flop"] > 0


def rows_of(folder: Path, result: Result) -> dict[str, dict[str, Any]]:
    """The rows of both files, if they are those that were said, in their order."""
    rows = json.loads((folder / "speed-cpu.json").read_text())["rows"]
    names = [row["what"] for row in rows]
    lines = (folder / "speed-cpu.md").read_text().splitlines()
    table = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert table[2:] == names and len(set(names)) == len(names)
    assert [name for line in result.stdout.splitlines() for name in names
            if line.startswith(f"{name}  ")] == names
    for row in rows:
        assert row["unit"]
        assert row["ratio"] == (None if row["plain"] is None else
                                pytest.approx(row["plain"] / row["ours"]))
    return {row["what"]: row for row in rows}


def test_every_group_is_measured_unless_skipped_and_what_is_measured_stays(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("bench/speed.py", "--help")  # loads it
    speed = loaded("bench", "speed")

    def jobs(folder: Path, device: torch.device, rounds: int, sizes: Any, told: Any) -> Any:
        def telling() -> None:
            told(speed.Row("steps", 2.0, 4.0, "s", "1.5x", True, "told at once"))
        made: dict[str, Any] = {name: lambda name=name: [speed.Row(name, 2.0, None, "ms")]
                                for name in speed.GROUPS}
        return {**made, "steps": telling}
    monkeypatch.setattr(speed, "_jobs", jobs)
    flags = ["--smoke", "--results", tmp_path]
    result = call("bench/speed.py", *flags, "--skip", "views", "growth")
    assert result.returncode == 0, result.stderr
    rows = rows_of(tmp_path, result)
    assert [*rows] == [name for name in speed.GROUPS if name not in ("views", "growth")]
    assert rows["steps"]["ratio"] == 2.0 and rows["steps"]["met"] is True
    assert "| steps | 2 s | 4 s | 2.0x | 1.5x | yes | told at once |" in (
        tmp_path / "speed-cpu.md").read_text()

    def broken(*given: Any) -> Any:
        def stop() -> None:
            raise KeyboardInterrupt
        return {**jobs(*given), "storage": stop}
    monkeypatch.setattr(speed, "_jobs", broken)
    result = call("bench/speed.py", *flags)
    assert result.returncode == 130
    assert [*rows_of(tmp_path, result)] == ["preprocessing", "views", "batch"]
    result = call("bench/speed.py", *flags, "--rounds", 0)
    assert result.returncode == 2 and "at least 1" in result.stderr


def test_the_plain_dice_loss_and_scores_are_the_projects(plain: ModuleType) -> None:
    outputs = torch.randn(2, 3, 8, 8, 8, generator=generator(0, "outputs"))
    labels = torch.randint(0, 3, (2, 8, 8, 8), generator=generator(0, "labels")).to(torch.uint8)
    truth = F.one_hot(labels.long(), 3).movedim(-1, 1).double()
    task = Segmentation(CLASSES)
    assert float(plain.dice_loss(outputs, truth)) == pytest.approx(
        float(task.loss(outputs, labels)), abs=1e-6)
    table = task.score(outputs, labels)["confusion"].sum(0).double()
    expected = 2 * table.diagonal() / (table.sum(0) + table.sum(1))
    assert plain.dice_scores(outputs, truth) == pytest.approx(expected.tolist())


def test_the_plain_batches_and_views_have_the_projects_shapes_and_values(plain: ModuleType
                                                                         ) -> None:
    side, jitter = 36, 1
    images = torch.rand(4, 1, side, side, side, generator=generator(0, "images")).half()
    batch, rng = Batch(list(images), None, [0, 1, 2, 3]), generator(0, "views")
    tasks = importlib.import_module("3d.pretext").PRETEXTS
    shapes = {name: make(side).prepare(batch, rng, training=True)[0].shape
              for name, make in tasks.items()}
    draw = np.random.default_rng(0)
    assert plain.jigsaw(images.numpy(), jitter, draw).shape == shapes["jigsaw"]
    assert plain.relative_patch(images.numpy(), jitter, draw).shape == shapes["rpl"]
    assert plain.rotation(images.numpy(), [0] * 4)[:, None].shape == shapes["rotation"]
    triplets = plain.exemplar(images.numpy(), draw)
    assert triplets.shape[0] == 4 and triplets.shape[1] == shapes["exemplar"][1] + 1
    assert torch.equal(triplets[:, 1], batch.images)  # the original is the positive
    labels = torch.randint(0, 3, (4, 8, 8, 8), generator=rng).to(torch.uint8).numpy()
    made = plain.segmentation_batch(images.numpy(), labels, [2, 1], 3)
    assert torch.equal(made[0], batch.images[[2, 1]])
    assert np.array_equal(made[1].argmax(1), labels[[2, 1]])
    assert made[1].dtype == torch.float64


def test_the_plain_triplet_loss_is_the_projects(plain: ModuleType) -> None:
    codes = torch.rand(4, 2, 16, generator=generator(0, "codes"))
    negative = torch.tensor([1, 2, 3, 0])
    task = importlib.import_module("3d.pretext").PRETEXTS["exemplar"](8)
    stacked = torch.cat([codes, codes[negative, 1][:, None]], dim=1)
    assert float(plain.triplet(stacked, negative)) == pytest.approx(
        float(task.loss(codes, negative)))


def test_the_plain_preprocessing_shows_the_same_scan(plain: ModuleType, scans: Path) -> None:
    loader = importlib.import_module("3d.loader")
    source: Source = loader.open_dataset(scans).sources[0]
    assert source.label is not None
    image, label = plain.preprocess(source.image, source.label, 32)
    ours, _, _ = loader.preprocess(source, classes=3, channels=1, resolution=32,
                                   intensity="minmax")
    assert image.shape == label.shape == ours.shape[1:] == (32, 32, 32)
    # Stored axes there, canonical ones here: the same voxels up to mirrored axes.
    mirrored = [np.flip(image, axes) for axes in ((), 0, 1, 2, (0, 1), (0, 2), (1, 2), (0, 1, 2))]
    assert max(np.corrcoef(one.ravel(), ours[0].ravel().astype(float))[0, 1]
               for one in mirrored) > 0.95


def test_dropout_from_bits_halves_doubles_and_repeats() -> None:
    model = importlib.import_module("3d.model")
    maps = torch.rand(2, 5, 7, 7, 7).add_(1).requires_grad_()
    layer = model.Halving(model.DROPOUT)
    torch.manual_seed(1)
    made = layer(maps)
    torch.manual_seed(1)
    assert torch.equal(made, layer(maps)) and not torch.equal(made, layer(maps))
    kept = made != 0
    assert torch.equal(made[kept], 2 * maps[kept])
    assert kept.float().mean() == pytest.approx(0.5, abs=0.05)
    # No pattern: neighbours along every axis agree half of the time.
    for axis in range(5):
        near = (kept.diff(dim=axis) == 0).float().mean()
        assert near == pytest.approx(0.5, abs=0.07), axis
    made.sum().backward()
    assert torch.equal(maps.grad, 2.0 * kept)
    assert torch.equal(layer.eval()(maps), maps)
