"""Whoever reads what a script says, or nobody: it is quiet and has the right status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).resolve().parents[1]
SAYS = f"""
import sys; sys.path.insert(0, {str(CODE)!r})
from common.errors import InputError, exit_status
def main():
    for _ in range(int(sys.argv[1])):
        print("S\\u00e4ule \\u809d")
    if len(sys.argv) > 2:
        raise InputError("\\u809d.nii: wrong")
sys.exit(exit_status(main))
"""


def shell(behind: str, *given: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the little script in a shell with ``behind`` after it."""
    return subprocess.run(["bash", "-c", f'"$0" -c "$@" {behind}', sys.executable, SAYS, *given],
                          capture_output=True, check=False, text=True, errors="replace",
                          env={**os.environ, **env})


def test_who_stops_reading_ends_it_without_a_word() -> None:
    done = shell("| head -1; exit ${PIPESTATUS[0]}", "100000")
    assert done.returncode == 141 and done.stderr == "" and done.stdout.count("\n") == 1


@pytest.mark.parametrize(("behind", "status"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0),
                                                ("</dev/null >&- 2>&- <&-", 0)])
def test_closed_streams_are_nowhere(behind: str, status: int) -> None:
    assert shell(behind, "3").returncode == status
    done = shell(behind, "3", "wrong")
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_letters_that_a_terminal_lacks_are_written_as_numbers() -> None:
    done = shell("", "1", "wrong", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and done.stdout == "S\\xe4ule \\u809d\n"
    assert done.stderr == "error: \\u809d.nii: wrong\n"


def test_graph_draws_whatever_a_notebook_has_set() -> None:
    done = subprocess.run([sys.executable, str(CODE / "3d/graph.py"), "--help"], text=True,
                          capture_output=True, check=False,
                          env={**os.environ, "MPLBACKEND": "no_such_backend"})
    assert done.returncode == 0 and done.stderr == ""
