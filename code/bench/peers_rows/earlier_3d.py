"""The way of the earlier PyTorch code in 3D, written anew from its description.

float64 arrays, all in memory; each sample changed by numpy and scipy, one after another, in the
process that trains; one-hot labels; a float32 network; Dice of each class fetched at every step.
Corrected, since the scores could not be equal otherwise: canonical orientation, intensities between
percentiles, labels resized to the nearest. It has no workers, whatever the cores.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import affine_transform, zoom
from scipy.spatial.transform import Rotation
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from bench.peers_rows.plan import Case, Plan
from bench.peers_rows.usual import Loop, Watch, train
from bench.rows import plain
from common.tasks.augment import LIT

BODY, LOW, HIGH = 0.05, 0.5, 99.5  # as in the project's loader
Arrays = tuple[np.ndarray, np.ndarray]  # images and label maps, of a case or of all


def prepare(plan: Plan, watch: Watch) -> None:
    """Preprocess case after case into files of float64."""
    with watch("seconds"):
        for part, cases in plan.cases.items():
            images, labels = zip(*(preprocess(case, plan.side) for case in cases), strict=True)
            for name, arrays in (("images", images), ("labels", labels)):
                np.save(Path(plan.folder) / f"{part}_{name}.npy", np.stack(arrays))


def preprocess(case: Case, side: int) -> Arrays:
    """Load a pair as float64, turn, scale, crop to the body and resize it."""
    volume, classes = (nib.as_closest_canonical(nib.load(file)).get_fdata()
                       for file in (case.image, case.label))
    low, high = np.percentile(volume, [LOW, HIGH])
    volume = np.clip((volume - low) / (high - low), 0, 1)
    places = np.where(volume > BODY)
    box = tuple(slice(axis.min(), axis.max() + 1) for axis in places)
    volume, classes = volume[box], classes[box]
    factors = [side / length for length in volume.shape]
    return (zoom(volume, factors, order=1, mode="nearest", grid_mode=True),
            zoom(classes, factors, order=0, mode="nearest", grid_mode=True))


def run(plan: Plan, watch: Watch) -> float:
    """Train and test; returns the mean Dice of the test cases."""
    with watch("data"):
        data = {part: (np.load(Path(plan.folder) / f"{part}_images.npy"),
                       np.load(Path(plan.folder) / f"{part}_labels.npy")) for part in plan.cases}
    return train(plan, Loop(_Batches(plan, data["train"]), loss, partial(score, plan, data),
                            plain.dice_scores), watch)


class _Batches:
    """A pass over the training cases, sample by sample."""

    def __init__(self, plan: Plan, data: Arrays) -> None:
        self.plan, self.data, self.rng = plan, data, np.random.default_rng(plan.seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.data
        order = self.rng.permutation(len(images))
        for start in range(0, len(order), self.plan.batch):
            rows = order[start:start + self.plan.batch]
            if len(rows) > 1:
                yield collated([changed(images[row], labels[row], self.plan, self.rng)
                                for row in rows], self.plan.classes)


def collated(samples: list[Arrays], classes: int) -> tuple[Tensor, Tensor]:
    """float32 images (B, 1, D, H, W), one-hot float64 labels (B, K, D, H, W)."""
    images, labels = default_collate([
        (image[None].astype(np.float32), np.moveaxis(np.eye(classes)[label.astype(int)], -1, 0))
        for image, label in samples])
    return images, labels


def changed(image: np.ndarray, label: np.ndarray, plan: Plan, rng: np.random.Generator) -> Arrays:
    """Turn, scale and re-light a sample, by the ranges and chances of 3d/exp.py."""
    share, degrees, size = (plan.changes[name] for name in ("share", "degrees", "zoom"))
    turned, scaled = rng.random(2) < share
    matrix = np.eye(3)
    if turned:
        matrix = Rotation.from_euler("xyz", rng.uniform(-degrees, degrees, 3),
                                     degrees=True).as_matrix()
    if scaled:
        matrix = matrix / rng.uniform(1 - size, 1 + size)
    if turned or scaled:
        centre = (np.array(image.shape) - 1) / 2
        offset = centre - matrix @ centre
        image = affine_transform(image, matrix, offset, order=1)
        label = affine_transform(label, matrix, offset, order=0)
    if rng.random() < LIT:
        image = (image - image.mean()) * rng.uniform(0.75, 1.25) + image.mean()
    if rng.random() < LIT:
        image = image + rng.uniform(-0.1, 0.1)
    if rng.random() < LIT:
        image = np.clip(image, 0, 1) ** rng.uniform(0.7, 1.5)
    if rng.random() < LIT:
        image = image + rng.normal(0, rng.uniform(0, 0.1), image.shape)
    return image, label


def loss(outputs: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice and cross-entropy against one-hot labels."""
    return plain.dice_loss(outputs, truth) + F.cross_entropy(outputs, truth.to(outputs.dtype))


def score(plan: Plan, data: dict[str, Arrays], model: nn.Module, part: str) -> float:
    """Mean over cases of the mean Dice of the foreground classes, each fetched."""
    images, labels = data[part]
    found = []
    for start in range(0, len(images), plan.batch):
        rows = range(start, min(start + plan.batch, len(images)))
        batch, truth = collated([(images[row], labels[row]) for row in rows], plan.classes)
        outputs = model(batch)
        found += [plain.dice_scores(outputs[n:n + 1], truth[n:n + 1])[1:] for n in range(len(rows))]
    return float(torch.tensor(found).nanmean(1).nanmean())
