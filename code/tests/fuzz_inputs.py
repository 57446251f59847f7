"""Does any file make a reader fall over? Small data sets, one thing changed, read as by exp.py.

    python code/tests/fuzz_inputs.py                     2,000 inputs, a few minutes
    python code/tests/fuzz_inputs.py --from 731 --count 1 --show    one of them again

Each number is a seed: of a kind of change, of the file and of what is changed there. An input may
be read, or refused in one line. A traceback, more than one line, an error that names no file, 20
seconds without an end, and arrays that differ although a checksum of the file's own format says
that its bytes were changed: each of these is a finding, told with its number. Status 1 if any.
"""

import argparse
import contextlib
import gzip
import importlib
import io
import json
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from PIL import Image
from test_inputs_3d import make, put, volume

from common.errors import InputError

LIMIT = 20  # seconds an input may take
ODD: list[Any] = [None, True, 0, -1, 1e309, 10**30, "", " ", "\x00", "a\nb", "../../etc/passwd",
                  "$x_1$", "e\u0301", "\ud7ff", [], {}, [[]], {"0": 0}, ["a", "a"], "0", "1", "nan",
                  "x" * 300]
CELLS = ["", " ", "0", "5", "-1", "1.0", "2,5", "nan", "NULL", '"', '""', "'", ";", "\t", "p,0",
         "é", "\x00", "=1+1", "1e9", "x" * 300, "\u2028", "id_code"]
SCANS = "*T[rs]/*.nii.gz"
HEADER = 348  # bytes of NIfTI-1's


class SlowError(Exception):
    """An input took longer than LIMIT."""


def scans(folder: Path) -> Path:
    """Four small scans with label maps, one without, and a time series of three volumes."""
    make(folder)
    series = np.stack([volume(number)[0] for number in (97, 98, 99)], axis=-1)
    put(folder / "imagesTs/u_1.nii.gz", series)
    content = json.loads((folder / "dataset.json").read_text())
    content["test"].append("./imagesTs/u_1.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def named(folder: Path) -> Path:
    """The photographs, with names of three classes in the place of grades."""
    table = photographs(folder) / "train.csv"
    head, *rows = table.read_text().splitlines()
    rows = [f"{row[:-1]}{('benign', 'malignant', 'é 3')[int(row[-1])]}" for row in rows]
    table.write_text("\n".join([head, *rows, ""]), encoding="utf-8")
    return folder


def photographs(folder: Path) -> Path:
    """Six small photographs with grades, and one without."""
    rng = np.random.default_rng(0)
    (folder / "train_images").mkdir(parents=True)
    for number in range(7):
        pixels = rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"train_images/p{number}.png")
    rows = [f"p{number},{number % 3}" for number in range(6)]
    (folder / "train.csv").write_text("\n".join(["id_code,diagnosis", *rows, ""]))
    return folder


def read_3d(folder: Path, cache: Path) -> dict[str, list[str]]:
    """Digests by case, as exp.py reads the folder."""
    loader = importlib.import_module("3d.loader")
    data = loader.open_dataset(folder)
    made = loader.build_cache(data, cache, resolution=16, intensity="percentile", workers=1)
    loader.strata(made)
    return dict(made.digests)


def read_2d(folder: Path, cache: Path, classes: int = 0) -> dict[str, list[str]]:
    """The same of photographs."""
    loader = importlib.import_module("2d.loader")
    data = loader.open_dataset(folder, unlabelled=True, id_column="id_code", classes=classes,
                               grade_column="diagnosis", grades=5, group_column="")
    made = loader.build_cache(data, cache, resolution=32, workers=1)
    loader.strata(made)
    return dict(made.digests)


def spoilt(content: bytes, draw: random.Random) -> bytes:
    """Bytes with some changed, cut off, put in, or twice."""
    data, place = bytearray(content), draw.randrange(max(1, len(content)))
    match draw.randrange(5):
        case 0:
            for _ in range(draw.choice((1, 1, 4, 64))):
                data[draw.randrange(len(data))] = draw.randrange(256)
        case 1:
            del data[place:]
        case 2:
            del data[place:place + draw.choice((1, 7, 500))]
        case 3:
            data[place:place] = draw.randbytes(draw.choice((1, 8, 300)))
        case 4:
            data += content
    return bytes(data)


def pick(folder: Path, pattern: str, draw: random.Random) -> Path:
    """One of the files."""
    return draw.choice(sorted(folder.glob(pattern)))


def bytes_of_a_scan(folder: Path, draw: random.Random) -> str:
    """Change the packed bytes of a scan or label map."""
    file = pick(folder, SCANS, draw)
    file.write_bytes(spoilt(file.read_bytes(), draw))
    return file.name


def header_of_a_scan(folder: Path, draw: random.Random) -> str:
    """Change some bytes of the header, and pack it again."""
    file = pick(folder, SCANS, draw)
    content = bytearray(gzip.decompress(file.read_bytes()))
    for _ in range(draw.choice((1, 2, 8))):
        content[draw.randrange(HEADER)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    file.write_bytes(gzip.compress(bytes(content), 1))
    return file.name


def value_of_json(folder: Path, draw: random.Random) -> str:
    """Put an odd value somewhere in dataset.json, or take a key away."""
    content = json.loads((folder / "dataset.json").read_text())
    here: Any = content
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw.choice(keys)
        if isinstance(here[key], dict | list) and here[key] and draw.random() < 0.7:
            here = here[key]
            continue
        if draw.random() < 0.2:
            del here[key]
        elif isinstance(here, dict) and draw.random() < 0.2:
            here[str(draw.choice(ODD))] = here.pop(key)
        else:
            here[key] = draw.choice(ODD)
        break
    text = json.dumps(content)
    (folder / "dataset.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    return text


def bytes_of_json(folder: Path, draw: random.Random) -> str:
    """Change the bytes of dataset.json."""
    file = folder / "dataset.json"
    file.write_bytes(spoilt(file.read_bytes(), draw))
    return file.name


def bytes_of_a_photograph(folder: Path, draw: random.Random) -> str:
    """Change the bytes of a photograph, in one of the formats that are read."""
    file = pick(folder, "train_images/*.png", draw)
    kind = draw.choice((".png", ".jpg", ".tif", ".bmp", ".webp"))
    if kind != ".png":
        stream = io.BytesIO()
        Image.open(file).save(stream, {".jpg": "JPEG", ".tif": "TIFF"}.get(kind, kind[1:].upper()))
        file.unlink()
        file = file.with_suffix(kind)
        file.write_bytes(stream.getvalue())
    file.write_bytes(spoilt(file.read_bytes(), draw))
    return file.name


def cell_of_a_table(folder: Path, draw: random.Random) -> str:
    """Put an odd value into a cell of the CSV, or another separator, quote or line end."""
    file = folder / "train.csv"
    rows = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()]
    row = draw.choice(rows)
    row[draw.randrange(len(row))] = draw.choice(CELLS)
    if draw.random() < 0.3:
        draw.choice(rows).append(draw.choice(CELLS))
    separator = draw.choice((",", ",", ",", ";", "\t"))
    text = draw.choice(("\n", "\n", "\r\n", "\r")).join(separator.join(row) for row in rows)
    file.write_text(text, encoding=draw.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
    return text


def bytes_of_a_table(folder: Path, draw: random.Random) -> str:
    """Change the bytes of the CSV."""
    file = folder / "train.csv"
    file.write_bytes(spoilt(file.read_bytes(), draw))
    return file.name


Change = Callable[[Path, random.Random], str]
KINDS: dict[str, list[tuple[Change, bool]]] = {  # change, whether the file's format has a checksum
    "3d": [(bytes_of_a_scan, True), (header_of_a_scan, False), (value_of_json, False),
           (bytes_of_json, False)],
    "2d": [(bytes_of_a_photograph, False), (cell_of_a_table, False), (bytes_of_a_table, False)],
    "classes": [(cell_of_a_table, False), (bytes_of_a_table, False)]}
READ = {"3d": read_3d, "2d": read_2d, "classes": partial(read_2d, classes=3)}


def outcome(number: int, bases: dict[str, Path], good: dict[str, dict[str, list[str]]],
            work: Path) -> tuple[str, str, str]:
    """Kind of change, "same", "other", "refused" or "FINDING", and the words that tell it."""
    draw = random.Random(number)
    tree = draw.choice(sorted(KINDS))
    change, checked = draw.choice(KINDS[tree])
    folder, said = work / bases[tree].name, io.StringIO()
    shutil.copytree(bases[tree], folder)
    what = change(folder, draw)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = READ[tree](folder, work / "cache")
    except InputError as error:
        words = str(error)
        one_line = "\n" not in words and "\r" not in words and (str(work) in words or "/" in words)
        return change.__name__, "refused" if one_line else "FINDING", words
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return change.__name__, "FINDING", f"{what[:300]}\n{traceback.format_exc()[-1500:]}"
    finally:
        signal.alarm(0)
    if found == good[tree]:
        return change.__name__, "same", what
    checked |= what.endswith(".png")
    return change.__name__, "FINDING" if checked else "other", f"other arrays: {what[:300]}"


def main() -> int:
    """Try numbers from --from on; tell findings and, at the end, how many of each outcome."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="NUMBER")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--show", action="store_true", help="tell every input")
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        bases = {"3d": scans(Path(top, "base/Task99_Fuzz")),
                 "2d": photographs(Path(top, "base/fuzz")),
                 "classes": named(Path(top, "base/classes"))}
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            good = {tree: READ[tree](folder, Path(top, "good")) for tree, folder in bases.items()}
        for number in range(asked.first, asked.first + asked.count):
            with tempfile.TemporaryDirectory(dir=top) as work:
                kind, ending, words = outcome(number, bases, good, Path(work))
            counts[kind, ending] += 1
            if ending == "FINDING" or asked.show:
                print(f"{number} {kind}: {ending}: {words}", flush=True)
    for (kind, ending), count in sorted(counts.items()):
        print(f"{kind:<24} {ending:<8} {count}")
    return int(any(ending == "FINDING" for _, ending in counts))


def _too_slow(*_: object) -> None:
    raise SlowError(f"over {LIMIT} s")


if __name__ == "__main__":
    sys.exit(main())
