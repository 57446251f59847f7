"""Views and answers of pretext tasks as small images.

Of volumes the middle axial slice, turned as it is shown: to the right of the subject on the right,
to the front on top.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.runs.training import autocast
from common.tasks.batches import Cases, generator
from common.tasks.contract import Pretext

SHOWN = 2    # cases whose views and answers are kept
DRAW = 1     # of the views: one in which both cases are turned, in both trees
GAP = 1      # pixels between the views of a case
ANSWERS = "answers.npz"  # what a reconstruction's network answers, in its run's folder
CAPTION = "shown, answered, wanted; held out"

Array = NDArray[Any]


def write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays to a file, whole or not at all."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def answers(model: nn.Module, task: Pretext, cases: Cases, val: list[int],
            precision: str) -> dict[str, Array]:
    """What was shown, answered and wanted of the first validation cases, an image each.

    {} for a task without such pictures. ``model`` is in evaluation.
    """
    batch = cases.batch(val[:SHOWN], labelled=task.labelled)
    views, targets = task.prepare(batch, generator(DRAW, "pictures"), training=False)
    with torch.inference_mode(), autocast(cases.device, precision):
        found = task.pictures(views, model(views), targets)
    return {} if found is None else {
        "images": np.stack([montage(case) for case in found.float()]),
        "ids": np.array([cases.ids[row] for row in batch.cases])}


def to_bytes(image: Tensor, *, turned: bool) -> Array:
    """(C, h, w) in 0..1 -> (h, w, 3) for colours, else the first channel, (h, w)."""
    values = (image.clamp(0, 1) * 255).round().byte().cpu()
    planes = [np.rot90(one.numpy()) if turned else one.numpy() for one in values]
    return np.stack(planes, axis=2) if len(planes) == 3 else planes[0]


def montage(patches: Tensor) -> Array:
    """All views of a case, (V, C, *space), in one image, (h, w) or (h, w, 3) bytes.

    n^d views lie as the grid they were cut from, the layers of a volume side by side; any other
    number side by side. Of each volume its middle slice.
    """
    dimensions = patches.dim() - 2
    while patches.dim() > 4:
        patches = patches[..., patches.shape[-1] // 2]
    turned = dimensions > 2
    tiles = [_framed(to_bytes(patch, turned=turned)) for patch in patches]
    n = round(len(tiles) ** (1 / dimensions))
    if n < 2 or n**dimensions != len(tiles):
        return np.concatenate(tiles, axis=1)
    if not turned:
        return np.concatenate([np.concatenate(tiles[row * n:row * n + n], axis=1)
                               for row in range(n)])
    layers = []  # tile (i, j, k): i to the right, j to the top, k the layer
    for k in range(n ** (dimensions - 2)):
        across = [np.concatenate([tiles[(i * n + j) * n ** (dimensions - 2) + k]
                                  for i in range(n)], axis=1) for j in reversed(range(n))]
        layers.append(np.pad(np.concatenate(across),
                             [(0, 0), (0, 3 * GAP)] + [(0, 0)] * (across[0].ndim - 2),
                             constant_values=255))
    return np.concatenate(layers, axis=1)


def _framed(tile: Array) -> Array:
    """A tile with white pixels at its right and lower edge."""
    return np.pad(tile, [(0, GAP), (0, GAP)] + [(0, 0)] * (tile.ndim - 2), constant_values=255)
