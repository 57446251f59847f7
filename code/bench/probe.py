"""What do pretrained encoders know of the labels before finetuning? Linear probes, none on test.

    python code/bench/probe.py 2d -- --data FOLDER --tasks baseline rotation --seeds 0 1 2 ...

Flags behind -- are those of the tree's exp.py; the encoders are those in RESULTS. The baseline's is
an encoder as it is initialised, with BatchNorm statistics of whole images, as the others have. Each
is frozen, and a linear model is fitted to what it makes of the training cases:

    3D: logistic regression on each voxel from all levels' maps, enlarged; Dice on validation
    2D: ridge regression from the code to the grade; quadratic-weighted kappa, cross-validated over
        training and validation cases (the validation cases alone are too few). The row "pixels"
        is the same model on the images themselves, shrunk to 32 pixels a side

Beside it how far pretraining has moved the convolutions: |w - w0| / |w0|, mean over layers. About
a minute an encoder. (Linear probes: Alain and Bengio 2016, arXiv 1610.01644.)
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from bench import trees
from common.arms import BASELINE
from common.downstream import metrics
from common.errors import InputError, exit_status
from common.machine import devices
from common.runs.encoders import for_whole_images, load_start, place
from common.runs.stages import load_cases
from common.runs.study import Study
from common.settings import from_flags
from common.tasks.batches import Cases, even_chunks, generator

VOXELS = 20_000          # of all training volumes, that the logistic regression is fitted to
ALPHAS = np.logspace(-2, 5, 15)  # of the ridge; the best by leave-one-out on what it is fitted to
FOLDS = 10
BATCH = 16               # photographs encoded at once
PIXELS = 32              # a side of the images that a linear model reads as they are


def main() -> int:
    """Probe every task's encoder of every seed."""
    asked, flags = trees.arguments(trees.parser(__doc__))
    exp = trees.script(asked.tree)
    settings = from_flags(vars(exp), flags)
    device = devices.choose(settings.DEVICE, ranks=1)[0]
    study = trees.study_of(exp, settings, device)
    cases = load_cases(study, device)
    print("| task | probe | by seed | moved |\n|---|---|---|---|", flush=True)
    if study.dimensions == 2:
        scores = np.array([photographs(study, cases, pixels, seed) for seed in settings.SEEDS])
        print(f"| pixels | {scores.mean():.3f} | {', '.join(f'{score:.3f}' for score in scores)} "
              "| |", flush=True)
    for task in settings.TASKS:
        found = [probe(study, cases, task, seed) for seed in settings.SEEDS]
        scores, distances = np.array(found).T
        print(f"| {task} | {scores.mean():.3f} | {', '.join(f'{score:.3f}' for score in scores)} | "
              f"{distances.mean():.3f} |", flush=True)
    return 0


def probe(study: Study, cases: Cases, task: str, seed: int) -> tuple[float, float]:
    """The probe's score on an encoder, and how far pretraining has moved that."""
    torch.manual_seed(seed)
    first = study.networks.encoder()  # as pretraining and the baseline begin
    network = study.networks.downstream(study.networks.encoder())
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    encoder.load_state_dict(first.state_dict())
    if task == BASELINE:
        weights = {f"encoder.{name}": value for name, value in first.state_dict().items()}
        network.load_state_dict(for_whole_images(study, weights, cases, seed), strict=False)
    elif study.pretrain_run(task, seed).done():
        load_start(study, network, task, seed, cases)
    else:
        raise InputError(f"{study.pretrain_run(task, seed).folder}: no encoder trained with these "
                         "settings; train it with exp.py and the same flags")
    place(study, encoder.eval(), cases.device)
    fit: Any = {"dice": volumes, "kappa": photographs}[study.downstream().monitor]
    return fit(study, cases, encoder, seed), moved(first, encoder)


@torch.no_grad()
def moved(before: nn.Module, after: nn.Module) -> float:
    """Distance of the convolutions' weights from where they began, relative to their norm."""
    weights = dict(after.named_parameters())
    return float(np.mean([float((weights[name].cpu() - start).norm() / start.norm())
                          for name, start in before.named_parameters() if start.ndim > 2]))


def pixels(images: Tensor) -> Tensor:
    """Images (B, C, H, W) as a code (B, C * PIXELS * PIXELS)."""
    return F.interpolate(images, size=(PIXELS, PIXELS), mode="area").flatten(1)


@torch.inference_mode()
def photographs(study: Study, cases: Cases, encoder: Callable[[Tensor], Tensor], seed: int
                ) -> float:
    """Kappa of a ridge regression from the code to the grade, on the folds left out."""
    part = study.part(seed)
    rows = cases.rows([*part.train, *part.val])
    batches = [cases.batch(chunk, labelled=True) for chunk in even_chunks(rows, BATCH)]
    codes = torch.cat([encoder(batch.images) for batch in batches]).cpu().numpy()
    grades = torch.cat([batch.labels for batch in batches if batch.labels is not None]
                       ).cpu().numpy()
    severity = cross_val_predict(make_pipeline(StandardScaler(), RidgeCV(ALPHAS)), codes, grades,
                                 cv=KFold(FOLDS, shuffle=True, random_state=0))
    # A ridge shrinks to the mean grade, so its order is taken: each grade gets its share of cases.
    predicted = np.empty_like(grades)
    predicted[np.argsort(severity)] = np.sort(grades)
    figures = study.downstream().summarise({"truth": grades, "predicted": predicted})
    return float(figures["kappa"])


@torch.inference_mode()
def volumes(study: Study, cases: Cases, encoder: nn.Module, seed: int) -> float:
    """Dice on validation of a logistic regression on every voxel's features."""
    rng, rows = generator(0, "voxels"), cases.rows(study.part(seed).train)
    features, truth = [], []
    for row in rows:
        maps, labels = voxels(cases, encoder, row)
        chosen = torch.randperm(len(labels), generator=rng)[:-(-VOXELS // len(rows))]
        features.append(maps[chosen].cpu().numpy())
        truth.append(labels[chosen].cpu().numpy())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(
        np.concatenate(features), np.concatenate(truth))
    task = study.downstream()
    tables = []
    for row in cases.rows(study.splits.val):
        maps, labels = voxels(cases, encoder, row)
        tables.append(metrics.confusion(labels.cpu(), model.predict(maps.cpu().numpy()),
                                        len(task.classes)))
    return float(task.summarise({"confusion": np.stack(tables)})["dice"])


def voxels(cases: Cases, encoder: nn.Module, row: int) -> tuple[Tensor, Tensor]:
    """Features (voxels, channels of all levels) and labels (voxels,) of a volume."""
    batch = cases.batch([row], labelled=True)
    space = batch.images.shape[2:]
    stages: Any = encoder.stages
    maps = [F.interpolate(part, size=space, mode="trilinear")
            for part in stages(batch.images)[:-1]]  # the code is the last map, pooled
    assert batch.labels is not None
    return torch.cat(maps, dim=1).movedim(1, -1).flatten(0, -2), batch.labels.flatten()


if __name__ == "__main__":
    sys.exit(exit_status(main))
