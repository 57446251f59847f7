"""Pretext tasks whose answer is a class: rotation, relative patch location, jigsaw; any dimensions.

Source of the tasks: Taleb et al. 2020, section 3, and their official code.
"""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common.machine.devices import send
from common.tasks import patches
from common.tasks.contract import Batch, Pretext
from common.tasks.heads import big_head

PERMUTATIONS = 100  # jigsaw classes; official code


class Classification(Pretext):
    """A pretext task whose target is one of ``classes``: big head, cross-entropy, accuracy."""

    dimensions: int  # spatial axes
    views = 1        # views a case, concatenated before the head

    def __init__(self, size: int, batch_size: int, classes: int) -> None:
        super().__init__(size, batch_size)
        self.classes = classes
        self.chance = {"accuracy": 1 / classes}
        self.guess = math.log(classes)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """The big head over the concatenated codes of all views."""
        return big_head(self.views * sum(widths), self.classes)

    def caption(self, targets: Tensor, case: int) -> str:
        """The class of the case."""
        return f"class {int(targets[case]) + 1} of {self.classes}"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of (B, classes) against class numbers (B,)."""
        return F.cross_entropy(outputs.float(), targets)

    def score(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether each case was classified correctly."""
        return {"accuracy": (outputs.argmax(1) == targets).double()}


class Rotation(Classification):
    """Which quarter turn was applied? Source: Gidaris et al. 2018; Taleb et al. 2020, 3.3."""

    name = "rotation"

    def __init__(self, size: int, batch_size: int = 0) -> None:
        self.turns = patches.quarter_turns(self.dimensions)
        super().__init__(size, batch_size, len(self.turns))

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """One turned view of each case, and the number of its turn."""
        targets = torch.randint(self.classes, (len(batch.cases),), generator=rng)
        views = batch.views(torch.stack([
            patches.turn(image, self.turns[target])
            for image, target in zip(batch.stored, targets.tolist(), strict=True)]))
        return views[:, None], send(targets, batch.device)

    def caption(self, targets: Tensor, case: int) -> str:
        """Angle and plane of the turn."""
        quarters, plane = self.turns[int(targets[case])]
        if not quarters:
            return "not turned"
        several = len(self.turns) > 4  # planes to choose from
        axes = [axis + self.dimensions for axis in plane]
        return f"turned by {90 * quarters}°" + (
            f" in the plane of axes {axes[0]} and {axes[1]}" if several else "")


class Cut(Classification):
    """A puzzle of patches: a grid of three cells a side, in each a patch that may move a little."""

    jitter: tuple[int, int]  # pixels or voxels a patch may move, at images of which side

    def __init__(self, size: int, batch_size: int, classes: int) -> None:
        super().__init__(size, batch_size, classes)
        moved, side = self.jitter
        self.grid = patches.Grid(size, 3, max(1, round(moved * size / side)), self.dimensions)
        self.side = self.grid.patch


class RelativePatch(Cut):
    """Where does the second patch lie, seen from the centre? Source: Doersch et al. 2015; 3.2."""

    name = "rpl"
    views = 2  # the centre patch and one other

    def __init__(self, size: int, batch_size: int = 0) -> None:
        super().__init__(size, batch_size, 3**self.dimensions - 1)
        self.centre = len(self.grid.cells) // 2

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """The centre patch beside one other, whose place (the centre not counted) is the class."""
        count = len(batch.cases)
        targets = torch.randint(self.classes, (count,), generator=rng)
        other = targets + (targets >= self.centre)  # skips the centre
        corners = self.grid.corners(count, rng, training=training)  # (B, cells, d)
        case = torch.arange(count)
        pairs = torch.stack([corners[case, self.centre], corners[case, other]], dim=1)
        views = batch.views(self.grid.cut(batch.stored, pairs))
        return views, send(targets, batch.device)

    def caption(self, targets: Tensor, case: int) -> str:
        """Where the second patch lies, in cells along each axis."""
        target = int(targets[case])
        offset = (self.grid.cells[target + (target >= self.centre)] - 1).tolist()
        return f"the second lies at ({', '.join(f'{step:+d}' if step else '0' for step in offset)})"


class Jigsaw(Cut):
    """Which permutation shuffled the patches? Source: Noroozi and Favaro 2016; 3.4."""

    name = "jigsaw"

    def __init__(self, size: int, batch_size: int = 0) -> None:
        super().__init__(size, batch_size, PERMUTATIONS)
        self.views = len(self.grid.cells)
        # The same puzzle for every seed: the classes are part of the task, not of a run.
        rng = torch.Generator().manual_seed(0)
        self.permutations = patches.permutations(self.views, PERMUTATIONS, rng)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """All patches in the order of a drawn permutation, whose number is the class."""
        count = len(batch.cases)
        targets = torch.randint(self.classes, (count,), generator=rng)
        corners = self.grid.corners(count, rng, training=training)  # (B, V, d)
        order = self.permutations[targets]  # (B, V)
        shuffled = corners[torch.arange(count)[:, None], order]
        views = batch.views(self.grid.cut(batch.stored, shuffled))
        return views, send(targets, batch.device)

    def caption(self, targets: Tensor, case: int) -> str:
        """The number of the permutation."""
        return f"permutation {int(targets[case]) + 1} of {self.classes}"
