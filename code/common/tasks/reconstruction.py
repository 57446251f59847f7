"""Tasks that answer for every voxel or pixel: masked autoencoding, Models Genesis, VolumeFusion.

Their network is the encoder and a decoder; where the downstream network has the same decoder,
<task>@decoder hands it on too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from common.machine.devices import send
from common.tasks import augment
from common.tasks.contract import Batch, Parts, Pretext, Scores
from common.tasks.heads import confusion, dice_and_entropy, overlaps
from common.tasks.siamese import EncoderDecoder


class Dense(Pretext):
    """An answer for every place of an image; a base class."""

    batch_size, lr, steps, schedule = 8, 1e-3, 5000, "cosine"
    joins, decodes = False, True

    def outputs(self, channels: int) -> int:
        """How many numbers are asked for at every place of images with ``channels``."""
        return channels

    def network(self, parts: Parts) -> nn.Module:
        """The encoder, and a decoder from its stages."""
        return EncoderDecoder(parts.encoder, parts.decoder(self.outputs(parts.views.shape[2])))


class Restoration(Dense):
    """Images are spoilt, the network restores them; a base class.

    Targets (B, 3, C, *space): what is wanted, what a guess answers, and where it counts (1 or 0).
    ``restored`` is the share of the guess's squared error that the network does away with: 0 for
    the guess, 1 for a perfect answer, below 0 for what is worse than the guess.
    """

    chance = {"restored": 0.0}

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sum of squared errors where it counts, and how many count: (2,)."""
        wanted, _, counted = targets.unbind(1)
        return torch.stack([((outputs[:, 0].float() - wanted) ** 2 * counted).sum(),
                            counted.sum()])

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """Mean squared error where it counts."""
        return sums[0] / sums[1].clamp(min=1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error where it counts."""
        return self.loss_of_sums(self.sums(outputs, targets))

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Squared errors of every case, the network's and the guess's: (B,) each."""
        wanted, guess, counted = targets.unbind(1)
        return {name: ((said.float() - wanted) ** 2 * counted).flatten(1).double().sum(1)
                for name, said in (("error", outputs[:, 0]), ("guess", guess))}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """Sums over all cases, divided once."""
        guess = float(np.sum(scores["guess"]))
        return {"restored": 1 - float(np.sum(scores["error"])) / guess if guess > 0 else 0.0}

    def pictures(self, views: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """What was shown, answered and wanted, (B, 3, C, *space); the answer where it counts."""
        wanted, _, counted = targets.unbind(1)
        answer = torch.where(counted > 0, outputs[:, 0].float(), wanted)
        shown = views[:, 0]
        back = self.units(shown, wanted, counted)
        return torch.stack([shown, back(answer), back(wanted)], dim=1)

    def units(self, shown: Tensor, wanted: Tensor,
              counted: Tensor) -> Callable[[Tensor], Tensor]:
        """What brings answers into the units of what is shown."""
        return lambda values: values

    def caption(self, targets: Tensor, case: int) -> str:
        """What is asked."""
        return "what was there?"


class MaskedAutoencoder(Restoration):
    """What is behind the cubes? He et al. 2022; on U-Nets Wald et al. 2024 (OpenMind, nnssl).

    Three quarters of the cubes that an image is cut into, an eighth of its side wide, show the mean
    of the image. Answers and targets are standardised by case and channel; the masked places alone
    count. The guess is the one constant that fits them best: what beats it knows where things are.
    """

    name = "mae"
    masked = 0.75  # share of the cubes
    cells = 8      # cubes a side

    def changed(self, images: Tensor, rng: Generator) -> Tensor:
        """Mirror each axis half of the time; scale and turn a fifth of the cases each."""
        count, dimensions = len(images), images.dim() - 2
        matrix = augment.flips(count, dimensions, rng)
        factors = augment.uniform(count, 0.7, 1.4, rng)
        scaled = augment.identity(count, dimensions) / factors[:, None, None]
        matrix = augment.where(augment.chance(count, 0.2, rng), scaled) @ matrix
        turned = augment.chance(count, 0.2, rng)
        for plane in augment.planes(dimensions):
            angles = torch.deg2rad(augment.uniform(count, -30.0, 30.0, rng))
            matrix = augment.where(turned, augment.rotations(angles, plane, dimensions)) @ matrix
        return augment.resample(images, matrix)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Images with cubes of their mean, (B, 1, C, *space), and the targets."""
        images = self.changed(batch.images, rng) if training else batch.images
        over = tuple(range(2, images.dim()))
        mean = images.mean(over, keepdim=True)
        standard = (images - mean) / images.std(over, keepdim=True).clamp(min=1e-3)
        hidden = send(self.mask(len(images), images.shape[2:], rng), batch.device)[:, None]
        guess = (standard * hidden).sum(over, keepdim=True) / hidden.sum(over, keepdim=True)
        targets = torch.stack([standard, guess.expand_as(standard),
                               hidden.expand_as(standard).float()], dim=1)
        return torch.where(hidden, mean, images)[:, None], targets

    def block(self, side: int) -> int:
        """Voxels a side of the cubes of an image."""
        return max(1, side // self.cells)

    def mask(self, count: int, space: torch.Size, rng: Generator) -> Tensor:
        """Which places are hidden: (B, *space) booleans, the same share of cubes in every case."""
        side = self.block(space[0])
        cells = [-(-length // side) for length in space]
        number = int(np.prod(cells))
        ranks = torch.rand(count, number, generator=rng).argsort(1).argsort(1)
        hidden = (ranks < round(self.masked * number)).view(count, *cells)
        for axis, length in enumerate(space, start=1):
            hidden = hidden.repeat_interleave(side, dim=axis).narrow(axis, 0, length)
        return hidden

    def units(self, shown: Tensor, wanted: Tensor,
              counted: Tensor) -> Callable[[Tensor], Tensor]:
        """Undo the standardisation, by the line on which what can be seen lies."""
        over, seen = tuple(range(2, wanted.dim())), 1 - counted
        count = seen.sum(over, keepdim=True).clamp(min=1)
        x, y = ((values * seen).sum(over, keepdim=True) / count for values in (wanted, shown))
        along = (wanted - x) * seen
        slope = (along * shown).sum(over, keepdim=True) / (along * along).sum(
            over, keepdim=True).clamp(min=1e-6)
        return lambda values: (values - x) * slope + y


class Genesis(Restoration):
    """What did it look like? Models Genesis, Zhou et al. 2021.

    Places exchanged within small windows, intensities along a monotone curve, boxes painted over or
    all but boxes. The guess leaves the image as it is shown.
    """

    name = "genesis"

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Spoilt images, (B, 1, C, *space), and the targets."""
        images = batch.images
        count, dimensions = len(images), images.dim() - 2
        if training:
            images = augment.resample(images, augment.flips(count, dimensions, rng,
                                                            probability=0.4))
        spoilt = []
        for image in images:  # (C, *space)
            if float(torch.rand((), generator=rng)) < 0.5:
                image = exchanged(image, rng)
            if float(torch.rand((), generator=rng)) < 0.9:
                image = along_a_curve(image, rng)
            if float(torch.rand((), generator=rng)) < 0.9:
                image = painted(image, rng, outside=float(torch.rand((), generator=rng)) < 0.8)
            spoilt.append(image)
        shown = torch.stack(spoilt)
        return shown[:, None], torch.stack([images, shown, torch.ones_like(shown)], dim=1)


class VolumeFusion(Dense):
    """How much of which volume is in each voxel? Wang et al. 2023.

    x = alpha a + (1 - alpha) b with alpha of 0, .25, .5, .75 or 1, the same within a box; the class
    of alpha is asked for, so that this is a segmentation: soft Dice and cross-entropy. b is another
    case of the batch, and alone outside of all boxes.
    """

    name = "volumefusion"
    classes = 5
    boxes = (10, 40)              # least and most of a case
    sides = (1 / 8, 5 / 8)        # of a box, over the volume's
    chance = {"balanced_accuracy": 1 / classes}

    def outputs(self, channels: int) -> int:
        """A logit a class."""
        return self.classes

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Fused volumes, (B, 1, C, *space), and the class of each voxel, (B, *space)."""
        images = batch.images
        count, dimensions = len(images), images.dim() - 2
        if count < 2:
            raise ValueError("volumefusion needs 2 different cases in a batch")
        if training:
            images = augment.resample(images, augment.flips(count, dimensions, rng))
            images = augment.gamma(images, augment.some(count, 0.7, 1.5, 1.0, rng))
            images = augment.brightness_contrast(images, augment.some(count, -0.1, 0.1, 0.0, rng),
                                                 augment.some(count, 0.75, 1.25, 1.0, rng))
        maps = torch.stack([self._map(images.shape[2:], rng) for _ in range(count)])
        classes = send(maps, batch.device)
        alpha = classes[:, None].float() / (self.classes - 1)
        return (alpha * images + (1 - alpha) * images.roll(1, 0))[:, None], classes

    def _map(self, space: torch.Size, rng: Generator) -> Tensor:
        """The class of every voxel of one case, later boxes over earlier ones: uint8."""
        least, most = self.boxes
        number = int(torch.randint(least, most + 1, (), generator=rng))
        kinds = torch.randint(self.classes, (number,), generator=rng).tolist()
        found = torch.zeros(space, dtype=torch.uint8)
        boxes = augment.random_boxes(number, space, self.sides, rng)
        for kind, box in zip(kinds, boxes, strict=True):
            found[box] = kind
        return found

    def sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What Dice and cross-entropy are made of."""
        return overlaps(outputs[:, 0], targets, cross_entropy=True)

    def loss_of_sums(self, sums: Tensor) -> Tensor:
        """1 - soft Dice, and cross-entropy."""
        return dice_and_entropy(sums, self.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """1 - soft Dice, and cross-entropy."""
        return self.loss_of_sums(self.sums(outputs, targets))

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Voxels of each (truth, answer) pair of every case: (B, 5, 5)."""
        return {"confusion": confusion(outputs[:, 0].max(1).indices, targets, self.classes)}

    def summarise(self, scores: Scores) -> dict[str, Any]:
        """The share of each class that is found, and the mean of these."""
        table = scores["confusion"].sum(0)
        known = table.sum(1) > 0
        return {"balanced_accuracy": float((table.diagonal()[known] / table.sum(1)[known]).mean())}

    def pictures(self, views: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
        """What was shown, and the classes that were answered and wanted, as shades of grey."""
        answer, wanted = (classes[:, None].float().div(self.classes - 1).expand_as(views[:, 0])
                          for classes in (outputs[:, 0].max(1).indices, targets))
        return torch.stack([views[:, 0], answer, wanted], dim=1)

    def caption(self, targets: Tensor, case: int) -> str:
        """What is asked."""
        return "how much of which volume?"


def exchanged(image: Tensor, rng: Generator) -> Tensor:
    """Exchange places within windows of 2 to a tenth of the side: (C, *space).

    The windows lie side by side, and each takes one of 64 orders (the official code draws 10,000
    windows one after the other, which takes seconds a batch).
    """
    space = image.shape[1:]
    side = int(torch.randint(2, max(3, space[0] // 10 + 1), (), generator=rng))
    start = [int(torch.randint(min(side, length - side + 1), (), generator=rng))
             for length in space]
    cells = [(length - first) // side for length, first in zip(space, start, strict=True)]
    inner = tuple(slice(first, first + n * side) for first, n in zip(start, cells, strict=True))
    parts = [size for n in cells for size in (n, side)]
    order = [1 + 2 * axis for axis in range(len(space))] + [2 + 2 * axis
                                                            for axis in range(len(space))]
    windows = image[:, *inner].reshape(len(image), *parts).permute(0, *order)
    flat = windows.reshape(len(image), int(np.prod(cells)), side ** len(space))
    orders = torch.rand(64, flat.shape[2], generator=rng).argsort(1)
    places = send(orders[torch.randint(64, (flat.shape[1],), generator=rng)], image.device)
    moved = flat.gather(2, places.expand_as(flat)).reshape(windows.shape)
    back = [0, *(order.index(axis) + 1 for axis in range(1, 1 + len(parts)))]
    changed = image.clone()
    changed[:, *inner] = moved.permute(back).reshape(image[:, *inner].shape)
    return changed


def along_a_curve(image: Tensor, rng: Generator) -> Tensor:
    """Intensities, clamped to 0..1, along a monotone Bezier curve; half of the time a falling one.

    Four points: (0, 0), two drawn in the unit square, where every such curve is monotone, (1, 1).
    """
    inner = torch.rand(2, 2, generator=rng)  # (x and y, point)
    t = np.linspace(0, 1, 1000)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = (np.array([0.0, *values, 1.0]) @ weights for values in inner.tolist())
    if float(torch.rand((), generator=rng)) < 0.5:
        y = y[::-1]
    table = torch.from_numpy(np.interp(np.linspace(0, 1, 257), x, y)).float()
    curve = send(torch.cat([table, table[-1:]]), image.device)
    place = image.clamp(0, 1) * 256
    low = place.floor()
    share, low = place - low, low.long()
    return curve[low] * (1 - share) + curve[low + 1] * share


def painted(image: Tensor, rng: Generator, *, outside: bool) -> Tensor:
    """Noise over up to five boxes of a sixth to a third of the side, or over all but such boxes.

    Those that are kept are of three to four sevenths.
    """
    number = 1
    while number < 5 and float(torch.rand((), generator=rng)) < 0.95:
        number += 1
    sides = (3 / 7, 4 / 7) if outside else (1 / 6, 1 / 3)
    covered = torch.full(image.shape[1:], outside)
    for box in augment.random_boxes(number, image.shape[1:], sides, rng):
        covered[box] = not outside
    drawn = send(torch.rand(image.shape, generator=rng), image.device)
    return torch.where(send(covered, image.device), drawn, image)
