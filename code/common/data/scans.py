"""NIfTI files of others -> voxels (X, Y, Z[, C]) in RAS+ that can be meant; all are read here.

What a header says is believed only where the file agrees with it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation, ornt2axcodes

from common.data.opening import SCANS, check_kind, check_there, decoding
from common.errors import InputError

KINDS = SCANS
SMALLEST_AXIS = 2  # voxels; a single slice is no volume
FILL = 1e30        # a float of this size was not measured: it codes that nothing was
HEAD = 540         # bytes of the longer header, of NIfTI-2
PACKED = b"\x1f\x8b"  # how a gzip file begins
UNITS = {1: 1000.0, 3: 0.001}  # mm in a metre and in a micrometre, by their codes
NO_TIME = (32, 40, 48)  # codes of a fourth axis in Hz, ppm or radians a second
APART = 0.5        # voxels between the corners of an image and of its label map, at most


class Scan(NamedTuple):
    """A volume in canonical (RAS+) orientation."""

    voxels: np.ndarray     # (X, Y, Z[, C]), as stored where there is no scale factor
    spacing: list[float]   # mm
    axes: str              # original ones, such as LPS
    affine: np.ndarray     # (4, 4), of the voxels as they are here


def volumes(file: Path) -> int:
    """How many volumes a time series (X, Y, Z, T) has, by its header alone; 1 of what is none.

    That T has a unit of time is not asked for: many writers give none, or give seconds to channels.
    A unit of frequency or angle is none of time. What cannot be read is said when it is read whole.
    """
    try:
        sides, units = _sides(file)
    except InputError:
        return 1
    timed = units & 56 not in NO_TIME and set(sides[4:]) <= {1}
    return max(1, sides[3]) if timed and len(sides) > 3 else 1


def single(file: Path) -> bool:
    """Whether a file has one volume (X, Y, Z) by its header; False for what cannot be read."""
    try:
        return set(_sides(file)[0][3:]) <= {1}
    except InputError:
        return False


def _sides(file: Path) -> tuple[list[int], int]:
    """Sides and code of the units of a NIfTI file, of its header alone; InputError."""
    with decoding(file, "NIfTI file"):
        with file.open("rb") as stream:
            head = stream.read(HEAD)
        if head[:2] == PACKED:
            with igzip.open(file) as stream:
                head = stream.read(HEAD)
        kind = _kind(head).header_class
        header = kind(head[:kind.sizeof_hdr], check=False)
        return list(header.get_data_shape()), int(header["xyzt_units"])


def read(files: Sequence[Path], frame: int | None = None) -> Scan:
    """Read a volume from its file, or from one file a channel; (X, Y, Z, C) if several.

    ``frame``: of a time series, the volume of that number. InputError if channels differ in grid or
    type of voxel.
    """
    first, *rest = [read_file(file, frame) for file in files]
    if not rest:
        return first
    for file, scan in zip(files, (first, *rest), strict=True):
        if scan.voxels.ndim != 3:
            raise InputError(f"{file}: {' x '.join(map(str, scan.voxels.shape))} voxels; of a scan "
                             "with a file a channel each has to be one volume (X, Y, Z)")
        check_same_grid(file, scan, first, files[0])
        check_values(file, scan.voxels)
    voxels = np.stack([scan.voxels for scan in (first, *rest)], axis=-1)
    return first._replace(voxels=np.asfortranarray(voxels))


def read_file(file: Path, frame: int | None = None) -> Scan:
    """Read one NIfTI file in canonical (RAS+) orientation; InputError if it cannot be meant.

    ``frame``: only the volume of that number of a time series.

    The first axis runs fastest, as in the file: a reoriented view with mixed strides made every
    later pass over the voxels 3 to 15 times slower (measured).
    """
    check_kind(check_there(file), KINDS)
    with decoding(file, "NIfTI file"):
        image, head, length = opened(file) if frame is None else _series(file)
        if not isinstance(image, nib.Nifti1Image):
            raise ImageFileError(f"{type(image).__name__}, not NIfTI-1 or NIfTI-2")
        _check_header(file, image, head, length)
        turned = _orientation(image.affine.tobytes())
        axes = "".join(map(str, ornt2axcodes(turned)))
        if frame is not None:
            image = image.slicer[:, :, :, frame]
        image = image.as_reoriented(turned)
        volume = np.asfortranarray(image.dataobj)
    if volume.dtype.kind not in "biuf":
        raise InputError(f"{file}: voxels are {volume.dtype}; expected one number each, no "
                         "colours and no complex numbers; export it again")
    if volume.dtype.kind == "f" and volume.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # infinite, and refused for that
            volume = volume.astype(np.float32)
    zooms, measured = image.header.get_zooms()[:3], voxel_sizes(image.affine)
    if not np.allclose(zooms, measured, rtol=0.01):
        zooms = measured  # as ITK has it: the affine counts
    unit = UNITS.get(int(image.header["xyzt_units"]) & 7, 1)
    return Scan(_squeezed(file, volume), [float(x) * unit for x in zooms], axes, image.affine)


@lru_cache(maxsize=256)
def _orientation(affine: bytes) -> np.ndarray:
    """How the axes of an affine (4, 4) lie, as nibabel has it; scans of a set share a few.

    It takes a tenth of the time that reading a small scan does.
    """
    found: np.ndarray = io_orientation(np.frombuffer(affine).reshape(4, 4))
    found.flags.writeable = False
    return found


def opened(file: Path) -> tuple[Any, bytes, int]:
    """A NIfTI file as nibabel has it, its first bytes, and its length in bytes once unpacked.

    What kind it is, is told by its content.
    Gunzipped at once by isal, in half the time of zlib.
    """
    with file.open("rb") as stream:
        head = stream.read(HEAD)
    packed = head[:2] == PACKED
    if not packed and file.suffix != ".gz":
        return nib.load(file), head, file.stat().st_size
    content = file.read_bytes()
    content = igzip.decompress(content) if packed else content
    return _kind(content).from_bytes(content), content[:HEAD], len(content)


def _kind(content: bytes) -> Any:
    """NIfTI-1 or NIfTI-2, by its first bytes, not packed."""
    second = content[:4] in [(540).to_bytes(4, order) for order in ("little", "big")]
    return nib.Nifti2Image if second else nib.Nifti1Image


def _series(file: Path) -> tuple[Any, bytes, int]:
    """A time series as opened() gives it; the last one is kept, for its next volume."""
    found = file.stat()
    return unpacked(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1)
def unpacked(file: Path, size: int, changed: int) -> tuple[Any, bytes, int]:
    """A file as opened() gives it, unpacked once for all its volumes as long as it is the same."""
    return opened(file)


def _check_header(file: Path, image: Any, head: bytes, length: int) -> None:
    """The voxels lie behind the header and end with the file; sizes and affine are numbers."""
    kind = type(image).header_class
    raw = kind(head[:kind.sizeof_hdr], check=False)  # as written: nibabel mends some sizes to 1
    header, shape = image.header, image.shape
    if len(shape) < 3 or 0 in shape:
        raise InputError(f"{file}: {' x '.join(map(str, shape))} voxels; expected a volume of "
                         "three axes (2D images go with code/2d)")
    first, least = int(raw["vox_offset"]), kind.single_vox_offset
    needed = math.prod(shape) * header.get_data_dtype().itemsize
    if first < least and raw["magic"].item()[:2] == b"n+":
        raise InputError(f"{file}: its header says that voxels begin at byte {first}, within the "
                         f"header of {least}; export it again")
    if length - first > needed:
        raise InputError(f"{file}: holds {length - first} bytes of voxels, but its header says "
                         f"{needed} ({' x '.join(map(str, shape))} of {header.get_data_dtype()}); "
                         "export it again")
    sized = raw["sform_code"] > 0 or (np.abs(raw["pixdim"][1:4]) > 0).all()
    if not (sized and np.isfinite(image.affine).all() and (voxel_sizes(image.affine) > 0).all()):
        raise InputError(f"{file}: its affine has no size or direction for some axis; export it "
                         "again")


def _squeezed(file: Path, volume: np.ndarray) -> np.ndarray:
    """(X, Y, Z[, C]): without empty axes behind the third, the fourth if the fifth has channels."""
    shape = [*volume.shape[:3], *(side for side in volume.shape[3:] if side > 1)]
    if len(shape) > 4:
        raise InputError(f"{file}: {' x '.join(map(str, volume.shape))} voxels; expected (X, Y, Z) "
                         "or (X, Y, Z, channels), split the series into volumes")
    return volume.reshape(shape, order="F")


def check_same_grid(file: Path, scan: Scan, image: Scan, beside: Path) -> None:
    """InputError unless a volume lies where ``image`` does: voxels, orientation, place in mm."""
    shape, axes = image.voxels.shape[:3], image.axes
    label_axes = scan.axes
    if scan.voxels.shape != shape or label_axes != axes:
        raise InputError(f"{file}: {' x '.join(map(str, scan.voxels.shape))} voxels in "
                         f"orientation {label_axes}, but its image {beside.name} has "
                         f"{' x '.join(map(str, shape))} in {axes}; they must match")
    if np.array_equal(scan.affine, image.affine):
        return
    corners = np.array([(*(np.indices((2, 2, 2)).reshape(3, -1)[:, c] * (np.array(shape) - 1)), 1)
                        for c in range(8)]).T
    apart = np.linalg.solve(image.affine, scan.affine @ corners - image.affine @ corners)[:3]
    if np.abs(apart).max() > APART:
        raise InputError(f"{file}: lies {np.abs(apart).max():.3g} voxels away from its image "
                         f"{beside.name} by their affines (spacing {_mm(scan)} and {_mm(image)}, "
                         f"origin {_origin(scan)} and {_origin(image)}); resample it to the image, "
                         "or copy the image's affine if only that was lost")


def _mm(scan: Scan) -> str:
    return " x ".join(f"{x:.4g}" for x in scan.spacing)


def _origin(scan: Scan) -> str:
    return " ".join(f"{x:.4g}" for x in scan.affine[:3, 3])


def check_voxels(file: Path, volume: np.ndarray, channels: int, wanted: str) -> None:
    """Right number of axes and channels (X, Y, Z, C), and check_values()."""
    if volume.ndim != 4 or volume.shape[3] != channels:
        given = " x ".join(map(str, volume.shape[3:])) or "1"
        raise InputError(f"{file}: {given} channel{'s' * (given != '1')}, but "
                         f"{wanted.format(channels)}")
    if min(volume.shape[:3]) < SMALLEST_AXIS:
        raise InputError(f"{file}: {' x '.join(map(str, volume.shape[:3]))} voxels; every axis "
                         f"needs at least {SMALLEST_AXIS}")
    check_values(file, volume)


def check_values(file: Path, volume: np.ndarray) -> None:
    """InputError unless every voxel is a number that was measured."""
    if volume.dtype.kind == "f":
        if not np.isfinite(volume).all():
            raise InputError(f"{file}: {int((~np.isfinite(volume)).sum())} voxels are NaN or "
                             "infinite; replace them and start again")
        if found := int((np.abs(volume) > FILL).sum()):
            raise InputError(f"{file}: {found} voxels are beyond {FILL:g}, a code for what was not "
                             "measured; give them the value of air and start again")
    elif volume.dtype.kind == "i":
        _check_fill(file, volume)


def _check_fill(file: Path, volume: np.ndarray) -> None:
    """InputError if voxels have the lowest value of their type, far below all others."""
    lowest = np.iinfo(volume.dtype).min
    if volume.min() > lowest:
        return
    others = volume[volume > lowest]
    if others.size and int(others.min()) - lowest > int(others.max()) - int(others.min()):
        raise InputError(f"{file}: {volume.size - others.size} voxels are {lowest}, the lowest of "
                         f"their type, all others from {others.min()} to {others.max()}: a code "
                         "for what was not measured; give them the value of air and start again")
