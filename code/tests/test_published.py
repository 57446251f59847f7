"""One file a study: nothing is lost, runs are added and never changed, tables come out again."""

import gzip
import html
import importlib
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Result, Trial, alone, call
from drawn import caught, size, size_of

from common import settings
from common.arms import ORACLE, parts
from common.errors import InputError
from common.files import Json, differences, plain, write_text
from common.report import main, published
from common.runs import records
from common.runs.records import Records

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "published"
STUDIES = sorted(str(path.parent.relative_to(PUBLISHED))
                 for path in published.below(PUBLISHED))
MOST_FILES, MOST_BYTES = 120, 5_000_000  # of results/, in every clone
MOST_PAGE = 600_000  # bytes of a page


def text_of(path: Path) -> str:
    """The text of compressed records."""
    return gzip.decompress(path.read_bytes()).decode()


def of(trial: Trial) -> Records:
    """The records of a finished trial."""
    return records.read(trial.runs(trial.folder))


def part(whole: Records, holds: Callable[[Json], bool]) -> Records:
    """The finetuning runs of which something holds, and all pretraining."""
    return replace(whole, finetune=[run for run in whole.finetune if holds(run)])


def run_again(run: Json, **changed: Any) -> Json:
    """A copy of a run with something else in it."""
    return {**json.loads(json.dumps(run)), "validations": run["validations"], **changed}


def graph(trial: Trial, folder: Path, *more: object) -> Result:
    return call(f"{trial.tree}/graph.py", "--records", folder, *more)


def test_what_is_packed_is_read_again(trial: Trial, tmp_path: Path) -> None:
    whole, path = of(trial), tmp_path / "study" / published.NAME
    found = published.publish(whole, path)
    assert found == published.read(path) and found.folder == path.parent
    assert found.pretrain == whole.pretrain and len(found.finetune) == len(whole.finetune) == 4
    for new, old in zip(found.finetune, whole.finetune, strict=True):
        head = old["metric"]
        assert new == {**old, "val": {head: old["val"][head]},
                       "last": {"test": {head: old["last"]["test"][head]}}}
        assert new["seconds"] > 0 and new["provenance"]["torch"] and new["validations"][head]
    assert found.splits == {name: value for name, value in whole.splits.items()
                            if name not in published.LEFT_OUT}
    lines = text_of(path).splitlines()
    assert sum('"fraction":' in line for line in lines) == 4  # a run a line


def test_tables_and_figures_of_the_file_are_those_of_the_runs(trial: Trial,
                                                              tmp_path: Path) -> None:
    folder = trial.runs(trial.folder)
    published.publish(of(trial), tmp_path / "study" / published.NAME)
    texts = []
    for number, place in enumerate((folder, tmp_path / "study")):
        result = graph(trial, place, "--results", tmp_path / str(number))
        assert result.returncode == 0, result.stderr
        texts.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).iterdir()
                      if path.name.split("_")[0] in ("train", "difference", "learning")})
    assert len(texts[0]) == 5 and texts[0] == texts[1]


def test_records_of_an_earlier_version_are_drawn_and_added_to(trial_2d: Trial,
                                                              tmp_path: Path) -> None:
    whole, study = of(trial_2d), tmp_path / "study"
    plain, path = study / published.PLAIN, study / published.NAME
    write_text(plain, published.text(published.packed(part(whole, lambda run: run["seed"] == 0))))
    result = graph(trial_2d, tmp_path, "--results", tmp_path / "drawn")
    assert result.returncode == 0, result.stderr
    assert published.below(tmp_path) == [plain]
    merged = published.publish(whole, path)
    assert len(merged.finetune) == 4 and published.below(tmp_path) == [path]
    assert not plain.exists()  # its runs are in the other
    first = path.read_bytes()
    plain.write_text("what gunzip left")
    assert published.below(tmp_path) == [path]
    published.publish(whole, path)
    assert path.read_bytes() == first and plain.exists()


@pytest.mark.parametrize("cut", [slice(-9), slice(9), slice(1, None)])
def test_a_file_that_was_cut_off_is_named(cut: slice, trial_2d: Trial, tmp_path: Path) -> None:
    path = tmp_path / published.NAME
    published.publish(of(trial_2d), path)
    path.write_bytes(path.read_bytes()[cut])
    with pytest.raises(InputError, match=r"not a whole gzip file \(.*\); restore it") as error:
        published.read(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_arms_fractions_and_seeds_are_added_in_any_order(trial_3d: Trial, tmp_path: Path) -> None:
    whole = of(trial_3d)
    more = replace(whole, finetune=[one for run in whole.finetune for one in (
        run, run_again(run, seed=1), run_again(run, draw=1), run_again(run, draw=1, fold=2))])
    once, path = tmp_path / "once.json", tmp_path / "parts.json"
    published.publish(more, once)
    for holds in (lambda run: run["task"] == "rotation", lambda run: run["fraction"] == 50,
                  lambda run: run["seed"] == 1, lambda run: "fold" in run, lambda run: True):
        some = part(more, holds)  # what a run was told first does not matter either
        published.publish(replace(some, finetune=[dict(reversed(run.items()))
                                                  for run in some.finetune]), path)
    assert path.read_text() == once.read_text()
    assert {(run.get("draw"), run.get("fold")) for run in published.read(path).finetune} == {
        (0, 0), (1, 0), (1, 2)}


def test_a_run_that_is_there_with_another_content_is_refused(trial_2d: Trial,
                                                             tmp_path: Path) -> None:
    whole, path = of(trial_2d), tmp_path / published.NAME
    published.publish(whole, path)
    first, run = path.read_bytes(), whole.finetune[1]
    name = str(records.run_folder(Path(), run))
    other = {**run["identity"], "splits": "others"}
    for changed, what in ((run_again(run, steps=7), rf"steps: {run['steps']} -> 7"),
                          (run_again(run, identity=other), "identity.splits"),
                          (run_again(run, validations={"kappa": [(3, 0.5)]}), "validations.kappa"),
                          (run_again(run, seed=9, identity=other), "other settings")):
        with pytest.raises(InputError, match=what) as error:
            published.publish(replace(whole, finetune=[changed]), path)
        assert "publish under another NOTE" in str(error.value)
        assert name in str(error.value) or changed["seed"] == 9
        assert path.read_bytes() == first
    elsewhere = run_again(run, provenance={"commit": "another"}, seconds=0.1)
    published.publish(replace(whole, finetune=[elsewhere]), path)
    assert path.read_bytes() == first


def test_what_was_said_before_training_is_published_and_kept(trial_2d: Trial,
                                                            tmp_path: Path) -> None:
    whole, path = of(trial_2d), tmp_path / published.NAME
    plan = {"primary": {"arm": "rotation", "fraction": 50}, "power": []}
    published.publish(replace(whole, plan=plan), path)
    assert published.read(path).plan == plan
    assert published.publish(replace(whole, plan={}), path).plan == plan  # not lost
    seeds = whole.plan["seeds"]
    assert published.publish(whole, tmp_path / "other.json").plan == whole.plan == {"seeds": seeds}
    more = {"seeds": [*seeds, {"seeds": [5], "scores_then": 4}]}  # asked for since
    assert published.publish(replace(whole, plan=more), path).plan == {**plan, **more}
    other = {"seeds": [*more["seeds"], {"seeds": [6], "scores_then": 9}]}
    alone = {"seeds": other["seeds"][2:]}  # of another machine's folder
    assert published.publish(replace(whole, plan=alone), tmp_path / "other.json").plan == {
        "seeds": [*seeds, *alone["seeds"]]}
    assert published.publish(whole, path).plan == {**plan, **more}  # not lost
    tried = {"of": {"settings": {"LR": 1}}, "fractions": [2], "seeds": [9]}
    first, later = ({**tried, "arms": arms} for arms in (
        {"rpl": 1, "cpc": 2}, {"rpl": 3, "mae": 4}))
    published.publish(replace(whole, plan={"rates": first}), tmp_path / "rates.json")
    for other, arms in ((later, {"rpl": 1, "cpc": 2, "mae": 4}),  # what is there is kept
                        ({**later, "seeds": [8], "arms": {"jigsaw": 5}}, {
                            "rpl": 1, "cpc": 2, "mae": 4})):
        found = published.publish(replace(whole, plan={"rates": other}), tmp_path / "rates.json")
        assert found.plan["rates"] == {**tried, "arms": arms}
    published.publish(replace(whole, plan={}), tmp_path / "none.json")
    assert '"plan"' not in (tmp_path / "none.json").read_text()


def damaged(change: Callable[[Any], Any]) -> Callable[[str], str]:
    """Text of records.json -> the text after a change of its content."""
    def text(before: str) -> str:
        content = json.loads(before)
        change(content)
        return json.dumps(content)
    return text


@pytest.mark.parametrize(("change", "said"), [
    (lambda text: text[:-9], "not valid JSON"),
    (lambda text: "[1]", "not the records of a study"),
    (damaged(lambda content: content.update(format=2)), "of format 2, this code reads 1"),
    (damaged(lambda content: content.pop("tests")), "no 'tests'"),
    (damaged(lambda content: content["finetune_same"].pop("metric")), "no 'metric'"),
    (damaged(lambda content: content["finetune_same"].update(classes=3)), "classes of a run is 3"),
    (damaged(lambda content: content["finetune"][0].pop("task")), "no 'task'"),
    (damaged(lambda content: content["finetune"][0].update(seed="0")), "seed of a run is 0"),
    (damaged(lambda content: content["finetune"][0]["cases"]["predicted"].pop()), "shorter|longer"),
    (damaged(lambda content: content["finetune"][0]["cases"].pop("predicted")), "no 'predicted'"),
    (damaged(lambda content: content["pretrain_same"].update(chance=None)), "chance of a run"),
    (damaged(lambda content: content.update(pretrain=None)), "not the records of a study"),
])
def test_a_damaged_file_is_named_in_one_line(change: Callable[[str], str], said: str,
                                             trial_2d: Trial, tmp_path: Path) -> None:
    path = tmp_path / published.NAME
    published.publish(of(trial_2d), path)
    write_text(path, change(text_of(path)))
    with pytest.raises(InputError, match=said) as error:
        published.read(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert any(word in str(error.value) for word in ("restore it", "take the code"))


def test_all_studies_below_a_folder_are_drawn_by_the_graph_of_their_tree(
        trial_2d: Trial, trial_3d: Trial, tmp_path: Path) -> None:
    for trial in (trial_2d, trial_3d):
        published.publish(of(trial), tmp_path / trial.tree / published.NAME)
    for trial, other in ((trial_2d, trial_3d), (trial_3d, trial_2d)):
        with caught() as figures:
            result = graph(trial, tmp_path)
        assert result.returncode == 0 and f"{tmp_path / other.tree}: of the other" in result.stdout
        assert {path.parent for path in tmp_path.rglob("*.csv")} >= {tmp_path / trial.tree}
        assert all(trial.runs(trial.folder).name in name for name in figures)
        result = graph(trial, tmp_path / other.tree)
        assert result.returncode == 2 and "take the graph.py of the other tree" in result.stderr


@pytest.mark.parametrize("study", STUDIES)
def test_published_records_give_the_committed_tables_byte_for_byte(study: str,
                                                                   tmp_path: Path) -> None:
    folder = PUBLISHED / study
    metric = published.read(folder / published.NAME).finetune[0]["metric"]
    tree = importlib.import_module("2d.graph" if metric == "kappa" else "3d.graph").TREE
    with caught() as figures:
        main.run(tree, "", ["--records", str(folder), "--results", str(tmp_path)])
    drawn = sorted(tmp_path.glob("train_*"))
    assert {path.suffix for path in drawn} == {".md", ".csv"}
    for path in drawn:
        committed = folder / path.name
        assert path.read_bytes() == committed.read_bytes(), f"draw {committed.name} again"
    for name, figure in figures.items():
        rounded = zip(size_of(figure), size(folder / name), strict=True)  # inches times dots
        assert all(abs(one - other) <= 1 for one, other in rounded), f"draw {name} again"


@pytest.mark.parametrize("path", sorted(PUBLISHED.rglob("*.html")), ids=lambda path: path.stem)
def test_published_pages_say_what_the_tables_beside_them_say(path: Path) -> None:
    said = (path.parent / f"train_{path.stem}.md").read_text(encoding="utf-8")
    page = path.read_text(encoding="utf-8")
    plain = " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())  # no-break spaces too
    cells = {cell for line in said.splitlines() if line.startswith("| ")
             for cell in line.strip("| ").split(" | ") if " to " in cell and "(" in cell}
    paragraphs = said.split("## Reading\n\n")[1].split("\n\n")[0].split("\n")
    sentences = [one for words in paragraphs for one in words.removeprefix("- ").split(". ")]
    assert len(cells) > 20 and len(sentences) > 5
    for words in (*cells, *sentences):
        assert words in plain, f"draw {path.name} again: {words}"
    assert len(page) <= MOST_PAGE


COMMANDS = re.findall(r"^\| \[([\w-]+)\].*?`code/([23]d)/exp.py (--[^`]*)`",
                      (PUBLISHED / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
COMMANDS.append(("ctphantom-demo", "3d", "--demo"))  # ./setup.sh demo


@pytest.mark.parametrize(("study", "tree", "flags"), COMMANDS, ids=[one[0] for one in COMMANDS])
def test_the_command_of_a_study_gives_the_settings_of_its_records(study: str, tree: str,
                                                                  flags: str) -> None:
    with alone(tree):
        exp = importlib.import_module("exp")
        asked = settings.from_flags(vars(exp), flags.split())
    read = published.read(PUBLISHED / study / published.NAME)
    for stage, runs in (("finetune", read.finetune), ("pretrain", read.pretrain)):
        for run in runs:
            part = "finetune" if ORACLE in parts(run["task"]) else stage
            changed = differences(run["identity"]["settings"], plain(asked.of_stage(part)))
            assert not changed, f"{stage} of {run['task']}"


def test_every_study_of_today_has_its_command() -> None:
    assert {study for study, _, _ in COMMANDS} >= {
        study for study in STUDIES if "paper" not in study}


def test_pages_of_every_real_study_are_there() -> None:
    assert {path.stem for path in PUBLISHED.rglob("*.html")} >= {
        "knee_kl", "lidcnodule", "hippocampus"}


def test_results_are_few_files_and_small() -> None:
    listed = subprocess.run(["git", "ls-files", "-z", "results"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout.split("\0")[:-1]
    sizes = {name: (ROOT / name).stat().st_size for name in listed if (ROOT / name).exists()}
    assert len(STUDIES) >= 5 and len(sizes) <= MOST_FILES
    assert sum(sizes.values()) <= MOST_BYTES, sorted(sizes.items(), key=lambda one: -one[1])[:9]
