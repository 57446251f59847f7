"""Photographs and tables as the world has them: read rightly, or refused in one line."""

import importlib
import io
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.photographs import read_image
from common.errors import InputError

loader = importlib.import_module("2d.loader")
HEAD = "id_code,diagnosis"
ROWS = [f"a{number},{number % 3}" for number in range(9)]


def picture(seed: int = 0) -> np.ndarray:
    """A round bright field of noise, (40, 60, 3)."""
    rows, columns = np.mgrid[:40, :60]
    noise = np.random.default_rng(seed).integers(60, 200, (40, 60, 3))
    return (noise * (np.hypot(rows - 20, columns - 30) < 16)[..., None]).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "set"
    (made / "train_images").mkdir(parents=True)
    for number in range(9):
        Image.fromarray(picture(number)).save(made / f"train_images/a{number}.png")
    write(made, "\n".join([HEAD, *ROWS]))
    return made


def write(folder: Path, text: str, encoding: str = "utf-8") -> None:
    (folder / "train.csv").write_text(text, encoding=encoding, newline="")


def targets(folder: Path) -> list[tuple[str, int]]:
    return [(s.id, s.target) for s in loader.open_dataset(folder).sources if s.labelled]


SAME = {
    "semicolons": (";".join, "\n"), "tabs": ("\t".join, "\n"), "bars": ("|".join, "\n"),
    "semicolons and decimal commas": (lambda x: f"{x[0]};{x[1]},0" if x[1] < "a" else ";".join(x),
                                      "\r\n"),
    "Excel's own line": (";".join, "\r\nsep=;\r\n"), "old Macs": (",".join, "\r"),
    "empty fields behind": (lambda x: ",".join([*x, "", ""]), "\n"),
    "empty rows": (",".join, "\n,\n"), "with the folder": (
        lambda x: f"{'train_images/' if x[1] < 'a' else ''}{x[0]},{x[1]}", "\n"),
    "a note of two lines": (lambda x: ",".join([*x, '"two\nlines"' if x[1] < "a" else "note"]),
                            "\n"),
}


@pytest.mark.parametrize("kind", SAME)
def test_tables_that_say_the_same_give_the_same_grades(kind: str, folder: Path) -> None:
    join, end = SAME[kind]
    right = targets(folder)
    lines = [join(line.split(",")) for line in (HEAD, *ROWS)]
    text = end.join(lines)
    if kind == "Excel's own line":
        text = "sep=;\r\n" + "\r\n".join(lines)
    write(folder, text)
    assert targets(folder) == right
    write(folder, text, "utf-16")
    assert targets(folder) == right


REFUSED = {
    "a decimal comma": ([HEAD, "a0,1,5", "a1,0"], "line 2: 3 fields, but the header has 2"),
    "a column twice": ([f"{HEAD},diagnosis", "a0,1,2", "a1,0,1"], "2 columns diagnosis"),
    "a quote that swallows rows": (
        [f"{HEAD},note", 'a0,1,"left', "a1,0,x", "a2,2,y", 'a3,1,z"', "a4,2,x"], "hold 3 other"),
    "a quote and another": ([f"{HEAD},note", 'a0,1,"left', "a1,0,x", 'a2,2,a" b', "a3,1,z"],
                            "a quote that is not closed"),
    "a quote not closed": ([HEAD, "a0,1", '"a1,0', "a2,2"], "quote"),
    "no name": ([HEAD, "a0,1", ",2"], "line 3: no image "),
    "nothing": ([], "no column id_code, found nothing"),
    "a huge grade": ([HEAD, "a0,1", f"a1,{'9' * 400}"], "line 3: grade"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_cannot_be_meant_is_one_line(kind: str, folder: Path) -> None:
    lines, message = REFUSED[kind]
    write(folder, "\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message) as caught:
        loader.open_dataset(folder)
    assert "\n" not in str(caught.value) and "train.csv" in str(caught.value)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, RGB or RGBA."""
    height, width, channels = pixels.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return (struct.pack(">I", len(content)) + name + content
                + struct.pack(">I", zlib.crc32(name + content)))
    kind = {3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind,
                                                              0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [12, 14, 16])
def test_colours_of_more_than_8_bits_keep_their_brightness(bits: int, tmp_path: Path) -> None:
    right = picture()
    right[20, 30] = 255
    deep = right.astype(np.uint16) << (bits - 8)
    deep[20, 30] = 2**bits - 1
    (tmp_path / "x.png").write_bytes(png(deep))
    assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), right)
    opaque = np.full((40, 60, 1), 2**16 - 1, np.uint16)
    (tmp_path / "y.png").write_bytes(png(np.concatenate([deep, opaque], axis=2)))
    assert np.array_equal(np.asarray(read_image(tmp_path / "y.png")), right)


def cut(file: Path) -> None:
    content = io.BytesIO()
    Image.fromarray(picture()).resize((400, 300)).save(content, "JPEG", quality=90)
    file.write_bytes(content.getvalue()[:len(content.getvalue()) // 2] + b"\xff\xd9")


def pages(file: Path, form: str = "TIFF") -> None:
    big = Image.fromarray(picture())
    big.resize((16, 12)).save(file, form, save_all=True, append_images=[big])


def link(file: Path) -> None:
    file.unlink()
    file.symlink_to("../.git/annex/none")


def instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "a JPEG cut with its end marker": (cut, "data end before the picture does"),
    "pages": (pages, "2 pages"), "a moving image": (lambda f: pages(f, "GIF"), "2 pages"),
    "a broken link": (link, "a link to ../.git/annex/none"),
    "a folder": (instead, "a folder, where a file is expected"),
    "negative pixels": (lambda f: Image.fromarray(np.full((9, 9), -5, np.int32)).save(f, "TIFF"),
                        "pixels from -5 to -5"),
    "a header alone": (lambda f: f.write_bytes(png(np.ones((9, 9, 3), np.uint16))[:60]), "image"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_photograph_that_cannot_be_meant_is_one_line(kind: str, folder: Path) -> None:
    spoil, message = BROKEN[kind]
    spoil(folder / "train_images/a3.png")
    with pytest.raises(InputError, match=message) as caught:
        loader.build_cache(loader.open_dataset(folder), folder.parent / "cache", resolution=32,
                           workers=1)
    assert "\n" not in str(caught.value) and "a3.png" in str(caught.value)


def test_a_grey_surround_is_no_cut(tmp_path: Path) -> None:
    pixels = picture()
    pixels[pixels.max(2) == 0] = 128
    Image.fromarray(pixels).save(tmp_path / "x.jpg", quality=95)
    assert read_image(tmp_path / "x.jpg").size == (60, 40)


def test_other_kinds_of_files_are_read_and_the_rest_is_counted(
        folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kind in enumerate((".bmp", ".jfif", ".WEBP"), 1):
        (folder / f"train_images/a{number}.png").unlink()
        form = {".bmp": "BMP", ".jfif": "JPEG", ".WEBP": "WEBP"}[kind]
        Image.fromarray(picture(number)).save(folder / f"train_images/a{number}{kind}", form)
    for left in ("deeper/x.png", "y.dcm"):
        (folder / "train_images" / left).parent.mkdir(exist_ok=True)
        (folder / "train_images" / left).touch()
    assert len(targets(folder)) == 9
    assert "2 files of set look like images and are not read" in capsys.readouterr().out


def test_letters_that_look_alike_are_the_same(folder: Path) -> None:
    name = unicodedata.normalize("NFD", "schön")
    (folder / "train_images/a0.png").rename(folder / f"train_images/{name}.png")
    write(folder, "\n".join([HEAD, unicodedata.normalize("NFC", "schön") + ",2", *ROWS[1:]]))
    assert (name, 2) in targets(folder)


@pytest.mark.parametrize("below", ["train", "."])
def test_a_folder_for_each_grade_is_a_grade(below: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for grade in range(3):
        (folder / below / str(grade)).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(picture(grade)).save(folder / below / f"{grade}/{number}.png")
    (folder / "test_images").mkdir()
    Image.fromarray(picture(9)).save(folder / "test_images/u.png")
    assert targets(folder) == [("0_0", 0), ("0_1", 0), ("1_0", 1), ("1_1", 1), ("2_0", 2),
                               ("2_1", 2)]
    assert len(loader.open_dataset(folder).sources) == 7
    (folder / below / "7").mkdir()
    Image.fromarray(picture(7)).save(folder / below / "7/x.png")
    with pytest.raises(InputError, match="grade '7' found"):
        loader.open_dataset(folder)


def test_a_csv_wins_over_folders_whose_names_are_numbers(folder: Path) -> None:
    before = targets(folder)
    (folder / "2019").mkdir()
    assert targets(folder) == before


@pytest.mark.parametrize("name", ["dataset.json", "imagesTr/a.nii.gz", "a.NII"])
def test_scans_go_with_the_other_tree(name: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "scans"
    (other / name).parent.mkdir(parents=True)
    (other / name).touch()
    (other / "train.csv").write_text("id_code,diagnosis\na,0\n")
    with pytest.raises(InputError, match=f"no photographs; .* code/3d/exp.py --data {other}$"):
        loader.open_dataset(other)
    right = targets(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()  # beside photographs
    assert targets(folder) == right
