"""The cache of preprocessed cases: who makes it, in how many processes, always the same."""

import importlib
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from common.data import cache
from common.data.cache import Cache
from common.errors import InputError
from common.machine import limits

loader = importlib.import_module("2d.loader")


def build(photographs: Path, folder: Path, workers: int = 1) -> Cache:
    made: Cache = loader.build_cache(loader.open_dataset(photographs), folder, resolution=32,
                                     workers=workers)
    return made


def test_few_cases_are_preprocessed_here_and_a_pool_makes_the_same_of_many(
        photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    class Pool(ProcessPoolExecutor):
        def __init__(self, workers: int, **given: Any) -> None:
            begun.append(workers)
            super().__init__(workers, **given)
    monkeypatch.setattr(cache, "ProcessPoolExecutor", Pool)
    here = build(photographs, tmp_path / "here", workers=2)
    assert not begun
    monkeypatch.setattr(cache, "POOL_FROM", 0.0)  # any work is enough for one
    pooled = build(photographs, tmp_path / "pooled", workers=2)
    assert begun == [2]
    assert pooled.facts == here.facts and pooled.contents == here.contents
    assert [*pooled.facts] == [*here.facts]
    assert np.array_equal(pooled.images(), here.images())


@pytest.mark.parametrize(("first", "others", "pool"), [
    (0.2, 0.004, False), (0.004, 0.04, True), (3.0, 3.0, True), (3.0, 0.004, True)])
def test_a_slow_first_case_alone_begins_no_pool_unless_it_takes_long(
        first: float, others: float, pool: bool,  # noqa: FBT001 - a case of the table
        monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    def prepare(case: int) -> int:
        nonlocal clock
        clock += others if case else first
        return case

    class Begun(Exception):  # noqa: N818 - no error
        pass

    def begin(*given: Any, **named: Any) -> None:
        raise Begun
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock))
    monkeypatch.setattr(cache, "ProcessPoolExecutor", begin)
    results = cache._pooled(prepare, range(260), 2)  # type: ignore[arg-type]
    if pool:
        with pytest.raises(Begun):
            list(results)
    else:
        assert [*results] == [*range(260)]


@pytest.mark.parametrize("pool_from", [0.0, 60.0])
def test_what_cannot_be_read_is_named_and_leaves_no_cache(
        pool_from: float, photographs: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "POOL_FROM", pool_from)
    sources = loader.open_dataset(photographs).sources
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    changed = [*sources[:5], cache.Source(sources[5].id, broken, target=sources[5].target),
               *sources[6:]]
    dataset = loader.Dataset(**{**vars(loader.open_dataset(photographs)), "sources": changed})
    with pytest.raises(InputError, match=r"broken\.png"):
        loader.build_cache(dataset, tmp_path / "cache", resolution=32, workers=1)
    assert not list(tmp_path.rglob("manifest.json"))


def test_preprocessing_is_done_by_one_while_the_other_waits_and_says_so(
        photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(photographs, tmp_path)
    lock = next(tmp_path.rglob("hashes.lock"))
    with FileLock(lock):  # as another process would
        other = threading.Thread(target=build, args=(photographs, tmp_path))
        other.start()
        other.join(timeout=1.5)
        assert other.is_alive()
    other.join(timeout=30)
    assert not other.is_alive()
    assert "another process is preprocessing fundusphantom; waiting" in capsys.readouterr().out


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_memory_is_kept_while_cases_are_prepared_and_given_back_after(
        libc: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    library = SimpleNamespace(mallopt=lambda *given: calls.append(given),
                              malloc_trim=lambda *given: calls.append(given))
    monkeypatch.setattr(limits, "ctypes", SimpleNamespace(CDLL=lambda name: library))
    monkeypatch.setattr(limits, "platform", SimpleNamespace(libc_ver=lambda: (libc, "2")))
    monkeypatch.setattr(limits, "in_force", dict(limits.USUAL))
    before: list[int] = []
    prepare = loader.preprocess

    def seen(*given: Any, **named: Any) -> Any:
        before.append(len(calls))
        return prepare(*given, **named)
    monkeypatch.setattr(loader, "preprocess", seen)
    build(photographs, tmp_path)
    kept = [(limits.M_TRIM_THRESHOLD, -1), (limits.M_TOP_PAD, 64 << 20), (limits.M_MMAP_MAX, 0)]
    usual = [(limits.M_TRIM_THRESHOLD, 131072), (limits.M_TOP_PAD, 131072),
             (limits.M_MMAP_MAX, 65536), (0,)]
    assert calls == (kept + usual if libc == "glibc" else [])
    assert before and {*before} == {3 if libc == "glibc" else 0}
    limits.keep_memory()  # as a measurement does before it opens its data
    calls.clear()
    build(photographs, tmp_path / "again")
    assert calls == (kept if libc == "glibc" else [])
