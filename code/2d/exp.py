"""How many labels does self-supervised pretraining save in 2D? Taleb et al. 2020, section 4.

    python code/2d/exp.py                        APTOS 2019; ./setup.sh fetches the photographs
    python code/2d/exp.py --data FOLDER          any folder of images and a CSV of grades
    python code/2d/exp.py --data FOLDER --classes 4    or of four classes without an order
    python code/2d/exp.py --demo                 generated photographs, minutes on a CPU
    python code/2d/exp.py --tune                 first chooses each arm's rates on validation
    python code/2d/exp.py --paper                finetuned as in the paper, beside the default

Trains a baseline and every pretext task's encoder on each labelled fraction and seed. Stop and
start it at will: finished runs are skipped, others go on. Records: results/2d/<dataset>/; then
python code/2d/graph.py draws the curve. The default grid needs a GPU.
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

from common.constants import *  # noqa: F403 - constants that mean the same in both trees
from common.data import splits
from common.downstream.classification import Classification
from common.downstream.grading import Grading
from common.errors import InputError, exit_status
from common.files import ROOT
from common.machine import limits
from common.runs import encoders
from common.runs.study import Networks, Study, Tree, home_of
from common.schedule import grid
from common.settings import Settings
from common.stats.measures import kappa_of
from common.tasks import augment

# What is run; more of it, what is not said here, stands in common/constants.py.
DATA = "data/fundus"           # folder of train.csv and images; as a flag, from where you are
ID_COLUMN = "id_code"          # of the CSV: the image's name, with or without extension
GRADE_COLUMN = "diagnosis"     # of the CSV: 0 to GRADES - 1, or names of CLASSES
GROUP_COLUMN = ""              # of the CSV: the patient, whose images stay on one side
TASKS = ["baseline", "rotation", "jigsaw", "rpl", "exemplar", "cpc",  # arms; README has more
         "vicreg", "oracle"]  # the best of a screening on validation; the control
FRACTIONS = [5, 10, 25, 50, 100]  # percent of training cases labelled (25, not .25); the paper's
SEEDS = [0, 1, 2, 3, 4]        # each with its own test fold, encoder, subsets, initialisation

# Both stages.
RESOLUTION = 224               # pixels a side after resizing; at least 29, with patch tasks 96
BLOCKS = [6, 12, 24, 16]       # dense layers of the four blocks: DenseNet-121
GROWTH = 32                    # channels each of them adds: DenseNet-121

# Pretraining.
PRETEXT_EPOCHS = 200           # passes over the pool at most; lower it to shorten runs

# Finetuning.
GRADES = 5                     # 0 to 4, the International Clinical Diabetic Retinopathy scale
CLASSES = 0                    # without an order, by name or number, instead of GRADES; 0: grades
FINETUNE_EPOCHS = 20           # equal steps at every fraction; raise it for sets of some hundreds
BATCH_SIZE = 32                # images; official
FINETUNE_LR = 5e-5             # Adam; official
FINETUNE_CLIP = 0.0            # global norm of the gradient; official; 0: none
AUGMENT_ZOOM = 0.15            # each axis scaled by 1 - this to 1 + this; official
AUGMENT_FLIPS = "both"         # mirrored half of the time; official. Or horizontal, vertical, none
AUGMENT_DEGREES = 0.0          # turned by up to this; official: not at all
AUGMENT_INTENSITY = False      # brightness and contrast, each for some of the images

DEMO = {                       # what --demo changes: minutes on two cores; chosen on validation
    "DATA": "results/demo/data/fundusphantom", "RESULTS": "results/demo",
    "CACHE": "results/demo/data", "TASKS": ["baseline", "rotation", "oracle"],
    "FRACTIONS": [5, 25, 100], "SEEDS": [0, 1, 2],
    "RESOLUTION": 64, "BLOCKS": [2, 2, 2, 2], "GROWTH": 8, "PRETEXT_EPOCHS": 6,
    "PRETEXT_LR": 2e-3, "PRETEXT_BATCH_SIZE": 16, "BATCH_SIZE": 16, "FINETUNE_EPOCHS": 16,
    "FINETUNE_LR": 2e-3, "VALIDATIONS": 4,
}
PAPER = {                      # what --paper changes, finetuning alone; sources: code/README.md
    "EQUAL_STEPS": False, "BATCH_SIZE": 32, "FINETUNE_EPOCHS": 20, "FINETUNE_LR": 5e-5,
    "FINETUNE_SCHEDULE": "constant", "FINETUNE_RAMP": 0.0, "FINETUNE_CLIP": 0.0,
    "AUGMENT_ZOOM": 0.15, "AUGMENT_FLIPS": "both", "AUGMENT_DEGREES": 0.0,
    "AUGMENT_INTENSITY": False, "WARMUP_EPOCHS": None, "WARMUP_SHARE": 3 / 20,
    "START_LR_FACTOR": 1.0, "START_NORM": "train", "FINETUNE_DROPOUT": None, "NORM_MOMENTUM": 0.01,
}
PHANTOMS = {"labelled": 200, "unlabelled": 170, "size": 80}  # photographs of the demo: 144 train


FLIPS = {"both": (0, 1), "horizontal": (0,), "vertical": (1,), "none": ()}  # axes, across first
LIBRARY = {"imagenet": encoders.External({"library": str(model.IMAGENET)}, model.imagenet)}


def main() -> int:
    """Every experiment of this tree, in the order of the paper."""
    return grid.run(*grid.prepare(globals(), TREE))


def check(settings: Settings) -> None:
    """Check the constants that only this tree has; InputError."""
    if len(settings.BLOCKS) != 4:
        raise InputError(f"BLOCKS = {settings.BLOCKS}: four numbers of layers expected")
    if settings.CLASSES == 1:
        raise InputError("CLASSES = 1: nothing to tell apart; give 2 or more, or 0 for grades")


def make_study(settings: Settings, precision: str, files: Mapping[str, Path]) -> Study:
    """Read and preprocess the photographs, split them, and say what is trained on them."""
    dataset = loader.open_dataset(ROOT / settings.DATA, unlabelled=settings.UNLABELLED,
                                  id_column=settings.ID_COLUMN, grades=settings.GRADES,
                                  grade_column=settings.GRADE_COLUMN, classes=settings.CLASSES,
                                  group_column=settings.GROUP_COLUMN)
    home = home_of(settings, "2d", dataset.name)
    cache = loader.build_cache(dataset, ROOT / settings.CACHE, resolution=settings.RESOLUTION,
                               workers=limits.cores())
    strata = loader.strata(cache)
    parts, free = splits.divide(cache, strata, home, generated=dataset.generated,
                                settings=settings,
                                groups=dataset.groups,  # of folders, the class is in an id too
                                names={one.id: one.image.stem for one in dataset.sources
                                       if one.id != one.image.stem})
    networks = networks_of(settings)
    change = partial(augmented, zoom=settings.AUGMENT_ZOOM, flips=settings.AUGMENT_FLIPS,
                     degrees=settings.AUGMENT_DEGREES, intensity=settings.AUGMENT_INTENSITY)
    count, ordered = labels_of(settings), not settings.CLASSES
    name, said = ("kappa", "QWK") if ordered else ("unweighted_kappa", "unweighted kappa")
    return Study(settings, "2d", dataset.name, dataset.generated, cache, parts, strata, free,
                 pretexts=pretext.PRETEXTS,
                 external=LIBRARY | encoders.from_files(files, networks.encoder, cache, parts,
                                                        seeds=settings.SEEDS),
                 downstream=partial(Grading if ordered else Classification, count, change),
                 measure=partial(kappa_of, name, said, count, ordered=ordered), networks=networks,
                 classes=dataset.classes or [f"grade {grade}" for grade in range(count)],
                 channels=["red", "green", "blue"], dimensions=2,
                 axes="Axis 0 points down, axis 1 to the right.", precision=precision,
                 rule=f"highest {'quadratic-weighted' if ordered else 'unweighted'} kappa on "
                      "validation")


def labels_of(settings: Settings) -> int:
    """How many grades or classes there are: the outputs of the network."""
    return int(settings.CLASSES or settings.GRADES)


def networks_of(settings: Settings) -> Networks:
    """The DenseNet with its head, a light decoder, and what a step costs."""
    return Networks(
        encoder=partial(model.Encoder, settings.BLOCKS, settings.GROWTH),
        decoder=model.Decoder, downstream=partial(model.Grader, classes=labels_of(settings)),
        channels_last=torch.channels_last,
        step_bytes=(model.STEP_BYTES * settings.GROWTH / 32 * settings.BATCH_SIZE
                    * settings.RESOLUTION**2),
        probe=max(model.SMALLEST, min(96, settings.RESOLUTION)),
        smaller="--resolution 96 --blocks 2 4 4 2 --growth 16", encoder_share=1.0)


def augmented(images: torch.Tensor, rng: torch.Generator, *, zoom: float, flips: str,
              degrees: float, intensity: bool) -> torch.Tensor:
    """Zoom, mirror, turn and re-light training images (B, 3, H, W), the same way for every arm."""
    count = len(images)
    matrix = augment.zooms(count, 2, 1 - zoom, 1 + zoom, rng)
    matrix = augment.flips(count, 2, rng, axes=FLIPS[flips]) @ matrix
    if degrees:
        angles = torch.deg2rad(augment.uniform(count, -degrees, degrees, rng))
        matrix = augment.rotations(angles, (0, 1), 2) @ matrix
    images = augment.resample(images, matrix)
    if intensity:
        images = augment.brightness_contrast(images, augment.some(count, -0.1, 0.1, 0.0, rng),
                                             augment.some(count, 0.75, 1.25, 1.0, rng))
    return images


TREE = Tree(name="2d", pretexts=pretext.PRETEXTS, check=check,
            smallest=lambda settings: model.SMALLEST,
            make_study=make_study, generate=lambda folder: phantom.generate(folder, **PHANTOMS),
            bfloat16_on_cpu=True, decoder=False, library=LIBRARY)

if __name__ == "__main__":
    sys.exit(exit_status(main))
