"""The 2D pretext tasks. Adding one = one class here and its name in PRETEXTS.

Sizes are those of Taleb et al. 2020 for 224 x 224, written in terms of the resolution.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from common.tasks import augment, cpc, exemplar, puzzles
from common.tasks.contract import Pretext

UPRIGHT = math.radians(15)  # most that exemplar_upright turns an image


def jitter(size: int) -> int:
    """Pixels a patch may move inside its cell: 8 at 224, and never none."""
    return max(1, round(8 * size / 224))


class Rotation(puzzles.Rotation):
    """Four classes: quarter turns."""

    batch_size = 32

    def __init__(self, size: int) -> None:
        super().__init__(size, dimensions=2)


class Jigsaw(puzzles.Jigsaw):
    """9 patches, 100 permutations at least 6 places apart."""

    batch_size = 32

    def __init__(self, size: int) -> None:
        super().__init__(size, jitter(size), dimensions=2)


class RelativePatch(puzzles.RelativePatch):
    """The centre patch and one of the 8 around it."""

    batch_size = 32

    def __init__(self, size: int) -> None:
        super().__init__(size, jitter(size), dimensions=2)


class Exemplar(exemplar.Exemplar):
    """Image triplets; the official augmentation, its spatial part resampled once."""

    batch_size = 16

    def augment(self, images: Tensor, rng: Generator) -> Tensor:
        """One resampling, then brightness and contrast, as in the paper."""
        count = len(images)
        changed = augment.resample(images, self.turned(count, rng))
        return augment.brightness_contrast(changed, augment.uniform(count, -0.2, 0.2, rng),
                                           augment.uniform(count, 0.8, 1.2, rng))

    def turned(self, count: int, rng: Generator) -> Tensor:
        """Quarter turns, and both flips half of the time each: (B, 2, 2)."""
        angles = torch.randint(4, (count,), generator=rng) * (math.pi / 2)
        return augment.flips(count, 2, rng) @ augment.rotations(angles, (0, 1), 2)


class ExemplarHard(exemplar.HardestNegative, Exemplar):
    """The negative is the hardest of the batch."""


class ExemplarSemihard(exemplar.SemihardNegative, Exemplar):
    """The negative is semi-hard."""


class ExemplarUpright(Exemplar):
    """Neither flips nor quarter turns: in a fundus photograph they tell left eye from right."""

    name = "exemplar_upright"

    def turned(self, count: int, rng: Generator) -> Tensor:
        """Rotate a little: (B, 2, 2)."""
        return augment.rotations(augment.uniform(count, -UPRIGHT, UPRIGHT, rng), (0, 1), 2)


class ContrastivePrediction(cpc.ContrastivePrediction):
    """5 x 5 patches of 74 that overlap by half, crops of 67; negatives of the whole batch."""

    batch_size = 64

    def __init__(self, size: int) -> None:
        super().__init__(size, n=5, jitter=-(size // 6), crop=67 / 74, dimensions=2,
                         mirror=False, padded=False, across=True)


PRETEXTS: dict[str, Callable[[int], Pretext]] = {
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "rpl": RelativePatch,
    "exemplar": Exemplar,
    "cpc": ContrastivePrediction,
    "exemplar_hard": ExemplarHard,
    "exemplar_semihard": ExemplarSemihard,
    "exemplar_upright": ExemplarUpright,
}
