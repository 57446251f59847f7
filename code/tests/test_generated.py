"""What both trees' generated sets share: whole or nothing, the same from the same arguments."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from common.errors import InputError

ASKED = {"labelled": 6, "unlabelled": 2, "size": 32}


@pytest.fixture(scope="module", params=["3d", "2d"])
def phantom(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"{request.param}.phantom")


@pytest.fixture
def folder(phantom: ModuleType, tmp_path: Path) -> Path:
    phantom.generate(tmp_path / "here/set", **ASKED)
    return tmp_path / "here/set"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def images(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files(folder).items()
            if name.endswith((".png", ".nii.gz")) and "._" not in name}


def test_a_case_depends_on_its_number_size_and_seed_only(phantom: ModuleType, folder: Path,
                                                         tmp_path: Path) -> None:
    phantom.generate(tmp_path / "more", **{**ASKED, "labelled": 8})
    one, two = images(folder), images(tmp_path / "more")
    assert all(two[name] == content for name, content in one.items())
    assert len({content for name, content in two.items() if "label" not in name}) == 10
    phantom.generate(tmp_path / "other", **ASKED, seed=1)
    assert not set(images(tmp_path / "other").values()) & set(one.values())


def test_nothing_is_left_beside_and_a_complete_set_is_kept(phantom: ModuleType,
                                                           folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    (folder / "cache").mkdir()  # of the loader: no reason to refuse the folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    phantom.generate(folder, **ASKED)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_an_empty_folder_is_filled(phantom: ModuleType, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    phantom.generate(tmp_path / "empty", **ASKED)
    assert images(tmp_path / "empty") == images(folder)


@pytest.mark.parametrize("other", [{"labelled": 5}, {"size": 33}, {"seed": 1}])
def test_other_arguments_are_refused(phantom: ModuleType, folder: Path,
                                     other: dict[str, int]) -> None:
    before = files(folder)
    with pytest.raises(InputError, match="delete") as refusal:
        phantom.generate(folder, **{**ASKED, **other})
    assert str(folder) in str(refusal.value) and "\n" not in str(refusal.value)
    assert files(folder) == before


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', '{"files": ["x"]}'])
def test_a_foreign_folder_is_refused(phantom: ModuleType, tmp_path: Path, content: str) -> None:
    (tmp_path / "generated.json").write_text(content)
    with pytest.raises(InputError, match="delete"):
        phantom.generate(tmp_path, **ASKED)
    assert files(tmp_path) == {"generated.json": content.encode()}


def test_an_incomplete_set_and_a_file_in_the_way_are_refused(phantom: ModuleType,
                                                             folder: Path) -> None:
    (folder / next(iter(images(folder)))).unlink()
    with pytest.raises(InputError, match="complete"):
        phantom.generate(folder, **ASKED)
    (folder.parent / "file").write_text("mine")
    with pytest.raises(InputError, match="delete"):
        phantom.generate(folder.parent / "file", **ASKED)


def test_an_interrupted_run_leaves_nothing(phantom: ModuleType, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom, "make_case", stop)
    with pytest.raises(KeyboardInterrupt):
        phantom.generate(tmp_path / "set", **ASKED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"labelled": 0}, {"labelled": 5001}, {"unlabelled": -1},
                                   {"size": 8}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(phantom: ModuleType, tmp_path: Path,
                                            wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="out of range"):
        phantom.generate(tmp_path / "set", **{**ASKED, **wrong})
