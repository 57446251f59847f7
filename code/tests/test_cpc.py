"""Contrastive predictive coding: grid, context, negatives and the loss, by hand."""

import importlib
import math

import pytest
import torch

from common.tasks import cpc
from common.tasks.batches import generator
from common.tasks.contract import Batch

pretext3d = importlib.import_module("3d.pretext")
pretext2d = importlib.import_module("2d.pretext")


def test_sizes_are_those_of_the_paper() -> None:
    volume, image = pretext3d.PRETEXTS["cpc"](128), pretext2d.PRETEXTS["cpc"](224)
    assert (volume.grid.patch, volume.crop, volume.side, volume.columns) == (32, 28, 32, 16)
    assert (image.grid.patch, image.crop, image.side, image.columns) == (74, 67, 67, 5)
    last = image.grid.cells[-1] * image.grid.cell + image.grid.patch
    assert last.max() <= 224  # the last patch stays inside the image
    assert volume.around.shape == (16, 9) and image.around.shape == (5, 3)  # with row 1: 10 and 4


def test_context_is_mirrored_in_3d_and_empty_beyond_the_grid_in_2d() -> None:
    mirrored = cpc.neighbours(4, 2, mirror=True)
    assert mirrored[0].tolist() == [5, 4, 5, 1, 0, 1, 5, 4, 5]  # the corner's own is in the middle
    assert mirrored[5].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert cpc.neighbours(5, 1, mirror=False).tolist() == [
        [5, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_views_are_the_cropped_patches_in_order_rows_first() -> None:
    task = pretext3d.PRETEXTS["cpc"](16)  # patches of 4, crops of 4: 28/32 of 4 is 3.5
    place = torch.arange(16.0)
    volume = (place[:, None, None] * 256 + place[:, None] * 16 + place)[None, None]
    views, _ = task.prepare(Batch(volume, None, [0]), generator(0, "v"), training=False)
    assert views.shape == (1, 64, 1, 4, 4, 4)
    assert torch.equal(views[0, 0, 0], volume[0, 0, :4, :4, :4])
    assert torch.equal(views[0, 16, 0], volume[0, 0, 4:8, :4, :4])  # the second row's first
    assert torch.equal(views[0, 1, 0], volume[0, 0, :4, :4, 4:8])


def test_crops_are_filled_up_with_zeros_in_3d() -> None:
    task = pretext3d.PRETEXTS["cpc"](32)  # patches of 8, crops of 7
    views, _ = task.prepare(Batch(torch.ones(2, 1, 32, 32, 32), None, [0, 1]), generator(0, "z"),
                            training=True)
    assert views.shape[-3:] == (8, 8, 8) and float(views.sum()) == 2 * 64 * 7**3


@pytest.mark.parametrize("count", [1, 2, 5])
def test_negatives_are_other_columns_of_the_same_volume(count: int) -> None:
    task = pretext3d.PRETEXTS["cpc"](32)
    for draw in range(10):
        _, negative = task.prepare(Batch(torch.zeros(count, 1, 32, 32, 32), None,
                                         list(range(count))), generator(draw, "n"), training=True)
        own = torch.arange(count * 16).view(count, 16)
        assert (negative != own).all() and (negative // 16 == own // 16).all()


def test_negatives_are_other_columns_of_any_image_of_the_batch() -> None:
    task = pretext2d.PRETEXTS["cpc"](48)
    seen = set()
    for draw in range(40):
        _, negative = task.prepare(Batch(torch.zeros(2, 3, 48, 48), None, [0, 1]),
                                   generator(draw, "n"), training=True)
        assert (negative != torch.arange(10).view(2, 5)).all()
        seen |= set(negative[0].tolist())
    assert seen == set(range(10))  # of both images; its own number is another column's negative


def test_sixteen_pairs_of_each_kind_and_an_untrained_loss_of_a_guess() -> None:
    torch.manual_seed(0)
    task = pretext3d.PRETEXTS["cpc"](64)
    head = task.head([64])
    outputs = tuple(part.detach() for part in head(torch.randn(2, 64, 64)))
    negative = task._negatives(2, generator(0, "l"))
    own, other = task.logits(outputs, negative)
    assert own.shape == other.shape == (2, 16)
    assert float(task.loss(outputs, negative)) == pytest.approx(math.log(2), abs=0.05)
    assert task.guess == math.log(2)


def test_a_prediction_is_told_from_another_column_by_its_own_code() -> None:
    task = pretext3d.PRETEXTS["cpc"](64)
    codes = torch.zeros(1, 16, 2, cpc.CODE)
    for column in range(16):
        codes[0, column] = -1.0
        codes[0, column, :, column::16] = 20.0
    negative = task._negatives(1, generator(0, "o"))
    outputs = (codes.clone(), codes)
    own, other = task.logits(outputs, negative)
    assert (own > other).all()
    assert float(task.loss((torch.zeros_like(codes), codes), negative)) == pytest.approx(
        math.log(2))


def test_the_head_uses_every_row_it_should() -> None:
    """Row 0 around the column and its own row 1 reach the prediction; rows below do not."""
    torch.manual_seed(0)
    task = pretext3d.PRETEXTS["cpc"](64)
    head = task.head([8])
    features = torch.randn(1, 64, 8, requires_grad=True)
    predicted, codes = head(features)
    grad, = torch.autograd.grad(predicted[0, 5].sum(), features, retain_graph=True)
    used = grad[0].abs().sum(1).nonzero().flatten().tolist()
    assert used == [0, 1, 2, 4, 5, 6, 8, 9, 10, 16 + 5]
    grad, = torch.autograd.grad(codes[0, 5].sum(), features)
    assert grad[0].abs().sum(1).nonzero().flatten().tolist() == [32 + 5, 48 + 5]


@pytest.mark.parametrize(("tree", "rows", "columns"), [("3d", 4, 16), ("2d", 5, 5)])
def test_the_head_is_a_gru_over_the_context_and_a_layer_for_each_row_below(
        tree: str, rows: int, columns: int) -> None:
    torch.manual_seed(0)
    task = {"3d": pretext3d.PRETEXTS["cpc"](64), "2d": pretext2d.PRETEXTS["cpc"](96)}[tree]
    head = task.head([6])
    assert (cpc.CODE, cpc.HIDDEN, cpc.AHEAD) == (1024, 256, 2)  # official code
    features = torch.randn(1, rows * columns, 6)
    predicted, codes = head(features)
    code = head.code(features)[0].unflatten(0, (rows, columns))
    for column in range(columns):
        if tree == "3d":
            i, j = divmod(column, 4)
            mirror = {-1: 1, 4: 2}
            around = [code[0, 4 * mirror.get(i + a, i + a) + mirror.get(j + b, j + b)]
                      for a in (-1, 0, 1) for b in (-1, 0, 1)]
        else:
            around = [code[0, column + a] if 0 <= column + a < 5 else torch.zeros(1024)
                      for a in (-1, 0, 1)]
        _, state = head.context(torch.stack([*around, code[1, column]])[None])
        for ahead in (0, 1):
            expected = head.predict[ahead](state[0, 0])
            assert torch.allclose(predicted[0, column, ahead], expected, atol=1e-5)
            assert torch.equal(codes[0, column, ahead], code[rows - 2 + ahead, column])


def test_a_logit_is_the_mean_product_and_the_loss_pulls_the_own_pair_up() -> None:
    task = pretext2d.PRETEXTS["cpc"](48)
    predicted = torch.full((1, 5, 2, cpc.CODE), 2.0)
    codes = torch.full((1, 5, 2, cpc.CODE), 1.5)
    codes[0, 1] = -0.5
    negative = torch.tensor([[1, 0, 0, 0, 1]])
    own, other = task.logits((predicted, codes), negative)
    assert own[0].tolist() == [3, -1, 3, 3, 3] and other[0].tolist() == [-1, 3, 3, 3, -1]
    down, up = math.log1p(math.exp(-1)), math.log1p(math.exp(-3))  # log(1 + e^-x)
    loss = ((4 * up + (1 + down)) / 5 + (2 * down + 3 * (3 + up)) / 5) / 2
    assert float(task.loss((predicted, codes), negative)) == pytest.approx(loss, rel=1e-5)
    scores = task.score((predicted, codes), negative)["accuracy"]
    assert scores.tolist() == pytest.approx([(4 / 5 + 2 / 5) / 2])


def test_crops_lie_anywhere_in_their_patch_in_training_and_in_the_middle_else() -> None:
    task = pretext2d.PRETEXTS["cpc"](224)
    side = torch.arange(224.0)
    image = (side[:, None] * 224 + side).expand(12, 1, 224, 224)
    batch = Batch(image, None, list(range(12)))
    spare = task.grid.patch - task.crop
    assert spare == 7 and task.fill == 0
    corners = task.grid.cells * task.grid.cell
    for training in (True, False):
        views, _ = task.prepare(batch, generator(0, "c"), training=training)
        assert views.shape[2:] == (1, task.crop, task.crop)
        first = views[:, :, 0, 0, 0].long()
        inside = torch.stack([first // 224, first % 224], dim=2) - corners  # (B, V, 2)
        expected = set(range(spare + 1)) if training else {spare // 2}
        assert set(inside.unique().tolist()) == expected
        if training:
            assert len((inside[..., 0] - inside[..., 1]).unique()) > 2  # each axis by itself


def test_a_crop_of_a_volume_lies_amid_zeros() -> None:
    task = pretext3d.PRETEXTS["cpc"](64)  # patches of 16, crops of 14: a zero on every side
    views, _ = task.prepare(Batch(torch.ones(1, 1, 64, 64, 64), None, [0]), generator(0, "z"),
                            training=True)
    assert views.shape[-3:] == (16, 16, 16)
    inner = torch.zeros(16, 16, 16)
    inner[1:15, 1:15, 1:15] = 1
    assert torch.equal(views[0, 7, 0], inner)
