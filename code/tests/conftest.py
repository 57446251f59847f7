"""What the tests share: code/ on the path, tiny generated data sets, and a finished grid of each.

The whole suite runs in WORKERS processes, a file in one of them; a file that is named, and tests
that are slow or need a GPU, in this one.
"""

import importlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from commands import Trial

CODE = Path(__file__).resolve().parents[1]
WORKERS = 4  # of the whole suite, on two cores: some tests only wait
for folder in (CODE, CODE / "3d", CODE / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started in a shell's background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or no command would hear Ctrl-C


@pytest.hookimpl(optionalhook=True)  # without xdist: one process
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    whole = config.args_source is not pytest.Config.ArgsSource.ARGS
    return WORKERS if whole and "not slow" in config.getoption("markexpr") else 0


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch  # not above: the process that hands out the files needs none

    torch.set_num_threads(1)  # as the runs do; on shared cores more threads wait for each other


@pytest.fixture(scope="module", params=["3d", "2d"])
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A tree's exp.py, its neighbours under their bare names meanwhile."""
    with importlib.import_module("commands").alone(request.param):
        yield importlib.import_module("exp")


@pytest.fixture(scope="session")
def trial_3d(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> "Trial":
    """A tiny 3D experiment, finished; to be copied, not changed."""
    return importlib.import_module("commands").finish("3d", scans, tmp_path_factory.mktemp("3d"))


@pytest.fixture(scope="session")
def trial_2d(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> "Trial":
    """A tiny 2D experiment, finished; to be copied, not changed."""
    return importlib.import_module("commands").finish("2d", photographs,
                                                      tmp_path_factory.mktemp("2d"))


@pytest.fixture(params=["3d", "2d"])
def trial(request: pytest.FixtureRequest) -> "Trial":
    """Both of them, one after the other."""
    made: Trial = request.getfixturevalue(f"trial_{request.param}")
    return made


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


@pytest.fixture(scope="session")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten labelled scans of four channels and four classes, as those of Task01_BrainTumour."""
    folder = tmp_path_factory.mktemp("data") / "Task01_BrainTumour"
    import nibabel as nib

    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    entries = []
    for number in range(10):
        centre = rng.uniform(9, 15, 3)
        away = np.linalg.norm(np.indices((24, 24, 24)).T - centre, axis=-1).T
        label = np.digitize(-away, [-6, -4, -2]).astype(np.uint8)  # nested: 1 outside, 3 inside
        weights = rng.uniform(20, 60, (4, 4)).cumsum(axis=1)       # channel, class
        volume = np.moveaxis(weights[:, label] + rng.normal(0, 5, (4, 24, 24, 24)), 0, -1)
        for part, voxels in (("imagesTr", volume.astype(np.float32)), ("labelsTr", label)):
            nib.save(nib.Nifti1Image(voxels, np.eye(4)),
                     folder / part / f"BRATS_{number:03d}.nii.gz")
        entries.append({"image": f"./imagesTr/BRATS_{number:03d}.nii.gz",
                        "label": f"./labelsTr/BRATS_{number:03d}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({
        "generated": True, "modality": dict(zip("0123", ("FLAIR", "T1w", "t1gd", "T2w"),
                                                strict=True)),
        "labels": dict(zip("0123", ("background", "edema", "non-enhancing tumor",
                                    "enhancing tumour"), strict=True)),
        "training": entries, "test": []}))
    return folder
