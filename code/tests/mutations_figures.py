"""Mutations of what figures, tables, the reading, power and published records promise."""

TABLE = {
    "test_curves.py::test_differences_their_intervals_and_p_are_those_of_the_seeds": [
        ("tables: the adjusted interval is the adjusted one",
         "*_numbers(point.difference.adjusted or (None, None))]",
         "*_numbers(point.difference.interval or (None, None))]"),
        ("tables: p before adjusted p",
         "p = ([point.difference.p, point.difference.adjusted_p] if",
         "p = ([point.difference.adjusted_p, point.difference.p] if"),
    ],
    "test_curves.py::test_the_pages_tables_show_the_same_numbers": [
        ("tables: at a glance are differences",
         'return f"{point.difference.mean:+.3f}{ends}"',
         'return f"{point.difference.p:+.3f}{ends}"'),
        ("curves: last weights are the last ones",
         '_mean([_mean([run["last"]["test"][name] or 0.0',
         '_mean([_mean([run["test"][name] or 0.0'),
    ],
    "test_curves.py::test_solved_is_the_first_mean_of_five_nine_tenths_from_chance_to_one": [
        ("curves: solved is measured from chance",
         "SOLVED_EPOCHS * (chance + SOLVED * (1 - chance))", "SOLVED_EPOCHS * SOLVED"),
    ],
    "test_curves.py::test_encoders_pretrained_with_other_settings_are_refused": [
        ("curves: encoders of other settings are not mixed",
         'if encoder.get("stage") == "pretrain":', 'if encoder.get("stage") == "never":'),
    ],
    "test_curves.py::test_what_an_arm_or_seed_lacks_is_said": [
        ("curves: what is missing is said",
         "{_named('seed', seeds - there.keys())}", "{_named('seed', seeds)}"),
    ],
    "test_curves.py::test_pretrainings_of_trial_seeds_are_none_of_the_studys": [
        ("curves: pretrainings of trial seeds are left out", 'run["seed"] not in tried]', "True]"),
    ],
    "test_curves.py::test_a_baseline_with_fractions_of_its_own_lacks_nothing": [
        ("missing: a denser baseline is no gap", "fraction in of_baseline", "fraction in ()"),
        ("missing: fractions of another arm", "{fraction for _, fraction in grid} - others if", "{fraction for _, fraction in grid} if"),
        ("missing: of the baseline alone", "if task != BASELINE and (fraction", "if (fraction"),
    ],
    "test_curves.py::test_an_arm_at_the_primary_fraction_alone_lacks_nothing": [
        ("missing: an arm at the primary fraction alone", "or at_one and fraction != primary", ""),
        ("missing: with all its seeds there", "seeds - grid[task, primary].keys())", "set())"),
        ("missing: the primary fraction is the plan's", 'primary.get("fraction", 0)),', "0),"),
    ],
    "test_graph.py::test_no_line_goes_over_a_fraction_that_was_not_run": [
        ("curves figure: a gap where nothing was run", "for fraction in curves.fractions if ends[0] <=",
         "for fraction in there if ends[0] <="),
        ("curves figure: no gap beyond an arm's last", "if ends[0] <= fraction <= ends[1]]", "if ends[0] <= fraction]"),
    ],
    "test_curves.py::test_the_confusion_table_has_the_truth_in_rows_and_an_arm_at_a_time": [
        ("tables: confusion has the truth in rows",
         "str(sum(table[i][j] for table in tables))", "str(sum(table[j][i] for table in tables))"),
        ("tables: confusion is that of the arm",
         'if (run["task"], run["fraction"]) == (point.task, point.fraction)]',
         'if run["fraction"] == point.fraction]'),
    ],
    "test_curves.py::test_each_trees_headline_and_classes_are_measured": [
        ("graph 3D: headline is the mean of foreground",
         'mean_of("dice", "Dice, mean of foreground")',
         'mean_of("dice_pancreas", "Dice, mean of foreground")'),
    ],
    "test_published.py::test_a_run_that_is_there_with_another_content_is_refused": [
        ("published: a run is never changed",
         "if changed := differences(_content(known), _content(run)):",
         "if changed := differences(_content(known), _content(known)):"),
        ("published: runs of other settings are not added",
         "if odd := unlike(stages[0]):", "if odd := unlike(stages[0][:1]):"),
        ("published: machine and time are no content",
         'NOTES = ("provenance", "seconds")', 'NOTES = ("provenance",)'),
    ],
    "test_published.py::test_arms_fractions_and_seeds_are_added_in_any_order": [
        ("published: draws are runs of their own",
         '"pool", "seed", "fold", "draw")  # tell', '"pool", "seed", "fold")  # tell'),
        ("published: one order whatever was added first",
         "*sorted(set(row) - set(PLACE))]", "*(name for name in row if name not in PLACE)]"),
    ],
    "test_published.py::test_what_is_packed_is_read_again": [
        ("published: counts come back whole",
         'rest = sum(case["truth"]) - sum(case["predicted"])',
         'rest = sum(case["truth"]) + sum(case["predicted"])'),
        ("published: steps come back",
         "return [steps * n for n in range(1, count + 1)]",
         "return [steps * n for n in range(count)]"),
    ],
    "test_published.py::test_records_of_an_earlier_version_are_drawn_and_added_to": [
        ("gz records: the earlier file's runs are kept",
         'before = path if path.exists() else path.with_suffix("")', "before = path"),
        ("gz records: the earlier file goes once its runs are in the other",
         "before.unlink(missing_ok=True)", "pass"),
        ("gz records: one of each folder, the compressed one",
         "for name in (PLAIN, NAME) for path", "for name in (NAME, PLAIN) for path"),
    ],
    "test_commands_2d.py::test_records_are_published_again_without_a_change_and_only_under_a_name": [
        ("gz records: equal runs, equal bytes", "compress(content, mtime=0)", "compress(content, mtime=os.times().elapsed)"),
    ],
    "test_published.py::test_a_file_that_was_cut_off_is_named": [
        ("gz records: a file cut off", "except (EOFError, zlib.error, gzip.BadGzipFile)",
         "except (EOFError, zlib.error)"),
    ],
    "test_published.py::test_a_damaged_file_is_named_in_one_line": [
        ("published: a newer format is not guessed at",
         'if content["format"] > FORMAT:', 'if content["format"] > FORMAT + 1:'),
    ],
    "test_power.py::test_shown_are_half_the_interval_and_z_standard_errors_more": [
        ("power: of the whole error",
         "return half, half + Z * spread.error", "return half, half + Z * spread.runs"),
        ("power: 80 %",
         "Z = 0.8416 ", "Z = 0.5244 "),
    ],
    "test_power.py::test_the_spread_to_expect_with_rotated_folds_by_hand": [
        ("power: half of a difference's cases are an arm's",
         "of_cases = self.cases**2 / (2 * tested)", "of_cases = self.cases**2 / tested"),
    ],
    "test_power.py::test_the_spread_to_expect_with_one_test_set_by_hand": [
        ("power: pooled degrees of freedom",
         "self.runs, arms * (seeds - 1),", "self.runs, seeds - 1,"),
    ],
    "test_power.py::test_seeds_for_are_the_fewest_that_show_the_gain": [
        ("power: seeds for four of five, not for half",
         "adjusted or arms)[1] <= gain), None)", "adjusted or arms)[0] <= gain), None)"),
    ],
    "test_power.py::test_the_spreads_of_a_finished_study_are_those_put_in": [
        ("power: a fold's cases are no spread of runs",
         "- (one_set / 2 if family.design.rotated else 0.0)",
         "- (0.0 if family.design.rotated else 0.0)"),
    ],
    "test_power.py::test_the_nearest_fraction_is_so_by_the_ratio_of_labelled_cases": [
        ("power: nearest by ratio",
         "abs(np.log(one.labelled / labelled))", "abs(one.labelled - labelled)"),
    ],
    "test_curves.py::test_labels_are_saved_against_the_baseline_on_all_labels": [
        ("curves: labels saved against all labels",
         "target = (baseline, ALL)", "target = (baseline, 25)"),
    ],
    "test_curves.py::test_points_of_other_data_splits_or_settings_are_refused": [
        ("curves: data are not mixed",
         'OWN = ("stage", "task", "fraction", "seed", "fold", "draw", "labelled",',
         'OWN = ("stage", "task", "fraction", "seed", "fold", "draw", "labelled", "data",'),
    ],
    "test_tables.py::test_controls_and_the_primary_comparison_are_not_adjusted": [
        ("curves: the primary comparison is not adjusted",
         "return self.primary or is_control(self.task)", "return is_control(self.task)"),
        ("curves: the primary comparison is of one fraction",
         'primary=(task, fraction) == (primary.get("arm"), primary.get("fraction"))',
         'primary=task == primary.get("arm")'),
    ],
    "test_tables.py::test_the_last_weights_are_a_family_of_their_own": [
        ("curves: the last weights' family is theirs",
         '_mean([runs[draw]["last"]["test"][measure.name] or 0.0',
         '_mean([runs[draw]["test"][measure.name] or 0.0'),
    ],
    "test_tables.py::test_draws_are_runs_of_one_seed": [
        ("curves: a draw is a run of its own",
         '[run["seed"]][run.get("draw", 0)] = run', '[run["seed"]][0] = run'),
    ],
    "test_tables.py::test_rotated_folds_are_read_from_the_settings": [
        ("curves: folds are those of the settings",
         '.get("settings", {}).get("FOLDS", 1))', '.get("settings", {}).get("fold", 1))'),
    ],
    "test_tables.py::test_cases_and_draws_left_out_are_said": [
        ("curves: what is left out is said",
         "*missing.cases(families)]", "]"),
    ],
    "test_difference.py::test_the_adjusted_interval_is_the_thicker_line_and_holds_the_plain_one": [
        ("forest: the thick line is the adjusted interval",
         "_interval(panel, point.interval, row, look, THICK)",
         "_interval(panel, gain.interval, row, look, THICK)"),
        ("forest: the adjusted interval is the thick line",
         "THICK, THIN = 3.4, 1.1", "THICK, THIN = 1.1, 3.4"),
    ],
    "test_difference.py::test_ends_that_the_axis_cuts_have_arrow_heads_and_no_others": [
        ("forest: an end that is cut has an arrow head",
         "(ends[1] > high, high, 1)", "(ends[1] > 9, high, 1)"),
        ("forest: an arrow points to its own end",
         "(ends[0] < low, low, -1)", "(ends[0] < low, high, -1)"),
    ],
    "test_difference.py::test_intervals_of_controls_are_whole_as_far_as_the_arms_keep_their_room": [
        ("forest: controls' intervals where there is room", "for found in (near, wide):", "for found in (near,):"),
        ("forest: controls share the room", "if max(high, end) - min(low, end) <= FAR * span:",
         "if max(high, end, -low) - min(low, end) <= 9 * span:"),
    ],
    "test_difference.py::test_a_control_outside_the_axis_is_an_arrow_with_its_number": [
        ("forest: controls do not stretch the axis",
         "points = [point for point in points if not bounded or not is_control(point.task)] or "
         "points",
         "points = list(points)"),
    ],
    "test_graph.py::test_many_arms_have_a_panel_each_over_the_same_baseline": [
        ("curves: one axis for all arms",
         "    alike(drawn, measure)\n    middle", "    middle"),
        ("curves: the baseline is in every panel",
         "_baseline(panel, curves, measure, banded=not family or bool({*family} & {*group}))",
         "pass"),
    ],
    "test_curves.py::test_arms_come_in_one_order_controls_last_and_named_so": [
        ("arms: controls come last",
         "return task != BASELINE, is_control(task), task",
         "return task != BASELINE, False, task"),
    ],
    "test_palette.py::test_no_two_arms_of_a_figure_look_alike_and_controls_are_open": [
        ("palette: no look is dealt twice",
         "if (colour, *pair) not in taken)", "if pair)"),
    ],
    "test_palette.py::test_colours_are_told_apart_and_seen_on_white": [
        ("palette: jigsaw is not like rotation to any eyes",
         '"jigsaw": ("#D55E00", "^")', '"jigsaw": ("#3F77B2", "^")'),
    ],
    "test_snapshots.py::test_the_edges_of_a_class_go_round_its_voxels": [
        ("examples: contours lie on the voxels' sides",
         "[((j - 0.5, i - 0.5), (j + 0.5, i - 0.5))", "[((j + 0.5, i + 0.5), (j + 1.5, i + 0.5))"),
    ],
    "test_snapshots.py::test_grades_are_right_or_wrong_by_sign_not_by_colour_alone": [
        ("examples: right where it is the truth",
         'RIGHT if said == int(saved["truth"][row]) else WRONG',
         'WRONG if said == int(saved["truth"][row]) else RIGHT'),
    ],
    "test_tables.py::test_the_gains_that_could_be_shown_are_those_of_the_arms": [
        ("gain: of the arms, without controls",
         "[arm for arm in arms if not is_control(arm.task)] or arms", "arms"),
        ("gain: half of the adjusted interval",
         "power.shown(self.difference.spread, 1 if self.alone else self.difference.arms)",
         "power.shown(self.difference.spread, 1)"),
    ],
    "test_difference.py::test_the_grey_of_a_row_is_what_cannot_be_told_from_zero": [
        ("forest: the grey is half the interval of the claim",
         "            half = point.could_show[0]\n", "            half = point.could_show[1]\n"),
    ],
    "test_difference.py::test_no_panel_says_when_an_arm_is_as_good_where_the_baseline_gains_nothing": [
        ("forest: nothing is as good where there is nothing to gain",
         "return not flat(curves) and any(task", "return any(task"),
    ],
    "test_loader_2d.py::test_an_image_in_another_folder_is_pointed_out": [
        ("2d: an image in another folder is pointed out", "    if not found:\n        return \"restore",
         "    if True:\n        return \"restore"),
    ],
    "test_graph.py::test_the_band_is_what_cannot_be_told_from_the_baseline": [
        ("curves: the band is what cannot be told from the baseline",
         "return estimate.mean - could[0][0], estimate.mean + could[0][0]",
         "return estimate.interval"),
        ("curves: no bars beside the band",
         "if e.half is not None and curves.could_show(point.fraction) is None]",
         "if e.half is not None]"),
    ],
    "test_graph.py::test_arms_that_nothing_is_compared_with_have_bars": [
        ("curves: bars where there is no band",
         "if e.half is not None and curves.could_show(point.fraction) is None]",
         "if e.half is None]"),
    ],
    "test_learning_figure.py::test_arms_are_drawn_at_their_smallest_fraction": [
        ("learning: a fraction that arms have",
         "for point in curves.points if point.task != BASELINE}\n    if curves.primary",
         "for point in curves.points}\n    if curves.primary"),
    ],
    "test_learning_figure.py::test_arms_are_drawn_where_the_primary_comparison_is": [
        ("learning: the primary fraction", "    if curves.primary_fraction in there:\n        return",
         "    if not there:\n        return"),
        ("learning: the primary fraction, if arms are there",
         "    if curves.primary_fraction in there:\n        return",
         "    if curves.primary_fraction:\n        return"),
    ],
    "test_learning_figure.py::test_a_pretext_line_is_smoothed_only_where_it_is_long": [
        ("learning: short lines are not smoothed", "return SMOOTH if len(mean) >= EPOCHS else 1",
         "return SMOOTH if len(mean) >= SMOOTH else 1"),
        ("learning: long lines are smoothed", "return SMOOTH if len(mean) >= EPOCHS else 1",
         "return 1"),
    ],
}
