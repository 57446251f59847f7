"""Each pretext task asks what it says it asks: views and targets by hand, in both trees."""

import importlib
from itertools import product
from typing import Any

import pytest
import torch

from common.tasks import patches
from common.tasks.batches import generator
from common.tasks.contract import Batch
from common.tasks.siamese import Siamese

pretexts = {tree: importlib.import_module(f"{tree}.pretext") for tree in ("3d", "2d")}


def numbered(count: int, *space: int) -> Batch:
    """Images in which every pixel has its own number, and every case its own thousands."""
    size = torch.tensor(space).prod()
    image = torch.arange(float(size)).view(1, 1, *space)
    cases = (torch.arange(count) * float(size)).view(-1, 1, *(1,) * len(space))
    return Batch(image + cases, None, list(range(count)))


def firsts(views: torch.Tensor) -> torch.Tensor:
    """The first pixel of every view: where it was cut."""
    return views.flatten(2)[..., 0]


@pytest.mark.parametrize("count", [64])
def test_a_volume_is_turned_as_its_target_says(count: int) -> None:
    batch = numbered(count, 3, 3, 3)
    task = pretexts["3d"].Rotation(3)
    views, targets = task.prepare(batch, generator(0, "r"), training=True)
    assert set(targets.tolist()) == set(range(10)) and task.chance == {"accuracy": 0.1}
    planes = [(-3, -2), (-3, -1), (-2, -1)]
    for image, view, target in zip(batch.images, views[:, 0], targets.tolist(), strict=True):
        turned = image if target == 0 else torch.rot90(image, (target - 1) % 3 + 1,
                                                       planes[(target - 1) // 3])
        assert torch.equal(view, turned)


def test_every_turn_is_that_of_torch_in_its_plane() -> None:
    for dimensions, space in ((2, (4, 4)), (3, (4, 4, 4))):
        image = torch.rand(2, *space)
        for k, plane in patches.quarter_turns(dimensions):
            assert torch.equal(patches.turn(image, (k, plane)), torch.rot90(image, k, plane))


@pytest.mark.parametrize(("tree", "space"), [("3d", (36,) * 3), ("2d", (96,) * 2)])
@pytest.mark.parametrize("name", ["rpl", "jigsaw"])
def test_patches_move_in_training_each_by_itself_and_stay_in_their_cell(
        tree: str, space: tuple[int, ...], name: str) -> None:
    task: Any = pretexts[tree].PRETEXTS[name](space[0])
    batch = numbered(40, *space)
    own = torch.arange(40)[:, None] * torch.tensor(space).prod()
    views, _ = task.prepare(batch, generator(0, "m"), training=True)
    corner = (firsts(views) - own).long()
    places = torch.stack([corner // space[0]**power % space[0]
                          for power in reversed(range(len(space)))], dim=-1)  # (B, V, d)
    offsets = places % task.grid.cell
    assert (places + task.grid.patch <= space[0]).all()
    assert set(offsets.unique().tolist()) == set(range(task.grid.jitter + 1))
    for one in (offsets.flatten(0, 1)[:, 0] - offsets.flatten(0, 1)[:, 1],  # axes
                offsets[:, 0, 0] - offsets[:, 1, 0]):                       # patches
        assert len(one.unique()) > 1
    fixed, _ = task.prepare(batch, generator(0, "m"), training=False)
    still = (firsts(fixed) - own).long() % space[0] % task.grid.cell
    assert (still == task.grid.jitter // 2).all()


@pytest.mark.parametrize(("tree", "space"), [("3d", (36,) * 3), ("2d", (96,) * 2)])
def test_rpl_shows_the_centre_first_and_the_place_it_asks_for_second(
        tree: str, space: tuple[int, ...]) -> None:
    task: Any = pretexts[tree].PRETEXTS["rpl"](space[0])
    cells = list(product(range(3), repeat=len(space)))
    others = [cell for cell in cells if cell != (1,) * len(space)]
    batch = numbered(200, *space)
    views, targets = task.prepare(batch, generator(0, "p"), training=False)
    shift, side = task.grid.jitter // 2, space[0]
    for case, target in enumerate(targets.tolist()):
        for view, cell in zip(views[case, :, 0], [(1,) * len(space), others[target]], strict=True):
            low = [c * (side // 3) + shift for c in cell]
            window = tuple(slice(a, a + task.side) for a in low)
            assert torch.equal(view, batch.images[case, 0][window])
    assert set(targets.tolist()) == set(range(len(others)))


@pytest.mark.parametrize("tree", ["3d", "2d"])
def test_jigsaw_has_the_same_hundred_puzzles_for_every_seed(tree: str) -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(pretexts[tree].Jigsaw(96).permutations)
    assert torch.equal(*made) and len(made[0].unique(dim=0)) == 100


@pytest.mark.parametrize("length", [3, 4])
def test_the_identity_is_no_puzzle_even_where_few_orders_exist(length: int) -> None:
    count = {3: 5, 4: 20}[length]  # all but the identity; most others
    for seed in range(5):
        chosen = patches.permutations(length, count, generator(seed, "p"), pool=500)
        assert len(chosen.unique(dim=0)) == count
        assert not (chosen == torch.arange(length)).all(1).any()


@pytest.mark.parametrize("tree", ["3d", "2d"])
def test_an_exemplars_anchor_is_changed_and_its_negative_any_other_case(tree: str) -> None:
    task = pretexts[tree].Exemplar(8)
    batch = Batch(torch.rand(4, 1, *(8,) * {"3d": 3, "2d": 2}[tree]), None, [0, 1, 2, 3])
    seen = set()
    for draw in range(60):
        views, other = task.prepare(batch, generator(draw, "e"), training=True)
        seen |= {(case, number) for case, number in enumerate(other.tolist())}
        assert torch.equal(views[:, 1], batch.images)
        assert draw or not torch.allclose(views[:, 0], batch.images)
    assert seen == {(a, b) for a in range(4) for b in range(4) if a != b}
    with pytest.raises(ValueError, match="2 different cases"):
        task.prepare(Batch(batch.images[:1], None, [0]), generator(0, "e"), training=True)


def test_the_triplet_loss_by_hand() -> None:
    task = pretexts["3d"].Exemplar(8)
    outputs = torch.zeros(3, 2, 1024)
    outputs[:, 0] = 0.5
    for case, away in enumerate((0.2, 0.6, 0.4)):
        outputs[case, 1] = 0.5 + away  # the originals, so far from every anchor at every place
    near, far = task.distances(outputs)
    assert near.tolist() == pytest.approx([0.04, 0.36, 0.16])  # mean of the squares
    other = torch.tensor([1, 2, 1])
    assert float(task.loss(outputs, other)) == pytest.approx(  # margin 1
        ((0.04 - 0.36 + 1) + (0.36 - 0.16 + 1) + (0.16 - 0.36 + 1)) / 3)
    assert task.score(outputs, other)["accuracy"].tolist() == [1.0, 0.0, 1.0]
    outputs[1, 1] = 3.5  # beyond the margin there is nothing to gain
    assert float(task.loss(outputs, other)) == pytest.approx((0 + (9 - 0.16 + 1) + 0) / 3)


def test_batches_are_those_of_the_paper_or_what_batchnorm_and_negatives_need() -> None:
    names = ("rotation", "rpl", "jigsaw", "exemplar", "cpc")
    for tree, sizes in (("3d", [4, 32, 8, 4, 1]), ("2d", [32, 32, 32, 16, 64])):
        assert [pretexts[tree].PRETEXTS[name](96).batch_size  # type: ignore[attr-defined]
                for name in names] == sizes


def test_chance_is_one_in_the_classes_or_a_coin() -> None:
    for tree, classes in (("3d", (10, 26, 100)), ("2d", (4, 8, 100))):
        found = [pretexts[tree].PRETEXTS[name](96).chance  # type: ignore[attr-defined]
                 for name in ("rotation", "rpl", "jigsaw", "exemplar", "cpc")]
        assert found == [{"accuracy": chance} for chance in (*(1 / n for n in classes), 0.5, 0.5)]


def test_captions_name_the_turn_and_the_place() -> None:
    targets = torch.tensor([0, 5, 9])
    turn = pretexts["3d"].Rotation(8)
    assert [turn.caption(targets, case) for case in range(3)] == [
        "not turned", "turned by 180\N{DEGREE SIGN} in the plane of axes 0 and 2",
        "turned by 270\N{DEGREE SIGN} in the plane of axes 1 and 2"]
    place = pretexts["2d"].RelativePatch(96)
    assert [place.caption(torch.tensor([0, 3, 4, 7]), case) for case in range(4)] == [
        f"the second lies at ({where})" for where in ("-1, -1", "0, -1", "0, +1", "+1, +1")]


def test_every_variant_is_scored_against_random_other_cases() -> None:
    outputs = torch.zeros(3, 2, 1024)
    outputs[:, 1] = torch.tensor([0.3, 0.2, 0.9])[:, None]  # distances of every anchor
    other = torch.tensor([2, 2, 0])                         # the first: nearer than the third
    for name in ("exemplar", "exemplar_hard", "exemplar_semihard"):
        score = pretexts["3d"].PRETEXTS[name](8).score(outputs, other)["accuracy"]
        assert score.tolist() == [1.0, 1.0, 0.0]


def test_an_exemplars_code_has_1024_numbers_between_0_and_1() -> None:
    codes = pretexts["3d"].Exemplar(8).head([6])(100 * torch.randn(3, 2, 6))
    assert codes.shape == (3, 2, 1024) and 0 <= codes.min() < 0.1 and 0.9 < codes.max() <= 1


def test_accuracy_is_the_share_of_classes_that_come_first() -> None:
    task = pretexts["2d"].Rotation(8)
    outputs = torch.tensor([[0.0, 3, 1, 2], [5, 0, 0, 0], [0, 0, 9, 1]])
    scores = {key: value.numpy()
              for key, value in task.score(outputs, torch.tensor([1, 0, 3])).items()}
    assert task.summarise(scores) == {"accuracy": pytest.approx(2 / 3)}


def test_the_head_gets_every_cases_views_in_their_order() -> None:
    class Ends(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, [0, -1]]
    task = pretexts["2d"].RelativePatch(96)
    views, _ = task.prepare(numbered(3, 96, 96), generator(0, "h"), training=True)
    features = Siamese(Ends(), task.head, views, stages=task.stages).features(views)
    assert features.shape == (3, 2, 2)
    assert torch.equal(features, torch.stack([firsts(views), views.flatten(2)[..., -1]], dim=2))


def test_bytes_become_numbers_from_zero_to_one() -> None:
    batch = Batch(torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8), None, [0])
    assert batch.images.flatten().tolist() == pytest.approx([0, 0.2, 1])
