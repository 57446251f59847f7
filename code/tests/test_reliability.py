"""Nothing lost, nothing silently wrong: kills, damage, two at once, disks; in both trees."""

import importlib
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock

CODE = Path(__file__).resolve().parents[1]
COMMON = ["--pretext-epochs", "3", "--finetune-epochs", "3", "--warmup-epochs", "1",
          "--validations", "2", "--device", "cpu", "--workers", "1", "--fractions", "50", "100",
          "--seeds", "0", "--tasks", "baseline", "rotation"]
TINY = {"3d": ["--resolution", "16", "--levels", "1", "--filters", "2"],
        "2d": ["--resolution", "32", "--blocks", "1", "1", "1", "1", "--growth", "4",
               "--batch-size", "4"]}


class Trial(NamedTuple):
    """A data set, and the uninterrupted run of the command that the others are compared with."""

    tree: str
    data: Path
    folder: Path

    def command(self, folder: Path, *more: object) -> list[str]:
        """The command of the trial with records and cache in ``folder``."""
        return [sys.executable, str(CODE / self.tree / "exp.py"), "--data", str(self.data),
                "--results", str(folder / "results"), "--cache", str(folder / "data"),
                *TINY[self.tree], *COMMON, *map(str, more)]

    def run(self, folder: Path, *more: object) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        return subprocess.run(self.command(folder, *more), capture_output=True, text=True,
                              check=False)

    def runs(self, folder: Path) -> Path:
        """Where the command leaves its runs."""
        return next((folder / "results" / self.tree).iterdir())


def numbers(folder: Path) -> dict[str, str]:
    """All records that must agree bit for bit."""
    return {str(path.relative_to(folder)): path.read_text()
            for name in ("scores.json", "log.jsonl", "splits.json")
            for path in folder.rglob(name) if ".old-" not in str(path)}


@pytest.fixture(scope="module", params=["3d", "2d"])
def trial(request: pytest.FixtureRequest, scans: Path, photographs: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Trial:
    made = Trial(request.param, {"3d": scans, "2d": photographs}[request.param],
                 tmp_path_factory.mktemp("whole"))
    result = made.run(made.folder)
    assert result.returncode == 0, result.stderr
    return made


def kill_and_go_on(trial: Trial, folder: Path, kills: int, seed: int) -> None:
    """Kill the command at random moments, then let it end; the numbers must be the same."""
    draw = random.Random(seed)
    for _ in range(kills):
        process = subprocess.Popen(trial.command(folder, "--workers", draw.choice((1, 2))),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(2.0, 9.0))
        process.kill()
        process.wait()
    time.sleep(3)
    assert not workers_without_parent(folder), "a killed command left processes behind"
    deadline = time.monotonic() + 60  # workers notice that their parent is gone, then end
    while (result := trial.run(folder)).returncode == 1 and time.monotonic() < deadline:
        time.sleep(1)
    assert result.returncode == 0, result.stderr
    assert numbers(folder) == numbers(trial.folder)


def workers_without_parent(folder: Path) -> list[str]:
    """Processes of this interpreter that init has inherited and that began since ``folder``."""
    age = time.time() - folder.stat().st_ctime if folder.exists() else 0
    table = subprocess.run(["ps", "-eo", "ppid,etimes,stat,args"], capture_output=True, text=True,
                           check=True).stdout.splitlines()[1:]
    lines = [line.split(maxsplit=3) for line in table]
    return [line[3] for line in lines if line[0] == "1" and line[2][0] != "Z" and "spawn_main"
            in line[3] and sys.executable in line[3] and 3 < int(line[1]) < age]


def test_killed_three_times_gives_the_same_numbers(trial: Trial, tmp_path: Path) -> None:
    kill_and_go_on(trial, tmp_path, 3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times_gives_the_same_numbers(trial: Trial, tmp_path: Path) -> None:
    for round_ in range(5):
        kill_and_go_on(trial, tmp_path / str(round_), 4, seed=10 + round_)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [1, 2])
def test_signals_stop_in_one_line_and_leave_no_worker(trial: Trial, tmp_path: Path, workers: int,
                                                      number: int, status: int) -> None:
    process = subprocess.Popen(
        trial.command(tmp_path, "--workers", workers, "--finetune-epochs", 4000),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # may be ignored out here
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("finetune/**/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    stops = [line for line in stderr.splitlines() if line.startswith("stopped at ")]
    assert len(stops) == 1 and "the same command goes on" in stops[0] and "Traceback" not in stderr
    time.sleep(1)
    table = subprocess.run(["ps", "-eo", "pgid,stat,args"], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    alive = [line for line in table if line.split()[0] == str(process.pid)
             and not line.split()[1].startswith("Z")]  # a zombie has ended
    assert not alive, alive


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.write_text('{"some": "other file"}')


@pytest.mark.parametrize("harm", [truncate, foreign, Path.unlink])
@pytest.mark.parametrize("name", [
    "pretrain/rotation/seed0/encoder.pt", "pretrain/rotation/seed0/scores.json",
    "finetune/rotation/fraction050/seed0/scores.json",
    "finetune/baseline/fraction100/seed0/config.json"])
def test_damaged_records_are_named_and_made_again(trial: Trial, tmp_path: Path, name: str,
                                                  harm: Callable[[Path], None]) -> None:
    copy(trial, tmp_path)
    harm(trial.runs(tmp_path) / name)
    result = trial.run(tmp_path)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    if not (harm is Path.unlink and name.endswith("scores.json")):  # then it is just not done
        assert Path(name).name in result.stderr and "set aside" in result.stderr
    assert numbers(tmp_path) == numbers(trial.folder)


def copy(trial: Trial, folder: Path) -> None:
    subprocess.run(["cp", "-a", f"{trial.folder}/.", str(folder)], check=True)


@pytest.mark.parametrize("harm", [truncate, foreign])
def test_damaged_splits_stop_with_one_line(trial: Trial, tmp_path: Path,
                                           harm: Callable[[Path], None]) -> None:
    copy(trial, tmp_path)
    harm(trial.runs(tmp_path) / "splits.json")
    result = trial.run(tmp_path)
    assert result.returncode == 2 and "splits.json" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "damage"), [("images.npy", truncate), ("manifest.json", truncate),
                                              ("images.npy", flip_one_bit)])
def test_a_damaged_cache_is_named_and_made_again(trial: Trial, tmp_path: Path, name: str,
                                                 damage: Callable[[Path], None]) -> None:
    copy(trial, tmp_path)
    damage(next(tmp_path.rglob(name)))
    result = trial.run(tmp_path)
    assert result.returncode == 0 and "damaged" in result.stderr
    assert numbers(tmp_path) == numbers(trial.folder)


def test_two_at_once_share_the_work(trial: Trial, tmp_path: Path) -> None:
    both = [subprocess.Popen(trial.command(tmp_path), stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = [line.split(":")[0] for out, _ in said for line in out.splitlines()
            if line.startswith("done ")]
    assert len(done) == len(set(done)) == 5  # no run was trained twice
    assert numbers(tmp_path) == numbers(trial.folder)


def test_a_changed_data_set_is_named(trial: Trial, tmp_path: Path) -> None:
    copy(trial, tmp_path)
    data = tmp_path / trial.data.name
    subprocess.run(["cp", "-a", str(trial.data), str(data)], check=True)
    if trial.tree == "2d":
        table = data / "train.csv"
        lines = table.read_text().splitlines()
        table.write_text("\n".join(lines[:-1]) + "\n")
        gone = lines[-1].split(",")[0]
    else:
        content = json.loads((data / "dataset.json").read_text())
        gone = Path(content["training"].pop()["image"]).name.removesuffix(".nii.gz")
        (data / "dataset.json").write_text(json.dumps(content))
    result = Trial(trial.tree, data, tmp_path).run(tmp_path)
    assert result.returncode == 2 and gone in result.stderr and "--rerun" in result.stderr
    assert numbers(tmp_path) == numbers(trial.folder)


def test_results_below_a_file_are_refused(trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = trial.run(trial.folder, "--results", tmp_path / "file")
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_preprocessing_is_done_by_one_while_the_other_waits_and_says_so(
        photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loader = importlib.import_module("2d.loader")
    dataset = loader.open_dataset(photographs)

    def build() -> None:
        loader.build_cache(dataset, tmp_path, resolution=32, workers=1)
    build()
    lock = next(tmp_path.rglob("*.lock"))
    with FileLock(lock):  # as another process would
        other = threading.Thread(target=build)
        other.start()
        other.join(timeout=1.5)
        assert other.is_alive()
    other.join(timeout=30)
    assert not other.is_alive()
    assert "another process is preprocessing fundusphantom; waiting" in capsys.readouterr().out


def test_a_lock_left_by_a_dead_process_does_not_block(trial: Trial, tmp_path: Path) -> None:
    copy(trial, tmp_path)
    for lock in tmp_path.rglob("*.lock"):
        lock.write_text("99999")
    (trial.runs(tmp_path) / "finetune/rotation/fraction050/seed0/scores.json").unlink()
    assert trial.run(tmp_path).returncode == 0
    assert numbers(tmp_path) == numbers(trial.folder)


def run_patched(trial: Trial, folder: Path, patch: str) -> "subprocess.CompletedProcess[str]":
    """Run the command in a process whose modules ``patch`` has changed first."""
    command = trial.command(folder)
    program = (f"import runpy, sys\nsys.path[:0] = {[str(CODE / trial.tree), str(CODE)]!r}\n"
               f"sys.argv = sys.argv[1:]\n{patch}\nrunpy.run_path(sys.argv[0], "
               "run_name='__main__')")
    return subprocess.run([command[0], "-c", program, *command[1:]], capture_output=True,
                          text=True, check=False)


ROTATION_LOSS = "from common import pretexts\npretexts.Rotation.loss = lambda self, out, targets: "


@pytest.mark.parametrize(("loss", "said"), [
    ("out.sum() * float('nan')", "the loss is not finite at epoch 1, step 1"),
    ("(_ for _ in ()).throw(__import__('torch').OutOfMemoryError('CUDA out of memory'))",
     "out of GPU memory; lower PRETEXT_BATCH_SIZE, RESOLUTION or WORKERS")])
def test_a_run_that_cannot_be_trained_fails_alone_and_can_be_tried_again(
        trial: Trial, tmp_path: Path, loss: str, said: str) -> None:
    result = run_patched(trial, tmp_path, ROTATION_LOSS + loss)
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert f"pretrain/rotation/seed0: {said}" in result.stderr
    assert "3 runs are not done" in result.stderr  # the encoder and what would start from it
    done = {path.relative_to(trial.runs(tmp_path)).parts[1]
            for path in tmp_path.rglob("scores.json")}
    assert done == {"baseline"}
    assert trial.run(tmp_path).returncode == 0  # another start, another try
    assert numbers(tmp_path) == numbers(trial.folder)


FULL = """
import errno
from common import checkpoint, records
def full(*_):
    raise RuntimeError("PytorchStreamWriter failed writing file")
checkpoint.torch.save = full
write = records.write_json
def write_json(path, content):
    if {fails} and path.name == "failed.json":
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    write(path, content)
records.write_json = write_json
"""


@pytest.mark.parametrize("fails", [False, True])  # whether the failure itself cannot be recorded
def test_a_full_disk_is_told_and_after_room_is_made_the_command_goes_on(
        trial: Trial, tmp_path: Path, fails: bool) -> None:
    result = run_patched(trial, tmp_path, FULL.replace("{fails}", str(fails)))
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "last.pt" in result.stderr and "GB are free" in result.stderr
    assert "make room" in result.stderr and not list(tmp_path.rglob("last.pt"))
    assert trial.run(tmp_path).returncode == 0
    assert numbers(tmp_path) == numbers(trial.folder)


def test_finetuning_from_an_encoder_of_other_settings_is_stale(trial: Trial,
                                                               tmp_path: Path) -> None:
    copy(trial, tmp_path)
    result = trial.run(tmp_path, "--pretext-epochs", 4)
    assert result.returncode == 2 and "PRETEXT_EPOCHS: 3 -> 4" in result.stderr
    assert "2 more runs" in result.stderr  # the encoder and the two runs that started from it
    assert trial.run(tmp_path, "--pretext-epochs", 4, "--tasks", "baseline").returncode == 0
