"""Networks and heads are those of the paper's code: layers, their order, initial weights."""

import importlib
import math

import pytest
import torch
from torch import nn

from common.tasks import heads

volumes, images = (importlib.import_module(f"{tree}.model") for tree in ("3d", "2d"))


def glorot(weight: torch.Tensor, *, inputs: int, outputs: int) -> bool:
    """Uniform up to sqrt(6 / (inputs + outputs))."""
    weight = weight.detach()
    bound = math.sqrt(6 / (inputs + outputs))
    return (0.98 * bound < float(weight.abs().max()) <= bound + 1e-6
            and abs(float(weight.std()) - bound / 3**0.5) < 0.02 * bound)


def test_the_big_head_is_the_official_codes() -> None:
    head = heads.big_head(300, 10)
    kinds = [type(layer) for layer in head]
    half = [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout]
    assert kinds == [nn.Flatten, *half, *half, nn.Linear]
    dense = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in dense] == [
        (300, 2048), (2048, 1024), (1024, 10)]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert [layer.eps for layer in head if isinstance(layer, nn.BatchNorm1d)] == [1e-3, 1e-3]
    for layer in dense:
        assert glorot(layer.weight, inputs=layer.in_features, outputs=layer.out_features)
        assert not layer.bias.any()


def test_the_grading_head_is_the_official_codes() -> None:
    head = images.Grader(images.Encoder((1, 1, 1, 1), 8), 5).head
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout,
                                               nn.Linear]
    assert (head[0].out_features, head[2].eps, head[3].p, head[4].out_features) == (1024, 1e-3,
                                                                                    0.5, 5)


def test_the_unets_blocks_are_the_official_codes() -> None:
    net = volumes.UNet(volumes.Encoder(1, 16, 2), 200)
    for part in (*net.encoder.blocks, *net.decoder.blocks):
        assert [type(layer) for layer in part if not isinstance(layer, nn.Dropout)] == [
            nn.Conv3d, nn.ReLU, nn.BatchNorm3d, nn.Conv3d, nn.ReLU, nn.BatchNorm3d]
        assert isinstance(part[3], nn.Dropout) and part[3].p == 0.5
        assert [(part[i].eps, part[i].momentum) for i in (2, 6)] == [(1e-3, 0.1)] * 2
        for i in (0, 4):
            weight = part[i].weight
            assert float(weight.detach().std()) == pytest.approx(  # he-normal
                math.sqrt(2 / weight[0].numel()), rel=0.1)
            assert not part[i].bias.any()
    for layer in net.decoder.ups:
        assert glorot(layer.weight, inputs=8 * layer.in_channels, outputs=8 * layer.out_channels)
    assert glorot(net.decoder.last.weight, inputs=16, outputs=200)


def test_dropout_drops_half_keeps_the_mean_and_leaves_evaluation_alone() -> None:
    layer = volumes.Halving(0.5)
    torch.manual_seed(0)
    maps = layer(torch.ones(3, 7, 11, 13, 5))
    assert set(maps.unique().tolist()) == {0.0, 2.0}
    assert float(maps.mean()) == pytest.approx(1, abs=0.03)
    assert not torch.equal(maps[0], maps[1])
    again = layer(torch.ones(3, 7, 11, 13, 5))
    assert not torch.equal(maps, again)
    assert torch.equal(layer.eval()(maps), maps)


def test_the_encoder_takes_the_largest_of_every_eight_after_every_block() -> None:
    encoder = volumes.Encoder(1, 2, 1).eval()
    first, bottleneck, code = encoder.stages(torch.rand(1, 1, 8, 8, 8))
    for maps, pooled in ((bottleneck, code), (first, None)):
        largest = maps.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).amax((5, 6, 7))
        assert torch.equal(largest, pooled) if pooled is not None else torch.equal(
            encoder.blocks[1](largest), bottleneck)


@pytest.mark.parametrize(("levels", "side"), [(1, 4), (2, 8), (4, 32)])
def test_the_smallest_volume_leaves_one_voxel(levels: int, side: int) -> None:
    assert volumes.smallest_input(levels) == side
    code = volumes.Encoder(1, 2, levels).eval()(torch.rand(1, 1, side, side, side))
    assert code.shape[2:] == (1, 1, 1)


def test_the_decoder_repeats_the_code_and_reads_every_skip() -> None:
    net = volumes.UNet(volumes.Encoder(1, 2, 2), 3).eval()
    stages = [stage.detach().requires_grad_() for stage in
              net.encoder.stages(torch.rand(1, 1, 16, 16, 16))]
    given: list[torch.Tensor] = []
    net.decoder.ups[0].register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    logits = net.decoder(stages)
    code = stages[-1]
    for axis in (2, 3, 4):
        code = code.repeat_interleave(2, axis)
    assert logits.shape == (1, 3, 16, 16, 16) and torch.equal(given[0], code)
    gradients = torch.autograd.grad(logits.square().sum(), stages, allow_unused=True)
    used = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    assert used == [True, True, False, True]  # the bottleneck is there by way of the code
