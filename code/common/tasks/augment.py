"""Spatial and intensity augmentations of image batches (B, C, *space), any number of axes.

All spatial changes of a view are composed into one matrix and resampled once: repeated
interpolation would blur, and the blur would tell anchor from positive.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from common.machine.devices import send

LIT = 0.3  # share of training images that each change of brightness, contrast, ... meets


def identity(batch: int, dimensions: int) -> Tensor:
    """The matrices that change nothing: (B, d, d)."""
    return torch.eye(dimensions).repeat(batch, 1, 1)


def chance(batch: int, probability: float, rng: Generator) -> Tensor:
    """One coin a case: (B,) booleans, true with ``probability``."""
    return torch.rand(batch, generator=rng) < probability


def flips(batch: int, dimensions: int, rng: Generator, *, probability: float = 0.5,
          axes: Sequence[int] | None = None) -> Tensor:
    """Mirror each axis of a matrix, or those of ``axes``, with ``probability``: (B, d, d)."""
    mirrored = torch.rand(batch, dimensions, generator=rng) < probability
    if axes is not None:
        mirrored[:, [axis for axis in range(dimensions) if axis not in axes]] = False
    return torch.diag_embed(1.0 - 2.0 * mirrored)


def zooms(batch: int, dimensions: int, low: float, high: float, rng: Generator) -> Tensor:
    """Scale each axis by its own factor, uniform in low..high: (B, d, d)."""
    factors = low + (high - low) * torch.rand(batch, dimensions, generator=rng)
    return torch.diag_embed(1 / factors)  # the matrix maps output places to input places


def planes(dimensions: int) -> list[tuple[int, int]]:
    """The pairs of axes that one can rotate in."""
    return list(combinations(range(dimensions), 2))


def crops(batch: int, dimensions: int, least: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Crops of at least ``least`` of the area or volume, as large as the image: matrix, offset.

    (B, d, d) and (B, d), for resample(): the share is uniform, and so is the place.
    """
    side = uniform(batch, least, 1.0, rng) ** (1 / dimensions)
    offset = (2 * torch.rand(batch, dimensions, generator=rng) - 1) * (1 - side)[:, None]
    return identity(batch, dimensions) * side[:, None, None], offset


def rotations(angles: Tensor, axes: Sequence[int], dimensions: int) -> Tensor:
    """Rotate by ``angles`` (B,) in radians in the plane of two axes: (B, d, d)."""
    matrix = identity(len(angles), dimensions)
    i, j = axes
    matrix[:, i, i] = matrix[:, j, j] = angles.cos()
    matrix[:, i, j] = -angles.sin()
    matrix[:, j, i] = angles.sin()
    return matrix


def where(condition: Tensor, matrix: Tensor) -> Tensor:
    """Take ``matrix`` (B, d, d) where ``condition`` (B,) holds, else the identity."""
    return torch.where(condition[:, None, None], matrix, identity(*matrix.shape[:2]))


def resample(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    """Apply matrices (B, d, d) about the centre with one linear resampling; 0 outside.

    ``offset`` (B, d) moves the centre, in halves of a side.
    """
    return F.grid_sample(images, _places(images, matrix, offset), align_corners=False)


def resample_both(images: Tensor, labels: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and label maps (B, *space) by nearest neighbour at the same places."""
    places = _places(images, matrix)
    maps = F.grid_sample(labels[:, None].to(images.dtype), places, mode="nearest",
                         align_corners=False)
    return F.grid_sample(images, places, align_corners=False), maps[:, 0].to(labels.dtype)


def _places(images: Tensor, matrix: Tensor, offset: Tensor | None = None) -> Tensor:
    affine = (F.pad(matrix, (0, 1)) if offset is None
              else torch.cat([matrix, offset[:, :, None]], dim=2))
    return F.affine_grid(send(affine, images.device), list(images.shape), align_corners=False)


def brightness_contrast(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Scale by ``contrast`` (B,) about each case's mean, then add ``brightness`` (B,)."""
    shape = (-1,) + (1,) * (images.dim() - 1)
    mean = images.flatten(1).mean(1).view(shape)
    scale, shift = (send(x, images.device).view(shape) for x in (contrast, brightness))
    return (images * scale).add_(mean * (1 - scale) + shift)  # one copy instead of four


def gamma(images: Tensor, exponents: Tensor) -> Tensor:
    """Raise images, clamped to 0..1, to a power a case (B,)."""
    shape = (-1,) + (1,) * (images.dim() - 1)
    return images.clamp(0, 1) ** send(exponents, images.device).view(shape)


def noise(images: Tensor, deviations: Tensor, rng: Generator) -> Tensor:
    """Add normal noise of one standard deviation a case (B,); where that is 0 none is drawn."""
    changed = images.clone()
    for case, deviation in enumerate(deviations.tolist()):
        if deviation:
            drawn = torch.randn(images.shape[1:], generator=rng) * deviation
            changed[case] += send(drawn, images.device)
    return changed


def random_boxes(number: int, space: torch.Size, sides: tuple[float, float],
                 rng: Generator) -> list[tuple[slice, ...]]:
    """Boxes within ``space``, each side a share uniform in ``sides`` of the whole."""
    share = sides[0] + (sides[1] - sides[0]) * torch.rand(number, len(space), generator=rng)
    whole = torch.tensor(space)
    length = (share * whole).round().long().clamp(min=1)
    start = (torch.rand(number, len(space), generator=rng) * (whole - length + 1)).long()
    return [tuple(slice(a, a + n) for a, n in zip(*one, strict=True))
            for one in zip(start.tolist(), length.tolist(), strict=True)]


def boxed(images: Tensor, least: float, most: float, rng: Generator) -> Tensor:
    """Show the mean of each case in a box of it; its sides are least..most of the image's."""
    covered = torch.zeros((len(images), 1, *images.shape[2:]), dtype=torch.bool)
    boxes = random_boxes(len(images), images.shape[2:], (least, most), rng)
    for case, box in zip(covered, boxes, strict=True):
        case[0][box] = True
    mean = images.mean(tuple(range(2, images.dim())), keepdim=True)
    return torch.where(send(covered, images.device), mean, images)


def uniform(batch: int, low: float, high: float, rng: Generator) -> Tensor:
    """Draw (B,) numbers, uniform in low..high."""
    return low + (high - low) * torch.rand(batch, generator=rng)


def some(batch: int, low: float, high: float, otherwise: float, rng: Generator) -> Tensor:
    """Draw (B,) numbers, uniform in low..high for a share LIT of the cases, else ``otherwise``."""
    return torch.where(chance(batch, LIT, rng), uniform(batch, low, high, rng), otherwise)
