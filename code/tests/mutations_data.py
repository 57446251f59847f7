"""Mutations of what is read: scans, photographs, splits, subsets, duplicates, the cache."""

TABLE = {
    "test_heldout.py::test_the_pool_is_the_training_cases_and_the_unlabelled_that_are_no_twins": [
        ("leakage: the pool is checked", "    check_no_leakage(part, pool)\n", ""),
        ("duplicates: the pool is without them",
         "dropped = set(duplicates(cache).unlabelled)", "dropped: set[str] = set()"),
    ],
    "test_heldout.py::test_a_leak_in_any_fold_stops_before_training": [
        ("leakage: every fold is checked", "for part in made.every():", "for part in made.every()[:1]:"),
    ],
    "test_heldout.py::test_splits_of_an_earlier_version_are_named_and_set_aside": [
        ("splits of an earlier version are named",
         'if isinstance(old, dict) and "train" in old and "folds" not in old:', "if False:"),
    ],
    "test_heldout.py::test_twins_are_on_one_side_and_contradictions_in_no_part": [
        ("duplicates: contradicting ones are in no split",
         "if case not in twins.contradicting},", "},"),
        ("duplicates: splits keep groups together", "if patients else twins.groups,\n",
         "if patients else {},\n"),
    ],
    "test_heldout.py::test_strict_stops_at_any_duplicate": [
        ("duplicates: --strict stops",
         "if settings.STRICT and any(twins):", "if settings.STRICT and all(twins):"),
    ],
    "test_heldout.py::test_splits_are_read_as_they_were_written": [
        ("splits are read, not made again",
         'return Splits(old["seed"], old["val"], old["folds"], old["rest"], made.groups)',
         "return made"),
    ],
    "test_heldout.py::test_splits_of_other_data_are_refused_or_set_aside": [
        ("splits of other data are refused",
         'changed = [*differences(old.get("contents", {}), contents),',
         "changed = [*differences({}, {}),"),
        ("splits of other folds are refused",
         '*differences(len(old["folds"]), len(made.folds), "FOLDS")]', "]"),
    ],
    "test_loader_2d.py::test_the_retina_is_cropped_squared_and_nothing_of_it_lost": [
        ("photographs: specks do not widen the box", "SPECKS = 0.02 ", "SPECKS = 0.0 "),
    ],
    "test_loader_3d.py::test_every_orientation_gives_the_same_arrays": [
        ("scans: canonical orientation",
         "image = nib.as_closest_canonical(image)", "image = image"),
    ],
    "test_loader_3d.py::test_the_cache_is_made_once_and_anew_for_other_contents": [
        ("cache: damage is noticed", "if _crc32(folder / name) != crc]", "if crc is None]"),
    ],
    "test_loader_promises.py::test_labels_that_only_linear_resizing_would_invent_are_not_there": [
        ("scans: nearest for labels", "resize(label[box], resolution, order=0)",
         "resize(label[box].astype(float), resolution, order=1).round().astype(np.uint8)"),
        ("scans: linear for images", "resize(one, resolution, order=1) for one in scaled",
         "resize(one, resolution, order=0) for one in scaled"),
    ],
    "test_loader_promises.py::test_image_and_label_are_cropped_to_the_body_alike": [
        ("scans: the label is cropped as its image",
         "resize(label[box], resolution, order=0)", "resize(label, resolution, order=0)"),
        ("scans: 0.5 to 99.5 percentiles", "PERCENTILES = (0.5, 99.5)", "PERCENTILES = (5, 95)"),
        ("scans: the box includes its last plane",
         "slice(int(inside[0]), int(inside[-1]) + 1)", "slice(int(inside[0]), int(inside[-1]))"),
        ("scans: a digest of the voxels finds duplicates",
         '"pixels": digest(volume)}', '"pixels": digest(volume[:1])}'),
    ],
    "test_loader_promises.py::test_the_body_is_what_exceeds_a_twentieth_in_any_channel": [
        ("scans: body above .05 of the scaled intensity", "BODY = 0.05 ", "BODY = 0.5 "),
        ("scans: body in any channel",
         "body |= volume[..., channel] >", "body = volume[..., channel] >"),
    ],
    "test_loader_promises.py::test_every_channel_has_its_own_intensities_and_place": [
        ("scans: a channel has its own intensities",
         "scale(volume[..., c][box], *limits[c])", "scale(volume[..., c][box], *limits[0])"),
        ("scans: channels keep their order",
         "scale(volume[..., c][box], *limits[c]) for c in channels",
         "scale(volume[..., -1 - c][box], *limits[-1 - c]) for c in channels"),
    ],
    ("test_loader_promises.py::test_a_label_of_another_orientation_or_of_too_high_a_class_is_refuse"
     "d"): [
        ("scans: a label of another orientation is refused", " or label_axes != axes:", ":"),
    ],
    "test_loader_promises.py::test_facts_hold_millimetres_classes_and_digests": [
        ("scans: foreground in mm^3",
         "np.count_nonzero(label) * np.prod(scan.spacing)", "np.count_nonzero(label)"),
        ("scans: classes seen", "number for number in range(classes) if (label == number).any()",
         "number for number in range(1, classes) if (label == number).any()"),
    ],
    ("test_loader_promises.py::test_images_are_resized_linearly_between_voxel_centres_and_labels_by_"
     "the_nearest"): [
        ("scans: voxel centres alike in image and label",
         'mode="nearest", grid_mode=True,', 'mode="nearest", grid_mode=False,'),
    ],
    ("test_loader_promises.py::test_scans_are_sorted_by_id_classes_by_number_and_apple_doubles_left_"
     "out"): [
        ("scans: sorted by id",
         "sorted(labelled, key=lambda s: s.id) + sorted(rest, key=lambda s: s.id)\n    "
         "check_ids(path",
         "labelled + rest\n    check_ids(path"),
        ("scans: AppleDouble files are left out",
         'if file not in known and not file.name.startswith("._")]',
         "if file not in known]"),
        ("scans: classes by number, whichever way they are written",
         "(value, key) if type(value) is int else (key, value)", "(value, key)"),
    ],
    "test_loader_promises.py::test_every_scan_has_its_own_row_label_and_facts": [
        ("scans: strata are terciles of the volume",
         'terciles({case: fact["foreground"] for', "terciles({case: len(fact) for"),
        ("cache: facts in the order of rows",
         "facts[source.id] = fact", "facts[sources[-1 - row].id] = fact"),
        ("cache: label maps in the order of rows",
         "            labels[row] = label", "            labels[-1 - row] = label"),
        ("cache: the key has the contents", 'key = digest({"contents": contents, "settings"',
         'key = digest({"contents": list(contents), "settings"'),
        ("cache: the key has the settings",
         '"settings": how.settings, "format": FORMAT})', '"format": FORMAT})'),
        ("cache: a label file is part of a case's content",
         "for file in source.files)])", "for file in source.files[:1])])"),
        ("cache: a changed file is read again",
         "[:3] != stamps[str(file)]]", "[:1] != stamps[str(file)][:1]]"),
    ],
    "test_loader_promises.py::test_colours_rows_and_columns_keep_their_order": [
        ("photographs: right edge",
         "int(columns[-1]) + 1, int(rows[-1]) + 1", "int(columns[-1]), int(rows[-1]) + 1"),
        ("photographs: any bright channel is retina",
         "bright = pixels.max(axis=2) > DARK", "bright = pixels[..., 2] > DARK"),
        ("photographs: red, green, blue", "np.asarray(square).transpose(2, 0, 1)",
         "np.asarray(square)[..., ::-1].transpose(2, 0, 1)"),
        ("photographs: rows, then columns",
         "np.asarray(square).transpose(2, 0, 1)", "np.asarray(square).transpose(2, 1, 0)"),
    ],
    "test_loader_promises.py::test_a_tall_retina_lies_in_the_middle_and_whole": [
        ("photographs: nothing of the retina is lost",
         'scale = resolution / max(facts["retina"])', 'scale = resolution / min(facts["retina"])'),
    ],
    "test_loader_promises.py::test_smaller_images_are_averages_not_samples": [
        ("photographs: antialiasing",
         "Image.Resampling.BILINEAR, box=box", "Image.Resampling.NEAREST, box=box"),
    ],
    "test_loader_promises.py::test_photographs_are_turned_upright": [
        ("photographs: upright", "image = ImageOps.exif_transpose(opened)", "image = opened"),
    ],
    "test_loader_promises.py::test_equal_bytes_of_another_shape_are_another_picture": [
        ("photographs: the digest has the size",
         "hashlib.sha256(repr(image.size).encode() + pixels", "hashlib.sha256(pixels"),
    ],
    "test_loader_promises.py::test_every_row_of_the_csv_has_its_own_image_and_grade": [
        ("photographs: sorted by id",
         "sorted(labelled, key=lambda s: s.id) + sorted(rest, key=lambda s: s.id),\n",
         "labelled + rest,\n"),
        ("photographs: strata are grades",
         'return {case: fact["truth"] for case, fact', "return {case: 0 for case, fact"),
        ("photographs: labels do not shift",
         "labelled.append(Source(found[0].stem, found[0], target=number))",
         "labelled.append(Source(found[0].stem, files[len(labelled)], target=number))"),
        ("cache: a grade is part of a case's content",
         "digest([source.target, *(known", "digest([None, *(known"),
    ],
    "test_protocol.py::test_subsets_are_nested_stratified_seeded_and_hold_every_class": [
        ("subset: stratified", "order = stratified_order({case: strata[case] for case in train}",
         "order = stratified_order({case: 0 for case in train}"),
    ],
    "test_science_2d.py::test_contradicting_duplicates_are_left_out_and_others_stay_together": [
        ("duplicates: contradicting ones are left out",
         'agree = [len({cache.facts[case]["truth"] for case in cases}) == 1 for cases in twins]',
         "agree = [True for cases in twins]"),
        ("duplicates: unlabelled twins leave the pool",
         'if cache.facts[case]["pixels"] in same])', 'if cache.facts[case]["pixels"] in {}])'),
    ],
    "test_splits.py::test_a_tenth_chooses_and_every_other_case_is_tested_once_in_as_many_seeds": [
        ("folds: everybody is tested once", "edges = [val + (len(order) - val) * fold // folds",
         "edges = [val + (len(order) - val - 1) * fold // folds"),
        ("folds: validation is in none", "edges = [val + (len(order) - val) * fold // folds",
         "edges = [len(order) * fold // folds"),
        ("folds: trained on the others", "for number, cases in enumerate(self.folds) if number != fold",
         "for number, cases in enumerate(self.folds) if number != 0"),
    ],
    "test_splits.py::test_every_stratum_has_its_share_of_validation_and_of_each_fold": [
        ("folds: stratified", "parts = [order[:val], *(order[a:b] for a, b in pairwise(edges)), []]",
         "order = sorted(order)\n        parts = [order[:val], *(order[a:b] for a, b in pairwise(edges)), []]"),
    ],
    "test_splits.py::test_too_few_cases_are_refused_with_the_number_needed_and_the_way_out": [
        ("folds: two cases in each", "if n - _validation(n) >= LEAST * max(2, number))",
         "if n - _validation(n) >= max(2, number))"),
    ],
    "test_splits.py::test_with_one_fold_a_fifth_is_tested_on_and_a_tenth_chooses": [
        ("hold-out: 20 % test", "TEST = 0.2 ", "TEST = 0.1 "),
        ("hold-out: 10 % validation", "VALIDATION = 0.1 ", "VALIDATION = 0.2 "),
    ],
    "test_splits.py::test_every_stratum_has_its_share_of_the_test_set": [
        ("hold-out: stratified", "order = stratified_order({name: strata[cases[0]] for",
         "order = stratified_order({name: 0 for"),
    ],
    "test_splits.py::test_a_group_is_never_parted_and_counts_as_one": [
        ("hold-out: duplicates stay together",
         "members.setdefault(groups.get(case, case), [])", "members.setdefault(case, [])"),
    ],
    "test_splits.py::test_the_ith_of_a_stratum_lies_within_the_ith_part_of_the_order": [
        ("order: the i-th of n gets (i + u) / n", "((i + rng.random()) / len(cases), str(case))",
         "((i + 1 + rng.random()) / len(cases), str(case))"),
        ("order: places, not ranks",
         "((i + rng.random()) / len(cases), str(case))", "(i + rng.random(), str(case))"),
        ("order: the seed counts", "rng = np.random.default_rng([seed, _number(purpose)])",
         "rng = np.random.default_rng([0, _number(purpose)])"),
    ],
    "test_splits.py::test_an_order_is_drawn_within_strata_by_seed_and_purpose_not_by_listing": [
        ("order: at random within a stratum",
         "cases = rng.permutation(sorted(case for case in strata if strata[case] == stratum))",
         "cases = sorted(case for case in strata if strata[case] == stratum)"),
        ("order: independent of listing",
         "cases = rng.permutation(sorted(case for case in strata if strata[case] == stratum))",
         "cases = rng.permutation([case for case in strata if strata[case] == stratum])"),
        ("order: hold-out and subsets draw apart",
         "rng = np.random.default_rng([seed, _number(purpose)])",
         "rng = np.random.default_rng([seed, 0])"),
    ],
    ("test_splits.py::test_a_subset_is_the_beginning_of_the_order_after_the_cases_with_new_classe"
     "s"): [
        ("subset: every class first",
         "order = first + [case for case in order if case not in set(first)]",
         "order = order + []"),
        ("subset: only cases with a new class come first",
         "if not seen.issuperset(contains[case]):", "if len(first) < 3:"),
    ],
    "test_splits.py::test_subsets_have_the_stated_size_and_hold_each_other": [
        ("subset: at least two", "order[:max(2, round(len(order) * fraction / 100))]",
         "order[:max(1, round(len(order) * fraction / 100))]"),
        ("subset: nested", "return order[:max(2, round(len(order) * fraction / 100))]",
         "return order[-max(2, round(len(order) * fraction / 100)):]"),
        ("subset: rounded", "order[:max(2, round(len(order) * fraction / 100))]",
         "order[:max(2, int(len(order) * fraction / 100))]"),
    ],
    "test_splits.py::test_terciles_by_hand": [
        ("terciles off by one", "{case: 3 * rank // len(ranked) for rank, case",
         "{case: 3 * (rank + 1) // len(ranked) for rank, case"),
        ("terciles by value", "ranked = sorted(values, key=lambda case: (values[case], case))",
         "ranked = sorted(values)"),
    ],
    "test_splits.py::test_a_case_in_two_parts_or_held_out_and_pretrained_on_is_caught": [
        ("leakage: test cases",
         "held_out = {*part.val, *part.test}", "held_out = {*part.val}"),
        ("leakage: validation cases",
         "held_out = {*part.val, *part.test}", "held_out = {*part.test}"),
        ("leakage: parts overlap",
         'parts = {"train": part.train, "val": part.val, "test": part.test}',
         'parts = {"train": part.train, "val": part.val}'),
    ],
}
