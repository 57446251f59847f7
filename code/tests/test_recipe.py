"""The finetuning recipe: how the rate rises, the loss, what is changed of volumes, of starts."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_loop import RECIPE, Net, Watched, fitted
from torch.nn import functional as F

from common.downstream.segmentation import Segmentation
from common.runs.training import Fit
from common.tasks import augment
from common.tasks.batches import generator
from common.tasks.contract import Batch

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
wiring = importlib.import_module("wiring")
CLASSES = ["background", "a", "b"]
MANY = 3000


@pytest.mark.parametrize(("schedule", "ramp", "rates"), [
    ("constant", 0, [1, 1, 1, 1, 1, 1]), ("constant", 3, [0.25, 0.5, 0.75, 1, 1, 1]),
    ("cosine", 1, [0.5, 0.933, 0.75, 0.5, 0.25, 0.067])])
def test_the_rate_rises_over_the_ramp_in_every_group(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, ramp: int,
        rates: list[float]) -> None:
    seen: list[list[float]] = []
    real = Fit.step
    monkeypatch.setattr(Fit, "step", lambda self, *a: seen.append(
        [group["lr"] for group in self.optimiser.param_groups]) or real(self, *a))
    fitted(tmp_path, Watched(), replace(RECIPE, epochs=2, steps=3, schedule=schedule, ramp=ramp,
                                        start_lr_factor=0.1))
    assert [first for first, _ in seen] == pytest.approx([1e-3 * r for r in rates], abs=1e-6)
    assert [second for _, second in seen] == pytest.approx([1e-2 * r for r in rates], abs=1e-5)


def test_cross_entropy_is_added_to_soft_dice() -> None:
    rng = generator(0, "loss")
    outputs = torch.randn(2, 3, 4, 4, 4, generator=rng)
    targets = torch.randint(0, 3, (2, 4, 4, 4), generator=rng).to(torch.uint8)
    dice = Segmentation(CLASSES).loss(outputs, targets)
    both = Segmentation(CLASSES, cross_entropy=True)
    assert both.loss(outputs, targets) == pytest.approx(
        float(dice + F.cross_entropy(outputs, targets.long())), rel=1e-6)
    halves = [both.sums(outputs[i:i + 1], targets[i:i + 1]) for i in range(2)]  # of two ranks
    assert both.loss_of_sums(halves[0] + halves[1]) == pytest.approx(
        float(both.loss(outputs, targets)), rel=1e-6)
    sure = F.one_hot(targets.long(), 3).movedim(-1, 1) * 40.0 - 20
    assert float(both.loss(sure, targets)) == pytest.approx(0, abs=1e-4)


def test_only_training_volumes_are_changed_and_their_labels_go_along() -> None:
    seen = []
    task = Segmentation(CLASSES, lambda images, labels, rng: seen.append(1) or (
        images + 1, labels + 1))
    batch = Batch(torch.zeros(2, 1, 4, 4, 4), torch.zeros(2, 4, 4, 4, dtype=torch.uint8), [0, 1])
    images, labels = task.prepare(batch, generator(0, "x"), training=True)
    assert bool((images == 1).all() and (labels == 1).all()) and seen == [1]
    images, labels = task.prepare(batch, generator(0, "x"), training=False)
    assert not images.any() and not labels.any() and seen == [1]


def blob() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright box off the centre, which is what is labelled; two classes."""
    labels = torch.zeros(6, 24, 24, 24, dtype=torch.uint8)
    labels[:, 6:14, 8:18, 5:12] = 2
    return (labels > 0).float()[:, None], labels


def test_labels_follow_the_volume_by_nearest_neighbour() -> None:
    exp = wiring.exp_of("3d")
    images, labels = blob()
    moved, maps = exp.augmented(images, labels, generator(3, "a"), degrees=15.0, zoom=0.15,
                                share=1.0, intensity=False)
    assert maps.dtype == torch.uint8 and set(maps.unique().tolist()) == {0, 2}
    assert not torch.equal(maps, labels) and len({int(one.sum()) for one in maps}) > 1
    inside, outside = moved[:, 0] > 0.75, moved[:, 0] < 0.25
    assert bool((maps[inside] == 2).all()) and bool((maps[outside] == 0).all())
    same, still = exp.augmented(images, labels, generator(3, "a"), degrees=0.0, zoom=0.0,
                                share=1.0, intensity=False)
    assert torch.equal(same, images) and torch.equal(still, labels)


def test_volumes_are_turned_and_scaled_within_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resample_both", lambda images, labels, matrix: (
        seen.append(matrix) or images, labels))
    empty = torch.zeros(MANY, 1, 2, 2, 2), torch.zeros(MANY, 2, 2, 2, dtype=torch.uint8)
    exp = wiring.exp_of("3d")
    exp.augmented(*empty, generator(0, "a"), degrees=0.0, zoom=0.15, share=1.0,
                  intensity=False)
    factors = 1 / seen[0].diagonal(dim1=1, dim2=2)
    assert torch.allclose(factors[:, :1], factors)  # all axes alike
    assert float(factors.min()) == pytest.approx(0.85, abs=0.005)
    assert float(factors.max()) == pytest.approx(1.15, abs=0.005)
    exp.augmented(*empty, generator(0, "a"), degrees=15.0, zoom=0.0, share=1.0,
                  intensity=False)
    assert torch.allclose(seen[1] @ seen[1].mT, torch.eye(3).expand(MANY, 3, 3), atol=1e-5)
    angles = torch.rad2deg(torch.acos(((seen[1].diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
                                       ).clamp(-1, 1)))
    assert 20 < float(angles.max()) < 27 and float(angles.mean()) == pytest.approx(14, abs=1.5)
    exp.augmented(*empty, generator(0, "a"), degrees=0.0, zoom=0.0, share=1.0,
                  intensity=True)
    assert len(seen) == 2  # nothing is resampled that is not moved


def test_a_share_of_the_volumes_is_turned_and_another_scaled(monkeypatch: pytest.MonkeyPatch
                                                              ) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resample_both", lambda images, labels, matrix: (
        seen.append(matrix) or images, labels))
    empty = torch.zeros(MANY, 1, 2, 2, 2), torch.zeros(MANY, 2, 2, 2, dtype=torch.uint8)
    exp = wiring.exp_of("3d")
    exp.augmented(*empty, generator(0, "a"), degrees=15.0, zoom=0.15, share=0.3, intensity=False)
    scaled = (torch.linalg.det(seen[0]) - 1).abs() > 1e-4
    turned = (seen[0] - seen[0].mT).flatten(1).abs().amax(1) > 1e-4
    for one in (scaled, turned):
        assert float(one.double().mean()) == pytest.approx(0.3, abs=0.03)
    assert float((scaled & turned).double().mean()) == pytest.approx(0.09, abs=0.02)
    exp.augmented(*empty, generator(0, "a"), degrees=15.0, zoom=0.15, share=0.0, intensity=False)
    assert torch.equal(seen[1], torch.eye(3).expand(MANY, 3, 3))


def test_light_is_changed_for_a_share_of_the_volumes_and_labels_stay() -> None:
    images, labels = torch.full((MANY, 1, 2, 2, 2), 0.5), torch.ones(MANY, 2, 2, 2)
    changed, same = wiring.exp_of("3d").augmented(images, labels, generator(0, "l"), degrees=0.0,
                                                  zoom=0.0, share=1.0, intensity=True)
    assert torch.equal(same, labels)
    untouched = (changed == images).flatten(1).all(1)
    assert float(untouched.double().mean()) == pytest.approx((1 - augment.LIT) ** 3, abs=0.03)
    noisy = changed.flatten(1).std(1) > 1e-6  # of a flat volume; contrast does nothing to it
    assert float(noisy.double().mean()) == pytest.approx(augment.LIT, abs=0.03)
    assert 0.2 < float(changed.flatten(1).mean(1).min()) < 0.4 and 0.4 < float(changed.mean()) < 0.6


def test_noise_has_its_deviation_and_comes_from_the_generator_alone() -> None:
    images = torch.zeros(3, 1, 20, 20, 20)
    deviations = torch.tensor([0.0, 0.1, 0.5])
    first, again = (augment.noise(images, deviations, generator(5, "n")) for _ in range(2))
    assert torch.equal(first, again)
    assert first.flatten(1).std(1).tolist() == pytest.approx([0, 0.1, 0.5], rel=0.03)
    assert not torch.equal(first, augment.noise(images, deviations, generator(6, "n")))


def test_a_power_keeps_black_and_white() -> None:
    images = torch.tensor([-0.5, 0.0, 0.25, 1.0, 2.0]).view(1, 1, 5)
    found = augment.gamma(images, torch.tensor([0.5]))
    assert found.flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1])


@pytest.mark.parametrize(("flips", "axes"), [
    ("both", {(), (0,), (1,), (0, 1)}), ("horizontal", {(), (1,)}), ("vertical", {(), (0,)}),
    ("none", {()})])
def test_photographs_are_mirrored_on_the_axes_asked_for(flips: str, axes: set[object]) -> None:
    image = torch.arange(6.0).view(1, 1, 2, 3).repeat(60, 3, 1, 1)  # rows, then columns
    changed = wiring.exp_of("2d").augmented(image, generator(0, "f"), zoom=0.0, flips=flips,
                                            degrees=0.0, intensity=False)
    ways = {over: image[0].flip([1 + axis for axis in over])
            for over in ((), (0,), (1,), (0, 1))}
    found = {next(over for over, way in ways.items() if torch.allclose(one, way, atol=1e-4))
             for one in changed}
    assert found == axes


def test_photographs_are_turned_and_relit_within_the_range(
        monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(augment, "resample", lambda images, matrix: seen.append(matrix) or images)
    exp, images = wiring.exp_of("2d"), torch.rand(MANY, 3, 2, 2, generator=generator(1, "i"))
    same = exp.augmented(images, generator(0, "t"), zoom=0.0, flips="none", degrees=10.0,
                         intensity=False)
    angles = torch.rad2deg(torch.atan2(seen[0][:, 1, 0], seen[0][:, 0, 0]))
    assert float(angles.min()) == pytest.approx(-10, abs=0.1)
    assert float(angles.max()) == pytest.approx(10, abs=0.1)
    assert torch.equal(same, images)
    lit = exp.augmented(images, generator(0, "t"), zoom=0.0, flips="none", degrees=0.0,
                        intensity=True)
    moved = (lit.flatten(1).mean(1) - images.flatten(1).mean(1)).abs()
    assert float((moved > 1e-5).double().mean()) == pytest.approx(augment.LIT, abs=0.03)
    assert float(moved.max()) == pytest.approx(0.1, abs=0.002)
    spread = lit.flatten(1).std(1) / images.flatten(1).std(1)
    assert float(spread.min()) == pytest.approx(0.75, abs=0.01)
    assert float(spread.max()) == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize("dropout", [None, 0.0, 0.1])
def test_every_dropout_layer_has_the_recipes_share(dropout: float | None) -> None:
    net = wiring.exp_of("3d").model.UNet(wiring.exp_of("3d").model.Encoder(1, 2, 1), 3)
    layers = [module for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    Fit(net, Watched(), None, train=[0], val=[1],  # type: ignore[arg-type]
        run=None, recipe=replace(RECIPE, dropout=dropout))  # type: ignore[arg-type]
    assert len(layers) == 3
    assert {layer.p for layer in layers} == {0.5 if dropout is None else dropout}
    volumes = torch.rand(2, 4, 3, 3, 3)
    assert torch.equal(layers[0](volumes), volumes) == (dropout == 0)


@pytest.mark.parametrize("norm", ["train", "eval"])
def test_norm_of_what_was_handed_on(tmp_path: Path, norm: str) -> None:
    net = Net()
    _, layer, _ = net.encoder
    before = layer.running_mean.clone()
    seen: list[bool] = []
    layer.register_forward_hook(lambda *_: seen.append(layer.training) if net.training else None)
    fitted(tmp_path, Watched(), replace(RECIPE, start_norm=norm), net)
    assert {*seen} == {norm == "train"}
    assert torch.equal(layer.running_mean, before) == (norm == "eval")
