"""What figures hold: their pixels where a file is the point, else what was put into them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from common.report.figures import difference, efficiency, examples, exchange, learning, views
from common.report.page import document

INK = 32  # grey levels below white that count as drawn


def looks_drawn(path: Path) -> None:
    """Fail unless a PNG decodes, is of a size to be read, and is drawn upon all over."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    assert 400 <= height <= 4000 and 1000 <= width <= 4000, (path.name, width, height)
    ink = pixels.min(axis=2) < 255 - INK
    assert 0.01 < ink.mean() < 0.9, (path.name, ink.mean())
    for part in (*np.array_split(ink, 3, axis=0), *np.array_split(ink, 3, axis=1)):
        assert part.any(), f"{path.name}: a third is blank"
    colours = np.unique(pixels[ink] // 64, axis=0)
    assert len(colours) > 3, f"{path.name}: black on white only"


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(path) as image:
        return image.size


def size_of(figure: Figure) -> tuple[int, int]:
    """Width and height that a figure has as a file, in pixels."""
    width, height = figure.get_size_inches() * efficiency.STYLE["savefig.dpi"]
    return int(width), int(height)


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@contextmanager
def caught() -> Iterator[dict[str, Figure]]:
    """Keep the figures, by the names of their files, instead of writing them; no pages either."""
    figures: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path) -> None:
        figures[path.name] = figure
        plt.close(figure)
    with pytest.MonkeyPatch.context() as patch:
        for module in (difference, efficiency, examples, exchange, learning, views):
            patch.setattr(module, "write", keep)
        patch.setattr(document, "write", lambda *_, **__: None)
        yield figures
