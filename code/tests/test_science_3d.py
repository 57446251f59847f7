"""The numbers of the paper, its tasks' definitions, and defects of earlier codes."""

import importlib

import numpy as np
import pytest
import torch

from common.downstream.segmentation import Segmentation
from common.tasks import augment, patches
from common.tasks.batches import generator
from common.tasks.contract import Batch

model = importlib.import_module("3d.model")
pretext = importlib.import_module("3d.pretext")


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_the_networks_have_the_papers_parameter_counts() -> None:
    net = model.UNet(model.Encoder(1), 3)
    assert [parameters(x) for x in (net, net.encoder, net.decoder)] == [5647891, 3535440, 2112451]
    heads = {"rotation": (16384, 35671050), "rpl": (256, 3181594), "jigsaw": (256, 16364644),
             "exemplar": (16384, 16778240)}
    for name, (width, count) in heads.items():
        assert parameters(pretext.PRETEXTS[name](128).head([width])) == count


@pytest.mark.parametrize(("side", "code"), [(128, 4), (39, 1), (32, 1)])
def test_the_encoder_maps_volumes_and_patches(side: int, code: int) -> None:
    encoder = model.Encoder(1, 2).eval()  # two filters: the geometry is the same
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1, side, side, side)).shape == (1, 32, code, code, code)


def test_a_patch_encoder_loads_into_the_full_network() -> None:
    source, target = model.Encoder(1, 4, 2), model.UNet(model.Encoder(1, 4, 2), 3)
    result = target.encoder.load_state_dict(source.state_dict(), strict=True)
    assert not result.missing_keys and not result.unexpected_keys


def test_the_ten_rotations_differ_and_each_has_its_inverse() -> None:
    turns = patches.quarter_turns(3)
    cube = torch.arange(27).view(3, 3, 3)
    turned = [patches.turn(cube, which) for which in turns]
    assert len(turns) == 10 and len({tuple(t.flatten().tolist()) for t in turned}) == 10
    for (k, plane), result in zip(turns, turned, strict=True):
        assert torch.equal(patches.turn(result, ((4 - k) % 4, plane)), cube)


@pytest.mark.parametrize(("length", "distance"), [(27, 24), (9, 6)])
def test_permutations_are_far_apart(length: int, distance: int) -> None:
    chosen = patches.permutations(length, 100, generator(0, "p"))
    apart = (chosen[:, None] != chosen[None]).sum(2) + length * torch.eye(100, dtype=torch.int64)
    assert int(apart.min()) >= distance
    assert torch.equal(chosen.sort(1).values, torch.arange(length).repeat(100, 1))
    assert not (chosen == torch.arange(length)).all(1).any()  # no identity


def test_patches_stay_in_their_cells_and_are_centred_in_evaluation() -> None:
    grid = patches.Grid(128, 3, 3, 3)
    assert (grid.cell, grid.patch) == (42, 39)
    corners = torch.cat([grid.corners(50, generator(0, "c"), training=True)])
    offset = corners - grid.cells * 42
    assert int(offset.min()) == 0 and int(offset.max()) == 3
    fixed = grid.corners(2, generator(0, "c"), training=False) - grid.cells * 42
    assert (fixed == 1).all()


def test_rpl_reaches_every_place_but_the_centre_and_cuts_the_right_cell() -> None:
    task = pretext.RelativePatch(36)
    images = torch.arange(36.0**3).view(1, 1, 36, 36, 36).repeat(64, 1, 1, 1, 1)
    batch = Batch(images, None, list(range(64)))
    seen = set()
    for draw in range(6):
        views, targets = task.prepare(batch, generator(draw, "r"), training=False)
        seen |= set(targets.tolist())
        place = targets + (targets >= 13)
        low = task.grid.cells[place] * 12  # jitter 1, centred: offset 0
        expected = low[:, 0] * 36**2 + low[:, 1] * 36 + low[:, 2]
        assert torch.equal(views[:, 1, 0, 0, 0, 0], expected.float())
        assert (views[:, 0, 0, 0, 0, 0] == 12 * (36**2 + 36 + 1)).all()
    assert seen == set(range(26))


def test_jigsaw_shuffles_by_the_permutation_it_asks_for() -> None:
    task = pretext.Jigsaw(36)
    images = torch.arange(36.0**3).view(1, 1, 36, 36, 36).repeat(4, 1, 1, 1, 1)
    views, targets = task.prepare(Batch(images, None, [0, 1, 2, 3]), generator(0, "j"),
                                  training=False)
    corners = task.grid.corners(1, generator(0, "j"), training=False)[0]
    first = (corners * torch.tensor([36**2, 36, 1])).sum(1)
    for case, target in enumerate(targets.tolist()):
        assert torch.equal(views[case, :, 0, 0, 0, 0], first[task.permutations[target]].float())
    assert len(task.permutations) == 100  # a single permutation would teach nothing


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_an_exemplars_negative_is_never_its_own_case(count: int) -> None:
    task = pretext.Exemplar(8)
    batch = Batch(torch.rand(count, 1, 8, 8, 8), None, list(range(count)))
    for draw in range(20):
        views, negative = task.prepare(batch, generator(draw, "e"), training=True)
        assert (negative != torch.arange(count)).all()
        assert torch.equal(views[:, 1], batch.images)  # the positive is the original


def test_the_triplet_loss_is_one_where_all_codes_agree() -> None:
    task = pretext.Exemplar(8)
    assert float(task.loss(torch.full((3, 2, 1024), 0.3), torch.tensor([1, 2, 0]))) == 1.0
    outputs = torch.zeros(2, 2, 1024)
    outputs[1, 1, :512] = 1.0  # positive of case 1: half the code away
    near, far = task.distances(outputs)
    assert near.tolist() == [0.0, 0.5]  # mean, not norm
    assert task.negatives(near, far, torch.tensor([1, 0])).tolist() == [0.5, 0.0]
    assert torch.isinf(far.diagonal()).all()  # never its own


def test_mined_negatives_are_the_nearest_and_the_nearest_beyond_the_original() -> None:
    near = torch.tensor([0.2, 0.2, 0.9])
    inf = float("inf")
    far = torch.tensor([[inf, 0.1, 0.3], [0.5, inf, 0.4], [0.1, 0.3, inf]])
    other = torch.tensor([1, 2, 0])
    chosen = {name: pretext.PRETEXTS[name](8).negatives(near, far, other).tolist()
              for name in ("exemplar_hard", "exemplar_semihard")}
    assert chosen["exemplar_hard"] == pytest.approx([0.1, 0.4, 0.1])
    assert chosen["exemplar_semihard"] == pytest.approx([0.3, 0.4, 0.3])  # none beyond .9: farthest


def test_upright_exemplars_keep_left_and_right() -> None:
    task = pretext.ExemplarUpright(16)
    side = torch.zeros(8, 1, 16, 16, 16)
    side[..., 2:5] = 1.0  # a slab near one end of the last axis
    for draw in range(5):
        views, _ = task.prepare(Batch(side, None, list(range(8))), generator(draw, "u"),
                                training=True)
        anchor = views[:, 0, 0]
        assert (anchor[..., :8].sum((1, 2, 3)) > anchor[..., 8:].sum((1, 2, 3))).all()


def test_resampling_by_a_quarter_turn_and_flip_is_exact() -> None:
    image = torch.rand(1, 1, 6, 6, 6)
    turned = augment.resample(image, augment.rotations(torch.tensor([np.pi / 2]), (0, 1), 3))
    same = [torch.allclose(turned, torch.rot90(image, k, plane), atol=1e-5)
            for k in (1, 3) for plane in ((-1, -2), (-2, -3), (-1, -3))]
    assert any(same)
    assert torch.allclose(augment.resample(image, augment.identity(1, 3)), image, atol=1e-5)


def test_soft_dice_and_the_reported_figures_by_hand() -> None:
    task = Segmentation(["background", "a", "b"])
    truth = torch.zeros(2, 4, 4, 4, dtype=torch.int64)
    truth[0, :2] = 1
    truth[1, :1] = 1
    truth[1, 2:3] = 2
    perfect = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1) * 200.0
    assert float(task.loss(perfect, truth)) < 1e-3
    scores = {k: v.numpy() for k, v in task.score(perfect, truth).items()}
    figures = task.summarise(scores)
    assert figures["dice"] == figures["dice_a"] == figures["dice_b"] == 1.0
    cases = task.cases(scores)
    assert cases[0]["dice_b"] is None and cases[1]["dice_b"] == 1.0  # absent: not counted
    background = torch.zeros(2, 3, 4, 4, 4)
    background[:, 0] = 1
    figures = task.summarise({k: v.numpy() for k, v in task.score(background, truth).items()})
    assert figures["dice"] == 0.0 and 0.2 < figures["dice_paper"] < 1 / 3  # missed classes: 0


def test_dropout_and_batchnorm_are_those_of_the_official_code() -> None:
    net = model.UNet(model.Encoder(1), 3)
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.1)} and len(norms) == 18
    assert {m.p for m in net.modules() if isinstance(m, torch.nn.Dropout)} == {0.5}
