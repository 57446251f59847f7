"""Predictions over the image they are made for, as small PNGs; to look at, not to measure in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import binary_erosion

SIDE = 320  # pixels a panel's longer side is enlarged to
GAP = 6     # pixels between panels
LETTERS = 14  # pixels of a caption
WHITE = (1.0, 1.0, 1.0)
WARMTH = 0.45  # of a heat map, at its warmest

Bytes = NDArray[np.uint8]


def panel(grey: Bytes, labels: Bytes, colours: Sequence[tuple[float, float, float]],
          spacing: tuple[float, float]) -> Image.Image:
    """A slice (h, w) with the outline of every class (h, w), in true proportions.

    ``spacing``: size of a pixel down and across, in any unit.
    """
    height, width = (side * size for side, size in zip(grey.shape, spacing, strict=True))
    factor = SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    image = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
                       ).copy()
    enlarged = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    for label, colour in enumerate(colours, 1):
        inside = enlarged == label
        image[inside & ~binary_erosion(inside, iterations=2)] = np.round(255 * np.array(colour))
    return Image.fromarray(image)


def beside(panels: Sequence[Image.Image]) -> Image.Image:
    """Panels in a row, on black."""
    width = sum(one.width for one in panels) + GAP * (len(panels) - 1)
    row = Image.new("RGB", (width, max(one.height for one in panels)))
    left = 0
    for one in panels:
        row.paste(one, (left, (row.height - one.height) // 2))
        left += one.width + GAP
    return row


def planes(volume: NDArray[Any], labels: Bytes, spacing: Sequence[float],
           colours: Sequence[tuple[float, float, float]]) -> Image.Image:
    """The axial, coronal and sagittal plane with most foreground of a volume in RAS+, (X, Y, Z).

    Right of the subject on the right; without foreground the middle planes.
    """
    panels = []
    for axis in (2, 1, 0):
        counts = (labels > 0).sum(tuple(other for other in range(3) if other != axis))
        place = int(counts.argmax()) if counts.any() else volume.shape[axis] // 2
        grey = _bytes(np.take(volume, place, axis))
        across, down = (spacing[other] for other in range(3) if other != axis)
        panels.append(panel(np.rot90(grey), np.rot90(np.take(labels, place, axis)), colours,
                            (down, across)))
    return beside(panels)


def warm(photograph: Bytes, heat: NDArray[np.float32]) -> Image.Image:
    """A photograph (h, w, 3) beside itself with a heat map (h, w) of 0 to 1 over it, red: warm.

    Enlarged by a whole number until its longer side has SIDE pixels.
    """
    red = np.stack([np.full_like(heat, 255), 255 * (1 - heat), np.zeros_like(heat)], axis=2)
    cover = WARMTH * heat[..., None]
    mixed = np.round((1 - cover) * photograph + cover * red).astype(np.uint8)
    factor = max(1, -(-SIDE // max(photograph.shape[:2])))  # whole pixels, as the network has them
    return beside([Image.fromarray(np.kron(one, np.ones((factor, factor, 1), np.uint8)))
                   for one in (photograph, mixed)])


def captioned(image: Image.Image, words: Sequence[tuple[str, tuple[float, float, float]]]
              ) -> Image.Image:
    """A picture with a line of words below it, each in its colour (0 to 1); wider if it has to be.
    """
    font = ImageFont.load_default(LETTERS)
    widths = [round(font.getlength(word)) for word, _ in words]
    width = max(image.width, sum(widths) + 2 * GAP * (len(words) + 1))
    made = Image.new("RGB", (width, image.height + 2 * LETTERS))
    made.paste(image, (0, 0))
    drawing, left = ImageDraw.Draw(made), 2 * GAP
    for (word, colour), long in zip(words, widths, strict=True):
        red, green, blue = (round(255 * part) for part in colour)
        drawing.text((left, image.height + LETTERS // 3), word, (red, green, blue), font)
        left += long + 2 * GAP
    return made


def note_of(path: Path) -> str:
    """What a PNG says of itself."""
    with Image.open(path) as image:
        return str(image.info.get("note", ""))


def save(image: Image.Image, path: Path, note: str) -> None:
    """Write a PNG with a note, whole or not at all."""
    info = PngInfo()
    info.add_text("note", note)
    partial = path.with_name(f".{path.name}.partial")
    try:
        image.save(partial, format="PNG", pnginfo=info)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _bytes(plane: NDArray[Any]) -> Bytes:
    """Grey levels between the plane's own 0.5 and 99.5 percentiles."""
    low, high = np.percentile(plane, (0.5, 99.5))
    scaled = (plane.astype(np.float32) - low) / max(float(high - low), 1e-6)
    return np.asarray(np.clip(255 * scaled, 0, 255), dtype=np.uint8)
