"""One figure style, and one colour and marker an arm, in every figure."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; works without a screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from common.arms import BASELINE
from common.report.curves import Curves

# Okabe and Ito 2008: told apart with any colour vision; each task also has its own marker.
STYLES = {BASELINE: ("#000000", "s"), "rotation": ("#0072B2", "o"), "jigsaw": ("#D55E00", "^"),
          "rpl": ("#009E73", "D"), "exemplar": ("#CC79A7", "v"), "cpc": ("#E69F00", "P")}
SPARE = (("#56B4E9", "X"), ("#8C6D1F", "<"), ("#7F7F7F", ">"), ("#7B3294", "*"))
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6,
         "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 200}
COLOURS = 128  # of a PNG; lines lose nothing that is seen, photographs little


def style_of(task: str, tasks: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a task; one not known takes a spare pair, the same every time."""
    unknown = [name for name in sorted(tasks) if name not in STYLES]
    return STYLES[task] if task in STYLES else SPARE[unknown.index(task) % len(SPARE)]


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of at most COLOURS colours and forget it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    plt.close(figure)
    _reduced(Image.open(drawn)).save(path, "PNG", optimize=True)


def _reduced(image: Image.Image) -> Image.Image:
    """Return an image with a palette of COLOURS, the same every time: a quarter of the bytes."""
    few = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    levels = few.getpalette() or []
    few.putpalette([255 if level == 254 else level for level in levels])  # the tree's mean of white
    return few


def bare(panel: Axes) -> None:
    """Leave nothing of the axes round an image."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def heading(figure: Figure, text: str, curves: Curves, height: float) -> None:
    """Write a title at the top of a figure ``height`` inches high."""
    if curves.generated:
        text += " (generated data)"
    figure.text(0.012, 1 - 0.22 / height, text, fontsize=11, fontweight="bold")
