"""Small arrays behind the pictures of graph.py, kept beside the records of a data set.

    views.npz       what each pretext task shows the network, of two cases of its pool
    examples.npz    test cases, their truth and what every arm predicts, at the fewest labels

Of volumes an axial slice is kept, turned as it is shown: to the right of the subject on the right,
to the front on top. Looked at after every start of exp.py, and made anew if runs have changed.
"""

import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from common import arms
from common.errors import InputError
from common.files import digest, file_lock
from common.machine import devices
from common.runs import checkpoint
from common.runs.encoders import place
from common.runs.stages import load_cases
from common.runs.study import Study
from common.runs.training import autocast
from common.tasks.batches import Cases, even_chunks, generator

SHOWN = 2    # cases whose views are kept
DRAW = 1     # of the views: one in which both cases are turned, in both trees
MOST = 100   # test cases kept at most, evenly over the sorted truths
SIDE = 128   # pixels a side that photographs are kept in, at most
GAP = 1      # pixels between the views of a case

Array = NDArray[Any]


def save(study: Study, device: torch.device) -> None:
    """Write both files; the predictions are those of the runs that are done.

    What goes wrong here is said, and fails nothing: the records are there, and all that counts.
    """
    if devices.place().rank > 0:  # one of those started together
        return
    try:
        with file_lock(study.folder / "locks" / "pictures.lock"):
            cases = load_cases(study, device)
            _write(study.folder / "views.npz", views(study, cases))
            if (found := examples(study, cases)) is not None:
                _write(study.folder / "examples.npz", found)
    except (InputError, OSError, RuntimeError) as error:
        print(f"warning: no pictures: {str(error).splitlines()[0]}; the records are untouched, the "
              "same command tries again", file=sys.stderr)


def _write(path: Path, arrays: dict[str, Array]) -> None:
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def views(study: Study, cases: Cases) -> dict[str, Array]:
    """Every single pretext task's views as one image a case, and what is asked of each."""
    names = dict.fromkeys(part for task in _arms(study) if study.pretrained_here(task)
                          for part in arms.parts(task) if part in study.pretexts)
    pool = study.pool(study.settings.SEEDS[0])
    batch = cases.batch(cases.rows(sorted(pool)[:SHOWN]), labelled=False)
    found: dict[str, Array] = {"tasks": np.array(list(names), dtype=str),
                               "axes": np.array(study.axes)}
    for name in names:
        task = study.task(name)
        shown, targets = task.prepare(batch, generator(DRAW, "pictures"), training=True)
        assert isinstance(shown, Tensor)
        found[f"views {name}"] = np.stack([montage(case) for case in shown])
        found[f"captions {name}"] = np.array([task.caption(targets, case)
                                              for case in range(len(shown))])
    return found


def examples(study: Study, cases: Cases) -> dict[str, Array] | None:
    """Test cases, their truth, and the predictions of every arm at the fewest labels.

    None if there is nothing new: the file is of these very runs.
    """
    downstream = study.downstream()
    fraction, seed = _smallest(study)
    runs = {task: study.finetune_run(task, fraction, seed) for task in _arms(study)}
    runs = {task: run for task, run in runs.items()
            if run.done() and (run.folder / "best.pt").exists()}
    digests = [digest(run.scores()) for run in runs.values()]
    if _unchanged(study.folder / "examples.npz", list(runs), digests):
        return None
    chosen = _some(study, seed)
    rows = cases.rows(chosen)
    labels = [_truth(cases, row) for row in rows]
    planes = [downstream.plane(label) for label in labels]
    predicted = [_predict(study, run.folder / "best.pt", cases, rows, planes)
                 for run in runs.values()]
    images = np.stack([_image(cases.batch([row], labelled=False).images[0], plane, study)
                       for row, plane in zip(rows, planes, strict=True)])
    return {"ids": np.array(chosen), "images": images,
            "truth": np.stack([_kept(label, plane)
                               for label, plane in zip(labels, planes, strict=True)]),
            "tasks": np.array(list(runs), dtype=str), "runs": np.array(digests, dtype=str),
            "fraction": np.array(fraction), "seed": np.array(seed),
            "predicted": np.array(predicted, dtype=np.uint8)}


def _truth(cases: Cases, row: int) -> Tensor:
    """The truth of one case: a map of classes, or a grade."""
    labels = cases.batch([row], labelled=True).labels
    assert labels is not None
    return labels[0]


def _arms(study: Study) -> list[str]:
    """The arms asked for now, the baseline first, and those that earlier commands have trained."""
    there = sorted(path.name for stage in ("pretrain", "finetune")
                   for path in (study.folder / stage).glob("*") if path.is_dir())
    return list(dict.fromkeys([arms.BASELINE, *study.settings.TASKS, *there]))


def _smallest(study: Study) -> tuple[int, int]:
    """The smallest fraction, and its first seed, that the baseline has been finetuned on."""
    done = sorted((int(path.parent.name.removeprefix("fraction")),
                   int(path.name.removeprefix("seed")))
                  for path in (study.folder / "finetune" / arms.BASELINE).glob("fraction*/seed*")
                  if (path / "scores.json").exists()
                  and path.name.removeprefix("seed").isdecimal())  # no further draw, none set aside
    return done[0] if done else (min(study.settings.FRACTIONS), study.settings.SEEDS[0])


def _unchanged(path: Path, tasks: list[str], digests: list[str]) -> bool:
    """Whether the file is of these runs."""
    try:
        with np.load(path, allow_pickle=False) as old:
            return old["tasks"].tolist() == tasks and old["runs"].tolist() == digests
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _some(study: Study, seed: int) -> list[str]:
    """Ids of at most MOST test cases of a seed, evenly over their strata."""
    ordered = sorted(study.part(seed).test, key=lambda case: (study.strata[case], case))
    count = min(MOST, len(ordered))
    return [ordered[index * len(ordered) // count] for index in range(count)]


def _predict(study: Study, weights: Path, cases: Cases, rows: Sequence[int],
             planes: Sequence[int | None]) -> Array:
    """What a finetuned network says of the kept plane of ``rows``: (cases, ...) class numbers."""
    model = study.networks.downstream(study.networks.encoder())
    model.load_state_dict(checkpoint.load(weights))
    place(study, model, cases.device)
    model.eval()
    downstream, found = study.downstream(), []
    size = max(1, study.settings.BATCH_SIZE // study.settings.RANKS_PER_RUN)
    with torch.inference_mode():
        for chunk in even_chunks(list(range(len(rows))), size):
            images = cases.batch([rows[i] for i in chunk], labelled=False).images
            with autocast(cases.device, study.precision):  # the stacking above is not within it
                outputs = model(images)
            found += [_kept(said, planes[i])
                      for i, said in zip(chunk, downstream.decode(outputs), strict=True)]
    return np.stack(found)


def _kept(classes: Tensor, plane: int | None) -> Array:
    """The kept plane of a case's class numbers, turned as it is shown; a grade as it is."""
    kept = _plane(classes, plane).cpu().numpy()
    return (np.rot90(kept) if kept.ndim == 2 else kept).astype(np.uint8)


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


def montage(patches: Tensor) -> Array:
    """All views of a case, (V, C, *space), in one image, (h, w) or (h, w, 3) bytes.

    n^d views lie as the grid they were cut from, the layers of a volume side by side; any other
    number side by side. Of each volume its middle slice.
    """
    dimensions = patches.dim() - 2
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
