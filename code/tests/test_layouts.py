"""nnU-Net's raw folders, read as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_inputs_3d import build, loader, put, volume

from common.errors import InputError


def nnunet(folder: Path, channels: int = 2) -> Path:
    for number in range(3):
        scan, label = volume(number)
        put(folder / f"labelsTr/c_{number}.nii.gz", label)
        for channel in range(channels):
            put(folder / f"imagesTr/c_{number}_{channel:04d}.nii.gz", scan + 10 * channel)
    for channel in range(channels):
        put(folder / f"imagesTr/free_{channel:04d}.nii.gz", volume(8)[0])
        put(folder / f"imagesTs/u_{channel:04d}.nii.gz", volume(9)[0])
    (folder / "dataset.json").write_text(json.dumps({
        "channel_names": {"0": "T2", "1": "ADC"} if channels == 2 else {"0": "T2"},
        "labels": {"background": 0, "organ": 1, "tumour": 2}, "numTraining": 3,
        "file_ending": ".nii.gz"}))
    return folder


def test_nnunets_folder_is_read_as_it_is(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset005_Two")
    dataset = loader.open_dataset(folder)
    assert dataset.name == "two" and dataset.channels == ["T2", "ADC"]
    assert dataset.classes == ["background", "organ", "tumour"]
    cache = build(folder)
    assert list(cache.facts) == ["c_0", "c_1", "c_2", "free", "u"] and cache.labelled == 3
    assert cache.images().shape == (5, 2, 16, 16, 16)
    label = cache.labels()
    assert label is not None and set(np.unique(label)) == {0, 1, 2}
    assert len(loader.open_dataset(folder, unlabelled=False).sources) == 3


def test_one_channel_gives_what_the_other_layout_gives(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset005_One", channels=1)
    first = build(folder).digests
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({  # nnU-Net v1: listed without their number
        "modality": content["channel_names"], "labels": content["labels"], "training": [
            {"image": f"./imagesTr/c_{n}.nii.gz", "label": f"./labelsTr/c_{n}.nii.gz"}
            for n in range(3)], "test": []}))
    second = build(folder).digests
    assert all(second[case] == first[case] for case in ("c_0", "c_1", "c_2", "u"))


def test_a_channel_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset005_Two")
    (folder / "imagesTr/c_1_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="case c_1 has c_1_0000.nii.gz; expected .*c_1_0001"):
        loader.open_dataset(folder)
    (folder / "imagesTr/c_1_0000.nii.gz").unlink()
    with pytest.raises(InputError, match="c_1.nii.gz: has no image c_1_0000"):
        loader.open_dataset(folder)


def test_other_endings_name_a_converter(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset005_Two")
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nrrd"}))
    with pytest.raises(InputError, match="expected .nii or .nii.gz; .*SimpleITK"):
        loader.open_dataset(folder)
