"""Photographs of others -> 8-bit RGB, upright; the place where they are opened."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from common.data.opening import PHOTOGRAPHS, check_there, decoding
from common.errors import InputError

SUFFIXES = PHOTOGRAPHS  # in any case
FILLED = 128      # of all colours: what a decoder of JPEG puts where data end
NEAR = 8          # of that grey: still the grey surround of a picture
Array = NDArray[Any]


def read_image(file: Path) -> Image.Image:
    """Decode a photograph as 8-bit RGB, upright: grey, palette, transparent and 16-bit too.

    InputError for several pages, floating-point pixels, and a JPEG that ends before its picture.
    """
    check_there(file)
    with decoding(file, "image"):
        with Image.open(file) as opened:
            opened.load()
            pages = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            deep = _deep_colour(file, opened)
            _check_whole(file, opened)
            image = ImageOps.exif_transpose(opened)
        if pages > 1:
            raise InputError(f"{file}: {pages} pages, and which is meant is not known; save that "
                             "one alone")
        if image.mode == "F":
            raise InputError(f"{file}: floating-point pixels; expected 8 or 16 bits, export it "
                             "again")
        if deep is not None:
            image = ImageOps.exif_transpose(_with_tags_of(opened, _eight_bits(file, deep)))
        elif image.mode.startswith("I"):
            image = _eight_bits(file, np.asarray(image))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return image.convert("RGB")


def _deep_colour(file: Path, opened: Image.Image) -> Array | None:
    """Colours of more than 8 bits, (H, W, 3 or 4), which Pillow would cut to their upper 8."""
    if opened.format == "PNG" and opened.mode in ("RGB", "RGBA"):
        with file.open("rb") as stream:
            if stream.read(25)[24:] != b"\x10":  # bits a channel, in the header's chunk
                return None
        import torch  # heavy, and seldom needed
        from torchvision.io import ImageReadMode, decode_png

        mode = ImageReadMode.RGB if opened.mode == "RGB" else ImageReadMode.RGB_ALPHA
        content = torch.frombuffer(bytearray(file.read_bytes()), dtype=torch.uint8)
        with warnings.catch_warnings(action="ignore"):  # it will move to another package
            return np.asarray(decode_png(content, mode).numpy().transpose(1, 2, 0))
    bits = getattr(opened, "tag_v2", {}).get(258, ()) if opened.format == "TIFF" else ()
    if len(np.atleast_1d(bits)) >= 3 and max(bits) > 8:
        raise InputError(f"{file}: colours of {max(bits)} bits in a TIFF; export it as PNG, or "
                         "with 8 bits")
    return None


def _with_tags_of(opened: Image.Image, image: Image.Image) -> Image.Image:
    """The image, turned as ``opened`` says it is."""
    image.getexif().update({274: opened.getexif().get(274, 1)})
    return image


def _eight_bits(file: Path, pixels: Array) -> Image.Image:
    """Reduce 9 to 16 bits a pixel to 8; the depth is that of the brightest pixel.

    Transparency, the fourth channel, has the whole range always.
    """
    values = pixels.astype(np.int64)
    if values.min() < 0 or values.max() >= 2**16:
        raise InputError(f"{file}: pixels from {values.min()} to {values.max()}; expected 8 or 16 "
                         "bits, export it again")
    colours = values[..., :3] if values.ndim == 3 else values
    depth = max(8, int(colours.max()).bit_length())
    reduced = (colours >> (depth - 8)).clip(0, 255)
    if values.ndim == 3 and values.shape[2] == 4:
        reduced = np.concatenate([reduced, values[..., 3:] >> 8], axis=2)
    return Image.fromarray(reduced.astype(np.uint8))


def _check_whole(file: Path, opened: Image.Image) -> None:
    """InputError for a JPEG whose data end before its last block, which is then filled with grey.

    (An end marker behind them hides it from the decoder. A surround of that grey, as of images
    with the local mean taken away, is in the first block too.)
    """
    if opened.format not in ("JPEG", "MPO"):
        return
    width, height = opened.size
    first, last = (np.asarray(opened.crop(box).convert("RGB")).astype(int) for box in (
        (0, 0, 8, 1), (width - 8, height - 1, width, height)))
    if (last == FILLED).all() and np.abs(first - FILLED).max() > NEAR:
        raise InputError(f"{file}: its data end before the picture does, the rest is grey; "
                         "download or export it again")
