"""The house: imports point one way, rooms and files are small, and drawing needs no torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = Path(__file__).resolve().parents[1]
SIBLINGS = {"loader", "pretext", "model", "phantom", "exp", "graph", "predict", "export"}
DOOR = {"errors", "files", "settings", "constants", "arms"}
# Which rooms of common/, or files in them, a room may import beside itself and the door.
ALLOWED = {
    "door": set(),
    "machine": set(),
    "data": {"machine"},
    "tasks": {"machine"},
    "downstream": {"tasks", "machine"},
    "stats": set(),
    "runs": {"tasks", "downstream", "data", "machine", "stats"},
    "schedule": {"runs", "tasks", "downstream", "data", "machine", "stats", "track"},
    "track": {"runs.records"},
    "report": {"runs.records", "stats"},
    "predict": {"runs", "tasks", "data", "machine"},
    "export": {"runs"},
}
TOP = {".ci", ".gitignore", "LICENSE", "README.md", "code", "requirements.txt", "results",
       "setup.sh"}  # of the repository
MOST_FILES, MOST_LINES, MOST_ARGUMENTS = 12, 350, 5


def imported(file: Path) -> set[str]:
    """Full names of the modules a file imports, and of what it imports from them."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str:
    """The room of common/ that a name such as "common.schedule.grid.run" lies in."""
    part = name.split(".")[1]
    return "door" if part in DOOR else part


def python_files() -> list[Path]:
    return [file for file in CODE.rglob("*.py") if "tests" not in file.parts]


def test_imports_point_one_way() -> None:
    for file in (CODE / "common").rglob("*.py"):
        found = imported(file)
        assert not {name.split(".")[0] for name in found} & SIBLINGS, f"{file} imports a tree"
        here = room(".".join(file.relative_to(CODE).with_suffix("").parts))
        for name in found:
            if not name.startswith("common.") or room(name) in ("door", here):
                continue
            assert here != "door" and any(
                f"{name}.".startswith(f"common.{known}.") for known in ALLOWED[here]), (
                f"{file.relative_to(CODE)} imports {name}")


def test_siblings_of_a_tree_and_the_trees_do_not_meet() -> None:
    for tree in ("2d", "3d"):
        for file in (CODE / tree).glob("*.py"):
            allowed = {"exp": SIBLINGS - {"exp", "graph", "predict", "export"},
                       "predict": {"loader", "model"},
                       "export": {"loader", "model"}}.get(file.stem, set())
            found = {name.split(".")[0] for name in imported(file)}
            assert not found & (SIBLINGS - allowed), f"{tree}/{file.name}"


def test_no_package_file_shadows_the_standard_librarys_code() -> None:
    for folder in (CODE, CODE / "2d", CODE / "3d", CODE / "tests"):
        assert not (folder / "__init__.py").exists()
    assert not list((CODE / "common").rglob("__init__.py"))


def test_no_file_is_named_like_a_module_of_the_standard_library() -> None:
    for file in CODE.rglob("*.py"):
        assert file.stem not in sys.stdlib_module_names, file


def test_scripts_find_our_modules_before_they_import_them() -> None:
    for file in python_files():
        lines = file.read_text(encoding="utf-8").splitlines()
        if not any(line.startswith('if __name__ == "__main__"') for line in lines):
            continue
        path = [n for n, line in enumerate(lines) if line.startswith("sys.path.insert")]
        ours = [n for n, line in enumerate(lines)
                if line.startswith(("from common", "from bench", "import loader"))]
        assert path and path[0] < ours[0], file
    for name in ("download", "aptos"):  # as setup.sh starts them, from anywhere
        done = subprocess.run([sys.executable, str(CODE / f"common/data/{name}.py"), "--help"],
                              cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_nothing_else_lies_at_the_top() -> None:
    """Such as what a command of the README has written there."""
    listed = subprocess.run(["git", "ls-files"], cwd=CODE.parent, capture_output=True, text=True,
                            check=False).stdout.splitlines()
    assert {name.partition("/")[0] for name in listed} <= TOP


def test_files_and_rooms_are_small() -> None:
    for file in CODE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, file
    for folder in {file.parent for file in python_files()}:
        files = [file for file in folder.iterdir() if file.is_file()]
        assert len(files) <= MOST_FILES, f"{folder}: {len(files)} files"


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(CODE)))
def test_no_function_takes_more_than_five_positional_arguments(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            count = len([name for name in names if name not in ("self", "cls", "ctx")])
            assert count <= MOST_ARGUMENTS, f"{file}:{node.lineno}: {node.name} takes {count}"


def test_what_draws_figures_imports_where_torch_cannot_be() -> None:
    modules = [".".join(file.relative_to(CODE).with_suffix("").parts)
               for file in (CODE / "common/report").rglob("*.py")]
    program = ("import importlib, sys; sys.modules['torch'] = None; sys.path[:0] = sys.argv[1:3]\n"
               "for name in sys.argv[3:]: importlib.import_module(name)")
    subprocess.run([sys.executable, "-c", program, str(CODE), str(CODE / "3d"), *modules, "graph",
                    "common.runs.records", "common.data.splits"], check=True)


def test_code_names_no_file_of_ours_that_is_not_there() -> None:
    there = {file.name for file in CODE.rglob("*") if file.is_file()}
    for file in python_files():
        text = file.read_text(encoding="utf-8")
        named = re.findall(r"(?<![\w<*/.{}-])([a-z_]+\.py)\b", text)
        assert not set(named) - there, f"{file.relative_to(CODE)} names {set(named) - there}"
