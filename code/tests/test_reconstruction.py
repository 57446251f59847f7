"""Masked autoencoding, Models Genesis, VolumeFusion: what is spoilt, asked, scored and shown."""

import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.tasks import augment, heads, reconstruction, siamese
from common.tasks.batches import generator
from common.tasks.contract import Batch, Parts
from common.tasks.reconstruction import Genesis, MaskedAutoencoder, VolumeFusion

SPACES = [(32, 32, 32), (36, 36)]


def batch_of(count: int, *space: int) -> Batch:
    """Smooth images in 0..1 of different mean and contrast."""
    rng = generator(0, "images")
    small = torch.rand(count, 1, *(4,) * len(space), generator=rng)
    mode = {2: "bilinear", 3: "trilinear"}[len(space)]
    smooth = torch.nn.functional.interpolate(small, space, mode=mode, align_corners=True)
    scale = torch.linspace(0.3, 0.8, count).view(-1, *(1,) * (len(space) + 1))
    return Batch([*(smooth * scale + 0.1)], None, list(range(count)))


# Masked autoencoding.

@pytest.mark.parametrize("space", SPACES)
def test_three_quarters_of_the_cubes_show_the_mean_and_they_alone_count(
        space: tuple[int, ...]) -> None:
    task, batch = MaskedAutoencoder(space[0]), batch_of(3, *space)
    views, targets = task.prepare(batch, generator(0, "x"), training=False)
    wanted, guess, counted = targets.unbind(1)
    side = space[0] // 8
    cells = -(-space[0] // side)
    cubes = counted[(slice(None), slice(None), *(slice(None, None, side),) * len(space))]
    assert cubes.shape[2:] == (cells,) * len(space)
    assert cubes.flatten(1).mean(1).tolist() == pytest.approx(
        [round(0.75 * cells**len(space)) / cells**len(space)] * 3)
    grown = cubes
    for axis, length in enumerate(space, start=2):  # whole cubes, each all or nothing
        grown = grown.repeat_interleave(side, axis).narrow(axis, 0, length)
    assert torch.equal(grown, counted)
    images, over = batch.images, tuple(range(2, 2 + len(space)))
    mean = images.mean(over, keepdim=True)
    assert torch.equal(views[:, 0], torch.where(counted > 0, mean, images))
    assert torch.allclose(wanted.mean(over), torch.zeros(3, 1), atol=1e-4)
    assert torch.allclose(wanted.std(over), torch.ones(3, 1), atol=1e-4)
    best = [wanted[case][counted[case] == 1].mean().item() for case in range(3)]
    assert guess.flatten(1)[:, 0].tolist() == pytest.approx(best, abs=1e-4)
    assert (guess.flatten(1) == guess.flatten(1)[:, :1]).all()


def test_masks_differ_between_cases_and_draws() -> None:
    task, rng = MaskedAutoencoder(32), generator(0, "x")
    one, two = task.mask(2, torch.Size((32, 32, 32)), rng), task.mask(2, torch.Size((32,) * 3), rng)
    assert not torch.equal(one[0], one[1]) and not torch.equal(one, two)


@pytest.mark.parametrize("task", [MaskedAutoencoder(32), Genesis(32)])
def test_the_score_is_what_is_better_than_the_guess(task: reconstruction.Restoration) -> None:
    _, targets = task.prepare(batch_of(3, 32, 32, 32), generator(0, "x"), training=False)
    wanted, guess, counted = targets.unbind(1)

    def restored(answer: Tensor) -> float:
        scores = task.score(answer[:, None], targets)
        return float(task.summarise({key: value.numpy() for key, value in scores.items()})[
            "restored"])
    assert restored(wanted) == 1.0 and restored(guess) == pytest.approx(0.0, abs=1e-6)
    assert restored((wanted + guess) / 2) == pytest.approx(0.75, abs=1e-5)  # squared errors
    assert restored(guess + 2 * (guess - wanted)) < 0
    elsewhere = torch.where(counted > 0, wanted, torch.full_like(wanted, 9.0))
    assert restored(elsewhere) == 1.0  # what can be seen does not count
    assert task.loss(elsewhere[:, None], targets).item() == 0.0
    error = ((guess - wanted) ** 2 * counted).sum() / counted.sum()
    assert task.loss(guess[:, None], targets).item() == pytest.approx(error.item(), rel=1e-5)
    parts = [task.sums(guess[row:row + 1, None], targets[row:row + 1]) for row in range(3)]
    assert task.loss_of_sums(sum(parts, start=torch.zeros(2))).item() == pytest.approx(
        error.item(), rel=1e-5)  # of ranks, added


def test_pictures_show_the_answer_in_the_units_of_the_image() -> None:
    task, batch = MaskedAutoencoder(32), batch_of(2, 32, 32, 32)
    views, targets = task.prepare(batch, generator(0, "x"), training=False)
    wanted, guess, counted = targets.unbind(1)
    shown, answered, right = task.pictures(views, guess[:, None], targets).unbind(1)
    assert torch.equal(shown, views[:, 0])
    assert torch.allclose(right, batch.images, atol=1e-4)
    assert torch.allclose(answered[counted == 0], batch.images[counted == 0], atol=1e-4)
    assert not torch.allclose(answered[counted > 0], batch.images[counted > 0], atol=0.02)


def test_in_training_views_are_mirrored_and_some_scaled_or_turned() -> None:
    task, image = MaskedAutoencoder(32), batch_of(1, 32, 32, 32).images
    images = image.expand(400, -1, -1, -1, -1)
    changed = task.changed(images[:200, :, ::4, ::4, ::4], generator(0, "x"))
    turns = [image[0, :, ::4, ::4, ::4].flip(axes) for axes in
             ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))]
    alike = torch.tensor([any(torch.allclose(one, turn, atol=1e-5) for turn in turns)
                          for one in changed])
    assert alike.float().mean().item() == pytest.approx(0.8 * 0.8, abs=0.1)


# Models Genesis.

@pytest.mark.parametrize("space", SPACES)
def test_places_are_exchanged_within_small_windows(space: tuple[int, ...]) -> None:
    image = torch.arange(math.prod(space)).float().view(1, *space)
    changed = reconstruction.exchanged(image, generator(1, "x"))
    assert torch.equal(changed.flatten().sort()[0], image.flatten()) and not torch.equal(
        changed, image)
    there = torch.stack(torch.meshgrid(*map(torch.arange, space), indexing="ij"))
    from_where = torch.stack([coordinate.flatten()[changed.flatten().long()]
                              for coordinate in there]).view(there.shape)
    assert int((from_where - there).abs().max()) < max(3, space[0] // 10 + 1)


def test_intensities_follow_a_monotone_curve_that_falls_half_of_the_time() -> None:
    image, rising = torch.linspace(0, 1, 500).view(1, 500), []
    for seed in range(200):
        curve = reconstruction.along_a_curve(image, generator(seed, "x"))[0]
        steps = curve.diff()
        assert bool((steps >= -1e-6).all()) or bool((steps <= 1e-6).all())
        assert {round(curve[0].item(), 3), round(curve[-1].item(), 3)} == {0.0, 1.0}
        rising.append(curve[0] < curve[-1])
    assert 70 < sum(rising) < 130
    beyond = reconstruction.along_a_curve(torch.tensor([[-0.5, 1.5]]), generator(0, "x"))
    assert sorted(beyond[0].tolist()) == pytest.approx([0.0, 1.0], abs=1e-4)


@pytest.mark.parametrize(("outside", "low", "high"), [(False, 0.004, 0.19), (True, 0.4, 0.93)])
def test_boxes_are_painted_over_or_all_but_boxes(outside: bool, low: float, high: float) -> None:
    shares = []
    for seed in range(40):
        image = torch.full((1, 28, 28, 28), 2.0)
        changed = reconstruction.painted(image, generator(seed, "x"), outside=outside)
        noise = changed[changed != 2.0]
        assert float(noise.min()) >= 0 and float(noise.max()) <= 1 and float(noise.std()) > 0.2
        shares.append(len(noise) / image.numel())
    assert low < min(shares) and max(shares) < high and len({*shares}) > 20


def test_genesis_asks_for_the_original_and_compares_with_leaving_it_as_it_is() -> None:
    task, batch = Genesis(32), batch_of(40, 16, 16, 16)
    views, targets = task.prepare(batch, generator(0, "x"), training=False)
    wanted, guess, counted = targets.unbind(1)
    assert torch.equal(wanted, batch.images) and torch.equal(guess, views[:, 0])
    assert bool((counted == 1).all())
    same = (views[:, 0] == wanted).flatten(1).all(1).float().mean()
    assert same < 0.1  # a half times a tenth times a tenth of them
    flipped, _ = task.prepare(batch, generator(0, "x"), training=True)
    assert not torch.equal(flipped, views)


# VolumeFusion.

def test_voxels_are_mixed_by_the_class_that_is_asked_for() -> None:
    task, batch = VolumeFusion(32), batch_of(4, 32, 32, 32)
    views, classes = task.prepare(batch, generator(0, "x"), training=False)
    a, b = batch.images, batch.images.roll(1, 0)
    alpha = classes[:, None] / 4
    assert torch.allclose(views[:, 0], alpha * a + (1 - alpha) * b, atol=1e-6)
    assert classes.dtype == torch.uint8 and sorted(classes.unique().tolist()) == [0, 1, 2, 3, 4]
    shares = classes.flatten().bincount(minlength=5) / classes.numel()
    assert float(shares.min()) > 0.03 and not torch.equal(classes[0], classes[1])
    with pytest.raises(ValueError, match="2 different cases"):
        task.prepare(batch_of(1, 16, 16, 16), generator(0, "x"), training=False)


def test_boxes_are_as_many_and_as_large_as_said() -> None:
    boxes = augment.random_boxes(500, torch.Size((32, 64)), (1 / 8, 5 / 8),
                                        generator(0, "x"))
    for axis, length in enumerate((32, 64)):
        sides = [box[axis].stop - box[axis].start for box in boxes]
        assert min(sides) == length // 8 and max(sides) == length * 5 // 8
        assert min(box[axis].start for box in boxes) == 0
        assert max(box[axis].stop for box in boxes) == length
    assert len(boxes) == 500


def test_its_score_is_the_mean_share_found_of_each_class_and_a_guess_gets_a_fifth() -> None:
    task = VolumeFusion(32)
    _, classes = task.prepare(batch_of(6, 32, 32, 32), generator(0, "x"), training=False)

    def score(answer: Tensor) -> float:
        logits = torch.nn.functional.one_hot(answer.long(), 5).movedim(-1, 1)[:, None].float()
        found = task.score(logits, classes)
        return float(task.summarise({key: value.numpy() for key, value in found.items()})[
            "balanced_accuracy"])
    assert score(classes) == 1.0
    for constant in (0, 3):
        assert score(torch.full_like(classes, constant)) == pytest.approx(
            task.chance["balanced_accuracy"])
    drawn = torch.randint(5, classes.shape, generator=generator(1, "x"))
    assert score(drawn) == pytest.approx(0.2, abs=0.01)


def test_its_loss_is_dice_and_cross_entropy() -> None:
    task = VolumeFusion(16)
    _, classes = task.prepare(batch_of(2, 16, 16, 16), generator(0, "x"), training=False)
    logits = torch.randn(2, 1, 5, 16, 16, 16, generator=generator(0, "y"))
    p = logits[:, 0].softmax(1)
    truth = torch.nn.functional.one_hot(classes.long(), 5).movedim(-1, 1)
    over = (0, 2, 3, 4)
    dice = 1 - (2 * (p * truth).sum(over) / (p + truth).sum(over)).mean()
    entropy = torch.nn.functional.cross_entropy(logits[:, 0], classes.long())
    assert task.loss(logits, classes).item() == pytest.approx((dice + entropy).item(), rel=1e-5)
    assert heads.overlaps(logits[:, 0], classes, cross_entropy=False).shape == (2, 5)


def test_its_pictures_are_shades_of_the_classes() -> None:
    task = VolumeFusion(16)
    views, classes = task.prepare(batch_of(2, 16, 16, 16), generator(0, "x"), training=False)
    logits = torch.nn.functional.one_hot(4 - classes.long(), 5).movedim(-1, 1)[:, None].float()
    shown, answered, wanted = task.pictures(views, logits, classes).unbind(1)
    assert torch.equal(shown, views[:, 0]) and torch.equal(wanted[:, 0], classes / 4)
    assert np.allclose(answered[:, 0], 1 - classes.numpy() / 4)


# SparK: what is hidden stays hidden.

def spark() -> tuple[Any, Any, Batch]:
    """A small DenseNet's network of the 2D task, the task, and a batch."""
    pretext, networks = (importlib.import_module(f"2d.{name}") for name in ("pretext", "model"))
    torch.manual_seed(0)
    encoder = networks.Encoder((1, 2, 1, 1), 8)
    images = torch.rand(3, 3, 96, 96, generator=generator(0, "images"))
    task, batch = pretext.PRETEXTS["mae"](96), Batch([*images], None, [0, 1, 2])
    views, _ = task.prepare(batch, generator(0, "x"), training=False)
    network = task.network(Parts(encoder, lambda outputs: networks.Decoder(encoder, outputs),
                                 lambda: encoder, views))
    return network, task, batch


def test_sixty_percent_of_the_blocks_are_hidden_in_2d() -> None:
    _, task, batch = spark()
    views, targets = task.prepare(batch, generator(0, "x"), training=False)
    assert views.shape == (3, 2, 3, 96, 96) and torch.equal(views[:, 1], 1 - targets[:, 2])
    assert [task.block(side) for side in (64, 96, 127, 128, 224)] == [8, 12, 15, 32, 32]
    hidden = task.mask(2, torch.Size((224, 224)), generator(0, "x")).float()
    coarse = F.adaptive_max_pool2d(1 - hidden, (7, 7))  # of the last map: as many are hidden there
    assert (coarse == 0).flatten(1).sum(1).tolist() == [round(0.6 * 49)] * 2
    blocks = views[:, 1, 0, ::12, ::12]
    assert blocks.flatten(1).sum(1).tolist() == [64 - 38] * 3


def test_what_is_hidden_reaches_no_map_at_any_stage_and_the_encoder_is_left_as_it_was() -> None:
    network, task, batch = spark()
    views, _ = task.prepare(batch, generator(0, "x"), training=False)
    seen = views[:, 1, :1]
    plain = network.encoder.eval()(batch.images)
    network.train()
    other = views.clone()
    other[:, 0] = torch.where(views[:, 1] > 0, views[:, 0], 7.0)
    assert torch.equal(network(views), network(other))
    with siamese.hidden(network.encoder, seen):
        maps = network.encoder.stages(views[:, 0] * seen)[:-1]
    first = network.encoder.features.conv0(views[:, 0] * seen)  # twice before, and this time
    inside = F.adaptive_max_pool2d(seen, first.shape[2:])[:, 0] > 0
    assert torch.allclose(network.encoder.features.norm0.running_mean,
                          (1 - 0.9**3) * first.movedim(1, -1)[inside].mean(0), atol=1e-5)
    for one in maps:
        there = F.adaptive_max_pool2d(seen, one.shape[2:]).expand_as(one)
        one = one.detach()
        assert not one[there == 0].any() and one[there == 1].any()
    assert float((F.adaptive_max_pool2d(seen, maps[0].shape[2:]) == 0).float().mean()) > 0.2
    for layer in network.encoder.modules():
        assert not layer._forward_hooks and "forward" not in vars(layer)
    fresh, _, _ = spark()
    fresh.encoder.eval()
    with siamese.hidden(fresh.encoder, torch.ones(3, 1, 96, 96)):
        assert torch.allclose(fresh.encoder(batch.images), plain, atol=1e-5)  # nothing is hidden


def test_norms_are_over_the_places_that_can_be_seen() -> None:
    layer = torch.nn.BatchNorm2d(2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.3, -0.1]))
    maps = torch.randn(3, 2, 6, 6, generator=generator(0, "maps"), requires_grad=True)
    seen = (torch.rand(3, 1, 6, 6, generator=generator(0, "seen")) < 0.4).float()
    normal = siamese.normalised(layer, maps, seen=seen)
    chosen = maps.movedim(1, -1)[seen[:, 0] > 0]  # (places, 2)
    right = F.batch_norm(chosen, None, None, layer.weight, layer.bias, training=True,
                         eps=layer.eps)
    assert torch.allclose(normal.movedim(1, -1)[seen[:, 0] > 0], right, atol=1e-5)
    assert float(normal.detach()[(seen == 0).expand_as(normal)].abs().max()) == 0
    assert torch.allclose(layer.running_mean, 0.1 * chosen.mean(0), atol=1e-6)
    assert torch.allclose(layer.running_var, 0.9 + 0.1 * chosen.var(0), atol=1e-5)
    normal.square().sum().backward()
    mine, maps.grad = maps.grad, None
    right.square().sum().backward()
    assert torch.allclose(mine, maps.grad, atol=1e-4)
    layer.eval()
    kept = siamese.normalised(layer, maps, seen=seen)
    assert torch.allclose(kept, layer(maps) * seen, atol=1e-6)
