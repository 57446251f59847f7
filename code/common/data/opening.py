"""Files of others: the one place where they are found, opened and decoded, or refused in one line.

A decoder of foreign bytes may raise anything; what it raises is a property of the file, and becomes
an InputError that names it. What is not read is counted on screen.
"""

import logging
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from common.errors import InputError, few

IMAGES = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2",
          ".heic", ".avif", ".svs", ".dcm", ".ppm", ".pgm", ".nii", ".nii.gz", ".hdr", ".img",
          ".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".mnc")
"""Ends of names that may be images; one that is not read is said."""
PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".webp")
SCANS = (".nii", ".nii.gz")
LOOKED_AT = 10000  # files of a folder, at most, to tell what is in it
CONVERTERS = {
    (".mha", ".mhd", ".nrrd", ".nhdr"): "convert it: SimpleITK.WriteImage(SimpleITK.ReadImage("
                                        "file), \"case.nii.gz\") keeps the geometry",
    (".dcm", ".ima"): "convert the folder of slices with dcm2niix -z y FOLDER",
    (".hdr", ".img", ".mgz", ".mgh", ".mnc"): "convert it: nibabel.save(nibabel.Nifti1Image.from"
                                              "_image(nibabel.load(file)), \"case.nii.gz\")",
}


def check_there(file: Path, listed_by: Path | None = None) -> Path:
    """The file as the disk spells it; InputError if there is none, or something else.

    Letters that look alike (NFC and NFD) are the same.
    """
    try:
        if file.is_file():
            return file
        if found := _alike(file):
            return found
        link, folder = file.is_symlink(), file.is_dir()
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise InputError(f"{str(file)[:200]!a}: no name of a file ({error}); correct it"
                         + (f" in {listed_by}" if listed_by else "")) from None
    if folder:
        slices = any(one.suffix.lower() in (".dcm", ".ima", "") for one in file.iterdir())
        hint = f"; {_converter('.dcm')}" if slices else ""
        raise InputError(f"{file}: a folder, where a file is expected{hint}; give the file or "
                         "take the folder away")
    if link:
        raise InputError(f"{file}: a link to {file.readlink()}, which is not there; fetch that "
                         "file (git annex get), or remove the link")
    lists = (f", but {listed_by.name} lists it; restore the file or remove the entry from "
             f"{listed_by}" if listed_by else "; restore it")
    raise InputError(f"{file}: no such file{lists}")


def _alike(file: Path) -> Path | None:
    """The only file whose path reads like this one."""
    if not file.parent.is_dir():
        return None
    name = unicodedata.normalize("NFC", file.name)
    found = [one for one in file.parent.iterdir()
             if unicodedata.normalize("NFC", one.name) == name and one.is_file()]
    return found[0] if len(found) == 1 else None


def is_there(file: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


def _converter(suffix: str) -> str | None:
    return next((how for suffixes, how in CONVERTERS.items() if suffix.lower() in suffixes), None)


def check_kind(file: Path, kinds: Sequence[str]) -> None:
    """InputError naming a converter for a file whose name has none of these ends."""
    if not file.name.lower().endswith(tuple(kinds)):
        how = _converter(file.suffix) or "convert it"
        raise InputError(f"{file}: expected {' or '.join(kinds)}; {how}, then name the new file")


def holds(folder: Path, kinds: Sequence[str]) -> bool:
    """Whether a file below ``folder`` has one of these ends; of the first LOOKED_AT."""
    return any(file.name.lower().endswith(tuple(kinds)) and not file.name.startswith(".")
               for file in islice(folder.rglob("*"), LOOKED_AT))


@contextmanager
def decoding(file: Path, what: str) -> Iterator[None]:
    """Turn whatever reading and decoding ``file`` raises into one line: it is no readable ``what``.
    """
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # it says on stderr what it raises, or mends, too
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{file}: takes more memory than there is; a header may be wrong: export "
                         "it again") from None
    except PermissionError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); change its permissions"
                         ) from None
    except Exception as error:
        words = " ".join(str(error).split())[:100] or type(error).__name__
        raise InputError(f"{file}: not a readable {what} ({words}); download or export it again"
                         ) from None
    finally:
        logger.setLevel(level)


def lies_below(folder: Path, name: str, kinds: Sequence[str]) -> str:
    """What to do about an image that is not in ``folder``: whether a folder below it has it."""
    found = sorted(file for file in islice(folder.rglob("*"), LOOKED_AT) if name.rpartition("/")[
        2] in (file.stem, file.name) and file.name.lower().endswith(tuple(kinds)))
    if not found:
        return "restore the image or remove the row"
    return (f"{found[0].relative_to(folder)} lies there; images are looked for beside the CSV, or "
            "in train_images or images beside it: move or rename the folder")


def say_left_out(folder: Path, used: Collection[Path], why: str) -> None:
    """Say how many files below ``folder`` look like images and are not among ``used``."""
    known = {file.resolve() for file in used}
    known |= {file.absolute() for file in used}
    left = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*"))
            if file.name.lower().endswith(IMAGES) and not file.name.startswith(".")
            and file.absolute() not in known and file.resolve() not in known and file.is_file()]
    if left:
        print(f"note      {len(left)} files of {folder.name} look like images and are not read: "
              f"{why} ({few(left, 3)})")
