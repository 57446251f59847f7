"""export.py of the 2D tree: a DenseNet-121 that torchvision and timm load, and ONNX."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Result, Trial, alone, call
from torch import nn
from torchvision.models import densenet121

PRETRAIN, FINETUNE = "pretrain/rotation/seed0", "finetune/rotation/fraction100/seed0"


def export(*arguments: object) -> Result:
    return call("2d/export.py", *arguments)


@pytest.fixture
def densenet(trial_2d: Trial, tmp_path: Path) -> Path:
    """A pretraining run of a whole DenseNet-121, its weights drawn at random."""
    from common.runs import checkpoint

    run = Path(shutil.copytree(trial_2d.runs(trial_2d.folder) / PRETRAIN, tmp_path / "run"))
    with alone("2d"):
        import model

        torch.manual_seed(0)
        encoder = model.Encoder()
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if "running_mean" in name:
                value.uniform_(-0.5, 0.5)
    config = json.loads((run / "config.json").read_text())
    config["identity"]["settings"] |= {"BLOCKS": [6, 12, 24, 16], "GROWTH": 32}
    (run / "config.json").write_text(json.dumps(config))
    checkpoint.save(run / "encoder.pt", encoder.state_dict())
    scores = json.loads((run / "scores.json").read_text())
    scores["encoder"] = checkpoint.weights_digest(encoder.state_dict())
    (run / "scores.json").write_text(json.dumps(scores))
    return run


def code_of(state: Any, images: torch.Tensor) -> torch.Tensor:
    """What our own encoder makes of images."""
    with alone("2d"):
        import model

        encoder = model.Encoder().eval()
    encoder.load_state_dict(state)
    code: torch.Tensor = encoder(images)
    return code


def test_torchvision_and_timm_load_the_densenet_and_have_its_features(densenet: Path,
                                                                      tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = export("--run", densenet, "--to", out, "--formats", "torchvision")
    assert said.returncode == 0, said.stderr
    assert "densenet121() with classifier = nn.Identity()" in said.stdout
    state = torch.load(out / "densenet121.pth", weights_only=True)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = densenet121()
    theirs.classifier = nn.Identity()
    networks: list[Any] = [theirs]
    try:
        import timm
    except ImportError:  # brings a dozen packages: compared where it is installed
        pass
    else:
        networks.append(timm.create_model("densenet121", num_classes=0))
    with torch.no_grad():
        wanted = code_of(torch.load(densenet / "encoder.pt"), images)
        assert wanted.std() > 1e-3
        for network in networks:
            network.load_state_dict(state, strict=True)
            assert torch.equal(network.eval()(images), wanted)
    theirs.features.load_state_dict({name.removeprefix("features."): value
                                     for name, value in state.items()}, strict=True)


def test_another_densenet_is_refused_by_that_name_and_left_out_of_all(
        trial_2d: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    from common.export import formats

    run, out = trial_2d.runs(trial_2d.folder) / PRETRAIN, tmp_path / "out"
    said = export("--run", run, "--to", out, "--formats", "torchvision")
    assert said.returncode == 2 and not out.exists()
    why = "BLOCKS [1, 1, 1, 1] and GROWTH 4, but a DenseNet-121 has [6, 12, 24, 16] and 32"
    assert said.lines == [f"error: --formats torchvision: {run / 'encoder.pt'}: {why}; export it "
                          "as safetensors, or train one of that size"]
    monkeypatch.setattr(formats, "ONNX", formats.Format(  # which takes its time elsewhere
        (), lambda export: [], lambda export, folder: None, formats.never))
    said = export("--run", run, "--to", out)
    assert said.returncode == 0 and f"left out  torchvision: {why}" in said.stdout
    assert {file.name for file in out.iterdir()} == {"about.json", "encoder.safetensors"}
    said = export("--run", run, "--to", tmp_path / "other", "--formats", "nnunet")
    assert said.returncode == 2 and "of U-Nets, which are code/3d's" in said.lines[0]


def test_onnx_of_a_finetuned_run_gives_the_same_outputs_at_any_size(trial_2d: Trial,
                                                                    tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    run = trial_2d.runs(trial_2d.folder) / FINETUNE
    said = export("--run", run, "--to", tmp_path, "--formats", "onnx")
    assert said.returncode == 0, said.stderr
    with alone("2d"):
        import model

        network = model.Grader(model.Encoder((1, 1, 1, 1), 4), 5).eval()
    network.load_state_dict(torch.load(run / "best.pt")["state_dict"])
    for part in ("encoder", "network"):
        session = runtime.InferenceSession(tmp_path / f"{part}.onnx")
        for shape in ((3, 3, 32, 32), (1, 3, 64, 40)):
            images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                wanted = network.encoder.stages(images) if part == "encoder" else [network(images)]
            found = session.run(None, {"images": images.numpy()})
            for ours, theirs in zip(wanted, found, strict=True):
                assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-5)
                assert ours.std() > 1e-4
    about = json.loads((tmp_path / "about.json").read_text())["about"]
    assert about["axes"] == "H down, W to the right" and about["intensity"].startswith("0 to 1")
    assert "32 x 32" in about["spacing"] and json.loads(about["classes"])[4] == "grade 4"
