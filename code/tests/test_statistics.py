"""BatchNorm's running statistics: one set a kind of view, and those of whole images at the end."""

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from common.data.splits import Part
from common.runs import encoders
from common.settings import Settings
from common.tasks import joint
from common.tasks.batches import Cases, generator
from common.tasks.contract import Batch
from common.tasks.siamese import Siamese, batch_norms

model = importlib.import_module("3d.model")
pretexts = importlib.import_module("3d.pretext").PRETEXTS


def batch() -> Batch:
    return Batch(torch.rand(4, 1, 36, 36, 36, generator=generator(0, "j")), None, [0, 1, 2, 3])


def joined(name: str = "rotation+rpl") -> tuple[Any, Any, Siamese]:
    torch.manual_seed(0)
    task = joint.make(name, pretexts, 36)
    views, _ = task.prepare(batch(), generator(1, "j"), training=False)
    return task, views, Siamese(model.Encoder(1, 2, 1), task.head, views, stages=task.stages)


def test_each_kind_of_view_has_the_running_statistics_of_its_own() -> None:
    _, views, network = joined()
    single = [model.Encoder(1, 2, 1) for _ in views]
    for encoder, kind in zip(single, views, strict=True):
        encoder.load_state_dict(network.encoder.state_dict())
        for layer in (*encoder.modules(), *network.modules()):
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        encoder.train()
        encoder(kind.flatten(0, 1))
    network.train()
    network(views)
    assert torch.equal(network.encoder.state_dict()["blocks.0.2.running_mean"],
                       single[0].blocks[0][2].running_mean)
    own = network.statistics[0]
    for number, layer in enumerate(batch_norms(single[1])):
        for name in own.names:
            assert torch.equal(getattr(own, f"{name}_{number}"), getattr(layer, name))
    assert not torch.allclose(own.running_mean_0, single[0].blocks[0][2].running_mean)
    network.eval()
    single[1].eval()
    outputs = network(views)
    features = single[1](views[1].flatten(0, 1)).flatten(1).unflatten(0, views[1].shape[:2])
    assert torch.equal(outputs[1], network.head[1](features))


def test_their_sets_are_part_of_the_training_state() -> None:
    _, views, network = joined()
    network.train()
    network(views)
    _, _, again = joined()
    again.load_state_dict(network.state_dict())
    for one, other in zip(network.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert [len(net.statistics) for net in (network, joined("rotation@stages")[2])] == [1, 0]


@pytest.mark.parametrize("cases", [6, 40])
def test_the_encoder_leaves_with_the_statistics_of_whole_images(cases: int) -> None:
    torch.manual_seed(0)
    trained = model.Encoder(1, 2, 1)
    trained(7 * torch.rand(4, 1, 8, 8, 8))  # the views' statistics, which do not stay
    images = torch.rand(cases, 1, 8, 8, 8)
    ids = [str(number) for number in range(cases)]
    networks = SimpleNamespace(encoder=lambda: model.Encoder(1, 2, 1),
                               downstream=lambda encoder: model.UNet(encoder, 2))
    study: Any = SimpleNamespace(networks=networks, pool=lambda *_: ids, precision="float32",
                                 part=lambda seed: Part([], [], [], 0),
                                 settings=Settings(LAYOUT="contiguous"))
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    weights = {f"encoder.{name}": value for name, value in trained.state_dict().items()}
    weights = encoders.for_whole_images(study, weights,
                                        Cases(images, None, ids, torch.device("cpu")), 0)
    encoder = model.Encoder(1, 2, 1)
    encoder.load_state_dict({name.removeprefix("encoder."): value
                             for name, value in weights.items()})
    maps = F.relu(trained.blocks[0][0](images))
    found = encoder.blocks[0][2]
    assert torch.allclose(found.running_mean, maps.mean((0, 2, 3, 4)), rtol=0.02)
    assert torch.allclose(found.running_var, maps.var((0, 2, 3, 4)), rtol=0.05)
    maps = F.batch_norm(maps, None, None, found.weight, found.bias, training=True)
    maps = F.relu(trained.blocks[0][4](maps))  # no dropout between
    behind = encoder.blocks[0][6]
    assert torch.allclose(behind.running_mean, maps.mean((0, 2, 3, 4)), rtol=0.02)
    assert torch.allclose(behind.running_var, maps.var((0, 2, 3, 4)), rtol=0.05)
    for name, value in encoder.state_dict().items():
        assert torch.equal(trained.state_dict()[name], before[name])  # left as it was
        if "running" not in name and "tracked" not in name:
            assert torch.equal(value, before[name])
