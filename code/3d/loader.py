"""Scans on disk (Medical Segmentation Decathlon layout) -> cached arrays; checks what it reads.

    <folder>/dataset.json  imagesTr/*.nii.gz  labelsTr/*.nii.gz  [imagesTs/*.nii.gz]

dataset.json gives classes, their names and the channels; unlabelled imagesTs join the
pretraining pool. Nothing is skipped silently: what cannot be used is an InputError.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError, aff2axcodes
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from scipy.ndimage import zoom

from common.data.cache import Cache, Prepared, Preprocessing, Source, build
from common.data.splits import terciles
from common.errors import InputError
from common.files import read_json

BODY = 0.05       # scaled intensity above which a voxel belongs to the body; official code
PERCENTILES = (0.5, 99.5)  # of a volume's voxels, clipped to; "minmax" is (0, 100)
SMALLEST_AXIS = 8  # voxels; fewer cannot be told from a mistaken axis
LISTED = "dataset.json lists {} under 'modality'; correct one of them"
VERSION = 4       # raise when preprocessing changes: caches are then made anew


@dataclass(frozen=True)
class Dataset:
    """An MSD folder: its name in lower case without TaskNN_, classes (background first), cases."""

    name: str
    folder: Path
    classes: list[str]
    channels: list[str]
    sources: list[Source]  # labelled cases first, each part sorted by id
    generated: bool


def open_dataset(folder: Path, *, unlabelled: bool = True) -> Dataset:
    """Read dataset.json and find every file it lists; InputError for what is missing or odd."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; ./setup.sh data TaskNN_Name downloads one, or "
                         "give --data a folder with dataset.json, imagesTr and labelsTr")
    path = folder / "dataset.json"
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise InputError(f"{path}: expected an object with a list 'training' (MSD layout)")
    labelled = [_labelled(path, entry) for entry in content["training"]]
    rest = [_unlabelled(path, entry) for entry in content.get("test", [])] if unlabelled else []
    listed = {source.image for source in rest}
    rest += [Source(case_id(file), file) for file in sorted((folder / "imagesTs").glob("*.nii*"))
             if unlabelled and file not in listed and not file.name.startswith("._")]
    sources = sorted(labelled, key=lambda s: s.id) + sorted(rest, key=lambda s: s.id)
    _check_sources(path, sources)
    return Dataset(re.sub(r"^task\d+_", "", folder.resolve().name.lower()), folder,
                   _classes(path, content), list(content.get("modality", {"0": "?"}).values()),
                   sources, bool(content.get("generated", False)))


def case_id(file: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", file.name)


def _labelled(path: Path, entry: Any) -> Source:
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise InputError(f"{path}: entry {entry!r} of 'training' needs 'image' and 'label'")
    image = path.parent / entry["image"]
    return Source(case_id(image), image, path.parent / entry["label"])


def _unlabelled(path: Path, entry: Any) -> Source:
    image = path.parent / (entry["image"] if isinstance(entry, dict) else str(entry))
    return Source(case_id(image), image)


def _check_sources(path: Path, sources: list[Source]) -> None:
    """Every listed file exists and no id occurs twice."""
    for source in sources:
        for file in source.files:
            if not file.is_file():
                raise InputError(f"{file}: no such file, but {path.name} lists it; restore the "
                                 f"file or remove the entry from {path}")
    ids = [source.id for source in sources]
    twice = sorted({case for case in ids if ids.count(case) > 1})
    if twice:
        raise InputError(f"{path}: case {twice[0]} is listed twice; each id must be unique")


def _classes(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Class names by number; both {"0": "background"} and {"background": 0} are in use."""
    labels = content.get("labels")
    if not isinstance(labels, dict):
        raise InputError(f"{path}: expected 'labels', as {{\"0\": \"background\", ...}}")
    try:
        by_number = {int(v if isinstance(v, int) else k): str(k if isinstance(v, int) else v)
                     for k, v in labels.items()}
    except ValueError:
        raise InputError(f"{path}: 'labels' must map class numbers to names, found {labels}"
                         ) from None
    if sorted(by_number) != list(range(len(by_number))) or len(by_number) < 2:
        raise InputError(f"{path}: 'labels' must number the classes 0, 1, 2, ... with background "
                         f"0, found {sorted(by_number)}")
    return [by_number[number] for number in range(len(by_number))]


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
    if not any(max(fact["contains"]) for fact in cache.facts.values() if "contains" in fact):
        raise InputError(f"{dataset.folder}: no label map has any foreground; nothing to segment")
    return cache


def preprocess(source: Source, *, classes: int, channels: int, resolution: int,
               intensity: str) -> Prepared:
    """Turn one scan into image (C, R, R, R) float16 in 0..1, label map uint8 or None, and facts.

    Canonical orientation, percentile intensities per channel, box of the body, linear resize for
    the image, nearest for labels: linear would invent class 1 at every border of 0 and 2.
    Facts: spacing (mm), shape and box (voxels), pixels and truth (digests of image and labels),
    contains (classes present), foreground (mm^3).
    """
    volume, spacing, axes = read_volume(source.image)
    volume = volume[..., None] if volume.ndim == 3 else volume
    _check_volume(source.image, volume, channels)
    facts: dict[str, Any] = {"shape": list(volume.shape[:3]), "spacing": spacing,
                             "pixels": _digest(volume)}
    label = None
    if source.label is not None:
        label = _read_label(source, volume.shape[:3], axes, classes)
        facts["truth"] = _digest(label)
        facts["contains"] = [number for number in range(classes) if (label == number).any()]
        facts["foreground"] = float(np.count_nonzero(label) * np.prod(spacing))
    image, box = seen(volume, source.image, resolution=resolution, intensity=intensity)
    facts["box"] = [[side.start, side.stop] for side in box]
    resized = None if label is None else resize(label[box], resolution, order=0)
    return image, resized, facts


def seen(volume: np.ndarray, file: Path, *, resolution: int, intensity: str
         ) -> tuple[np.ndarray, tuple[slice, ...]]:
    """What a network sees of a volume (X, Y, Z, C): (C, R, R, R) float16 in 0..1, and its box."""
    channels = range(volume.shape[3])
    limits = [intensities(volume[..., c], intensity, file) for c in channels]
    box = body_box(volume, limits)
    scaled = [scale(volume[..., c][box], *limits[c]) for c in channels]
    return np.stack([resize(one, resolution, order=1) for one in scaled]).astype(np.float16), box


def read_truth(source: Source) -> np.ndarray:
    """The label map of a case in its own grid, (X, Y, Z) uint8 in RAS+; checked when it was cached.
    """
    assert source.label is not None
    return read_volume(source.label)[0].astype(np.uint8)


def read_scan(file: Path, channels: int) -> tuple[np.ndarray, list[float]]:
    """A scan to predict, checked: voxels (X, Y, Z, C) in RAS+, spacing in mm."""
    volume, spacing, _ = read_volume(file)
    volume = volume[..., None] if volume.ndim == 3 else volume
    _check_volume(file, volume, channels, "the network has {}; give it scans like those it saw")
    return volume, spacing


def in_its_grid(canonical: np.ndarray, file: Path, note: str) -> nib.Nifti1Image:
    """An array (X, Y, Z[, K]) in RAS+ as an image in the grid and orientation of a NIfTI file.

    Affine, sform and qform are the file's; of its header nothing else is taken over.
    """
    source: Any = nib.load(file)
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


def _digest(voxels: np.ndarray) -> str:
    """SHA-256 of voxels in the order of memory, 16 hex digits, without a copy of them."""
    return hashlib.sha256(voxels.T.data).hexdigest()[:16]


def read_volume(file: Path) -> tuple[np.ndarray, list[float], str]:
    """Read a NIfTI file in canonical (RAS+) orientation: voxels, spacing in mm, original axes.

    The stored type is kept where there is no scale factor, for the sake of memory. The first axis
    runs fastest, as in the file: a reoriented view with mixed strides made every later pass over
    the voxels 3 to 15 times slower (measured).
    """
    try:
        image = _open(file)
        if not isinstance(image, nib.spatialimages.SpatialImage) or len(image.shape) < 3:
            raise ImageFileError("not a volume")
        axes = "".join(map(str, aff2axcodes(image.affine)))
        image = nib.as_closest_canonical(image)
        volume = np.asfortranarray(image.dataobj)
    except (ImageFileError, WrapStructError, OSError, EOFError, ValueError,
            OrientationError, HeaderDataError, OverflowError, isal_zlib.error) as error:  # type: ignore[misc]  # isal declares it as a variable
        raise InputError(f"{file}: not a readable NIfTI file ({' '.join(str(error).split())[:100]})"
                         "; download or export it again") from None
    if volume.dtype.kind not in "biuf":
        raise InputError(f"{file}: voxels are {volume.dtype}; expected one number each, export it "
                         "again")
    if volume.dtype == np.float64:
        volume = volume.astype(np.float32)
    return volume, [float(x) for x in image.header.get_zooms()[:3]], axes


def _open(file: Path) -> Any:
    """A NIfTI file as nibabel has it; gunzipped at once by isal, in half the time of zlib."""
    if file.suffix != ".gz":
        return nib.load(file)
    content = igzip.decompress(file.read_bytes())
    second = content[:4] in [(540).to_bytes(4, order) for order in ("little", "big")]
    return (nib.Nifti2Image if second else nib.Nifti1Image).from_bytes(content)


def _check_volume(file: Path, volume: np.ndarray, channels: int, wanted: str = LISTED) -> None:
    """Right number of axes and channels, all voxels finite."""
    if volume.ndim != 4 or volume.shape[3] != channels:
        raise InputError(f"{file}: {volume.shape[3:] or (1,)} channels, but "
                         f"{wanted.format(channels)}")
    if min(volume.shape[:3]) < SMALLEST_AXIS:
        raise InputError(f"{file}: {' x '.join(map(str, volume.shape[:3]))} voxels; every axis "
                         f"needs at least {SMALLEST_AXIS}")
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise InputError(f"{file}: {int((~np.isfinite(volume)).sum())} voxels are NaN or infinite; "
                         "replace them and start again")


def _read_label(source: Source, shape: tuple[int, ...], axes: str, classes: int) -> np.ndarray:
    """The label map as uint8, checked against its image and the declared classes."""
    assert source.label is not None
    label, _, label_axes = read_volume(source.label)
    if label.shape != shape or label_axes != axes:
        raise InputError(f"{source.label}: {' x '.join(map(str, label.shape))} voxels in "
                         f"orientation {label_axes}, but its image {source.image.name} has "
                         f"{' x '.join(map(str, shape))} in {axes}; they must match")
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
    """Resize to resolution^3; order 1 is linear, 0 nearest; both sample voxel centres alike."""
    factors = [resolution / side for side in volume.T.shape]
    small = zoom(volume.T, factors, order=order, mode="nearest", grid_mode=True, prefilter=False)
    return np.ascontiguousarray(small.T)  # .T: zoom is faster over axes in the order of memory


def strata(cache: Cache) -> dict[str, int]:
    """Tercile of the foreground volume (mm^3) of each labelled case."""
    return terciles({case: fact["foreground"] for case, fact in cache.facts.items()
                     if "foreground" in fact})
