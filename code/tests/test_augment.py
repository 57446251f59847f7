"""What a view may differ in: the augmentations' geometry, ranges and shares, in both trees."""

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.tasks import augment
from common.tasks.batches import generator

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
wiring = importlib.import_module("wiring")
pretexts = {tree: importlib.import_module(f"{tree}.pretext") for tree in ("3d", "2d")}
MANY = 4000  # draws: shares are then known to .02


def eye(dimensions: int) -> torch.Tensor:
    return torch.eye(dimensions).expand(MANY, -1, -1)


def orthogonal(matrix: torch.Tensor) -> bool:
    return torch.allclose(matrix @ matrix.mT, eye(matrix.shape[1]), atol=1e-5)


def share(condition: torch.Tensor) -> float:
    return float(condition.double().mean())


def test_every_axis_is_scaled_by_its_own_factor_within_the_range() -> None:
    matrix = augment.zooms(MANY, 3, 0.8, 1.25, generator(0, "z"))
    factors = 1 / matrix.diagonal(dim1=1, dim2=2)
    assert float(factors.min()) == pytest.approx(0.8, abs=0.01)
    assert float(factors.max()) == pytest.approx(1.25, abs=0.01)
    assert float(torch.corrcoef(factors.T)[0, 1:].abs().max()) < 0.06
    assert torch.equal(matrix, torch.diag_embed(1 / factors))


def test_a_zoom_above_one_enlarges_and_below_one_leaves_black_around() -> None:
    image = torch.zeros(1, 1, 16, 16, 16)
    image[..., 4:12, 4:12, 4:12] = 1
    larger, smaller = (augment.resample(image, augment.zooms(1, 3, z, z, generator(0, "z")))
                       for z in (1.5, 0.5))
    assert float(larger.sum()) == pytest.approx(12**3, rel=0.05)
    assert float(smaller.sum()) == pytest.approx(4**3, rel=0.05)
    full = augment.resample(torch.ones(1, 1, 16, 16, 16),
                            augment.zooms(1, 3, 0.5, 0.5, generator(0, "z")))
    assert full[0, 0, 8, 8, 8] == 1 and (full[..., :3] == 0).all()


def test_resampling_is_linear() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    wider = augment.resample(ramp, augment.zooms(1, 2, 2.0, 2.0, generator(0, "z")))
    steps = wider[0, 0, 8].diff()
    assert torch.allclose(steps, torch.full_like(steps, 0.5), atol=1e-4)


@pytest.mark.parametrize("space", [(4, 6), (5, 4, 6)])
def test_sides_may_differ(space: tuple[int, ...]) -> None:
    image = torch.rand(1, 2, *space)
    d = len(space)
    assert torch.allclose(augment.resample(image, augment.identity(1, d)), image, atol=1e-5)
    for axis in range(d):  # matrices count axes from the last one backwards
        mirror = torch.eye(d)[None].clone()
        mirror[0, axis, axis] = -1
        assert torch.allclose(augment.resample(image, mirror), image.flip(-1 - axis), atol=1e-5)


def test_each_axis_is_mirrored_half_of_the_time() -> None:
    signs = augment.flips(MANY, 3, generator(0, "f")).diagonal(dim1=1, dim2=2)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert all(abs(share(signs[:, axis] < 0) - 0.5) < 0.04 for axis in range(3))


def test_rotations_are_rotations_by_their_angle_in_their_plane() -> None:
    angles = augment.uniform(MANY, -3.0, 3.0, generator(0, "a"))
    matrix = augment.rotations(angles, (0, 2), 3)
    assert orthogonal(matrix) and torch.allclose(matrix.det(), torch.ones(MANY), atol=1e-5)
    assert torch.allclose(matrix[:, 0, 0], angles.cos())
    assert torch.equal(matrix[:, 1], torch.tensor([0.0, 1.0, 0.0]).expand(MANY, 3))


def test_only_the_cases_that_chance_has_are_changed() -> None:
    matrix = augment.where(torch.tensor([True, False]), 2 * augment.identity(2, 3))
    assert torch.equal(matrix, torch.stack([2 * torch.eye(3), torch.eye(3)]))
    assert share(augment.chance(MANY, 0.15, generator(0, "c"))) == pytest.approx(0.15, abs=0.02)


def test_contrast_is_about_each_cases_own_mean_and_brightness_is_added() -> None:
    images = torch.rand(2, 1, 6, 6) * torch.tensor([0.2, 1.0])[:, None, None, None]
    means = images.mean((1, 2, 3))
    changed = augment.brightness_contrast(images, torch.tensor([0.1, 0.0]),
                                          torch.tensor([0.5, 2.0]))
    assert torch.allclose(changed.mean((1, 2, 3)), means + torch.tensor([0.1, 0.0]), atol=1e-6)
    assert torch.allclose(changed.std((1, 2, 3)), images.std((1, 2, 3)) * torch.tensor([0.5, 2.0]))


def drawn(tree: str, monkeypatch: pytest.MonkeyPatch, task: Any) -> tuple[torch.Tensor, ...]:
    """The matrix, brightness and contrast of many views of a task."""
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resample", lambda images, matrix: seen.append(matrix) or images)
    monkeypatch.setattr(augment, "brightness_contrast",
                        lambda images, *given: seen.extend(given) or images)
    task.augment(torch.zeros(MANY, 1, *(2,) * {"3d": 3, "2d": 2}[tree]), generator(0, "e"))
    return tuple(seen)


def test_volumes_of_an_exemplar_are_changed_as_in_the_paper(monkeypatch: pytest.MonkeyPatch
                                                            ) -> None:
    task = pretexts["3d"].Exemplar(8)
    matrix, brightness, contrast = drawn("3d", monkeypatch, task)
    zoomed = (matrix @ matrix.mT - eye(3)).abs().amax((1, 2)) > 1e-4
    assert share(zoomed) == pytest.approx(0.15, abs=0.03)
    factors = 1 / torch.linalg.svdvals(matrix[zoomed])
    assert 0.799 < float(factors.min()) < 0.82 and 1.18 < float(factors.max()) < 1.201
    changed = contrast != 1
    assert share(changed) == pytest.approx(0.5, abs=0.04)
    assert torch.equal(changed, brightness != 0)
    assert 0.12 < float(brightness.max()) <= 0.125 and -0.125 <= float(brightness.min()) < -0.12
    assert 0.5 <= float(contrast.min()) < 0.52 and 1.48 < float(contrast.max()) <= 1.5


def test_volumes_of_an_exemplar_are_flipped_and_rotated_in_every_plane() -> None:
    task = pretexts["3d"].Exemplar(8)
    matrix = task.turned(MANY, generator(0, "t"))
    assert orthogonal(matrix)
    assert share(matrix.det() < 0) == pytest.approx(0.5, abs=0.04)
    for axis in range(3):  # it stays where neither of the two planes it is in is turned: a quarter
        still = (matrix[:, axis, axis].abs() > 1 - 1e-6)
        assert 0.2 < share(still) < 0.45, axis  # a quarter, and turns by half
    angles = task.angles(MANY, generator(0, "a"))
    quarters = [share((angles - k * math.pi / 2).abs() < 1e-6) for k in range(4)]
    assert quarters == pytest.approx([0, 1 / 6, 1 / 6, 1 / 6], abs=0.03)
    anyhow = angles[(angles % (math.pi / 2)).abs() > 1e-6]
    counts = torch.histc(anyhow, 8, 0, 2 * math.pi)
    assert float(counts.min()) > 0.7 * float(counts.mean())  # any angle alike


def test_photographs_of_an_exemplar_are_changed_as_in_the_paper(monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    matrix, brightness, contrast = drawn("2d", monkeypatch, pretexts["2d"].Exemplar(8))
    kinds, counts = matrix.round(decimals=3).add(0.0).flatten(1).unique(dim=0, return_counts=True)
    assert len(kinds) == 8 and orthogonal(matrix)  # all turns and mirror images of a square
    assert set(kinds.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert float(counts.min()) > 0.8 * MANY / 8
    assert 0.19 < float(brightness.max()) <= 0.2 and -0.2 <= float(brightness.min()) < -0.19
    assert 0.8 <= float(contrast.min()) < 0.81 and 1.19 < float(contrast.max()) <= 1.2


@pytest.mark.parametrize("tree", ["3d", "2d"])
def test_upright_exemplars_turn_by_15_degrees_at_most(tree: str) -> None:
    matrix = pretexts[tree].ExemplarUpright(8).turned(MANY, generator(0, "u"))
    assert orthogonal(matrix) and torch.allclose(matrix.det(), torch.ones(MANY), atol=1e-5)
    angles = matrix[:, 0, 1].asin().rad2deg()
    for end in (float(angles.max()), -float(angles.min())):  # to either side
        assert 14 < end < (15.1 if tree == "2d" else 20)
    still = share((matrix - eye(matrix.shape[1])).abs().amax((1, 2)) < 1e-6)
    assert still == pytest.approx({"2d": 0, "3d": 1 / 8}[tree], abs=0.02)  # half in each plane
    assert float(matrix.diagonal(dim1=1, dim2=2).min()) > math.cos(math.radians(15)) ** 2 - 0.02


def test_patches_are_jittered_by_the_papers_numbers() -> None:
    for tree, side, moved in (("3d", 128, 3), ("2d", 224, 8), ("3d", 16, 1), ("2d", 16, 1)):
        grid = pretexts[tree].RelativePatch(side).grid
        assert side // 3 - grid.patch == moved


@pytest.mark.parametrize(("zoom", "flips"), [(0.15, "both"), (0.3, "none")])
def test_photographs_are_zoomed_both_ways_and_mirrored_only_if_asked(
        monkeypatch: pytest.MonkeyPatch, zoom: float, flips: str) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resample", lambda images, matrix: seen.append(matrix) or images)
    wiring.exp_of("2d").augmented(torch.zeros(3000, 3, 2, 2), generator(0, "a"), zoom=zoom,
                                  flips=flips, degrees=0.0, intensity=False)
    factors = 1 / seen[0].diagonal(dim1=1, dim2=2)
    assert float(factors.abs().min()) == pytest.approx(1 - zoom, abs=0.005)
    assert float(factors.abs().max()) == pytest.approx(1 + zoom, abs=0.005)
    assert float((factors < 0).double().mean()) == pytest.approx(
        0.5 * (flips == "both"), abs=0.04)
