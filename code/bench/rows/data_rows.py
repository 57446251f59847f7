"""What happens before the network: preprocessing, views, batches, counts, growth, start-up."""

import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.measure import MIB, Anonymous, Row, Sizes, high_water, in_new_process, seconds
from bench.rows import plain
from bench.trees import GRIDS
from common.data.cache import Preprocessing, Source, build
from common.downstream.segmentation import Segmentation
from common.files import ROOT
from common.tasks.batches import Cases, generator

loader = importlib.import_module("3d.loader")
pretext = importlib.import_module("3d.pretext")
phantom = importlib.import_module("3d.phantom")
photographs = importlib.import_module("2d.loader")
fundus = importlib.import_module("2d.phantom")

NOISE = 20.0             # HU; without it gunzip would be too easy
SIZE = 128               # voxels a side the targets are meant for
CLASSES = ["background", "pancreas", "tumour"]
VIEWS = {"rotation": 12, "rpl": 3, "jigsaw": 12, "exemplar": 300}  # ms to reach
JITTER = 3               # voxels, of rpl and jigsaw at 128^3
LINEAR, FLAT = 1.5, 1.1  # growth: time a scan, and memory, may differ by this factor at most

PEAK = """
import importlib, json, sys
sys.path.insert(0, ".")
from pathlib import Path
if sys.argv[1] == "with torch": import torch
if sys.argv[1] == "plain":
    from bench.rows import plain
    plain.preprocess(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
else:
    from common.machine import limits
    from common.data.cache import Source
    limits.keep_memory()
    loader = importlib.import_module("3d.loader")
    loader.preprocess(Source("scan", Path(sys.argv[2]), Path(sys.argv[3])), classes=3, channels=1,
                      resolution=int(sys.argv[4]), intensity="percentile")
status = Path("/proc/self/status").read_text()
print(json.dumps(int(status.split("VmHWM:")[1].split()[0]) / 1024))
"""

GROW = """
import json, sys
sys.path.insert(0, ".")
from bench.rows import data_rows
print(json.dumps(data_rows.grow(int(sys.argv[1]), sys.argv[2])))
"""


def write_scan(folder: Path, shape: tuple[int, int, int]) -> Source:
    """A CT-like pair of ``shape`` voxels, int16 and uint8, with the noise of a scanner."""
    small, label = phantom.make_case(0, size=128, seed=0)
    rng = np.random.default_rng(0)
    nearest = [np.linspace(0, side - 1, wanted).round().astype(int)
               for side, wanted in zip(small.shape, shape, strict=True)]
    files = []
    for name, scan in (("image", small), ("label", label)):
        voxels = np.asanyarray(scan.dataobj)[np.ix_(*nearest)]
        if name == "image":
            noise = rng.standard_normal(shape, np.float32) * NOISE
            voxels = (voxels + noise).astype(np.int16)
        files.append(folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, 0.8, 2.5, 1])), files[-1])
    return Source("scan", files[0], files[1])


def preprocessing(folder: Path, rounds: int, sizes: Sizes) -> list[Row]:
    """One scan in one process, its memory, and a pool of two."""
    source, side = write_scan(folder, sizes.scan), sizes.side
    assert source.label is not None
    label = source.label
    ours = partial(loader.preprocess, source, classes=3, channels=1, resolution=side,
                   intensity="percentile")
    cpu = torch.device("cpu")
    mine, theirs, gunzip = seconds(cpu, rounds, ours,
                                   lambda: plain.preprocess(source.image, label, side),
                                   lambda: [loader.read_volume(file) for file in source.files])
    (less, more), pairs = sizes.pool, [_pooled(source, folder, n, side) for n in sizes.pool]
    pool = max(1e-6, (pairs[1] - pairs[0]) / (more - less))  # start-up may vary by more
    peaks = {kind: in_new_process(PEAK, kind, str(source.image), str(label), str(side))
             for kind in ("alone", "with torch", "plain")}
    text = "x".join(map(str, sizes.scan))
    return [
        Row(f"preprocess a {text} int16 pair, one process", mine, theirs, "s", "0.4 s, 3x",
            mine < 0.4 and theirs / mine >= 3,
            f"reading and gunzip alone {gunzip:.2f} s; ours has checks, percentiles, digests"),
        Row("the same with a pool of 2, a pair", pool, theirs, "s", "5x", theirs / pool >= 5,
            f"{more} pairs less {less}; starting the pool takes {pairs[0] - less * pool:.1f} s "
            "once"),
        Row("peak memory of that, whole process", peaks["alone"], peaks["plain"], "MiB",
            "750 MiB", peaks["alone"] < 750,
            f"{peaks['with torch']:.0f} MiB in a process that has imported torch"),
    ]


def _pooled(source: Source, folder: Path, count: int, side: int) -> float:
    """Seconds to preprocess the pair ``count`` times in a pool of two."""
    prepare = partial(loader.preprocess, classes=3, channels=1, resolution=side,
                      intensity="percentile")
    sources = [Source(f"scan{n}", source.image, source.label) for n in range(count)]
    started = time.perf_counter()
    how = Preprocessing(prepare, {}, (1, side, side, side), np.float16, label_maps=True)
    build(sources, folder / f"pool{count}", how, workers=2)
    return time.perf_counter() - started


def cases(device: torch.device, side: int, count: int = 8) -> Cases:
    """Random volumes as the cache holds them."""
    rng = generator(0, "bench")
    images = torch.rand(count, 1, side, side, side, generator=rng).half()
    labels = torch.randint(0, len(CLASSES), (count, side, side, side), generator=rng)
    return Cases(images.to(device), labels.to(torch.uint8).to(device),
                 [str(n) for n in range(count)], device)


def views(rounds: int, device: torch.device, sizes: Sizes) -> list[Row]:
    """A batch of 4 from the cache to float32 views, for every pretext task."""
    data, rows = cases(device, sizes.side), [0, 3, 5, 6]
    stored = data.images.cpu().numpy()[rows]
    draw = np.random.default_rng(0)
    others: dict[str, Callable[[], Tensor]] = {
        "rotation": lambda: plain.rotation(stored, draw.integers(9, size=4).tolist()),
        "rpl": lambda: plain.relative_patch(stored, JITTER, draw),
        "jigsaw": lambda: plain.jigsaw(stored, JITTER, draw),
        "exemplar": lambda: plain.exemplar(stored, draw)}
    found = []
    for name, other in others.items():
        mine, theirs = seconds(device, 4 * rounds, _viewer(name, data, rows, sizes.side),
                               partial(_moved, other, device))
        note = ("the plain way has quarter turns only; ours any angle, zoom, one resampling"
                if name == "exemplar" else "")
        found.append(Row(f"views for a batch of 4 at {sizes.side}³: {name}", 1e3 * mine,
                         1e3 * theirs, "ms", f"{VIEWS[name]} ms", 1e3 * mine < VIEWS[name], note))
    return found


def _moved(make: Callable[[], Tensor], device: torch.device) -> Tensor:
    """Make views the plain way and move them."""
    return make().to(device)


def _viewer(name: str, data: Cases, rows: list[int], side: int) -> Callable[[], Any]:
    """A job that gathers a batch and makes the views of a pretext task."""
    task, rng = pretext.PRETEXTS[name](side), generator(0, name)
    return lambda: task.prepare(data.batch(rows, labelled=False), rng, training=True)


def finetune_batch(rounds: int, device: torch.device, sizes: Sizes) -> list[Row]:
    """A labelled batch of 4, its bytes, and the bookkeeping of its Dice."""
    data, rows = cases(device, sizes.side), [0, 3, 5, 6]
    task, rng = Segmentation(CLASSES), generator(0, "batch")
    assert data.labels is not None
    images, maps = data.images.cpu().numpy(), data.labels.cpu().numpy()

    def ours() -> tuple[Tensor, Tensor]:
        return task.prepare(data.batch(rows, labelled=True), rng, training=True)

    def theirs() -> list[Tensor]:
        made = plain.segmentation_batch(images, maps, rows, len(CLASSES))
        return [tensor.to(device) for tensor in made]
    mine, other = seconds(device, 4 * rounds, ours, theirs)
    stored = (data.images[rows].nbytes + data.labels[rows].nbytes) / MIB
    bytes_ = [sum(tensor.nbytes for tensor in made) / MIB for made in (ours(), theirs())]
    return [
        Row("finetune batch of 4 assembled", 1e3 * mine, 1e3 * other, "ms", "15 ms",
            1e3 * mine < 15),
        Row("its memory, as gathered from the cache", stored, bytes_[1], "MiB", "24 MiB",
            stored <= 24, f"float16 images, uint8 labels; {bytes_[0]:.0f} MiB once images are "
            "float32, which the network wants"),
        _bookkeeping(rounds, task, data.labels[rows])]


def _bookkeeping(rounds: int, task: Segmentation, targets: Tensor) -> Row:
    """Dice counts of a batch, both ways."""
    outputs = torch.randn(4, len(CLASSES), *targets.shape[1:], device=targets.device)
    truth = F.one_hot(targets.long(), len(CLASSES)).movedim(-1, 1).double()
    with torch.inference_mode():
        counts, usual = seconds(targets.device, rounds, lambda: task.score(outputs, targets),
                                lambda: plain.dice_scores(outputs, truth))
    return Row("Dice bookkeeping of a batch", counts, usual, "s", "0.15 s", counts < 0.15,
               "at the validations of a run only, never in a training step")


def storage() -> list[Row]:
    """Bytes of the whole pancreas set; counted, not measured."""
    voxels = SIZE**3
    ours = (GRIDS["3d"].labelled * voxels * (2 + 1)) / 2**30
    usual = GRIDS["3d"].labelled * voxels * (4 + 8 * len(CLASSES)) / 2**30
    return [Row("memory for 281 volumes and labels (counted)", ours, usual, "GiB", "1.7 GiB",
                ours < 1.7, "memory-mapped, made once, shared by all runs; the plain way once a "
                "run")]


def decoding(folder: Path, count: int) -> list[Row]:
    """How long photographs take the first time, and every time after."""
    fundus.generate(folder / "fundus", labelled=count, unlabelled=0, size=512)
    dataset = photographs.open_dataset(folder / "fundus")
    times = []
    for _ in range(2):
        started = time.perf_counter()
        photographs.build_cache(dataset, folder, resolution=224, workers=2)
        times.append(time.perf_counter() - started)
    return [Row(f"{count} photographs of 512 px, from the second command on", times[1], times[0],
                "s", "decoded once", times[1] < times[0] / 5,
                "compared with the first command, which decodes them")]


def grow(count: int, folder: str) -> dict[str, float]:
    """Preprocess ``count`` scans and draw 100 batches: seconds a scan, own memory at most."""
    dataset = loader.open_dataset(Path(folder) / f"scans{count}")
    with Anonymous() as memory:
        started = time.perf_counter()
        cache = loader.build_cache(dataset, Path(folder), resolution=32, intensity="percentile",
                                   workers=2)
        taken = time.perf_counter() - started
        data = Cases(torch.from_numpy(cache.images()), None, list(cache.facts),
                     torch.device("cpu"))
        rng = np.random.default_rng(0)
        for _ in range(100):
            data.batch(rng.choice(count, 4, replace=False).tolist(), labelled=False)
    return {"seconds": taken, "anonymous": memory.most, "peak": high_water()}


def growth(folder: Path, sizes: tuple[int, ...]) -> list[Row]:
    """Time and memory of ever more generated scans, each number in a fresh process."""
    rows, found = [], []
    for count in sizes:
        phantom.generate(folder / f"scans{count}", labelled=5, unlabelled=count - 5, size=32)
        made = in_new_process(GROW, str(count), str(folder))
        found.append(made | {"each": 1e3 * made["seconds"] / count})
        rows.append(Row(f"{count} generated scans preprocessed, a scan", found[-1]["each"], None,
                        "ms", note=f"{made['seconds']:.1f} s in all; "
                        f"{made['anonymous']:.0f} MiB of own memory at most", details=made))
    times = found[-1]["each"] / found[-2]["each"]
    memory = found[-1]["anonymous"] / found[0]["anonymous"]
    return [*rows,
            Row(f"time a scan at {sizes[-1]} beside {sizes[-2]}", times, None, "x",
                f"linear: under {LINEAR}x", times < LINEAR),
            Row(f"own memory at {sizes[-1]} beside {sizes[0]}", memory, None, "x",
                f"flat: under {FLAT}x", memory < FLAT, "pages of files, which the system takes "
                "back when it needs them, not counted")]


def commands(folder: Path) -> list[Row]:
    """Start-up to the first step with a warm cache, and graph.py."""
    phantom.generate(folder / "Task00_Tiny", labelled=10, unlabelled=0, size=24)
    small = ["--data", str(folder / "Task00_Tiny"), "--cache", str(folder), "--resolution", "32",
             "--levels", "2", "--filters", "2", "--tasks", "baseline", "--fractions", "100",
             "--seeds", "0", "--finetune-epochs", "1", "--device", "cpu", "--workers", "1"]
    taken = [_timed("3d/exp.py", *small, "--results", str(folder / f"results{n}"))
             for n in range(3)]
    records = ROOT / "results/published/lidcnodule-controls"
    drawn = [_timed("3d/graph.py", "--records", str(records), "--results", str(folder / "drawn"))
             for _ in range(3)]
    return [Row("exp.py from start to end of a two-step run, warm cache", min(taken[1:]), None,
                "s", "10 s", min(taken[1:]) < 10),
            Row("graph.py on the records of 115 runs", min(drawn), None, "s", "10 s",
                min(drawn) < 10)]


def _timed(script: str, *arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, str(ROOT / "code" / script), *arguments], check=True,
                   capture_output=True)
    return time.perf_counter() - started
