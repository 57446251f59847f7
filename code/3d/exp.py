"""How many labels does self-supervised pretraining save in 3D? Taleb et al. 2020, section 4.

    python code/3d/exp.py                        the pancreas grid; ./setup.sh fetches the scans
    python code/3d/exp.py --data MSD_FOLDER      any folder in the layout of the MSD archives
    python code/3d/exp.py --demo                 generated scans, small settings, minutes on a CPU
    python code/3d/exp.py --tune                 first chooses each arm's rates on validation
    python code/3d/exp.py --paper                finetuned as in the paper, beside the default

Trains a baseline and every pretext task's encoder on each labelled fraction and seed. Stop and
start it at will: finished runs are skipped, others go on. Records: results/3d/<dataset>/; then
python code/3d/graph.py draws the curve. The default grid needs a GPU.
"""

import sys
from collections.abc import Mapping, Sequence
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
from common.data.cache import Facts, Source
from common.downstream import native
from common.downstream.segmentation import Augment, Segmentation
from common.errors import InputError, exit_status
from common.files import ROOT
from common.machine import limits
from common.runs import encoders
from common.runs.study import Networks, Study, Tree, home_of
from common.schedule import grid
from common.settings import Settings
from common.stats.measures import mean_of
from common.tasks import augment

# What is run; more of it, what is not said here, stands in common/constants.py.
DATA = "data/Task07_Pancreas"  # folder with dataset.json; as a flag, from where you are
TASKS = ["baseline", "rotation", "jigsaw", "rpl", "exemplar", "cpc",  # arms; README has more
         "volumefusion", "oracle"]  # the best of a screening on validation; the control
FRACTIONS = [5, 10, 25, 50, 100]  # percent of training cases labelled (25, not .25); the paper's
SEEDS = [0, 1, 2, 3, 4]        # each with its own test fold, encoder, subsets, initialisation

# Both stages.
RESOLUTION = 128               # voxels a side after resizing; divisible by 2^(LEVELS + 1)
LEVELS = 4                     # of the U-Net above its bottleneck; 64 goes with 3, 32 with 2
FILTERS = 16                   # channels of the first level, doubled at each next
INTENSITY = "percentile"       # percentile (0.5 to 99.5), or minmax as in the paper
MILLIMETRES = True             # whether the scans' spacing is true: scores in mm beside Dice
CHECKPOINTING = False          # run each block twice a step for 40 % less memory; same numbers

# Pretraining.
PRETEXT_EPOCHS = 1000          # passes over the pool at most (official); lower it to shorten runs
PRETEXT_DROPOUT = 0.0          # official: one half; with it a narrow network learnt no rpl

# Finetuning.
FINETUNE_EPOCHS = 150          # equal steps at every fraction: the paper's total over its fractions
BATCH_SIZE = 4                 # volumes; official 2, too few for BatchNorm
FINETUNE_LR = 1e-3             # Adam; official
FINETUNE_CLIP = 1.0            # global norm of the gradient; official; 0: none
FINETUNE_LOSS = "dice+ce"      # soft Dice and cross-entropy; or dice alone (official)
FINETUNE_DROPOUT = 0.0         # official: one half, too much for few steps on few filters
AUGMENT_DEGREES = 15.0         # turned by up to this about each axis; official: not at all
AUGMENT_ZOOM = 0.15            # scaled by 1 - this to 1 + this; official: not at all
AUGMENT_SHARE = 0.2            # of the volumes turned, and again scaled; nnU-Net's
AUGMENT_INTENSITY = True       # brightness, contrast, gamma, noise, each for some of the volumes

DEMO = {                       # what --demo changes: minutes on two cores; chosen on validation
    "DATA": "results/demo/data/Task00_CTPhantom", "RESULTS": "results/demo",
    "CACHE": "results/demo/data", "TASKS": ["baseline", "rotation", "oracle"],
    "FRACTIONS": [5, 25, 100], "SEEDS": [0, 1, 2],
    "RESOLUTION": 16, "LEVELS": 1, "FILTERS": 8, "PRETEXT_EPOCHS": 22, "PRETEXT_LR": 1e-3,
    "PRETEXT_BATCH_SIZE": 16, "FINETUNE_EPOCHS": 12, "FINETUNE_LR": 2e-2, "VALIDATIONS": 4,
    "AUGMENT_DEGREES": 0.0, "AUGMENT_ZOOM": 0.0, "AUGMENT_INTENSITY": False,  # two scans would do
}
PAPER = {                      # what --paper changes, finetuning alone; sources: code/README.md
    "EQUAL_STEPS": False, "BATCH_SIZE": 2, "FINETUNE_EPOCHS": 400, "FINETUNE_LR": 1e-3,
    "FINETUNE_SCHEDULE": "constant", "FINETUNE_RAMP": 0.0, "FINETUNE_CLIP": 1.0,
    "FINETUNE_LOSS": "dice", "AUGMENT_DEGREES": 0.0, "AUGMENT_ZOOM": 0.0,
    "AUGMENT_SHARE": 1.0, "AUGMENT_INTENSITY": False, "WARMUP_EPOCHS": None, "WARMUP_SHARE": 1 / 16,
    "START_LR_FACTOR": 1.0, "START_NORM": "train", "FINETUNE_DROPOUT": None, "NORM_MOMENTUM": 0.01,
}
PHANTOMS = {"labelled": 60, "unlabelled": 120, "size": 24}  # scans of the demo: 43 train


def main() -> int:
    """Every experiment of this tree, in the order of the paper."""
    return grid.run(*grid.prepare(globals(), TREE))


def check(settings: Settings) -> None:
    """Check the constants that only this tree has; InputError."""
    smallest = model.smallest_input(settings.LEVELS)
    if settings.RESOLUTION % smallest:
        raise InputError(f"RESOLUTION = {settings.RESOLUTION} does not fit LEVELS = "
                         f"{settings.LEVELS}: it must be divisible by {smallest}; 128 goes with 4 "
                         "levels, 64 with 3, 32 with 2")


def make_study(settings: Settings, precision: str, files: Mapping[str, Path]) -> Study:
    """Read and preprocess the scans, split them, and say what is trained on them."""
    dataset = loader.open_dataset(ROOT / settings.DATA, unlabelled=settings.UNLABELLED)
    home = home_of(settings, "3d", dataset.name)
    cache = loader.build_cache(dataset, ROOT / settings.CACHE, resolution=settings.RESOLUTION,
                               intensity=settings.INTENSITY, workers=limits.cores())
    strata = loader.strata(cache)
    parts, free = splits.divide(cache, strata, home, generated=dataset.generated,
                                settings=settings)
    networks = networks_of(settings, channels=len(dataset.channels), classes=len(dataset.classes))
    return Study(settings, "3d", dataset.name, dataset.generated, cache, parts, strata, free,
                 pretexts=pretext.PRETEXTS,
                 external=encoders.from_files(files, networks.encoder, cache, parts,
                                              seeds=settings.SEEDS),
                 downstream=partial(Segmentation, dataset.classes, changes(settings),
                                    cross_entropy=settings.FINETUNE_LOSS == "dice+ce"),
                 measure=partial(mean_of, "dice", "Dice"), networks=networks,
                 classes=dataset.classes[1:], channels=dataset.channels, dimensions=3,
                 axes="Axis 0 points to the right, axis 1 up, axis 2 to the next layer.",
                 precision=precision, rule="highest mean foreground Dice on validation",
                 native=partial(native_scores, dataset.classes[1:], cache.facts,
                                {source.id: source for source in dataset.sources},
                                millimetres=settings.MILLIMETRES))


def native_scores(classes: Sequence[str], facts: Mapping[str, Facts], sources: Mapping[str, Source],
                  probabilities: torch.Tensor, case: str, *, millimetres: bool
                  ) -> dict[str, float | None]:
    """What a case scores in its own grid: probabilities (K, R, R, R) there, against its labels."""
    fact = facts[case]
    predicted = native.in_box(probabilities, fact["shape"], [slice(*side) for side in fact["box"]])
    return native.scores(loader.read_truth(sources[case]), predicted, classes,
                         fact["spacing"] if millimetres else None)


def networks_of(settings: Settings, *, channels: int, classes: int) -> Networks:
    """The U-Net, its encoder and its decoder, and what a step of it costs."""
    kept = model.CHECKPOINTED_BYTES if settings.CHECKPOINTING else model.STEP_BYTES
    return Networks(
        encoder=partial(model.Encoder, channels, settings.FILTERS, settings.LEVELS,
                        checkpointing=settings.CHECKPOINTING),
        decoder=model.Decoder.of, downstream=partial(model.UNet, classes=classes),
        channels_last=torch.channels_last_3d,
        step_bytes=kept * settings.FILTERS / 16 * settings.BATCH_SIZE * settings.RESOLUTION**3,
        probe=max(model.smallest_input(settings.LEVELS), min(32, settings.RESOLUTION)),
        smaller="--resolution 32 --levels 2 --filters 8", encoder_share=0.3)


def changes(settings: Settings) -> Augment | None:
    """What is changed of training volumes and their labels; None if nothing is."""
    if not (settings.AUGMENT_DEGREES or settings.AUGMENT_ZOOM or settings.AUGMENT_INTENSITY):
        return None
    return partial(augmented, degrees=settings.AUGMENT_DEGREES, zoom=settings.AUGMENT_ZOOM,
                   share=settings.AUGMENT_SHARE, intensity=settings.AUGMENT_INTENSITY)


def augmented(volumes: torch.Tensor, labels: torch.Tensor, rng: torch.Generator, *, degrees: float,
              zoom: float, share: float, intensity: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn, scale and re-light training volumes (B, C, D, H, W), the same way for every arm.

    Labels (B, D, H, W) go along. Ranges and chances after Isensee et al. 2021, nnU-Net; with every
    volume turned and scaled a short run on many labels lost .09 Dice (results/published/recipe).
    """
    count = len(volumes)
    factors = augment.uniform(count, 1 - zoom, 1 + zoom, rng)
    scaled = turned = torch.ones(count, dtype=torch.bool)
    if share < 1:
        scaled, turned = augment.chance(count, share, rng), augment.chance(count, share, rng)
    factors = torch.where(scaled, factors, 1)
    matrix = augment.identity(count, 3) / factors[:, None, None]
    for axes in ((0, 1), (0, 2), (1, 2)):
        angles = torch.deg2rad(augment.uniform(count, -degrees, degrees, rng)) * turned
        matrix = augment.rotations(angles, axes, 3) @ matrix
    if degrees or zoom:
        volumes, labels = augment.resample_both(volumes, labels, matrix)
    if intensity:
        some = partial(augment.some, count, rng=rng)
        volumes = augment.brightness_contrast(volumes, some(-0.1, 0.1, 0.0), some(0.75, 1.25, 1.0))
        volumes = augment.gamma(volumes, some(0.7, 1.5, 1.0))
        volumes = augment.noise(volumes, some(0.0, 0.1, 0.0), rng)
    return volumes, labels


TREE = Tree(name="3d", pretexts=pretext.PRETEXTS, check=check,
            smallest=lambda settings: model.smallest_input(settings.LEVELS),
            make_study=make_study, generate=lambda folder: phantom.generate(folder, **PHANTOMS),
            bfloat16_on_cpu=False, decoder=True)

if __name__ == "__main__":
    sys.exit(exit_status(main))
