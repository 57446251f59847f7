"""Which device trains, in which precision, and how many runs at a time.

Under torchrun or srun exp.py is one process of several on a machine: its number there, the local
rank, picks its GPU, and the claims of the runs do the rest.
"""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import InputError
from common.settings import Settings

BASE_BYTES = 1.2e9      # a process with torch loaded, its model and optimiser
KEPT = 1.4              # what memory.keep() holds, over what a step needs (measured)


class Place(NamedTuple):
    """This process among those that torchrun or srun started together."""

    rank: int          # among all
    size: int          # of all
    local: int | None  # among those of this machine; None where it is the only one there


def place() -> Place:
    """Where this process stands, from what torchrun or srun says in the environment.

    Slurm sets SLURM_PROCID and SLURM_LOCALID in a batch script too, SLURM_STEP_TASKS_PER_NODE, as
    "4(x2),3", in a step of srun only.
    """
    env = os.environ
    if "LOCAL_RANK" in env:
        several = int(env.get("LOCAL_WORLD_SIZE", "2")) > 1
        return Place(int(env.get("RANK", "0")), int(env.get("WORLD_SIZE", "1")),
                     int(env["LOCAL_RANK"]) if several else None)
    if "SLURM_STEP_TASKS_PER_NODE" in env:
        tasks = env["SLURM_STEP_TASKS_PER_NODE"].split(",")
        several = any(part.split("(")[0] != "1" for part in tasks)
        return Place(int(env.get("SLURM_PROCID", "0")), int(env.get("SLURM_STEP_NUM_TASKS", "1")),
                     int(env.get("SLURM_LOCALID", "0")) if several else None)
    return Place(0, 1, None)


def choose(wanted: str, *, ranks: int) -> torch.device:
    """The device for DEVICE = auto, cpu, cuda or cuda:N; the first of its own under torchrun.

    A driver that is present but cannot be used is a warning with the remedy under auto, an
    InputError under cuda, as are fewer GPUs than the ``ranks`` of a run.
    """
    if wanted not in ("auto", "cpu", "cuda") and not wanted.removeprefix("cuda:").isdigit():
        raise InputError(f"DEVICE = {wanted}: expected auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")
    device = _own(wanted, ranks)
    problem = cuda_problem(device)
    if problem is None:
        count = torch.cuda.device_count()
        if (device.index or 0) + ranks > count:
            raise InputError(f"DEVICE = {wanted}, RANKS_PER_RUN = {ranks}: this machine has {count}"
                             " GPUs; a run takes as many as RANKS_PER_RUN, from DEVICE on")
        return device
    if wanted != "auto":
        raise InputError(f"DEVICE = {wanted}: {problem}; or take --device cpu")
    if driver_present():
        print(f"warning: a CUDA driver is present but {problem}; going on without it")
    return torch.device("cpu")


def _own(wanted: str, ranks: int) -> torch.device:
    """The GPU asked for, or the one that is this process's among several on the machine."""
    device, local = torch.device("cuda" if wanted == "auto" else wanted), place().local
    if local is None or device.index is not None or torch.cuda.device_count() < ranks:
        return device
    return slot(local, ranks)


def slot(index: int, ranks: int) -> torch.device:
    """The first GPU of worker ``index`` on a machine whose runs take ``ranks`` GPUs each."""
    slots = torch.cuda.device_count() // ranks
    return torch.device("cuda", index % slots * ranks)


def of_rank(first: torch.device, rank: int) -> torch.device:
    """The device of a rank of a run: GPUs from the worker's own on; all share the CPU."""
    return torch.device("cuda", (first.index or 0) + rank) if first.type == "cuda" else first


def cuda_problem(device: torch.device) -> str | None:
    """Why a GPU cannot be used, with the remedy; None if a small kernel ran on it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own warning is repeated below, with a remedy
        try:
            if torch.cuda.is_available():
                torch.ones(8, device=device).sum().item()
                return None
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0][:160]
    built = torch.version.cuda
    if built is None:
        return "this torch is a CPU-only build; install another with TORCH_INDEX=... ./setup.sh"
    return (f"torch (built for CUDA {built}) cannot use it: {reason}; update the driver, or install"
            " a build for its CUDA version with TORCH_INDEX=... ./setup.sh")


def driver_present() -> bool:
    """Whether an NVIDIA kernel driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()


def precision(wanted: str, device: torch.device, *, sound_on_cpu: bool) -> str:
    """Resolve PRECISION = auto, float32 or bfloat16 for a device.

    bfloat16 conv3d on the CPU now and then returns non-finite weight gradients at 2x2x2 inputs
    (torch 2.13 and 2.14; tests/test_traps.py reproduces it), so 3D stays float32 there. 2D takes
    it under auto where the processor has matrix units for it; elsewhere it would be slow.
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise InputError(f"PRECISION = {wanted}: expected auto, float32 or bfloat16")
    sound = device.type == "cuda" or sound_on_cpu
    if wanted == "bfloat16" and not sound:
        raise InputError("PRECISION = bfloat16: 3D convolutions in bfloat16 on the CPU now and then"
                         " return non-finite gradients; take float32, or a GPU")
    if wanted != "auto":
        return wanted
    return "bfloat16" if sound and (device.type == "cuda" or bfloat16_on_cpu()) else "float32"


def bfloat16_on_cpu() -> bool:
    """Whether the processor has matrix units for bfloat16 (Linux on x86; elsewhere taken as no).

    avx512_bf16 alone does not count: on an Intel processor without AMX a bfloat16 product ran at
    half the rate of float32, and a DenseNet-121 step took 1.2 times as long (bench, torch 2.14).
    """
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.exists() else []
    return "amx_bf16" in flags


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Move to a device without waiting for it.

    A copy from ordinary memory to a GPU first waits for all work that is queued there; from pinned
    memory it is queued itself.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (
        os.cpu_count() or 1)


def memory(device: torch.device) -> int:
    """Bytes of memory of the device, GPU or machine."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def workers(settings: Settings, device: torch.device, step_bytes: float) -> int:
    """Runs at a time in this process: WORKERS, or RUNS_PER_GPU a GPU, or as cores and memory allow.

    ``step_bytes`` is what the activations of the largest training step take in float32. One of
    several processes on a machine trains on its own GPU, or one run at a time on the CPU.
    """
    if settings.WORKERS:
        return int(settings.WORKERS)
    ranks = settings.RANKS_PER_RUN
    if device.type == "cuda":
        places = torch.cuda.device_count() // ranks if device.index is None else 1
        return int(places * settings.RUNS_PER_GPU)
    if place().local is not None:
        return 1
    fit = int(0.8 * memory(device) / (ranks * BASE_BYTES + KEPT * step_bytes))
    return max(1, min(cores() // (settings.THREADS * ranks), fit))
