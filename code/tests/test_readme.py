"""The front page: its commands run, its flags and links exist, its numbers stand in the records."""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from commands import SHORT, TINY, alone, call

from common.runs import checkpoint
from common.schedule import grid
from common.settings import from_flags

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "code/README.md", "code/bench/README.md", "results/published/README.md",
         "results/published/earlier.md"]
LINES = 160


def text() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def blocks() -> list[list[str]]:
    """The command blocks, without comments; those that need setup.sh are left out."""
    found: list[list[str]] = [[]]
    for line in text().splitlines():
        if line.startswith("    "):
            found[-1].append(line.split(" #")[0].strip())
        elif found[-1]:
            found.append([])
    return [block for block in found if block and not any("setup.sh" in line for line in block)]


def commands() -> list[tuple[str, list[str]]]:
    """(script, flags) of every line of these blocks."""
    lines = [shlex.split(line) for block in blocks() for line in block]
    assert all(words[0] == "venv/bin/python" for words in lines), lines
    return [(words[1].removeprefix("code/"), words[2:]) for words in lines]


def exp_of(tree: str) -> ModuleType:
    with alone(tree):
        return importlib.import_module("exp")


def test_every_command_block_runs(scans: Path, photographs: Path, tmp_path: Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    exp: Any = exp_of("2d")
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "encoder.pt", exp.model.Encoder([1, 1, 1, 1], 4).state_dict())
    places = {"my_scans": str(scans), "my_images": str(photographs),
              "mine=encoder.pt": f"mine={tmp_path / 'encoder.pt'}"}
    results = ["--results", str(tmp_path / "results")]
    assert len(commands()) >= 8
    for script, words in commands():
        tree = script[:2]
        flags = [places.get(word, word) for word in words]
        if script.endswith("exp.py"):
            short = [*TINY[tree], *SHORT[:SHORT.index("--tasks")], "--seeds", "0"]
            if "--tune" in words:  # into results of its own, or those of the others would be old
                short += ["--finetune-epochs", "3", "--tune-seeds", "9"]
            flags += [*short, "--fractions", "100", "--cache", str(tmp_path / "cache")]
            if "--tasks" not in flags:
                flags += ["--tasks", "baseline", "rotation"]
        elif script.endswith(("predict.py", "export.py")):
            dataset = {"3d": "ctphantom", "2d": "fundusphantom"}[tree]
            new = {"3d": scans / "imagesTs", "2d": photographs / "test_images"}[tree]
            flags = [str(tmp_path / re.sub("my_scans|my_images", dataset, word))
                     if "results/" in word else {"new_scans": str(new), "new_images": str(new),
                           "out": str(tmp_path / script), "encoder": str(tmp_path / script)
                           }.get(word, word) for word in words]
            result = call(script, *flags)
            assert result.returncode == 0, (script, flags, result.stderr)
            continue
        result = call(script, *flags, *(["--results", str(tmp_path / "tuned")]
                                        if "--tune" in words else results))
        assert result.returncode == 0, (script, flags, result.stderr)
    names = {path.name for path in (tmp_path / "results").glob("*.png")}
    for table_row in re.findall(r"^\| `(\w+)_<dataset>\.png`", text(), re.M):
        if table_row == "exchange":  # takes several fractions: test_rates.py
            continue
        assert any(name.startswith(f"{table_row}_") for name in names), table_row
    assert list((tmp_path / "results/published").glob("*-mine/records.json.gz"))


def test_every_commands_own_flags_pass_the_checks() -> None:
    for script, words in commands():
        if script.endswith("exp.py"):
            exp: Any = exp_of(script[:2])
            settings = from_flags(vars(exp), words)
            settings.ENCODER = []
            settings.TASKS = [task for task in settings.TASKS if task != "mine"]
            grid.check(settings, exp.TREE)


def test_constants_and_flags_that_are_named_exist() -> None:
    known = {name for tree in ("3d", "2d") for name in vars(from_flags(vars(exp_of(tree)), []))}
    for page in PAGES[:2]:
        content = (ROOT / page).read_text(encoding="utf-8")
        named = set(re.findall(r"\b([A-Z]+_[A-Z_]+)\b", content)) - {
            "TORCH_INDEX", "CUDA_VISIBLE_DEVICES", "SLURM_SUBMIT_DIR", "PRETEXT_"}
        assert named <= known, named - known
        flags = {flag.upper().replace("-", "_") for flag in
                 re.findall(r"(?<![\w-])--([a-z][a-z-]+)", content)}
        others = {"RECORDS", "TARGET", "PUBLISH", "PUBLISHED", "RESULTS", "HELP", "MEASURE",
                  "STANDALONE", "NPROC_PER_NODE", "MAX_RESTARTS", "CPUS_PER_TASK",
                  "KILL_ON_BAD_EXIT", "NODES",
                  "NTASKS_PER_NODE", "GPUS_PER_NODE", "MEM", "TIME", "REQUEUE"}
        others |= {f"NO_{name}" for name in known}
        helps = [call(f"{tree}/{name}.py", "--help").stdout for tree in ("3d", "2d")
                 for name in ("predict", "export")]
        others |= {flag.upper() for said in helps for flag in re.findall(r"--([a-z]+)", said)}
        assert flags - others <= known, flags - others - known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]*)[^)]*\)", (ROOT / page).read_text(encoding="utf-8")):
        assert target.startswith("http") or not target or (folder / target).exists(), target


def test_the_page_is_short() -> None:
    assert len(text().splitlines()) <= LINES


def test_numbers_of_the_answer_stand_in_the_records() -> None:
    """Two digits behind the point are those of the tables that graph.py drew."""
    answer = text().split("## What was found so far")[1].split("\n## ")[0]
    published = ROOT / "results/published"
    drawn = "\n".join(path.read_text(encoding="utf-8") for path in
                      [*published.glob("**/train_*.md"), *published.glob("**/README.md")])
    for number in re.findall(r"(?<![\d.])[+-]?\.(\d+)", answer):
        found = re.search(rf"(?<!\d)0?\.{number}", drawn)
        rounded = any(f"{float(value):.{len(number)}f}".endswith(f".{number}")
                      for value in re.findall(r"\d?\.\d{3}", drawn))
        assert found or rounded, number
