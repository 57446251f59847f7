"""A clone of the repository whose Python and pip are stand-ins; for test_setup.py."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = [f"{script} --demo" for script in ("3d/exp.py", "2d/exp.py", "3d/graph.py", "2d/graph.py")]
CHECKS = ["ruff", "mypy", "mypy", "mypy", "pytest"]  # mypy: common, 3d, 2d
TOOLS = ("bash", "cat", "cp", "dirname", "grep", "mkdir", "mv", "rm", "sed", "tail", "tr")
CPU, CUDA = "https://index/cpu", "https://index/cuda"

# Python VERSION, run as `python -c ...`, `-m venv --clear DIR`, `-m pip install ...`, or anything
# else, which is logged. Like pip, it takes any build of torch for the wanted one unless forced;
# venv/build holds the index of torch's build. STUB_FAILS, a pattern of arguments, fails with
# STUB_SAYS; torch of a build that matches STUB_BROKEN cannot be imported.
STUB = r"""#!/usr/bin/env bash
venv="$(dirname "$0")/.."
case "$*" in ${STUB_FAILS:-none})
    echo "$*" >>"$STUB_LOG"
    printf '%b\n' "$STUB_SAYS"
    exit 1
esac
case "$1 $2" in
    "-c import torch"*)
        echo "import torch" >>"$STUB_LOG"
        case "$(cat "$venv/build")" in ${STUB_BROKEN:-none})
            printf 'Traceback:\nRuntimeError: operator torchvision::nms does not exist\n' >&2
            exit 1
        esac
        ;;
    "-c "*)
        exec REAL -SE -c "import sys
sys.version_info, sys.version, sys.base_prefix = (VERSION_TUPLE), 'VERSION (x)', 'HOME'
sys.modules['pip'] = sys
$2"
        ;;
    "-m venv")
        echo "venv VERSION" >>"$STUB_LOG"
        rm -rf "$4"
        mkdir -p "$4/bin"
        cp "$0" "$4/bin/python"
        ;;
    "-m pip")
        index=default line=""
        while [ $# -gt 0 ]; do
            case "$1" in
                -m | pip | install | --disable-pip-version-check | --quiet) ;;
                --index-url) index="$2"; line="$line $1 $2"; shift ;;
                -r) line="$line $(grep -o '^[^ #]*' "$2" | tr '\n' ' ')"; shift ;;
                *) line="$line $1" ;;
            esac
            shift
        done
        echo "pip $line" >>"$STUB_LOG"
        if [[ "$line" == *torch==* ]] &&
            { [ ! -e "$venv/build" ] || [[ "$line" == *--force-reinstall* ]]; }; then
            echo "$index" >"$venv/build"
        fi
        ;;
    *) echo "${*/#*code\//}" >>"$STUB_LOG" ;;
esac
"""


class Clone:
    """A fresh clone, at a path with a space, on a machine with a driver and Python 3.11."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin = folder / "a clone", folder / "bin"
        self.log, self.build = folder / "log", self.root / "venv" / "build"
        self.requirements = self.root / "requirements.txt"
        for name in ("3d", "2d", "common", "tests"):
            (self.root / "code" / name).mkdir(parents=True)
        for name in ("requirements.txt", "code/tests/requirements.txt"):
            shutil.copy(ROOT / name, self.root / name)
        self.driver = folder / "driver"
        self.driver.touch()
        (self.root / "setup.sh").write_text((ROOT / "setup.sh").read_text().replace(
            "/proc/driver/nvidia/version", str(self.driver)).replace("nvidia-smi", "no-smi"))
        self.bin.mkdir()
        for tool in TOOLS:  # and no other: no Python but the stand-ins can be found
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.python("python3.11", "3.11.7")

    def python(self, name: str, version: str) -> Path:
        file = self.bin / name
        file.write_text(STUB.replace("REAL", f"'{sys.executable}'").replace(
            "VERSION_TUPLE", version.replace(".", ", ")).replace("VERSION", version).replace(
            "HOME", f"/home of {version}"))
        file.chmod(0o755)
        return file

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """One call; the log afterwards is of this call alone."""
        self.log.write_text("")
        return subprocess.run(
            ["bash", str(self.root / "setup.sh"), *arguments], capture_output=True, text=True,
            check=False, cwd="/", env={"PATH": str(self.bin), "STUB_LOG": str(self.log),
                                       **environment})

    def done(self, *arguments: str, **environment: str) -> list[str]:
        """A call that succeeds and says nothing on stderr: what it did."""
        result = self.run(*arguments, **environment)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        return self.did()

    def did(self) -> list[str]:
        return self.log.read_text().splitlines()

    def pip(self) -> list[str]:
        return [line for line in self.did() if line.startswith("pip")]
