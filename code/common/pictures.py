"""Small arrays behind the pictures of graph.py, kept beside the records of a data set.

    views.npz       what each pretext task shows the network, of two cases of its pool
    examples.npz    test cases, their truth and what every arm predicts, at the fewest labels

Of volumes an axial slice is kept, turned as it is shown: to the right of the subject on the right,
to the front on top. Made anew at every start of exp.py, in seconds.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common import arms, checkpoint, devices
from common.experiment import Study, load_cases, place
from common.records import file_lock
from common.training import Cases, autocast, even_chunks, generator

SHOWN = 2    # cases whose views are kept
MOST = 100   # test cases kept at most, evenly over the sorted truths
SIDE = 128   # pixels a side that photographs are kept in, at most
GAP = 1      # pixels between the views of a case

Array = NDArray[Any]


def save(study: Study, device: torch.device) -> None:
    """Write both files; the predictions are those of the runs that are done."""
    if devices.place().rank > 0:  # one of those started together
        return
    with file_lock(study.folder / "locks" / "pictures.lock"):
        cases = load_cases(study, devices.of_rank(device, 0))
        _write(study.folder / "views.npz", views(study, cases))
        _write(study.folder / "examples.npz", examples(study, cases))


def _write(path: Path, arrays: dict[str, Array]) -> None:
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def views(study: Study, cases: Cases) -> dict[str, Array]:
    """Every single pretext task's views as one image a case, and what is asked of each."""
    names = dict.fromkeys(part for task in study.settings.TASKS if study.pretrained_here(task)
                          for part in arms.parts(task))
    batch = cases.batch(cases.rows(sorted(study.pool)[:SHOWN]), labelled=False)
    found: dict[str, Array] = {"tasks": np.array(list(names), dtype=str)}
    for name in names:
        task = study.pretext(name)
        shown, targets = task.prepare(batch, generator(0, "pictures"), training=True)
        assert isinstance(shown, Tensor)
        found[f"views {name}"] = np.stack([montage(case, study.dimensions) for case in shown])
        found[f"captions {name}"] = np.array([task.caption(targets, case)
                                              for case in range(len(shown))])
    return found


def examples(study: Study, cases: Cases) -> dict[str, Array]:
    """Test cases, their truth, and the predictions of every arm at the smallest fraction."""
    downstream = study.downstream()
    fraction, seed = min(study.settings.FRACTIONS), study.settings.SEEDS[0]
    chosen = _some(study)
    rows = cases.rows(chosen)
    labels = cases.batch(rows, labelled=True).labels
    assert labels is not None
    planes = [downstream.plane(label) for label in labels]
    tasks, predicted = [], []
    for task in study.settings.TASKS:
        run = study.finetune_run(task, fraction, seed)
        if run.done() and (run.folder / "best.pt").exists():
            tasks.append(task)
            predicted.append(_kept(_predict(study, run.folder / "best.pt", cases, rows), planes))
    images = np.stack([_image(cases.batch([row], labelled=False).images[0], plane, study)
                       for row, plane in zip(rows, planes, strict=True)])
    return {"ids": np.array(chosen), "images": images, "truth": _kept(labels, planes),
            "tasks": np.array(tasks, dtype=str), "fraction": np.array(fraction),
            "seed": np.array(seed), "predicted": np.array(predicted, dtype=np.uint8)}


def _some(study: Study) -> list[str]:
    """Ids of at most MOST test cases, evenly over their strata."""
    ordered = sorted(study.splits.test, key=lambda case: (study.strata[case], case))
    count = min(MOST, len(ordered))
    return [ordered[index * len(ordered) // count] for index in range(count)]


def _predict(study: Study, weights: Path, cases: Cases, rows: Sequence[int]) -> Tensor:
    """What a finetuned network says of ``rows``: (cases, ...) class numbers."""
    model = study.make_network(study.make_encoder())
    model.load_state_dict(checkpoint.load(weights))
    place(study, model, cases.device)
    model.eval()
    downstream, parts = study.downstream(), []
    with torch.inference_mode(), autocast(cases.device, study.precision):
        for chunk in even_chunks(list(rows), study.settings.BATCH_SIZE):
            outputs = model(cases.batch(chunk, labelled=False).images)
            parts.append(downstream.decode(outputs).cpu())
    return torch.cat(parts)


def _kept(maps: Tensor, planes: Sequence[int | None]) -> Array:
    """The kept plane of every case's class numbers, as it is shown; a grade as it is."""
    return np.stack([_shown(_plane(one, plane)).astype(np.uint8)
                     for one, plane in zip(maps.cpu(), planes, strict=True)])


def _plane(maps: Tensor, plane: int | None) -> Tensor:
    """A slice across the last axis; whole without one."""
    return maps if plane is None else maps[..., plane]


def _image(image: Tensor, plane: int | None, study: Study) -> Array:
    """The kept plane of an image (C, *space) as bytes."""
    if plane is None and study.settings.RESOLUTION > SIDE:
        image = F.interpolate(image[None], size=(SIDE, SIDE), mode="area")[0]
    return _bytes(_plane(image, plane), turned=plane is not None)


def _bytes(image: Tensor, *, turned: bool) -> Array:
    """(C, h, w) in 0..1 -> (h, w, 3) for colours, else the first channel, (h, w)."""
    values = (image.clamp(0, 1) * 255).round().byte().cpu()
    planes = [np.rot90(one.numpy()) if turned else one.numpy() for one in values]
    return np.stack(planes, axis=2) if len(planes) == 3 else planes[0]


def _shown(maps: Tensor) -> Array:
    """Class numbers of a slice turned as images are; a single number as it is."""
    return np.rot90(maps.numpy()) if maps.dim() == 2 else maps.numpy()


def montage(patches: Tensor, dimensions: int) -> Array:
    """All views of a case, (V, C, *space), in one image, (h, w) or (h, w, 3) bytes.

    n^d views lie as the grid they were cut from, the layers of a volume side by side; any other
    number side by side. Of each volume its middle slice.
    """
    while patches.dim() > 4:
        patches = patches[..., patches.shape[-1] // 2]
    turned = dimensions > 2
    tiles = [_framed(_bytes(patch, turned=turned)) for patch in patches]
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
