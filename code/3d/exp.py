"""How many labels does self-supervised pretraining save in 3D? Taleb et al. 2020, section 4.

    python code/3d/exp.py                        the pancreas grid; ./setup.sh fetches the scans
    python code/3d/exp.py --data MSD_FOLDER      any folder in the layout of the MSD archives
    python code/3d/exp.py --demo                 generated scans, small settings, minutes on a CPU

Trains a baseline and every pretext task's encoder on each labelled fraction and seed. Stop and
start it at will: finished runs are skipped, others go on. Records: results/3d/<dataset>/; then
python code/3d/graph.py draws the curve. The default grid needs a GPU.
"""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader
import model
import phantom
import pretext
import torch

from common import arms
from common.data.splits import make_splits, pool_of
from common.downstream.segmentation import Segmentation
from common.errors import InputError, exit_status
from common.files import ROOT
from common.machine import devices, limits
from common.runs import grid
from common.runs.encoders import check_origins, from_files, named
from common.runs.study import Study, results_folder
from common.settings import Settings, check_common, from_flags
from common.tasks import joint

# What is run, and where; none of these changes a number of a run.
DATA = "data/Task07_Pancreas"  # folder with dataset.json; as a flag, from where you are
RESULTS = "results"            # records go to RESULTS/3d/<dataset>
CACHE = "data"                 # preprocessed arrays go to CACHE/<dataset>/cache
TASKS = ["baseline", "rotation", "jigsaw", "rpl", "exemplar", "cpc"]  # arms; README has more
ENCODER: list[str] = []        # more arms, from files: NAME=encoder.pt
FRACTIONS = [5, 10, 25, 50, 100]  # percent of the training cases labelled; the paper's
SEEDS = [0, 1, 2]              # each with its own encoder, subsets and initialisation; at least 3
DEVICE = "auto"                # auto, cpu, cuda or cuda:N
PRECISION = "auto"             # auto: bfloat16 on a GPU, float32 on the CPU (see devices.py)
WORKERS = 0                    # runs at a time; 0: by GPUs, or as many as cores and memory allow
RUNS_PER_GPU = 1               # runs at a time on each GPU, where its memory allows more than one
RANKS_PER_RUN = 1              # GPUs, or processes on the CPU, that train one run together
THREADS = 1                    # CPU threads a run; numbers then do not depend on the core count
CHECKPOINTING = False          # run each block twice a step for 40 % less memory; same numbers
RERUN = False                  # set runs made with other settings aside and train them anew
STRICT = False                 # stop at exact duplicates instead of keeping them on one side

# Both stages.
RESOLUTION = 128               # voxels a side after resizing; divisible by 2^(LEVELS + 1)
LEVELS = 4                     # of the U-Net above its bottleneck; 64 goes with 3, 32 with 2
FILTERS = 16                   # channels of the first level, doubled at each next
INTENSITY = "percentile"       # percentile (0.5 to 99.5), or minmax as in the paper
LAYOUT = "channels_last"       # of weights in memory, or contiguous; the faster on the CPU
SPLIT_SEED = 0                 # of the test and validation split, the same for every run

# Pretraining.
PRETEXT_EPOCHS = 1000          # passes over the pool at most (official); lower it to shorten runs
PRETEXT_PATIENCE = 50          # epochs without a better 5-epoch mean of the validation loss
PRETEXT_MIN_STEPS = 2000       # patience counts from here; small pools have few steps an epoch
PRETEXT_LR = 1e-4              # Adam; official
PRETEXT_BATCH_SIZE = 0         # cases; 0: the task's own (pretext.py); if joint, the smallest
UNLABELLED = True              # imagesTs join the pretraining pool

# Finetuning.
FINETUNE_EPOCHS = 150          # equal steps at every fraction: the paper's total over its fractions
WARMUP_EPOCHS: int | None = None  # epochs with a frozen encoder; None: 1/16 of FINETUNE_EPOCHS
WARMUP_SHARE = 1 / 16          # official: 25 of 400
START_LR_FACTOR = 1.0          # rate of the weights handed on, over FINETUNE_LR; not yet calibrated
BATCH_SIZE = 4                 # volumes; official 2, too few for BatchNorm
FINETUNE_LR = 1e-3             # Adam; official
FINETUNE_SCHEDULE = "constant"  # of the rate; official. Or cosine, down to 0 at the last step
FINETUNE_CLIP = 1.0            # global norm of the gradient; official; 0: none
EQUAL_STEPS = True             # False: an epoch is a pass over the subset, as in the paper
VALIDATIONS = 20               # evenly over a run; the best on validation is reported on test

DEMO = {                       # what --demo changes: minutes on two cores; see README
    "DATA": "results/demo/data/Task00_CTPhantom", "RESULTS": "results/demo",
    "CACHE": "results/demo/data", "TASKS": ["baseline", "rotation", "oracle"],
    "FRACTIONS": [5, 25, 100], "SEEDS": [0, 1, 2],
    "RESOLUTION": 16, "LEVELS": 1, "FILTERS": 8, "PRETEXT_EPOCHS": 22, "PRETEXT_LR": 1e-3,
    "PRETEXT_BATCH_SIZE": 16, "FINETUNE_EPOCHS": 12, "FINETUNE_LR": 2e-2,
    "FINETUNE_SCHEDULE": "cosine", "START_LR_FACTOR": 0.1, "VALIDATIONS": 4,
}
PHANTOMS = {"labelled": 60, "unlabelled": 120, "size": 24}  # scans of the demo: 42 train


def main() -> int:
    """Every experiment of this tree, in the order of the paper."""
    settings = from_flags(globals())
    encoders = named(settings, [arms.BASELINE, arms.ORACLE, *pretext.PRETEXTS])
    check(settings, encoders)
    places = devices.choose(settings.DEVICE, ranks=settings.RANKS_PER_RUN)
    precision = devices.precision(settings.PRECISION, places, sound_on_cpu=False)
    if settings.DEMO:
        phantom.generate(ROOT / settings.DATA, **PHANTOMS)
    study = make_study(settings, precision, encoders)
    return grid.run(study, places, devices.workers(settings, places, study.step_bytes))


def check(settings: Settings, encoders: Mapping[str, Path]) -> None:
    """Check the constants against each other, before anything is read or written."""
    others = [arms.BASELINE, *encoders]
    check_common(settings, list(pretext.PRETEXTS), others)
    smallest = model.smallest_input(settings.LEVELS)
    if settings.RESOLUTION % smallest:
        raise InputError(f"RESOLUTION = {settings.RESOLUTION} does not fit LEVELS = "
                         f"{settings.LEVELS}: it must be divisible by {smallest}; 128 goes with 4 "
                         "levels, 64 with 3, 32 with 2")
    for name in settings.TASKS:
        side = joint.view_side(name, pretext.PRETEXTS, settings.RESOLUTION, others)
        if side < smallest:
            raise InputError(f"RESOLUTION = {settings.RESOLUTION}: the views of {name} have "
                             f"{side} voxels a side, but {settings.LEVELS} levels need "
                             f"{smallest}; raise RESOLUTION or lower LEVELS")


def make_study(settings: Settings, precision: str,
               encoders: Mapping[str, Path]) -> Study:
    """Read and preprocess the scans, split them, and say what is trained on them."""
    dataset = loader.open_dataset(ROOT / settings.DATA, unlabelled=settings.UNLABELLED)
    cache = loader.build_cache(dataset, ROOT / settings.CACHE, resolution=settings.RESOLUTION,
                               intensity=settings.INTENSITY, workers=limits.cores())
    strata = loader.strata(cache)
    folder = results_folder(settings) / "3d" / dataset.name
    parts = make_splits(cache, strata, folder, dataset=dataset.name,
                                generated=dataset.generated, settings=settings)
    check_origins(encoders, {case: fact["pixels"] for case, fact in cache.facts.items()},
                           val=parts.val, test=parts.test)
    make_encoder = partial(model.Encoder, len(dataset.channels), settings.FILTERS, settings.LEVELS,
                           checkpointing=settings.CHECKPOINTING)
    return Study(
        settings=settings, dataset=dataset.name, tree="3d", generated=dataset.generated,
        cache=cache, splits=parts, strata=strata, pool=pool_of(cache, parts),
        pretexts=pretext.PRETEXTS, external=from_files(encoders, make_encoder),
        downstream=partial(Segmentation, dataset.classes),
        classes=dataset.classes[1:], channels=dataset.channels, dimensions=3,
        probe=max(model.smallest_input(settings.LEVELS), min(32, settings.RESOLUTION)),
        encoder_share=0.3, make_encoder=make_encoder,
        make_network=partial(model.UNet, classes=len(dataset.classes)),
        channels_last=torch.channels_last_3d, precision=precision,
        rule="highest mean foreground Dice on validation",
        step_bytes=(model.CHECKPOINTED_BYTES if settings.CHECKPOINTING else model.STEP_BYTES)
        * settings.FILTERS / 16 * settings.BATCH_SIZE * settings.RESOLUTION**3)


if __name__ == "__main__":
    sys.exit(exit_status(main))
