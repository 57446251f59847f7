"""Reading scans: geometry, labels, and one clear line for everything that cannot be used."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.data.cache import Source
from common.errors import InputError

loader = importlib.import_module("3d.loader")
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def scan(folder: Path, image: np.ndarray, label: np.ndarray | None = None,
         affine: np.ndarray | None = None) -> Source:
    label_file = None if label is None else write(folder / "l.nii.gz", label, affine)
    return Source("a", write(folder / "i.nii.gz", image, affine), label_file)


def prepared(source: Source, **given: Any) -> Any:
    arguments = {"classes": 3, "channels": 1, "resolution": 16, "intensity": "percentile"}
    return loader.preprocess(source, **{**arguments, **given})


def volume(shape: tuple[int, ...] = (20, 24, 16)) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16)


def test_labels_are_never_invented_and_small_ones_survive(tmp_path: Path) -> None:
    label = np.zeros((20, 24, 16), np.uint8)
    label[4:14, 4:14, 4:12] = 2  # linear resizing would put a rim of class 1 around it
    _, resized, facts = prepared(scan(tmp_path, volume(), label))
    assert set(np.unique(resized)) == {0, 2} and facts["contains"] == [0, 2]
    assert facts["foreground"] == 10 * 10 * 8


def test_every_orientation_gives_the_same_arrays(tmp_path: Path) -> None:
    image, label = volume(), (volume() > 300).astype(np.uint8)
    first = prepared(scan(tmp_path / "ras", image, label))
    flipped = np.diag([-1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = [19, 0, 15]
    second = prepared(scan(tmp_path / "lpi", image[::-1, :, ::-1], label[::-1, :, ::-1], flipped))
    swapped = np.eye(4)[[1, 0, 2, 3]]
    third = prepared(scan(tmp_path / "ars", image.swapaxes(0, 1), label.swapaxes(0, 1), swapped))
    for other in (second, third):
        assert np.array_equal(first[0], other[0]) and np.array_equal(first[1], other[1])


def test_intensities_are_clipped_to_percentiles_so_that_metal_does_not_flatten(
        tmp_path: Path) -> None:
    image = volume()
    image[10, 10, 10] = 30000
    robust, _, _ = prepared(scan(tmp_path, image))
    flat, _, _ = prepared(scan(tmp_path, image), intensity="minmax")
    assert robust.dtype == np.float16 and robust.min() >= 0 and robust.max() <= 1
    assert robust.astype(float).std() > 5 * flat.astype(float).std()


def test_histogram_percentiles_are_those_of_the_voxels() -> None:
    image = volume((40, 40, 40))
    for which in ((0.5, 99.5), (0, 100)):
        expected = np.percentile(image, which, method="lower")
        assert loader.percentiles(image, which) == pytest.approx(tuple(expected), abs=1)


def test_the_box_includes_the_last_plane_and_channels_are_kept_apart(tmp_path: Path) -> None:
    body = np.zeros((10, 10, 10), np.float32)
    body[2:9, 3:10, 0:5] = 1
    box = (slice(2, 9), slice(3, 10), slice(0, 5))
    assert loader.body_box(body[..., None], [(0.0, 1.0)]) == box
    four = np.stack([volume(), 2 * volume(), volume(), -volume()], axis=-1)
    image, _, _ = prepared(scan(tmp_path, four), channels=4)
    assert image.shape == (4, 16, 16, 16)
    assert np.array_equal(image[0], image[2]) and not np.array_equal(image[0], image[3])


def broken_scans() -> dict[str, tuple[Callable[[Path], Any], str]]:
    """Each: how to break the scans of a whole data set, and what the message must name."""
    def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
        def apply(folder: Path) -> None:
            content = json.loads((folder / "dataset.json").read_text())
            change(content)
            (folder / "dataset.json").write_text(json.dumps(content))
        return apply

    def image(folder: Path) -> Path:
        return folder / "imagesTr" / "ct_001.nii.gz"

    def label(folder: Path) -> Path:
        return folder / "labelsTr" / "ct_001.nii.gz"

    def relabel(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], Any]:
        def apply(folder: Path) -> None:
            old = nib.load(label(folder))
            voxels = change(np.asanyarray(old.dataobj).copy())  # type: ignore[attr-defined]
            nib.save(nib.Nifti1Image(voxels, old.affine), label(folder))  # type: ignore[attr-defined]
        return apply

    def reimage(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], Any]:
        def apply(folder: Path) -> None:
            old = nib.load(image(folder))
            voxels = change(np.asanyarray(old.dataobj).astype(np.float32))  # type: ignore[attr-defined]
            nib.save(nib.Nifti1Image(voxels, old.affine), image(folder))  # type: ignore[attr-defined]
        return apply

    def nan(voxels: np.ndarray) -> np.ndarray:
        voxels[3, 3, 3] = np.nan
        return voxels

    return {
        "missing folder": (shutil.rmtree, "no such folder"),
        "no dataset.json": (lambda f: (f / "dataset.json").unlink(), "dataset.json: no such file; "
                            "expected is a folder in the layout of .*imagesTr, labelsTr"),
        "not JSON": (lambda f: (f / "dataset.json").write_text("{"), "not valid JSON"),
        "no training list": (edit(lambda c: c.pop("training")), "'training'"),
        "no labels": (edit(lambda c: c.pop("labels")), "'labels'"),
        "gap in classes": (edit(lambda c: c["labels"].pop("1")), "0, 1, 2"),
        "missing image": (lambda f: image(f).unlink(), "ct_001.nii.gz: no such file"),
        "missing label": (lambda f: label(f).unlink(), "ct_001.nii.gz: no such file"),
        "listed twice": (edit(lambda c: c["training"].append(c["training"][0])), "listed twice"),
        "two channels declared": (edit(lambda c: c.update(modality={"0": "CT", "1": "PET"})),
                                  "1 channel, but dataset.json lists 2"),
        "truncated": (lambda f: image(f).write_bytes(image(f).read_bytes()[:2000]),
                      "not a readable NIfTI"),
        "empty file": (lambda f: image(f).write_bytes(b""), "not a readable NIfTI"),
        "not gzip": (lambda f: image(f).write_bytes(b"hello" * 100), "not a readable NIfTI"),
        "shape mismatch": (relabel(lambda v: v[:-2]), "must match"),
        "label outside the classes": (relabel(lambda v: v + 7), "declares 0 to 1"),
        "negative label": (relabel(lambda v: v.astype(np.int16) - 1), "declares 0 to 1"),
        "label not an integer": (relabel(lambda v: v.astype(np.float32) / 2 + 0.25), "declares"),
        "NaN": (reimage(nan), "NaN or infinite"),
        "constant": (reimage(lambda v: v * 0), "constant"),
        "one plane": (reimage(lambda v: v[:, :, :1]), "at least 2"),
        "infinite": (reimage(lambda v: np.where(v > v.mean(), np.inf, v)), "NaN or infinite"),
    }


@pytest.mark.parametrize("kind", broken_scans())
def test_broken_input_is_one_line_that_names_the_file(kind: str, scans: Path,
                                                      tmp_path: Path) -> None:
    folder = tmp_path / scans.name
    shutil.copytree(scans, folder)
    spoil, message = broken_scans()[kind]
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        dataset = loader.open_dataset(folder)
        for source in dataset.sources:
            prepared(source, classes=len(dataset.classes), channels=len(dataset.channels))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_test_entries_that_are_strings_join_the_pool_and_apple_doubles_do_not(scans: Path) -> None:
    dataset = loader.open_dataset(scans)
    assert dataset.name == "ctphantom" and dataset.generated
    assert sum(source.labelled for source in dataset.sources) == 10
    assert len(dataset.sources) == 12 and not any("._" in s.id for s in dataset.sources)
    assert len(loader.open_dataset(scans, unlabelled=False).sources) == 10


def test_the_cache_is_made_once_and_anew_for_other_contents(scans: Path, tmp_path: Path) -> None:
    folder = tmp_path / scans.name
    shutil.copytree(scans, folder)
    arguments = {"resolution": 16, "intensity": "percentile", "workers": 2}
    first = loader.build_cache(loader.open_dataset(folder), tmp_path / "d", **arguments)
    stamp = (first.folder / "images.npy").stat().st_mtime_ns
    again = loader.build_cache(loader.open_dataset(folder), tmp_path / "d", **arguments)
    assert again == first and (again.folder / "images.npy").stat().st_mtime_ns == stamp
    assert first.images().shape == (12, 1, 16, 16, 16) and first.images().dtype == np.float16
    labels = first.labels()
    assert labels is not None and labels.shape == (10, 16, 16, 16) and labels.dtype == np.uint8
    source = loader.open_dataset(folder).sources[3]
    image, label, _ = loader.preprocess(source, classes=2, channels=1, resolution=16,
                                        intensity="percentile")
    assert np.array_equal(first.images()[3], image) and np.array_equal(labels[3], label)
    shutil.copy(folder / "imagesTr/ct_002.nii.gz", folder / "imagesTs/ct_5000.nii.gz")
    other = loader.build_cache(loader.open_dataset(folder), tmp_path / "d", **arguments)
    assert other.folder != first.folder and first.folder.exists()
    same = list(first.facts)[:10]
    assert other.arrays(same, labels=True) == first.arrays(same, labels=True)
    (other.folder / "images.npy").write_bytes(b"cut")  # damage: named, moved aside, made again
    rebuilt = loader.build_cache(loader.open_dataset(folder), tmp_path / "d", **arguments)
    assert rebuilt.images().shape == (12, 1, 16, 16, 16)


@pytest.mark.skipif(not (REAL / "Task90_CTsmoke").exists(), reason="no real scans here")
def test_real_ct_in_hounsfield_units() -> None:
    dataset = loader.open_dataset(REAL / "Task90_CTsmoke")
    for source in dataset.sources:
        image, label, facts = loader.preprocess(source, classes=3, channels=1, resolution=64,
                                                intensity="percentile")
        assert image.shape == (1, 64, 64, 64) and 0.1 < image.astype(float).mean() < 0.6
        assert facts["contains"] == [0, 1, 2] and set(np.unique(label)) == {0, 1, 2}
