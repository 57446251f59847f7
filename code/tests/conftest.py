"""What the tests share: code/ on the path, and a tiny generated data set."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)  # as the runs do; on shared cores more threads wait for each other

CODE = Path(__file__).resolve().parents[1]
for folder in (CODE, CODE / "3d"):  # exp.py imports its siblings by their bare names
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty graded and two ungraded generated photographs in the APTOS layout."""
    folder = tmp_path_factory.mktemp("data") / "fundusphantom"
    importlib.import_module("2d.phantom").generate(folder, labelled=20, unlabelled=2, size=40)
    return folder


@pytest.fixture(scope="session")
def phantom() -> ModuleType:
    return importlib.import_module("3d.phantom")


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory, phantom: ModuleType) -> Path:
    """Ten labelled and two unlabelled generated scans in the MSD layout."""
    folder = tmp_path_factory.mktemp("data") / "Task00_CTPhantom"
    phantom.generate(folder, labelled=10, unlabelled=2, size=24)
    return folder
