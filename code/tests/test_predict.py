"""predict.py: new scans in their own grid, new images in a table, from best.pt alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import Result, Trial, alone, call
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image

RUN = "finetune/rotation/fraction100/seed0"


@pytest.fixture(scope="module")
def best(trial_3d: Trial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pt of a run, with nothing beside it."""
    folder = tmp_path_factory.mktemp("run")
    return Path(shutil.copy(trial_3d.runs(trial_3d.folder) / RUN / "best.pt", folder))


@pytest.fixture
def tree_3d() -> Iterator[None]:
    with alone("3d"):
        yield


def predict(*arguments: object) -> Result:
    return call("3d/predict.py", *arguments, "--device", "cpu")


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_answers_on_the_networks_grid_are_those_of_the_study(trial_3d: Trial, tree_3d: None
                                                             ) -> None:
    import loader
    import predict as script

    from common.predict.command import Ensemble
    from common.runs import trained

    run = trial_3d.runs(trial_3d.folder) / RUN
    one = trained.read(run, "3d")
    network = script.network(one)
    network.load_state_dict(one.weights)
    together = Ensemble([one], [network.eval()], torch.device("cpu"))
    scores = json.loads((run / "scores.json").read_text())
    dataset = {source.id: source for source in loader.open_dataset(trial_3d.data).sources}
    for case, figures in scores["cases"].items():
        image, truth, _ = loader.preprocess(dataset[case], classes=len(one.classes) + 1, channels=1,
                                            resolution=16, intensity=one.settings["INTENSITY"])
        labels = script.answer(together, image).argmax(0).numpy()
        for number, both in enumerate(figures["both"]):
            assert ((labels == number) & (truth == number)).sum() == both
            assert (labels == number).sum() == figures["predicted"][number]


@pytest.mark.parametrize("codes", ["LPS", "SRA", "AIL"])
def test_turned_copies_of_a_scan_get_the_same_labels_in_their_own_grid(
        codes: str, best: Path, trial_3d: Trial, tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTr").glob("[!.]*"))[0]
    plain = nib.load(scan)
    oblique = nib.Nifti1Image(read(scan).astype(np.int16), plain.affine @ np.array(
        [[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, -3], [0, 0, 1.5, 8], [0, 0, 0, 1]]))
    oblique.set_sform(oblique.affine, 1)
    turn = ornt_transform(nib.io_orientation(oblique.affine), axcodes2ornt(tuple(codes)))
    turned = oblique.as_reoriented(turn)
    nib.save(oblique, tmp_path / "plain.nii.gz")
    nib.save(turned, tmp_path / "turned.nii")
    said = predict("--run", best, tmp_path / "plain.nii.gz", tmp_path / "turned.nii", "--to",
                   tmp_path / "out")
    assert said.returncode == 0, said.stderr
    one, other = (nib.load(tmp_path / f"out/{name}.nii.gz") for name in ("plain", "turned"))
    assert one.shape == oblique.shape and other.shape == turned.shape
    for made, source in ((one, oblique), (other, turned)):
        assert np.allclose(made.affine, source.affine, atol=1e-5)
        for code in ("sform_code", "qform_code"):
            assert made.header[code] == nib.load(tmp_path / source_name(source, turned)
                                                 ).header[code]
        assert made.header.get_zooms()[:3] == pytest.approx(source.header.get_zooms()[:3])
    assert np.array_equal(np.asarray(one.as_reoriented(turn).dataobj), np.asarray(other.dataobj))
    assert np.unique(np.asarray(one.dataobj)).size > 1


def source_name(source: Any, turned: Any) -> str:
    return "turned.nii" if source is turned else "plain.nii.gz"


def test_probabilities_add_up_and_labels_are_the_most_likely(best: Path, trial_3d: Trial,
                                                             tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    said = predict("--run", best, scan, "--to", tmp_path, "--probabilities", "--overlays")
    assert said.returncode == 0 and "Not for clinical use" in said.stdout and " ml" in said.stdout
    name = scan.name.removesuffix(".nii.gz")
    image = nib.load(tmp_path / f"{name}_probabilities.nii.gz")
    labels = nib.load(tmp_path / f"{name}.nii.gz")
    probabilities = np.asarray(image.dataobj)
    assert image.shape[:3] == labels.shape == nib.load(scan).shape
    assert np.allclose(image.affine, nib.load(scan).affine)
    assert np.allclose(probabilities.sum(3), 1, atol=1e-5)
    assert np.array_equal(probabilities.argmax(3), np.asarray(labels.dataobj))
    for made in (image, labels):
        assert bytes(made.header["descrip"].item()).startswith(b"Not for clinical use; code/3d/")
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.width > 3 * 200
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_a_caption_names_every_class_in_its_colour() -> None:
    from common.predict import overlay

    picture = Image.new("RGB", (40, 30), (9, 9, 9))
    tints = [(1.0, 0.0, 0.0), (0.0, 0.5, 1.0)]
    made = np.asarray(overlay.captioned(picture, [("anterior", tints[0]), ("posterior", tints[1])]))
    assert (made[:30, :40] == 9).all() and made.shape[1] > 100
    strip = made[30:].reshape(-1, 3).astype(float)
    for tint in tints:  # pure somewhere, and shades of it at the edges of letters
        assert (np.abs(strip - 255 * np.array(tint)).max(1) < 2).any()


def test_outside_of_the_body_is_background(best: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volume = np.zeros((24, 20, 18), np.float32)
    volume[6:20, 4:15, 3:12] = rng.uniform(50, 100, (14, 11, 9))
    nib.save(nib.Nifti1Image(volume, np.diag([1, 2, 3, 1])), tmp_path / "scan.nii.gz")
    predict("--run", best, tmp_path / "scan.nii.gz", "--to", tmp_path / "out", "--probabilities")
    inside = np.zeros(volume.shape, bool)
    inside[6:20, 4:15, 3:12] = True
    probabilities = read(tmp_path / "out/scan_probabilities.nii.gz")
    assert (probabilities[~inside][:, 0] == 1).all() and (probabilities[inside][:, 0] < 1).all()
    assert not read(tmp_path / "out/scan.nii.gz")[~inside].any()


def test_several_runs_answer_with_the_mean_of_their_probabilities(
        best: Path, trial_3d: Trial, tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    other = trial_3d.runs(trial_3d.folder) / "finetune/baseline/fraction050/seed0"
    found = []
    for number, runs in enumerate(([best], [other], [best, other], [other, best])):
        given = [part for run in runs for part in ("--run", run)]
        out = tmp_path / str(number)
        assert predict(*given, scan, "--to", out, "--probabilities").returncode == 0
        found.append(read(next(out.glob("*_probabilities.nii.gz"))))
    assert not np.allclose(found[0], found[1], atol=1e-3)
    assert np.allclose(found[2], (found[0] + found[1]) / 2, atol=1e-6)
    assert np.allclose(found[2], found[3], atol=1e-6)
    again = predict("--run", other, "--run", best, scan, "--to", tmp_path / "2")
    assert "kept      1 of 1 scans" in again.stdout  # whatever the order


def test_what_is_there_is_kept_and_other_files_are_never_overwritten(
        best: Path, trial_3d: Trial, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    shutil.copytree(trial_3d.data / "imagesTs", folder)
    (folder / "readme.txt").write_text("not a scan")
    names = [file.name for file in sorted(folder.glob("[!.]*.nii.gz"))]
    out = tmp_path / "out"
    assert predict("--run", best, folder, "--to", out).returncode == 0
    assert sorted(file.name for file in out.iterdir()) == names
    (out / names[1]).unlink()
    before = (out / names[0]).read_bytes()
    said = predict("--run", best, folder, "--to", out)
    assert said.returncode == 0 and f"kept      1 of {len(names)} scans" in said.stdout
    assert (out / names[0]).read_bytes() == before and (out / names[1]).is_file()
    said = predict("--run", best, folder, "--to", out, "--overlays")  # asks for more
    assert "kept" not in said.stdout and len(list(out.glob("*.png"))) == len(names)
    other = trial_3d.runs(trial_3d.folder) / "finetune/baseline/fraction050/seed0"
    said = predict("--run", other, folder, "--to", out)
    assert said.returncode == 2 and "was made with other weights" in said.lines[-1]
    scans = {file.name: file.read_bytes() for file in folder.iterdir()}
    said = predict("--run", best, folder, "--to", folder)
    assert said.returncode == 2 and "the files to predict lie there" in said.lines[-1]
    assert scans == {file.name: file.read_bytes() for file in folder.iterdir()}


def test_another_scan_of_the_same_name_is_never_taken_for_done(best: Path, trial_3d: Trial,
                                                                tmp_path: Path) -> None:
    one, other = sorted((trial_3d.data / "imagesTr").glob("[!.]*"))[:2]
    for folder, scan in (("a", one), ("b", other)):
        (tmp_path / folder).mkdir()
        shutil.copy2(scan, tmp_path / folder / "t1.nii.gz")
    out = tmp_path / "out"
    assert predict("--run", best, tmp_path / "a", "--to", out, "--overlays").returncode == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    said = predict("--run", best, tmp_path / "b", "--to", out)
    assert said.returncode == 2 and "of another file of that name" in said.lines[-1]
    (out / "t1.nii.gz").unlink()  # its picture is the other scan's still
    said = predict("--run", best, tmp_path / "b", "--to", out, "--overlays")
    assert said.returncode == 2 and "t1.png: was made with" in said.lines[-1]
    (out / "t1.png").write_bytes(b"a picture of somebody's")
    said = predict("--run", best, tmp_path / "a", "--to", out, "--overlays")
    assert said.returncode == 2 and "t1.png: is there and was not made by" in said.lines[-1]
    assert before.keys() >= {file.name for file in out.iterdir()}
    blocked = tmp_path / "file"
    blocked.write_text("")
    said = predict("--run", best, tmp_path / "a", "--to", blocked)
    assert said.returncode == 2 and said.lines[-1].startswith(f"error: --to {blocked}: ")


def test_damaged_weights_are_refused(best: Path, trial_3d: Trial, tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    state = torch.load(best)
    next(iter(state["state_dict"].values())).mul_(2)
    torch.save(state, tmp_path / "best.pt")
    said = predict("--run", tmp_path, scan, "--to", tmp_path / "out")
    assert said.returncode == 2 and "damaged, its weights are not those" in said.lines[-1]
    (tmp_path / "best.pt").write_bytes(best.read_bytes()[:900])
    said = predict("--run", tmp_path, scan, "--to", tmp_path / "out")
    assert said.returncode == 2 and "copy it anew" in said.lines[-1]


def broken(kind: str, scan: Path, path: Path) -> str:
    """Write a scan that cannot be used; returns what is said of it."""
    image, volume = nib.load(scan), read(scan).astype(np.float32)
    if kind == "not a scan":
        path.write_bytes(b"nothing of the kind")
        return "not a readable NIfTI file"
    if kind == "flat":
        nib.save(nib.Nifti1Image(volume[..., 0], np.diag([-1, 1, 1, 1])), path)
        return "expected a volume of three axes"
    if kind == "nan":
        volume[3, 3, 3] = np.nan
    elif kind == "two channels":
        volume = np.stack([volume, volume], axis=3)
    elif kind == "constant":
        volume[:] = 7
    nib.save(nib.Nifti1Image(volume, image.affine), path)
    return {"nan": "1 voxels are NaN", "two channels": "but the network has 1",
            "constant": "all voxels are 7"}[kind]


@pytest.mark.parametrize("kind", ["not a scan", "nan", "two channels", "constant", "flat"])
def test_a_scan_that_cannot_be_used_is_named_and_the_others_are_done(
        kind: str, best: Path, trial_3d: Trial, tmp_path: Path) -> None:
    good = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    wanted = broken(kind, good, tmp_path / "bad.nii.gz")
    said = predict("--run", best, tmp_path / "bad.nii.gz", good, "--to", tmp_path / "out")
    assert said.returncode == 2
    assert len(said.lines) == 2 or any("it/s" in line or "scan/s" in line for line in said.lines)
    assert any(line.startswith(f"error: {tmp_path / 'bad.nii.gz'}") and wanted in line
               for line in said.lines)
    assert said.lines[-1].startswith("error: 1 of 2 scans could not be predicted: bad")
    assert [file.name for file in (tmp_path / "out").iterdir()] == [good.name]


def test_runs_and_paths_that_do_not_fit_are_named_in_one_line(
        best: Path, trial_2d: Trial, trial_3d: Trial, tmp_path: Path) -> None:
    scan = sorted((trial_3d.data / "imagesTs").glob("[!.]*"))[0]
    runs = trial_3d.runs(trial_3d.folder)
    twin = tmp_path / "twin" / scan.name
    twin.parent.mkdir()
    shutil.copy(scan, twin)
    (tmp_path / "empty").mkdir()
    old = tmp_path / "old.pt"
    torch.save(torch.load(best)["state_dict"], old)
    silent = tmp_path / "silent.pt"
    torch.save({"state_dict": torch.load(best)["state_dict"], "about": {"tree": "3d"}}, silent)
    wide = torch.load(best)
    wide["about"]["settings"]["INTENSITY"] = "minmax"
    torch.save(wide, tmp_path / "wide.pt")
    for arguments, wanted in (
            (["--run", tmp_path, scan], f"{tmp_path}: no best.pt there"),
            (["--run", trial_2d.runs(trial_2d.folder) / RUN, scan], "a network of code/2d"),
            (["--run", old, scan], "train the run again"),
            (["--run", silent, scan], "does not say what it was trained on"),
            (["--run", best, "--run", tmp_path / "wide.pt", scan], "INTENSITY minmax, but"),
            (["--run", best, runs / RUN, scan], "give each run with its own --run"),
            (["--run", best, tmp_path / "none.nii.gz"], "no such file or folder"),
            (["--run", best, tmp_path / "empty"], "no file that ends in .nii .nii.gz;"),
            (["--run", best, scan, twin], f"{twin}: has the name of {scan}")):
        said = predict(*arguments, "--to", tmp_path / "out")
        assert said.returncode == 2 and len(said.lines) == 1, said
        assert wanted in said.stderr and not (tmp_path / "out").exists()


def test_scans_that_a_network_has_learnt_from_are_said(trial: Trial, tmp_path: Path) -> None:
    run = trial.runs(trial.folder) / RUN
    folder = trial.data / ("imagesTr" if trial.tree == "3d" else "train_images")
    splits = json.loads((run.parents[3] / "splits.json").read_text())
    tested = set(json.loads((run / "scores.json").read_text())["cases"])
    script = f"{trial.tree}/predict.py"
    said = call(script, "--run", run, folder, "--to", tmp_path / "all", "--device", "cpu")
    assert said.returncode == 0, said.stderr
    every = [path for path in folder.iterdir() if not path.name.startswith(".")]
    known = len(every) - len(tested)
    assert splits["val"] and f"note      {known} of {len(every)} " in said.stdout
    assert "may have learnt from or was chosen on" in said.stdout
    of_test = [path for path in every if path.name.split(".")[0] in tested]
    said = call(script, "--run", run, *of_test, "--to", tmp_path / "test", "--device", "cpu")
    assert said.returncode == 0 and "learnt from" not in said.stdout and len(of_test) == len(tested)
    shutil.copy(run / "best.pt", tmp_path)  # nothing beside it says what it has seen
    said = call(script, "--run", tmp_path / "best.pt", folder, "--to", tmp_path / "alone",
                "--device", "cpu")
    assert said.returncode == 0 and "learnt from" not in said.stdout
    (tmp_path / "best.json").write_text("[]")
    said = call(script, "--run", tmp_path / "best.pt", folder, "--to", tmp_path / "odd",
                "--device", "cpu")
    assert said.returncode == 2 and "best.json: not the record" in said.lines[-1]
