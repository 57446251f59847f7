"""Fetching APTOS 2019: tokens, refusals, archives; no network is used."""

import json
import zipfile
from pathlib import Path

import pytest

from common.data import aptos
from common.data.aptos import COMPETITION, explain, find_token, obtain
from common.errors import InputError


def archive(path: Path, names: tuple[str, ...] = ("train.csv", "train_images/a.png",
                                                  "test_images/b.png", "test.csv")) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        for name in names:
            content.writestr(name, "id_code,diagnosis\n")
    return path


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")


def unreachable(folder: Path) -> Path:
    raise AssertionError("nothing should be downloaded")


def test_a_zip_put_into_data_is_unpacked_and_kept(tmp_path: Path) -> None:
    put = archive(tmp_path / f"{COMPETITION}.zip")
    obtain(tmp_path / "fundus", unreachable)
    assert {p.name for p in (tmp_path / "fundus").iterdir()} == {"train.csv", "train_images",
                                                                  "test_images"}
    assert put.exists()
    obtain(tmp_path / "fundus", unreachable)  # already there


def test_a_download_is_unpacked_and_removed(tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    obtain(tmp_path / "fundus", lambda folder: archive(folder / "any.zip"))
    assert [p.name for p in tmp_path.iterdir()] == ["fundus"]


def test_without_a_token_the_pages_to_open_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        obtain(tmp_path / "fundus", unreachable)
    for said in ("kaggle.com/settings", "Generate New Token", f"{COMPETITION}/rules",
                 f"{COMPETITION}.zip"):
        assert said in str(caught.value)
    assert "rules" in explain(403) and "token" in explain(401) and "500" in explain(500)


def test_tokens_are_found_and_their_permissions_tightened(tmp_path: Path) -> None:
    home, repository = tmp_path / "h", tmp_path / "r"
    home.mkdir(), repository.mkdir()
    key = repository / "kaggle.json"
    key.write_text(json.dumps({"username": "u", "key": "k"}))
    key.chmod(0o644)
    find_token(home, repository, tmp_path / "x.zip")
    assert key.stat().st_mode & 0o777 == 0o600
    assert aptos.os.environ.pop("KAGGLE_CONFIG_DIR") == str(repository)
    (home / "access_token").write_text("t")
    find_token(home, repository, tmp_path / "x.zip")
    assert (home / "access_token").stat().st_mode & 0o777 == 0o600
    assert "KAGGLE_CONFIG_DIR" not in aptos.os.environ
    key.write_text("{}")
    with pytest.raises(InputError, match=r"kaggle\.json: expected JSON with username"):
        find_token(home, repository, tmp_path / "x.zip")


@pytest.mark.parametrize(("names", "message"), [
    (("train.csv", "train_images/a.png", "train_images/../../evil"), "outside the folder"),
    (("sample_submission.csv",), "not the archive"),
])
def test_odd_archives_are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    archive(tmp_path / f"{COMPETITION}.zip", names)
    with pytest.raises(InputError, match=message):
        obtain(tmp_path / "fundus", unreachable)
    assert [p.name for p in tmp_path.iterdir()] == [f"{COMPETITION}.zip"]


def test_a_truncated_archive_is_kept_aside(tmp_path: Path) -> None:
    put = archive(tmp_path / f"{COMPETITION}.zip")
    put.write_bytes(put.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"kept as .*\.bad"):
        obtain(tmp_path / "fundus", unreachable)
    assert [p.name for p in tmp_path.iterdir()] == [f"{COMPETITION}.zip.bad"]
