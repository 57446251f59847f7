"""Patch grids, quarter turns and permutations, written once over the spatial axes.

Images are (B, C, *space) with equal sides; a grid cuts them into n cells a side.
"""

from collections.abc import Sequence
from itertools import combinations, product

import torch
from torch import Generator, Tensor


class Grid:
    """n cells a side: cell = size // n, patch = cell - jitter; a patch never leaves its cell.

    Negative jitter is overlap: patches reach that far into the next cell, and the cells are made
    smaller so that the last patch stays inside (official code).
    """

    def __init__(self, size: int, n: int, jitter: int, dimensions: int) -> None:
        self.jitter = max(0, jitter)
        self.cell = (size + min(0, jitter)) // n
        self.patch = self.cell - jitter
        self.cells = torch.tensor(list(product(range(n), repeat=dimensions)))  # (n**d, d)

    def corners(self, batch: int, rng: Generator, *, training: bool) -> Tensor:
        """Draw the first voxel of every patch: uniform in the cell, or centred: (B, n**d, d)."""
        shape = (batch, *self.cells.shape)
        if training:
            offset = torch.randint(self.jitter + 1, shape, generator=rng)
        else:
            offset = torch.full(shape, self.jitter // 2)
        return self.cells * self.cell + offset

    def cut(self, images: Sequence[Tensor], corners: Tensor, side: int = 0) -> Tensor:
        """Cut patches, or cubes of ``side``, with first voxels ``corners``: (B, V, C, *side).

        ``corners`` is (B, V, d).
        """
        side = side or self.patch
        # Slices of the originals and one stack: half the time of a gather (measured).
        return torch.stack([
            torch.stack([image[(slice(None), *(slice(c, c + side) for c in corner))]
                         for corner in case])
            for image, case in zip(images, corners.tolist(), strict=True)])


def quarter_turns(dimensions: int) -> list[tuple[int, tuple[int, int]]]:
    """The rotation task's classes: (quarter turns, plane): identity, then 1-3 in every plane.

    4 classes for images, 10 for volumes; the plane's axes count from the last axis backwards.
    """
    planes = list(combinations(range(-dimensions, 0), 2))
    return [(0, planes[0])] + [(k, plane) for plane in planes for k in (1, 2, 3)]


def turn(image: Tensor, which: tuple[int, tuple[int, int]]) -> Tensor:
    """Rotate ``image`` (..., *space) by one of quarter_turns."""
    quarters, plane = which
    return torch.rot90(image, quarters, plane)


def permutations(length: int, count: int, rng: Generator, *, pool: int = 4096) -> Tensor:
    """Choose ``count`` permutations far apart in Hamming distance: (count, length).

    Greedy farthest-first from a seeded candidate pool, as Noroozi and Favaro 2016 (section 3.2)
    do over all permutations. The identity is never among them, no permutation occurs twice.
    With 100 of length 27 the smallest distance is at least 24, of length 9 at least 6.
    """
    candidates = torch.stack([torch.randperm(length, generator=rng) for _ in range(pool)])
    nearest = (candidates != torch.arange(length)).sum(1)  # to the identity: excludes it too
    chosen: list[Tensor] = []
    for _ in range(count):
        best = int(nearest.argmax())
        chosen.append(candidates[best])
        nearest = torch.minimum(nearest, (candidates != candidates[best]).sum(1))
    return torch.stack(chosen)
