"""The MONAI way of the same run, as its tutorials for segmentation write it.

Followed: the 3D tutorials of github.com/Project-MONAI/tutorials (unet_training_dict, and that of
the spleen): dictionary transforms, CacheDataset filled by as many threads as there are cores,
DataLoader, DiceCELoss, DiceMetric after decollate_batch and AsDiscrete, the best weights saved.
Chosen in its favour, or so that the task is the same:

- CropForegroundd to what is brighter than BODY, as the spleen's tutorial crops and the project does
- Resized to the network's grid, labels by nearest-exact: "nearest" would move them by half a voxel
- DiceCELoss(batch=True) sums over the batch, which is the project's loss
- RandAffined turns and scales a share of the volumes at once, where the project draws for each
  apart, so fewer are resampled; its grid is cached, since all volumes are of one size
- workers that stay, for training alone: in validation all that could be done is cached
- validation in batches, where the tutorials take one case at a time
- no sliding window: the network sees the whole volume
"""

import warnings
from functools import partial
from math import radians
from typing import Any

import torch
from torch import Tensor, nn

from bench.peers_rows.plan import Plan
from bench.peers_rows.usual import Loop, Watch, train
from common.tasks.augment import LIT

warnings.filterwarnings("ignore")  # of MONAI's own calls, that would end on the screen

from monai import transforms as t  # noqa: E402 - after the filter
from monai.data import CacheDataset, DataLoader, decollate_batch  # noqa: E402
from monai.losses import DiceCELoss  # noqa: E402
from monai.metrics import DiceMetric  # noqa: E402
from monai.utils import set_determinism  # noqa: E402

BOTH = ("image", "label")
BODY = 0.05                # as in the project's loader
BRIGHTNESS, CONTRAST = 0.1, 0.25  # as in 3d/exp.py: added, and times 1 - this to 1 + this
GAMMA, NOISE = (0.7, 1.5), 0.1


def prepare(plan: Plan, watch: Watch) -> None:
    """Fill the caches, which are gone with the process."""
    with watch("seconds"):
        datasets(plan)


def run(plan: Plan, watch: Watch) -> float:
    """Fill the caches again, train and test; returns the mean Dice of the test cases."""
    set_determinism(plan.seed)
    with watch("data"):
        sets = datasets(plan)
    workers = plan.cores if plan.cores > 1 else 0
    # The last batch of a pass is short, as in the tutorials; of one case it is left out.
    batches = DataLoader(sets["train"], batch_size=plan.batch, shuffle=True, num_workers=workers,
                         persistent_workers=workers > 0,
                         drop_last=len(sets["train"]) % plan.batch == 1)
    loaders = {part: DataLoader(sets[part], batch_size=plan.batch) for part in ("val", "test")}
    loss = DiceCELoss(to_onehot_y=True, softmax=True, batch=True)
    return train(plan, Loop(_Pairs(batches), loss, partial(score, loaders, plan.classes)), watch)


class _Pairs:
    """The loader's dictionaries as pairs."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return ((batch["image"], batch["label"]) for batch in self.loader)


def datasets(plan: Plan) -> dict[str, Any]:
    """Training, validation and test cases, each cached up to its first random transform."""
    made = {}
    for part, cases in plan.cases.items():
        steps = [*placing(plan.side), *(changing(plan) if part == "train" else [])]
        made[part] = CacheDataset([{"image": case.image, "label": case.label} for case in cases],
                                  t.Compose(steps), num_workers=plan.cores, progress=False)
    return made


def placing(side: int) -> list[Any]:
    """From the files to the network's grid."""
    return [
        t.LoadImaged(keys=BOTH), t.EnsureChannelFirstd(keys=BOTH),
        t.Orientationd(keys=BOTH, axcodes="RAS"),
        t.ScaleIntensityRangePercentilesd(keys="image", lower=0.5, upper=99.5, b_min=0.0,
                                          b_max=1.0, clip=True),
        t.CropForegroundd(keys=BOTH, source_key="image", select_fn=in_body),
        t.Resized(keys=BOTH, spatial_size=(side,) * 3, mode=("trilinear", "nearest-exact"))]


def in_body(image: Tensor) -> Tensor:
    """Where the body is."""
    return image > BODY


def changing(plan: Plan) -> list[Any]:
    """The random changes of training cases; the same ranges and chances as in 3d/exp.py."""
    angle, zoom = radians(plan.changes["degrees"]), plan.changes["zoom"]
    return [
        t.RandAffined(keys=BOTH, prob=plan.changes["share"], rotate_range=(angle,) * 3,
                      scale_range=(zoom,) * 3, mode=("bilinear", "nearest"),
                      padding_mode="zeros", spatial_size=(plan.side,) * 3, cache_grid=True),
        t.RandScaleIntensityd(keys="image", factors=CONTRAST, prob=LIT),
        t.RandShiftIntensityd(keys="image", offsets=BRIGHTNESS, prob=LIT),
        t.RandAdjustContrastd(keys="image", gamma=GAMMA, prob=LIT),
        t.RandGaussianNoised(keys="image", std=NOISE, prob=LIT)]


def score(loaders: dict[str, Any], classes: int, model: nn.Module, part: str) -> float:
    """Mean over cases of the mean Dice of the foreground classes."""
    metric = DiceMetric(include_background=False, reduction="mean")
    decode: Any = t.AsDiscrete(argmax=True, to_onehot=classes)
    truth: Any = t.AsDiscrete(to_onehot=classes)
    for batch in loaders[part]:
        outputs = model(batch["image"])
        metric(y_pred=[decode(one) for one in decollate_batch(outputs)],
               y=[truth(one) for one in decollate_batch(batch["label"])])
    return float(torch.as_tensor(metric.aggregate()))
