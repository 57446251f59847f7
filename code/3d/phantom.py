"""Generated CT-like scans of a trunk in the folder layout of the Medical Segmentation Decathlon.

They stand in for Task07_Pancreas in the demo and the tests, where nothing may be downloaded. A
scan is a trunk in air with lungs, spine, liver, kidneys, bowel and the labelled spleen, every one
moved and resized from scan to scan. Contrast differs from scan to scan too: the spleen is now
brighter than its neighbours, now darker, so no threshold finds it and two labelled scans do not
teach all there is. Scores on these scans say nothing about real ones.

Cost at the default size: about 10 ms and 0.1 MB a scan, one process.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from numpy.random import Generator
from numpy.typing import NDArray

from common.data import generated
from common.data.generated import FIRST_UNLABELLED

Floats = NDArray[np.float32]

VERSION = 2  # raise it when a change below alters the scans: old folders are then refused
SMALLEST = 16  # voxels; below it the spleen is thinner than two
DEPTH = 0.75  # half depth of a trunk over its half width
HALF_WIDTH_MM = (150.0, 190.0)  # of a trunk
AIR, FAT, SOFT = -1000.0, -100.0, 40.0  # HU; SOFT is what fills the trunk between the organs
SKIN = 0.9  # radius of the trunk inside its fat
NOISE = 15.0  # HU, standard deviation
EDGE = 0.06  # half trunk widths over which one tissue fades into the next: partial volume
RESIZED = 0.2  # of an organ's radii, at most
CONTRAST = (150.0, 600.0)  # HU of an organ, drawn for each scan; higher than in patients
ORIENTATIONS = ("RAS", "LAS", "LPS", "RPI", "ALS")  # storage orders met in archives; LAS is MSD's
APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "  # how the junk of a macOS archive begins


class Organ(NamedTuple):
    """An ellipsoid, in half trunk widths: x to the patient's right, y to the front, z to the head.

    Its attenuation is drawn anew for every scan, evenly from ``hu``.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: tuple[float, float]
    wander: tuple[float, float, float] = (0.05, 0.05, 0.05)  # of its place over scans, deviation


ORGANS = (  # later ones cover earlier ones
    Organ((0.45, 0.0, 0.85), (0.4, 0.55, 0.55), (-850, -750)),   # right lung
    Organ((-0.45, 0.0, 0.85), (0.4, 0.55, 0.55), (-850, -750)),  # left lung
    Organ((0.0, -0.5, 0.0), (0.16, 0.16, 9.0), (600, 800)),     # spine
    Organ((0.42, 0.12, 0.1), (0.42, 0.42, 0.36), CONTRAST),     # liver
    Organ((0.4, -0.3, -0.5), (0.16, 0.16, 0.26), CONTRAST),     # right kidney
    Organ((-0.4, -0.3, -0.55), (0.16, 0.16, 0.26), CONTRAST),   # left kidney
)
BOWEL = Organ((0.0, 0.25, -0.4), (0.17, 0.17, 0.17), CONTRAST, (0.3, 0.12, 0.25))  # a loop of it
SPLEEN = Organ((-0.45, 0.05, 0.0), (0.28, 0.32, 0.34), CONTRAST, (0.06, 0.15, 0.22))


def generate(folder: Path, *, labelled: int, unlabelled: int, size: int = 64,
             seed: int = 0) -> None:
    """Write a set of generated scans as ``folder``, all of it or nothing.

    ``size`` is the mean matrix size in plane, in voxels; slices are fewer. A case depends on seed,
    size and its number only, not on the counts. A folder made with the same arguments is kept.
    Raises InputError for counts out of range and for a folder that holds anything else.
    """
    generated.generate(folder, generated.Kind(VERSION, SMALLEST, _write), labelled=labelled,
                       unlabelled=unlabelled, size=size, seed=seed)


def make_case(number: int, *, size: int, seed: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Draw case ``number``: its image (int16, HU) and label map (uint8), both (X, Y, Z).

    Matrix, spacing (mm) and storage order vary; canonical reorientation makes the axes run to the
    patient's right, front and head.
    """
    rng = np.random.default_rng((seed, number))
    across = size * rng.uniform(0.8, 1.2)
    matrix = [round(across * share) for share in (1.0, rng.uniform(0.85, 1.0),
                                                  rng.uniform(0.6, 0.9))]
    reach = np.array([1.1, 1.1 * matrix[1] / matrix[0], rng.uniform(0.9, 1.1)])  # half widths
    hu, label = _draw(rng, matrix, reach)
    spacing = 2 * reach / matrix * rng.uniform(*HALF_WIDTH_MM)
    affine = np.diag([*spacing, 1.0]).round(4)
    affine[:3, 3] = rng.uniform(-300, 300, 3).round(1)  # mm: scanners put the origin anywhere
    order = ORIENTATIONS[rng.integers(len(ORIENTATIONS))]
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order))
    image, labels = (nib.Nifti1Image(voxels, affine) for voxels in (hu, label))
    for scan in (image, labels):
        scan.header.set_xyzt_units("mm")
    return image.as_reoriented(turn), labels.as_reoriented(turn)


def _draw(rng: Generator, matrix: list[int],
          reach: NDArray[np.float64]) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw one patient in canonical orientation: HU and labels of the matrix."""
    axes = [np.linspace(-end, end, count, dtype=np.float32)
            for end, count in zip(reach, matrix, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))  # (3, X, Y, Z)
    trunk = np.hypot(grid[0], grid[1] / (DEPTH * rng.uniform(0.9, 1.05)))
    hu = np.full(trunk.shape, SOFT, np.float32)
    for organ in ORGANS:
        _paint(hu, grid, _varied(rng, organ))
    for _ in range(rng.integers(3, 7)):
        _paint(hu, grid, _varied(rng, BOWEL))
    inside = _paint(hu, grid, _varied(rng, SPLEEN))
    for radius, outside in ((SKIN, FAT), (1.0, AIR)):
        hu += _fade(trunk - radius) * (np.float32(outside) - hu)
    hu += NOISE * rng.standard_normal(hu.shape, np.float32) * (0.3 + 0.7 * (trunk < 1))
    return hu.clip(-1024, 3071).round().astype(np.int16), (inside & (trunk < SKIN)).astype(np.uint8)


def _varied(rng: Generator, organ: Organ) -> Organ:
    """One patient's organ: moved, its radii scaled; ``hu`` is one attenuation twice."""
    radii = np.array(organ.radii) * rng.uniform(1 - RESIZED, 1 + RESIZED, 3)
    return Organ(tuple(rng.normal(organ.centre, organ.wander)), tuple(radii),
                 (rng.uniform(*organ.hu),) * 2)


def _paint(hu: Floats, grid: Floats, organ: Organ) -> NDArray[np.bool_]:
    """Cover an organ's voxels with its attenuation, fading at its border; returns where it is."""
    radii = np.array(organ.radii, np.float32)[:, None, None, None]
    centre = np.array(organ.centre, np.float32)[:, None, None, None]
    depth = 1 - np.sqrt((((grid - centre) / radii) ** 2).sum(axis=0))  # in radii
    hu += _fade(depth * min(organ.radii)) * (np.float32(organ.hu[0]) - hu)
    return np.asarray(depth > 0)


def _fade(depth: Floats) -> Floats:
    """How much of a voxel lies inside a border, from its depth in half trunk widths."""
    return np.clip(depth / np.float32(EDGE) + np.float32(0.5), 0, 1)


def _write(folder: Path, numbers: Sequence[int], size: int, seed: int) -> None:
    """Write every scan and the dataset.json that names them."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir()
    training, test = [], []
    for number in numbers:
        image, label = make_case(number, size=size, seed=seed)
        name = f"ct_{number:03d}.nii.gz"
        if number < FIRST_UNLABELLED:
            nib.save(image, folder / "imagesTr" / name)
            nib.save(label, folder / "labelsTr" / name)
            training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        else:
            nib.save(image, folder / "imagesTs" / name)
            test.append(f"./imagesTs/{name}")
    (folder / "imagesTr" / "._ct_000.nii.gz").write_bytes(APPLE_DOUBLE)  # real archives hold such
    (folder / "dataset.json").write_text(json.dumps({
        "name": folder.name.partition("_")[2] or folder.name,
        "description": "generated CT-like scans with a spleen; no patients", "generated": True,
        "tensorImageSize": "3D", "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"}, "numTraining": len(training),
        "numTest": len(test), "training": training, "test": test}, indent=1) + "\n")
