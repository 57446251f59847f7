"""Preprocessed cases on disk: one array per kind, memory-mapped, beside a manifest.

    <root>/<dataset>/cache/hashes.json       SHA-256 of every source file, by path, size and time
    <root>/<dataset>/cache/<key>/            images.npy [labels.npy] manifest.json

The key is made of the files' contents and the settings that reach preprocessing: a changed data
set or setting gets a new folder, the old one stays. A folder appears whole or not at all. Runs are
known by the digests of the arrays themselves, so that other files that give the same are the same.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, current_process, get_context
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from isal import isal_zlib
from numpy.lib.format import open_memmap
from tqdm import tqdm

from common.data.opening import decoding
from common.errors import InputError, deaf, end_with
from common.files import digest, file_lock, read_json, write_json
from common.machine import limits

FORMAT = 3  # of a cache folder; raise when what lies in it changes
POOL_FROM = 2.0  # seconds of work left; starting a pool of interpreters takes 2 to 3 (measured)
SURE = 0.15      # of these, done here before the rest is estimated: the first case is slower

Facts = dict[str, Any]
Prepared = tuple[np.ndarray, np.ndarray | None, Facts]


@dataclass(frozen=True)
class Source:
    """One case on disk: a labelled one has a label file or a target value."""

    id: str
    image: Path
    label: Path | None = None
    target: int | None = None
    more: tuple[Path, ...] = ()  # files of further channels, where each has its own
    frame: int | None = None     # of a time series, from 0: the case is this volume of it

    @property
    def labelled(self) -> bool:
        """Whether the case has a label of either kind."""
        return self.label is not None or self.target is not None

    @property
    def place(self) -> Path:
        """The image as messages name it."""
        return self.image if self.frame is None else self.image.with_name(
            f"{self.image.name}, volume {self.frame}")

    @property
    def images(self) -> list[Path]:
        """The files the image is read from, one, or one a channel."""
        return [self.image, *self.more]

    @property
    def files(self) -> list[Path]:
        """The files the case is read from."""
        return self.images if self.label is None else [*self.images, self.label]


@dataclass(frozen=True)
class Cache:
    """Where the arrays of a data set lie, and what is known of each case."""

    folder: Path
    facts: dict[str, Facts]      # case id -> what preprocessing found, the row order
    contents: dict[str, str]     # case id -> digest of its files
    labelled: int                # the first rows are the labelled cases
    digests: dict[str, list[str]]  # case id -> digests of its image array and of its label

    def images(self) -> np.ndarray:
        """All images, memory-mapped copy-on-write: (N, C, *space)."""
        return np.load(self.folder / "images.npy", mmap_mode="c")

    def labels(self) -> np.ndarray | None:
        """Label maps of the labelled cases, (labelled, *space), if the data set has any."""
        path = self.folder / "labels.npy"
        return np.load(path, mmap_mode="c") if path.exists() else None

    def arrays(self, ids: Sequence[str], *, labels: bool = False) -> str:
        """One digest of the arrays of some cases: their images, or these and their labels."""
        return digest({case: self.digests[case] if labels else self.digests[case][0]
                       for case in ids})


@dataclass(frozen=True)
class Preprocessing:
    """How cases become arrays."""

    prepare: Callable[[Source], Prepared]  # picklable; -> image (C, *space), label map, facts
    settings: Facts                        # whatever changes the arrays
    shape: tuple[int, ...]                 # of an image: (C, *space)
    image_type: type
    label_maps: bool                       # whether labels are maps; else each is a value


def build(sources: Sequence[Source], root: Path, how: Preprocessing, *, workers: int) -> Cache:
    """Return the cache of ``sources`` (labelled cases first), making it if it is not there.

    Cases are prepared in a pool of ``workers`` processes, where there is work for one. Only one
    process builds; others wait and say so. Raises the first InputError of ``how.prepare``.
    """
    _check_main()
    root.mkdir(parents=True, exist_ok=True)
    waits = f"another process is preprocessing {root.parent.name}"
    with _locked(root / "hashes.lock", waits):
        contents = _contents(sources, root / "hashes.json", workers)
    key = digest({"contents": contents, "settings": how.settings, "format": FORMAT})
    folder = root / key
    if _damage(folder):  # looked at before the lock: many processes may read a sound cache at once
        with _locked(root / f"{key}.lock", waits):
            if damage := _damage(folder):  # another may have made it meanwhile
                _set_aside(folder, damage)
                _make(folder, sources, how, contents, workers)
    manifest = read_json(folder / "manifest.json")
    return Cache(folder, manifest["facts"], manifest["contents"], manifest["labelled"],
                 manifest["digests"])


def _check_main() -> None:
    """Stop a worker that runs its parent's script again, and so would wait for itself for ever."""
    if getattr(current_process(), "_inheriting", False):  # multiprocessing's own mark
        raise InputError("a script that preprocesses must do so below: if __name__ == "
                         "\"__main__\": (its worker processes import it again)")


def _make(folder: Path, sources: Sequence[Source], how: Preprocessing, contents: dict[str, str],
          workers: int) -> None:
    """Preprocess every case into ``folder``, which appears whole or not at all."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        facts, digests = _write(sources, partial, how, workers)
    except BrokenProcessPool:
        raise InputError(f"{folder}: a process that preprocessed was ended: killed, out of memory "
                         "(free some, or give fewer cores with taskset), or begun by a script "
                         "without if __name__ == \"__main__\":; nothing half-made is used"
                         ) from None
    write_json(partial / "manifest.json",
               {"settings": how.settings, "facts": facts, "contents": contents, "digests": digests,
                "labelled": sum(source.labelled for source in sources),
                "checksums": {p.name: _crc32(p) for p in partial.glob("*.npy")}})
    partial.rename(folder)


def _damage(folder: Path) -> str | None:
    """Why a cache cannot be used, "missing" if there is none; None if every bit is as written."""
    if not folder.exists():
        return "missing"
    try:
        sums = read_json(folder / "manifest.json")["checksums"]
        changed = [name for name, crc in sums.items() if _crc32(folder / name) != crc]
    except (InputError, OSError, KeyError, TypeError, AttributeError) as error:
        return str(error)
    return f"{changed[0]} is not what was written" if changed else None


def _set_aside(folder: Path, reason: str) -> None:
    """Name a damaged cache and move it aside."""
    if not folder.exists():
        return
    aside = folder.with_name(f"{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    print(f"warning: {folder}: damaged ({reason}); moved to {aside.name}, made again",
          file=sys.stderr)


def _write(sources: Sequence[Source], folder: Path, how: Preprocessing,
           workers: int) -> tuple[dict[str, Facts], dict[str, list[str]]]:
    """Preprocess every case into the arrays of ``folder``; return facts and digests, by row."""
    labelled = sum(source.labelled for source in sources)
    images = open_memmap(folder / "images.npy", "w+", how.image_type, (len(sources), *how.shape))
    labels = open_memmap(folder / "labels.npy", "w+", np.uint8,
                         (labelled, *how.shape[1:])) if how.label_maps else None
    needed = images.nbytes + (labels.nbytes if labels is not None else 0)
    free = shutil.disk_usage(folder).free
    if needed > free:  # a memory map on a full disk would kill the process without a word
        raise InputError(f"{folder}: {needed / 1e9:.1f} GB are needed for preprocessed images, "
                         f"{free / 1e9:.1f} GB are free; make room, or name another place with "
                         "--cache")
    print(f"cache     {len(sources)} cases are preprocessed, once for all runs: "
          f"{needed / 1e9:.2g} GB in {folder.parent}", flush=True)
    facts: dict[str, Facts] = {}
    digests: dict[str, list[str]] = {}
    with limits.keeping_memory():
        for row, (image, label, fact) in enumerate(_pooled(how.prepare, sources, workers)):
            source = sources[row]
            images[row] = image
            digests[source.id] = [_digest(images[row]), digest(source.target)]
            if labels is not None and label is not None:
                labels[row] = label
                digests[source.id][1] = _digest(labels[row])
            facts[source.id] = fact
    images.flush()
    if labels is not None:
        labels.flush()
    return facts, digests


def _digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values, 16 hex digits."""
    sha = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:16]


def _pooled(prepare: Callable[[Source], Prepared], sources: Sequence[Source],
            workers: int) -> "tqdm[Prepared]":
    """Results of ``prepare`` in the order of ``sources``, with a progress bar.

    The first cases are done here; so are the others, if by their time they take less than a pool.
    """
    def results() -> Any:
        begun, rest, spent = time.monotonic(), list(sources), list[float]()
        while rest:
            yield prepare(rest.pop(0))
            spent.append(time.monotonic() - begun)
            each = (spent[-1] - spent[0]) / (len(spent) - 1) if len(spent) > 1 else spent[0]
            if spent[-1] > SURE * POOL_FROM and each * len(rest) > POOL_FROM:
                yield from pooled(rest)
                return

    def pooled(rest: Sequence[Source]) -> Any:
        # Spawned, not forked: the parent has torch's threads. At most a few cases in flight, so
        # that memory stays flat however many there are.
        others = set(active_children())
        with limits.sharing():
            pool = ProcessPoolExecutor(max(1, workers), mp_context=get_context("spawn"),
                                       initializer=_begin, initargs=(os.getpid(),))
        waiting: list[Future[Prepared]] = []
        try:
            for source in rest:
                with deaf():
                    waiting.append(pool.submit(prepare, source))
                if len(waiting) > 2 * workers:
                    yield waiting[0].result()  # still waited for, if this is interrupted
                    waiting.pop(0)
            while waiting:
                yield waiting[0].result()
                waiting.pop(0)
        finally:
            if waiting:  # after Ctrl-C, which they do not hear: nothing more is wanted of them
                for process in set(active_children()) - others:
                    process.terminate()
            pool.shutdown(cancel_futures=True)
    return progress(results(), len(sources), "preprocess")


def _begin(parent: int) -> None:
    """Let this worker keep memory for the next case, and end when its parent is gone."""
    limits.keep_memory()
    end_with(parent)


def progress(items: Any, total: int, what: str) -> "tqdm[Any]":
    """A progress bar with time left; a plain line every 30 s where stderr is not a terminal."""
    terminal = sys.stderr.isatty()
    return tqdm(items, total=total, desc=what, unit="case", mininterval=0.1 if terminal else 30,
                ascii=not terminal, ncols=None if terminal else 80, dynamic_ncols=terminal)


def _contents(sources: Sequence[Source], index: Path, workers: int) -> dict[str, str]:
    """Digest of each case's files; a file unchanged in size and times is not read again.

    The time of its last change counts too, which no program sets back.
    """
    known = _known(index)
    files = sorted({file for source in sources for file in source.files})
    stamps = {str(file): _stamp(file) for file in files}
    new = [file for file in files if known.get(str(file), [])[:3] != stamps[str(file)]]
    if new:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            for file, sha in zip(new, progress(pool.map(_sha256, new), len(new), "checksums"),
                                 strict=True):
                known[str(file)] = [*stamps[str(file)], sha]
        write_json(index, known)
    return {source.id: digest([source.target, *(known[str(file)][3] for file in source.files),
                               *([] if source.frame is None else [source.frame])])
            for source in sources}


def _known(index: Path) -> dict[str, list[Any]]:
    """What hashes.json has; nothing if it cannot be used, since it only saves time."""
    try:
        known = json.loads(index.read_text(encoding="utf-8")) if index.exists() else {}
    except (ValueError, RecursionError):
        return {}
    return {file: entry for file, entry in known.items() if isinstance(entry, list)
            and len(entry) == 4} if isinstance(known, dict) else {}


def _stamp(file: Path) -> list[int]:
    """Size, and times of the last writing and of the last change, in ns."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _crc32(file: Path) -> int:
    """CRC-32 of a file: 13 GB/s (measured), less than reading the arrays, needed anyway."""
    crc, part = 0, memoryview(bytearray(2**20))
    with file.open("rb", buffering=0) as stream:
        while count := stream.readinto(part):
            crc = isal_zlib.crc32(part[:count], crc)
    return crc


def _sha256(file: Path) -> str:
    with decoding(file, "file"), file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _locked:  # noqa: N801 - used as a function: with _locked(...)
    """Hold a file lock, saying so once if it has to be waited for."""

    def __init__(self, path: Path, message: str) -> None:
        self.lock, self.message = file_lock(path), message

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            print(f"{self.message}; waiting for it", flush=True)
            self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()
