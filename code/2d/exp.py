"""How many labels does self-supervised pretraining save in 2D? Taleb et al. 2020, section 4.

    python code/2d/exp.py                        APTOS 2019; ./setup.sh fetches the photographs
    python code/2d/exp.py --data FOLDER          any folder of images and a CSV of grades
    python code/2d/exp.py --demo                 generated photographs, minutes on a CPU

Trains a baseline and every pretext task's encoder on each labelled fraction and seed. Stop and
start it at will: finished runs are skipped, others go on. Records: results/2d/<dataset>/; then
python code/2d/graph.py draws the curve. The default grid needs a GPU.
"""

import sys
from collections.abc import Mapping
from functools import partial
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader
import model
import phantom
import pretext
import torch

from common import arms
from common.data.splits import make_splits, pool_of
from common.downstream.grading import Grading
from common.errors import InputError, exit_status
from common.files import ROOT
from common.machine import devices, limits
from common.runs import grid
from common.runs.encoders import External, check_origins, from_files, named
from common.runs.study import Study, results_folder
from common.settings import Settings, check_common, from_flags
from common.tasks import augment, joint

# What is run, and where; none of these changes a number of a run.
DATA = "data/fundus"           # folder of train.csv and images; as a flag, from where you are
ID_COLUMN = "id_code"          # of the CSV: the image's name, with or without extension
GRADE_COLUMN = "diagnosis"     # of the CSV: 0 to GRADES - 1
RESULTS = "results"            # records go to RESULTS/2d/<dataset>
CACHE = "data"                 # preprocessed arrays go to CACHE/<dataset>/cache
TASKS = ["baseline", "rotation", "jigsaw", "rpl", "exemplar", "cpc"]  # arms; README has more
ENCODER: list[str] = []        # more arms, from files: NAME=encoder.pt
FRACTIONS = [5, 10, 25, 50, 100]  # percent of the training cases labelled; the paper's
SEEDS = [0, 1, 2]              # each with its own encoder, subsets and initialisation; at least 3
DEVICE = "auto"                # auto, cpu, cuda or cuda:N
PRECISION = "auto"             # auto: bfloat16 where the device has it, else float32
WORKERS = 0                    # runs at a time; 0: by GPUs, or as many as cores and memory allow
RUNS_PER_GPU = 1               # runs at a time on each GPU, where its memory allows more than one
RANKS_PER_RUN = 1              # GPUs, or processes on the CPU, that train one run together
THREADS = 1                    # CPU threads a run; numbers then do not depend on the core count
RERUN = False                  # set runs made with other settings aside and train them anew
STRICT = False                 # stop at exact duplicates instead of keeping them on one side

# Both stages.
RESOLUTION = 224               # pixels a side after resizing; at least 29, with patch tasks 96
BLOCKS = [6, 12, 24, 16]       # dense layers of the four blocks: DenseNet-121
GROWTH = 32                    # channels each of them adds: DenseNet-121
LAYOUT = "channels_last"       # of weights in memory, or contiguous; the faster on the CPU
SPLIT_SEED = 0                 # of the test and validation split, the same for every run

# Pretraining.
PRETEXT_EPOCHS = 200           # passes over the pool at most; lower it to shorten runs
PRETEXT_PATIENCE = 50          # epochs without a better 5-epoch mean of the validation loss
PRETEXT_MIN_STEPS = 2000       # patience counts from here; small pools have few steps an epoch
PRETEXT_LR = 1e-4              # Adam; official 1e-5, which assumes 1000 epochs
PRETEXT_BATCH_SIZE = 0         # cases; 0: the task's own (pretext.py); if joint, the smallest
UNLABELLED = True              # images without a grade join the pretraining pool

# Finetuning.
GRADES = 5                     # 0 to 4, the International Clinical Diabetic Retinopathy scale
FINETUNE_EPOCHS = 20           # equal steps at every fraction; raise it for sets of some hundreds
WARMUP_EPOCHS: int | None = None  # epochs with a frozen encoder; None: 3/20 of FINETUNE_EPOCHS
WARMUP_SHARE = 3 / 20          # official: 3 of 20
START_LR_FACTOR = 1.0          # rate of the weights handed on, over FINETUNE_LR; not yet calibrated
BATCH_SIZE = 32                # images; official
FINETUNE_LR = 5e-5             # Adam; official
FINETUNE_SCHEDULE = "constant"  # of the rate; official. Or cosine, down to 0 at the last step
FINETUNE_CLIP = 0.0            # global norm of the gradient; official; 0: none
EQUAL_STEPS = True             # False: an epoch is a pass over the subset, as in the paper
VALIDATIONS = 20               # evenly over a run; the best on validation is reported on test
AUGMENT_ZOOM = 0.15            # each axis scaled by 1 - this to 1 + this; official
AUGMENT_FLIPS = True           # both axes mirrored, half of the time each; official

DEMO = {                       # what --demo changes: minutes on two cores; see README
    "DATA": "results/demo/data/fundusphantom", "RESULTS": "results/demo",
    "CACHE": "results/demo/data", "TASKS": ["baseline", "rotation", "oracle"],
    "FRACTIONS": [5, 25, 100], "SEEDS": [0, 1, 2],
    "RESOLUTION": 64, "BLOCKS": [2, 2, 2, 2], "GROWTH": 8, "PRETEXT_EPOCHS": 6,
    "PRETEXT_LR": 2e-3, "PRETEXT_BATCH_SIZE": 16, "BATCH_SIZE": 16, "FINETUNE_EPOCHS": 16,
    "FINETUNE_LR": 2e-3, "FINETUNE_SCHEDULE": "cosine", "START_LR_FACTOR": 0.1, "VALIDATIONS": 4,
}
LIBRARY = {"imagenet": External({"library": str(model.IMAGENET)}, model.imagenet)}
PHANTOMS = {"labelled": 200, "unlabelled": 170, "size": 80}  # photographs of the demo: 140 train


def main() -> int:
    """Every experiment of this tree, in the order of the paper."""
    settings = from_flags(globals())
    encoders = named(settings, [arms.BASELINE, arms.ORACLE, *LIBRARY, *pretext.PRETEXTS])
    check(settings, encoders)
    places = devices.choose(settings.DEVICE, ranks=settings.RANKS_PER_RUN)
    precision = devices.precision(settings.PRECISION, places, sound_on_cpu=True)
    if settings.DEMO:
        phantom.generate(ROOT / settings.DATA, **PHANTOMS)
    study = make_study(settings, precision, encoders)
    return grid.run(study, places, devices.workers(settings, places, study.step_bytes))


def check(settings: Settings, encoders: Mapping[str, Path]) -> None:
    """Check the constants against each other, before anything is read or written."""
    others = [arms.BASELINE, *LIBRARY, *encoders]
    check_common(settings, list(pretext.PRETEXTS), others)
    if len(settings.BLOCKS) != 4:
        raise InputError(f"BLOCKS = {settings.BLOCKS}: four numbers of layers expected")
    for name in settings.TASKS:
        side = partial(joint.view_side, name, pretext.PRETEXTS, others=others)
        if side(settings.RESOLUTION) < model.SMALLEST:
            smallest = next(size for size in count(model.SMALLEST) if side(size) >= model.SMALLEST)
            raise InputError(f"RESOLUTION = {settings.RESOLUTION}: a DenseNet needs views of "
                             f"{model.SMALLEST} pixels a side, for {name} that means at least "
                             f"--resolution {smallest}; raise it, or leave {name} out of TASKS")


def make_study(settings: Settings, precision: str,
               encoders: Mapping[str, Path]) -> Study:
    """Read and preprocess the photographs, split them, and say what is trained on them."""
    dataset = loader.open_dataset(ROOT / settings.DATA, unlabelled=settings.UNLABELLED,
                                  id_column=settings.ID_COLUMN, grades=settings.GRADES,
                                  grade_column=settings.GRADE_COLUMN)
    cache = loader.build_cache(dataset, ROOT / settings.CACHE, resolution=settings.RESOLUTION,
                               workers=limits.cores())
    strata = loader.strata(cache)
    folder = results_folder(settings) / "2d" / dataset.name
    parts = make_splits(cache, strata, folder, dataset=dataset.name,
                                generated=dataset.generated, settings=settings)
    check_origins(encoders, {case: fact["pixels"] for case, fact in cache.facts.items()},
                           val=parts.val, test=parts.test)
    make_encoder = partial(model.Encoder, settings.BLOCKS, settings.GROWTH)
    return Study(
        settings=settings, dataset=dataset.name, tree="2d", generated=dataset.generated,
        cache=cache, splits=parts, strata=strata, pool=pool_of(cache, parts),
        pretexts=pretext.PRETEXTS,
        external={**LIBRARY, **from_files(encoders, make_encoder)},
        downstream=partial(Grading, settings.GRADES,
                           partial(augmented, zoom=settings.AUGMENT_ZOOM,
                                   flips=settings.AUGMENT_FLIPS)),
        classes=[f"grade {grade}" for grade in range(settings.GRADES)],
        channels=["red", "green", "blue"], dimensions=2,
        probe=max(model.SMALLEST, min(96, settings.RESOLUTION)), encoder_share=1.0,
        make_encoder=make_encoder,
        make_network=partial(model.Grader, classes=settings.GRADES),
        channels_last=torch.channels_last, precision=precision,
        rule="highest quadratic-weighted kappa on validation",
        step_bytes=model.STEP_BYTES * settings.GROWTH / 32 * settings.BATCH_SIZE
        * settings.RESOLUTION**2)


def augmented(images: torch.Tensor, rng: torch.Generator, *, zoom: float,
              flips: bool) -> torch.Tensor:
    """Zoom and mirror training images (B, 3, H, W), the same way for every arm."""
    matrix = augment.zooms(len(images), 2, 1 - zoom, 1 + zoom, rng)
    if flips:
        matrix = augment.flips(len(images), 2, rng) @ matrix
    return augment.resample(images, matrix)


if __name__ == "__main__":
    sys.exit(exit_status(main))
