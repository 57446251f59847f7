"""Scores in the scan's own grid: as an independent library has them, and from whole runs."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Trial, alone, call
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from common.downstream import native
from common.runs.stages import mean_of_known

RUN = "finetune/rotation/fraction100/seed0"
SHAPE, SPACING = (22, 18, 14), (0.7, 1.3, 2.5)


def shapes(seed: int, sigma: float = 2.0) -> np.ndarray:
    """A smooth random label map of two foreground classes, at the edge of the grid too."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), sigma)
    return np.digitize(noise, np.quantile(noise, [0.6, 0.85])).astype(np.uint8)


@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0)])
def test_distances_and_shares_are_those_of_monai(spacing: Sequence[float]) -> None:
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    for seed in range(6):
        truth, predicted = shapes(seed), shapes(seed + 100 * (seed % 2), 2.2)
        found = native.scores(truth, predicted, ["a", "b"], spacing)
        coded = [F.one_hot(torch.from_numpy(one).long(), 3).permute(3, 0, 1, 2)[None]
                 for one in (predicted, truth)]
        dice = compute_dice(*coded, include_background=False)[0]
        distance = compute_hausdorff_distance(*coded, percentile=95, spacing=list(spacing))[0]
        share = compute_surface_dice(*coded, class_thresholds=[1.0, 1.0], spacing=list(spacing))[0]
        for number, name in enumerate("ab"):
            for kind, wanted in (("native_dice", dice), ("hd95", distance), ("nsd", share)):
                assert found[f"{kind}_{name}"] == pytest.approx(float(wanted[number]), abs=1e-5)
        assert found["hd95"] == pytest.approx(float(distance.mean()), rel=1e-5)


def test_surfaces_are_found_wherever_they_lie() -> None:
    mask = np.zeros((9, 8, 7), bool)
    mask[2:7, 3:8, 1:6] = True
    points = {tuple(point) for point in native.surface(mask, (1, 2, 3)) / (1, 2, 3)}
    assert points == {place for place in map(tuple, np.argwhere(mask)) if not
                      all(low < at < high - 1 for at, low, high in
                          zip(place, (2, 3, 1), (7, 8, 6), strict=True))}
    assert native.surface(np.zeros((4, 4, 4), bool), (1, 1, 1)).shape == (0, 3)


def test_a_class_that_is_missed_or_invented_costs_the_diagonal() -> None:
    truth, nothing = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    truth[4:9, 4:9, 4:9] = 1
    diagonal = math.dist((0, 0, 0), [side * size for side, size in
                                     zip(SHAPE, SPACING, strict=True)])
    for one, other in ((truth, nothing), (nothing, truth)):
        found = native.scores(one, other, ["a", "b"], SPACING)
        assert (found["native_dice_a"], found["nsd_a"]) == (0, 0)
        assert found["hd95_a"] == found["hd95"] == pytest.approx(diagonal)
        assert found["native_dice_b"] is found["hd95_b"] is found["nsd_b"] is None
    whole = native.scores(truth, truth, ["a"], SPACING)
    assert (whole["native_dice"], whole["hd95"], whole["nsd"]) == (1, 0, 1)


def test_the_most_likely_class_of_all() -> None:
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(5, 6, 6, 6, generator=rng).softmax(0)
    for size in ((13, 9, 7), (3, 4, 5)):
        whole = F.interpolate(probabilities[None], size=size, mode="trilinear",
                              align_corners=False)[0]
        assert np.array_equal(native.most_likely(probabilities, size), whole.argmax(0).numpy())


def test_a_scan_is_background_outside_of_its_box() -> None:
    probabilities = torch.zeros(2, 4, 4, 4)
    probabilities[1] = 1
    labels = native.in_box(probabilities, (9, 8, 7), [slice(1, 6), slice(2, 8), slice(0, 3)])
    wanted = np.zeros((9, 8, 7), np.uint8)
    wanted[1:6, 2:8, 0:3] = 1
    assert labels.dtype == np.uint8 and np.array_equal(labels, wanted)


def test_a_run_scores_its_test_cases_in_their_own_grid(trial_3d: Trial) -> None:
    import nibabel as nib

    run = trial_3d.runs(trial_3d.folder) / RUN
    scores = json.loads((run / "scores.json").read_text())
    with alone("3d"):
        import loader
        import predict

        from common.predict.command import Ensemble
        from common.runs import trained

        one = trained.read(run, "3d")
        network = predict.network(one)
        network.load_state_dict(one.weights)
        networks = Ensemble([one], [network.eval()], torch.device("cpu"))
        for case, figures in scores["cases"].items():
            file = trial_3d.data / f"imagesTr/{case}.nii.gz"
            volume, spacing = loader.read_scan([file], 1)
            image, box = loader.seen(volume, file, resolution=16, intensity="percentile")
            predicted = native.in_box(predict.answer(networks, image), volume.shape[:3], box)
            label = nib.as_closest_canonical(nib.load(trial_3d.data / f"labelsTr/{case}.nii.gz"))
            wanted = native.scores(np.asarray(label.dataobj).astype(np.uint8), predicted,
                                   one.classes, spacing)
            assert {name: figures[name] for name in wanted} == pytest.approx(wanted)
    for name in ("native_dice", "hd95", "nsd", f"hd95_{one.classes[-1]}"):
        known = [case[name] for case in scores["cases"].values() if case[name] is not None]
        assert scores["test"][name] == pytest.approx(np.mean(known))


def test_a_class_counts_where_it_is() -> None:
    assert mean_of_known([1.0, None, 0.5]) == 0.75 and mean_of_known([None]) is None


def test_tables_and_figures_have_what_all_runs_have(trial_3d: Trial, tmp_path: Path) -> None:
    def named() -> set[str]:
        said = call("3d/graph.py", "--results", tmp_path / "results")
        assert said.returncode == 0, said.stderr
        with (tmp_path / "results/train_ctphantom.csv").open(newline="") as file:
            return {row["measure"] for row in csv.DictReader(file)}

    trial_3d.copy(tmp_path)
    kinds = {"native_dice", "hd95", "nsd"}
    assert kinds < named()
    table = (tmp_path / "results/train_ctphantom.md").read_text()
    assert "### HD95, mm (lower is better)\n" in table
    path = trial_3d.runs(tmp_path) / RUN / "scores.json"  # as a run of an earlier version
    scores = json.loads(path.read_text())
    for figures in (scores["test"], *scores["cases"].values()):
        for name in [name for name in figures if name.startswith(tuple(kinds))]:
            del figures[name]
    path.write_text(json.dumps(scores))
    assert not kinds & named()


def test_without_true_spacing_nothing_is_in_mm(trial_3d: Trial, tmp_path: Path) -> None:
    said = trial_3d.run(tmp_path, "--no-millimetres", "--tasks", "baseline", "--fractions", 100)
    assert said.returncode == 0, said.stderr
    path = "finetune/baseline/fraction100/seed0/scores.json"
    plain, mm = (json.loads((trial_3d.runs(folder) / path).read_text())
                 for folder in (tmp_path, trial_3d.folder))
    assert "native_dice" in plain["test"] and not {"hd95", "nsd"} & plain["test"].keys()
    assert plain["test"].items() <= mm["test"].items()  # no number depends on it
    one = next(iter(plain["cases"].values()))
    assert "native_dice" in one and not any(name.startswith(("hd95", "nsd")) for name in one)
