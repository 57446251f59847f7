"""The fuzzer runs, finds nothing in a few inputs, and finds what is broken."""

import contextlib
from collections.abc import Iterator

import fuzz_inputs
import pytest
from commands import shell

from common.data import opening


def test_a_few_inputs_of_every_kind_are_read_or_refused_in_one_line() -> None:
    result = shell("tests/fuzz_inputs.py", "--count", 80)
    assert result.returncode == 0, result.stdout
    kinds = {line.split()[0] for line in result.stdout.splitlines()}
    assert kinds == {change.__name__ for changes in fuzz_inputs.KINDS.values()
                     for change, _ in changes}
    assert "FINDING" not in result.stdout


def test_a_reader_that_lets_errors_through_is_found(monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    @contextlib.contextmanager
    def through(*_: object) -> Iterator[None]:
        yield
    for module in (fuzz_inputs.importlib.import_module("common.data.scans"),
                   fuzz_inputs.importlib.import_module("common.data.photographs"), opening):
        monkeypatch.setattr(module, "decoding", through)
    monkeypatch.setattr("sys.argv", ["fuzz_inputs.py", "--count", "40"])
    assert fuzz_inputs.main() == 1
    assert "bytes_of_a_photograph: FINDING" in capsys.readouterr().out
