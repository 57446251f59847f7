"""Grade or classify new images with what exp.py has trained; a CSV, and where the network looked.

    python code/2d/predict.py --run results/2d/<dataset>/finetune/simclr/fraction100/seed0 \\
        IMAGES --to OUT
    ... --run .../seed0 --run .../seed1          several runs: the mean of their probabilities
    ... --heat                                   also OUT/<image>_heat.png: Grad-CAM beside it

IMAGES: files (png, jpg, tif) or folders of them. OUT/predictions.csv of grades: the grade; the
expected grade; for every grade k the probability that the grade is at least k. The grade is the
number of these above one half, less one, but never below 0: at_least_0 is near 1 in a trained
network, and in one that is hardly trained it may lower the grade. Of classes without an order: the
class, its number (their names sorted, from 0), the probability of each. Images that it has already
are left out, so that the same command goes on after a stop. Not for clinical use.
"""

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loader
import model
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from common.data.cache import Source
from common.errors import InputError, exit_status
from common.predict import command, overlay
from common.predict.command import Ensemble
from common.runs.trained import Trained

ALIKE = ("RESOLUTION", "GRADES", "CLASSES")
TABLE = "predictions.csv"  # in OUT
BATCH = 16  # images at a time


def main() -> int:
    """Predict every image that has no row yet."""
    parser = command.parser(__doc__, "images")
    parser.add_argument("--heat", action="store_true",
                        help="also OUT/<image>_heat.png: the image as the network sees it, and "
                             "Grad-CAM")
    asked = parser.parse_args()
    files = command.found(asked.files, lambda file: file.name if file.suffix.lower()
                          in loader.SUFFIXES else None, loader.SUFFIXES)
    networks = command.ensemble(asked, "2d", network, ALIKE)
    table, columns = command.make_out(asked) / TABLE, columns_of(networks)
    heats = heat_files(asked.to, files) if asked.heat else {}
    there = rows_of(table, columns)
    left = {name: file for name, file in files.items()
            if not done(name, table, there, heats.get(name), partial(networks.note, file))}
    if len(left) < len(files):
        print(f"kept      {len(files) - len(left)} of {len(files)} images are in {table} already")
    keep(table, columns, there)
    wrong: list[str] = []
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        for names, images in read(left, networks, wrong):
            notes = [networks.note(left[name]) for name in names]
            named = list(zip(names, notes, strict=True))
            for name, row in zip(names, answered(networks, heats, named, images), strict=True):
                if name not in there:
                    writer.writerow(row)
            file.flush()
    print(f"written   {table}")
    return command.ended(len(left), wrong, "image", networks.known)


def network(trained: Trained) -> model.Grader:
    """The DenseNet of a run with its head, without its weights."""
    s = trained.settings
    return model.Grader(model.Encoder(s["BLOCKS"], s["GROWTH"]),
                        s.get("CLASSES") or s["GRADES"])


def ordered(networks: Ensemble) -> bool:
    """Whether they grade; else their classes have no order."""
    return not networks.first.settings.get("CLASSES")


def columns_of(networks: Ensemble) -> list[str]:
    """Of the table."""
    names = networks.first.classes
    answer = of_grades if ordered(networks) else partial(of_classes, names)
    return ["image", *answer(torch.zeros(len(names))), "note"]


def of_grades(at_least: Tensor) -> dict[str, object]:
    """What the table says of an image, from P(grade >= k) of every k: (grades,).

    The grade as exp.py decodes it, from every column that is shown: above one half, less one.
    """
    return {"grade": max(0, int((at_least > 0.5).sum()) - 1),
            "expected": f"{float(at_least[1:].sum()):.4f}",
            **{f"at_least_{grade}": f"{float(value):.4f}" for grade, value in enumerate(at_least)}}


def of_classes(names: Sequence[str], shares: Tensor) -> dict[str, object]:
    """What the table says of an image, from the probability of every class: (classes,)."""
    number = int(shares.argmax())
    return {"class": names[number], "number": number,
            **{f"probability_{name}": f"{float(value):.4f}"
               for name, value in zip(names, shares, strict=True)}}


def heat_files(out: Path, names: Collection[str]) -> dict[str, Path]:
    """Where the heat map of each image lies; ``names`` have their extension, as the table has them.

    a.png gets a_heat.png, and a.png_heat.png only where a.jpg is asked for too.
    """
    stems = Counter(Path(name).stem for name in names)
    return {name: out / f"{stem if stems[stem] == 1 and stem not in names else name}_heat.png"
            for name in names for stem in [Path(name).stem]}


def rows_of(table: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """The whole rows of a table that is there, by image; InputError if it is not one of ours.

    A last line without its end was cut by a stop, and goes.
    """
    if not table.exists():
        return {}
    try:
        text = table.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(io.StringIO(text[:text.rfind("\n") + 1]))
        rows, found = list(reader), reader.fieldnames
    except (OSError, UnicodeDecodeError, csv.Error):
        rows, found = [], None
    if found == [column for column in columns if column != "at_least_0"]:
        raise InputError(f"{table}: of an earlier version, without at_least_0; give another --to")
    if found != list(columns) or not all((row["note"] or "").startswith(command.NOTE)
                                         for row in rows):
        raise InputError(f"{table}: is there and was not made by predict.py; give another --to")
    return {row["image"]: row for row in rows}


def done(name: str, table: Path, there: Mapping[str, Mapping[str, str]], heat: Path | None,
         note: Callable[[], str]) -> bool:
    """Whether all that is asked of an image is there: its row, and its ``heat`` map if not None.

    InputError if what is there is of another image or network.
    """
    if name not in there and not (heat and heat.exists()):
        return False  # and the image need not be read
    said = note()
    if name in there and there[name]["note"] != said:
        raise InputError(f"{table}: {name} is there with other weights, or is another "
                         f"image of that name ({there[name]['note']}); give another --to")
    drawn = heat is None or command.ours(heat, said, overlay.note_of)
    return name in there and drawn


def keep(table: Path, columns: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> None:
    """Begin the table with the rows that are kept; a row that was cut by a stop goes."""
    partial_file = table.with_name(f".partial.{table.name}")
    with partial_file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    partial_file.replace(table)


def read(files: Mapping[str, Path], networks: Ensemble, wrong: list[str]
         ) -> Iterator[tuple[list[str], Tensor]]:
    """Names and images (B, 3, R, R) uint8, a batch after another; who cannot be read is named."""
    prepare = partial(loader.preprocess, resolution=networks.first.settings["RESOLUTION"])
    names: list[str] = []
    images: list[Tensor] = []
    for number, (name, file) in enumerate(command.bar(files, "image"), 1):
        try:
            image, _, facts = prepare(Source(name, file))
            images.append(torch.from_numpy(np.ascontiguousarray(image)))
            names.append(name)
            networks.look(name, facts["pixels"])
        except InputError as error:
            wrong.append(name)
            tqdm.write(f"error: {error}", file=sys.stderr)
        if names and (len(names) == BATCH or number == len(files)):
            yield names, torch.stack(images)
            names, images = [], []


def answered(networks: Ensemble, heat_of: Mapping[str, Path], named: Sequence[tuple[str, str]],
             images: Tensor) -> list[dict[str, object]]:
    """A row an image, and its heat map if ``heat_of`` has files; ``named``: names and notes."""
    shown, grades = images.to(networks.device).float() / 255, ordered(networks)
    with torch.inference_mode():
        logits = [one(shown).float() for one in networks.networks]
        shares = torch.stack([one.sigmoid() if grades else one.softmax(1) for one in logits]
                             ).mean(0).cpu()  # (B, labels); of grades that it is at least each
    if not shares.isfinite().all():
        raise InputError(f"{networks.first.file}: its network answers with what is no number; "
                         "train the run again")
    answer = of_grades if grades else partial(of_classes, networks.first.classes)
    rows = [{"image": name, **answer(row), "note": note}
            for (name, note), row in zip(named, shares, strict=True)]
    if heat_of:
        heats = heat_maps(networks, shown, None if grades else shares.argmax(1))
        for row, image, heat in zip(rows, images, heats, strict=True):
            said = f"grade {row['grade']}, expected {row['expected']}" if grades else row["class"]
            overlay.save(overlay.captioned(
                overlay.warm(image.permute(1, 2, 0).numpy(), heat.numpy()),
                [(f"{said}; warm: what raises it", overlay.WHITE)]),
                heat_of[str(row["image"])], str(row["note"]))
    return rows


def heat_maps(networks: Ensemble, images: Tensor, classes: Tensor | None = None) -> Tensor:
    """Grad-CAM of the expected grade, 0 to 1: (B, 3, H, W) -> (B, H, W), the mean of the networks.

    Selvaraju et al. 2017: the last maps, weighted by the mean gradient of each, rectified. What
    raises the grade is warm; with ``classes``, a class an image, (B,), what raises its logit.
    """
    total = images.new_zeros(len(images), *images.shape[2:])
    for one in networks.networks:
        assert isinstance(one, model.Grader)
        with torch.no_grad():
            maps = one.encoder.stages(images)[-2]
        maps.requires_grad_()
        logits = one.head(F.adaptive_avg_pool2d(maps, 1).flatten(1))
        explained = (logits[:, 1:].sigmoid().sum() if classes is None
                     else logits.gather(1, classes.to(logits.device)[:, None]).sum())
        gradient, = torch.autograd.grad(explained, maps)
        cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
        cam = F.interpolate(cam, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
        total += cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-12)
    return (total / len(networks.networks)).cpu()


if __name__ == "__main__":
    sys.exit(exit_status(main))
