"""The benchmarks beside the two commands, on the tiny 2D experiment."""

import json
from pathlib import Path

import numpy as np
import torch
from commands import Trial, call
from scipy.stats import t as student

from bench import probe


def test_bench_tries_changes_settings_and_reports_validation_only(trial_2d: Trial,
                                                                  tmp_path: Path) -> None:
    results, given = tmp_path / "results", ["--", *trial_2d.flags(tmp_path)]
    trial_2d.copy(tmp_path)
    said = call("bench/choose/tries.py", "2d", "--try", "start-lr-factor=0",
                "--try", "pretext-lr=3e-3,validations=3", *given)
    assert said.returncode == 0, said.stderr
    rows = [line.split(" | ") for line in said.stdout.splitlines() if "% |" in line]
    assert len(rows) == 3 * 2 * 2
    folders = [results / name / "2d/fundusphantom" for name in
               ("", "tries/start-lr-factor=0", "tries/pretext-lr=3e-3,validations=3")]
    given_, lent, own = (torch.load(folder / "pretrain/rotation/seed0/encoder.pt")
                         for folder in folders)
    same = [torch.equal(given_[name], lent[name]) for name in given_]
    assert all(same) and any(not torch.equal(given_[name], own[name]) for name in given_)
    run = "finetune/rotation/fraction050/seed0"
    plain, still = (torch.load(folder / run / "best.pt")["state_dict"] for folder in folders[:2])
    weights = [name for name in plain if name.startswith("encoder.") and name.endswith("weight")]
    assert weights and all(torch.equal(still[name], given_[name.removeprefix("encoder.")])
                           for name in weights)
    assert any(not torch.equal(plain[name], still[name]) for name in weights)
    log = [json.loads(line) for line in (folders[2] / run / "log.jsonl").read_text().splitlines()]
    kappas = [line["val"]["kappa"] for line in log if "val" in line]
    row = next(row for row in rows if row[0].startswith("| pretext-lr") and row[2] == "rotation"
               and row[1] == "50 %")
    assert row[4:6] == [f"{np.mean(kappas[1:]):.3f}", f"{max(kappas):.3f}"]
    pretext = json.loads((folders[2] / "pretrain/rotation/seed0/scores.json").read_text())
    assert len(kappas) == 3 and row[3] == f"{pretext['score']['accuracy']:.2f}"
    said = call("bench/choose/tries.py", "2d", "--try", "start-lr-factor=much", *given)
    assert said.returncode == 2 and "--start-lr-factor: invalid float value" in said.stderr
    said = call("bench/choose/tries.py", "2d", "--try", "pretxt-lr=1", *given)
    assert said.returncode == 2 and "did you mean --pretext-lr" in said.stderr


def test_bench_recipe_leaves_items_out_and_looks_at_no_test_case(trial_2d: Trial,
                                                                 tmp_path: Path) -> None:
    out = tmp_path / "recipe.md"
    given = ["bench/choose/recipe.py", "2d", "--only", "rate rises, then falls", "scaled", "turned",
             "--out", out, "--", *trial_2d.flags(tmp_path, "--seeds", 3, 4, 5)]
    said = call(*map(str, given))
    assert said.returncode == 0, said.stderr
    assert out.read_text() in said.stdout
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in out.read_text().splitlines() if "% |" in line]
    names = ("nothing", "rate rises, then falls", "scaled")
    assert [row[:2] for row in rows] == [[f"{fraction} %", name] for fraction in (50, 100)
                                         for name in names]
    folder = tmp_path / "results/recipe"  # "turned" is off in 2D anyway
    assert {path.parts[-5] for path in folder.glob("*/2d/*/tune/baseline")} == {
        "the-recipe", "rate-rises-then-falls", "scaled"}
    scores = {(path.relative_to(folder).parts[0], path.parts[-3]): json.loads(path.read_text())
              for path in folder.rglob("fraction050/*/*/scores.json")}
    assert len(scores) == 9 and not any("test" in one for one in scores.values())
    assert not list(folder.rglob("finetune"))
    whole, scaled = (np.array([scores[name, f"seed{seed}"]["last"]["val"]["kappa"]
                               for seed in (3, 4, 5)]) for name in ("the-recipe", "scaled"))
    gain, error = (whole - scaled).mean(), (whole - scaled).std(ddof=1) / 3**0.5
    half = student.ppf(0.975, 2) * error
    assert rows[2][3] == f"{scaled.mean():.3f}"
    assert rows[2][4].startswith(f"{scaled.std(ddof=1):.3f}")
    assert rows[2][5] == f"{gain:+.3f} ({gain - half:+.3f} to {gain + half:+.3f})"
    again = call(*map(str, given))
    assert again.returncode == 0 and "done " not in again.stdout


def test_bench_probe_reads_encoders_and_says_where_one_is_missing(trial_2d: Trial) -> None:
    given = ["bench/probe.py", "2d", "--", *trial_2d.flags(trial_2d.folder)]
    said = call(*given)
    assert said.returncode == 0, said.stderr
    baseline, rotation = (line.split(" | ") for line in said.stdout.splitlines()
                          if line.startswith(("| baseline", "| rotation")))
    assert baseline[3] == "0.000 |" and 0 < float(rotation[3].split()[0]) < 1
    assert -1 <= float(baseline[1]) == float(baseline[2]) <= 1
    assert "| pixels | " in said.stdout.split("| baseline")[0]
    images = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64)
    blocks = images.reshape(2, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    torch.testing.assert_close(probe.pixels(images), blocks.reshape(2, -1))
    said = call(*given, "--seeds", "1")
    assert said.returncode == 2 and "seed1: no encoder trained with these settings" in said.stderr


def test_bench_screen_scores_on_validation_and_says_what_was_learnt(trial_2d: Trial,
                                                                    tmp_path: Path) -> None:
    out = tmp_path / "screen.md"
    given = ["bench/choose/screen.py", "2d", "--out", out, "--", *trial_2d.flags(
        tmp_path, "--fractions", 50, "--seeds", 3, 4, "--draws", 2, "--workers", 1)]
    said = call(*map(str, given), "--", "--tasks", "baseline", "meanteacher",
                "--", "--tasks", "rotation", "--pretext-steps", "3")
    assert said.returncode == 0, said.stderr
    assert out.read_text() in said.stdout
    rows = {row[0]: row[1:] for row in ([cell.strip() for cell in line.strip("|").split("|")]
                                        for line in out.read_text().splitlines() if "| " in line)}
    folder = next((tmp_path / "results/screen/2d").iterdir())

    def kappas(arm: str) -> np.ndarray:
        found = [json.loads(path.read_text())["val"]["kappa"] for path in sorted(
            folder.glob(f"tune/{arm}/fraction050/seed*/*/scores.json"))]
        assert len(found) == 4  # two seeds, two draws
        return np.array(found)
    assert not list(folder.glob("finetune"))  # what would look at test cases
    assert rows["baseline"][1] == f"{kappas('baseline').mean():.3f} itself"
    for arm in ("rotation", "meanteacher"):
        gains = kappas(arm) - kappas("baseline")
        assert rows[arm][1] == f"{gains.mean():+.3f} ({gains.std(ddof=1) / 2:.3f})"
    encoders = sorted(folder.glob("pretrain/rotation/seed*"))
    for encoder in encoders:  # the group's own flag reached its arm
        about = json.loads((encoder / "config.json").read_text())["identity"]
        assert about["settings"]["PRETEXT_STEPS"] == 3
    pretext = [json.loads((encoder / "scores.json").read_text()) for encoder in encoders]
    assert len(pretext) == 2
    reached = np.mean([one["score"]["accuracy"] for one in pretext])
    assert rows["rotation"][0].startswith(f"accuracy {reached:.3f} (chance 0.250")
    assert ("not learnt" in rows["rotation"][0]) == (reached < 0.25 + 0.1 * 0.75)
    assert rows["meanteacher"][0] == rows["meanteacher"][2] == "" and int(rows["rotation"][2]) >= 0
    lost = call(*map(str, [*given[:4], "--", *trial_2d.flags(tmp_path, "--tasks", "rotation")]))
    assert lost.returncode == 2 and "the baseline is missing" in lost.stderr
