"""The benchmark runs, says everything, and compares with what really does the same work."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from common import augment
from common.cache import Source
from common.downstream import Segmentation
from common.task import Batch
from common.training import generator

CODE = Path(__file__).resolve().parents[1]
CLASSES = ["background", "organ", "tumour"]


@pytest.fixture(scope="module")
def plain() -> Iterator[ModuleType]:
    sys.path.insert(0, str(CODE / "bench"))
    yield importlib.import_module("plain")
    sys.path.remove(str(CODE / "bench"))


def test_one_command_measures_every_row_and_writes_both_files(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, str(CODE / "bench/speed.py"), "--smoke", "--rounds",
                             "1", "--results", str(tmp_path)], capture_output=True, text=True,
                            check=False, cwd="/")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "speed-cpu.json").read_text())
    table = (tmp_path / "speed-cpu.md").read_text()
    rows = {row["what"]: row for row in content["rows"]}
    wanted = ["one process", "pool of 2", "peak memory", "rotation", "rpl", "jigsaw", "exemplar",
              "batch of 4 assembled", "its memory", "Dice bookkeeping", "281 volumes",
              "photographs", "exp.py", "graph.py", "step, finetune", "step, pretext rotation",
              "step, pretext rpl", "step, pretext jigsaw", "step, pretext exemplar",
              "DenseNet-121", "one seed, all epochs", "one seed, each pretraining stopped",
              "share of a finetuning run", "share of a pretraining run", "6 generated scans",
              "8 generated scans", "time a scan", "own memory"]
    for words in wanted:
        assert any(words in what for what in rows), words
        assert words in result.stdout and words in table
    for row in rows.values():
        assert row["ours"] > 0 and row["unit"] and row["what"] in table
        if row["plain"] is not None:
            assert row["ratio"] == pytest.approx(row["plain"] / row["ours"])
    step = next(row for what, row in rows.items() if "step, finetune" in what)
    assert step["details"]["flop"] == step["details"]["plain_flop"] > 0


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


def test_places_are_those_of_affine_grid() -> None:
    for space in ((5, 6, 7), (8, 9)):
        matrix = torch.randn(3, len(space), len(space), generator=generator(0, "matrix"))
        theta = torch.cat([matrix, torch.zeros(3, len(space), 1)], dim=2)
        expected = F.affine_grid(theta, [3, 1, *space], align_corners=False)
        assert torch.allclose(augment._places(matrix, space), expected, atol=1e-5)


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
