"""What preprocessing promises of scans and photographs: geometry, intensities, facts, rows."""

import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import zoom

from common.data.cache import Cache, Source
from common.errors import InputError

scans, photographs = (importlib.import_module(f"{tree}.loader") for tree in ("3d", "2d"))


def nifti(path: Path, voxels: np.ndarray, spacing: tuple[float, ...] = (1, 1, 1)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)
    return path


def prepared(folder: Path, image: np.ndarray, label: np.ndarray | None = None,
             spacing: tuple[float, ...] = (1, 1, 1), **given: Any) -> Any:
    source = Source("a", nifti(folder / "i.nii.gz", image, spacing), None if label is None else
                    nifti(folder / "l.nii.gz", label, spacing))
    return scans.preprocess(source, **{"classes": 3, "channels": 1, "resolution": 16,
                                       "intensity": "percentile", **given})


def body(shape: tuple[int, int, int] = (30, 30, 30)) -> np.ndarray:
    """A block of noise amid air."""
    volume = np.zeros(shape, np.int16)
    volume[8:24, 10:26, 6:22] = np.random.default_rng(0).integers(300, 900, (16, 16, 16))
    return volume


def test_images_are_resized_linearly_between_voxel_centres_and_labels_by_the_nearest() -> None:
    ramp = np.arange(16.0, dtype=np.float32)[:, None, None] * np.ones((1, 16, 16), np.float32)
    smaller = scans.resize(ramp, 8, order=1)[:, 0, 0]
    assert smaller == pytest.approx(np.arange(0.5, 16, 2))  # half way between two
    larger = scans.resize(ramp, 32, order=1)[:, 0, 0]
    assert np.diff(larger[1:-1]) == pytest.approx(np.full(29, 0.5))
    assert set(np.unique(scans.resize(2 * (ramp > 7), 24, order=0))) == {0, 2}


@pytest.mark.parametrize(("shape", "resolution"), [
    ((35, 51, 36), 32), ((7, 90, 2), 16), ((64, 64, 64), 64), ((130, 97, 140), 16),
    ((3, 5, 4), 24)])
def test_resizing_gives_what_scipy_does(shape: tuple[int, ...], resolution: int) -> None:
    rng = np.random.default_rng(0)
    factors = [resolution / side for side in shape]
    for voxels, order in ((rng.random(shape).astype(np.float32), 1),
                          (rng.integers(0, 5, shape).astype(np.uint8), 0)):
        theirs = zoom(voxels, factors, order=order, mode="nearest", grid_mode=True)
        ours = scans.resize(np.asfortranarray(voxels), resolution, order=order)
        assert ours.dtype == voxels.dtype and ours.flags.c_contiguous
        assert np.array_equal(ours.astype(np.float16), theirs.astype(np.float16))  # as cached
        assert np.abs(ours - theirs.astype(float)).max() < 1e-6


def test_image_and_label_are_cropped_to_the_body_alike(tmp_path: Path) -> None:
    volume = body()
    image, label, facts = prepared(tmp_path, volume, (volume > 600).astype(np.uint8))
    inside = volume[8:24, 10:26, 6:22]  # 16 voxels a side: nothing is resampled
    assert np.array_equal(label, inside > 600) and facts["shape"] == [30, 30, 30]
    low, high = np.percentile(volume, (0.5, 99.5))
    assert image[0] == pytest.approx(((inside - low) / (high - low)).clip(0, 1), abs=2e-3)
    assert image.max() <= 1


def test_labels_that_only_linear_resizing_would_invent_are_not_there(tmp_path: Path) -> None:
    volume = body()
    label = np.zeros_like(volume, np.uint8)
    label[10:18, 12:20, 8:16] = 2
    image, resized, _ = prepared(tmp_path, volume, label, resolution=24)
    assert set(np.unique(resized)) == {0, 2}
    voxels = len(np.unique(prepared(tmp_path, volume, label)[0]))
    assert len(np.unique(image)) > 1.5 * voxels  # the image's values do lie between


def test_intensities_are_the_stated_percentiles_or_the_extremes() -> None:
    rng = np.random.default_rng(0)
    for volume in (rng.normal(0, 300, (20, 20, 20)).astype(np.int16),
                   rng.normal(0, 300, (20, 20, 20)).astype(np.float32)):
        file = Path("x")
        assert scans.intensities(volume, "percentile", file) == pytest.approx(
            np.percentile(volume, (0.5, 99.5)), abs=1)
        assert scans.intensities(volume, "minmax", file) == (volume.min(), volume.max())
    thin = np.zeros((20, 20, 20), np.int16)
    thin[3, 3, :10] = 700  # the percentiles meet at 0
    assert scans.intensities(thin, "percentile", Path("x")) == (0, 700)


def test_the_body_is_what_exceeds_a_twentieth_in_any_channel() -> None:
    volume = np.zeros((10, 10, 10, 2), np.float32)
    volume[2:5, 2:5, 2:5, 0] = 0.06
    volume[4:8, 1:4, 2:9, 1] = 6.0
    volume[0, 0, 0], volume[9, 9, 9] = 0.04, 0.04
    assert scans.body_box(volume, [(0.0, 1.0), (0.0, 100.0)]) == (
        slice(2, 8), slice(1, 5), slice(2, 9))


def test_every_channel_has_its_own_intensities_and_place(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 400, (16, 16, 16)).astype(np.int16)
    four = np.stack([volume, 3 * volume + 50, volume[::-1], -volume], axis=-1)
    image, _, _ = prepared(tmp_path, four, channels=4)
    assert image[1] == pytest.approx(image[0], abs=0.01)
    assert image[2] == pytest.approx(image[0][::-1], abs=0.01)
    assert image[3] == pytest.approx(1 - image[0], abs=0.01)


def test_facts_hold_millimetres_classes_and_digests(tmp_path: Path) -> None:
    volume = body()
    label = np.zeros_like(volume, np.uint8)
    label[10:12, 10:12, 10:12] = 2
    first = prepared(tmp_path / "a", volume, label, (2.0, 1.0, 3.0))[2]
    assert first["foreground"] == pytest.approx(8 * 6) and first["contains"] == [0, 2]
    assert first["spacing"] == [2.0, 1.0, 3.0]
    other, relabelled = volume.copy(), label.copy()
    other[-1, -1, -1], relabelled[-1, -1, -1] = 1, 1
    again = prepared(tmp_path / "b", volume, label)[2]
    changed = prepared(tmp_path / "c", other, relabelled)[2]
    assert (again["pixels"], again["truth"]) == (first["pixels"], first["truth"])
    assert changed["pixels"] != first["pixels"] and changed["truth"] != first["truth"]


def test_a_label_of_another_orientation_or_of_too_high_a_class_is_refused(tmp_path: Path) -> None:
    volume, label = body(), np.zeros((30, 30, 30), np.uint8)
    with pytest.raises(InputError, match="must match"):
        scans.preprocess(Source("a", nifti(tmp_path / "i.nii.gz", volume),
                                nifti(tmp_path / "l.nii.gz", label, (-1, 1, 1))), classes=3,
                         channels=1, resolution=16, intensity="percentile")
    label[0, 0, 0] = 3
    with pytest.raises(InputError, match="declares 0 to 2"):
        prepared(tmp_path, volume, label)


def test_whole_numbers_stored_as_floats_are_labels(tmp_path: Path) -> None:
    volume = body()
    _, label, facts = prepared(tmp_path, volume, (volume > 600).astype(np.float32) * 2)
    assert facts["contains"] == [0, 2] and label.dtype == np.uint8


def listed(folder: Path, ids: list[str], labels: dict[str, Any]) -> None:
    (folder / "imagesTs").mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(ids):
        label = np.zeros((12, 12, 12), np.uint8)
        label[:2 + number] = 1
        nifti(folder / f"imagesTr/{case}.nii.gz", np.full((12, 12, 12), number, np.int16)
              + np.arange(12, dtype=np.int16))
        nifti(folder / f"labelsTr/{case}.nii.gz", label)
    (folder / "dataset.json").write_text(json.dumps({
        "modality": {"0": "CT"}, "labels": labels, "test": [], "training": [
            {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
            for case in ids]}))


def test_scans_are_sorted_by_id_classes_by_number_and_apple_doubles_left_out(
        tmp_path: Path) -> None:
    for labels in ({"0": "background", "1": "lung", "2": "air"},
                   {"air": 2, "background": 0, "lung": 1}):
        folder = tmp_path / "Task07_Lungs"
        listed(folder, ["c2", "c10", "a1"], labels)
        nifti(folder / "imagesTs/u1.nii.gz", body())
        (folder / "imagesTs/._u1.nii.gz").write_bytes(b"apple")
        dataset = scans.open_dataset(folder)
        assert [source.id for source in dataset.sources] == ["a1", "c10", "c2", "u1"]
        assert dataset.classes == ["background", "lung", "air"] and dataset.name == "lungs"
        assert [source.label.name for source in dataset.sources if source.label] == [
            "a1.nii.gz", "c10.nii.gz", "c2.nii.gz"]


def test_every_scan_has_its_own_row_label_and_facts(tmp_path: Path) -> None:
    folder = tmp_path / "Task07_Lungs"
    listed(folder, ["c2", "c10", "a1"], {"0": "background", "1": "lung"})

    def build(intensity: str = "percentile") -> Cache:
        made: Cache = scans.build_cache(scans.open_dataset(folder), tmp_path / "d", resolution=8,
                                        intensity=intensity, workers=1)
        return made
    cache = build()
    assert list(cache.facts) == ["a1", "c10", "c2"] and cache.labelled == 3
    labels = cache.labels()
    assert labels is not None
    for row, source in enumerate(scans.open_dataset(folder).sources):
        image, label, facts = scans.preprocess(source, classes=2, channels=1, resolution=8,
                                               intensity="percentile")
        assert np.array_equal(cache.images()[row], image) and np.array_equal(labels[row], label)
        assert cache.facts[source.id] == facts
    # c2 has the smallest foreground, a1 the largest
    assert scans.strata(cache) == {"c2": 0, "c10": 1, "a1": 2}
    assert build("minmax").folder != cache.folder
    file = folder / "labelsTr/c10.nii.gz"
    label = np.zeros((12, 12, 12), np.uint8)
    label[:5] = 1
    nifti(file, label)
    relabelled = build()
    assert relabelled.folder != cache.folder
    assert relabelled.contents["c10"] != cache.contents["c10"]
    assert relabelled.contents["a1"] == cache.contents["a1"]
    assert relabelled.arrays(["c10"], labels=True) != cache.arrays(["c10"], labels=True)
    assert relabelled.arrays(["c10"]) == cache.arrays(["c10"])  # the image is the same
    assert cache.arrays(["a1"], labels=True) == relabelled.arrays(["a1"], labels=True)


def test_a_file_changed_without_changing_its_size_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "Task07_Lungs"
    listed(folder, ["a", "b"], {"0": "background", "1": "lung"})
    plain = folder / "imagesTr/a.nii"
    (folder / "imagesTr/a.nii.gz").unlink()
    content = json.loads((folder / "dataset.json").read_text())
    content["training"][0]["image"] = "./imagesTr/a.nii"
    (folder / "dataset.json").write_text(json.dumps(content))
    keys = []
    for number in (3, 4):
        nifti(plain, np.full((12, 12, 12), number, np.int16) + np.arange(12, dtype=np.int16))
        os.utime(plain, ns=(number * 10**9, number * 10**9))
        keys.append(scans.build_cache(scans.open_dataset(folder), tmp_path / "d", resolution=8,
                                      intensity="percentile", workers=1).contents["a"])
    assert keys[0] != keys[1]


def picture(path: Path, pixels: np.ndarray, **how: Any) -> Source:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, **how)
    return Source(path.stem, path)


def test_colours_rows_and_columns_keep_their_order(tmp_path: Path) -> None:
    pixels = np.zeros((40, 40, 3))
    pixels[:20, :, 0], pixels[20:, :20, 1], pixels[20:, 20:, 2] = 200, 150, 100
    image, _, _ = photographs.preprocess(picture(tmp_path / "a.png", pixels), resolution=40)
    assert np.array_equal(image, pixels.transpose(2, 0, 1))


def test_a_retina_seen_in_one_colour_alone_is_not_cut(tmp_path: Path) -> None:
    pixels = np.full((60, 60, 3), 10)  # a surround that is not quite black
    pixels[10:50, 15:45, 0] = 120
    _, _, facts = photographs.preprocess(picture(tmp_path / "a.png", pixels), resolution=40)
    assert facts["retina"] == [30, 40]


def test_smaller_images_are_averages_not_samples(tmp_path: Path) -> None:
    checks = np.indices((64, 64)).sum(0) % 2 * 200
    image, _, _ = photographs.preprocess(
        picture(tmp_path / "a.png", np.repeat(checks[..., None], 3, axis=2)), resolution=8)
    assert abs(image.astype(int) - 100).max() < 12


def test_a_tall_retina_lies_in_the_middle_and_whole(tmp_path: Path) -> None:
    pixels = np.zeros((80, 80, 3))
    pixels[10:70, 30:50] = 100
    image, _, facts = photographs.preprocess(picture(tmp_path / "a.png", pixels), resolution=60)
    assert facts["retina"] == [20, 60]
    assert (image[:, :, 20:40] == 100).all() and image.sum() == 3 * 60 * 20 * 100


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3))
    pixels[:, :30], pixels[:, 30:] = 200, 60
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    upright = photographs.read_image(picture(tmp_path / "a.jpg", pixels, exif=exif,
                                             quality=95).image)
    assert upright.size == (40, 60)
    assert np.asarray(upright)[:25].mean() > 150 > 100 > np.asarray(upright)[35:].mean()


def test_equal_bytes_of_another_shape_are_another_picture(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(60, 200, (40, 60, 3))
    digests = [photographs.preprocess(picture(tmp_path / f"{name}.png", pixels), resolution=30)[2]
               ["pixels"] for name, pixels in (("a", noise), ("b", noise.reshape(60, 40, 3)),
                                               ("c", noise))]
    assert digests[0] == digests[2] != digests[1]


def test_every_row_of_the_csv_has_its_own_image_and_grade(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number, name in enumerate(["c", "a", "b"]):
        picture(folder / f"{name}.png", np.full((30, 30, 3), 60 + 40 * number)
                + np.arange(30)[:, None, None])
    (folder / "train.csv").write_text("id_code,diagnosis\nb,4\nc,1\na,0\n")

    def build() -> Cache:
        made: Cache = photographs.build_cache(photographs.open_dataset(folder), tmp_path / "d",
                                              resolution=30, workers=1)
        return made
    cache = build()
    assert {case: fact["truth"] for case, fact in cache.facts.items()} == {"a": 0, "b": 4, "c": 1}
    assert list(cache.facts) == ["a", "b", "c"]
    assert cache.images()[:, 0, 0, 0].tolist() == [100, 140, 60]
    (folder / "train.csv").write_text("id_code,diagnosis\nb,4\nc,2\na,0\n")
    regraded = build()
    assert regraded.folder != cache.folder  # a grade is part of the case
    assert regraded.contents["c"] != cache.contents["c"]
    assert regraded.contents["a"] == cache.contents["a"]
    assert regraded.arrays(["c"], labels=True) != cache.arrays(["c"], labels=True)
    assert regraded.arrays("abc") == cache.arrays("abc") != cache.arrays("ab")
    assert photographs.strata(regraded) == {"a": 0, "b": 4, "c": 2}


def test_of_several_csvs_it_is_train_csv(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", np.full((9, 9, 3), 60))
    picture(tmp_path / "b.png", np.full((9, 9, 3), 60))
    (tmp_path / "another.csv").write_text("id_code,diagnosis\na,1\nb,2\n")
    (tmp_path / "Train.csv").write_text("id_code,diagnosis\na,3\nb,4\n")
    assert [source.target for source in photographs.open_dataset(tmp_path).sources] == [3, 4]


def test_the_size_of_the_arrays_is_part_of_the_caches_key(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for number, name in enumerate("ab"):
        picture(folder / f"{name}.png", np.full((30, 30, 3), 60 + 40 * number)
                + np.arange(30)[:, None, None])
    (folder / "train.csv").write_text("id_code,diagnosis\nb,4\na,0\n")
    made = [photographs.build_cache(photographs.open_dataset(folder), tmp_path / "d", workers=1,
                                    resolution=size).images().shape for size in (20, 24)]
    assert made == [(2, 3, 20, 20), (2, 3, 24, 24)]


def test_strata_are_terciles_of_the_volume() -> None:
    cache = SimpleNamespace(facts={"a": {"foreground": 9.0}, "b": {"foreground": 1.0},
                                   "c": {"foreground": 5.0}, "u": {}})
    assert scans.strata(cache) == {"b": 0, "c": 1, "a": 2}
