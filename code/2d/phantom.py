"""Generated fundus photographs in the folder layout of APTOS 2019: train.csv and images.

They stand in for real photographs in the demo and the tests, where nothing may be downloaded. An
image is a round retina in a dark surround with optic disc, macula and vessels, all of them moved
and resized from image to image, and with dark and bright lesions whose numbers grow with the grade.
Neighbouring grades overlap, and harmless spots occur in all. Lesions are larger than in patients,
so that they survive a resize to 64 px. Scores on these images say nothing about real ones.

Cost at 72 px: about 4 ms and 8 kB an image, one process.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from common.data import generated
from common.data.generated import FIRST_UNLABELLED

Colour = tuple[int, int, int]

VERSION = 2          # raise it when a change below alters the images: old folders are then refused
SMALLEST = 32        # pixels; below it no lesion is left
SHARES = (0.40, 0.15, 0.20, 0.12, 0.13)  # of the grades, about as in APTOS 2019
FINE = 4             # pixels drawn for each pixel and axis, then averaged
NOISE = 4.0          # of the sensor, standard deviation, of 255
RETINA, DISC, CUP = (185, 85, 35), (250, 205, 120), (255, 235, 185)
MACULA, VESSEL = (110, 45, 20), (115, 30, 18)
DISC_AT, MACULA_AT = (0.5, 0.0), (-0.1, 0.06)  # in retina radii: x to the nose, y down


class Lesion(NamedTuple):
    """A kind of spot: mean number at each grade, range of radii, colour."""

    means: tuple[float, float, float, float, float]
    radii: tuple[float, float]  # retina radii
    colour: Colour


LESIONS = (
    Lesion((0, 4, 8, 14, 22), (0.035, 0.06), (80, 12, 10)),   # haemorrhages
    Lesion((0, 0, 5, 9, 14), (0.03, 0.05), (255, 240, 130)),  # exudates
    Lesion((7, 7, 7, 7, 7), (0.03, 0.05), (230, 170, 80)),    # drusen: in any grade, harmless
    Lesion((7, 7, 7, 7, 7), (0.03, 0.06), (120, 50, 45)),     # pigment: in any grade, harmless
)


def generate(folder: Path, *, labelled: int, unlabelled: int, size: int = 160,
             seed: int = 0) -> None:
    """Write a set of generated photographs as ``folder``, all of it or nothing.

    ``size`` is the mean height in pixels. An image depends on seed, size and its number only. A
    folder made with the same arguments is kept. Raises InputError for counts out of range and for
    a folder that holds anything else.
    """
    generated.generate(folder, generated.Kind(VERSION, SMALLEST, _write), labelled=labelled,
                       unlabelled=unlabelled, size=size, seed=seed)


def make_case(number: int, *, size: int, seed: int,
              grade: int | None = None) -> tuple[NDArray[np.uint8], int]:
    """Draw image ``number``: (H, W, 3) RGB and its grade, or the same eye at another ``grade``.

    The first five numbers have the grades 0 to 4, so that small sets hold every grade.
    """
    rng = np.random.default_rng((seed, number))
    drawn = number if number < 5 else int(rng.choice(5, p=SHARES))
    grade = drawn if grade is None else grade
    height = round(size * rng.uniform(0.9, 1.1))
    width = round(height * rng.uniform(1.0, 1.25))
    pen = Pen(rng, height, width)
    pen.anatomy(rng)
    spots = np.random.default_rng((seed, number, 1))  # a stream of its own: the eye stays the same
    for lesion in LESIONS:
        for _ in range(spots.poisson(lesion.means[grade])):
            radius, angle = 0.85 * np.sqrt(spots.random()), spots.uniform(0, 2 * np.pi)
            pen.spot(radius * np.cos(angle), radius * np.sin(angle), spots.uniform(*lesion.radii),
                     lesion.colour)
    return _photograph(rng, pen), grade


class Pen:
    """Draws on a picture of FINE times its size, in retina radii from the middle of the retina."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        self.image = Image.new("RGB", (FINE * width, FINE * height))
        self.draw = ImageDraw.Draw(self.image)
        self.radius = FINE * height / 2 * rng.uniform(0.9, 1.0)
        self.tilt = rng.normal(0, 0.1)  # radians

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the retina lies in the picture."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return (self.image.width / 2 + self.radius * (x * cos - y * sin),
                self.image.height / 2 + self.radius * (x * sin + y * cos))

    def spot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        column, row = self.pixel(x, y)
        reach = self.radius * radius
        self.draw.ellipse((column - reach, row - reach, column + reach, row + reach), fill=colour)

    def anatomy(self, rng: Generator) -> None:
        """Draw the retina of a right eye: macula, vessels, optic disc."""
        self.spot(0, 0, 1.0, RETINA)
        x, y = rng.normal(MACULA_AT, 0.03)
        self.spot(x, y, rng.uniform(0.12, 0.18), MACULA)
        x, y = rng.normal(DISC_AT, 0.03)
        for up in (-1, 1):
            for sideways, length in ((-1.0, 1.05), (-0.45, 0.95), (0.5, 0.45)):  # two arcades, one
                bow = rng.uniform(0.55, 0.8)                                  # to the nose
                along = np.linspace(0, length, 12)
                points = [self.pixel(x + sideways * share, y + up * bow * np.sqrt(share))
                          for share in along]
                self.draw.line(points, fill=VESSEL, joint="curve",
                               width=max(1, round(self.radius * rng.uniform(0.025, 0.045))))
        radius = rng.uniform(0.13, 0.18)
        self.spot(x, y, radius, DISC)
        self.spot(x, y, radius * rng.uniform(0.35, 0.6), CUP)


def _photograph(rng: Generator, pen: Pen) -> NDArray[np.uint8]:
    """Sharpness, uneven light, colour, aperture and noise of a camera: (H, W, 3) in 0..255."""
    picture = np.asarray(pen.image.reduce(FINE), dtype=float)
    blur = rng.uniform(0.2, 0.5)  # pixels
    picture = gaussian_filter(picture, (blur, blur, 0))
    height, width, _ = picture.shape
    rows, columns = np.mgrid[:height, :width]
    down, right = (2 * rows - height) / height, (2 * columns - width) / height
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    light = (1 + slope * (right * np.cos(angle) + down * np.sin(angle))) * rng.uniform(0.7, 1.1)
    picture = picture * light[..., None] * rng.uniform(0.9, 1.1, 3) + rng.normal(0, NOISE,
                                                                                picture.shape)
    return np.asarray(picture.clip(0, 255).round().astype(np.uint8))


def _write(folder: Path, numbers: Sequence[int], size: int, seed: int) -> None:
    """Write every image and train.csv, the grades of the labelled ones."""
    for name in ("train_images", "test_images"):
        (folder / name).mkdir()
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id_code", "diagnosis"])
        for number in numbers:
            pixels, grade = make_case(number, size=size, seed=seed)
            labelled = number < FIRST_UNLABELLED
            part = "train_images" if labelled else "test_images"
            Image.fromarray(pixels).save(folder / part / f"fundus_{number:04d}.png")
            if labelled:
                writer.writerow([f"fundus_{number:04d}", grade])
