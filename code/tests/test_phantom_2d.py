"""The generated photographs: layout, one way up, lesions that grow with the grade."""

import importlib
import json
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

phantom = importlib.import_module("2d.phantom")
CASES = range(60)


@cache
def case(number: int) -> tuple[NDArray[np.uint8], int]:
    pixels, grade = phantom.make_case(number, size=72, seed=0)
    return pixels, grade


def test_layout_is_that_of_aptos(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    phantom.generate(folder, labelled=6, unlabelled=2, size=48)
    lines = (folder / "train.csv").read_text().splitlines()
    assert lines[0] == "id_code,diagnosis" and len(lines) == 7
    assert [int(line.split(",")[1]) for line in lines[1:6]] == [0, 1, 2, 3, 4]
    names = {line.split(",")[0] for line in lines[1:]}
    assert {p.stem for p in (folder / "train_images").iterdir()} == names
    assert len(list((folder / "test_images").iterdir())) == 2
    assert json.loads((folder / "generated.json").read_text())["generated"] is True
    with Image.open(folder / "train_images/fundus_0000.png") as image:
        assert image.mode == "RGB" and 42 <= image.height <= 54 and image.width >= image.height


def test_the_surround_is_dark_and_the_disc_lies_on_the_right() -> None:
    for number in CASES:
        pixels, _ = phantom.make_case(number, size=72, seed=0, grade=0)
        assert pixels[:4, :4].mean() < 12
        height, width = pixels.shape[:2]
        assert pixels[height // 2, width // 4:3 * width // 4, 0].mean() > 50
        brightest = np.argwhere(pixels[..., 1] >= np.percentile(pixels[..., 1], 99))
        row, column = np.median(brightest, axis=0)
        assert column > 0.6 * width and 0.25 * height < row < 0.75 * height


def test_lesions_grow_with_the_grade() -> None:
    shares = []
    for grade in range(5):
        changed = []
        for number in CASES:
            plain, _ = phantom.make_case(number, size=72, seed=0, grade=0)
            pixels, given = phantom.make_case(number, size=72, seed=0, grade=grade)
            assert given == grade and pixels.shape == plain.shape
            changed.append((np.abs(pixels.astype(int) - plain) > 25).any(axis=2).mean())
        shares.append(float(np.mean(changed)))
    assert shares[0] == 0 and shares == sorted(set(shares))


def test_mean_colour_does_not_give_the_grade_away() -> None:
    grades = [case(number)[1] for number in CASES]
    for channel in range(3):
        means = [case(number)[0][..., channel].mean() for number in CASES]
        assert abs(np.corrcoef(means, grades)[0, 1]) < 0.5
