"""Time series among the unlabelled scans: each volume a case of the pool, each series a patient."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from test_inputs_3d import build, edit, make, put, volume
from test_layouts import nnunet
from test_patients import divided

from common.data import scans, splits
from common.data.cache import Cache
from common.errors import InputError

SHAPE = (12, 14, 10)
LENGTH = 5  # volumes of a series
HERTZ, SECONDS = 32, 8


def series(length: int = LENGTH, first: int = 50) -> np.ndarray:
    """Different volumes, (X, Y, Z, T)."""
    return np.stack([volume(first + frame)[0] for frame in range(length)], axis=-1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve labelled scans of one channel, one unlabelled, and a time series."""
    made = make(tmp_path / "Task99_Heart", count=12)
    put(made / "imagesTs/p01_cine.nii.gz", series())
    return made


def frames(cache: Cache) -> list[str]:
    return [case for case, fact in cache.facts.items() if "series" in fact]


def test_each_volume_is_a_case_as_if_it_were_saved_alone(
        folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = build(folder)
    assert ("1 unlabelled scans are time series (p01_cine): 5 volumes of the pool, each series of "
            "one patient\n") in capsys.readouterr().out
    assert list(cache.facts)[12:] == [*(f"p01_cine@00{n}" for n in range(LENGTH)), "u_0"]
    assert cache.labelled == 12
    alone = make(folder.parent / "alone", count=12)
    for frame in range(LENGTH):
        put(alone / f"imagesTs/p01_cine@00{frame}.nii.gz", series()[..., frame])
    other = build(alone)
    assert cache.digests == other.digests and len({*map(tuple, cache.digests.values())}) == 18
    assert {case: {**fact, "series": "p01_cine", "alike": cache.facts[case]["alike"]}
            if case in frames(cache) else fact for case, fact in other.facts.items()} == cache.facts
    assert all(cache.facts[case]["pixels"] in cache.facts[case]["alike"] for case in frames(cache))
    assert len({cache.contents[case] for case in frames(cache)}) == LENGTH


def scaled() -> nib.Nifti1Image:
    image = nib.Nifti1Image(series(), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    return image


WRITTEN = {
    "not packed": nib.Nifti1Image(series(), np.eye(4)), "scaled": scaled(),
    "turned": nib.Nifti1Image(series()[::-1], np.diag([-1, 1, 1, 1])),
    "axes swapped": nib.Nifti1Image(series().swapaxes(0, 2), np.eye(4)[[2, 1, 0, 3]]),
    "big-endian": nib.Nifti1Image(series().astype(">i2"), np.eye(4)),
    "NIfTI-2": nib.Nifti2Image(series(), np.eye(4)),
    "an axis more": nib.Nifti1Image(series()[..., None], np.eye(4)),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_however_it_is_written_a_volume_is_that_of_the_whole(how: str, folder: Path) -> None:
    file = folder / f"imagesTs/p01_cine.nii{'' if how == 'not packed' else '.gz'}"
    (folder / "imagesTs/p01_cine.nii.gz").unlink()
    nib.save(WRITTEN[how], file)
    whole = scans.read_file(file)
    for frame in range(LENGTH):
        one = scans.read([file], frame)
        assert np.array_equal(one.voxels, whole.voxels[..., frame])
        assert one.voxels.flags.f_contiguous
        assert one[1:3] == whole[1:3] and np.array_equal(one.affine, whole.affine)
    assert len(frames(build(folder))) == LENGTH


def header(file: Path, **fields: Any) -> None:
    image = nib.load(file)
    voxels = np.asarray(image.dataobj)
    changed = nib.Nifti1Image(voxels, image.affine)
    for name, value in fields.items():
        changed.header[name] = value
    nib.save(changed, file)


def test_the_channels_of_dataset_json_decide_not_the_unit_of_time(folder: Path) -> None:
    file = folder / "imagesTs/p01_cine.nii.gz"
    for unit in (0, SECONDS):
        header(file, xyzt_units=2 + unit)
        assert scans.volumes(file) == LENGTH
    header(file, xyzt_units=2 + HERTZ)  # a spectrum
    assert scans.volumes(file) == 1
    with pytest.raises(InputError, match=r"p01_cine.nii.gz: 5 channels, but dataset.json"):
        build(folder)


def test_as_many_volumes_as_channels_are_channels(tmp_path: Path) -> None:
    folder = make(tmp_path / "Task99_Two", count=3)
    for file in sorted(folder.rglob("images*/*.nii.gz")):
        voxels = np.asarray(nib.load(file).dataobj)
        put(file, np.stack([voxels, voxels + 1], axis=-1))
        header(file, xyzt_units=2 + SECONDS)
    edit(folder, modality=["CT", "PET"])
    cache = build(folder)
    assert list(cache.facts) == ["c_0", "c_1", "c_2", "u_0"] and not frames(cache)
    assert cache.images().shape[1] == 2
    put(folder / "imagesTs/p01_cine.nii.gz", series())
    with pytest.raises(InputError, match=r"p01_cine.nii.gz: 5 channels, .* lists 2 under"):
        build(folder)


def test_a_labelled_series_is_refused_and_says_what_to_do(folder: Path) -> None:
    put(folder / "imagesTr/c_3.nii.gz", series())
    with pytest.raises(InputError, match=r"c_3.nii.gz: 5 channels.*save the volume that is "
                                         "labelled as a scan of its own") as caught:
        build(folder)
    assert "\n" not in str(caught.value)


def test_nnunets_folders_have_series_too(tmp_path: Path) -> None:
    folder = nnunet(tmp_path / "Dataset005_One", channels=1)
    put(folder / "imagesTs/u_0000.nii.gz", series())
    assert list(build(folder).facts)[3:] == ["free", *(f"u@00{n}" for n in range(LENGTH))]


def test_a_series_is_unpacked_once_and_not_kept(folder: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    names, opened = list[str](), scans.opened

    def noted(file: Path) -> Any:
        names.append(file.name)
        return opened(file)
    monkeypatch.setattr(scans, "opened", noted)
    build(folder)
    assert names.count("p01_cine.nii.gz") == 1
    assert scans.unpacked.cache_info().currsize == 0


def test_a_series_that_changes_meanwhile_is_read_again(folder: Path) -> None:
    file = folder / "imagesTs/p01_cine.nii.gz"
    before = scans.read([file], 0).voxels
    put(file, series(first=70))
    assert not np.array_equal(scans.read([file], 0).voxels, before)


def test_an_empty_volume_is_named(folder: Path) -> None:
    voxels = series()
    voxels[..., 3] = 7
    put(folder / "imagesTs/p01_cine.nii.gz", voxels)
    with pytest.raises(InputError, match="p01_cine.nii.gz, volume 3: all voxels are 7"):
        build(folder)


def test_all_volumes_are_of_the_patient_that_the_name_of_the_series_says(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    for entry in content["training"]:
        for key in ("image", "label"):
            number = int(entry[key].split("_")[1].split(".")[0])
            name = f"{entry[key].rpartition('/')[0]}/p{number:02d}_rest.nii.gz"
            (folder / entry[key]).rename(folder / name)
            entry[key] = name
    (folder / "imagesTs/u_0.nii.gz").rename(folder / "imagesTs/p30_u.nii.gz")
    edit(folder, training=content["training"], test=[])
    cache = build(folder)
    made, free = divided(folder.parent / "set", cache, GROUP_PATTERN="^(p[0-9]+)_[a-z]+$", FOLDS=3)
    assert [made.groups[case] for case in frames(cache)] == ["p01"] * LENGTH
    for part in made.every():
        inside = set(frames(cache)) & set(splits.pool_of(part, free))
        assert len(inside) == (LENGTH if "p01_rest" in part.train else 0)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_a_volume_that_was_cut_out_and_saved_as_another_type_is_known(
        kind: type, folder: Path) -> None:
    case = "c_3"
    voxels = scans.read_file(folder / f"imagesTr/{case}.nii.gz").voxels
    assert voxels.dtype != kind
    put(folder / "imagesTs/p01_cine.nii.gz", np.stack([series()[..., 0], voxels], axis=-1))
    put(folder / f"imagesTr/{case}.nii.gz", voxels.astype(kind))
    made, _ = divided(folder.parent / "set", build(folder), FOLDS=3)
    assert set(made.groups) == {case, "p01_cine@000", "p01_cine@001"}
    assert len(set(made.groups.values())) == 1


@pytest.mark.parametrize("held_out", [False, True])
def test_a_labelled_scan_that_is_a_volume_takes_its_series_along(
        held_out: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, free = divided(folder.parent / "plain", build(folder), FOLDS=3)
    assert not plain.groups and len(free) == LENGTH + 1
    part = plain.of(0)
    twins = (part.test if held_out else part.train)[:2]
    voxels = series()
    for frame, case in zip((1, 4), twins, strict=True):
        voxels[..., frame] = scans.read_file(folder / f"imagesTr/{case}.nii.gz").voxels
    voxels[..., 2] = voxels[..., 0]  # a volume twice
    put(folder / "imagesTs/p01_cine.nii.gz", voxels)
    put(folder / "imagesTs/other.nii.gz", series(first=80))
    cache = build(folder)
    capsys.readouterr()
    made, free = divided(folder.parent / "set", cache, FOLDS=3)
    assert "1 time series have volumes that are labelled scans too (p01_cine)" in (
        capsys.readouterr().out)
    assert set(made.groups) == {*twins, *(f"p01_cine@00{n}" for n in range(LENGTH))}
    assert len(set(made.groups.values())) == 1
    assert set(frames(cache)) - set(free) == {"p01_cine@001", "p01_cine@004"}
    for part in made.every():
        inside = set(frames(cache)) & set(splits.pool_of(part, free))
        assert sum(case in part.train for case in twins) in (0, 2)
        assert len(inside) == LENGTH + (3 if twins[0] in part.train else 0)
