"""Small arrays behind the pictures of graph.py, kept beside the records of a data set.

    views.npz       what each pretext task shows the network, of two cases of its pool
    examples.npz    test cases, their truth and what every arm predicts, at the fewest labels

Of volumes an axial slice is kept, turned as it is shown: to the right of the subject on the right,
to the front on top. Looked at after every start of exp.py, and made anew if runs have changed.
"""

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common import arms
from common.errors import InputError
from common.files import digest, file_lock
from common.machine import devices
from common.runs import pictures, trained
from common.runs.encoders import place
from common.runs.pictures import DRAW, SHOWN, Array, montage, to_bytes, write_arrays
from common.runs.stages import load_cases
from common.runs.study import Study
from common.runs.training import autocast
from common.tasks.batches import Cases, even_chunks, generator

MOST = 100   # test cases kept at most, evenly over the sorted truths
SIDE = 128   # pixels a side that photographs are kept in, at most


def save(study: Study, device: torch.device) -> None:
    """Write both files; the predictions are those of the runs that are done.

    What goes wrong here is said, and fails nothing: the records are there, and all that counts.
    """
    if devices.place().rank > 0:  # one of those started together
        return
    try:
        with file_lock(study.folder / "locks" / "pictures.lock"):
            cases = load_cases(study, device)
            write_arrays(study.folder / "views.npz", views(study, cases))
            if (found := examples(study, cases)) is not None:
                write_arrays(study.folder / "examples.npz", found)
    except (InputError, OSError, RuntimeError) as error:
        print(f"warning: no pictures: {str(error).splitlines()[0]}; the records are untouched, the "
              "same command tries again", file=sys.stderr)


def views(study: Study, cases: Cases) -> dict[str, Array]:
    """Every single pretext task's views as one image a case, and what is asked of each.

    Of a reconstruction that has been trained, what it answers on validation cases.
    """
    names = dict.fromkeys(part for task in _arms(study) if study.pretrained_here(task)
                          for part in arms.parts(task) if part in study.pretexts)
    pool = study.pool(study.settings.SEEDS[0])
    batch = cases.batch(cases.rows(sorted(pool)[:SHOWN]), labelled=False)
    found: dict[str, Array] = {"tasks": np.array(list(names), dtype=str),
                               "axes": np.array(study.axes)}
    for name in names:
        if answers := _answers(study, name):
            found[f"views {name}"] = answers["images"]
            found[f"captions {name}"] = np.full(len(answers["images"]), pictures.CAPTION)
            continue
        task = study.task(name)
        shown, targets = task.prepare(batch, generator(DRAW, "pictures"), training=True)
        assert isinstance(shown, Tensor)
        found[f"views {name}"] = np.stack([montage(case) for case in shown])
        found[f"captions {name}"] = np.array([task.caption(targets, case)
                                              for case in range(len(shown))])
    return found


def _answers(study: Study, task: str) -> dict[str, Array]:
    """What the network of a task answers, of the first seed that has been trained; {} if none."""
    for seed in study.settings.SEEDS:
        run = study.pretrain_run(task, seed)
        if run.done() and (path := run.folder / pictures.ANSWERS).exists():
            try:
                with np.load(path, allow_pickle=False) as saved:
                    return {"images": saved["images"], "ids": saved["ids"]}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue  # damaged: its views are drawn instead
    return {}


def examples(study: Study, cases: Cases) -> dict[str, Array] | None:
    """Test cases, their truth, and the predictions of every arm at the fewest labels.

    None if there is nothing new: the file is of these very runs.
    """
    downstream = study.downstream()
    fraction, seed = _smallest(study)
    runs = {task: study.finetune_run(task, fraction, seed) for task in _arms(study)}
    runs = {task: run for task, run in runs.items()
            if run.done() and (run.folder / trained.NAME).exists()}
    digests = [digest(run.scores()) for run in runs.values()]
    if _unchanged(study.folder / "examples.npz", list(runs), digests):
        return None
    chosen = _some(study, seed)
    rows = cases.rows(chosen)
    labels = [_truth(cases, row) for row in rows]
    planes = [downstream.plane(label) for label in labels]
    predicted = [_predict(study, run.folder / trained.NAME, cases, rows, planes)
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
    model.load_state_dict(trained.weights_of(weights))
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
    return to_bytes(_plane(image, plane), turned=plane is not None)
