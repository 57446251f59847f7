"""Which device, precision and how many runs: the driver's answers put in."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import InputError
from common.machine import devices, limits
from common.machine.devices import Card
from common.schedule import workers
from common.settings import Settings

GIB = 2**30
ONE = Settings(WORKERS=0, RANKS_PER_RUN=1, RUNS_PER_GPU=1, THREADS=1)


def machine(monkeypatch: pytest.MonkeyPatch, *cards: Card) -> None:
    monkeypatch.setattr(devices, "cards", lambda: cards)


def card(capability: tuple[int, int] = (8, 0), problem: str | None = None) -> Card:
    return Card("Test Card", capability, 16 * GIB, problem)


def chosen(wanted: str, ranks: int = 1) -> list[str]:
    return [str(device) for device in devices.choose(wanted, ranks=ranks)]


@pytest.mark.parametrize(("count", "wanted", "ranks", "expected"), [
    (1, "auto", 1, ["cuda:0"]), (1, "cuda", 1, ["cuda:0"]), (1, "cpu", 1, ["cpu"]),
    (2, "auto", 1, ["cuda:0", "cuda:1"]), (2, "cuda:1", 1, ["cuda:1"]), (4, "auto", 2,
                                                                       ["cuda:0", "cuda:2"]),
    (5, "auto", 2, ["cuda:0", "cuda:2"]), (3, "cuda:1", 2, ["cuda:1"])])
def test_every_gpu_has_its_index(monkeypatch: pytest.MonkeyPatch, count: int, wanted: str,
                                 ranks: int, expected: list[str]) -> None:
    machine(monkeypatch, *[card()] * count)
    assert chosen(wanted, ranks) == expected
    for device in devices.choose(wanted, ranks=ranks):
        assert device.type == "cpu" or device.index is not None
        assert device != torch.device("cuda")  # which compares unequal to the same card's tensors


@pytest.mark.parametrize(("wanted", "ranks"), [("cuda:2", 1), ("cuda:1", 2), ("auto", 3)])
def test_fewer_gpus_than_a_run_takes_is_one_line(monkeypatch: pytest.MonkeyPatch, wanted: str,
                                                 ranks: int) -> None:
    machine(monkeypatch, card(), card())
    with pytest.raises(InputError, match="this machine has 2 GPUs"):
        devices.choose(wanted, ranks=ranks)


def test_a_card_that_cannot_be_used_is_named_and_left_out(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    machine(monkeypatch, card(problem="busy"), card(), card())
    assert chosen("auto") == ["cuda:1", "cuda:2"]
    assert "cuda:0 (Test Card) cannot be used: busy" in capsys.readouterr().out
    with pytest.raises(InputError, match="no GPU can be used"):  # cuda:0 and 1; 2 has no partner
        devices.choose("auto", ranks=2)
    with pytest.raises(InputError, match="no GPU can be used"):
        devices.choose("cuda:0", ranks=1)


def test_processes_started_together_take_their_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, *[card()] * 4)
    monkeypatch.setattr(devices, "place", lambda: devices.Place(5, 6, 5))
    assert chosen("auto") == ["cuda:1"] and chosen("auto", ranks=2) == ["cuda:2"]
    assert chosen("cuda:3") == ["cuda:3"]
    assert devices.of_rank(torch.device("cuda:2"), 1) == torch.device("cuda:3")
    assert devices.of_rank(torch.device("cpu"), 1) == torch.device("cpu")


@pytest.mark.parametrize(("ranks", "runs", "workers"), [(1, 1, 4), (1, 2, 8), (2, 1, 2)])
def test_runs_at_a_time_follow_the_gpus(monkeypatch: pytest.MonkeyPatch, ranks: int, runs: int,
                                        workers: int) -> None:
    machine(monkeypatch, *[card()] * 4)
    settings = Settings(**{**vars(ONE), "RANKS_PER_RUN": ranks, "RUNS_PER_GPU": runs})
    assert devices.workers(settings, devices.choose("auto", ranks=ranks), 0) == workers


@pytest.mark.parametrize(("capability", "auto"), [((7, 5), "float32"), ((8, 0), "bfloat16"),
                                                  ((9, 0), "bfloat16")])
def test_bfloat16_is_taken_where_the_card_has_it(monkeypatch: pytest.MonkeyPatch,
                                                 capability: tuple[int, int], auto: str) -> None:
    machine(monkeypatch, card((9, 0)), card(capability))
    places = devices.choose("auto", ranks=1)
    for sound_on_cpu in (False, True):
        assert devices.precision("auto", places, sound_on_cpu=sound_on_cpu) == auto
        assert devices.precision("float32", places, sound_on_cpu=sound_on_cpu) == "float32"
    if auto == "float32":
        with pytest.raises(InputError, match=r"Test Card \(compute capability 7.5\) has none"):
            devices.precision("bfloat16", places, sound_on_cpu=True)
    else:
        assert devices.precision("bfloat16", places, sound_on_cpu=False) == "bfloat16"
    assert devices.precision("auto", places[:1], sound_on_cpu=False) == "bfloat16"


def asked(monkeypatch: pytest.MonkeyPatch, code: int, out: str = "", err: str = "") -> None:
    """A driver is there, and the child that asks it answers this."""
    devices.cards.cache_clear()
    monkeypatch.setattr(devices, "driver_present", lambda: True)
    monkeypatch.setattr(devices.subprocess, "run", lambda *a, **k: SimpleNamespace(
        returncode=code, stdout=out, stderr=err))


@pytest.fixture(autouse=True)
def forgotten() -> None:
    devices.cards.cache_clear()


def test_the_childs_answer_is_the_machines_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [["A", [7, 5], 15, None], ["B", [9, 0], 80, "CUDA error: all devices are busy"]]
    asked(monkeypatch, 0, "some warning\n" + json.dumps(answer) + "\n")
    assert devices.cards() == (Card("A", (7, 5), 15), Card("B", (9, 0), 80, answer[1][3]))
    assert devices.memory(torch.device("cuda:1")) == 80
    devices.cards.cache_clear()


def test_a_driver_that_cannot_be_used_is_a_warning_or_an_error(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked(monkeypatch, 1, err="Traceback ...\nRuntimeError: The NVIDIA driver is too old")
    assert chosen("auto") == ["cpu"]
    said = capsys.readouterr().out
    assert "driver is too old" in said and "TORCH_INDEX" in said and said.count("\n") == 1
    with pytest.raises(InputError, match="too old.*--device cpu"):
        devices.choose("cuda", ranks=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_question_itself_runs_and_says_why_there_is_none() -> None:
    result = subprocess.run([sys.executable, "-c", devices.PROBE], capture_output=True, text=True,
                            check=False)
    assert result.returncode == 1 and "NVIDIA" in result.stderr.splitlines()[-1]


def test_float32_is_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(torch.cuda, "set_device", given.append)
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        workers._set_up(SimpleNamespace(settings=ONE), torch.device("cuda:1"))  # type: ignore[arg-type]
        assert not cudnn.allow_tf32 and not matmul.allow_tf32
        assert given == [torch.device("cuda:1")]
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def test_the_records_name_card_and_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n")
    monkeypatch.setattr(devices, "DRIVER", version)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    found = devices.described(torch.device("cuda:1"))
    assert found["card"] == "Card 1" and found["driver"] == "550.54.15"
    assert found.keys() == devices.described(torch.device("cpu")).keys() == {
        "card", "driver", "cuda", "cudnn"}


def groups(monkeypatch: pytest.MonkeyPatch, folder: Path, own: str,
           files: dict[str, str]) -> None:
    (folder / "own").write_text(own)
    for name, text in files.items():
        (folder / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "fs" / name).write_text(text)
    monkeypatch.setattr(limits, "OWN", folder / "own")
    monkeypatch.setattr(limits, "GROUPS", folder / "fs")
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.mark.parametrize(("own", "files", "cores", "memory"), [
    ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/memory.max": "8000\n",
                        "job/step/cpu.max": "max 100000\n", "job/step/memory.max": "max\n"},
     4, 8000),
    ("0::/\n", {"cpu.max": "150000 100000\n", "memory.max": "5000\n"}, 2, 5000),
    ("5:memory:/a\n3:cpu,cpuacct:/a\n0::/\n",
     {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000",
      "memory/a/memory.limit_in_bytes": "7000", "memory/memory.limit_in_bytes": "9000"}, 3, 7000),
    ("3:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 64, 0),
    ("", {}, 64, 0)])
def test_limits_of_the_control_group_are_seen(
        monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str, files: dict[str, str],
        cores: int, memory: int) -> None:
    whole = limits.os.sysconf("SC_PAGE_SIZE") * limits.os.sysconf("SC_PHYS_PAGES")
    groups(monkeypatch, tmp_path, own, files)
    assert limits.cores() == cores and limits.memory() == (memory or whole)
    few = Settings(**{**vars(ONE), "THREADS": 2})
    monkeypatch.setattr(devices, "BASE_BYTES", 1.0)
    fits = devices.workers(few, [torch.device("cpu")], 1e6)  # bytes of a step: too many for some
    assert fits == (1 if memory else cores // 2)
