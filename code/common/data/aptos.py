"""Fetch the photographs of APTOS 2019 from Kaggle into a folder.

    python code/common/data/aptos.py --to data/fundus

Takes <competition>.zip beside the folder if it is there; else downloads it with the kaggle package
and a token from KAGGLE_API_TOKEN, ~/.kaggle/access_token, or kaggle.json (in ~/.kaggle or in the
repository). The folder appears whole or not at all.
"""

import argparse
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.errors import InputError, exit_status
from common.files import ROOT

COMPETITION = "aptos2019-blindness-detection"
PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}"
WANTED = ("train.csv", "train_images/", "test_images/")  # of the archive's members


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch and unpack the competition's photographs."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder for the photographs")
    obtain(parser.parse_args(arguments).to.absolute(), download)


def obtain(target: Path, download: Callable[[Path], Path]) -> None:
    """Make ``target`` hold train.csv and the images; nothing is done where it already does.

    ``download`` puts the archive into a folder and returns its path. A downloaded archive is
    removed once unpacked, one that the user put there stays.
    """
    if (target / "train.csv").is_file() and (target / "train_images").is_dir():
        print(f"{target}: already there")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    archive = target.with_name(f"{COMPETITION}.zip")
    if archive.exists():
        unpack(archive, target)
    else:
        find_token(Path.home() / ".kaggle", ROOT, archive)
        beside = target.with_name(f".{COMPETITION}")  # a partial file lies here and is resumed
        beside.mkdir(exist_ok=True)
        download(beside).replace(archive)
        shutil.rmtree(beside)
        unpack(archive, target)
        archive.unlink()
    print(f"{target}: complete")


def find_token(home: Path, repository: Path, archive: Path) -> None:
    """Make sure that the kaggle package finds a token, readable by its owner only.

    Raises InputError that says how to get one, or that names a kaggle.json that is not one.
    """
    places = [home / "access_token", home / "kaggle.json", repository / "kaggle.json"]
    files = [file for file in places if file.is_file()]
    for file in files:
        file.chmod(0o600)
        if file.name == "kaggle.json":
            _check_key(file)
    if "KAGGLE_API_TOKEN" in os.environ or {"KAGGLE_USERNAME", "KAGGLE_KEY"} <= os.environ.keys():
        return
    if not files:
        raise InputError(
            "no Kaggle token found. Open https://www.kaggle.com/settings, under API click "
            f"'Generate New Token' and save it as {home / 'access_token'} (or set "
            f"KAGGLE_API_TOKEN); open {PAGE}/rules and click 'I Understand and Accept'; then give "
            f"the same command again. Or download the zip from {PAGE}/data and put it at {archive}")
    if files == [repository / "kaggle.json"]:
        os.environ["KAGGLE_CONFIG_DIR"] = str(repository)


def _check_key(file: Path) -> None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict) or not {"username", "key"} <= content.keys():
        raise InputError(f"{file}: expected JSON with username and key; download it again from "
                         "https://www.kaggle.com/settings (API, 'Create Legacy API Key')")


def download(folder: Path) -> Path:
    """Download the competition's archive with the kaggle package, resuming a partial one."""
    try:
        import requests
        from kaggle.api.kaggle_api_extended import KaggleApi
    except ImportError as error:
        raise InputError(f"the kaggle package cannot be used ({error}); ./setup.sh data fundus "
                         "installs it") from None
    try:
        api = KaggleApi()
        api.authenticate()
        api.competition_download_files(COMPETITION, path=str(folder), quiet=False)
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        raise InputError(explain(status)) from None
    except requests.RequestException as error:
        raise InputError(f"Kaggle cannot be reached ({type(error).__name__}); check the network "
                         "and give the same command again") from None
    except SystemExit:
        raise InputError(explain(401)) from None
    return next(folder.glob("*.zip"))


def explain(status: int) -> str:
    """What to do about an answer of Kaggle's servers."""
    if status == 403:
        return (f"Kaggle answers 403: the rules are not accepted yet. Open {PAGE}/rules, log in, "
                "click 'I Understand and Accept', then give the same command again")
    if status == 401:
        return ("Kaggle does not accept the token. Open https://www.kaggle.com/settings, under "
                "API click 'Generate New Token', replace the old one, then give the same command "
                "again")
    return f"Kaggle answers {status} for {PAGE}; try later with the same command"


def unpack(archive: Path, target: Path) -> None:
    """Unpack to a temporary folder, then rename; a bad archive is kept aside as <archive>.bad."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist()
                       if member.filename.startswith(WANTED)]
            _check_members(archive, members)
            for member in members:
                content.extract(member, partial)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        bad = archive.with_name(f"{archive.name}.bad")
        archive.replace(bad)
        raise InputError(f"{archive}: not a sound zip file ({error}); kept as {bad.name}, not "
                         "unpacked; give the same command again") from None
    if target.is_dir() and not any(target.iterdir()):
        target.rmdir()
    if target.exists():
        shutil.rmtree(partial)
        raise InputError(f"{target}: holds something else than the competition's files; move it "
                         "away and give the same command again")
    partial.rename(target)


def _check_members(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """All that is wanted is there, stays below the folder, and fits on the disk."""
    names = [member.filename for member in members]
    for name in names:
        if ".." in Path(name).parts:
            raise InputError(f"{archive}: member {name} lies outside the folder; refused, nothing "
                             "unpacked")
    if "train.csv" not in names or not any(name.startswith("train_images/") for name in names):
        raise InputError(f"{archive}: holds no train.csv and train_images; not the archive of "
                         f"{COMPETITION}, move it away")
    needed, free = sum(member.file_size for member in members), shutil.disk_usage(
        archive.parent).free
    if needed > free:
        raise InputError(f"{archive.parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB "
                         "are free; make room and start again")


if __name__ == "__main__":
    sys.exit(exit_status(main))
