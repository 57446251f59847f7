"""The generated CT-like scans: layout on disk, anatomy, variety, and what is refused."""

import importlib
import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import aff2axcodes
from numpy.typing import NDArray

from common.errors import InputError

phantom = importlib.import_module("3d.phantom")
CASES = range(30)  # enough that shares and ranges can be judged
SIZE = 32  # voxels: small, for the sake of time


@cache
def case(number: int) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    image, label = phantom.make_case(number, size=SIZE, seed=0)
    return image, label


def canonical(number: int) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """The voxels of a case's image and labels, axes to the patient's right, front and head."""
    image, label = (nib.as_closest_canonical(scan) for scan in case(number))
    return np.asarray(image.dataobj), np.asarray(label.dataobj)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Task00_CTPhantom"
    phantom.generate(folder, labelled=4, unlabelled=3, size=SIZE)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_layout_is_that_of_the_decathlon(folder: Path) -> None:
    description = json.loads((folder / "dataset.json").read_text())
    assert description["name"] == "CTPhantom"
    assert "generated" in description["description"] and description["generated"] is True
    assert description["modality"] == {"0": "CT"}
    assert description["labels"] == {"0": "background", "1": "pancreas", "2": "tumour"}
    assert (description["numTraining"], description["numTest"]) == (4, 3)
    assert description["training"][0] == {
        "image": "./imagesTr/ct_000.nii.gz", "label": "./labelsTr/ct_000.nii.gz"
    }  # fmt: skip
    assert description["test"] == [f"./imagesTs/ct_{number}.nii.gz" for number in (200, 201, 202)]
    named = {name for pair in description["training"] for name in pair.values()}
    named |= {*description["test"], "./dataset.json", "./imagesTr/._ct_000.nii.gz"}
    assert {f"./{name}" for name in files(folder)} == named
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing left beside


def test_scans_on_disk_are_the_cases_drawn(folder: Path) -> None:
    for number, part in ((3, "Tr"), (201, "Ts")):
        image = nib.load(folder / f"images{part}" / f"ct_{number:03d}.nii.gz")
        assert image.get_data_dtype() == np.int16
        drawn = case(number)[0]
        np.testing.assert_array_equal(np.asarray(image.dataobj), np.asarray(drawn.dataobj))
        np.testing.assert_allclose(image.affine, drawn.affine, atol=1e-3)
    label = nib.load(folder / "labelsTr" / "ct_003.nii.gz")
    assert label.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(label.dataobj), np.asarray(case(3)[1].dataobj))


def test_a_case_has_the_same_bytes_whatever_the_counts(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / folder.name
    phantom.generate(again, labelled=2, unlabelled=1, size=SIZE)
    first = files(folder)
    for name, content in files(again).items():
        assert name == "dataset.json" or content == first[name], name


def test_seeds_and_cases_differ() -> None:
    here, there = (phantom.make_case(0, size=SIZE, seed=seed)[0] for seed in (0, 1))
    assert here.shape != there.shape  # another matrix, and other tissue in it
    shares = [np.percentile(scan.get_fdata(), [40, 60, 80]).round(3).tolist()
              for scan in (here, there)]
    assert shares[0] != shares[1]
    assert len({canonical(number)[0].tobytes() for number in CASES}) == len(CASES)


def test_intensities_are_hounsfield_units() -> None:
    for number in CASES:
        image, _ = canonical(number)
        assert image.min() >= -1024 and 250 < image.max() <= 3071
        assert abs(np.median(image[0]) + 1000) < 20  # the edge of the field of view is air
        assert 0.2 < (image > -300).mean() < 0.8


def test_labels_are_a_pancreas_and_mostly_a_tumour() -> None:
    labels = [canonical(number)[1] for number in CASES]
    assert set(np.unique(np.concatenate([label.ravel() for label in labels]))) == {0, 1, 2}
    assert all(0.003 < (label == 1).mean() < 0.04 for label in labels)
    tumours = [(label == 2).sum() for label in labels if (label == 2).any()]
    assert 0.6 * len(CASES) < len(tumours) < len(CASES)
    assert min(tumours) >= 8


def test_pancreas_is_not_found_by_a_threshold() -> None:
    scans = [canonical(number) for number in CASES]
    hu = np.concatenate([image.ravel() for image, _ in scans])
    true = np.concatenate([label.ravel() == 1 for _, label in scans])
    edges = np.arange(0, 210, 10)
    every, hits = (np.histogram(part, edges)[0].cumsum() for part in (hu, hu[true]))
    found, both = (sums[None] - sums[:, None] for sums in (every, hits))  # of each pair of edges
    dice = 2 * both / (found + true.sum())
    assert dice[np.triu_indices(len(every), 1)].max() < 0.3


def test_tumour_is_darker_than_the_pancreas() -> None:
    for number in CASES:
        image, label = canonical(number)
        if (label == 2).any():
            assert image[label == 2].mean() < image[label == 1].mean() - 20


def test_matrix_spacing_and_storage_order_vary() -> None:
    images = [case(number)[0] for number in CASES]
    orders = {aff2axcodes(image.affine) for image in images}
    shapes = {image.shape for image in images}
    assert {"".join(order) for order in orders} == set(phantom.ORIENTATIONS)
    assert len(shapes) > 20 and len({image.header.get_zooms() for image in images}) == len(CASES)
    for number in CASES:
        x, y, z = canonical(number)[0].shape
        assert 0.65 * SIZE <= y <= x <= 1.25 * SIZE and 0.5 * SIZE <= z < SIZE


def test_label_lies_on_its_image() -> None:
    for image, label in map(case, CASES):
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)


def test_canonical_orientation_restores_the_anatomy() -> None:
    for number in CASES:
        image, label = canonical(number)
        x, y, z = (np.argwhere(image > -300).mean(axis=0)).astype(int)
        inner = image[x - 2 : x + 3]  # a slab along the midline
        spine = np.argwhere(inner > 180)
        assert spine[:, 1].mean() < y - 2, "spine behind the middle"
        soft = (image > 60) & (image < 160)  # of which the liver is most, on the right and above
        assert soft[x:, :, z:].sum() > 1.15 * soft[:x, :, z:].sum(), "liver on the right"
        assert soft[x:, :, z:].sum() > 1.15 * soft[x:, :, :z].sum(), "liver above the bowel"
        pancreas = np.argwhere(label > 0)
        assert abs(pancreas.mean(axis=0)[1] - y) < image.shape[1] / 4, "pancreas inside the trunk"


def test_a_complete_folder_is_kept(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    (folder / "cache").mkdir()  # of the loader: no reason to refuse the folder
    phantom.generate(folder, labelled=4, unlabelled=3, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in before if path != folder} == {
        path: time for path, time in before.items() if path != folder
    }


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    phantom.generate(tmp_path / "a" / "b", labelled=1, unlabelled=0, size=16)
    (tmp_path / "empty").mkdir()
    phantom.generate(tmp_path / "empty", labelled=1, unlabelled=0, size=16)
    assert files(tmp_path / "empty").keys() == files(tmp_path / "a" / "b").keys()


@pytest.mark.parametrize("arguments", [{"labelled": 5}, {"size": 24}, {"seed": 1}])
def test_other_arguments_are_refused(folder: Path, arguments: dict[str, int]) -> None:
    before = files(folder)
    with pytest.raises(InputError, match="delete") as refusal:
        phantom.generate(folder, **{"labelled": 4, "unlabelled": 3, "size": SIZE, **arguments})
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)
    assert files(folder) == before


@pytest.mark.parametrize("content", ["", "[]", '{"training": []}', '{"training": 3, "test": []}'])
def test_a_foreign_folder_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match="delete"):
        phantom.generate(tmp_path, labelled=1, unlabelled=0, size=16)
    assert files(tmp_path) == {"dataset.json": content.encode()}


def test_an_incomplete_set_is_refused(tmp_path: Path) -> None:
    phantom.generate(tmp_path / "set", labelled=2, unlabelled=0, size=16)
    (tmp_path / "set" / "labelsTr" / "ct_001.nii.gz").unlink()
    with pytest.raises(InputError, match="complete"):
        phantom.generate(tmp_path / "set", labelled=2, unlabelled=0, size=16)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="delete"):
        phantom.generate(tmp_path / "set", labelled=1, unlabelled=0, size=16)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "make_case", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.generate(tmp_path / "set", labelled=1, unlabelled=0, size=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [{"labelled": 0}, {"labelled": 201}, {"unlabelled": -1}, {"size": 8}, {"seed": -1}]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="out of range"):
        phantom.generate(tmp_path / "set", **{"labelled": 1, "unlabelled": 0, "size": 16, **wrong})
