"""Data sets of classes without an order, made of generated photographs."""

import csv
import shutil
from pathlib import Path

FOUR = ["benign", "covid", "normal", "viral pneumonia"]
TWO = ["covid", "normal"]


def graded(photographs: Path) -> list[tuple[Path, int]]:
    """The photographs that have a grade, and it."""
    with (photographs / "train.csv").open(newline="") as file:
        return [(photographs / f"train_images/{row['id_code']}.png", int(row["diagnosis"]))
                for row in csv.DictReader(file)]


def in_folders(photographs: Path, made: Path) -> Path:
    """Four classes, each in the folder of its name, and two unlabelled photographs."""
    shutil.copytree(photographs / "test_images", made / "test_images")
    for image, grade in graded(photographs):
        (made / "train" / FOUR[grade % 4]).mkdir(parents=True, exist_ok=True)
        shutil.copy(image, made / "train" / FOUR[grade % 4])
    return made


def in_a_table(photographs: Path, made: Path) -> Path:
    """Two classes, by their names in a CSV."""
    shutil.copytree(photographs / "train_images", made / "images")
    rows = [f"{image.stem},{'normal' if grade < 2 else 'covid'}"
            for image, grade in graded(photographs)]
    (made / "labels.csv").write_text("\n".join(["image,finding", *rows]) + "\n")
    return made
