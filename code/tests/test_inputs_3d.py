"""Scans as the world has them: read rightly, or refused in one line; nothing silently."""

import gzip
import importlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data import scans
from common.errors import InputError

loader = importlib.import_module("3d.loader")
Spoil = Callable[[Path], object]


def volume(seed: int, shape: tuple[int, ...] = (12, 14, 10)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, -900, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    inside = tuple(slice(1, side - 1) if side > 4 else slice(None) for side in shape)
    image[inside] += rng.integers(900, 1000, image[inside].shape).astype(np.int16)
    label[3:6, 4:8, shape[2] // 2] = 1
    label[7:9, 4:8, shape[2] // 2] = 2
    return image + 150 * label.astype(np.int16), label


def put(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def make(folder: Path, count: int = 4, shape: tuple[int, ...] = (12, 14, 10)) -> Path:
    for number in range(count):
        for part, voxels in zip(("imagesTr", "labelsTr"), volume(number, shape), strict=True):
            put(folder / part / f"c_{number}.nii.gz", voxels)
    put(folder / "imagesTs/u_0.nii.gz", volume(99, shape)[0])
    (folder / "dataset.json").write_text(json.dumps({
        "modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ", "2": "tumour"},
        "training": [{"image": f"./imagesTr/c_{n}.nii.gz", "label": f"./labelsTr/c_{n}.nii.gz"}
                     for n in range(count)], "test": ["./imagesTs/u_0.nii.gz"]}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "Task99_Case")


def edit(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, **changes}))


def build(folder: Path, **given: Any) -> loader.Cache:
    return loader.build_cache(loader.open_dataset(folder, **given), folder.parent / "cache",
                              resolution=16, intensity="percentile", workers=1)


def patch(place: int, form: str, *values: object, name: str = "imagesTr/c_0.nii.gz") -> Spoil:
    """Change bytes of a header."""
    def change(folder: Path) -> None:
        raw = bytearray(gzip.decompress((folder / name).read_bytes()))
        struct.pack_into(form, raw, place, *values)
        (folder / name).write_bytes(gzip.compress(bytes(raw)))
    return change


def image(voxels: np.ndarray, name: str = "imagesTr/c_0.nii.gz", **given: Any) -> Spoil:
    return lambda folder: put(folder / name, voxels, **given)


def said(**changes: Any) -> Spoil:
    return lambda folder: edit(folder, **changes)


def link(folder: Path) -> None:
    (folder / "imagesTr/c_0.nii.gz").unlink()
    (folder / "imagesTr/c_0.nii.gz").symlink_to("../.git/annex/none")


def instead(folder: Path) -> None:
    (folder / "imagesTr/c_0.nii.gz").unlink()
    (folder / "imagesTr/c_0.nii.gz").mkdir()
    (folder / "imagesTr/c_0.nii.gz/1.dcm").touch()


AIR, HIGH = volume(0)[0].astype(np.float32), volume(0)[0].copy()
AIR[:2], HIGH[:2] = np.finfo(np.float32).min, np.iinfo(np.int16).min
COLOURS = np.zeros((12, 14, 10), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
DARK = np.zeros((12, 14, 10), np.int16)
DARK[:5] = 1000
MOVED, THICK, SHEARED = np.eye(4), np.diag([1.0, 1, 5, 1]), np.eye(4)
MOVED[0, 3], SHEARED[:3, 0] = 30, 0
LABEL, FAR = volume(0)[1], np.zeros((12, 14, 10), np.uint8)
FAR[8:10, 4:8, 4:8] = 1
ENTRY = {"image": "imagesTr/c_0.nii.gz", "label": "labelsTr/c_0.nii.gz"}
REFUSED: dict[str, tuple[Spoil, str]] = {
    "air is the lowest float": (image(AIR), "280 voxels are beyond 1e.30"),
    "air is the lowest integer": (image(HIGH), "280 voxels are -32768, the lowest"),
    "colours": (image(COLOURS), "expected one number each"),
    "complex": (image(np.ones((9, 9, 9), np.complex64)), "expected one number each"),
    "a plane": (image(np.ones((9, 9), np.int16)), "9 x 9 voxels; expected a volume of three axes"),
    "a series": (image(np.ones((9, 9, 9, 3, 2), np.int16)), "split the series"),
    "no magic": (patch(344, "4s", b""), "not a readable NIfTI"),
    "unknown type": (patch(70, "<h", 0), "not a readable NIfTI"),
    "voxels within the header": (patch(108, "<f", 0.0), "begin at byte 0"),
    "a smaller size": (patch(46, "<h", 9), "holds 3360 bytes of voxels, but its header says 3024"),
    "a larger size": (patch(46, "<h", 30000), "not a readable NIfTI"),
    "negative size": (patch(46, "<h", -3), "c_0.nii.gz: "),
    "affine is NaN": (patch(280, "<f", float("nan")), "c_0.nii.gz: "),
    "no affine and no spacing": (lambda f: [patch(252, "<hh", 0, 0)(f),
                                            patch(80, "<f", 0.0)(f)], "no size or direction"),
    "an axis without direction": (patch(280, "<12f", *SHEARED[:3].ravel()), "c_0.nii.gz: "),
    "label moved": (image(LABEL, "labelsTr/c_0.nii.gz", affine=MOVED), "30 voxels away .* origin"),
    "label of other spacing": (image(LABEL, "labelsTr/c_0.nii.gz", affine=THICK), "1 x 1 x 5"),
    "label in the dark": (lambda f: [image(DARK)(f), image(FAR, "labelsTr/c_0.nii.gz")(f)],
                          "foreground voxels lie where c_0.nii.gz is as dark"),
    "a broken link": (link, "a link to ../.git/annex/none, which is not there"),
    "a folder of slices": (instead, "a folder, where a file is expected; .*dcm2niix"),
    "no right to read": (lambda f: (f / "imagesTr/c_0.nii.gz").chmod(0), "change its permissions"),
    "other format": (said(training=[{**ENTRY, "image": "imagesTr/c_0.mha"}]), "SimpleITK"),
    "nothing listed": (said(training=[]), "lists no labelled scan"),
    "an entry is a number": (said(training=[3]), r"training\[0\] is 3; expected an object"),
    "a label is null": (said(training=[{**ENTRY, "label": None}]), r"training\[0\].label is None"),
    "a name with NUL": (said(test=["a\0b.nii.gz"]), r"test\[0\] is 'a.x00b"),
    "a long name": (said(test=["a" * 300 + ".nii.gz"]), "no name of a file"),
    "test is a text": (said(test="imagesTs"), "test is 'imagesTs'; expected a list"),
    "channel is a number": (said(modality=3), "modality is 3; expected the channels"),
    "channels left out": (said(modality={"0": "CT", "2": "PET"}), "none left out"),
    "class is a list": (said(labels={"background": 0, "whole": [1, 2]}), "regions"),
    "ignored voxels": (said(labels={"background": 0, "a": 1, "ignore": 2}), "has 'ignore'"),
    "a class twice": (said(labels=["background", "a", "a"]), "'a' is another class's or score's"),
    "a class called whole": (said(labels=["background", "whole", "b"]), "'whole' is another"),
    "a class called paper": (said(labels=["background", "a", "paper"]), "'paper' is another"),
    "300 classes": (said(labels=[f"c{n}" for n in range(300)]), "256 at most"),
    "labels are true": (said(labels={"0": "background", "1": True}), "labels is "),
    "a key twice": (lambda f: (f / "dataset.json").write_text('{"a": 1, "a": 2}'), "'a' is there "),
    "deep": (lambda f: (f / "dataset.json").write_text("[" * 99999), "not valid JSON"),
    "a list": (lambda f: (f / "dataset.json").write_text("[]"), "is .*; expected an object"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_one_line(kind: str, folder: Path) -> None:
    spoil, message = REFUSED[kind]
    spoil(folder)
    if kind == "no right to read" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    with pytest.raises(InputError, match=message) as caught:
        build(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def bom(folder: Path) -> None:
    file = folder / "dataset.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def plain(folder: Path) -> None:
    """Not packed, whatever the name says."""
    file = folder / "imagesTr/c_0.nii.gz"
    file.write_bytes(gzip.decompress(file.read_bytes()))


def listed(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    edit(folder, training=[{**e, "image": [e["image"]]} for e in content["training"]])


def backslashes(folder: Path) -> None:
    file = folder / "dataset.json"
    file.write_text(file.read_text().replace("./imagesTr/", ".\\\\imagesTr\\\\"))


def validation(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    edit(folder, training=content["training"][:3], validation=content["training"][3:])


SAME: dict[str, Spoil] = {
    "byte-order mark": bom, "UTF-16": lambda f: (f / "dataset.json").write_text(
        (f / "dataset.json").read_text(), encoding="utf-16"),
    "not packed": plain, "image as a list": listed, "backslashes": backslashes,
    "labelled under validation": validation,
    "modality is a list": said(modality=["CT"]), "modality is a text": said(modality="CT"),
    "modality is null": said(modality=None), "names first": said(modality={"CT": 0}),
    "labels by name": said(labels={"background": 0, "organ": 1, "tumour": 2}),
    "label of four axes": image(LABEL[..., None], "labelsTr/c_0.nii.gz"),
    "image of five axes": image(volume(0)[0][..., None, None]),
    "label as float": image(LABEL.astype(np.float64), "labelsTr/c_0.nii.gz"),
    "big-endian": image(volume(0)[0].astype(">i2")),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_is_meant_alike_gives_the_same_arrays(kind: str, folder: Path) -> None:
    right = build(folder)
    SAME[kind](folder)
    cache = build(folder)
    assert cache.labelled == 4 and cache.digests == right.digests


def test_channels_of_their_own_files_are_one_image(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    for file in sorted(folder.rglob("images*/*.nii.gz")):
        put(file.with_name(f"second_{file.name}"), volume(7)[0])
    edit(folder, modality=["CT", "PET"], test=[], training=[
        {**e, "image": [e["image"], e["image"].replace("Tr/", "Tr/second_")]}
        for e in content["training"]])
    for file in (folder / "imagesTs").iterdir():
        file.unlink()
    cache = build(folder)
    assert cache.images().shape == (4, 2, 16, 16, 16)
    alone = loader.preprocess(loader.Source("a", folder / "imagesTr/second_c_0.nii.gz"), classes=3,
                              channels=1, resolution=16, intensity="percentile")[0]
    assert np.array_equal(cache.images()[0, 1], alone[0])
    put(folder / "imagesTr/second_c_0.nii.gz", volume(7)[0], MOVED)
    with pytest.raises(InputError, match="second_c_0.nii.gz: lies 30 voxels away"):
        build(folder)


def test_scans_that_are_not_listed_are_counted(folder: Path,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    put(folder / "imagesTr/extra.nii.gz", volume(5)[0])
    put(folder / "imagesTs/deeper/x.nii.gz", volume(6)[0])
    (folder / "imagesTs/y.nrrd").touch()
    (folder / "imagesTr/._c_0.nii.gz").touch()
    assert len(loader.open_dataset(folder).sources) == 5
    assert "3 files of Task99_Case look like images and are not read" in capsys.readouterr().out


@pytest.mark.parametrize("slices", [2, 3, 7])
def test_thin_volumes_are_accepted(slices: int, tmp_path: Path) -> None:
    cache = build(make(tmp_path / "Task99_Thin", shape=(12, 14, slices)))
    labels = cache.labels()
    assert labels is not None and set(np.unique(labels[0])) == {0, 1, 2}
    assert cache.facts["c_0"]["shape"] == [12, 14, slices]


def test_foreground_that_the_box_cuts_off_is_counted(folder: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    label = LABEL.copy()
    label[0, :3, 0] = 1
    scan = volume(0)[0]
    scan[0] = -1000
    put(folder / "imagesTr/c_0.nii.gz", scan)
    put(folder / "labelsTr/c_0.nii.gz", label)
    cache = build(folder)
    assert cache.facts["c_0"]["outside"] == 3
    assert "1 scans have foreground outside the box" in capsys.readouterr().out


def test_a_label_changed_with_its_time_set_back_is_read_again(folder: Path) -> None:
    label = folder / "labelsTr/c_0.nii.gz"
    label.write_bytes(label.read_bytes() + bytes(200))
    old, before = label.stat(), build(folder).digests["c_0"]
    put(label, np.roll(LABEL, 1, 0))
    with label.open("ab") as file:  # zeros behind a gzip file are no data
        file.write(bytes(old.st_size - label.stat().st_size))
    assert label.stat().st_size == old.st_size
    os.utime(label, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert build(folder).digests["c_0"][1] != before[1]


def test_the_affine_counts_where_the_header_has_another_spacing(folder: Path) -> None:
    patch(80, "<f", 3.0)(folder)
    assert scans.read_file(folder / "imagesTr/c_0.nii.gz").spacing == [1, 1, 1]
    patch(123, "<b", 1)(folder)  # metres
    assert scans.read_file(folder / "imagesTr/c_0.nii.gz").spacing == [1000, 1000, 1000]


def test_a_set_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name behind its number"):
        loader.open_dataset(make(tmp_path / "Task99_"))


def test_photographs_go_with_the_other_tree(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "photographs"
    (other / "train_images").mkdir(parents=True)
    (other / "train.csv").write_text("id_code,diagnosis\na,0\n")
    with pytest.raises(InputError, match="dataset.json: no such file"):
        loader.open_dataset(other)
    (other / "train_images/a.JPG").touch()
    with pytest.raises(InputError, match=f"no dataset.json; .* code/2d/exp.py --data {other}$"):
        loader.open_dataset(other)
    (folder / "picture.png").touch()  # beside scans
    assert len(loader.open_dataset(folder).sources) == 5
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match="dataset.json: no such file"):
        loader.open_dataset(folder)
