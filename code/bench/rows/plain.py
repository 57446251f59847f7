"""The plain way to do the same work, as most research code does it: what speed.py compares with.

float64 loading, two resizes, one sample at a time and a collate, one-hot labels, float32, the
usual memory layout, plain Adam, metrics that wait for the device at every step.
"""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from common.tasks.siamese import nested


def preprocess(image: Path, label: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Load a pair as float64, scale to 0..1, crop to the body, resize both linearly."""
    volume = nib.load(image).get_fdata()  # type: ignore[attr-defined]
    classes = nib.load(label).get_fdata()  # type: ignore[attr-defined]
    volume = (volume - volume.min()) / (volume.max() - volume.min())
    places = np.where(volume > 0.05)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
    volume, classes = volume[box], classes[box]
    factors = [size / side for side in volume.shape]
    return zoom(volume, factors, order=1), np.round(zoom(classes, factors, order=1))


def segmentation_batch(images: np.ndarray, labels: np.ndarray, rows: list[int],
                       classes: int) -> list[Tensor]:
    """Sample by sample: float32 image, one-hot float64 label; then the usual collate."""
    return default_collate([(images[row].astype(np.float32),
                             np.moveaxis(np.eye(classes)[labels[row]], -1, 0)) for row in rows])


def rotation(images: np.ndarray, turns: list[int]) -> Tensor:
    """Each sample turned about one of three axes and copied."""
    planes = [(1, 2), (1, 3), (2, 3)]
    return default_collate([np.rot90(image, turn % 3 + 1, planes[turn % 3]).astype(np.float32)
                            for image, turn in zip(images, turns, strict=True)])


def patches(image: np.ndarray, jitter: int, rng: np.random.Generator) -> np.ndarray:
    """All 27 patches of a volume (C, D, H, W), each at a random place in its cell."""
    cell = image.shape[-1] // 3
    found = []
    for corner in product(range(3), repeat=3):
        start = [c * cell + int(rng.integers(jitter + 1)) for c in corner]
        x, y, z = (slice(s, s + cell - jitter) for s in start)
        found.append(image[:, x, y, z].astype(np.float32))
    return np.stack(found)


def relative_patch(images: np.ndarray, jitter: int, rng: np.random.Generator) -> Tensor:
    """Every patch is cut, two are kept."""
    return default_collate([patches(image, jitter, rng)[[13, int(rng.integers(13))]]
                            for image in images])


def jigsaw(images: np.ndarray, jitter: int, rng: np.random.Generator) -> Tensor:
    """Every patch is cut, then shuffled."""
    return default_collate([patches(image, jitter, rng)[rng.permutation(27)] for image in images])


def exemplar(images: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Quarter turns, flips, brightness and contrast only, one copy each; and a negative."""
    triplets = []
    for index, image in enumerate(images):
        view = image.astype(np.float32)
        for plane in ((1, 2), (1, 3), (2, 3)):
            view = np.rot90(view, int(rng.integers(4)), plane)
        for axis in (1, 2, 3):
            view = np.flip(view, axis) if rng.random() < 0.5 else view
        view = (view - view.mean()) * rng.uniform(0.5, 1.5) + view.mean()
        triplets.append(np.stack([view, image, images[index - 1]]).astype(np.float32))
    return default_collate(triplets)


def dice_loss(outputs: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice loss against one-hot labels of the same shape."""
    probability, axes = outputs.softmax(1), (0, 2, 3, 4)
    both = (probability * truth).sum(axes)
    return 1 - (2 * both / (probability.sum(axes) + truth.sum(axes))).mean()


def dice_scores(outputs: Tensor, truth: Tensor) -> list[float]:
    """Hard Dice of each class, each fetched from the device."""
    classes = outputs.shape[1]
    predicted = F.one_hot(outputs.softmax(1).argmax(1), classes).movedim(-1, 1).double()
    return [float(2 * (predicted[:, k] * truth[:, k]).sum()
                  / (predicted[:, k].sum() + truth[:, k].sum())) for k in range(classes)]


def stepper(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor],
            score: Callable[[Tensor, Tensor], Any], lr: float) -> Callable[[Tensor, Tensor], None]:
    """A training step with plain Adam and dropout that fetches loss and metrics every time."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.__class__ = nn.Dropout  # the library's own, with the same settings
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)

    def step(images: Tensor, targets: Tensor) -> None:
        outputs = model(images)
        value = loss(outputs, targets)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        value.item()
        score(nested(Tensor.detach, outputs), targets)
    return step


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of correct classes, fetched from the device."""
    return float((outputs.argmax(1) == targets).float().mean())


def grading_score(outputs: Tensor, targets: Tensor) -> float:
    """Share of correct ordinal codes, fetched from the device."""
    return float(((outputs > 0) == (targets > 0.5)).float().mean())


def triplet(outputs: Tensor, _: Tensor) -> Tensor:
    """Triplet loss of the codes of anchor, positive and negative: (B, 3, 1024), all encoded."""
    anchor, positive, negative = outputs.unbind(1)
    near, far = ((anchor - positive) ** 2).mean(1), ((anchor - negative) ** 2).mean(1)
    return (near - far + 1).clamp(min=0).mean()


def triplet_score(outputs: Tensor, _: Tensor) -> float:
    """Share of triplets in the right order, fetched from the device."""
    anchor, positive, negative = outputs.unbind(1)
    near, far = ((anchor - positive) ** 2).mean(1), ((anchor - negative) ** 2).mean(1)
    return float((near < far).float().mean())


def mean_score(task: Any, outputs: Any, targets: Tensor) -> list[float]:
    """The task's own figures, each fetched from the device."""
    return [float(values.float().mean()) for values in task.score(outputs, targets).values()]
