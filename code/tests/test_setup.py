import os
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "setup.sh"


def setup(*arguments: str, script: Path = SETUP, **environment: str
          ) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", str(script), *arguments], capture_output=True, text=True,
                          check=False, cwd="/", env={**os.environ, **environment})


def test_it_parses_and_stops_at_errors_from_the_first_line() -> None:
    assert subprocess.run(["bash", "-n", str(SETUP)], check=False).returncode == 0
    assert SETUP.read_text().splitlines()[1] == "set -euo pipefail"
    assert os.access(SETUP, os.X_OK)


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["help"], 0, "./setup.sh demo"), (["nonsense"], 2, "unknown command nonsense"),
    (["data"], 2, "needs a name")])
def test_arguments(arguments: list[str], status: int, message: str) -> None:
    result = setup(*arguments)
    assert result.returncode == status and message in result.stdout + result.stderr


def test_an_unusable_python_is_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "setup.sh"
    copy.write_text(SETUP.read_text())
    (tmp_path / "requirements.txt").write_text("torch==2.14.1\n")
    result = setup("demo", script=copy, PYTHON="/nowhere/python")
    assert result.returncode == 2 and "PYTHON=" in result.stderr
    assert not (tmp_path / "venv").exists()
