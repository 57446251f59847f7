"""What machine this is: card, driver, versions, cores, memory, commit. A part of gpu.sh.

    python code/bench/gpu/machine.py --out FOLDER      writes FOLDER/machine.txt, seconds

Needs little more than torch. The last line printed sums it up; exit status NO_CARD if a card is
asked for and torch cannot use one.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from common.files import ROOT
from common.machine import limits

NO_CARD = 3  # gpu.sh then stops
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "nibabel", "scikit-learn", "matplotlib",
            "isal", "pytest")
QUERY = "name,driver_version,memory.total,power.limit,clocks.max.sm,compute_mode,mig.mode.current"


def main() -> int:
    """Write the file, print it, and try the card."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--smoke", action="store_true", help="changes nothing here")
    asked = parser.parse_args()
    lines = [f"python    {platform.python_version()}",
             f"packages  {', '.join(f'{name} {_version(name)}' for name in PACKAGES)}",
             f"cuda      {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}",
             f"driver    {_driver()}", *_cards(),
             f"system    {platform.platform()}",
             f"cores     {limits.cores()} of {os.cpu_count()}, {_processor()}",
             f"memory    {limits.memory() / 2**30:.1f} GiB",
             f"commit    {_said('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}",
             f"code      {_digest()}"]
    text = "\n".join(lines) + "\n"
    (asked.out / "machine.txt").write_text(text, encoding="utf-8")
    print(text, end="")
    problem = None if asked.device == "cpu" else _problem(asked.device)
    name = "CPU only" if asked.device == "cpu" else problem or torch.cuda.get_device_name()
    print(f"{name}; torch {torch.__version__}, python {platform.python_version()}")
    return NO_CARD if problem else 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _driver() -> str:
    """The driver in its own words; torch's are those of _cards()."""
    said = _said("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader")
    file = Path("/proc/driver/nvidia/version")
    return said or (file.read_text(encoding="utf-8").splitlines()[0] if file.exists() else "none")


def _cards() -> list[str]:
    """Every card that torch sees."""
    every = [torch.cuda.get_device_properties(number) for number in range(
        torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [f"card {number}    {card.name}, capability {card.major}.{card.minor}, "
            f"{card.total_memory / 2**30:.1f} GiB, {card.multi_processor_count} processors"
            for number, card in enumerate(every)] or ["cards     none"]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines
                 if line.startswith("model name")), platform.machine())


def _said(*command: str) -> str:
    """What a command prints; nothing if it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False,
                              timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _digest() -> str:
    """Of the code measured, for copies without git."""
    files = sorted(file for kind in ("*.py", "*.sh") for file in (ROOT / "code").rglob(kind))
    text = "".join(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
                   for file in files)
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]} of {len(files)} files"


def _problem(device: str) -> str | None:
    """Why the card cannot be used; None if a small kernel ran on it."""
    try:
        torch.ones(8, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        return f"no usable card: {str(error).splitlines()[0][:160]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
