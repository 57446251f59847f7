"""The 2D pretext tasks. Adding one = one class here and its name in PRETEXTS.

Sizes are those of Taleb et al. 2020 for 224 x 224, written in terms of the resolution.
"""

import math

import torch
from torch import Generator, Tensor, nn

from common.tasks import augment, contrast, cpc, exemplar, puzzles, reconstruction
from common.tasks.contract import Batch, Parts, Pretext
from common.tasks.siamese import Sparse

JITTER = (8, 224)  # pixels a patch may move in its cell, at which side; never none
STRIDE = 32        # of the encoder: pixels a side of a place of its last map
UPRIGHT = math.radians(15)  # most that exemplar_upright turns an image


class Rotation(puzzles.Rotation):
    """Four classes: quarter turns."""

    dimensions, batch_size = 2, 32


class Jigsaw(puzzles.Jigsaw):
    """9 patches, 100 permutations at least 6 places apart."""

    dimensions, batch_size = 2, 32
    jitter = JITTER


class RelativePatch(puzzles.RelativePatch):
    """The centre patch and one of the 8 around it."""

    dimensions, batch_size = 2, 32
    jitter = JITTER


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

    dimensions, batch_size = 2, 64
    rows, overlap, kept, padded = 5, True, 67 / 74, False
    mirror, across = False, True


class TwoCrops(contrast.TwoCrops):
    """Crops of photographs and radiographs."""

    def changed(self, images: Tensor, rng: Generator) -> Tensor:
        """Crop and mirror in one resampling, then change brightness and contrast."""
        count = len(images)
        matrix, offset = augment.crops(count, 2, contrast.LEAST, rng)
        changed = augment.resample(images, augment.flips(count, 2, rng) @ matrix, offset)
        return augment.brightness_contrast(changed, augment.uniform(count, -0.2, 0.2, rng),
                                           augment.uniform(count, 0.6, 1.4, rng))


class Contrast(TwoCrops, contrast.Contrast):
    """SimCLR of images."""


class VarianceCovariance(TwoCrops, contrast.VarianceCovariance):
    """VICReg of images."""


class MaskedAutoencoder(reconstruction.MaskedAutoencoder):
    """SparK, Tian et al. 2023: 60 % of the blocks are hidden, at every stage of the encoder.

    From 128 pixels blocks are those of the encoder's last map, as there. Below, that map would have
    too few, and they are an eighth of the side: a place of a coarser map is seen if any of it is.
    """

    masked, alone = 0.6, 1

    def block(self, side: int) -> int:
        """Pixels a side: 32, the encoder's stride; of small images an eighth, at least 8."""
        return STRIDE if side >= 4 * STRIDE else max(8, side // 8)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The images, and what can be seen of them: (B, 2, C, H, W); the targets."""
        views, targets = super().prepare(batch, rng, training=training)
        return torch.cat([views, 1 - targets[:, 2:]], dim=1), targets

    def network(self, parts: Parts) -> nn.Module:
        """An encoder that sees the rest alone, and a light decoder that is not handed on."""
        return Sparse(parts.encoder, parts.decoder(self.outputs(parts.views.shape[2])))


PRETEXTS: dict[str, type[Pretext]] = {
    "rotation": Rotation,
    "jigsaw": Jigsaw,
    "rpl": RelativePatch,
    "exemplar": Exemplar,
    "cpc": ContrastivePrediction,
    "exemplar_hard": ExemplarHard,
    "exemplar_semihard": ExemplarSemihard,
    "exemplar_upright": ExemplarUpright,
    "mae": MaskedAutoencoder,
    "genesis": reconstruction.Genesis,
    "simclr": Contrast,
    "vicreg": VarianceCovariance,
}
