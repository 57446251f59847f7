"""Photographs and a CSV on disk: what is accepted, and what is refused in one line."""

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.errors import InputError

loader = importlib.import_module("2d.loader")


def retina(seed: int = 0, height: int = 40, width: int = 60) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    inside = np.hypot(rows - height / 2, columns - width / 2) < 0.4 * height
    noise = np.random.default_rng(seed).integers(60, 200, (height, width, 3))
    return (noise * inside[..., None]).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set/train_images").mkdir(parents=True)
    for number in range(10):
        Image.fromarray(retina(number)).save(tmp_path / f"set/train_images/a{number}.png")
    write(tmp_path / "set", [f"a{number},{number % 5}" for number in range(10)])
    return tmp_path / "set"


def write(folder: Path, rows: list[str], head: str = "id_code,diagnosis") -> None:
    (folder / "train.csv").write_text("\n".join([head, *rows]) + "\n")


def build(folder: Path, resolution: int = 32) -> loader.Cache:
    dataset = loader.open_dataset(folder)
    return loader.build_cache(dataset, folder.parent / "cache", resolution=resolution, workers=1)


def test_the_cache_holds_images_grades_and_the_ungraded(folder: Path) -> None:
    (folder / "test_images").mkdir()
    Image.fromarray(retina(99)).save(folder / "test_images/u0.PNG")
    Image.fromarray(retina(98)).save(folder / "train_images/unlisted.jpg")
    (folder / "train_images/._a0.png").write_bytes(b"apple")
    cache = build(folder)
    images = cache.images()
    assert images.shape == (12, 3, 32, 32) and images.dtype == np.uint8 and cache.labels() is None
    assert cache.labelled == 10 and list(cache.facts)[10:] == ["u0", "unlisted"]
    assert loader.strata(cache) == {f"a{number}": number % 5 for number in range(10)}
    assert cache.facts["a7"]["contains"] == [2]
    assert len(loader.open_dataset(folder, unlabelled=False).sources) == 10


def test_enlarged_images_are_said_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(folder, resolution=64)
    assert "10 of 10 images show less than 64 px" in capsys.readouterr().out


def test_the_retina_is_cropped_squared_and_nothing_of_it_lost(folder: Path) -> None:
    picture = np.zeros((50, 90, 3), np.uint8)
    picture[10:40, 20:80] = 100  # 30 high, 60 wide
    picture[2, 5] = 255  # a speck in the surround
    Image.fromarray(picture).save(folder / "train_images/a0.png")
    image, label, facts = loader.preprocess(loader.Source("a0", folder / "train_images/a0.png"),
                                            resolution=60)
    assert label is None and facts["retina"] == [60, 30] and facts["shape"] == [90, 50]
    assert (image[:, 15:45] == 100).all() and (image[:, :15] == 0).all()
    assert (image[:, 45:] == 0).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "CMYK", "I;16", "twelve bits", "16 tif"])
def test_every_kind_of_pixel_becomes_the_same_rgb(mode: str, tmp_path: Path) -> None:
    grey = retina()[..., :1].repeat(3, axis=2)
    image = Image.fromarray(grey)
    file = tmp_path / ("x.tif" if mode in ("CMYK", "16 tif") else "x.png")
    if mode in ("I;16", "16 tif"):
        Image.fromarray((grey[..., 0].astype(np.uint16) << 8) + 255).save(file)
    elif mode == "twelve bits":
        Image.fromarray(grey[..., 0].astype(np.uint16) << 4).save(file)
    else:
        image = image.convert(mode)
        image.save(file)
        grey = np.asarray(image.convert("RGB"))  # a palette and CMYK are not exact
    read = np.asarray(loader.read_image(file)).astype(int)
    assert read.shape == grey.shape and np.abs(read - grey).max() <= 1


def test_transparent_pixels_are_surround(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[:, :4, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "x.png")
    read = np.asarray(loader.read_image(tmp_path / "x.png"))
    assert (read[:, :4] == 0).all() and (read[:, 5:] > 150).all()


@pytest.mark.parametrize("text", [
    "\ufeffid_code,diagnosis\r\na0,0\r\na1,1\r\n", '"id_code","diagnosis"\n"a0","0"\n"a1","1"\n',
    "diagnosis,note,id_code\n0,x,a0.png\n1,,a1.png\n", "id_code , diagnosis\n a0 , 0.0\na1,1.0\n",
])
def test_csvs_as_spreadsheets_write_them_are_read(text: str, folder: Path) -> None:
    (folder / "train.csv").write_text(text, encoding="utf-8", newline="")
    sources = loader.open_dataset(folder).sources
    assert [(s.id, s.target) for s in sources[:2]] == [("a0", 0), ("a1", 1)]
    assert len(sources) == 10  # the others are ungraded now


def test_any_folder_of_images_and_one_csv_serves(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "Other_Set"
    shutil.copytree(folder / "train_images", other)
    (other / "labels.csv").write_text("image,level\na0,0\na1,4\n")
    dataset = loader.open_dataset(other, id_column="image", grade_column="level")
    assert dataset.name == "other_set" and [s.target for s in dataset.sources[:2]] == [0, 4]


@pytest.mark.parametrize(("rows", "message"), [
    ([], "no rows"), (["a0,0", "a1,0"], "every image has grade 0"),
    (["a0,0", "zz,1"], "line 3: no image zz"), (["a0,0", "a1,5"], "line 3: grade '5'"),
    (["a0,0", "a1,-1"], "grade '-1'"), (["a0,0", "a1,1.5"], "grade '1.5'"),
    (["a0,0", "a1,"], "grade ''"), (["a0,0", "a1"], "grade None"), (["a0,0", "a1,nan"], "'nan'"),
    (["a0,0", "a0,1"], "a0 has more than one row"),
])
def test_bad_rows_name_the_file_and_the_line(rows: list[str], message: str, folder: Path) -> None:
    write(folder, rows)
    with pytest.raises(InputError, match="train.csv") as caught:
        loader.open_dataset(folder)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a0", "a0.png", "pics/a0.png"])
def test_an_image_in_another_folder_is_pointed_out(name: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder / "train_images", other / "pics")
    shutil.copy(other / "pics/a1.png", other / "b1.png")
    (other / "labels.csv").write_text(f"id_code,diagnosis\nb1,0\n{name},4\n")
    with pytest.raises(InputError) as caught:
        loader.open_dataset(other)
    assert str(caught.value).endswith(
        "; pics/a0.png lies there; images are looked for beside the CSV, or in train_images or "
        "images beside it: move or rename the folder")
    (other / "labels.csv").write_text("id_code,diagnosis\nb1,0\nzz,4\n")
    with pytest.raises(InputError, match="restore the image or remove the row"):
        loader.open_dataset(other)


def test_missing_csv_and_columns(folder: Path) -> None:
    write(folder, ["a0,1"], head="name,diagnosis")
    with pytest.raises(InputError, match="no column id_code, found name, diagnosis"):
        loader.open_dataset(folder)
    (folder / "train.csv").write_bytes(b"\x80\xfe\x00i")
    with pytest.raises(InputError, match="not a CSV in UTF-8"):
        loader.open_dataset(folder)
    (folder / "train.csv").unlink()
    own = {"id_column": "image", "grade_column": "kl"}
    with pytest.raises(InputError, match="no CSV found.* the columns image and kl, or a folder"):
        loader.open_dataset(folder, **own)
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("id_code,diagnosis\n")
    with pytest.raises(InputError, match="2 CSVs; name the one with the columns image and kl "
                                         "train.csv, or take the others away"):
        loader.open_dataset(folder, **own)
    (folder / "b.csv").unlink()
    with pytest.raises(InputError, match="a.csv: no rows"):
        loader.open_dataset(folder)


@pytest.mark.parametrize(("found", "remedy"), [
    ("4", r"take it out \(then it is unlabelled\), or give --grades 5$"),
    ("-1", r"unlabelled\)$"), ("2.5", r"unlabelled\); names take --classes$")])
def test_a_grade_too_many_names_the_flag_that_would_do(found: str, remedy: str, folder: Path
                                                       ) -> None:
    write(folder, ["a0,0", f"a1,{found}"])
    with pytest.raises(InputError, match=f"'{found}' found, a whole number from 0 to 3 .*{remedy}"):
        loader.open_dataset(folder, grades=4)


def test_a_folder_of_a_grade_too_many_names_the_flag_that_would_do(folder: Path) -> None:
    image = folder / "train_images/a0.png"
    (folder / "train.csv").unlink()
    for grade in ("0", "4"):
        (folder / "train" / grade).mkdir(parents=True)
        shutil.copy(image, folder / "train" / grade / "a.png")
    with pytest.raises(InputError, match="rename the folder, or give --grades 5$"):
        loader.open_dataset(folder, grades=4)


def test_two_files_of_one_name_have_to_be_told_apart(folder: Path) -> None:
    Image.fromarray(retina(5)).save(folder / "train_images/a0.jpg")
    with pytest.raises(InputError, match=r"a0.jpg or a0.png"):
        loader.open_dataset(folder)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "black", "constant", "float"])
def test_an_unusable_image_stops_with_its_name(damage: str, folder: Path) -> None:
    file = folder / "train_images/a3.png"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-2000])
    elif damage in ("empty", "text"):
        file.write_bytes(b"" if damage == "empty" else b"no image at all")
    elif damage == "float":
        Image.fromarray(np.ones((8, 8), np.float32)).save(file, format="TIFF")
    else:
        shade = np.full((30, 30, 3), 90 if damage == "constant" else 2, np.uint8)
        shade[0, 0] += 1 if damage == "black" else 0
        Image.fromarray(shade).save(file)
    with pytest.raises(InputError, match=r"a3\.png: ") as caught:
        build(folder)
    assert "\n" not in str(caught.value)
    assert not list((folder.parent / "cache").rglob("manifest.json"))
