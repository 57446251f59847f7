"""Mutations of what is computed: statistics, metrics, labels saved, tables, scores."""

TABLE = {
    "test_curves.py::test_differences_their_intervals_and_p_are_those_of_the_seeds": [
        ("curves: the baseline is no comparison of its own",
         "arms = len({point.task for point in points} - {BASELINE})",
         "arms = len({point.task for point in points})"),
        ("curves: arm minus baseline",
         "stats.difference(head, arm, base)", "stats.difference(head, base, arm)"),
        ("tables: the adjusted interval is the adjusted one",
         "*_numbers(point.interval or (None, None))]",
         "*_numbers(point.difference.interval or (None, None))]"),
        ("tables: p before adjusted p",
         "p = [point.difference.p, point.adjusted]", "p = [point.adjusted, point.difference.p]"),
    ],
    "test_curves.py::test_the_pages_tables_show_the_same_numbers": [
        ("curves: last weights are the last ones",
         'run["last"]["test"][head.name]', 'run["test"][head.name]'),
        ("tables: at a glance are differences", 'return f"{point.difference.mean:+.3f}{ends}"',
         'return f"{point.difference.p:+.3f}{ends}"'),
    ],
    "test_curves.py::test_solved_is_the_first_mean_of_five_nine_tenths_from_chance_to_one": [
        ("curves: solved is measured from chance",
         "SOLVED_EPOCHS * (chance + SOLVED * (1 - chance))", "SOLVED_EPOCHS * SOLVED"),
    ],
    "test_curves.py::test_labels_are_saved_against_the_baseline_on_all_labels": [
        ("curves: labels saved against all labels",
         "cases.get((BASELINE, 100))", "cases.get((BASELINE, 25))"),
    ],
    "test_curves.py::test_encoders_pretrained_with_other_settings_are_refused": [
        ("curves: encoders of other settings are not mixed",
         'if encoder.get("stage") == "pretrain":', 'if encoder.get("stage") == "never":'),
    ],
    "test_curves.py::test_points_of_other_data_splits_or_settings_are_refused": [
        ("curves: data are not mixed", 'OWN = ("stage", "task", "fraction", "seed", "labelled",',
         'OWN = ("stage", "task", "fraction", "seed", "labelled", "data",'),
    ],
    "test_curves.py::test_what_an_arm_or_seed_lacks_is_said": [
        ("curves: what is missing is said", "absent = sorted(seeds - arms.get((task, fraction)",
         "absent = sorted(seeds & arms.get((task, fraction)"),
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
        ("published: machine and time are no content", 'NOTES = ("provenance", "seconds")',
         'NOTES = ("provenance",)'),
    ],
    "test_published.py::test_arms_fractions_and_seeds_are_added_in_any_order": [
        ("published: draws are runs of their own", '"pool", "seed", "fold", "draw")  # tell',
         '"pool", "seed", "fold")  # tell'),
        ("published: one order whatever was added first",
         "*sorted(set(row) - set(PLACE))]", "*(name for name in row if name not in PLACE)]"),
    ],
    "test_published.py::test_what_is_packed_is_read_again": [
        ("published: counts come back whole", 'rest = sum(case["truth"]) - sum(case["predicted"])',
         'rest = sum(case["truth"]) + sum(case["predicted"])'),
        ("published: steps come back", "return [steps * n for n in range(1, count + 1)]",
         "return [steps * n for n in range(count)]"),
    ],
    "test_published.py::test_a_damaged_file_is_named_in_one_line": [
        ("published: a newer format is not guessed at", 'if content["format"] > FORMAT:',
         'if content["format"] > FORMAT + 1:'),
    ],
    "test_downstream.py::test_soft_dice_of_a_guess_by_hand": [
        ("soft Dice: probabilities of classes",
         "outputs.float().softmax(1).unbind(1)", "outputs.float().sigmoid().unbind(1)"),
        ("soft Dice: the background too",
         "return 1 - (2 * sums[0] / sums[1].clamp(min=1e-6)).mean()",
         "return 1 - (2 * sums[0] / sums[1].clamp(min=1e-6))[1:].mean()"),
    ],
    "test_downstream.py::test_counts_are_right_for_any_number_of_classes": [
        ("counts of many classes do not overflow", "if classes**2 <= 256 else", "if classes else"),
    ],
    "test_downstream.py::test_the_figures_of_two_cases_by_hand": [
        ("reported Dice is of the foreground",
         "metrics.dice_from_counts(both, truth, predicted)[:, 1:]  # (cases, foreground)",
         "metrics.dice_from_counts(both, truth, predicted)  # (cases, foreground)"),
        ("reported Dice: classes first, then cases",
         '{"dice": _mean(_row_means(per_class))}', '{"dice": _mean(per_class.ravel())}'),
        ("a case's Dice is of the foreground",
         "per_class = metrics.dice_from_counts(both, truth, predicted)[:, 1:]\n        whole",
         "per_class = metrics.dice_from_counts(both, truth, predicted)[:, :-1]\n        whole"),
        ("records tell truth from prediction",
         "table.sum(2), table.sum(1)", "table.sum(1), table.sum(2)"),
        ("whole foreground counts a mistaken class",
         "table[:, 1:, 1:].sum((1, 2))", "np.diagonal(table, axis1=1, axis2=2)[:, 1:].sum(1)"),
    ],
    "test_downstream.py::test_volumes_are_given_as_they_are_and_chosen_by_dice": [
        ("3D: weights are chosen by Dice", '    monitor = "dice"', '    monitor = "dice_whole"'),
    ],
    "test_savings.py::test_between_two_fractions_the_wider_of_their_intervals_holds": [
        ("labels saved: the wider of the neighbours",
         "half = np.maximum(widths[left]", "half = np.minimum(widths[left]"),
        ("labels saved: off by one point", "return int(np.flatnonzero(~reaches)[-1]) + 1",
         "return int(np.flatnonzero(~reaches)[-1])"),
    ],
    "test_savings.py::test_a_curve_that_dips_again_is_not_there_for_good": [
        ("labels saved: upper end is for good",
         "_for_good(mean - half >= 0)", "_first(mean - half >= 0)"),
    ],
    "test_savings.py::test_noise_between_seeds_widens_the_interval_until_nothing_can_be_claimed": [
        ("labels saved: lower end is that of the interval",
         "_first(mean + half >= 0)", "_first(mean >= 0)"),
    ],
    "test_savings.py::test_a_curve_crosses_where_its_line_does": [
        ("labels saved: against the baseline", "stats.estimate(measure, row, rows[0], seeds)",
         "stats.estimate(measure, row, rows[-1], seeds)"),
        ("labels saved: linear in the logarithm",
         "knots = np.log(fractions)", "knots = np.log(np.add(fractions, 10))"),
    ],
    "test_savings.py::test_odd_fractions_cases_that_do_not_count_and_partial_grids": [
        ("labels saved: cases count in all or in none",
         "rows = rows * counted[..., None]", "rows = rows * 1"),
    ],
    "test_savings.py::test_never_always_and_without_intervals": [
        ("labels saved: all seeds of the baseline",
         "if set(seeds) <= set(arm[fraction]))", "if set(arm[fraction]))"),
    ],
    "test_metrics.py::test_confusion_has_the_truth_in_rows": [
        ("confusion has the truth in rows",
         "pairs = np.asarray(truth).ravel().astype(np.int64) * classes + "
         "np.asarray(predicted).ravel()",
         "pairs = np.asarray(predicted).ravel().astype(np.int64) * classes + "
         "np.asarray(truth).ravel()"),
    ],
    "test_metrics.py::test_dice_by_hand": [
        ("Dice of an absent class is not counted",
         "out=np.full(total.shape, np.nan), where", "out=np.ones(total.shape), where"),
    ],
    "test_metrics.py::test_the_papers_dice_pools_the_voxels_of_all_cases": [
        ("the paper's Dice pools voxels",
         "sums = [np.asarray(count).sum(axis=0)", "sums = [np.asarray(count)"),
    ],
    "test_metrics.py::test_kappa_by_hand_and_against_a_library": [
        ("kappa is quadratic", "weights = (index[:, None] - index[None, :]) ** 2\n",
         "weights = abs(index[:, None] - index[None, :])\n"),
        ("kappa has fixed labels", "observed = confusion(truth, predicted, grades).astype(float)",
         "observed = confusion(*(np.unique([truth, predicted], return_inverse=True)[1].reshape(2, "
         "-1)), grades).astype(float)"),
        ("kappa of a constant is 0",
         "disagreement) if disagreement else 0.0", "disagreement) if disagreement else 1.0"),
    ],
    "test_science_2d.py::test_grades_are_coded_as_leading_ones_and_decoded": [
        ("a grade is coded as leading ones",
         "return (steps <= targets[:, None]).float()", "return (steps < targets[:, None]).float()"),
        ("a grade is decoded by all outputs",
         "((outputs > 0).sum(1) - 1)", "((outputs > 0).cumprod(1).sum(1) - 1)"),
        ("a grade is decoded at one half",
         "((outputs > 0).sum(1) - 1)", "((outputs > 0.5).sum(1) - 1)"),
    ],
    "test_science_2d.py::test_a_missing_grade_does_not_change_the_weights_of_kappa": [
        ("2D: weights are chosen by kappa", '    monitor = "kappa"', '    monitor = "accuracy"'),
    ],
    "test_science_2d.py::test_training_images_are_augmented_and_others_are_not": [
        ("2D: only training images are augmented",
         "self.augment(batch.images, rng) if training else batch.images",
         "self.augment(batch.images, rng)"),
    ],
    "test_stats.py::test_each_spread_has_its_own_degrees_of_freedom": [
        ("intervals: both spreads count, not the larger alone",
         "return float(np.hypot(_quantile(self.seeds, alpha)",
         "return float(max(_quantile(self.seeds, alpha)"),
        ("intervals: cases have their own degrees of freedom",
         "_quantile(self.cases, alpha) * self.over_cases",
         "_quantile(self.seeds, alpha) * self.over_cases"),
        ("intervals: 95 %", "LEVEL = 0.95", "LEVEL = 0.90"),
        ("intervals: t with n - 1",
         "stdtrit(max(1, number - 1), alpha / 2)", "stdtrit(max(1, number), alpha / 2)"),
    ],
    "test_stats.py::test_under_three_seeds_there_is_no_interval": [
        ("intervals: none under 3 seeds", "MIN_SEEDS = 3 ", "MIN_SEEDS = 2 "),
    ],
    "test_stats.py::test_the_spread_over_seeds_by_hand": [
        ("intervals: standard deviation over seeds with n - 1",
         "float(scores.std(ddof=1)) / len(seeds) ** 0.5",
         "float(scores.std()) / len(seeds) ** 0.5"),
        ("intervals: cases are shared by the seeds",
         "np.nanstd(drawn.mean(axis=0), ddof=1)", "np.nanstd(drawn, ddof=1)"),
        ("Bonferroni divides by the number of comparisons",
         "half = self.spread.half((1 - LEVEL) / comparisons)",
         "half = self.spread.half(1 - LEVEL)"),
    ],
    "test_stats.py::test_the_spread_over_cases_by_hand": [
        ("intervals: a bootstrap's variance is (n - 1)/n too small",
         "se_cases *= (cases / max(1, cases - 1)) ** 0.5", "se_cases *= 1.0"),
        ("intervals: only cases that count are counted",
         "cases = int(ours.any(axis=(0, 2)).sum())", "cases = ours.shape[1]"),
    ],
    "test_stats.py::test_the_same_cases_are_drawn_in_every_call_and_process": [
        ("intervals: draws of cases are the same in every call",
         "rng = np.random.default_rng(BOOTSTRAP_SEED)", "rng = np.random.default_rng()"),
    ],
    "test_stats.py::test_holm_by_hand": [
        ("Holm multiplies by those left", "p * (number - rank)", "p * number"),
        ("Holm is monotonic", "largest = max(largest, min(1.0, p * (number - rank)))",
         "largest = min(1.0, p * (number - rank))"),
    ],
    "test_stats.py::test_holm_counts_arms_that_are_not_trained_yet": [
        ("Holm counts arms not trained yet",
         "number = max(comparisons, len(known))", "number = len(known)"),
    ],
    "test_stats.py::test_a_loss_is_the_gain_the_other_way_round": [
        ("p of a loss is that of a gain",
         "if self.half(middle) < abs(estimate)", "if self.half(middle) < estimate"),
    ],
    "test_stats.py::test_a_paired_difference_is_formed_per_seed_and_case_and_says_what_it_drops": [
        ("difference is arm minus baseline",
         "for runs in (arm, baseline))", "for runs in (baseline, arm))"),
    ],
    "test_stats.py::test_a_case_that_counts_in_one_arm_alone_counts_in_neither": [
        ("difference: a case counts in both or in neither",
         "both = np.logical_and(ours.any", "both = np.logical_or(ours.any"),
    ],
    "test_stats.py::test_cases_and_seeds_that_not_all_have_are_left_out_and_named": [
        ("difference: seeds are paired",
         "seeds = sorted(set(arm) & set(baseline))", "seeds = sorted(set(baseline))"),
        ("difference: says what it drops", "if lost else ()", "if not lost else ()"),
    ],
    "test_stats.py::test_null_cases_do_not_count": [
        ("mean: null cases do not count",
         "np.isfinite(values)], axis=1)", "np.ones_like(values)], axis=1)"),
    ],
    "test_stats.py::test_the_measures_agree_with_the_metrics": [
        ("kappa in tables: quadratic", "weights = (index[:, None] - index[None, :]) ** 2.0",
         "weights = abs(index[:, None] - index[None, :]) ** 1.0"),
        ("the paper's Dice in tables has the background",
         "np.nanmean(_ratio(2 * both, truth + predicted), axis=-1)",
         "np.nanmean(_ratio(2 * both, truth + predicted)[..., 1:], axis=-1)"),
    ],
    "test_stats.py::test_kappa_and_accuracy_of_tables_by_hand": [
        ("kappa in tables: constant is 0",
         "1 - _ratio(seen, disagreement), 0.0)", "1 - _ratio(seen, disagreement), 1.0)"),
    ],
}
