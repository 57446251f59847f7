"""The 3D pretext tasks. Adding one = one class here and its name in PRETEXTS.

Sizes are those of Taleb et al. 2020 for 128^3, written in terms of the resolution.
"""

import math
from itertools import combinations

import torch
from torch import Generator, Tensor

from common.tasks import augment, contrast, cpc, exemplar, puzzles, reconstruction
from common.tasks.contract import Pretext

JITTER = (3, 128)  # voxels a patch may move in its cell, at which side; never none
UPRIGHT = math.radians(15)  # most that exemplar_upright turns a volume


class Rotation(puzzles.Rotation):
    """Ten classes: identity and 90, 180, 270 degrees about each of three axes."""

    dimensions, batch_size = 3, 4


class Jigsaw(puzzles.Jigsaw):
    """27 patches, 100 permutations at least 24 places apart."""

    dimensions, batch_size = 3, 8
    jitter = JITTER


class RelativePatch(puzzles.RelativePatch):
    """The centre patch and one of the 26 around it."""

    dimensions, batch_size = 3, 32
    jitter = JITTER


class Exemplar(exemplar.Exemplar):
    """Volume triplets; the official augmentation, its spatial part resampled once."""

    batch_size = 4  # official: 2, which leaves one negative and noisy BatchNorm

    def augment(self, images: Tensor, rng: Generator) -> Tensor:
        """One resampling, then brightness and contrast in half of the cases, as in the paper."""
        count = len(images)
        matrix = self.turned(count, rng)
        zoom = augment.zooms(count, 3, 0.8, 1.2, rng)
        matrix = augment.where(augment.chance(count, 0.15, rng), zoom) @ matrix
        changed = augment.resample(images, matrix)
        on = augment.chance(count, 0.5, rng)
        brightness = torch.where(on, augment.uniform(count, -0.125, 0.125, rng), 0.0)
        contrast = torch.where(on, augment.uniform(count, 0.5, 1.5, rng), 1.0)
        return augment.brightness_contrast(changed, brightness, contrast)

    def turned(self, count: int, rng: Generator) -> Tensor:
        """Flip each axis, rotate in each plane, half of the cases each: (B, 3, 3)."""
        matrix = augment.flips(count, 3, rng)
        for plane in combinations(range(3), 2):
            matrix = augment.where(augment.chance(count, 0.5, rng), augment.rotations(
                self.angles(count, rng), plane, 3)) @ matrix
        return matrix

    def angles(self, count: int, rng: Generator) -> Tensor:
        """Half of the cases by 1 to 3 quarter turns, half by any angle: (B,) radians."""
        quarter = torch.randint(1, 4, (count,), generator=rng) * (math.pi / 2)
        anyhow = augment.uniform(count, 0.0, 2 * math.pi, rng)
        return torch.where(augment.chance(count, 0.5, rng), quarter, anyhow)


class ExemplarHard(exemplar.HardestNegative, Exemplar):
    """The negative is the hardest of the batch."""


class ExemplarSemihard(exemplar.SemihardNegative, Exemplar):
    """The negative is semi-hard."""


class ExemplarUpright(Exemplar):
    """Neither flips nor large turns: where orientation carries anatomy, it may be worth keeping."""

    name = "exemplar_upright"

    def turned(self, count: int, rng: Generator) -> Tensor:
        """Rotate a little in each plane, half of the cases each: (B, 3, 3)."""
        matrix = augment.identity(count, 3)
        for plane in combinations(range(3), 2):
            matrix = augment.where(augment.chance(count, 0.5, rng), augment.rotations(
                augment.uniform(count, -UPRIGHT, UPRIGHT, rng), plane, 3)) @ matrix
        return matrix


class ContrastivePrediction(cpc.ContrastivePrediction):
    """4 x 4 x 4 patches of 32, crops of 28 filled up with zeros; negatives of the same volume."""

    dimensions, batch_size = 3, 1
    rows, overlap, kept, padded = 4, False, 28 / 32, True
    mirror, across = True, False


class TwoCrops(contrast.TwoCrops):
    """Crops of volumes."""

    def changed(self, images: Tensor, rng: Generator) -> Tensor:
        """Crop and mirror in one resampling, then change contrast, brightness and gamma."""
        count = len(images)
        matrix, offset = augment.crops(count, 3, contrast.LEAST, rng)
        changed = augment.resample(images, augment.flips(count, 3, rng) @ matrix, offset)
        changed = augment.gamma(changed, augment.uniform(count, 0.7, 1.5, rng))
        return augment.brightness_contrast(changed, augment.uniform(count, -0.125, 0.125, rng),
                                           augment.uniform(count, 0.5, 1.5, rng))


class Contrast(TwoCrops, contrast.Contrast):
    """SimCLR of volumes."""


class VarianceCovariance(TwoCrops, contrast.VarianceCovariance):
    """VICReg of volumes."""


PRETEXTS: dict[str, type[Pretext]] = {
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "rpl": RelativePatch,
    "exemplar": Exemplar,
    "cpc": ContrastivePrediction,
    "exemplar_hard": ExemplarHard,
    "exemplar_semihard": ExemplarSemihard,
    "exemplar_upright": ExemplarUpright,
    "mae": reconstruction.MaskedAutoencoder,
    "genesis": reconstruction.Genesis,
    "volumefusion": reconstruction.VolumeFusion,
    "simclr": Contrast,
    "vicreg": VarianceCovariance,
}
