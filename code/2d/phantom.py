"""Generated fundus photographs in the folder layout of APTOS 2019: train.csv and images.

They stand in for real photographs in the demo and the tests, where nothing may be downloaded. An
image is a round retina in a dark surround with optic disc, macula and a branching vessel tree,
all of them moved and resized from image to image, and with lesions whose kinds and numbers grow
with the grade as on the International Clinical Diabetic Retinopathy scale (Wilkinson et al. 2003).
Neighbouring grades overlap, and harmless spots occur in all. Lesions are larger than in patients,
so that they survive a resize to 96 px. Scores on these images say nothing about real ones.

Cost at 128 px: about 25 ms and 25 kB an image, one process.
"""

import csv
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from common.errors import InputError

Floats = NDArray[np.float64]
Points = list[tuple[float, float]]

VERSION = 1          # raise it when a change below alters the images: old folders are then refused
FIRST_UNLABELLED = 5000  # number of the first unlabelled image; labelled are numbered from 0
SMALLEST = 32        # pixels; below it no lesion is left
SHARES = (0.45, 0.12, 0.23, 0.10, 0.10)  # of the grades, about as in APTOS 2019
FINE = 3             # pixels drawn for each pixel and axis, then averaged
SURROUND = 0.008     # brightness outside the retina, of 1
NOISE = 0.012        # of the sensor, standard deviation, of 1
DISC = (0.46, -0.03)  # place in retina radii, of a right eye: x to the nose, y down
MACULA = (-0.10, 0.04)
COLOURS = {"vein": (0.42, 0.10, 0.06), "artery": (0.55, 0.16, 0.08), "blood": (0.33, 0.03, 0.02),
           "exudate": (0.98, 0.88, 0.45), "wool": (0.95, 0.88, 0.75), "drusen": (0.88, 0.66, 0.38),
           "pigment": (0.28, 0.16, 0.10)}


class Lesion(NamedTuple):
    """A kind of spot: mean number at each grade, range of radii, and what it looks like."""

    means: tuple[float, float, float, float, float]
    radii: tuple[float, float]  # retina radii
    colour: str
    strength: float             # 1: opaque
    cluster: float              # retina radii over which a group is spread; 0: each on its own


LESIONS = {
    "microaneurysm": Lesion((0, 5, 9, 13, 13), (0.016, 0.026), "blood", 0.9, 0),
    "haemorrhage": Lesion((0, 0, 3.5, 12, 11), (0.03, 0.055), "blood", 0.85, 0),
    "exudate": Lesion((0, 0, 7, 12, 12), (0.014, 0.03), "exudate", 0.9, 0.14),
    "cotton wool": Lesion((0, 0, 0.3, 3, 2.5), (0.06, 0.1), "wool", 0.6, 0),
    # In any grade: what a network must not take for a lesion.
    "drusen": Lesion((2, 2, 2, 2, 2), (0.012, 0.02), "drusen", 0.5, 0.2),
    "pigment": Lesion((1, 1, 1, 1, 1), (0.012, 0.024), "pigment", 0.6, 0),
}
LEAST = {("microaneurysm", 1): 2, ("haemorrhage", 3): 6}  # below it the grade would be another


class Eye(NamedTuple):
    """How the retina lies in the picture."""

    height: int
    width: int
    centre: tuple[float, float]  # pixels: x, y
    radius: float                # pixels
    side: int                    # 1: the disc on the right, -1: on the left
    tilt: float                  # radians

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a point in retina radii."""
        x *= self.side
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return (self.centre[0] + self.radius * (x * cos - y * sin),
                self.centre[1] + self.radius * (x * sin + y * cos))


def generate(folder: Path, *, labelled: int, unlabelled: int, size: int = 160,
             seed: int = 0) -> None:
    """Write a set of generated photographs as ``folder``, all of it or nothing.

    ``size`` is the mean height in pixels. An image depends on seed, size and its number only. A
    folder made with the same arguments is kept. Raises InputError for counts out of range and for
    a folder that holds anything else.
    """
    if not 1 <= labelled <= FIRST_UNLABELLED or unlabelled < 0 or size < SMALLEST or seed < 0:
        raise InputError(f"{folder}: cannot generate labelled={labelled} unlabelled={unlabelled} "
                         f"size={size} seed={seed}; expected 1 to {FIRST_UNLABELLED} labelled, no "
                         f"negative number, and a size of at least {SMALLEST}; change the one out "
                         "of range")
    made_with = {"generated": True, "version": VERSION, "labelled": labelled,
                 "unlabelled": unlabelled, "size": size, "seed": seed}
    if _is_made(folder, made_with):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        partial = Path(beside) / folder.name
        _write_set(partial, made_with, labelled, unlabelled, size, seed)
        try:
            partial.rename(folder)  # atomic; an empty folder is replaced
        except OSError:  # another process of the same demo was faster
            if not _is_made(folder, made_with):
                raise


def _is_made(folder: Path, made_with: Mapping[str, object]) -> bool:
    """Whether the folder holds this very set; InputError if it holds anything else."""
    if not folder.exists() or not any(folder.iterdir()):
        return False
    mark = folder / "generated.json"
    found = mark.read_text(encoding="utf-8") if mark.is_file() else "{}"
    if found != json.dumps(dict(made_with)):
        raise InputError(f"{folder}: holds other files than the generated images asked for "
                         f"({dict(made_with)}); move it away or name another folder")
    return True


def _write_set(folder: Path, made_with: Mapping[str, object], labelled: int, unlabelled: int,
               size: int, seed: int) -> None:
    for name in ("train_images", "test_images"):
        (folder / name).mkdir(parents=True)
    with (folder / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id_code", "diagnosis"])
        for number in range(labelled):
            pixels, grade = make_case(number, size=size, seed=seed)
            Image.fromarray(pixels).save(folder / f"train_images/fundus_{number:04d}.png")
            writer.writerow([f"fundus_{number:04d}", grade])
    for number in range(FIRST_UNLABELLED, FIRST_UNLABELLED + unlabelled):
        pixels, _ = make_case(number, size=size, seed=seed)
        Image.fromarray(pixels).save(folder / f"test_images/fundus_{number:04d}.png")
    (folder / "generated.json").write_text(json.dumps(dict(made_with)), encoding="utf-8")


def make_case(number: int, *, size: int, seed: int,
              lesions: bool = True) -> tuple[NDArray[np.uint8], int]:
    """Draw image ``number``: (H, W, 3) RGB and its grade; without its lesions if so asked.

    The first five numbers have the grades 0 to 4, so that small sets hold every grade.
    """
    rng = np.random.default_rng((seed, number))
    drawn = int(rng.choice(5, p=SHARES))
    grade = number if number < 5 else drawn
    eye = _eye(rng, size)
    picture = _background(rng, eye)
    _optic_disc(rng, eye, picture)
    _vessels(rng, eye, picture)
    spots = np.random.default_rng((seed, number, 1))  # a stream of its own, for lesions=False
    _spots(spots, eye, picture, grade if lesions else 0)
    if lesions and grade == 4:
        _proliferation(spots, eye, picture)
    return _photograph(rng, eye, picture), grade


def _eye(rng: Generator, size: int) -> Eye:
    """A camera's view: the whole retina in a wide frame, or cut off above and below."""
    height = round(size * rng.uniform(0.9, 1.1))
    cut = rng.random() < 0.4
    radius = height / 2 * (rng.uniform(1.03, 1.15) if cut else rng.uniform(0.9, 0.98))
    width = round(2 * radius * rng.uniform(1.03, 1.35))
    middle = (width / 2 + rng.normal(0, 0.02) * radius, height / 2 + rng.normal(0, 0.01) * radius)
    return Eye(height, width, middle, radius, 1 if rng.random() < 0.5 else -1,
               float(rng.normal(0, 0.08)))


def _grid(eye: Eye, x: float = 0, y: float = 0) -> Floats:
    """Distance of every pixel from a point, in retina radii: (H, W)."""
    column, row = eye.place(x, y)
    rows, columns = np.mgrid[:eye.height, :eye.width]
    return np.asarray(np.hypot(columns + 0.5 - column, rows + 0.5 - row) / eye.radius)


def _background(rng: Generator, eye: Eye) -> Floats:
    """Colour, choroidal texture, uneven light and macula: (H, W, 3) in 0..1."""
    base = np.array([0.72, 0.33, 0.13]) * rng.uniform(0.8, 1.15) * rng.uniform(0.9, 1.1, 3)
    texture = gaussian_filter(rng.normal(size=(eye.height, eye.width)), eye.radius * 0.045)
    fine = gaussian_filter(rng.normal(size=(eye.height, eye.width)), eye.radius * 0.015)
    relief = 1 + 0.05 * texture / texture.std() + 0.025 * fine / fine.std()
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.22)
    rows, columns = np.mgrid[:eye.height, :eye.width]
    ramp = ((columns - eye.centre[0]) * np.cos(angle) + (rows - eye.centre[1]) * np.sin(angle))
    light = (1 + slope * ramp / eye.radius) * (1 - rng.uniform(0.15, 0.4) * _grid(eye) ** 2)
    place = MACULA + rng.normal(0, 0.02, 2)
    dark = rng.uniform(0.25, 0.45) * np.exp(-(_grid(eye, *place) / rng.uniform(0.13, 0.18)) ** 2)
    return np.asarray((relief * light * (1 - dark))[..., None] * base)


def _optic_disc(rng: Generator, eye: Eye, picture: Floats) -> None:
    """A bright yellowish disc with a paler cup."""
    x, y = DISC + rng.normal(0, 0.02, 2)
    radius = rng.uniform(0.13, 0.17)
    distance = _grid(eye, x, y)
    glow = 1 / (1 + np.exp((distance - radius) / 0.012))
    _paint(picture, 0.85 * glow, np.array([0.98, 0.78, 0.45]) * rng.uniform(0.88, 1.02))
    cup = 1 / (1 + np.exp((_grid(eye, x - 0.02, y) - radius * rng.uniform(0.35, 0.55)) / 0.015))
    _paint(picture, 0.7 * cup, np.array([1.0, 0.93, 0.72]))


def _vessels(rng: Generator, eye: Eye, picture: Floats) -> None:
    """Arcades above and below that bend round the macula, and smaller trunks to the nose."""
    for colour, width, shift in (("artery", 0.026, -0.12), ("vein", 0.036, 0.12)):
        image, pen = _layer(eye)
        for up in (-1, 1):
            for start, end, length in ((1.75, 2.95, 1.5), (0.9, 0.25, 0.9)):  # radians from x
                _branch(rng, eye, pen, DISC, up * (start + shift * up + rng.normal(0, 0.1)),
                        up * end, width * rng.uniform(0.85, 1.15), length)
        _paint(picture, 0.75 * _coverage(eye, image), np.array(COLOURS[colour]))


def _branch(rng: Generator, eye: Eye, pen: ImageDraw.ImageDraw, start: tuple[float, float],
            heading: float, end: float, width: float, length: float) -> None:
    """Draw a vessel that turns from ``heading`` to ``end``, and the branches it gives off."""
    step = 0.035
    x, y = start
    points: Points = [eye.place(x, y)]
    steps = max(3, round(length / step))
    wobble = 0.0
    for number in range(steps):
        share = number / steps
        wobble = 0.8 * wobble + rng.normal(0, 0.09)
        angle = heading + (end - heading) * min(1.0, 1.5 * share) + wobble
        x, y = x + step * np.cos(angle), y + step * np.sin(angle)
        points.append(eye.place(x, y))
        if width > 0.012 and number > 2 and rng.random() < 0.13:
            turn = rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
            _branch(rng, eye, pen, (x, y), angle + turn, angle + 0.5 * turn, 0.62 * width,
                    length * (1 - share) * rng.uniform(0.4, 0.7))
        if len(points) > steps // 3 + 2 or number == steps - 1:  # thinner towards its end
            _stroke(eye, pen, points, width * (1 - 0.5 * share))
            points = points[-1:]


def _spots(rng: Generator, eye: Eye, picture: Floats, grade: int) -> None:
    """Lesions of the grade, and the harmless spots of every grade."""
    for name, lesion in LESIONS.items():
        count = max(rng.poisson(lesion.means[grade]), LEAST.get((name, grade), 0))
        image, pen = _layer(eye)
        middle = _anywhere(rng)
        for number in range(count):
            if number % 6 == 0:
                middle = _anywhere(rng)
            x, y = (middle + rng.normal(0, lesion.cluster, 2) if lesion.cluster
                    else _anywhere(rng))
            _blob(rng, eye, pen, x, y, rng.uniform(*lesion.radii))
        soft = 0.02 if name == "cotton wool" else 0.0
        _paint(picture, lesion.strength * _coverage(eye, image, soft),
               np.array(COLOURS[lesion.colour]))


def _proliferation(rng: Generator, eye: Eye, picture: Floats) -> None:
    """Tangles of fine new vessels, at the disc or elsewhere, and often a large bleeding."""
    image, pen = _layer(eye)
    for _ in range(rng.integers(1, 4)):
        x, y = DISC if rng.random() < 0.4 else _anywhere(rng)
        for angle in rng.uniform(0, 2 * np.pi, rng.integers(9, 15)):
            _branch(rng, eye, pen, (x, y), angle, angle + rng.normal(0, 2.0), 0.0119,
                    rng.uniform(0.15, 0.28))
    _paint(picture, 0.85 * _coverage(eye, image), np.array(COLOURS["blood"]))
    if rng.random() < 0.6:
        image, pen = _layer(eye)
        x, y = _anywhere(rng)
        _blob(rng, eye, pen, x, y, rng.uniform(0.12, 0.22))
        _paint(picture, 0.9 * _coverage(eye, image, 0.025), np.array(COLOURS["blood"]))


def _anywhere(rng: Generator) -> Floats:
    """A point on the retina, uniform in area, away from its rim."""
    radius, angle = 0.85 * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
    return np.array([radius * np.cos(angle), radius * np.sin(angle)])


def _blob(rng: Generator, eye: Eye, pen: ImageDraw.ImageDraw, x: float, y: float,
          radius: float) -> None:
    """An irregular roundish spot."""
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = radius * (1 + 0.18 * rng.normal(size=len(angles)))
    pen.polygon([(FINE * a, FINE * b) for a, b in
                 (eye.place(x + r * np.cos(t), y + r * np.sin(t))
                  for r, t in zip(reach, angles, strict=True))], fill=255)


def _layer(eye: Eye) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty mask at FINE times the picture's size, and a pen on it."""
    image = Image.new("L", (FINE * eye.width, FINE * eye.height))
    return image, ImageDraw.Draw(image)


def _stroke(eye: Eye, pen: ImageDraw.ImageDraw, points: Points, width: float) -> None:
    pen.line([(FINE * x, FINE * y) for x, y in points], fill=255, joint="curve",
             width=max(1, round(FINE * width * eye.radius)))


def _coverage(eye: Eye, image: Image.Image, soft: float = 0.0) -> Floats:
    """How much of each pixel a mask covers, blurred by ``soft`` retina radii: (H, W) in 0..1."""
    mask = np.asarray(image.reduce(FINE), dtype=float) / 255
    return np.asarray(gaussian_filter(mask, soft * eye.radius)) if soft else mask


def _paint(picture: Floats, mask: Floats, colour: Floats) -> None:
    """Blend ``colour`` into the picture where the mask is, as bright as the light there."""
    picture += mask[..., None] * (colour - picture)


def _photograph(rng: Generator, eye: Eye, picture: Floats) -> NDArray[np.uint8]:
    """Sharpness, the round aperture, the camera's brightness and noise: (H, W, 3) in 0..255."""
    blur = rng.uniform(0.2, 0.5)  # pixels
    sharp = gaussian_filter(picture, (blur, blur, 0))
    inside = 1 / (1 + np.exp((_grid(eye) - 1) * eye.radius / 0.6))
    seen = SURROUND + sharp * inside[..., None] * rng.uniform(0.75, 1.15)
    seen += rng.normal(0, NOISE, seen.shape) * (0.25 + inside[..., None])
    return np.asarray((255 * seen).clip(0, 255).round().astype(np.uint8))
