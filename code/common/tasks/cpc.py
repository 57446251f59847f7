"""Contrastive predictive coding over a grid of patches, in any number of dimensions.

Source: van den Oord et al. 2018; for images Henaff et al. 2019; Taleb et al. 2020, section 3.1, and
their official code. Rows run along the first spatial axis, columns over the others. For every
column a GRU reads the first row's patches around it and its own patch of the second row, and
predicts the codes of its patches in the last two rows. The prediction has to be told from the
patches of another column.
"""

import math
from collections.abc import Sequence
from itertools import product

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from common.machine.devices import send
from common.tasks import patches
from common.tasks.contract import Batch, Pretext
from common.tasks.heads import dense, full_precision

CODE = 1024    # numbers in the code of a patch; official code
HIDDEN = 256   # of the GRU; official code
AHEAD = 2      # last rows that are predicted; official code


class ContrastivePrediction(Pretext):
    """Which column goes on below this context? A tree adds its grid, crop and border."""

    name = "cpc"
    chance = {"accuracy": 0.5}
    guess = math.log(2)

    dimensions: int  # spatial axes
    rows: int        # patches a side
    overlap: bool    # whether patches reach into the next by a sixth of the image
    kept: float      # share of a patch's side that is kept
    padded: bool     # whether crops are filled up to the patch again
    mirror: bool     # whether columns beyond the grid are those on the other side, else zeros
    across: bool     # whether a negative may come from another image

    def __init__(self, size: int, batch_size: int = 0) -> None:
        super().__init__(size, batch_size)
        self.grid = patches.Grid(size, self.rows, -(size // 6) if self.overlap else 0,
                                 self.dimensions)
        self.crop = round(self.kept * self.grid.patch)
        self.fill = self.grid.patch - self.crop if self.padded else 0
        self.side = self.crop + self.fill
        self.columns = self.rows ** (self.dimensions - 1)
        self.around = neighbours(self.rows, self.dimensions - 1, mirror=self.mirror)

    def prepare(self, batch: Batch, rng: Generator, *, training: bool) -> tuple[Tensor, Tensor]:
        """Every patch, cropped at a random place, and for every column the place of its negative.

        Views (B, rows * columns, C, *side); negatives (B, columns), numbers among the columns of
        the whole batch.
        """
        count = len(batch.cases)
        corners = self.grid.corners(count, rng, training=training)  # (B, V, d)
        spare = self.grid.patch - self.crop
        inside = (torch.randint(spare + 1, corners.shape, generator=rng) if training
                  else torch.full(corners.shape, spare // 2))
        views = batch.views(self.grid.cut(batch.stored, corners + inside, self.crop))
        before = self.fill // 2
        views = F.pad(views, (before, self.fill - before) * corners.shape[2])
        return views, send(self._negatives(count, rng), batch.device)

    def caption(self, targets: Tensor, case: int) -> str:
        """What is predicted from what."""
        return f"along axis 0: places 1 and 2 predict {self.rows - AHEAD + 1} and {self.rows}"

    def _negatives(self, count: int, rng: Generator) -> Tensor:
        """Draw another column for each: of the batch, or of the same case."""
        own = torch.arange(count * self.columns).view(count, self.columns)
        among = own.numel() if self.across else self.columns
        shift = torch.randint(1, among, own.shape, generator=rng)
        return (own + shift) % among if self.across else (
            own - own % self.columns + (own + shift) % self.columns)

    def head(self, widths: Sequence[int]) -> nn.Module:
        """Codes, context and predictions: (B, V, F) -> predicted and true codes below."""
        return PredictionHead(sum(widths), self.rows, self.around)

    def logits(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mean product of prediction and code, of the own column and of another: (B, columns)."""
        predicted, codes = outputs
        other = codes.flatten(0, 1)[targets]  # (B, columns, AHEAD, CODE)
        return (predicted * codes).mean((2, 3)), (predicted * other).mean((2, 3))

    def loss(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
        """Binary cross-entropy of the pairs, as many own as other."""
        own, other = self.logits(outputs, targets)
        return (F.softplus(-own).mean() + F.softplus(other).mean()) / 2

    def score(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Share of a case's pairs that were told right."""
        own, other = self.logits(outputs, targets)
        return {"accuracy": ((own > 0).double() + (other <= 0).double()).mean(1) / 2}


class PredictionHead(nn.Module):
    """Features of all patches -> predicted and true codes of the last rows, a column at a time."""

    around: Tensor

    def __init__(self, inputs: int, rows: int, around: Tensor) -> None:
        super().__init__()
        self.rows = rows
        self.code = dense(inputs, CODE)
        self.context = nn.GRU(CODE, HIDDEN, batch_first=True)
        self.predict = nn.ModuleList(dense(HIDDEN, CODE) for _ in range(AHEAD))
        self.register_buffer("around", around, persistent=False)
        for name, weight in self.context.named_parameters():  # as in Keras
            if name.startswith("bias"):
                nn.init.zeros_(weight)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(weight)
            else:
                nn.init.xavier_uniform_(weight)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, V, F) -> predictions and codes, each (B, columns, AHEAD, CODE)."""
        # float32: a GRU in mixed precision gains nothing at this size, and not every device has it.
        with full_precision(features.device):
            codes: Tensor = self.code(features.float())
            grid = codes.unflatten(1, (self.rows, -1))  # (B, rows, columns, CODE)
            first = F.pad(grid[:, 0], (0, 0, 0, 1))  # a last column of zeros: beyond the grid
            context = torch.cat([first[:, self.around], grid[:, 1, :, None]], dim=2)
            state = self.context(context.flatten(0, 1))[1][0]  # (B * columns, HIDDEN)
            predicted = torch.stack([layer(state) for layer in self.predict], dim=1)
        return predicted.unflatten(0, grid.shape[:3:2]), grid[:, -AHEAD:].transpose(1, 2)


def neighbours(n: int, axes: int, *, mirror: bool) -> Tensor:
    """Number of each column's neighbours and itself, in an n^axes grid: (n^axes, 3^axes).

    Beyond the grid: the column mirrored at the border's own, or the number n^axes.
    """
    table = []
    for column in product(range(n), repeat=axes):
        places = [[c + o for c, o in zip(column, offset, strict=True)]
                  for offset in product((-1, 0, 1), repeat=axes)]
        if mirror:
            places = [[n - 1 - abs(n - 1 - abs(p)) for p in place] for place in places]
        inside = [all(0 <= p < n for p in place) for place in places]
        table.append([sum(p * n**power for power, p in enumerate(reversed(place))) if known
                      else n**axes for place, known in zip(places, inside, strict=True)])
    return torch.tensor(table)
