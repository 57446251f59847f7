"""The 3D U-Net of Taleb et al. 2020 (official Keras code): encoder, decoder; knows no tasks.

Volumes are (B, C, D, H, W). With 1 channel, 3 classes, 16 filters and 4 levels: 5,647,891
trainable parameters, of them 3,535,440 in the encoder.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from common.tasks.heads import full_precision

EPS = 1e-3       # BatchNorm; official code (Keras)
MOMENTUM = 0.1   # official: .01; with few steps its running statistics are still the initial ones
DROPOUT = 0.5    # official code; Halving is made for it
STEP_BYTES = 1500  # activations of a training step at most, per voxel at 16 filters, float32
CHECKPOINTED_BYTES = 900  # the same with activation checkpointing; see bench/memory.py


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Twice conv 3, ReLU, BatchNorm, with dropout between: (B, in, ...) -> (B, out, ...)."""
    return nn.Sequential(
        _conv(inputs, outputs), nn.ReLU(inplace=True),
        nn.BatchNorm3d(outputs, eps=EPS, momentum=MOMENTUM), Halving(DROPOUT),
        _conv(outputs, outputs), nn.ReLU(inplace=True),
        nn.BatchNorm3d(outputs, eps=EPS, momentum=MOMENTUM))


class Halving(nn.Dropout):
    """Dropout of one half; on the CPU from random bits, not from one number a voxel.

    The numbers were 14 % of a finetuning step (measured).
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Set half of the values to zero and double the others, in training."""
        if not self.training or self.p == 0:
            return maps
        if maps.device.type != "cpu" or self.p != 0.5:
            return super().forward(maps)
        words = torch.empty(math.ceil(maps.numel() / 64), dtype=torch.int64)
        words.random_(-2**63, None)  # 64 coins each
        octets = words.view(torch.uint8)
        coins = torch.stack([octets.bitwise_and(2**bit).ne_(0) for bit in range(8)])
        mask = torch.empty_like(maps)  # in the same memory format
        mask.as_strided((maps.numel(),), (1,)).copy_(coins.mul_(2).flatten()[:maps.numel()])
        return maps * mask


def _conv(inputs: int, outputs: int) -> nn.Conv3d:
    layer = nn.Conv3d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # he-normal
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def rerun(part: nn.Module, *inputs: Tensor) -> Tensor:
    """Run ``part``, keeping only its inputs for the gradient, for which it is run once more.

    The second run draws the same dropout and leaves BatchNorm's running statistics alone: numbers
    and buffers are those of a plain call, bit for bit.
    """
    result: Tensor = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=True,
                                context_fn=partial(_contexts, part))
    return result


def _contexts(part: nn.Module) -> tuple[Any, Any]:
    """What goes round the first and the second run of a part."""
    return nullcontext(), _buffers_kept(part)


@contextmanager
def _buffers_kept(part: nn.Module) -> Iterator[None]:
    """Let a part update copies of its buffers.

    (Without track_running_stats it would update none, but also keep fewer tensors for the
    gradient than the first run did, which checkpoint() refuses.)
    """
    layers = [(layer, dict(layer.named_buffers(recurse=False))) for layer in part.modules()]
    for layer, buffers in layers:
        for name, buffer in buffers.items():
            setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, buffers in layers:
            for name, buffer in buffers.items():
                setattr(layer, name, buffer)


def smallest_input(levels: int) -> int:
    """Voxels a side that the encoder needs: one is left after every pool."""
    return int(2 ** (levels + 1))


class Encoder(nn.Module):
    """Blocks of doubling width with max-pool 2 after each, also after the bottleneck.

    128^3 -> 256 x 4^3, 39^3 -> 256 x 1^3 with 16 filters and 4 levels.
    """

    def __init__(self, channels: int, filters: int = 16, levels: int = 4, *,
                 checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing  # keep each block's input only, see rerun()
        self.widths = [filters * 2**level for level in range(levels + 1)]  # the bottleneck last
        self.blocks = nn.ModuleList(block(i, o) for i, o in pairwise([channels, *self.widths]))

    def stages(self, volumes: Tensor) -> list[Tensor]:
        """Return the map of every level before its pool, then the bottleneck's, then the code."""
        maps = []
        for part in self.blocks:
            maps.append(rerun(part, volumes) if self.checkpointing else part(volumes))
            volumes = F.max_pool3d(maps[-1], 2)
        return [*maps, volumes]

    def forward(self, volumes: Tensor) -> Tensor:
        """Return the code: (B, C, D, H, W) -> (B, 16 filters, D / 32, ...) with 4 levels."""
        return self.stages(volumes)[-1]


class Level(nn.Module):
    """One level of the decoder: up, concatenate the skip, block."""

    def __init__(self, up: nn.Module, part: nn.Module) -> None:
        super().__init__()
        self.up, self.part = up, part

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, 2 C, D, H, W) and the skip (B, C, 2 D, 2 H, 2 W) -> the skip's shape."""
        out: Tensor = self.part(torch.cat([self.up(x), skip], dim=1))
        return out


class Decoder(nn.Module):
    """Undoes the last pool by repetition, then runs level after level."""

    def __init__(self, widths: list[int], classes: int, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        pairs = list(pairwise(reversed(widths)))  # (256, 128), (128, 64), ...
        self.ups = nn.ModuleList(nn.ConvTranspose3d(deep, out, 2, stride=2) for deep, out in pairs)
        self.blocks = nn.ModuleList(block(2 * out, out) for _, out in pairs)
        self.last = nn.Conv3d(widths[0], classes, 1)
        for layer in (*self.ups, self.last):
            nn.init.xavier_uniform_(layer.weight)  # glorot-uniform
            nn.init.zeros_(layer.bias)

    @classmethod
    def of(cls, encoder: Encoder, outputs: int) -> "Decoder":
        """The decoder that goes with an encoder."""
        return cls(encoder.widths, outputs, checkpointing=encoder.checkpointing)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Map an encoder's stages to class logits: (B, classes, D, H, W)."""
        *skips, bottleneck, code = stages
        # Nearest, to the bottleneck's own size: the weights have no part in undoing the pool.
        x = F.interpolate(code, size=bottleneck.shape[2:], mode="nearest")
        for up, part, skip in zip(self.ups, self.blocks, reversed(skips), strict=True):
            level = Level(up, part)  # made here, so that the weights keep their names
            x = rerun(level, x, skip) if self.checkpointing else level(x, skip)
        with full_precision(x.device):  # two nearly equal logits in bfloat16 would be the same
            logits: Tensor = self.last(x.float())
        return logits


class UNet(nn.Module):
    """Encoder and decoder: volumes (B, C, D, H, W) -> logits (B, classes, D, H, W)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = Decoder.of(encoder, classes)

    def forward(self, volumes: Tensor) -> Tensor:
        """Segment volumes whose sides are divisible by 2^(levels + 1)."""
        logits: Tensor = self.decoder(self.encoder.stages(volumes))
        return logits
