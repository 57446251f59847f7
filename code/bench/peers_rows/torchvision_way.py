"""The usual torchvision way of the same run in 2D.

A Dataset that opens each image with PIL whenever it is asked for, transforms of torchvision's
second version, a DataLoader whose workers are as many as there are cores and stay (none with one
core). Images are resized to a square: no retina is looked for, nothing is kept between epochs. One
zoom for both axes, where the project has one for each.
"""

from functools import partial

import torch
from PIL import Image
from sklearn.metrics import cohen_kappa_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from bench.peers_rows.plan import Case, Plan
from bench.peers_rows.usual import Loop, Watch, train


def run(plan: Plan, watch: Watch) -> float:
    """Train and test; returns the quadratic-weighted kappa of the test cases."""
    torch.manual_seed(plan.seed)
    zoom = plan.changes["zoom"]
    opening = [v2.ToImage(), v2.Resize((plan.side, plan.side), antialias=True)]
    changing = [v2.RandomHorizontalFlip(), v2.RandomAffine(
        degrees=0, scale=(1 - zoom, 1 + zoom), interpolation=v2.InterpolationMode.BILINEAR)]
    scaling = [v2.ToDtype(torch.float32, scale=True)]
    workers = plan.cores if plan.cores > 1 else 0
    loading = partial(DataLoader, batch_size=plan.batch, num_workers=workers,
                      persistent_workers=workers > 0)
    cases = plan.cases
    batches = loading(Photographs(cases["train"], v2.Compose([*opening, *changing, *scaling])),
                      shuffle=True, drop_last=len(cases["train"]) % plan.batch == 1)
    loaders = {part: loading(Photographs(cases[part], v2.Compose([*opening, *scaling])))
               for part in ("val", "test")}
    return train(plan, Loop(batches, partial(loss, plan.classes),
                            partial(score, loaders, plan.classes)), watch)


class Photographs(Dataset[tuple[Tensor, int]]):
    """Images and grades, as torchvision's ImageFolder has them."""

    def __init__(self, cases: list[Case], transform: v2.Transform) -> None:
        self.cases, self.transform = cases, transform

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        case = self.cases[index]
        with Image.open(case.image) as image:
            return self.transform(image.convert("RGB")), case.grade


def loss(grades: int, outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of ordinal outputs: grade g is g + 1 leading ones."""
    ones = torch.arange(grades) <= targets[:, None]
    return F.binary_cross_entropy_with_logits(outputs, ones.float())


def score(loaders: dict[str, DataLoader[tuple[Tensor, int]]], grades: int, model: nn.Module,
          part: str) -> float:
    """Quadratic-weighted kappa, by scikit-learn."""
    truth, predicted = [], []
    for images, targets in loaders[part]:
        outputs = model(images)
        predicted += ((outputs > 0).sum(1) - 1).clamp(0, grades - 1).tolist()
        truth += targets.tolist()
    return kappa(truth, predicted, grades)


def kappa(truth: list[int], predicted: list[int], grades: int) -> float:
    """Kappa as scikit-learn has it; 0 where that has none, since there is one grade in all."""
    if len({*truth, *predicted}) == 1:
        return 0.0
    return float(cohen_kappa_score(truth, predicted, labels=range(grades), weights="quadratic"))
