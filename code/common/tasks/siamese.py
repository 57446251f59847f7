"""Networks of pretext tasks: an encoder shared by all views under a head, or with a decoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from common.machine import parallel

Nested = Any  # a Tensor or a tuple of Tensors
SPREADING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)  # layers that look beside a place


class Siamese(nn.Module):
    """One encoder shared by all views, under a head."""

    def __init__(self, encoder: nn.Module, head: Callable[[Nested], nn.Module], views: Nested, *,
                 stages: bool = False) -> None:
        """``head`` makes the head for the widths of features; ``views`` are of any few cases."""
        super().__init__()
        self.encoder = encoder
        self.stages = stages  # whether the head also gets the mean of every stage's map
        self.head = head(nested(self._widths, views))
        others = len(views) - 1 if isinstance(views, tuple) else 0
        self.statistics = nn.ModuleList(Statistics(encoder) for _ in range(others))

    def forward(self, views: Nested) -> Nested:
        """Encode every view, (B, V, C, *space), and pass the features (B, V, F) to the head.

        Of a tuple, the first uses the encoder's own running statistics, every other its own set.
        """
        if not isinstance(views, tuple):
            return self.head(self.features(views))
        features = [self.features(views[0])]
        for own, kind in zip(self.statistics, views[1:], strict=True):
            assert isinstance(own, Statistics)
            with own.within(self.encoder):
                features.append(self.features(kind))
        return self.head(tuple(features))

    def features(self, views: Tensor) -> Tensor:
        """The flattened code of every view, after the mean of each stage's map if asked for."""
        parts = self._parts(views.flatten(0, 1))
        return torch.cat(parts, dim=1).unflatten(0, views.shape[:2])  # (B * V, F) -> (B, V, F)

    def _parts(self, views: Tensor) -> list[Tensor]:
        if not self.stages:
            return [self.encoder(views).flatten(1)]
        assert callable(self.encoder.stages)
        *maps, code = self.encoder.stages(views)
        return [*(part.flatten(2).mean(2) for part in maps), code.flatten(1)]

    def _widths(self, views: Tensor) -> list[int]:
        """Features of each part of one view; leaves the encoder as it was."""
        training = self.encoder.training
        self.encoder.eval()
        with torch.no_grad():
            widths = [part.shape[1] for part in self._parts(views[:1, 0])]
        self.encoder.train(training)
        return widths


class Statistics(nn.Module):
    """BatchNorm's running statistics of an encoder for one kind of views, its weights shared.

    Patches and whole images differ in mean and spread. In training each batch is normalised by its
    own; one running mean of both fits neither, so that in evaluation a joint arm on the hippocampus
    got .08 of relative places right that with the batch's own statistics got .32, and .25 of the
    puzzles instead of .99. Source: the auxiliary BatchNorm of AdvProp (Xie et al. 2020, section 3).
    """

    names = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(batch_norms(encoder)):
            for name in self.names:
                self.register_buffer(f"{name}_{number}", getattr(layer, name).clone())

    @contextmanager
    def within(self, encoder: nn.Module) -> Iterator[None]:
        """Let these be the statistics that ``encoder`` uses and, in training, updates."""
        layers = batch_norms(encoder)
        kept = [[getattr(layer, name) for name in self.names] for layer in layers]
        for number, layer in enumerate(layers):
            for name in self.names:
                setattr(layer, name, getattr(self, f"{name}_{number}"))
        try:
            yield
        finally:
            for layer, values in zip(layers, kept, strict=True):
                for name, value in zip(self.names, values, strict=True):
                    setattr(layer, name, value)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers of a network, in its order."""
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def nested(function: Callable[[Tensor], Any], value: Nested) -> Nested:
    """Apply ``function`` to a tensor, or to each of a tuple."""
    return tuple(map(function, value)) if isinstance(value, tuple) else function(value)


class EncoderDecoder(nn.Module):
    """An encoder, and a decoder from its stages: views (B, 1, C, ...) -> (B, 1, outputs, ...).

    Its weights have the names that they have in a U-Net.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, views: Tensor) -> Tensor:
        """Decode what the encoder makes of every view."""
        assert callable(self.encoder.stages)
        outputs: Tensor = self.decoder(self.encoder.stages(views.flatten(0, 1)))
        if outputs.shape[2:] != views.shape[3:]:  # where halving has rounded a side
            outputs = F.interpolate(outputs, views.shape[3:], mode="nearest")
        return outputs.unflatten(0, views.shape[:2])


class Sparse(nn.Module):
    """An encoder of what can be seen, a decoder with a learnt code where nothing can; 2D.

    A convolution spreads what lies beside a hidden place into it, and BatchNorm counts it: after a
    few layers nothing is hidden any more, and the statistics are those of images full of holes. So
    every map is multiplied by what can be seen of its places, and BatchNorm takes its statistics
    over those. Source: SparK, Tian et al. 2023, here in dense arithmetic.
    Views (B, 2, C, H, W), images and what can be seen of them (1 or 0) -> (B, 1, outputs, H, W).
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        assert isinstance(encoder.width, int)
        self.token = nn.Parameter(torch.zeros(encoder.width, 1, 1))
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, views: Tensor) -> Tensor:
        """Answer for every place."""
        images, seen = views[:, 0], views[:, 1, :1]
        assert callable(self.encoder.stages)
        with hidden(self.encoder, seen):
            stages = self.encoder.stages(images * seen)
        there = at(seen, stages[-2])
        stages[-2] = stages[-2] * there + self.token * (1 - there)
        outputs: Tensor = self.decoder(stages)
        if outputs.shape[2:] != images.shape[2:]:  # where halving has rounded a side
            outputs = F.interpolate(outputs, images.shape[2:], mode="nearest")
        return outputs[:, None]


@contextmanager
def hidden(network: nn.Module, seen: Tensor) -> Iterator[None]:
    """Let a network see the places of ``seen`` (B, 1, H, W) alone."""
    hooks = [layer.register_forward_hook(lambda _, __, maps: maps * at(seen, maps))
             for layer in network.modules() if isinstance(layer, SPREADING)]
    norms = batch_norms(network)
    for layer in norms:
        layer.forward = partial(normalised, layer, seen=seen)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in norms:
            del layer.__dict__["forward"]


def at(seen: Tensor, maps: Tensor) -> Tensor:
    """What can be seen of the places of ``maps``: those of which any part can."""
    return F.adaptive_max_pool2d(seen, maps.shape[2:]).to(maps.dtype)


def normalised(layer: Any, maps: Tensor, *, seen: Tensor) -> Tensor:
    """BatchNorm over the places that can be seen, of all ranks; the others stay 0."""
    there, over = at(seen, maps).float(), (0, 2, 3)
    if not layer.training:
        kept: Tensor = F.batch_norm(maps, layer.running_mean, layer.running_var, layer.weight,
                                    layer.bias, eps=layer.eps)
        return kept * there.to(maps.dtype)
    total: Callable[[Tensor], Tensor] = parallel.total if parallel.ranks() > 1 else lambda x: x
    values = maps.float()
    sums = total(torch.cat([(values * there).sum(over), there.sum()[None]]))
    count = sums[-1].clamp(min=1)
    mean = sums[:-1] / count
    centred = values - mean[:, None, None]
    variance = total((centred.square() * there).sum(over)) / count
    with torch.no_grad():
        layer.num_batches_tracked += 1
        layer.running_mean.lerp_(mean.detach(), layer.momentum)
        layer.running_var.lerp_(variance.detach() * count / (count - 1).clamp(min=1),
                                layer.momentum)
    scale = (variance + layer.eps).rsqrt() * layer.weight
    normal = (centred * scale[:, None, None] + layer.bias[:, None, None]) * there
    return normal.to(maps.dtype)
