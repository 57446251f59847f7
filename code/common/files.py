"""Files that are at every moment whole: JSON and text, digests, locks. Imports no torch."""

import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock

from common.errors import InputError

ROOT = Path(__file__).resolve().parents[2]

Json = dict[str, Any]
ZIPPED = ".gz"
UNNAMED = {"AUGMENT_SHARE": 1.0}  # constants since added, at what all runs before them had


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` so that ``path`` is at every moment absent, old or new, never half."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace the file at ``path`` by ``text`` in one step; compressed, if it is called .gz."""
    content = text.encode()
    if path.suffix == ZIPPED:
        content = gzip.compress(content, mtime=0)  # without the time: equal texts, equal files
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp gives 0600; records are meant to be shared
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Read a JSON file; InputError naming it if it is missing, not JSON, or has a key twice.

    In UTF-8 or as Windows writes it: UTF-16, or with a byte-order mark. Compressed, if it is
    called .gz.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ZIPPED:
            content = gzip.decompress(content)
        return json.loads(content, object_pairs_hook=_each_key_once)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}); restore it, for example with "
                         "git checkout") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it has to be a file that you "
                         "may read") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); move it away or restore it") from None


def _each_key_once(pairs: list[tuple[str, Any]]) -> Json:
    """An object of JSON; Python would take the last of two values of one key."""
    keys = [key for key, _ in pairs]
    if twice := [key for key in keys if keys.count(key) > 1] if len(set(keys)) < len(keys) else []:
        raise ValueError(f"the key {twice[0]!a} is there twice")
    return dict(pairs)


def digest(content: Any) -> str:
    """SHA-256 of a JSON value, 16 hex digits; equal values give equal digests."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """List where two JSON values differ, as "RESOLUTION: 32 -> 64"; what is missing is None.

    A constant of UNNAMED at its value does not differ from one that is missing.
    """
    if isinstance(old or new, dict) and isinstance(new or old, dict) and old != new:
        old, new = old or {}, new or {}
        keys = [*old, *(key for key in new if key not in old)]
        return [line for key in keys
                for line in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))]
    before = UNNAMED.get(name.rpartition(".")[2])
    if old == new or before is not None and [old, new] in ([before, None], [None, before]):
        return []
    return [f"{name.removeprefix('settings.')}: {old} -> {new}"]


@contextmanager
def starting(folder: Path) -> Iterator[None]:
    """Hold what only one of the processes started together may do: setting up ``folder``."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "locks" / "start.lock"):
        yield


def file_lock(path: Path) -> BaseFileLock:
    """A lock that ends with its process; OSError where the file system has none.

    (A soft lock, filelock's way out there, would outlive a killed process.)
    """
    return FileLock(path, fallback_to_soft=False)


def set_aside(path: Path) -> Path:
    """Move a file or folder to <name>.old-N, the first N that is free; nothing is deleted."""
    number = 1
    while (target := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    shutil.move(path, target)
    return target


def plain(content: Any) -> Any:
    """Return ``content`` as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(content))
