"""The generated CT-like scans: layout, cues for orientation, a spleen no threshold finds."""

import importlib
import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

phantom = importlib.import_module("3d.phantom")
CASES = range(30)  # enough that shares and ranges can be judged
SIZE = 24  # voxels, as in the demo


@cache
def case(number: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    image, label = phantom.make_case(number, size=SIZE, seed=0)
    return image, label


def canonical(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The voxels of a case's image and labels, axes to the patient's right, front and head."""
    image, label = (nib.as_closest_canonical(scan) for scan in case(number))
    return np.asarray(image.dataobj), np.asarray(label.dataobj)


def test_layout_is_that_of_the_decathlon(tmp_path: Path) -> None:
    folder = tmp_path / "Task00_CTPhantom"
    phantom.generate(folder, labelled=4, unlabelled=3, size=SIZE)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["name"] == "CTPhantom" and description["generated"] is True
    assert description["modality"] == {"0": "CT"}
    assert description["labels"] == {"0": "background", "1": "spleen"}
    assert (description["numTraining"], description["numTest"]) == (4, 3)
    named = {name for pair in description["training"] for name in pair.values()}
    named |= {*description["test"], "./dataset.json", "./generated.json"}
    named.add("./imagesTr/._ct_000.nii.gz")
    assert named == {f"./{file.relative_to(folder)}" for file in folder.rglob("*")
                     if file.is_file()}
    image = nib.load(folder / "imagesTr/ct_003.nii.gz")
    label = nib.load(folder / "labelsTr/ct_003.nii.gz")
    assert (image.get_data_dtype(), label.get_data_dtype()) == (np.int16, np.uint8)
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(case(3)[0].dataobj))
    np.testing.assert_array_equal(np.asarray(label.dataobj), np.asarray(case(3)[1].dataobj))


def test_matrix_spacing_and_storage_order_vary_and_labels_lie_on_their_images() -> None:
    images = [case(number)[0] for number in CASES]
    orders = {"".join(aff2axcodes(image.affine)) for image in images}
    assert orders == set(phantom.ORIENTATIONS)
    assert len({image.shape for image in images}) > 20
    assert len({image.header.get_zooms() for image in images}) == len(CASES)
    for number in CASES:
        x, y, z = canonical(number)[0].shape
        assert 0.65 * SIZE <= y <= x <= 1.25 * SIZE and 0.45 * SIZE <= z < 1.1 * SIZE
        image, label = case(number)
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)


def test_the_spleen_lies_on_the_left_spine_behind_and_lungs_above() -> None:
    for number in CASES:
        image, label = canonical(number)
        x, y, z = (np.argwhere(image > -300).mean(axis=0)).astype(int)
        assert 0.002 < (label == 1).mean() < 0.04 and set(np.unique(label)) == {0, 1}
        assert np.argwhere(label)[:, 0].mean() < x, "spleen on the left"
        slab = image[x - 2:x + 3]
        assert np.argwhere(slab > 500)[:, 1].mean() < y, "spine behind"
        lung = (image < -500)[x - x // 2:x + x // 2, y - 2:y + 3]
        assert lung[:, :, z:].sum() > lung[:, :, :z].sum() + 20, "lungs above"
        assert image.min() >= -1024 and abs(np.median(image[0]) + 1000) < 20  # air around


def test_the_spleen_is_not_found_by_a_threshold() -> None:
    scans = [canonical(number) for number in CASES]
    hu = np.concatenate([image.ravel() for image, _ in scans])
    true = np.concatenate([label.ravel() == 1 for _, label in scans])
    edges = np.arange(0, 800, 20)
    every, hits = (np.histogram(part, edges)[0].cumsum() for part in (hu, hu[true]))
    found, both = (sums[None] - sums[:, None] for sums in (every, hits))  # of each pair of edges
    dice = 2 * both / (found + true.sum())
    assert dice[np.triu_indices(len(every), 1)].max() < 0.4
