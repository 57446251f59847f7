"""predict.py of scans whose channels lie in files of their own, as nnU-Net numbers them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import Trial
from test_predict import RUN, predict, read

from common.data import layouts
from common.runs import checkpoint


@pytest.fixture(scope="module")
def of_two(trial_3d: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of a run as one of two channels, which weighs them differently."""
    content = torch.load(trial_3d.runs(trial_3d.folder) / RUN / "best.pt")
    name, first = next((name, one) for name, one in content["state_dict"].items() if one.ndim == 5)
    content["state_dict"][name] = torch.cat([first * 0.3, first * 0.9], dim=1)
    content["about"]["channels"] = ["T1", "T2"]
    content["about"]["weights"] = checkpoint.weights_digest(content["state_dict"])
    folder = tmp_path_factory.mktemp("two")
    torch.save(content, folder / "best.pt")
    return folder / "best.pt"


def numbered(scan: Path, folder: Path, name: str) -> None:
    """A scan of two channels in one file, whole/NAME.nii.gz, and as parts/NAME_0000 and _0001."""
    image, volume = nib.load(scan), read(scan).astype(np.int16)
    both = [volume, volume[::-1].copy()]
    for inside in ("whole", "parts"):
        (folder / inside).mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.stack(both, 3), image.affine), folder / f"whole/{name}.nii.gz")
    for number, part in enumerate(both):
        nib.save(nib.Nifti1Image(part, image.affine), folder / f"parts/{name}_{number:04d}.nii.gz")


def test_channels_in_files_of_their_own_are_joined_as_nnunet_numbers_them(
        of_two: Path, trial_3d: Trial, tmp_path: Path) -> None:
    for scan, name in zip(sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[:2],
                          ("case_0001", "other"), strict=True):
        numbered(scan, tmp_path, name)
    for inside in ("whole", "parts"):
        said = predict("--run", of_two, tmp_path / inside, "--to", tmp_path / "out" / inside)
        assert said.returncode == 0 and "2 of 2 scans" in said.stdout, said
    one, other = tmp_path / "out/whole", tmp_path / "out/parts"
    names = sorted(file.name for file in one.iterdir())
    assert names == sorted(file.name for file in other.iterdir()) and len(names) == 2
    for name in names:
        assert (read(one / name) == read(other / name)).all() and read(one / name).any()
        assert (nib.load(one / name).affine == nib.load(other / name).affine).all()
    again = predict("--run", of_two, tmp_path / "parts/other_0001.nii.gz", "--to", other)
    assert again.returncode == 0 and "1 of 1 scans are in" in again.stdout  # any of its files
    swapped = tmp_path / "parts/other_0000.nii.gz"
    (tmp_path / "parts/other_0001.nii.gz").replace(swapped)
    said = predict("--run", of_two, tmp_path / "parts", "--to", tmp_path / "out/missing")
    assert said.returncode == 2 and len(said.lines) == 1
    assert "case other has other_0000.nii.gz; expected other_0000.nii.gz, other_0001.nii.gz, as " \
        "the network has 2 channels" in said.stderr
    assert not (tmp_path / "out/missing").exists()


def test_what_is_wrong_with_a_channel_is_said_of_its_file(
        of_two: Path, trial_3d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    numbered(scan, tmp_path, "case")
    parts = tmp_path / "parts"
    parts.joinpath("case_0000.nii.gz").rename(parts / "case_0000.NII.GZ")
    parts.joinpath("case_0001.nii.gz").rename(parts / "case_0001.NII.GZ")
    monkeypatch.chdir(tmp_path)  # one by its relative, one by its whole path
    both = ("parts/case_0000.NII.GZ", parts / "case_0001.NII.GZ")
    said = predict("--run", of_two, *both, "--to", tmp_path / "out")
    assert said.returncode == 0 and "note      1 scans have their 2 channels" in said.stdout, said
    image, volume = nib.load(scan), read(scan).astype(np.float32)
    volume[2, 2, 2] = np.nan
    nib.save(nib.Nifti1Image(volume, image.affine), tmp_path / "case_0001.nii.gz")
    (tmp_path / "case_0001.nii.gz").replace(both[1])
    said = predict("--run", of_two, *both, "--to", tmp_path / "out")
    assert said.returncode == 2 and "of another file of that name" in said.lines[-1]  # changed
    said = predict("--run", of_two, *both, "--to", tmp_path / "new")
    assert said.returncode == 2 and f"{both[1]}: 1 voxels are NaN" in said.stderr
    nib.save(nib.Nifti1Image(np.full_like(volume, 3), image.affine), tmp_path / "case_0001.nii.gz")
    (tmp_path / "case_0001.nii.gz").replace(both[1])
    said = predict("--run", of_two, *both, "--to", tmp_path / "new")
    assert said.returncode == 2 and "case_0000.NII.GZ, channel 1: all voxels are 3" in said.stderr


def test_one_volume_among_scans_of_several_channels_is_named_alone(
        of_two: Path, trial_3d: Trial, tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    for year in ("2018", "2019"):
        numbered(scan, tmp_path, f"case_{year}")
    (tmp_path / "parts/case_2018_0000.nii.gz").replace(tmp_path / "whole/case_2020.nii.gz")
    said = predict("--run", of_two, tmp_path / "whole", "--to", tmp_path / "out")
    assert said.returncode == 2 and "1 of 3 scans could not be predicted: case_2020" in said.stderr
    assert "case_2020.nii.gz: 1 channel, but the network has 2" in said.stderr
    assert len([*(tmp_path / "out").iterdir()]) == 2


def test_numbered_scans_of_several_channels_each_are_not_joined(
        of_two: Path, trial_3d: Trial, tmp_path: Path) -> None:
    scans = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[:2]
    for number, scan in enumerate(scans):
        numbered(scan, tmp_path, f"case_{number:04d}")
    said = predict("--run", of_two, tmp_path / "whole", "--to", tmp_path / "out")
    assert said.returncode == 0, said.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"case_0000.nii.gz",
                                                                    "case_0001.nii.gz"}
    said = predict("--run", of_two, tmp_path / "whole/case_0000.nii.gz",
                   tmp_path / "parts/case_0000_0000.nii.gz", "--to", tmp_path / "both")
    assert said.returncode == 2 and "would be case case_0000 like" in said.stderr


@pytest.mark.parametrize(("names", "first"), [
    ("a_0000 a_0001 b_0000 b_0001", "a"), ("a_0000 a_0001 a_0002", "a"), ("a_0000 b_0000", ""),
    ("a_0000 a_0001 b_0000", ""), ("a_0001 a_0002", ""), ("a b_0000", ""), ("a_0000 a_0002", ""),
    (" ".join(f"case_{number:04d}" for number in range(7)), "")])
def test_scans_named_like_channels_of_a_network_of_one_are_pointed_out(
        names: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    scans = {name: Path(f"{name}.nii.gz") for name in names.split()}
    assert layouts.joined(scans, 1) == {name: [file] for name, file in scans.items()}
    said = capsys.readouterr().out
    assert ("each file is taken for a scan of its own" in said) == bool(first)
    assert said.startswith(f"note      {first}_0000 and {first}_0001" if first else "")
