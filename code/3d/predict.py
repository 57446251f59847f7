"""Segment new scans with what exp.py has trained; label maps in each scan's own grid.

    python code/3d/predict.py --run results/3d/<dataset>/finetune/mae/fraction100/seed0 \\
        SCANS --to OUT
    ... --run .../seed0 --run .../seed1          several runs: the mean of their probabilities
    ... --probabilities --overlays               also each class's probability, and pictures

SCANS: NIfTI files or folders of them, any orientation, with the channels of the training data: in
one file, or in nnU-Net's <scan>_0000.nii.gz, <scan>_0001.nii.gz.
OUT/<scan>.nii.gz has the scan's grid, orientation and affine. Scans that OUT has already are left
out, so that the same command goes on after a stop. Not for clinical use.
"""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader
import model
import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from common.data import layouts, opening
from common.downstream import native
from common.errors import InputError, exit_status
from common.predict import command, overlay
from common.predict.command import Ensemble
from common.report.figures.examples import colours
from common.runs.trained import Trained

ALIKE = ("RESOLUTION", "INTENSITY")  # how a scan is preprocessed


def main() -> int:
    """Predict every scan that has no output yet."""
    parser = command.parser(__doc__, "scans")
    parser.add_argument("--probabilities", action="store_true",
                        help="also OUT/<scan>_probabilities.nii.gz: (X, Y, Z, classes)")
    parser.add_argument("--overlays", action="store_true",
                        help="also OUT/<scan>.png: outlines in three planes")
    asked = parser.parse_args()
    files = command.found(asked.files, lambda file: loader.case_id(
        file) if file.name.lower().endswith(opening.SCANS) else None, opening.SCANS)
    with_networks = command.ensemble(asked, "3d", network, ALIKE)
    scans = layouts.joined(files, len(with_networks.first.about["channels"]))
    named = [path for name in scans for path in outputs(name, asked)]
    if twice := sorted({path.name for path in named if named.count(path) > 1}):
        raise InputError(f"{twice[0]}: would be written for two scans; predict them into two "
                         "folders")
    command.make_out(asked)
    left = {name: channels[0] for name, channels in scans.items()
            if not done(name, channels, asked, with_networks)}
    if len(left) < len(scans):
        print(f"kept      {len(scans) - len(left)} of {len(scans)} scans are in {asked.to} "
              "already, from these weights")
    return command.each(left, partial(predict, with_networks, asked, scans), "scan",
                        with_networks.known)


def network(trained: Trained) -> model.UNet:
    """The U-Net of a run, without its weights."""
    s = trained.settings
    return model.UNet(model.Encoder(len(trained.about["channels"]), s["FILTERS"], s["LEVELS"]),
                      len(trained.classes) + 1)


def outputs(name: str, asked: argparse.Namespace) -> list[Path]:
    """The files that are made of a scan, the label map last: it says that all are there."""
    return [*[asked.to / f"{name}_probabilities.nii.gz"] * asked.probabilities,
            *[asked.to / f"{name}.png"] * asked.overlays, asked.to / f"{name}.nii.gz"]


def done(name: str, scan: list[Path], asked: argparse.Namespace, networks: Ensemble) -> bool:
    """Whether all that is asked of a scan is there; InputError if another's has its name."""
    if not any(path.exists() for path in outputs(name, asked)):
        return False  # and the scan need not be read
    note = networks.note(*scan)
    there = [command.ours(path, note, overlay.note_of if path.suffix == ".png" else said_by)
             for path in outputs(name, asked)]  # each is looked at
    return all(there)


def said_by(path: Path) -> str:
    """What a NIfTI file says of itself."""
    made: Any = nib.load(path)
    return bytes(made.header["descrip"].item()).decode()


def predict(networks: Ensemble, asked: argparse.Namespace, scans: Mapping[str, list[Path]],
            name: str, scan: Path) -> str:
    """Write what is asked of a scan; returns the volume of every class."""
    first, note = networks.first, networks.note(*scans[name])
    volume, spacing = loader.read_scan(scans[name], len(first.about["channels"]))
    networks.look(name, loader.digest(volume))
    image, box = loader.seen(volume, scan, resolution=first.settings["RESOLUTION"],
                             intensity=first.settings["INTENSITY"])
    probabilities = answer(networks, image)
    labels = native.in_box(probabilities, volume.shape[:3], box)
    if asked.probabilities:
        whole = np.zeros((*volume.shape[:3], len(probabilities)), np.float32)
        whole[..., 0] = 1  # outside the body is background
        size = [side.stop - side.start for side in box]
        for number, one in enumerate(native.enlarged(probabilities, size)):
            whole[..., number][box] = one.numpy()
        write(loader.in_its_grid(whole, scan, note),
              asked.to / f"{name}_probabilities.nii.gz")
        del whole
    if asked.overlays:
        tints = colours(len(first.classes))
        overlay.save(overlay.captioned(
            overlay.planes(volume[..., 0], labels, spacing, tints),
            [*zip(first.classes, tints, strict=True), ("right of the subject on the right",
                                                       overlay.WHITE)]),
            asked.to / f"{name}.png", note)
    write(loader.in_its_grid(labels, scan, note), asked.to / f"{name}.nii.gz")
    millilitres = np.bincount(labels.ravel(), minlength=len(probabilities)) * np.prod(spacing) / 1e3
    return ", ".join(f"{one} {amount:.4g} ml" for one, amount
                     in zip(first.classes, millilitres[1:], strict=True))


def answer(networks: Ensemble, image: np.ndarray) -> Tensor:
    """Probabilities of every class on the networks' grid: (C, R, R, R) -> (K, R, R, R), the mean.
    """
    volume = torch.from_numpy(image).to(networks.device).float()[None]
    with torch.inference_mode():
        several = [network(volume)[0].float().softmax(0) for network in networks.networks]
        mean = torch.stack(several).mean(0).cpu()
    if not mean.isfinite().all():
        raise InputError(f"{networks.first.file}: its network answers with what is no number; "
                         "train the run again")
    return mean


def write(image: nib.Nifti1Image, path: Path) -> None:
    """Write a NIfTI file, whole or not at all."""
    partial_file = path.with_name(f".partial.{path.name}")
    try:
        nib.save(image, partial_file)
        partial_file.replace(path)
    finally:
        partial_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(exit_status(main))
