r"""Fetch archives: resumed, verified, safely unpacked, skipped when complete.

    python code/common/data/download.py --archives code/3d/msd_archives.json --to data \
        Task04_Hippocampus

A partial file stays as <archive>.part and is resumed; a wrong checksum keeps the file aside as
<archive>.bad; the folder appears whole or not at all.
"""

import argparse
import difflib
import hashlib
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.errors import InputError, exit_status
from common.files import read_json

CHUNK = 1 << 20  # bytes read at a time
TRIES = 5        # connections, as long as each brings something new
TIMEOUT = 30     # seconds without an answer


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch and unpack the named archives into a folder."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="as Task04_Hippocampus")
    parser.add_argument("--archives", type=Path, required=True, help="JSON with url and md5")
    parser.add_argument("--to", type=Path, required=True, help="folder for the data")
    parser.add_argument("--url", help="another address, with {task} for the name")
    given = parser.parse_args(arguments)
    known = read_json(given.archives)
    for name in given.names:
        if name not in known["md5"]:
            near = difflib.get_close_matches(name, known["md5"], n=1, cutoff=0)[0]
            raise InputError(f"unknown data set {name}; did you mean {near}? There are: "
                             f"{' '.join(known['md5'])}")
    for name in given.names:
        url = (given.url or known["url"]).format(task=name)
        obtain(name, url, known["md5"][name], given.to)


def obtain(name: str, url: str, md5: str, folder: Path) -> None:
    """Make <folder>/<name> hold the archive's data; nothing is done where it already does."""
    target, archive = folder / name, folder / f"{name}.tar"
    if (target / "dataset.json").is_file():
        print(f"{target}: already there")
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        fetch(url, archive)
    verify(archive, md5)
    unpack(archive, target)
    archive.unlink()
    print(f"{target}: complete")


def fetch(url: str, target: Path) -> None:
    """Download ``url`` to ``target`` by way of <target>.part, going on where that ends."""
    part = target.with_name(f"{target.name}.part")
    for attempt in range(TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_rest(url, part, before):
                part.replace(target)
                return
            reason = "the connection ended early"
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing lies beyond what is there
                part.replace(target)
                return
            raise InputError(f"{url}: the server answered {error.code} {error.reason}; try later, "
                             f"or put the archive at {target}") from None
        except (urllib.error.URLError, HTTPException, OSError) as error:
            reason = str(getattr(error, "reason", error))
        if attempt + 1 < TRIES:
            time.sleep(min(attempt, 3))
    raise InputError(f"{url}: cannot be reached or breaks off ({reason}); check the network and "
                     f"give the same command again (it resumes {part.name}), or put the archive at "
                     f"{target}")


def _fetch_rest(url: str, part: Path, have: int) -> bool:
    """Append what is missing; whether the file is then as long as the server says."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        if answer.status != 206:
            have = 0  # the server sends the whole file
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        free = shutil.disk_usage(part.parent).free
        if total is not None and 2 * total - have > free:
            raise InputError(f"{part.parent}: {2 * total / 1e9:.1f} GB are needed for archive and "
                             f"data, {free / 1e9:.1f} GB are free; make room and start again")
        shown = time.monotonic()
        with part.open("ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    of = f" of {total / 1e6:.0f}" if total else ""
                    print(f"{part.stem}: {have / 1e6:.0f}{of} MB", flush=True)
    return total is None or have == total


def verify(archive: Path, md5: str) -> None:
    """Compare the MD5 sum; a wrong file is kept aside as <archive>.bad."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        bad = archive.with_name(f"{archive.name}.bad")
        archive.replace(bad)
        raise InputError(f"{archive}: MD5 {found} found, {md5} expected; kept as {bad.name}, not "
                         "unpacked; give the same command again to download anew")


def unpack(archive: Path, target: Path) -> None:
    """Unpack to a temporary folder, then rename; members must be plain files below ``target``."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if Path(member.name).name.startswith("._"):
                    continue  # macOS metadata, met in these archives
                if not (member.isfile() or member.isdir()):
                    raise InputError(f"{archive}: member {member.name} is neither file nor folder; "
                                     "refused, nothing unpacked")
                tar.extract(member, partial, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise InputError(f"{archive}: cannot be unpacked safely ({error}); nothing unpacked"
                         ) from None
    except InputError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    inner = partial / target.name
    if not (inner / "dataset.json").is_file():
        shutil.rmtree(partial)
        raise InputError(f"{archive}: holds no {target.name}/dataset.json; not this data set")
    inner.rename(target)
    shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
