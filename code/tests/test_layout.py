"""The house: imports point one way, and what draws figures needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

CODE = Path(__file__).resolve().parents[1]
SIBLINGS = {"loader", "pretext", "model", "phantom", "exp", "graph"}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_imports_point_one_way() -> None:
    for file in (CODE / "common").glob("*.py"):
        assert not imported(file) & SIBLINGS, f"{file.name} imports a tree"
    for tree in ("2d", "3d"):
        for file in (CODE / tree).glob("*.py"):
            allowed = {"exp": SIBLINGS - {"exp", "graph"}}.get(file.stem, set())
            assert not imported(file) & (SIBLINGS - allowed), f"{tree}/{file.name}"


def test_no_package_file_shadows_the_standard_librarys_code() -> None:
    for folder in (CODE, CODE / "2d", CODE / "3d", CODE / "tests"):
        assert not (folder / "__init__.py").exists()


def test_files_are_short() -> None:
    for file in CODE.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 350, file


def test_what_draws_figures_imports_where_torch_cannot_be() -> None:
    program = ("import sys; sys.modules['torch'] = None; sys.path[:0] = sys.argv[1:]\n"
               "import common.records, common.stats, common.plot, common.splits, common.settings\n"
               "import common.reporting, graph")
    subprocess.run([sys.executable, "-c", program, str(CODE), str(CODE / "3d")], check=True)
