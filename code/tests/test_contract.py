"""One test for every task of every tree: a new name in PRETEXTS is taken up by itself."""

import importlib
from typing import Any

import pytest
import torch

from common.tasks import joint
from common.tasks.batches import generator
from common.tasks.contract import Batch, Parts
from common.tasks.siamese import Nested, nested

TREES = {"3d": (3, 36, 1), "2d": (2, 96, 3)}  # spatial axes, a side that serves, channels
JOINT = ["rotation+rpl", "rotation@stages", "exemplar+cpc+jigsaw@stages"]
TASKS = [(tree, name) for tree in TREES
         for name in [*importlib.import_module(f"{tree}.pretext").PRETEXTS, *JOINT]]


def batch_of(tree: str, count: int = 3) -> Batch:
    dimensions, side, channels = TREES[tree]
    images = torch.rand(count, channels, *(side,) * dimensions, generator=generator(0, "images"))
    return Batch(images, None, list(range(count)))


def task_of(tree: str, name: str) -> Any:
    return joint.make(name, importlib.import_module(f"{tree}.pretext").PRETEXTS, TREES[tree][1])


def each(value: Nested) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def encoder_of(tree: str) -> torch.nn.Module:
    small = {"3d": (1, 4, 2), "2d": ((1, 1, 1, 1), 8)}[tree]
    encoder: torch.nn.Module = importlib.import_module(f"{tree}.model").Encoder(*small)
    return encoder


def parts_of(encoder: Any, views: Nested) -> Parts:
    """What a task's network is made of, as stages.py gives it."""
    networks = importlib.import_module(f"{'3d' if hasattr(encoder, 'blocks') else '2d'}.model")
    whole = networks.UNet if hasattr(networks, "UNet") else networks.Grader
    decoder = getattr(networks.Decoder, "of", networks.Decoder)
    return Parts(encoder, lambda outputs: decoder(encoder, outputs),
                 lambda: whole(encoder, 3), views)


@pytest.mark.parametrize(("tree", "name"), TASKS)
@pytest.mark.parametrize("training", [True, False])
def test_views_targets_and_scores_have_the_contracts_shapes(tree: str, name: str,
                                                            training: bool) -> None:
    task, batch, (dimensions, _, channels) = task_of(tree, name), batch_of(tree), TREES[tree]
    views, targets = task.prepare(batch, generator(0, "x"), training=training)
    for own, wanted in zip(each(views), each(targets), strict=True):
        assert own.shape[0] == 3 and own.shape[2] == channels and own.dim() == 3 + dimensions
        assert own.dtype == torch.float32 and wanted.shape[0] == 3
    assert min(own.shape[-1] for own in each(views)) == task.side
    encoder = encoder_of(tree)
    model = task.network(parts_of(encoder, views))
    outputs = model(views)
    loss = task.loss(outputs, targets)
    assert loss.shape == () and torch.isfinite(loss)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())  # nothing is thrown away
    scores = {key: value.detach().numpy()
              for key, value in task.score(outputs, targets).items()}
    assert all(len(value) == 3 for value in scores.values())
    assert set(task.chance) <= set(task.summarise(scores))
    assert task.name == name and task.monitor == "-loss" and task.batch_size >= 1


@pytest.mark.parametrize(("tree", "name"), TASKS)
def test_the_same_generator_gives_the_same_views_and_the_images_stay(tree: str, name: str) -> None:
    task, batch = task_of(tree, name), batch_of(tree)
    before = batch.images.clone()
    torch.manual_seed(1)
    first = task.prepare(batch, generator(5, "x"), training=True)
    torch.manual_seed(2)  # the global generator has no part in it
    second = task.prepare(batch, generator(5, "x"), training=True)
    other = task.prepare(batch, generator(6, "x"), training=True)
    for a, b, c in zip(*(each(views) for views, _ in (first, second, other)), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    for a, b in zip(each(first[1]), each(second[1]), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(batch.images, before)


@pytest.mark.parametrize(("tree", "name"), TASKS)
def test_an_encoder_learns_a_fixed_batch(tree: str, name: str) -> None:
    torch.manual_seed(0)
    task, batch = task_of(tree, name), batch_of(tree, 4)
    views, targets = task.prepare(batch, generator(0, "x"), training=True)
    encoder = encoder_of(tree)
    model = task.network(parts_of(encoder, views))
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(5):
        optimiser.zero_grad()
        loss = task.loss(model(views), targets)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0]


@pytest.mark.parametrize(("tree", "name"), TASKS)
def test_a_step_fetches_nothing_from_the_device(tree: str, name: str) -> None:
    # Tensors on "meta" have no values: whatever would wait for a GPU to read one fails here.
    task, meta = task_of(tree, name), torch.device("meta")
    batch = Batch(list(batch_of(tree).images.to(meta)), None, [0, 1, 2], meta)
    views, targets = task.prepare(batch, generator(0, "x"), training=True)
    encoder = encoder_of(tree)
    shapes = nested(lambda view: torch.zeros(view.shape), views)
    model = task.network(parts_of(encoder, shapes)).to(meta)
    loss = task.loss(model(views), targets)
    assert all(tensor.is_meta for tensor in (*each(views), *each(targets), loss))
    loss.backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
