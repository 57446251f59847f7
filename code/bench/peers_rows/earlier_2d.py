"""The way of the earlier PyTorch code in 2D, written anew from its description.

float64 arrays, all in memory; each sample changed by numpy and scipy, one after another, in the
process that trains; grades as ordinal codes; a float32 network; a metric fetched at every step.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import default_collate

from bench.peers_rows.plan import Plan
from bench.peers_rows.torchvision_way import kappa
from bench.peers_rows.usual import Loop, Watch, train
from bench.rows import plain

Arrays = tuple[np.ndarray, np.ndarray]  # images (N, H, W, 3) float64 in 0..1, grades (N,)


def prepare(plan: Plan, watch: Watch) -> None:
    """Resize image after image to a square, into files of float64."""
    with watch("seconds"):
        size = (plan.side, plan.side)
        for part, cases in plan.cases.items():
            images = [np.asarray(Image.open(case.image).convert("RGB").resize(size), float) / 255
                      for case in cases]
            np.save(Path(plan.folder) / f"{part}.npy", np.stack(images))


def run(plan: Plan, watch: Watch) -> float:
    """Train and test; returns the quadratic-weighted kappa of the test cases."""
    with watch("data"):
        data = {part: (np.load(Path(plan.folder) / f"{part}.npy"),
                       np.array([case.grade for case in cases]))
                for part, cases in plan.cases.items()}
    return train(plan, Loop(_Batches(plan, data["train"]), F.binary_cross_entropy_with_logits,
                            partial(score, plan, data), plain.grading_score), watch)


class _Batches:
    """A pass over the training cases, sample by sample."""

    def __init__(self, plan: Plan, data: Arrays) -> None:
        self.plan, self.data, self.rng = plan, data, np.random.default_rng(plan.seed)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, grades = self.data
        order = self.rng.permutation(len(images))
        for start in range(0, len(order), self.plan.batch):
            rows = order[start:start + self.plan.batch]
            if len(rows) > 1:
                yield collated([changed(images[row], self.plan.changes["zoom"], self.rng)
                                for row in rows], grades[rows], self.plan.classes)


def collated(images: list[np.ndarray], grades: np.ndarray, classes: int) -> tuple[Tensor, Tensor]:
    """float32 images (B, 3, H, W) and grades as leading ones (B, K)."""
    batch, codes = default_collate([
        (image.transpose(2, 0, 1).astype(np.float32),
         (np.arange(classes) <= grade).astype(np.float32))
        for image, grade in zip(images, grades, strict=True)])
    return batch, codes


def changed(image: np.ndarray, zoom: float, rng: np.random.Generator) -> np.ndarray:
    """Zoom each axis of a sample about its centre, and mirror it half of the time."""
    factors = [*(1 / rng.uniform(1 - zoom, 1 + zoom, 2)), 1.0]
    centre = (np.array(image.shape) - 1) / 2
    image = affine_transform(image, factors, centre - factors * centre, order=1)
    return image[:, ::-1] if rng.random() < 0.5 else image


def score(plan: Plan, data: dict[str, Arrays], model: nn.Module, part: str) -> float:
    """Quadratic-weighted kappa, by scikit-learn."""
    images, grades = data[part]
    predicted: list[int] = []
    for start in range(0, len(images), plan.batch):
        rows = slice(start, start + plan.batch)
        outputs = model(collated(list(images[rows]), grades[rows], plan.classes)[0])
        predicted += ((outputs > 0).sum(1) - 1).clamp(0, plan.classes - 1).tolist()
    return kappa(grades.tolist(), predicted, plan.classes)
