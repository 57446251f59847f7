"""Scans on disk (Medical Segmentation Decathlon or nnU-Net layout) -> cached arrays.

    <folder>/dataset.json  imagesTr/*.nii.gz  labelsTr/*.nii.gz  [imagesTs/*.nii.gz]

dataset.json gives classes, their names and the channels; unlabelled imagesTs join the
pretraining pool, time series volume by volume. Nothing is skipped silently: what cannot be used
is an InputError.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.data import layouts, scans
from common.data.cache import Cache, Prepared, Preprocessing, Source, build
from common.data.layouts import case_id as case_id
from common.data.opening import PHOTOGRAPHS, holds, is_there
from common.data.splits import terciles
from common.data.values import Value
from common.errors import InputError, few
from common.files import read_json

BODY = 0.05       # scaled intensity above which a voxel belongs to the body; official code
PERCENTILES = (0.5, 99.5)  # of a volume's voxels, clipped to; "minmax" is (0, 100)
LISTED = "dataset.json lists {} under 'modality'; correct one of them"
SERIES = ", or, if it is a time series, save the volume that is labelled as a scan of its own"
TYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32)  # that scans are saved as
VERSION = 5       # raise when preprocessing changes: caches are then made anew


@dataclass(frozen=True)
class Dataset:
    """A folder: its name in lower case without TaskNN_ or DatasetNNN_, classes, cases."""

    name: str
    folder: Path
    classes: list[str]     # background first
    channels: list[str]
    sources: list[Source]  # labelled cases first, each part sorted by id
    generated: bool


def open_dataset(folder: Path, *, unlabelled: bool = True) -> Dataset:
    """Read dataset.json and find every file it lists; InputError for what is missing or odd."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; ./setup.sh data TaskNN_Name downloads one, or "
                         "give --data a folder with dataset.json, imagesTr and labelsTr")
    if not is_there(folder / "dataset.json") and holds(folder, PHOTOGRAPHS) and not holds(
            folder, scans.KINDS):
        raise InputError(f"{folder}: photographs, and no dataset.json; 2D images go with code/2d: "
                         f"python code/2d/exp.py --data {folder}")
    if not (folder / "dataset.json").exists():
        raise InputError(f"{folder / 'dataset.json'}: no such file; expected is a folder in the "
                         "layout of the Medical Segmentation Decathlon or nnU-Net: dataset.json, "
                         'imagesTr, labelsTr (README, "Your own scans")')
    content = Value(folder / "dataset.json", read_json(folder / "dataset.json"))
    content.mapping("an object with a list 'training' (MSD layout)")
    name = re.sub(r"^(task|dataset)\d+_", "", folder.resolve().name.lower())
    if not name:
        raise InputError(f"{folder}: the data set has no name behind its number; rename the folder,"
                         " as Task99_Liver")
    classes, channels = layouts.classes(content), layouts.channels(content)
    return Dataset(name, folder, classes, channels,
                   layouts.cases(content, len(channels), unlabelled=unlabelled),
                   bool(content.mapping().get("generated", False)))


def build_cache(dataset: Dataset, root: Path, *, resolution: int, intensity: str,
                workers: int) -> Cache:
    """Return the preprocessed arrays: images (N, C, R, R, R) float16, labels (n, R, R, R) uint8."""
    settings = {"resolution": resolution, "intensity": intensity, "version": VERSION,
                "classes": dataset.classes, "channels": dataset.channels}
    prepare = partial(preprocess, classes=len(dataset.classes), channels=len(dataset.channels),
                      resolution=resolution, intensity=intensity)
    how = Preprocessing(prepare, settings, shape=(len(dataset.channels), *(resolution,) * 3),
                        image_type=np.float16, label_maps=True)
    cache = build(dataset.sources, root / dataset.name / "cache", how, workers=workers)
    scans.unpacked.cache_clear()  # a series may be large, and is not needed any more
    if not any(max(fact["contains"]) for fact in cache.facts.values() if "contains" in fact):
        raise InputError(f"{dataset.folder}: no label map has any foreground; nothing to segment")
    if out := [case for case, fact in cache.facts.items() if fact.get("outside")]:
        print(f"note      {len(out)} scans have foreground outside the box of what is brighter "
              f"than their surround, {sum(cache.facts[case]['outside'] for case in out)} voxels "
              f"that no network can see ({few(out, 3)})")
    return cache


def preprocess(source: Source, *, classes: int, channels: int, resolution: int,
               intensity: str) -> Prepared:
    """Turn one scan into image (C, R, R, R) float16 in 0..1, label map uint8 or None, and facts.

    Canonical orientation, percentile intensities per channel, box of the body, linear resize for
    the image, nearest for labels: linear would invent class 1 at every border of 0 and 2.
    Facts: spacing (mm), shape and box (voxels), pixels and truth (digests of image and labels),
    contains (classes present), foreground (mm^3), series (of a volume of a time series), alike (its
    digests in other types of voxel).
    """
    scan = scans.read(source.images, source.frame)
    volume = scan.voxels[..., None] if scan.voxels.ndim == 3 else scan.voxels
    scans.check_voxels(source.place, volume, channels,
                       LISTED + (SERIES if volume.shape[3] > channels else ""))
    facts: dict[str, Any] = {"shape": list(volume.shape[:3]), "spacing": scan.spacing,
                             "pixels": digest(volume)}
    if source.frame is not None:
        facts["series"] = source.id.rpartition("@")[0]
        facts["alike"] = _digests(volume)
    label = None
    if source.label is not None:
        label = _read_label(source, scan, classes)
        facts["truth"] = digest(label)
        facts["contains"] = [number for number in range(classes) if (label == number).any()]
        facts["foreground"] = float(np.count_nonzero(label) * np.prod(scan.spacing))
    image, box = seen(volume, source.place, resolution=resolution, intensity=intensity)
    facts["box"] = [[side.start, side.stop] for side in box]
    if label is not None and (outside := _outside(source, label, box)):
        facts["outside"] = outside
        facts["contains"] = [number for number in range(classes) if (label[box] == number).any()]
    resized = None if label is None else resize(label[box], resolution, order=0)
    return image, resized, facts


def _outside(source: Source, label: np.ndarray, box: tuple[slice, ...]) -> int:
    """How many foreground voxels lie outside the box; InputError if it is most of them."""
    every, inside = np.count_nonzero(label), np.count_nonzero(label[box])
    if every > 2 * inside:
        raise InputError(f"{source.label}: {every - inside} of {every} foreground voxels lie where "
                         f"{source.image.name} is as dark as its surround; is it of another scan? "
                         "Correct it, or leave the case out")
    return int(every - inside)


def seen(volume: np.ndarray, file: Path, *, resolution: int, intensity: str
         ) -> tuple[np.ndarray, tuple[slice, ...]]:
    """What a network sees of a volume (X, Y, Z, C): (C, R, R, R) float16 in 0..1, and its box."""
    channels = range(volume.shape[3])
    limits = [intensities(volume[..., c], intensity, file if len(channels) == 1 else
                          file.with_name(f"{file.name}, channel {c}")) for c in channels]
    box = body_box(volume, limits)
    scaled = [scale(volume[..., c][box], *limits[c]) for c in channels]
    return np.stack([resize(one, resolution, order=1) for one in scaled]).astype(np.float16), box


def read_truth(source: Source) -> np.ndarray:
    """The label map of a case in its own grid, (X, Y, Z) uint8 in RAS+; checked when it was cached.
    """
    assert source.label is not None
    return scans.read_file(source.label).voxels.astype(np.uint8)


def read_scan(files: Sequence[Path], channels: int) -> tuple[np.ndarray, list[float]]:
    """A scan to predict, of one file or one a channel: voxels (X, Y, Z, C) in RAS+, spacing in mm.
    """
    scan = scans.read(files)
    volume = scan.voxels[..., None] if scan.voxels.ndim == 3 else scan.voxels
    scans.check_voxels(files[0], volume, channels,
                       "the network has {}; give it scans like those it saw, of several channels "
                       "as one file (X, Y, Z, channels) or as nnU-Net's _0000, _0001, ..., a time "
                       "series volume by volume")
    return volume, scan.spacing


def read_volume(file: Path) -> tuple[np.ndarray, list[float], str]:
    """Voxels of a file in canonical (RAS+) orientation, spacing in mm, original axes."""
    return scans.read_file(file)[:3]


def in_its_grid(canonical: np.ndarray, file: Path, note: str) -> nib.Nifti1Image:
    """An array (X, Y, Z[, K]) in RAS+ as an image in the grid and orientation of a NIfTI file.

    Affine, sform and qform are the file's; of its header nothing else is taken over.
    """
    source: Any = scans.opened(file)[0]
    own = nib.io_orientation(source.affine)
    turned = nib.apply_orientation(canonical, nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(("R", "A", "S")), own))
    made = type(source)(np.asarray(turned), source.affine)
    made.header.set_zooms((*source.header.get_zooms()[:3], *(1,) * (turned.ndim - 3)))
    made.header["xyzt_units"] = source.header["xyzt_units"]
    for matrix in ("sform", "qform"):
        values, code = getattr(source.header, f"get_{matrix}")(coded=True)
        getattr(made, f"set_{matrix}")(values, int(code), update_affine=False)
    made.header["descrip"] = note[:79]
    return made


def digest(voxels: np.ndarray) -> str:
    """SHA-256 of voxels in the order of memory, 16 hex digits, without a copy of them."""
    return hashlib.sha256(voxels.T.data).hexdigest()[:16]


def _digests(voxels: np.ndarray) -> list[str]:
    """Digests of the same values in every type of voxel that holds them all: a volume of a series
    is often cut out and saved as another.
    """
    with np.errstate(invalid="ignore"):  # what does not hold them is not equal
        copies = [voxels.astype(kind) for kind in TYPES]
    return sorted({digest(voxels), *(digest(copy) for copy in copies
                                     if np.array_equal(copy, voxels))})


def _read_label(source: Source, image: scans.Scan, classes: int) -> np.ndarray:
    """The label map as uint8, checked against its image and the declared classes."""
    assert source.label is not None
    read = scans.read_file(source.label)
    scans.check_same_grid(source.label, read, image, source.image)
    label = read.voxels
    low, high = label.min(), label.max()
    if low < 0 or high >= classes or (label.dtype.kind == "f" and (label % 1 != 0).any()):
        found = np.unique(label)
        raise InputError(f"{source.label}: labels {', '.join(f'{x:g}' for x in found[:8])} found, "
                         f"but dataset.json declares 0 to {classes - 1}; correct one of them")
    return label.astype(np.uint8)


def intensities(channel: np.ndarray, intensity: str, file: Path) -> tuple[float, float]:
    """What becomes 0 and 1: the 0.5 and 99.5 percentiles, or minimum and maximum."""
    low, high = percentiles(channel, PERCENTILES if intensity == "percentile" else (0, 100))
    if not high > low:  # a thin object in air: the percentiles may meet, the extremes do not
        low, high = float(channel.min()), float(channel.max())
    if not high > low:
        raise InputError(f"{file}: all voxels are {low:g}; a constant volume shows nothing, remove "
                         "the case")
    return low, high


def scale(channel: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low..high to 0..1 and clip, float32."""
    scaled = channel.astype(np.float32)
    scaled -= low
    scaled /= high - low
    return np.clip(scaled, 0, 1, out=scaled)


def percentiles(channel: np.ndarray, which: tuple[float, float]) -> tuple[float, float]:
    """Percentiles of all voxels; for 8 and 16-bit integers from a histogram, exact and fast."""
    if channel.dtype.kind not in "iu" or channel.dtype.itemsize > 2:
        low, high = np.percentile(channel, which)
        return float(low), float(high)
    lowest = int(channel.min())
    span = int(channel.max()) - lowest + 1
    # Plane by plane: bincount makes 8 bytes of every voxel it is given.
    counts = sum(np.bincount(plane.ravel().astype(np.int32) - lowest, minlength=span)
                 for plane in channel.T)
    places = np.asarray(which) / 100 * (channel.size - 1)
    below = np.searchsorted(np.cumsum(counts), places, side="right")
    low, high = below + lowest
    return float(low), float(high)


def body_box(volume: np.ndarray, limits: list[tuple[float, float]]) -> tuple[slice, ...]:
    """The smallest box of voxels above BODY once scaled, in any channel; its last plane included.

    Compared before scaling, which is then done inside the box only.
    """
    body = np.zeros(volume.shape[:3], bool, order="F")
    for channel, (low, high) in enumerate(limits):
        body |= volume[..., channel] > low + BODY * (high - low)
    box = []
    for axis in range(3):
        inside = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


def resize(volume: np.ndarray, resolution: int, *, order: int) -> np.ndarray:
    """Resize to resolution^3; order 1 is linear, 0 nearest; both sample voxel centres alike.

    As scipy.ndimage.zoom with grid_mode (a test), up to rounding in float64, but axis by axis:
    about twice as fast for a small scan.
    """
    small = volume.T  # axes in the order of memory
    places = [_between(side, resolution) for side in small.shape]
    if order == 0:
        near = [np.where(share < 0.5, lower, upper) for lower, upper, share in places]
        return np.ascontiguousarray(small[np.ix_(*near)].T)
    if small.size > 8 * resolution**3:  # most of it lies between no two places: leave it out
        used = [np.union1d(lower, upper) for lower, upper, _ in places]
        small = small[np.ix_(*used)]
        places = [(np.searchsorted(some, lower), np.searchsorted(some, upper), share)
                  for some, (lower, upper, share) in zip(used, places, strict=True)]
    for axis in sorted(range(3), key=lambda axis: -small.shape[axis]):  # what shrinks most first
        lower, upper, share = places[axis]
        weights = share.reshape([resolution if a == axis else 1 for a in range(3)])
        small, above = small.take(lower, axis) * (1 - weights), small.take(upper, axis) * weights
        small += above
    return np.ascontiguousarray(small.T.astype(volume.dtype))


@lru_cache(maxsize=4096)
def _between(side: int, resolution: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new voxel along an axis the old ones below and above its centre, and the share of
    the latter."""
    centres = ((np.arange(resolution) + 0.5) * (side / resolution) - 0.5).clip(0, side - 1)
    lower = centres.astype(int)
    return lower, np.minimum(lower + 1, side - 1), centres - lower


def strata(cache: Cache) -> dict[str, int]:
    """Tercile of the foreground volume (mm^3) of each labelled case."""
    return terciles({case: fact["foreground"] for case, fact in cache.facts.items()
                     if "foreground" in fact})
