"""Generated CT-like abdominal scans in the folder layout of the Medical Segmentation Decathlon.

They stand in for Task07_Pancreas in the demo and the tests, where nothing may be downloaded. A
scan is a trunk in air with about twenty organs, every one of them moved, bent and resized from
scan to scan. The pancreas (label 1) has the intensity of stomach, duodenum and bowel beside it, so
it is found by its place among the organs and not by a threshold; most scans hold a slightly darker
tumour (label 2) in it or at its border. Scores on these scans say nothing about real ones.

Cost at the default size: about 0.1 s and 0.3 MB a scan, one process.
"""

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from common.errors import InputError

Floats = NDArray[np.float32]

VERSION = 1  # raise it when a change below alters the scans: old folders are then refused
FIRST_UNLABELLED = 200  # number of the first unlabelled case; labelled cases are numbered from 0
SMALLEST = 16  # voxels; below it a pancreas is thinner than a voxel
TUMOUR_SHARE = 0.8  # of cases; real data hold cases without one too, and scores must allow for them
TUMOUR_RADIUS = (0.15, 0.21)  # half trunk widths; 2 to 3 voxels in a 32^3 resize, which it survives
TUMOUR_DROP = (60.0, 85.0)  # HU below the pancreas; more than in patients, for runs of minutes
TRUNK_DEPTH = 0.72  # half depth of a trunk over its half width
CAVITY = 0.82  # the radius inside the muscles at which ORGANS and SKELETON are drawn
HALF_WIDTH_MM = (150.0, 190.0)  # of a trunk
LENGTH = (1.25, 1.6)  # half trunk widths covered by the slices of a scan
AIR, FAT, MUSCLE, BONE = -1000.0, -100.0, 55.0, 350.0  # HU
NOISE, MOTTLE = 20.0, 10.0  # HU, standard deviations of the voxel noise and of the smooth one
EDGE = 0.04  # half trunk widths over which one tissue fades into the next: partial volume
ORIENTATIONS = ("RAS", "LAS", "LPS", "RPI", "ALS")  # storage orders met in archives; LAS is MSD's
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "  # how the junk of a macOS archive begins


class Organ(NamedTuple):
    """A tube along a path, or an ellipsoid where the path is a single point.

    Coordinates are half trunk widths from the trunk's centre: x to the patient's right, y to the
    front, z to the head.
    """

    path: tuple[tuple[float, float, float, float], ...]  # x, y, z, radius at each bend
    hu: float  # mean attenuation over cases
    spread: float = 12.0  # HU, its standard deviation over cases (contrast phase, contents)
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of the radius along x, y, z
    wander: float = 0.03  # standard deviation of each bend's place over cases


# Later organs cover earlier ones. Those at 95 HU are the pancreas's doubles.
ORGANS = {
    "right lung": Organ(((0.42, -0.10, 0.95, 1.0),), -840, 30, (0.42, 0.50, 0.45)),
    "left lung": Organ(((-0.42, -0.10, 0.95, 1.0),), -840, 30, (0.42, 0.50, 0.45)),
    "heart": Organ(((-0.10, 0.25, 0.85, 1.0),), 120, 25, (0.36, 0.26, 0.28)),
    "liver": Organ(((0.46, 0.08, 0.28, 0.42), (0.02, 0.34, 0.40, 0.20)), 112, 12),
    "lower liver": Organ(((0.56, -0.02, 0.00, 1.0),), 112, 12, (0.26, 0.36, 0.36)),
    "spleen": Organ(((-0.62, -0.22, 0.30, 1.0),), 120, 12, (0.18, 0.24, 0.26)),
    "right kidney": Organ(((0.40, -0.36, -0.22, 1.0),), 165, 20, (0.15, 0.15, 0.26)),
    "left kidney": Organ(((-0.42, -0.36, -0.12, 1.0),), 165, 20, (0.15, 0.15, 0.26)),
    "gallbladder": Organ(((0.40, 0.38, -0.02, 0.10),), 12, 8),
    "ascending colon": Organ(((0.62, 0.0, -0.80, 0.13), (0.60, 0.05, -0.35, 0.13)), 60, 45),
    "descending colon": Organ(((-0.66, -0.1, -0.80, 0.10), (-0.64, -0.1, 0.0, 0.10)), 60, 45),
    "colon gas": Organ(((0.60, 0.08, -0.45, 0.07), (0.60, 0.08, -0.6, 0.07)), -850, 30),
    "stomach": Organ(
        ((-0.30, 0.0, 0.55, 0.18), (-0.44, 0.26, 0.28, 0.20), (-0.1, 0.43, 0.0, 0.13)), 95, 14
    ),
    "stomach gas": Organ(((-0.40, 0.36, 0.28, 1.0),), -850, 30, (0.13, 0.06, 0.12)),
    "duodenum": Organ(
        ((0.14, 0.40, 0.0, 0.10), (0.44, 0.20, -0.06, 0.10), (0.42, 0.06, -0.34, 0.10),
         (0.08, -0.04, -0.42, 0.09)), 95, 14
    ),
    "vena cava": Organ(((0.15, -0.24, -0.9, 0.08), (0.17, -0.20, 0.9, 0.09)), 130, 20),
    "aorta": Organ(((-0.06, -0.26, -0.9, 0.07), (-0.05, -0.28, 0.9, 0.09)), 165, 30),
    "splenic vein": Organ(((0.10, 0.06, -0.02, 0.05), (-0.5, -0.14, 0.16, 0.04)), 160, 20),
}  # fmt: skip
PANCREAS = Organ(
    ((0.26, 0.13, -0.18, 0.17), (0.10, 0.24, -0.04, 0.13), (-0.18, 0.16, 0.06, 0.15),
     (-0.46, -0.02, 0.16, 0.13)), 95, 10, wander=0.06
)  # fmt: skip
SKELETON = {  # drawn over the wall of the trunk, in which it lies
    "right psoas": Organ(((0.20, -0.38, -0.9, 0.13), (0.14, -0.38, -0.1, 0.06)), 60, 5),
    "left psoas": Organ(((-0.20, -0.38, -0.9, 0.13), (-0.14, -0.38, -0.1, 0.06)), 60, 5),
    "vertebrae": Organ(((0.0, -0.41, -0.9, 0.14), (0.0, -0.39, 0.9, 0.13)), 230, 25, wander=0.01),
    "arch": Organ(((0.0, -0.54, -0.9, 0.09), (0.0, -0.52, 0.9, 0.09)), 320, 25, wander=0.01),
    "canal": Organ(((0.0, -0.53, -0.9, 0.05), (0.0, -0.51, 0.9, 0.05)), 35, 5, wander=0.01),
}


def generate(
    folder: Path, *, labelled: int, unlabelled: int, size: int = 64, seed: int = 0
) -> None:
    """Write a set of generated scans as ``folder``, all of it or nothing.

    ``size`` is the mean matrix size in plane, in voxels; slices are fewer. A case depends on seed,
    size and its number only, not on the counts. A folder made with the same arguments is kept.
    Raises InputError for counts out of range and for a folder that holds anything else.
    """
    if not 1 <= labelled <= FIRST_UNLABELLED or unlabelled < 0 or size < SMALLEST or seed < 0:
        raise InputError(
            f"{folder}: cannot generate labelled={labelled} unlabelled={unlabelled} size={size} "
            f"seed={seed}; expected 1 to {FIRST_UNLABELLED} labelled, no negative number, and a "
            f"size of at least {SMALLEST}; change the one out of range"
        )
    made_with = {"version": VERSION, "labelled": labelled, "unlabelled": unlabelled,
                 "size": size, "seed": seed}  # fmt: skip
    if _is_made(folder, made_with):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        partial = Path(beside) / folder.name
        _write_set(partial, made_with)
        try:
            partial.rename(folder)  # atomic; an empty folder is replaced
        except OSError:  # another process of the same demo was faster
            if not _is_made(folder, made_with):
                raise


def make_case(number: int, *, size: int, seed: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Draw case ``number``: its image (int16, HU) and label map (uint8), both (X, Y, Z).

    Matrix, spacing (mm) and storage order vary; canonical reorientation makes the axes run to the
    patient's right, front and head.
    """
    rng = np.random.default_rng((seed, number))
    matrix, spacing = _field_of_view(rng, size)
    hu, label = _draw(rng, matrix, spacing)
    affine = np.diag([*(spacing * rng.uniform(*HALF_WIDTH_MM)), 1.0]).round(4)
    affine[:3, 3] = rng.uniform(-300, 300, 3).round(1)  # mm: scanners put the origin anywhere
    order = ORIENTATIONS[rng.integers(len(ORIENTATIONS))]
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order))
    image, labels = (nib.Nifti1Image(voxels, affine) for voxels in (hu, label))
    for scan in (image, labels):
        scan.header.set_xyzt_units("mm")
    return image.as_reoriented(turn), labels.as_reoriented(turn)


def _is_made(folder: Path, made_with: dict[str, int]) -> bool:
    """Tell a folder made with these arguments from none (or an empty one); refuse any other."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "dataset.json").read_text())
        names = [name for case in found["training"] for name in case.values()] + found["test"]
        made = found["phantom"] == made_with and all((folder / name).is_file() for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        made = False
    if not made:
        wanted = " ".join(f"{name}={value}" for name, value in made_with.items())
        raise InputError(
            f"{folder}: found something else than the complete generated scans expected here "
            f"({wanted}); move or delete this folder, or name another one"
        )
    return True


def _write_set(folder: Path, made_with: dict[str, int]) -> None:
    """Write every scan and, last, the dataset.json that names them."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    training, test = [], []
    numbers = [*range(made_with["labelled"])]
    numbers += range(FIRST_UNLABELLED, FIRST_UNLABELLED + made_with["unlabelled"])
    for number in numbers:
        image, label = make_case(number, size=made_with["size"], seed=made_with["seed"])
        name = f"ct_{number:03d}.nii.gz"
        if number < FIRST_UNLABELLED:
            nib.save(image, folder / "imagesTr" / name)
            nib.save(label, folder / "labelsTr" / name)
            training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        else:
            nib.save(image, folder / "imagesTs" / name)
            test.append(f"./imagesTs/{name}")
    (folder / "imagesTr" / "._ct_000.nii.gz").write_bytes(APPLE_DOUBLE)  # real archives hold such
    description = {
        "name": folder.name.partition("_")[2] or folder.name,
        "description": "generated CT-like scans with a pancreas and tumours; no patients",
        "generated": True,
        "phantom": made_with,
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "tumour"},
        "numTraining": len(training),
        "numTest": len(test),
        "training": training,
        "test": test,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")


def _field_of_view(
    rng: np.random.Generator, size: int
) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Draw a matrix (voxels) and its spacing (half trunk widths) that hold the whole trunk."""
    across = rng.uniform(0.8, 1.2)
    share = np.array([across, across * rng.uniform(0.85, 1.0), rng.uniform(0.55, 0.9)])
    matrix = (share * size).round().astype(int)
    in_plane = 2 * rng.uniform(1.1, 1.25) / matrix[0]
    spacing = np.array([in_plane, in_plane, rng.uniform(*LENGTH) / matrix[2]])
    return (int(matrix[0]), int(matrix[1]), int(matrix[2])), spacing


def _draw(
    rng: np.random.Generator, matrix: tuple[int, int, int], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one patient in canonical orientation: HU (int16) and labels (uint8) of the matrix."""
    canvas = _Canvas(rng, matrix, spacing)
    for organ in (*ORGANS.values(), *_bowel(rng)):
        canvas.paint(_vary(rng, organ))
    pancreas = _vary(rng, PANCREAS)
    canvas.paint(pancreas, label=1)
    tumour = _tumour(rng, pancreas)
    if rng.random() < TUMOUR_SHARE:
        canvas.paint(tumour, label=2)
    canvas.enclose(rng)
    for organ in SKELETON.values():
        canvas.paint(_vary(rng, organ))
    return canvas.scan(rng), canvas.label


def _bowel(rng: np.random.Generator) -> list[Organ]:
    """Draw loops of bowel below and left of the pancreas, as bright and as thick as it is."""
    loops = []
    for _ in range(rng.integers(5, 9)):
        place = rng.uniform((-0.55, 0.0, -0.75), (0.4, 0.5, -0.15))
        steps = rng.normal(0, 0.16, (3, 3)).cumsum(axis=0)
        path = tuple((*(place + step), rng.uniform(0.08, 0.12)) for step in steps)
        loops.append(Organ(path, 95, 14, wander=0.0))
    return loops


def _vary(rng: np.random.Generator, organ: Organ) -> Organ:
    """Draw one patient's organ: every bend moved, the radii scaled, the attenuation shifted."""
    scale = rng.uniform(0.85, 1.2)
    path = tuple(
        (*(rng.normal(bend[:3], organ.wander)), bend[3] * scale * rng.uniform(0.92, 1.08))
        for bend in organ.path
    )
    return organ._replace(path=path, hu=rng.normal(organ.hu, organ.spread))


def _tumour(rng: np.random.Generator, pancreas: Organ) -> Organ:
    """Draw a tumour that is centred in the pancreas, often so far out that it bulges from it."""
    bends = np.array(pancreas.path)
    first, part = divmod(rng.random() ** 2 * (len(bends) - 1), 1)  # most lie in the head
    centre = bends[int(first)] * (1 - part) + bends[int(first) + 1] * part  # x, y, z, radius
    aside = rng.normal(size=3)
    aside *= centre[3] * rng.uniform(0.0, 0.7) / np.linalg.norm(aside)
    path = ((*(centre[:3] + aside), rng.uniform(*TUMOUR_RADIUS)),)
    return Organ(path, pancreas.hu - rng.uniform(*TUMOUR_DROP))


class _Canvas:
    """A scan being drawn: where each voxel lies in the trunk, its HU and its label."""

    def __init__(
        self, rng: np.random.Generator, matrix: tuple[int, int, int], spacing: NDArray[np.float64]
    ) -> None:
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(matrix, spacing, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)  # (3, X, Y, Z)
        grid -= rng.normal(0, (0.02, 0.02, 0.09)).astype(np.float32)[:, None, None, None]
        power = rng.uniform(2.1, 2.7)  # 2 is an ellipse; trunks are a little squarer
        depth = TRUNK_DEPTH * rng.uniform(0.92, 1.06)
        self.rho = (abs(grid[0]) ** power + abs(grid[1] / depth) ** power) ** (1 / power)
        self.wall = 1 - rng.uniform(0.04, 0.16)  # rho under the skin's fat
        self.cavity = self.wall - 0.08  # rho inside the muscles: the stout have no larger organs
        bend = np.stack([_smooth(rng, matrix, knots=4) for _ in range(3)])
        self.place = grid * np.float32(CAVITY / self.cavity) + np.float32(0.05) * bend
        self.ripple = np.float32(0.08) * _smooth(rng, matrix, knots=12)  # lobes, rough borders
        self.hu = np.full(matrix, FAT, np.float32)
        self.label = np.zeros(matrix, np.uint8)

    def paint(self, organ: Organ, *, label: int = 0) -> None:
        """Cover an organ's voxels with its attenuation, fading at its border, and its label."""
        bends, stretch = np.array(organ.path, np.float32), np.array(organ.stretch, np.float32)
        reach = 1.4 * bends[:, 3:] * stretch + EDGE  # with what the ripple adds
        low, high = (bends[:, :3] - reach).min(axis=0), (bends[:, :3] + reach).max(axis=0)
        box = np.ones(self.hu.shape, bool)
        for axis, a, b in zip(self.place, low, high, strict=True):
            box &= (axis > a) & (axis < b)
        near = np.stack([axis[box] for axis in self.place])  # (3, N): few of all voxels
        depth, radius = _depth(near, bends, stretch)
        depth += self.ripple[box]
        cover = np.clip(depth * radius / EDGE + 0.5, 0, 1)
        self.hu[box] += cover * (np.float32(organ.hu) - self.hu[box])
        if label:
            self.label[box] = np.where(depth > 0, label, self.label[box])

    def enclose(self, rng: np.random.Generator) -> None:
        """Cover what lies outside the cavity with muscle, ribs, fat and air, outwards."""
        x, _, z = self.place
        slant = rng.uniform(16, 20) * z + 8 * abs(x) + rng.uniform(0, 2 * np.pi)
        ribs = (abs(self.rho - self.cavity - 0.035) < 0.03) & (np.sin(slant) > 0.45) & (z > -0.2)
        self._beyond(self.cavity, MUSCLE)
        self.hu[ribs] = BONE
        self._beyond(self.wall, FAT)
        self._beyond(1.0, AIR)

    def _beyond(self, rho: float, hu: float) -> None:
        """Cover what lies outside a shell of the trunk."""
        self.hu += np.clip((self.rho - rho) / EDGE + 0.5, 0, 1) * (np.float32(hu) - self.hu)

    def scan(self, rng: np.random.Generator) -> NDArray[np.int16]:
        """Return the drawing as a noisy scan, HU as int16."""
        noise = NOISE * rng.standard_normal(self.hu.shape, np.float32)
        noise += MOTTLE * _smooth(rng, self.hu.shape, knots=10)
        dense = np.clip((self.hu - AIR) / (FAT - AIR), 0, 1)
        noise *= 0.3 + 0.7 * dense  # air is quieter: the box around what is not air fits the trunk
        return np.clip(self.hu + noise, -1024, 3071).round().astype(np.int16)


def _smooth(rng: np.random.Generator, matrix: tuple[int, ...], *, knots: int) -> Floats:
    """Draw a smooth random field of unit deviation: Gaussian bumps at knots^3 places."""
    field = rng.standard_normal((knots,) * 3, np.float32)
    for n in matrix:  # each turn spreads the first axis and moves it to the end
        apart = np.linspace(0, knots - 1, n)[:, None] - np.arange(knots)
        bumps = np.exp(-(apart**2) / 0.8).astype(np.float32)
        bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
        field = np.tensordot(field, bumps, axes=(0, 1))
    return field  # (X, Y, Z)


def _depth(places: Floats, bends: Floats, stretch: Floats) -> tuple[Floats, Floats]:
    """Return how deep (3, N) places lie in a tube, in radii, below 0 outside, and those radii."""
    deepest = np.full(places.shape[1], -np.inf, np.float32)
    radius = np.ones_like(deepest)
    points, centres = places / stretch[:, None], bends[:, :3] / stretch
    for first, last in pairwise([*range(len(bends))] if len(bends) > 1 else [0, 0]):
        way = centres[last] - centres[first]
        aside = points - centres[first][:, None]
        along = np.clip(way @ aside / max(way @ way, 1e-6), 0, 1)
        thick = bends[first, 3] + along * (bends[last, 3] - bends[first, 3])
        depth = 1 - np.linalg.norm(aside - way[:, None] * along, axis=0) / thick
        radius = np.where(depth > deepest, thick, radius)
        deepest = np.maximum(deepest, depth)
    return deepest, radius * stretch.min()
