"""The generated photographs: layout, variety, lesions that grow with the grade."""

import importlib
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from common.errors import InputError

phantom = importlib.import_module("2d.phantom")
CASES = range(60)


@cache
def case(number: int) -> tuple[NDArray[np.uint8], int]:
    pixels, grade = phantom.make_case(number, size=64, seed=0)
    return pixels, grade


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    phantom.generate(tmp_path / "set", labelled=6, unlabelled=2, size=48)
    return tmp_path / "set"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout_is_that_of_aptos(folder: Path) -> None:
    lines = (folder / "train.csv").read_text().splitlines()
    assert lines[0] == "id_code,diagnosis" and len(lines) == 7
    assert [int(line.split(",")[1]) for line in lines[1:6]] == [0, 1, 2, 3, 4]
    names = {line.split(",")[0] for line in lines[1:]}
    assert {p.stem for p in (folder / "train_images").iterdir()} == names
    assert len(list((folder / "test_images").iterdir())) == 2
    assert json.loads((folder / "generated.json").read_text())["generated"] is True
    with Image.open(folder / "train_images/fundus_0000.png") as image:
        assert image.mode == "RGB" and 42 <= image.height <= 54 and image.width >= image.height * .9


def test_a_case_depends_on_its_number_only(folder: Path, tmp_path: Path) -> None:
    phantom.generate(tmp_path / "more", labelled=8, unlabelled=1, size=48)
    one, two = files(folder), files(tmp_path / "more")
    assert all(two[name] == content for name, content in one.items()
               if name.startswith("train_images"))
    assert len({content for name, content in two.items() if name.endswith(".png")}) == 9


def test_made_again_is_kept_and_anything_else_refused(folder: Path) -> None:
    before = files(folder)
    phantom.generate(folder, labelled=6, unlabelled=2, size=48)
    assert files(folder) == before
    with pytest.raises(InputError, match="holds other files"):
        phantom.generate(folder, labelled=7, unlabelled=2, size=48)
    with pytest.raises(InputError, match="cannot generate labelled=0"):
        phantom.generate(folder / "x", labelled=0, unlabelled=0)
    assert files(folder) == before


def test_an_interrupted_set_leaves_nothing(tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(number: int, **_: object) -> None:
        raise KeyboardInterrupt
    monkeypatch.setattr(phantom, "make_case", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.generate(tmp_path / "set", labelled=3, unlabelled=0)
    assert not list(tmp_path.iterdir())


def test_the_surround_is_dark_and_the_retina_is_not() -> None:
    for number in CASES:
        pixels, _ = case(number)
        assert pixels[:4, :4].mean() < 12
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 3:-pixels.shape[1] // 3]
        assert middle[:, 0].mean() > 50 and middle[:, 0].mean() > middle[:, 2].mean()


def test_lesions_grow_with_the_grade() -> None:
    changed: dict[int, list[float]] = {grade: [] for grade in range(5)}
    for number in CASES:
        pixels, grade = case(number)
        plain, same = phantom.make_case(number, size=64, seed=0, lesions=False)
        assert same == grade
        changed[grade].append(float((np.abs(pixels.astype(int) - plain) > 25).any(axis=2).mean()))
    shares = [np.mean(changed[grade]) for grade in range(5)]
    assert shares[0] == 0 and all(a < b for a, b in zip(shares[:3], shares[1:4], strict=True))
    assert shares[4] > shares[2]


def test_mean_colour_does_not_give_the_grade_away() -> None:
    grades = [case(number)[1] for number in CASES]
    for channel in range(3):
        means = [case(number)[0][..., channel].mean() for number in CASES]
        assert abs(np.corrcoef(means, grades)[0, 1]) < 0.35
