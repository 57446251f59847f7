"""export.py of the 3D tree: weights for other programs, the same features there, nothing lost."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Result, Trial, alone, call
from torch import Tensor

from common.files import differences

PRETRAIN, FINETUNE = "pretrain/rotation/seed0", "finetune/rotation/fraction100/seed0"


@pytest.fixture
def tree_3d() -> Iterator[None]:
    with alone("3d"):
        yield


def export(*arguments: object) -> Result:
    return call("3d/export.py", *arguments)


def run_of(trial: Trial, name: str, folder: Path) -> Path:
    """A copy of a run, to be changed."""
    return Path(shutil.copytree(trial.runs(trial.folder) / name, folder / "run"))


def about(out: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((out / "about.json").read_text())["about"]
    return found


def metadata(file: Path) -> dict[str, str]:
    with pytest.importorskip("safetensors").safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def test_safetensors_hold_the_weights_and_say_what_they_are(trial_3d: Trial, tmp_path: Path
                                                            ) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    run, out = run_of(trial_3d, PRETRAIN, tmp_path), tmp_path / "out"
    config = json.loads((run / "config.json").read_text())
    config["provenance"]["commit"] = "ab12cd3"
    (run / "config.json").write_text(json.dumps(config))
    data = tmp_path / "Task00_CTPhantom"
    data.mkdir()
    (data / "dataset.json").write_text('{"licence": "CC-BY-SA 4.0"}')
    said = export("--run", run, "--to", out, "--formats", "safetensors", "--data", data)
    assert said.returncode == 0, said.stderr
    assert "Not for clinical use" in said.stdout and "CC-BY-SA 4.0" in said.stdout
    found, wanted = load_file(out / "encoder.safetensors"), torch.load(run / "encoder.pt")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert {file.name for file in out.iterdir()} == {"about.json", "encoder.safetensors"}
    said_of_it = metadata(out / "encoder.safetensors")
    assert said_of_it == {"format": "pt", **about(out)}
    wanted_of_it = {"task": "rotation", "seed": "0", "stage": "pretrain", "dataset": "ctphantom",
                    "pool images": config["identity"]["pool images"], "generated": "true",
                    "commit": "ab12cd3",
                    "weights": json.loads((run / "scores.json").read_text())["encoder"],
                    "licence of the data": "CC-BY-SA 4.0", "use": "Not for clinical use",
                    "input": "(B, CT, D, H, W), float32", "sides": "divisible by 4",
                    "axes": "RAS+: D to the right, H to the front, W up"}
    assert not differences(wanted_of_it, {key: said_of_it.get(key) for key in wanted_of_it})
    assert "16 x 16 x 16 voxels" in said_of_it["spacing"]
    assert said_of_it["intensity"].startswith("the 0.5 and 99.5 percentiles")
    assert json.loads(said_of_it["settings"])["FILTERS"] == 2


def test_a_finetuned_run_says_where_its_encoder_is_from(trial_3d: Trial, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    pool = json.loads((trial_3d.runs(trial_3d.folder) / PRETRAIN / "config.json").read_text()
                      )["identity"]["pool images"]
    alone_file = Path(shutil.copy(trial_3d.runs(trial_3d.folder) / FINETUNE / "best.pt", tmp_path))
    for number, (run, wanted) in enumerate((
            (trial_3d.runs(trial_3d.folder) / FINETUNE, pool), (alone_file, "unknown"),
            (trial_3d.runs(trial_3d.folder) / "finetune/baseline/fraction050/seed0", "none"))):
        out = tmp_path / str(number)
        said = export("--run", run, "--to", out, "--formats", "safetensors")
        assert said.returncode == 0, said.stderr
        assert about(out)["pool images"] == wanted
        assert about(out)["fraction"] in ("50", "100") and about(out)["stage"] == "finetune"
        assert (out / "encoder.safetensors").is_file() and (out / "network.safetensors").is_file()


def test_the_pool_is_that_of_the_pretraining_an_encoder_is_from() -> None:
    from common.export import source

    for identity, wanted in (
            ({"stage": "pretrain", "pool images": "a"}, "a"),
            ({"stage": "pretrain", "images and labels": "b"}, "none"),  # the oracle's
            ({"stage": "finetune", "encoder": None}, "none"),
            ({"stage": "finetune", "encoder": {"stage": "pretrain", "pool images": "c"}}, "c"),
            ({"stage": "finetune", "encoder": {"file": "d"}}, "unknown"),  # from elsewhere
            ({"stage": "finetune"}, "unknown")):  # of best.pt alone
        assert source._pool(identity) == wanted


def test_onnx_of_a_finetuned_run_gives_the_same_outputs_at_any_size(
        trial_3d: Trial, tree_3d: None, tmp_path: Path) -> None:
    onnx, runtime = (pytest.importorskip(name) for name in ("onnx", "onnxruntime"))
    pytest.importorskip("onnxscript")
    run = trial_3d.runs(trial_3d.folder) / FINETUNE
    said = export("--run", run, "--to", tmp_path, "--formats", "onnx")
    assert said.returncode == 0, said.stderr
    network = unet(torch.load(run / "best.pt")["state_dict"], channels=1, filters=2, levels=1)
    assert {one.key: one.value for one in onnx.load(tmp_path / "encoder.onnx").metadata_props
            } == about(tmp_path)
    for part in ("encoder", "network"):
        session = runtime.InferenceSession(tmp_path / f"{part}.onnx")
        for shape in ((2, 1, 16, 16, 16), (1, 1, 24, 8, 12)):
            volumes = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                wanted = network.encoder.stages(volumes) if part == "encoder" else [
                    network(volumes)]
            found = session.run(None, {"images": volumes.numpy()})
            assert [one.name for one in session.get_outputs()] == (
                ["level0", "level1", "code"] if part == "encoder" else ["logits"])
            for ours, theirs in zip(wanted, found, strict=True):
                assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-5)
                assert ours.std() > 1e-3  # of something


def unet(state: Mapping[str, Tensor], *, channels: int, filters: int, levels: int) -> Any:
    """Our U-Net with weights, in evaluation."""
    import model

    network = model.UNet(model.Encoder(channels, filters, levels),
                         len(state["decoder.last.bias"]))
    network.load_state_dict(state)
    return network.eval()


def test_runs_that_cannot_be_exported_are_named_in_one_line(
        trial_3d: Trial, trial_2d: Trial, tmp_path: Path) -> None:
    runs = trial_3d.runs(trial_3d.folder)
    out = tmp_path / "out"

    def refused(run: Path, *flags: object) -> str:
        said = export("--run", run, "--to", out, *flags)
        assert said.returncode == 2 and len(said.lines) == 1, said.stderr
        assert not out.exists()
        return said.lines[0]
    assert "no such run; give the folder of a finished one" in refused(tmp_path / "nowhere")
    assert "no run; give the folder" in refused(runs)
    assert "neither a run nor its weights" in refused(runs / PRETRAIN / "log.jsonl")
    line = refused(runs / PRETRAIN, "--formats", "torchvision")
    assert line == ("error: --formats torchvision: of DenseNets, which are code/2d's; "
                    "code/3d/export.py has safetensors, onnx, nnunet")
    assert "--formats tensorflow: no such format" in refused(runs / PRETRAIN, "--formats",
                                                             "tensorflow")
    other = trial_2d.runs(trial_2d.folder)
    assert "a run of the other tree (it has no FILTERS)" in refused(other / PRETRAIN)
    assert "code/2d/export.py" in refused(other / FINETUNE)
    assert "no-licence/dataset.json: no such file" in refused(runs / PRETRAIN, "--data",
                                                              tmp_path / "no-licence")
    (tmp_path / "dataset.json").write_text("{}")
    assert "says nothing of a licence" in refused(runs / PRETRAIN, "--data", tmp_path)


@pytest.mark.parametrize("name", [PRETRAIN, FINETUNE])
def test_unfinished_and_damaged_runs_are_refused(trial_3d: Trial, tmp_path: Path, name: str
                                                 ) -> None:
    run = run_of(trial_3d, name, tmp_path)
    weights = run / ("encoder.pt" if name == PRETRAIN else "best.pt")

    def refused() -> str:
        said = export("--run", run, "--to", tmp_path / "out", "--formats", "nnunet")
        assert said.returncode == 2 and len(said.lines) == 1, said.stderr
        assert not (tmp_path / "out").exists()
        return said.lines[0]
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-200])
    assert str(weights) in refused()
    state = torch.load(trial_3d.runs(trial_3d.folder) / name / weights.name)
    next(iter(state.get("state_dict", state).values())).mul_(2)
    torch.save(state, weights)
    assert f"{weights}: damaged, its weights are not those that were saved" in refused()
    weights.unlink()
    assert f"finished, but without its {weights.name}" in refused()
    weights.write_bytes(whole)
    scores = (run / "scores.json").read_text()
    (run / "scores.json").write_text("[]")
    assert "scores.json: not the record of a run; restore it" in refused()
    (run / "scores.json").unlink()
    assert "not finished (no scores.json)" in refused()
    (run / "scores.json").write_text(scores)
    config = json.loads((run / "config.json").read_text())
    config["identity"]["stage"] = "tune"
    (run / "config.json").write_text(json.dumps(config))
    assert "a trial of --tune, which keeps no weights" in refused()
    (run / "config.json").write_text("{}")
    assert "config.json: not the record of a run" in refused()
    if name == PRETRAIN:
        (run / "config.json").unlink()
        assert "encoder.pt without config.json beside it" in refused()


def test_what_is_there_is_kept_and_other_files_are_never_overwritten(
        trial_3d: Trial, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    runs, out = trial_3d.runs(trial_3d.folder), tmp_path / "out"
    flags = ("--run", runs / PRETRAIN, "--to", out, "--formats")
    assert export(*flags, "safetensors").returncode == 0
    first = (out / "encoder.safetensors").read_bytes()
    said = export(*flags, "safetensors", "nnunet")  # asks for more
    assert said.returncode == 0 and "kept      safetensors" in said.stdout
    assert "written" in said.stdout and (out / "nnunet.pth").is_file()
    assert (out / "encoder.safetensors").read_bytes() == first
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    said = export(*flags, "nnunet", "safetensors")
    assert said.returncode == 0 and "kept      nnunet, safetensors" in said.stdout
    said = export("--run", runs / FINETUNE, "--to", out, "--formats", "safetensors")
    assert said.returncode == 2 and "holds the export of something else" in said.lines[-1]
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    (out / "pooled_unet.py").write_text("somebody's own")
    said = export(*flags, "nnunet")
    assert said.returncode == 2 and "pooled_unet.py: is there and is not what" in said.lines[-1]
    assert (out / "pooled_unet.py").read_text() == "somebody's own"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    for other in (tmp_path / "full", tmp_path / "full/notes.txt"):
        said = export("--run", runs / PRETRAIN, "--to", other)
        assert said.returncode == 2 and "was not made by export.py" in said.lines[-1]
    assert (tmp_path / "full/notes.txt").read_text() == "mine"
    said = export("--run", runs / PRETRAIN, "--to", tmp_path / "full/notes.txt/below", "--formats",
                  "nnunet")
    assert said.returncode == 2 and "give a folder that can be written" in said.lines[-1]


def test_nothing_is_left_of_an_export_that_fails_and_the_next_one_goes_on(
        trial_3d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.export import nnunet

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device", "disk")
    flags = ("--run", trial_3d.runs(trial_3d.folder) / PRETRAIN, "--to", tmp_path / "out",
             "--formats", "nnunet")
    with monkeypatch.context() as patched:
        patched.setattr(nnunet.shutil, "copyfile", full)  # after the weights are written
        said = export(*flags)
    assert said.returncode == 2 and "No space left on device" in said.lines[-1]
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out/.partial.x").mkdir()  # of one that was killed
    assert export(*flags).returncode == 0 and (tmp_path / "out/nnunet.pth").is_file()


def test_a_missing_package_is_named_with_what_to_install(
        trial_3d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("safetensors", "safetensors.torch", "onnx", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    flags = ("--run", trial_3d.runs(trial_3d.folder) / PRETRAIN, "--to", tmp_path / "out",
             "--formats")
    for name in ("safetensors", "onnx"):
        said = export(*flags, "nnunet", name)
        assert said.returncode == 2 and not (tmp_path / "out").exists()
        assert said.lines == [f"error: --formats {name} needs the package {name}, which is not "
                              f"installed: venv/bin/python -m pip install {name}; or name other "
                              "--formats"]
    assert export(*flags, "nnunet").returncode == 0  # needs none of them


def test_the_licence_is_found_below_data_by_the_data_sets_name(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.export import source

    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert source.licence("pancreas", None) == "unknown"
    for name, licence in (("Task07_Pancreas", "CC-BY-SA 4.0"), ("Task03_Liver", "another")):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "dataset.json").write_text(json.dumps({"licence": licence}))
    assert source.licence("pancreas", None) == "CC-BY-SA 4.0"
    assert source.licence("heart", None) == "unknown"
