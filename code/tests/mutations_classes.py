"""Mutations of classes without an order: tests that should fail -> what is broken."""

C = "test_classes.py::test_"
D = "test_classes_commands.py::test_"
TABLE = {
    C + "loss_and_decoding_by_hand": [
        ("classes: cross-entropy of a softmax", "weigh the same.\"\"\"\n        return F.cross_entropy(",
         "weigh the same.\"\"\"\n        return F.multi_margin_loss("),
        ("classes: the largest logit", "return outputs.argmax(1)", "return outputs.argmin(1)"),
        ("classes: probabilities of a softmax", "return outputs.float().softmax(1)\n\n    def loss",
         "return outputs.float().sigmoid()\n\n    def loss"),
        ("classes: kappa chooses the weights", 'monitor = "unweighted_kappa"',
         'monitor = "accuracy"'),
    ],
    C + "scores_by_hand_and_a_mistake_is_as_bad_as_another": [
        ("classes: kappa is unweighted", "predicted, classes), 1 - np.eye(classes))",
         "predicted, classes), np.subtract.outer(*[np.arange(classes)] * 2) ** 2)"),
        ("classes: an absent one counts as 0 in macro-F1",
         "np.nan_to_num(dice(truth, predicted, classes)).mean()",
         "np.nanmean(dice(truth, predicted, classes))"),
    ],
    C + "scores_are_scikit_learns_and_those_of_the_figures": [
        ("classes: the figures' kappa is unweighted", "** 2.0 if ordered else 1 - np.eye(grades)",
         "** 2.0"),
        ("classes: the figures' macro-F1 counts absent ones",
         "np.nan_to_num(_ratio(2 * right, table.sum(-1) + table.sum(-2))).mean(-1)",
         "np.nanmean(_ratio(2 * right, table.sum(-1) + table.sum(-2)), -1)"),
    ],
    C + "fixmatch_is_as_sure_as_the_largest_probability": [
        ("classes: fixmatch is sure by the largest", "weak.softmax(1).max(1)",
         "weak.sigmoid().max(1)"),
        ("classes: fixmatch asks for its own answer", "F.cross_entropy(strong, answer, reduction",
         "F.cross_entropy(strong, strong.argmax(1), reduction"),
    ],
    C + "names_of_folders_are_classes_sorted": [
        ("classes: parts of a set are none", "and part.name.lower() not in NO_CLASSES and",
         "and"),
    ],
    C + "labels_of_a_table_are_names_or_numbers": [
        ("classes: whole numbers by size", "[*said] if None in whole else whole", "[*said]"),
        ("classes: one spelling", 'unicodedata.normalize("NFC", text or "").split()',
         '(text or "").split()'),
        ("classes: sorted", "names = sorted(count)", "names = list(count)"),
    ],
    C + "wrong_labels_are_one_line": [
        ("classes: as many as asked for", "if len(names) != classes:", "if False:"),
        ("classes: a row without one", "    if not name:\n        raise InputError(f\"{table}, line",
         "    if False:\n        raise InputError(f\"{table}, line"),
    ],
    C + "bad_flags_are_one_line_and_status_2": [
        ("classes: one is none", "if settings.CLASSES == 1:", "if False:"),
        ("classes: not beside grades", 'if "GRADES" in flags and made.get("CLASSES"):', "if False:"),
    ],
    C + "graded_runs_do_not_know_of_classes": [
        ("classes: no part of a graded run", "and (name, value) not in LATER}", "}"),
        ("classes: reach no pretraining", '            "GRADES", "CLASSES")\n', '            "GRADES")\n'),
    ],
    D + "the_command_trains_and_records_classes_by_their_names": [
        ("classes: an output each", "return int(settings.CLASSES or settings.GRADES)",
         "return int(settings.GRADES)"),
        ("classes: by their names", "classes=dataset.classes or [", "classes=["),
    ],
    D + "predictions_are_those_of_the_study_with_names_and_probabilities": [
        ("classes: predicted by a softmax", "one.sigmoid() if grades else one.softmax(1)",
         "one.sigmoid()"),
        ("classes: the predicted one by its name", '{"class": names[number], ',
         '{"class": names[-1 - number], '),
    ],
    D + "heat_is_grad_cam_of_the_predicted_class": [
        ("classes: heat of the class asked for",
         "logits.gather(1, classes.to(logits.device)[:, None]).sum()",
         "logits.gather(1, 0 * classes.to(logits.device)[:, None]).sum()"),
    ],
    D + "figures_tables_and_page_say_the_names_and_the_score": [
        ("classes: figures of their own score", "    if unordered(run):\n        return [kappa_of(",
         "    if False:\n        return [kappa_of("),
    ],
    D + "the_papers_curves_are_of_another_score": [
        ("classes: no curves of another score", "if key not in {measure.name for measure in",
         "if False and key not in {measure.name for measure in"),
    ],
    D + "export_says_what_the_outputs_are": [
        ("classes: export says what is put out",
         'if source.settings.get("CLASSES") and source.network', "if False"),
    ],
    "test_snapshots.py::test_classes_without_an_order_have_names_and_no_worst_mistake": [
        ("classes: no mistake is worse", "sorted((-apart * abs(", "sorted((-abs("),
        ("classes: examples say names", "        answers = names\n", ""),
        ("classes: the sign of formulas", '.replace("$", r"\\$")', ""),
    ],
    "test_predict_2d.py::test_the_grade_follows_from_the_columns_that_are_shown": [
        ("predict: at_least_0 is shown", "for grade, value in enumerate(at_least)}}",
         "for grade, value in enumerate(at_least) if grade}}"),
    ],
}
