"""Photographs and a CSV of grades or classes (APTOS 2019 layout) -> cached arrays; checks input.

    <folder>/train.csv  train_images/<id>.png  [test_images/*]      the layout of APTOS 2019
    <folder>/any.csv    <id>.jpg ...                                any folder of images and a CSV
    <folder>/train/0/*.jpg  train/1/*.jpg ...                       a folder for each grade
    <folder>/train/benign/*.jpg  train/malignant/*.jpg ...          or for each of --classes 2

Unlabelled test_images, and images without a row in the CSV, join the pretraining pool. Nothing is
skipped silently: what cannot be used is an InputError naming the file, or the row of the CSV.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.data.cache import Cache, Facts, Prepared, Preprocessing, Source, build
from common.data.opening import SCANS, check_there, holds, lies_below, say_left_out
from common.data.photographs import SUFFIXES as SUFFIXES
from common.data.photographs import read_image as read_image
from common.data.values import read_table
from common.errors import InputError, few
from common.files import read_json

TABLES = (".csv", ".tsv")
DARK = 15         # brightest channel, of 255, of the surround; up to 13 in IDRiD (measured)
SPECKS = 0.02     # of a row or column: fewer bright pixels are noise of the surround, not retina
NO_CLASSES = ("train_images", "test_images", "images", "train", "val", "valid", "validation",
              "test")  # folders beside which there is no train/: parts of a set, never its classes
NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:[.,]0+)?")  # of a class; 001 and 1_1 are names
VERSION = 1       # raise when preprocessing changes: caches are then made anew
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Dataset:
    """A folder of photographs: its name in lower case, and its cases."""

    name: str
    folder: Path
    sources: list[Source]  # labelled cases first, each part sorted by id
    generated: bool
    groups: dict[str, str]  # case id -> patient, of the group column
    classes: list[str]      # names of unordered classes, by number; none of grades


class Labelled(NamedTuple):
    """A row of the CSV: its line, the image's name, label, and patient if there is a column."""

    line: int
    name: str
    label: str | None
    group: str


class Labels(NamedTuple):
    """What labels may be: ``grades`` from 0, or names of as many ``classes``, if that is not 0."""

    grades: int
    classes: int


def open_dataset(folder: Path, *, unlabelled: bool = True, id_column: str = "id_code",
                 grade_column: str = "diagnosis", grades: int = 5, classes: int = 0,
                 group_column: str = "") -> Dataset:
    """Read the CSV and find the image of every row; InputError for what is missing or odd.

    Labels are ``grades`` from 0; with ``classes`` names of as many classes, or numbers as names.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; ./setup.sh data fundus downloads APTOS 2019, "
                         "or give --data a folder of images and a CSV")
    table: Path = folder
    images = next((folder / name for name in ("train_images", "images")
                   if (folder / name).is_dir()), folder)
    parts = [] if _tables(folder) else _folders(folder, named=bool(classes))  # a CSV wins
    files = [] if parts else _images(images)
    if not parts and not files and ((folder / "dataset.json").exists() or holds(folder, SCANS)):
        raise InputError(f"{folder}: scans, and no photographs; volumes go with code/3d: "
                         f"python code/3d/exp.py --data {folder}")
    groups, labels = dict[str, str](), Labels(grades, classes)
    if not parts:
        table = _find_csv(folder, f"{id_column} and {grade_column}")
        columns = [(id_column, "--id-column"), (grade_column, "--grade-column"),
                   *([(group_column, "--group-column")] if group_column else [])]
        rows = _rows(table, columns)
        numbers, names = _numbers([(table, row.line, row.label) for row in rows], table, labels)
        labelled = _of_rows(table, images, files, rows, numbers)
        groups = {source.id: row.group for source, row in zip(labelled, rows, strict=True)
                  if group_column}
    elif group_column:
        raise InputError(f"{folder}: folders of {'classes' if classes else 'grades'} have no "
                         f"column {group_column}; give --group-pattern")
    else:
        inside = [(part, file) for part in parts for file in _images(part)]
        numbers, names = _numbers([(part, None, part.name) for part, _ in inside], folder, labels)
        labelled = [Source(f"{part.name}_{file.stem}", file, target=number)  # names may repeat
                    for (part, file), number in zip(inside, numbers, strict=True)]
    listed = {source.image for source in labelled}
    rest = [Source(file.stem, file) for file in [*files, *_images(folder / "test_images")]
            if unlabelled and file not in listed]
    _check_sources(table, labelled, rest)
    _check_several(table, labelled)
    if absent := sorted({*range(0 if classes else grades)} - {one.target for one in labelled}):
        print(f"note      no image has grade {few(list(map(str, absent)))}; --grades says how many")
    say_left_out(folder, [source.image for source in [*labelled, *rest]],
                 f"they lie neither in {images.name} nor in test_images" if unlabelled else
                 "no label")
    mark = folder / "generated.json"
    name = folder.resolve().name.lower()
    if not name:
        raise InputError(f"{folder}: no name of a data set; give a folder that has one")
    return Dataset(name, folder,
                   sorted(labelled, key=lambda s: s.id) + sorted(rest, key=lambda s: s.id),
                   mark.is_file() and bool(read_json(mark).get("generated")), groups, names)


def _of_rows(table: Path, images: Path, files: list[Path], rows: list[Labelled],
             numbers: list[int]) -> list[Source]:
    """The labelled images of a CSV, each found by its row's name; ``numbers`` are their labels."""
    by_name, labelled = _by_name(files, images), []
    for (line, name, _, _), number in zip(rows, numbers, strict=True):
        found = by_name.get(_spelt(name), [])
        if not found:
            raise InputError(f"{table}, line {line}: no image {name} ({', '.join(SUFFIXES)}) in "
                             f"{images}; " + lies_below(images, name, SUFFIXES))
        if len(found) > 1:
            raise InputError(f"{table}, line {line}: {name} may be "
                             f"{' or '.join(file.name for file in found)}; write the name "
                             "with its extension")
        labelled.append(Source(found[0].stem, found[0], target=number))
    return labelled


def _check_several(table: Path, labelled: list[Source]) -> None:
    """At least two grades."""
    found = sorted({source.target for source in labelled if source.target is not None})
    if len(found) < 2:
        what = f"every image has grade {found[0]}" if found else "no image"
        raise InputError(f"{table}: {what}; at least two grades are needed to learn grading")


def _tables(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir())
            if file.suffix.lower() in TABLES and not file.name.startswith("._")]


def _find_csv(folder: Path, columns: str) -> Path:
    """train.csv, or the only CSV of the folder; InputError naming the ``columns`` it needs."""
    found = _tables(folder)
    chosen = [file for file in found if file.stem.lower() == "train"] or found
    if len(chosen) > 1:
        raise InputError(f"{folder}: {len(chosen)} CSVs; name the one with the columns {columns} "
                         "train.csv, or take the others away")
    if not chosen:
        raise InputError(f"{folder}: no CSV found; expected train.csv with the columns {columns}, "
                         "or a folder of images for each grade, as train/0 (with --classes for "
                         "each class, as train/benign)")
    return check_there(chosen[0])


def _images(folder: Path) -> list[Path]:
    """The images of a folder, sorted; none if there is no such folder. InputError for a bad link.
    """
    files = folder.iterdir() if folder.is_dir() else ()
    return [check_there(file) for file in sorted(files)
            if file.suffix.lower() in SUFFIXES and not file.name.startswith("._")]


def _by_name(files: list[Path], images: Path) -> dict[str, list[Path]]:
    """Images by name with extension and without, in one spelling of letters; by path too."""
    names: dict[str, list[Path]] = {}
    for place in ("", f"{images.name}/"):
        for file in files:
            names.setdefault(_spelt(place + file.stem), []).append(file)
        for file in files:
            names[_spelt(place + file.name)] = [file]
    return names


def _spelt(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").removeprefix("./"))


def _rows(table: Path, columns: list[tuple[str, str]]) -> list[Labelled]:
    """Every row; ``columns`` are those of id, label and perhaps patient, with their flags."""
    rows = read_table(table, columns)
    if not rows:
        raise InputError(f"{table}: no rows; expected one for each labelled image")
    made = []
    for line, fields in rows:
        name, label, *group = (fields.get(column) for column, _ in columns)
        if group and not group[0]:
            raise InputError(f"{table}, line {line}: no patient in {columns[2][0]}; fill it in")
        made.append(Labelled(line, name or "", label, (group or [""])[0] or ""))
    return made


def _folders(folder: Path, *, named: bool) -> list[Path]:
    """Folders for each grade, or for each class by its name, below ``folder`` or its train."""
    for parent in (folder / "train", folder):
        parts = [part for part in (sorted(parent.iterdir()) if parent.is_dir() else [])
                 if part.is_dir()]
        if named:
            parts = [part for part in parts if not part.name.startswith(".")
                     and part.name.lower() not in NO_CLASSES and _images(part)]
        else:
            parts = [part for part in parts if part.name[0] in "0123456789"]
        if parts and (named or all(part.name.isdecimal() for part in parts)):
            return parts
    return []


def _numbers(said: Sequence[tuple[Path, int | None, str | None]], table: Path, labels: Labels
             ) -> tuple[list[int], list[str]]:
    """The numbers of labels, given as table and line, or folder, and text; and names of classes."""
    if labels.classes:
        return _classes([_class(*one) for one in said], table, labels.classes)
    return [_grade(*one, labels.grades) for one in said], []


def _classes(said: Sequence[str], table: Path, classes: int) -> tuple[list[int], list[str]]:
    """Numbers of labels and names of their classes: sorted; whole numbers by size, "2.0" as 2.

    InputError unless there are ``classes`` of them.
    """
    whole = [_whole(text) if NUMBER.fullmatch(text) else None for text in said]
    keys: list[Any] = [*said] if None in whole else whole
    count = Counter(keys)
    names = sorted(count)
    if len(names) != classes:
        listed = few([f"{name} ({count[name]} image{'s' * (count[name] > 1)})" for name in names])
        raise InputError(f"{table}: {len(names)} classes found, {listed}, but CLASSES = {classes}; "
                         f"correct the labels, or give --classes {len(names)}")
    number = {name: place for place, name in enumerate(names)}
    return [number[key] for key in keys], [str(name) for name in names]


def _class(table: Path, line: int | None, text: str | None) -> str:
    """A class's name in one spelling of letters and spaces; InputError for none."""
    name = " ".join(unicodedata.normalize("NFC", text or "").split())
    if not name:
        raise InputError(f"{table}, line {line}: no class; fill it in, or take the row out: the "
                         "image is then an unlabelled one")
    return name


def _whole(text: str) -> int | None:
    """A text as a whole number, None for another ("2.0" or "2,0" is one, as in spreadsheets)."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _grade(table: Path, line: int | None, text: str | None, grades: int) -> int:
    """The grade as a whole number in range; of a folder without a line."""
    value = _whole(text or "")
    if value is None or value not in range(grades):
        more = "" if value is None or value < 0 else f", or give --grades {value + 1}"
        place, remedy = (str(table), "rename the folder") if line is None else (
            f"{table}, line {line}", "correct the row or take it out (then it is unlabelled)")
        names = "; names take --classes" if value is None and text else ""
        raise InputError(f"{place}: grade {text!r} found, a whole number from 0 to "
                         f"{grades - 1} expected; {remedy}{more}{names}")
    return value


def _check_sources(table: Path, labelled: list[Source], rest: list[Source]) -> None:
    """No id twice: not in the CSV, and not under two files."""
    seen: dict[str, Source] = {}
    for source in [*labelled, *rest]:
        other = seen.setdefault(source.id, source)
        if other is source:
            continue
        if source.labelled:
            raise InputError(f"{table}: {source.id} has more than one " + (
                f"image ({other.image}, {source.image})" if table.is_dir() else "row")
                + "; each id must be unique")
        raise InputError(f"{source.image}: has the same id as {other.image}; each id must be "
                         "unique, rename one of them")


def build_cache(dataset: Dataset, root: Path, *, resolution: int, workers: int) -> Cache:
    """Return the preprocessed arrays: images (N, 3, R, R) uint8; says if some were enlarged."""
    how = Preprocessing(partial(preprocess, resolution=resolution),
                        {"resolution": resolution, "version": VERSION},
                        shape=(3, resolution, resolution), image_type=np.uint8, label_maps=False)
    cache = build(dataset.sources, root / dataset.name / "cache", how, workers=workers)
    sides = [max(fact["retina"]) for fact in cache.facts.values()]
    small = sum(side < resolution for side in sides)
    if small:
        print(f"note      {small} of {len(sides)} images show less than {resolution} px of retina "
              f"(smallest {min(sides)}) and were enlarged")
    return cache


def preprocess(source: Source, *, resolution: int) -> Prepared:
    """Turn one photograph into (3, R, R) uint8, no label map, and facts.

    RGB, box of the retina, resized with antialiasing so that its longer side is R, padded with
    black to a square. Facts: shape and retina (width, height in pixels), pixels (digest), truth
    (the number of the grade or class) and contains ([it]).
    """
    image = read_image(source.image)
    pixels = np.asarray(image)
    facts: Facts = {"shape": list(image.size),
                    "pixels": hashlib.sha256(repr(image.size).encode() + pixels.tobytes()
                                             ).hexdigest()[:16]}
    if source.target is not None:
        facts |= {"truth": source.target, "contains": [source.target]}
    box = retina_box(pixels, source.image)
    facts["retina"] = [box[2] - box[0], box[3] - box[1]]
    scale = resolution / max(facts["retina"])
    size = [max(1, round(side * scale)) for side in facts["retina"]]
    small = image.resize((size[0], size[1]), Image.Resampling.BILINEAR, box=box)
    square = Image.new("RGB", (resolution, resolution))
    square.paste(small, ((resolution - size[0]) // 2, (resolution - size[1]) // 2))
    return np.asarray(square).transpose(2, 0, 1), None, facts


def retina_box(pixels: Bytes, file: Path) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of what is brighter than the surround, ends excluded.

    Single bright pixels in the surround do not widen it. InputError for a picture of nothing.
    """
    if pixels.min() == pixels.max():
        raise InputError(f"{file}: all pixels are {pixels.min()}; a constant image shows nothing, "
                         "remove the case")
    bright = pixels.max(axis=2) > DARK  # (H, W)
    rows, columns = (np.flatnonzero(bright.mean(axis=axis) > SPECKS) for axis in (1, 0))
    if not len(rows) or not len(columns):
        raise InputError(f"{file}: no pixel above {DARK} of 255; a black image shows nothing, "
                         "remove the case")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def strata(cache: Cache) -> dict[str, int]:
    """Grade or class of each labelled case, by number."""
    return {case: fact["truth"] for case, fact in cache.facts.items() if "truth" in fact}
