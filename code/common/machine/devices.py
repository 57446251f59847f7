"""Which devices train, in which precision, and how many runs at a time.

A GPU always carries its index: torch.device("cuda") without one is refused by set_device and is
unequal to cuda:0. Under torchrun or srun exp.py is one process of several on a machine: its number
there, the local rank, picks its GPU, and the claims of the runs do the rest.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.errors import InputError
from common.machine import limits
from common.settings import Settings

BASE_BYTES = 1.2e9      # a process with torch loaded, its model and optimiser
KEPT = 1.4              # what limits.keep_memory() holds, over what a step needs (measured)
BFLOAT16_FROM = (8, 0)  # compute capability with bfloat16 units; below, torch only emulates it
DRIVER = Path("/proc/driver/nvidia/version")
NO_CARD: dict[str, str | None] = dict.fromkeys(("card", "driver", "cuda", "cudnn"))


class Place(NamedTuple):
    """This process among those that torchrun or srun started together."""

    rank: int          # among all
    size: int          # of all
    local: int | None  # among those of this machine; None where it is the only one there


class Card(NamedTuple):
    """What the driver says of a GPU."""

    name: str
    capability: tuple[int, int]
    memory: int                 # bytes
    problem: str | None = None  # why it cannot be used


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


def choose(wanted: str, *, ranks: int) -> list[torch.device]:
    """The devices for DEVICE = auto, cpu, cuda or cuda:N: the first of each run's, dealt in turn.

    A run takes ``ranks`` GPUs, from its first on. Under torchrun or srun a process has one entry,
    its own. A driver that is present but cannot be used is a warning with the remedy under auto,
    an InputError under cuda, as are fewer GPUs than a run takes.
    """
    if wanted not in ("auto", "cpu", "cuda") and not wanted.removeprefix("cuda:").isdigit():
        raise InputError(f"DEVICE = {wanted}: expected auto, cpu, cuda or cuda:N")
    if wanted == "cpu":
        return [torch.device("cpu")]
    try:
        found = cards()
    except InputError as error:
        if wanted != "auto":
            raise InputError(f"DEVICE = {wanted}: {error}; or take --device cpu") from None
        if driver_present():
            print(f"warning: a CUDA driver is present but {error}; going on without it")
        return [torch.device("cpu")]
    firsts = [int(wanted[5:])] if wanted[5:] else range(0, len(found), ranks)
    fitting = [first for first in firsts if first + ranks <= len(found)]
    if not fitting:
        raise InputError(f"DEVICE = {wanted}, RANKS_PER_RUN = {ranks}: this machine has "
                         f"{len(found)} GPUs; a run takes as many as RANKS_PER_RUN, from DEVICE on")
    sound = [first for first in fitting
             if not any(card.problem for card in found[first:first + ranks])]
    for number, card in enumerate(found):
        if card.problem:
            print(f"warning: cuda:{number} ({card.name}) cannot be used: {card.problem}")
    if not sound:
        raise InputError(f"DEVICE = {wanted}: no GPU can be used, see above; free one, or take "
                         "--device cpu")
    local = place().local
    if local is not None and not wanted[5:]:
        sound = [sound[local % len(sound)]]
    return [torch.device("cuda", first) for first in sound]


def of_rank(first: torch.device, rank: int) -> torch.device:
    """The device of a rank of a run: GPUs from the worker's own on; all share the CPU."""
    return torch.device("cuda", first.index + rank) if first.type == "cuda" else first


# Asked in a process of its own: the parent of several workers must not keep a context on a card,
# which takes half a gigabyte of it, and all of it where a card admits one process only.
PROBE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
torch.cuda.init()
cards = []
for number in range(torch.cuda.device_count()):
    card, problem = torch.cuda.get_device_properties(number), None
    try:
        torch.ones(8, device=f"cuda:{number}").sum().item()
    except RuntimeError as error:
        problem = str(error).splitlines()[0][:160]
    cards.append([card.name, [card.major, card.minor], card.total_memory, problem])
print(json.dumps(cards))
"""


@lru_cache(maxsize=1)
def cards() -> tuple[Card, ...]:
    """The GPUs of this machine, each tried with a small kernel; InputError with the remedy if none.

    Asked once; CUDA_VISIBLE_DEVICES counts.
    """
    built = torch.version.cuda or torch.version.hip
    if built is None:
        raise InputError("this torch is a CPU-only build; TORCH_INDEX=URL ./setup.sh demo installs "
                         "another")
    reason = "no GPU and no driver found"
    if torch.cuda.is_available() or driver_present():
        asked = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True,
                               check=False)
        if asked.returncode == 0 and (found := json.loads(asked.stdout.splitlines()[-1])):
            return tuple(Card(name, (major, minor), memory, problem)
                         for name, (major, minor), memory, problem in found)
        reason = (asked.stderr.strip() or "it shows no GPU").splitlines()[-1][:160]
    raise InputError(f"torch (built for CUDA {built}) cannot use it: {reason}; update the driver, "
                     "or install a build for its CUDA version: TORCH_INDEX=URL ./setup.sh demo")


def driver_present() -> bool:
    """Whether an NVIDIA kernel driver is loaded."""
    return DRIVER.exists()


def described(device: torch.device) -> dict[str, str | None]:
    """Card, driver, CUDA and cuDNN of a device, for the records; all None for the CPU."""
    if device.type != "cuda":
        return dict(NO_CARD)
    text = DRIVER.read_text(encoding="utf-8") if driver_present() else ""
    driver = re.search(r"\s(\d+\.\d+(\.\d+)*)\s", text)
    return {"card": torch.cuda.get_device_name(device), "driver": driver[1] if driver else None,
            "cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}


def precision(wanted: str, places: Sequence[torch.device], *, sound_on_cpu: bool) -> str:
    """Resolve PRECISION = auto, float32 or bfloat16 for the devices that train.

    bfloat16 conv3d on the CPU now and then returns non-finite weight gradients at 2x2x2 inputs
    (torch 2.13 and 2.14; tests/test_traps.py reproduces it), so 3D stays float32 there. 2D takes
    it under auto where the processor has matrix units for it; elsewhere it would be slow. GPUs
    have it from BFLOAT16_FROM on.
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise InputError(f"PRECISION = {wanted}: expected auto, float32 or bfloat16")
    gpus = [cards()[device.index] for device in places if device.type == "cuda"]
    old = [card for card in gpus if card.capability < BFLOAT16_FROM]
    if wanted == "bfloat16" and old:
        raise InputError(f"PRECISION = bfloat16: {old[0].name} (compute capability "
                         f"{'.'.join(map(str, old[0].capability))}) has none, it begins with "
                         f"{'.'.join(map(str, BFLOAT16_FROM))}; take float32")
    if wanted == "bfloat16" and not gpus and not sound_on_cpu:
        raise InputError("PRECISION = bfloat16: 3D convolutions in bfloat16 on the CPU now and then"
                         " return non-finite gradients; take float32, or a GPU")
    if wanted != "auto":
        return wanted
    has_it = not old if gpus else sound_on_cpu and bfloat16_on_cpu()
    return "bfloat16" if has_it else "float32"


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


def memory(device: torch.device) -> int:
    """Bytes of memory of the device: of the GPU, or what this process may use of the machine's."""
    return cards()[device.index].memory if device.type == "cuda" else limits.memory()


def workers(settings: Settings, places: Sequence[torch.device], step_bytes: float) -> int:
    """Runs at a time in this process: WORKERS, or RUNS_PER_GPU a GPU, or as cores and memory allow.

    ``step_bytes`` is what the activations of the largest training step take in float32. One of
    several processes on a machine trains on its own GPU, or one run at a time on the CPU.
    """
    if settings.WORKERS:
        return int(settings.WORKERS)
    if places[0].type == "cuda":
        return len(places) * int(settings.RUNS_PER_GPU)
    if place().local is not None:
        return 1
    ranks = settings.RANKS_PER_RUN
    fit = int(0.8 * memory(places[0]) / (ranks * BASE_BYTES + KEPT * step_bytes))
    return max(1, min(limits.cores() // (settings.THREADS * ranks), fit))
