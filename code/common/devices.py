"""Which device trains, in which precision, and how many runs at a time."""

import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError

BASE_BYTES = 1.2e9      # a process with torch loaded, its model and optimiser
KEPT = 1.4              # what memory.keep() holds, over what a step needs (measured)


def choose(wanted: str) -> torch.device:
    """The device for DEVICE = auto, cpu, cuda or cuda:N.

    A driver that is present but cannot be used is a warning with the remedy under auto, an
    InputError under cuda.
    """
    if wanted not in ("auto", "cpu", "cuda") and not wanted.removeprefix("cuda:").isdigit():
        raise InputError(f"DEVICE = {wanted}: expected auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return torch.device("cpu")
    problem = cuda_problem()
    if problem is None:
        return torch.device("cuda" if wanted == "auto" else wanted)
    if wanted != "auto":
        raise InputError(f"DEVICE = {wanted}: {problem}; or take --device cpu")
    if driver_present():
        print(f"warning: a CUDA driver is present but {problem}; going on without it")
    return torch.device("cpu")


def cuda_problem() -> str | None:
    """Why CUDA cannot be used, with the remedy; None if a small kernel ran."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own warning is repeated below, with a remedy
        try:
            if torch.cuda.is_available():
                torch.ones(8, device="cuda").sum().item()
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
    it under auto where the processor has instructions for it; elsewhere it would be slow.
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


def workers(wanted: int, device: torch.device, *, threads: int, step_bytes: float) -> int:
    """Runs at a time: WORKERS, or as many as there are GPUs, or as cores and memory allow.

    ``step_bytes`` is what the activations of the largest training step take in float32.
    """
    if wanted:
        return wanted
    if device.type == "cuda":
        return torch.cuda.device_count() if device.index is None else 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fit = int(0.8 * memory / (BASE_BYTES + KEPT * step_bytes))
    return max(1, min(cores() // threads, fit))
