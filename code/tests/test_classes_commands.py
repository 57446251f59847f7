"""exp.py, graph.py, predict.py and export.py on four classes in folders, and on two in a CSV."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from classes import FOUR, TWO, in_a_table, in_folders
from commands import TINY, Result, Trial, alone, call
from test_predict_2d import gradient_of
from torch.nn import functional as F

CLASSES = {"four": FOUR, "two": TWO}
COLUMNS: dict[str, list[str]] = {
    "four": [], "two": ["--id-column", "image", "--grade-column", "finding"]}
RUN = "finetune/rotation/fraction100/seed0"
TRAINED = ["--tasks", "baseline", "rotation", "oracle", "meanteacher", "fixmatch", "--fractions",
           "100", "--seeds", "0", "--pretext-epochs", "2", "--finetune-epochs", "3",
           "--finetune-lr", "2e-3", "--validations", "2", "--device", "cpu", "--workers", "1"]


@pytest.fixture(scope="module", params=[FOUR, TWO], ids=["folders", "table"])
def study(request: pytest.FixtureRequest, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """A finished study of four classes in folders, and of two in a CSV."""
    folder = tmp_path_factory.mktemp("study")
    data = (in_folders(photographs, folder / "four") if request.param == FOUR
            else in_a_table(photographs, folder / "two"))
    return Trial("2d", data, folder, train(data, folder))


def train(data: Path, folder: Path, *more: object) -> Result:
    return call("2d/exp.py", "--data", data, "--results", folder / "results", "--cache",
                folder / "data", *TINY["2d"], *TRAINED, *COLUMNS[data.name], "--classes",
                len(CLASSES[data.name]), *more)


def test_the_command_trains_and_records_classes_by_their_names(study: Trial) -> None:
    assert study.said.returncode == 0, study.said.stderr
    classes = CLASSES[study.data.name]
    assert f"classes {', '.join(classes)}\n" in study.said.stdout
    for arm in ("baseline", "rotation", "oracle", "meanteacher", "fixmatch"):
        run = study.runs(study.folder) / f"finetune/{arm}/fraction100/seed0"
        scores = json.loads((run / "scores.json").read_text())
        identity = json.loads((run / "config.json").read_text())["identity"]
        assert scores["metric"] == "unweighted_kappa" and scores["classes"] == classes
        assert identity["classes"] == classes and identity["settings"]["CLASSES"] == len(classes)
        assert scores["selected"]["rule"] == "highest unweighted kappa on validation"
        assert {"unweighted_kappa", "accuracy", "macro_f1", "confusion"} <= scores["test"].keys()
        head = torch.load(run / "best.pt")["state_dict"]["head.4.weight"]
        assert len(head) == len(classes)
        images = {case: study_image(study, case) for case in scores["cases"]}
        assert all(classes[case["truth"]] == truth_of(study, images[name])
                   for name, case in scores["cases"].items())


def study_image(study: Trial, case: str) -> Path:
    """The photograph of a case."""
    return next(path for path in study.data.rglob("*.png")
                if case in (path.stem, f"{path.parent.name}_{path.stem}"))


def truth_of(study: Trial, image: Path) -> str:
    """The name of its class, as it lies on disk."""
    if study.data.name == "four":
        return image.parent.name
    with (study.data / "labels.csv").open(newline="") as file:
        return next(row["finding"] for row in csv.DictReader(file) if row["image"] == image.stem)


def test_finished_runs_are_not_trained_again(study: Trial) -> None:
    assert study.said.stdout.count("done      finetune/") == 5
    again = train(study.data, study.folder)
    assert again.returncode == 0 and "7 done, 0 to do" in again.stdout, again.stderr


def predict(study: Trial, out: Path, *more: object) -> Result:
    run = study.runs(study.folder) / RUN
    return call("2d/predict.py", "--run", run, *more, "--to", out, "--device", "cpu")


def test_predictions_are_those_of_the_study_with_names_and_probabilities(
        study: Trial, tmp_path: Path) -> None:
    images = study.data / ("train" if study.data.name == "four" else "images")
    folders = [path for path in images.iterdir() if path.is_dir()] or [images]
    assert predict(study, tmp_path, *folders).returncode == 0
    with (tmp_path / "predictions.csv").open(newline="") as file:
        found = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
    scores = json.loads((study.runs(study.folder) / RUN / "scores.json").read_text())
    classes = scores["classes"]
    for case, figures in scores["cases"].items():
        row = found[study_image(study, case).stem]
        assert int(row["number"]) == figures["predicted"]
        assert row["class"] == classes[figures["predicted"]]
    for row in found.values():
        shares = [float(row[f"probability_{name}"]) for name in classes]
        assert sum(shares) == pytest.approx(1, abs=3e-4)
        assert shares[int(row["number"])] == max(shares)
    other = study.runs(study.folder) / "finetune/baseline/fraction100/seed0"
    assert predict(study, tmp_path / "both", "--run", other, images if folders == [images] else
                   folders[0]).returncode == 0


def test_heat_is_grad_cam_of_the_predicted_class(study: Trial, tmp_path: Path) -> None:
    image = next(study.data.rglob("*.png"))
    assert predict(study, tmp_path, image, "--heat").returncode == 0
    assert (tmp_path / f"{image.stem}_heat.png").is_file()
    with alone("2d"):
        import predict as script

        from common.predict.command import Ensemble
        from common.runs import trained

        one = trained.read(study.runs(study.folder) / RUN, "2d")
        network = script.network(one)
        network.load_state_dict(one.weights)
        network.eval()
        images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
        wanted = torch.tensor([1, 0])
        found = script.heat_maps(Ensemble([one], [network], torch.device("cpu")), images, wanted)
        with torch.no_grad():
            maps = network.encoder.stages(images)[-2]
            gradient = gradient_of(lambda logits: logits.gather(1, wanted[:, None])[:, 0], network,
                                   maps)
    cam = (gradient[:, :, None, None] * maps).sum(1).relu()
    large = F.interpolate(cam[:, None], (96, 96), mode="bilinear",
                                            align_corners=False)[:, 0]
    large /= large.amax((1, 2), keepdim=True).clamp(min=1e-12)
    assert found == pytest.approx(large, abs=0.02)


def test_figures_tables_and_page_say_the_names_and_the_score(study: Trial, tmp_path: Path) -> None:
    said = call("2d/graph.py", "--records", study.runs(study.folder), "--results", tmp_path,
                "--publish", "x")
    assert said.returncode == 0, said.stderr
    name = study.data.name
    classes = CLASSES[name]
    text = (tmp_path / f"train_{name}.md").read_text()
    head = " | ".join(f"predicted {one}" for one in classes)
    assert f"| task | labels | truth | {head} |" in text
    for words in ("### Unweighted kappa", "### Accuracy", "### Macro-F1",
                  "Model chosen by highest unweighted kappa on validation"):
        assert words in text, words
    assert "uadratic" not in text and "grade" not in text
    assert (tmp_path / f"examples_{name}.png").is_file()
    page = (tmp_path / f"{name}.html").read_text()
    assert "Unweighted kappa" in page and f"predicted {classes[0]}" in page
    published = tmp_path / f"published/{name}-x"
    again = call("2d/graph.py", "--records", published, "--results", tmp_path / "b")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / f"b/train_{name}.md").read_text() == text


def test_export_says_what_the_outputs_are(study: Trial, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    said = call("2d/export.py", "--run", study.runs(study.folder) / RUN, "--to", tmp_path,
                "--formats", "safetensors")
    assert said.returncode == 0, said.stderr
    about = json.loads((tmp_path / "about.json").read_text())["about"]
    classes = CLASSES[study.data.name]
    assert json.loads(about["classes"]) == classes and "softmax" in about["outputs"]


def test_the_papers_curves_are_of_another_score(study: Trial, tmp_path: Path) -> None:
    runs = tmp_path / "results/2d/fundus"
    shutil.copytree(study.runs(study.folder), runs)
    splits = json.loads((runs / "splits.json").read_text())
    (runs / "splits.json").write_text(json.dumps({**splits, "dataset": "fundus"}))
    said = call("2d/graph.py", "--results", tmp_path / "results", "--published")
    assert said.returncode == 0, said.stderr
    assert "fundus: no published curves to compare with" in said.stdout
