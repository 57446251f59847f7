"""Scores in the patient's own geometry: a network's answer resampled into the scan's grid.

Dice; the 95th percentile Hausdorff distance (HD95, mm); normalised surface Dice (NSD) at 1 mm
(Nikolov et al. 2021). A surface is the voxels of a mask that have a face on something else; its
distances are those of voxel centres, in mm. They are found by a tree of points: exact, as from
distance maps of the whole grid, at a hundredth of their cost.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 1.0   # mm, of NSD
PERCENTILE = 95.0
DIGITS = 6        # kept of a score

Labels = NDArray[np.uint8]


def enlarged(probabilities: Tensor, size: Sequence[int]) -> Iterator[Tensor]:
    """The probability of one class after the other, resampled linearly to (X, Y, Z) voxels.

    ``probabilities``: (K, R, R, R), on the CPU.
    """
    for one in probabilities:
        yield F.interpolate(one[None, None], size=list(size), mode="trilinear",
                            align_corners=False)[0, 0]


def most_likely(probabilities: Tensor, size: Sequence[int]) -> Labels:
    """The class of every voxel of (X, Y, Z); one class at a time, for the sake of memory."""
    several = enlarged(probabilities, size)
    best = next(several)
    labels = torch.zeros(*size, dtype=torch.uint8)
    for number, one in enumerate(several, 1):
        labels[one > best] = number
        best = torch.maximum(best, one)
    return np.asarray(labels.numpy())


def in_box(probabilities: Tensor, shape: Sequence[int], box: Sequence[slice]) -> Labels:
    """The class of every voxel of a scan (X, Y, Z); outside of ``box`` background."""
    labels = np.zeros(shape, np.uint8)
    labels[tuple(box)] = most_likely(probabilities, [side.stop - side.start for side in box])
    return labels


def scores(truth: Labels, predicted: Labels, classes: Sequence[str],
           spacing: Sequence[float] | None) -> dict[str, float | None]:
    """Dice, HD95 and NSD of label maps (X, Y, Z), of each class and their means; None: absent.

    ``classes``: of the foreground. ``spacing`` in mm; None where it is not known: Dice alone. A
    class that neither has does not count; one that is missed or invented has Dice and NSD 0 and as
    HD95 the diagonal of the scan, so that missing more never improves a mean.
    """
    found: dict[str, dict[str, float | None]] = {"native_dice": {}}
    if spacing is not None:
        found |= {"hd95": {}, "nsd": {}}
    for number, name in enumerate(classes, 1):
        one, other = truth == number, predicted == number
        total = int(one.sum() + other.sum())
        found["native_dice"][name] = 2 * int((one & other).sum()) / total if total else None
        if spacing is not None:
            found["hd95"][name], found["nsd"][name] = of_surfaces(one, other, spacing)
    return {key: None if value is None else round(value, DIGITS)
            for kind, values in found.items() for key, value in (
                (kind, _mean(values.values())),
                *((f"{kind}_{name}", one) for name, one in values.items()))}


def of_surfaces(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing: Sequence[float]
                ) -> tuple[float | None, float | None]:
    """HD95 (mm) and NSD at 1 mm of two masks (X, Y, Z); None for both if both are empty."""
    surfaces = [surface(mask, spacing) for mask in (truth, predicted)]
    if not len(surfaces[0]) and not len(surfaces[1]):
        return None, None
    if not len(surfaces[0]) or not len(surfaces[1]):
        return float(np.linalg.norm(np.multiply(truth.shape, spacing))), 0.0
    there, back = (KDTree(to).query(of)[0] for of, to in (surfaces, surfaces[::-1]))
    near = int((there <= TOLERANCE).sum() + (back <= TOLERANCE).sum())
    return (float(max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))),
            near / (len(there) + len(back)))


def surface(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Where the voxels of a mask (X, Y, Z) lie that have a face on something else: (n, 3), mm.

    The edge of the scan is something else.
    """
    box = find_objects(mask.view(np.uint8))
    if not box or box[0] is None:
        return np.zeros((0, 3))
    inside = mask[box[0]]
    places = np.argwhere(inside & ~binary_erosion(inside))
    first: Any = [side.start for side in box[0]]
    return np.asarray((places + first) * np.asarray(spacing, float))


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
