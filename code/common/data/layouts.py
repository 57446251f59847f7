"""Folders of scans as others lay them out -> cases, classes, channels; no voxel is read.

A time series among the unlabelled scans is a case for each of its volumes.

    dataset.json with "training"        Medical Segmentation Decathlon, MONAI's lists, nnU-Net v1
    dataset.json with "channel_names"   nnU-Net v2: imagesTr/case_0000.nii.gz, labelsTr/case.nii.gz
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from common.data.cache import Source
from common.data.opening import check_kind, check_there, is_there, say_left_out
from common.data.scans import KINDS, single, volumes
from common.data.values import Value
from common.errors import InputError, few

RESERVED = ("whole", "paper")  # dice_whole and dice_paper are scores of their own
MOST_CLASSES = 256             # label maps are kept as bytes
LABELLED = ("training", "validation")  # lists of labelled scans; who is tested on is chosen here
NUMBERED = re.compile(r"_(\d{4})$")    # of a channel's file in nnU-Net
MOST_CHANNELS = 6  # that a scan usually has; more numbered files are scans


def case_id(file: Path) -> str:
    """The file's name without .nii or .nii.gz."""
    return re.sub(r"\.nii(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def classes(content: Value) -> list[str]:
    """Class names by number, background first; {"0": "background"} and {"background": 0}."""
    expected = "the classes as {\"0\": \"background\", \"1\": \"organ\", ...}"
    labels = content.get("labels")
    if labels is None:
        raise InputError(f"{content.file}: expected 'labels', {expected}")
    found = labels.content if isinstance(labels.content, dict) else {}
    if regions := [name for name, number in found.items() if isinstance(number, list)]:
        raise InputError(f"{content.file}: {few(regions)}: regions made of several labels (nnU-Net)"
                         " cannot be learnt here; give each label a class of its own")
    if "ignore" in found:
        raise InputError(f"{content.file}: 'labels' has 'ignore', voxels that are not labelled; "
                         "every voxel needs a class here: leave out the cases that have it, and "
                         "its entry")
    names = labels.numbered(expected)
    if not 2 <= len(names) <= MOST_CLASSES:
        raise InputError(f"{content.file}: 'labels' has {len(names)} classes; expected 0, 1, 2, "
                         f"...: background and at least one, {MOST_CLASSES} at most")
    twice = [name for name in names if [n.strip() for n in names].count(name.strip()) > 1]
    if twice or (twice := [name for name in names[1:] if name.strip() in RESERVED]):
        raise InputError(f"{content.file}: the class name {twice[0]!a} is another class's or "
                         f"score's too ({few(RESERVED)} are scores); rename it in 'labels'")
    return names


def channels(content: Value) -> list[str]:
    """Channel names by number, of 'channel_names' or 'modality'; one, "?", where neither is."""
    for key in ("channel_names", "modality"):
        if (found := content.get(key)) is not None:
            return found.numbered("the channels as {\"0\": \"CT\", \"1\": \"PET\", ...}")
    return ["?"]


def cases(content: Value, count: int, *, unlabelled: bool) -> list[Source]:
    """The cases of a folder with dataset.json, labelled ones first, each part sorted by id.

    ``count``: of channels. InputError for what is listed and missing; what is not read is said.
    """
    path = content.file
    nnunet = content.get("training") is None and content.get("channel_names") is not None
    labelled, rest = (_nnunet if nnunet else _listed)(content, count, unlabelled)
    if not labelled:
        raise InputError(f"{path}: lists no labelled scan; expected some under 'training'")
    rest = _frames(sorted(rest, key=lambda s: s.id)) if count == 1 else rest
    sources = sorted(labelled, key=lambda s: s.id) + sorted(rest, key=lambda s: s.id)
    check_ids(path, sources)
    say_left_out(path.parent, [file for source in sources for file in source.files],
                 f"{path.name} does not list them" if unlabelled else "no label")
    return sources


def _frames(rest: list[Source]) -> list[Source]:
    """Unlabelled cases of one channel, a time series as one for each of its volumes; says how many.
    """
    made, series = list[Source](), dict[str, int]()
    for source in rest:
        count = volumes(source.image)
        if count == 1:
            made.append(source)
            continue
        series[source.id] = count
        digits = max(3, len(str(count - 1)))  # so that their order is that of time
        made += [replace(source, id=f"{source.id}@{frame:0{digits}d}", frame=frame)
                 for frame in range(count)]
    if series:
        print(f"note      {len(series)} unlabelled scans are time series ({few([*series], 3)}): "
              f"{sum(series.values())} volumes of the pool, each series of one patient")
    return made


def check_ids(path: Path, sources: list[Source]) -> None:
    """No id twice."""
    ids = [source.id for source in sources]
    if len(set(ids)) < len(ids):
        twice = sorted({case for case in ids if ids.count(case) > 1})
        raise InputError(f"{path}: case {twice[0]} is listed twice; each id must be unique")


def _listed(content: Value, count: int, unlabelled: bool) -> tuple[list[Source], list[Source]]:
    """Cases as dataset.json lists them; scans of imagesTs need no entry."""
    path = content.file
    training = content.get("training")
    if training is None or not isinstance(training.content, list):
        raise InputError(f"{path}: expected an object with a list 'training' (MSD layout) or with "
                         "'channel_names' (nnU-Net)")
    labelled = [_labelled(entry, count) for key in LABELLED if (part := content.get(key))
                for entry in part.items("a list of scans")]
    if moved := content.get("validation"):
        print(f"note      {len(moved.items())} labelled scans of 'validation' join those of "
              "'training': who is tested on is drawn from all")
    if not unlabelled:
        return labelled, []
    test = content.get("test")
    entries = test.items("a list of scans") if test else []
    rest = [_source(entry, count) for entry in entries]
    if more := sum(isinstance(entry.content, dict) and "label" in entry.content
                   for entry in entries):
        print(f"note      {more} scans of 'test' have labels; they are pretrained on without them. "
              "Move them to 'training' to use those")
    known = {file for source in rest for file in source.images}
    if any(case_id(source.image) != source.id for source in labelled):
        ending = labelled[0].image.name.partition(".")[2]
        return labelled, rest + [source for source in _numbered(
            path.parent / "imagesTs", f".{ending}", count) if source.image not in known]
    return labelled, rest + [
        Source(case_id(file), check_there(file))
        for file in sorted((path.parent / "imagesTs").glob("*.nii*"))
        if file not in known and not file.name.startswith("._")]


def _labelled(entry: Value, count: int) -> Source:
    found = entry.content
    if not isinstance(found, dict) or not {"image", "label"} <= found.keys():
        raise entry.wrong("an object with 'image' and 'label'")
    label = _file(Value(entry.file, found["label"], f"{entry.place}.label"))
    source = _source(entry, count)
    return Source(source.id, source.image, check_there(label, entry.file), more=source.more)


def _source(entry: Value, count: int) -> Source:
    """The image of an entry: a file, a list of one file a channel, or nnU-Net's numbered files."""
    image = entry
    if isinstance(entry.content, dict):
        image = Value(entry.file, entry.content.get("image"), f"{entry.place}.image")
    if isinstance(image.content, list) and image.content:
        files = [check_there(_file(one), entry.file) for one in image.items()]
        if len(files) not in (1, count):
            raise image.wrong(f"one file, or one for each of {count} channels")
        return Source(case_id(files[0]), files[0], more=tuple(files[1:]))
    file = _file(image)
    numbered = [file.with_name(f"{case_id(file)}_{c:04d}{file.name[len(case_id(file)):]}")
                for c in range(count)]
    if not is_there(file) and all(map(is_there, numbered)):
        return Source(case_id(file), numbered[0], more=tuple(numbered[1:]))
    return Source(case_id(file), check_there(file, entry.file))


def _file(value: Value) -> Path:
    """A file that dataset.json names."""
    name = value.text("the name of a file")
    file = value.file.parent / name
    if "\\" in name and not is_there(file):  # as Windows writes it
        file = value.file.parent / name.replace("\\", "/")
    check_kind(file, KINDS)
    return file


def _nnunet(content: Value, count: int, unlabelled: bool) -> tuple[list[Source], list[Source]]:
    """nnU-Net v2's raw folder: one numbered file a channel; labels without a number."""
    folder, ending = content.file.parent, content.get("file_ending")
    end = ending.text() if ending else ".nii.gz"
    check_kind(folder / f"imagesTr/case{end}", KINDS)
    labelled = []
    for label in _ending(folder / "labelsTr", end):
        name = label.name.removesuffix(end)
        images = _channels(folder / "imagesTr", name, end, count)
        if not images:
            raise InputError(f"{label}: has no image {name}_0000{end} in imagesTr; restore it, or "
                             "take the label away")
        labelled.append(Source(name, images[0], check_there(label), more=tuple(images[1:])))
    known = {source.id for source in labelled}
    rest = [source for source in _numbered(folder / "imagesTr", end, count)
            if source.id not in known] + _numbered(folder / "imagesTs", end, count)
    return labelled, rest if unlabelled else []


def _numbered(folder: Path, end: str, count: int) -> list[Source]:
    """Cases of a folder of numbered files, one a channel."""
    made = []
    for name in sorted({NUMBERED.sub("", file.name.removesuffix(end))
                        for file in _ending(folder, end)}):
        first, *more = _channels(folder, name, end, count)
        made.append(Source(name, first, more=tuple(more)))
    return made


def joined(scans: Mapping[str, Path], count: int) -> dict[str, list[Path]]:
    """Files by their ids as cases: those that nnU-Net numbers by channel are one; all its files.

    ``count``: of channels. InputError for a channel too few or too many, or a name twice.
    """
    cases: dict[str, list[Path]] = {}
    if count == 1 and (name := _like_channels(scans)):
        print(f"note      {name}_0000 and {name}_0001 are named like two channels of one scan; the "
              "network takes one channel: each file is taken for a scan of its own")
    groups: dict[tuple[Path, str], list[Path]] = {}
    for name, file in scans.items():
        if count > 1 and NUMBERED.search(name):
            groups.setdefault((file.parent.resolve(), NUMBERED.sub("", name)), []).append(file)
    parts = {group for group, files in groups.items() if all(map(single, files))}
    for name, file in scans.items():
        whole = NUMBERED.sub("", name)
        if (file.parent.resolve(), whole) not in parts or not NUMBERED.search(name):
            whole, files = name, [file]
        else:
            files = _channels(file.parent.resolve(), whole, file.name[len(case_id(file)):], count,
                              "the network")
        if cases.setdefault(whole, files) != files:
            raise InputError(f"{file}: would be case {whole} like {cases[whole][0]}; predict them "
                             "into two folders")
    if several := [files for files in cases.values() if len(files) > 1]:
        print(f"note      {len(several)} scans have their {count} channels in files of their own, "
              f"as nnU-Net has them: {several[0][0].name} ...")
    return cases


def _like_channels(names: Iterable[str]) -> str:
    """The first scan whose files are numbered as nnU-Net numbers channels, where all are; or ""."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(NUMBERED.sub("", name), []).append(name)
    numbered = [all(name == f"{whole}_{number:04d}" for number, name in enumerate(sorted(group)))
                and 1 < len(group) <= MOST_CHANNELS for whole, group in found.items()]
    return next(iter(found)) if found and all(numbered) else ""


def _ending(folder: Path, end: str) -> list[Path]:
    """Files of a folder with this end, sorted; none without the folder."""
    return sorted(file for file in folder.glob(f"*{end}") if not file.name.startswith("."))


def _channels(folder: Path, name: str, end: str, count: int,
              counted: str = "dataset.json") -> list[Path]:
    """A case's files, one a channel; none if there are none; InputError for too few or too many.

    ``counted``: what has so many channels.
    """
    there = [file for file in _ending(folder, end)
             if NUMBERED.sub("", file.name.removesuffix(end)) == name]
    wanted = [folder / f"{name}_{channel:04d}{end}" for channel in range(count)]
    if there and there != wanted:
        raise InputError(f"{folder}: case {name} has {few([file.name for file in there])}; expected"
                         f" {few([file.name for file in wanted])}, as {counted} has {count} "
                         "channels")
    return [check_there(file) for file in there]
