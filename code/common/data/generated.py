"""Generated data sets: written whole or not at all, marked as such, never mixed with other files.

Both trees' phantoms draw one case from its number; what they share is here. generated.json holds
what a set was made with and the names of its files.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import Json, write_json

FIRST_UNLABELLED = 5000  # number of the first unlabelled case; labelled cases are numbered from 0
MARK = "generated.json"


class Kind(NamedTuple):
    """What a tree generates."""

    version: int   # raised when the cases change: folders of an older one are then refused
    smallest: int  # size, below which there would be nothing to see
    write: Callable[[Path, Sequence[int], int, int], None]  # folder, case numbers, size, seed


def generate(folder: Path, kind: Kind, *, labelled: int, unlabelled: int, size: int,
             seed: int) -> None:
    """Write a generated set as ``folder``, all of it or nothing; one made alike is kept.

    Raises InputError for counts out of range and for a folder that holds anything else.
    """
    if not (1 <= labelled <= FIRST_UNLABELLED and unlabelled >= 0 and size >= kind.smallest
            and seed >= 0):
        raise InputError(f"{folder}: cannot generate labelled={labelled} unlabelled={unlabelled} "
                         f"size={size} seed={seed}; expected 1 to {FIRST_UNLABELLED} labelled, no "
                         f"negative number, and a size of at least {kind.smallest}; change the "
                         "one out of range")
    asked = {"generated": True, "version": kind.version, "labelled": labelled,
             "unlabelled": unlabelled, "size": size, "seed": seed}
    if _is_made(folder, asked):
        return
    numbers = [*range(labelled), *range(FIRST_UNLABELLED, FIRST_UNLABELLED + unlabelled)]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        partial = Path(beside) / folder.name
        partial.mkdir()
        kind.write(partial, numbers, size, seed)
        files = sorted(str(file.relative_to(partial)) for file in partial.rglob("*")
                       if file.is_file())
        write_json(partial / MARK, {**asked, "files": files})
        try:
            partial.rename(folder)  # atomic; an empty folder is replaced
        except OSError:  # another process of the same demo was faster
            if not _is_made(folder, asked):
                raise


def _is_made(folder: Path, asked: Json) -> bool:
    """Tell a folder made as asked from none (or an empty one); refuse any other."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
        files = found.pop("files")
        made = found == asked and all((folder / name).is_file() for name in files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        made = False
    if not made:
        wanted = " ".join(f"{name}={value}" for name, value in asked.items())
        raise InputError(f"{folder}: found something else than the complete generated set expected "
                         f"here ({wanted}); move or delete this folder, or name another one")
    return True
