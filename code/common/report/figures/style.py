"""One figure style: sizes, panels, titles, and files."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # files only; works without a screen
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from common.arms import BASELINE
from common.report.curves import Curves
from common.report.figures.palette import look_of
from common.report.tables import marked

WIDTH = 8.6  # inches; a README shows it 830 pixels wide, letters of 7.5 points 10 pixels high
LEFT, RIGHT = 0.84, 0.12  # inches beside the panels
SMALL = 7.5  # points, of the words below a figure
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
         "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6,
         "axes.axisbelow": True, "legend.frameon": False, "figure.dpi": 100, "savefig.dpi": 200,
         "text.parse_math": False}  # a name with dollars is no formula
COLOURS = 80  # of a PNG; lines lose nothing that is seen, photographs little


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


def grid_of(number: int) -> int:
    """How many columns that many panels have: as few holes as possible, at most four."""
    return min(number, 4) if number % 4 in (0, 3) or number < 5 or number > 9 else 3


def lay_out(figure: Figure, number: int, columns: int, *, top: float, height: float,
            gap: float = 0.3, between: float = 0.12, left: float = LEFT) -> list[Axes]:
    """Lay panels line by line from ``top`` inches down, each ``height`` inches high."""
    width, full = figure.get_size_inches()
    side = (width - left - RIGHT - between * (columns - 1)) / columns
    return [figure.add_axes(((left + (place % columns) * (side + between)) / width,
                             1 - (top + height + place // columns * (height + gap)) / full,
                             side / width, height / full)) for place in range(number)]


def bare(panel: Axes) -> None:
    """Leave nothing of the axes round an image."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)


def handle(task: str, tasks: Sequence[str]) -> Line2D:
    """An arm's entry in a legend."""
    look = look_of(task, tasks)
    return Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash,
                  markerfacecolor=look.face, linewidth=1.3 if task == BASELINE else 2.0,
                  markersize=5, label=named(task))


def named(task: str) -> str:
    """An arm's name as a figure writes it."""
    return f"{task} (from scratch)" if task == BASELINE else marked(task)


def titles(panels: Sequence[Axes], texts: Sequence[str], colours: Sequence[str]) -> None:
    """Name panels after their arms, in letters of one size; a long name's alone under SMALL."""
    points = [72 * panel.get_position().width * WIDTH / (0.68 * len(text))
              for panel, text in zip(panels, texts, strict=True)]
    most = min(9.0, max(SMALL, min(points)))
    for panel, text, colour, fits in zip(panels, texts, colours, points, strict=True):
        panel.set_title(text, fontsize=min(most, fits), loc="left", pad=3, fontweight="bold",
                        color=colour)


def scale(panel: Axes, points: int, *, most: int, below: bool = False) -> int:
    """Draw a bar into (or below) an image of ``points`` across; returns its length, a third of
    ``most`` or less.
    """
    left, right = panel.get_xlim()
    foot, top = panel.get_ylim()
    length = next(step for step in (100, 50, 20, 10, 5, 2, 1) if step <= max(1, most / 3))
    start, line = left + 0.04 * (right - left), foot + (-0.03 if below else 0.05) * (top - foot)
    ends = [start, start + length * (right - left) / points]
    for colour, width in [("black", 2.2)] if below else [("black", 4.5), ("white", 2.2)]:
        panel.add_artist(Line2D(ends, [line, line], color=colour, linewidth=width,
                                solid_capstyle="butt", clip_on=not below))
    return length


LETTERS = 130  # of 8.5 points that fit into WIDTH; with a longer line all are smaller


def heading(figure: Figure, text: str, curves: Curves, *lines: str) -> None:
    """Write a title, and lines below it, at the top of a figure."""
    height = figure.get_size_inches()[1]
    if curves.generated:
        text += " (generated data)"
    if curves.missing:
        text += " (partial)"
    figure.text(0.012, 1 - 0.24 / height, text, fontsize=11, fontweight="bold")
    fits = LETTERS * figure.get_size_inches()[0] / WIDTH
    size = 8.5 * min([1.0, *(fits / max(1, len(line)) for line in lines)])
    for number, line in enumerate(lines):
        figure.text(0.012, 1 - (0.43 + 0.17 * number) / height, line, color="#333333",
                    fontsize=size)


def footing(figure: Figure, *lines: str) -> None:
    """Write small lines at the foot of a figure."""
    figure.text(0.012, 0.08 / figure.get_size_inches()[1], "\n".join(lines), fontsize=SMALL,
                color="#333333", va="bottom", linespacing=1.35)
