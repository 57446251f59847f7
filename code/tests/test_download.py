"""The downloader against a server on the loopback address that truncates, corrupts, refuses."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from common.data import download
from common.errors import InputError

NAME = "Task04_Hippocampus"


def archive(members: dict[str, bytes], odd: tarfile.TarInfo | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if odd is not None:
            tar.addfile(odd)
    return out.getvalue()


GOOD = archive({f"{NAME}/dataset.json": b"{}", f"{NAME}/imagesTr/a.nii.gz": b"x" * 90000,
                f"{NAME}/imagesTr/._a.nii.gz": b"junk"})


class Server(BaseHTTPRequestHandler):
    content, mode, asked = GOOD, "good", 0

    def do_GET(self) -> None:
        type(self).asked += 1
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if self.mode == "refuse":
            self.send_error(403)
            return
        if self.mode == "ignore range":
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        end = start + 40000 if self.mode == "truncate" else len(self.content)
        self.wfile.write(self.content[start:end])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    handler = type("Handler", (Server,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{http.server_port}/{{task}}.tar"
    http.shutdown()


def get(folder: Path, url: str, content: bytes = GOOD, name: str = NAME) -> None:
    known = folder / "archives.json"
    md5 = hashlib.md5(content).hexdigest()
    known.write_text(json.dumps({"url": url, "md5": {NAME: md5, "Task07_Pancreas": "0"}}))
    download.main([name, "--archives", str(known), "--to", str(folder / "data")])


@pytest.mark.parametrize("mode", ["good", "truncate"])
def test_whole_or_in_pieces_it_arrives_and_is_not_fetched_twice(
        mode: str, server: tuple[type[Server], str], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    server[0].mode = mode
    get(tmp_path, server[1])
    folder = tmp_path / "data" / NAME
    assert (folder / "imagesTr/a.nii.gz").read_bytes() == b"x" * 90000
    assert not list(folder.rglob("._*")) and len(list((tmp_path / "data").iterdir())) == 1
    asked = server[0].asked
    get(tmp_path, server[1])
    assert server[0].asked == asked and "already there" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["good", "ignore range"])
def test_a_partial_file_is_resumed(mode: str, server: tuple[type[Server], str],
                                   tmp_path: Path) -> None:
    server[0].mode = mode
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{NAME}.tar.part").write_bytes(GOOD[:50000])
    get(tmp_path, server[1])
    assert (tmp_path / "data" / NAME / "dataset.json").exists()


def test_a_wrong_checksum_is_named_and_kept_aside(server: tuple[type[Server], str],
                                                  tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected; kept as .*bad, not unpacked"):
        get(tmp_path, server[1], content=b"other")
    assert [p.name for p in (tmp_path / "data").iterdir()] == [f"{NAME}.tar.bad"]


def test_refusal_and_no_network_are_said_plainly(server: tuple[type[Server], str], tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    server[0].mode = "refuse"
    with pytest.raises(InputError, match="answered 403"):
        get(tmp_path, server[1])
    with pytest.raises(InputError, match="cannot be reached"):
        get(tmp_path, "http://127.0.0.1:9/{task}.tar")


def odd_members() -> dict[str, bytes]:
    link = tarfile.TarInfo(f"{NAME}/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo(f"{NAME}/device")
    device.type = tarfile.CHRTYPE
    inside = {f"{NAME}/dataset.json": b"{}"}
    return {"outside": archive({**inside, "../../evil": b"x"}), "link": archive(inside, link),
            "device": archive(inside, device), "foreign": archive({"other/file": b"x"}),
            "not a tar": b"hello"}


@pytest.mark.parametrize("kind", odd_members())
def test_odd_archives_are_refused_whole(kind: str, server: tuple[type[Server], str],
                                        tmp_path: Path) -> None:
    content = odd_members()[kind]
    server[0].content = content
    with pytest.raises(InputError, match=f"{NAME}.tar"):
        get(tmp_path, server[1], content)
    assert [p.name for p in (tmp_path / "data").iterdir()] == [f"{NAME}.tar"]
    assert not (tmp_path.parent / "evil").exists()


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean Task07_Pancreas"):
        get(tmp_path, "", name="Task07_Pancreass")
