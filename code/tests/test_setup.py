"""setup.sh's promises, with stand-ins for Python and pip: nothing is downloaded or installed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setup_clone import CHECKS, CPU, CUDA, DEMO, ROOT, Clone

from common.data import aptos
from common.errors import InputError


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def one_line(result: "subprocess.CompletedProcess[str]", *said: str, status: int = 2) -> None:
    assert result.returncode == status
    assert re.fullmatch(r"setup\.sh: .+\n", result.stderr), result.stderr  # . is no newline
    for part in said:
        assert part in result.stderr


def names(line: str) -> set[str]:
    """The packages that a logged call of pip asks for."""
    return {word.split("==")[0] for word in line.split() if "==" in word}


def test_it_parses_and_stops_at_errors_from_the_first_line() -> None:
    script = ROOT / "setup.sh"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    assert script.read_text().splitlines()[1] == "set -euo pipefail"
    assert os.access(script, os.X_OK)


def test_arguments(clone: Clone) -> None:
    result = clone.run("help")
    assert result.returncode == 0 and "./setup.sh demo" in result.stdout
    one_line(clone.run("nonsense"), "unknown command nonsense")
    one_line(clone.run("data"), "needs a name")
    assert clone.did() == []


def test_from_a_fresh_clone_to_the_demo(clone: Clone) -> None:
    did = clone.done("demo")
    assert did[0] == "venv 3.11.7"
    assert names(did[1]) == {"torch", "torchvision"} and "--no-deps" in did[1]
    assert {"torch", "numpy", "tqdm"} <= names(did[2])
    assert did[3:] == ["import torch", *DEMO]


def test_the_demo_says_what_it_runs_and_what_to_open(clone: Clone) -> None:
    lines = clone.run("demo").stdout.splitlines()
    said = [line for line in lines if "exp.py" in line]
    assert said == ["code/3d/exp.py --demo", "code/2d/exp.py --demo"]
    pages = [f"    {clone.root}/results/demo/{name}.html" for name in ("ctphantom",
                                                                      "fundusphantom")]
    assert lines[-2:] == pages and "a gain is not expected here" in lines[-4]


# Failing steps

@pytest.mark.parametrize(("command", "fails", "says", "said"), [
    ("demo", "-m venv*", "Not created because ensurepip is not\\navailable. Run:\\n\\n  x\\n",
     "apt install python3.11-venv"),
    ("demo", "-m venv*", "python3.11: No module named venv", "apt install python3.11-venv"),
    ("demo", "-m venv*", "Traceback\\nOSError: no room", "OSError: no room"),
    ("demo", "-m pip*", "ERROR: Could not find torch\\nERROR: No match for torch\\nhint: x",
     "ERROR: No match for torch"),
    ("demo", "-m pip* -r *", "ERROR: Exception:\\nTraceback:\\nTimeoutError: read", "TimeoutError"),
    ("test", "-m pip*wanted-test", "ERROR: No space left on device", "No space left"),
    ("data fundus", "-m pip*wanted-fundus", "ERROR: No space left on device", "No space left"),
], ids=["ensurepip", "no venv", "venv", "pip", "pip's traceback", "tests", "fundus"])
def test_a_step_that_fails_is_one_line_and_nothing_goes_on(
        clone: Clone, command: str, fails: str, says: str, said: str) -> None:
    result = clone.run(*command.split(), STUB_FAILS=fails, STUB_SAYS=says)
    one_line(result, said)
    assert clone.did()[-1].startswith(fails.split("*")[0])
    clone.done(*command.split())  # nothing half-made counts as installed
    assert clone.pip()


def test_a_venv_that_cannot_be_written_is_one_line(clone: Clone) -> None:
    clone.done("demo")
    (clone.root / "venv" / ".wanted-basis").mkdir()
    one_line(clone.run("demo", TORCH_INDEX=CPU), "cannot write into")


def test_an_experiment_that_fails_stops_the_demo(clone: Clone) -> None:
    result = clone.run("demo", STUB_FAILS="*3d/exp.py*", STUB_SAYS="error: x")
    assert result.returncode == 1
    assert not any("graph.py" in line for line in clone.did())


# PYTHON=

@pytest.mark.parametrize("version", ["3.10.13", "3.14.0"])
def test_other_versions_are_refused_in_one_line(clone: Clone, version: str) -> None:
    python = clone.python("python", version)
    one_line(clone.run("demo", PYTHON=str(python)), "no Python 3.11 to 3.13", "PYTHON=")
    one_line(clone.run("demo", PYTHON="/nowhere/python"), "/nowhere/python", "PYTHON=")
    assert not (clone.root / "venv").exists()


def test_an_unusable_python_leaves_the_venv_alone(clone: Clone) -> None:
    clone.done("demo")
    one_line(clone.run("demo", PYTHON="/nowhere/python"), "PYTHON=")
    assert clone.done("demo")[0] == "3d/exp.py --demo"


@pytest.mark.parametrize("version", ["3.12.1", "3.13.0"])
def test_the_other_supported_versions_are_taken(clone: Clone, version: str) -> None:
    assert clone.done("demo", PYTHON=str(clone.python("python", version)))[0] == f"venv {version}"


def test_another_python_remakes_the_venv_and_says_so(clone: Clone) -> None:
    clone.done("demo")
    python = str(clone.python("other python", "3.11.9"))  # a path with a space
    result = clone.run("demo", PYTHON=python)
    assert (result.returncode, result.stderr) == (0, "")
    [said] = [line for line in result.stdout.splitlines() if line.startswith("making")]
    assert "anew" in said and "3.11.7" in said and python in said
    assert clone.did()[0] == "venv 3.11.9" and len(clone.pip()) == 2
    assert clone.done("demo", PYTHON=python) == DEMO
    assert clone.done("demo") == DEMO  # and it stays
    assert clone.done("demo", PYTHON="python3.11")[0] == "venv 3.11.7"


def test_a_linked_environment_is_not_cleared(clone: Clone, tmp_path: Path) -> None:
    clone.done("demo")
    (clone.root / "venv").rename(tmp_path / "shared")
    (clone.root / "venv").symlink_to(tmp_path / "shared")
    clone.done("demo")
    one_line(clone.run("demo", PYTHON=str(clone.python("python", "3.12.1"))), "link")
    assert (tmp_path / "shared" / "build").exists()


# TORCH_INDEX=

def test_torch_index_changes_the_build_and_is_remembered(clone: Clone) -> None:
    clone.done("demo")
    assert clone.build.read_text() == "default\n"
    clone.done("demo", TORCH_INDEX=CPU)
    first, rest = clone.pip()
    assert clone.build.read_text() == f"{CPU}\n" and "--no-deps" in first
    assert f"--extra-index-url {CPU}" in rest and "numpy" in names(rest)  # the build's own needs

    assert clone.done("demo") == clone.done("demo", TORCH_INDEX=CPU) == DEMO
    clone.requirements.write_text(clone.requirements.read_text().replace("torch==", "torch==9"))
    clone.done("demo")
    assert f" --index-url {CPU} torch==9" in clone.pip()[0]

    clone.done("demo", TORCH_INDEX=CUDA)
    assert clone.build.read_text() == f"{CUDA}\n"
    clone.done("demo", TORCH_INDEX="")
    assert clone.build.read_text() == "default\n"
    assert clone.done("demo") == DEMO


def test_an_index_that_fails_changes_nothing(clone: Clone) -> None:
    clone.done("demo", TORCH_INDEX=CPU)
    result = clone.run("demo", TORCH_INDEX=CUDA, STUB_FAILS="-m pip*torch*", STUB_SAYS="ERROR: x")
    one_line(result, CUDA)
    clone.done("demo")
    assert clone.build.read_text() == f"{CPU}\n"
    clone.done("demo", TORCH_INDEX=CUDA)
    assert clone.build.read_text() == f"{CUDA}\n"


def test_an_index_of_which_the_build_came_but_not_the_rest_is_not_the_earlier_one(
        clone: Clone) -> None:
    clone.done("demo", TORCH_INDEX=CPU)
    one_line(clone.run("demo", TORCH_INDEX=CUDA, STUB_FAILS="-m pip* -r *", STUB_SAYS="ERROR: x"))
    assert clone.build.read_text() == f"{CUDA}\n"
    clone.done("demo", TORCH_INDEX=CPU)
    assert clone.build.read_text() == f"{CPU}\n"


def test_a_venv_made_anew_keeps_the_index(clone: Clone) -> None:
    clone.done("demo", TORCH_INDEX=CPU)
    other = {"PYTHON": str(clone.python("python", "3.12.1"))}
    one_line(clone.run("demo", **other, STUB_FAILS="-m pip*", STUB_SAYS="ERROR: no network"))
    clone.done("demo")
    assert clone.build.read_text() == f"{CPU}\n"


def test_a_build_put_there_by_hand_gives_way(clone: Clone) -> None:
    clone.done("demo")
    clone.build.write_text("by hand\n")
    (clone.root / "venv" / ".torch-index").unlink()  # as after a setup.sh that kept no memory
    clone.done("demo", TORCH_INDEX=CPU)
    assert clone.build.read_text() == f"{CPU}\n"


def test_without_a_gpu_the_way_to_cpu_wheels_is_one_line(clone: Clone) -> None:
    def hints(**environment: str) -> list[str]:
        shutil.rmtree(clone.root / "venv", ignore_errors=True)
        result = clone.run("demo", **environment)
        assert (result.returncode, result.stderr) == (0, "")
        return [line for line in result.stdout.splitlines() if "NVIDIA" in line]

    assert hints() == []  # a driver
    clone.driver.unlink()
    [said] = hints()
    assert "6 GB" in said and "TORCH_INDEX=URL" in said and "'Get started'" in said
    assert "://" not in said  # no index is named, which may move
    assert clone.build.read_text() == "default\n"  # advice, not an automatism
    assert hints(TORCH_INDEX=CPU) == []
    (clone.bin / "no-smi").write_text("")
    (clone.bin / "no-smi").chmod(0o755)
    assert hints() == []  # nvidia-smi


# import torch, torchvision

def test_an_import_that_fails_is_mended_from_the_default_index(clone: Clone) -> None:
    result = clone.run("demo", TORCH_INDEX=CPU, STUB_BROKEN="*cpu*")
    one_line(result, CPU, "torchvision::nms", "default index", status=0)
    assert clone.build.read_text() == "default\n"
    assert clone.did()[-1] == "2d/graph.py --demo"
    assert clone.done("demo", STUB_BROKEN="*cpu*") == DEMO


def test_builds_that_were_there_and_do_not_fit_are_mended(clone: Clone) -> None:
    (clone.root / "venv").mkdir()
    clone.done("demo")
    clone.build.write_text("by hand\n")
    (clone.root / "venv" / ".installed-basis").unlink()
    one_line(clone.run("demo", STUB_BROKEN="by hand"), "default index", status=0)
    assert clone.build.read_text() == "default\n"


def test_two_imports_that_fail_are_a_line_each(clone: Clone) -> None:
    result = clone.run("demo", TORCH_INDEX=CPU, STUB_BROKEN="*")
    assert result.returncode == 2
    first, second = result.stderr.splitlines()
    assert first.startswith("setup.sh: ") and "installing both from the default index" in first
    assert second.startswith("setup.sh: ") and "too" in second and "remove venv/" in second
    assert clone.did()[-1] == "import torch"
    assert clone.run("demo", STUB_BROKEN="*").returncode == 2  # not taken for installed


# What is installed when

def test_nothing_is_installed_twice(clone: Clone) -> None:
    clone.done("test")
    assert clone.done("demo") == DEMO
    clone.done("test")
    assert clone.pip() == []

    shutil.rmtree(clone.root / "venv")
    clone.done("demo")
    clone.done("test")
    [tests] = clone.pip()
    assert {"pytest", "ruff", "mypy"} <= names(tests) and "numpy" not in names(tests)


def test_a_changed_list_is_installed_and_no_other(clone: Clone) -> None:
    clone.done("test")
    tests = clone.root / "code" / "tests" / "requirements.txt"
    tests.write_text(f"{tests.read_text()}more==1\n")
    clone.done("test")
    [line] = clone.pip()
    assert "more" in names(line) and "numpy" not in names(line)

    clone.requirements.write_text(f"other==1\n{clone.requirements.read_text()}")
    clone.done("test")
    assert any("other" in names(line) for line in clone.pip())
    assert not any("more" in names(line) for line in clone.pip())


def test_kaggle_is_installed_for_fundus_only(clone: Clone) -> None:
    for command in ("demo", "test", "data Task04_Hippocampus"):
        clone.done(*command.split())
        assert not any({"kaggle", "six"} & names(line) for line in clone.pip())
    clone.done("data", "Task04_Hippocampus", "fundus")
    assert [names(line) for line in clone.pip()] == [{"kaggle", "six"}]
    assert clone.done()[0].startswith("common/data/download.py")  # all data, after data fundus

    shutil.rmtree(clone.root / "venv")
    clone.done()
    assert names(clone.pip()[-1]) == {"kaggle", "six"}


def test_pip_with_requirements_txt_gets_all() -> None:
    assert names((ROOT / "requirements.txt").read_text()) >= {
        "torch", "torchvision", "numpy", "nibabel", "scipy", "kaggle", "matplotlib", "tqdm",
        "scikit-learn"}


@pytest.mark.parametrize("missing", ["kaggle", "requests"])
def test_without_kaggle_one_line_says_what_installs_it(
        missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"^.*\./setup\.sh data fundus installs it$"):
        aptos.download(tmp_path)


# Lint, types, tests

def test_all_checks_run_and_arguments_go_to_pytest(clone: Clone) -> None:
    clone.done("demo")
    did = clone.done("test", "-k", "one  word")  # two if it were split, and a space less
    run = [line.split()[1] for line in did if line.startswith("-m")]
    assert run[0] == "ruff" and sorted(run) == sorted(CHECKS)  # types run beside the tests
    assert "-m pytest -k one  word" in did


@pytest.mark.parametrize(("fails", "failed"), [
    ("-m ruff*", "ruff"), ("-m mypy*", "mypy"), ("-m mypy*common*", "mypy"),
    ("-m pytest*", "pytest"), ("-m [rmp][uy]*", "ruff mypy pytest")])
def test_all_checks_run_and_what_failed_is_the_last_line(
        clone: Clone, fails: str, failed: str) -> None:
    result = clone.run("test", STUB_FAILS=fails, STUB_SAYS="a complaint")
    assert (result.returncode, result.stderr) == (1, f"setup.sh: failed: {failed}\n")
    run = [line.split()[1] for line in clone.did() if line.startswith("-m")]
    assert run[0] == "ruff" and sorted(run) == sorted(CHECKS)


# git

@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_data_and_results_are_ignored_but_for_published_ones(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "results").mkdir()
    ignored = ["data", "venv", "results/3d", "results/2d", "results/demo", *(
        f"results/{name}" for name in ("train_my_scans.png", "train_my_scans.md", "my_scans.html",
                                       "train_my_scans.csv", "learning_my_scans.png"))]
    for name in ignored:
        (tmp_path / name).symlink_to("elsewhere")
    kept = [f"results/published/mine/{name}" for name in ("train_a.png", "a.html",
                                                         "records.json.gz")]
    listed = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", *ignored, *kept],
                            capture_output=True, text=True, check=False).stdout
    assert listed.split() == ignored
