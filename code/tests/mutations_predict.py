"""Mutations of prediction: what code, by its text; what replaces it; which tests should fail."""

TESTS = "test_predict.py::test_"
CHANNELS = "test_predict_channels.py::test_"
GRADES = "test_predict_2d.py::test_"
NATIVE = "test_native.py::test_"
TABLE = {
    TESTS + "scans_that_a_network_has_learnt_from_are_said": [
        ("predict: validation cases are known too", "union(*_images(origin)) if",
         "union(_images(origin)[0]) if"),
        ("predict: what is known is looked up", "if pixels in self.seen:", "if not self.seen:"),
    ],
    TESTS + "answers_on_the_networks_grid_are_those_of_the_study": [
        ("predict: the networks' answers are probabilities of classes",
         "network(volume)[0].float().softmax(0)", "network(volume)[0].float().softmax(1)"),
    ],
    TESTS + "turned_copies_of_a_scan_get_the_same_labels_in_their_own_grid": [
        ("predict: back in the file's own orientation",
         'nib.orientations.axcodes2ornt(("R", "A", "S")), own))', "own, own))"),
        ("predict: the file's own affine",
         "made = type(source)(np.asarray(turned), source.affine)",
         "made = type(source)(np.asarray(turned), np.eye(4))"),
        ("predict: codes of the affine are the file's",
         "(values, int(code), update_affine=False)", "(values, 3, update_affine=False)"),
    ],
    NATIVE + "the_most_likely_class_of_all": [
        ("native: the most likely class", "labels[one > best] = number",
         "labels[one < best] = number"),
        ("native: among all before it", "best = torch.maximum(best, one)", "best = one"),
    ],
    NATIVE + "a_scan_is_background_outside_of_its_box": [
        ("native: labels lie where the body is",
         "labels[tuple(box)] = most_likely", "labels[tuple(slice(0, side.stop - side.start) for "
         "side in box)] = most_likely"),
    ],
    NATIVE + "distances_and_shares_are_those_of_monai": [
        ("native: in mm", "(places + first) * np.asarray(spacing, float)",
         "(places + first) * 1.0"),
        ("native: where the mask lies", "(places + first) *", "(places + 0 * np.array(first)) *"),
        ("native: the worse of both ways",
         "max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))",
         "np.percentile(there, PERCENTILE)"),
        ("native: both surfaces count", "near / (len(there) + len(back))", "near / (2 * len(there))"),
        ("native: a surface has a face on something else", "inside & ~binary_erosion(inside)",
         "inside"),
    ],
    NATIVE + "a_class_that_is_missed_or_invented_costs_the_diagonal": [
        ("native: absent in both does not count",
         "if not len(surfaces[0]) and not len(surfaces[1]):", "if False:"),
        ("native: the diagonal in mm",
         "float(np.linalg.norm(np.multiply(truth.shape, spacing))), 0.0",
         "float(np.linalg.norm(truth.shape)), 0.0"),
        ("native: missed surfaces have no share",
         "np.multiply(truth.shape, spacing))), 0.0", "np.multiply(truth.shape, spacing))), None"),
    ],
    NATIVE + "a_run_scores_its_test_cases_in_their_own_grid": [
        ("native: the study's own boxes",
         '[slice(*side) for side in fact["box"]]', '[slice(0, side) for side in fact["shape"]]'),
    ],
    NATIVE + "a_class_counts_where_it_is": [
        ("native: means over the cases that have the class",
         "known = [value for value in values if value is not None]\n    return sum(known)",
         "known = [value or 0.0 for value in values]\n    return sum(known)"),
    ],
    NATIVE + "tables_and_figures_have_what_all_runs_have": [
        ("native: shown where every run has it", 'min(found.finetune, key=lambda run: '
         'len(run["test"]), default=None)', "next(iter(found.finetune), None)"),
    ],
    NATIVE + "without_true_spacing_nothing_is_in_mm": [
        ("native: no mm without spacing", 'fact["spacing"] if millimetres else None',
         'fact["spacing"]'),
    ],
    TESTS + "probabilities_add_up_and_labels_are_the_most_likely": [
        ("predict: outputs say that they are not for clinical use",
         'made.header["descrip"] = note[:79]', "pass"),
    ],
    TESTS + "outside_of_the_body_is_background": [
        ("predict: outside of the body is background", "        whole[..., 0] = 1  #",
         "        whole[..., 0] = 0  #"),
    ],
    TESTS + "several_runs_answer_with_the_mean_of_their_probabilities": [
        ("predict: the mean of several runs", "torch.stack(several).mean(0).cpu()",
         "torch.stack(several).amax(0).cpu()"),
        ("predict: in whatever order", "digest(sorted(checkpoint", "digest(list(checkpoint"),
    ],
    TESTS + "what_is_there_is_kept_and_other_files_are_never_overwritten": [
        ("predict: what is asked for beside is made", "return all(there)", "return there[-1]"),
        ("predict: another network's output is not kept", "if found != note:", "if False:"),
        ("predict: the files to predict are not written over",
         "if any(path.is_dir() and path.resolve() == out.resolve() for path in asked.files):",
         "if False:"),
    ],
    TESTS + "another_scan_of_the_same_name_is_never_taken_for_done": [
        ("predict: what is there is of this very file", "{self.digest} of {content[:8]}",
         "{self.digest}"),
        ("predict: others' files are not overwritten", "if not found.startswith(NOTE):",
         "if False:"),
    ],
    TESTS + "damaged_weights_are_refused": [
        ("predict: weights are those that were saved",
         'if checkpoint.weights_digest(state["state_dict"]) != about["weights"]:', "if False:"),
    ],
    TESTS + "a_scan_that_cannot_be_used_is_named_and_the_others_are_done": [
        ("predict: the status says that some failed", "return 2 if wrong else 0", "return 0"),
        ("predict: channels are checked", "scans.check_voxels(files[0], volume, channels,\n",
         "0 and scans.check_voxels(files[0], volume, channels,\n"),
    ],
    TESTS + "runs_and_paths_that_do_not_fit_are_named_in_one_line": [
        ("predict: of the other tree", 'if about["tree"] != tree:', "if False:"),
        ("predict: files without a description", "if not isinstance(about, Mapping) or not all(",
         "if False and not all("),
        ("predict: runs must be alike", "if differences({key: values[0]}, {key: values[1]}):",
         "if False:"),
        ("predict: names that would meet", "if other.resolve() != file.resolve():", "if False:"),
        ("predict: a run is no scan", "if (path / trained.NAME).is_file():", "if False:"),
    ],
    GRADES + "grades_are_those_of_the_study": [
        ("predict: a grade is what is likelier than not, less one",
         "max(0, int((at_least > 0.5).sum()) - 1)", "int((at_least > 0.5).sum())"),
        ("predict: the expected grade", 'f"{float(at_least[1:].sum()):.4f}"',
         'f"{float(at_least.sum()):.4f}"'),
    ],
    GRADES + "a_table_goes_on_after_a_stop_and_bad_images_are_named": [
        ("predict: a row that was cut goes",
         'io.StringIO(text[:text.rfind("\\n") + 1])', "io.StringIO(text)"),
        ("predict: another network's table is not continued",
         'if name in there and there[name]["note"] != said:', "if False:"),
        ("predict: another's table is not written over", "if found != list(columns) or not all(",
         "if False and not all("),
    ],
    GRADES + "progress_bars_are_for_terminals": [
        ("predict: a log has no progress bar", "len(files) < 2 or not sys.stderr.isatty()",
         "len(files) < 2"),
    ],
    GRADES + "heat_maps_of_images_of_one_stem_do_not_meet": [
        ("predict: heat maps of one stem", "stem if stems[stem] == 1 and stem", "stem if stem"),
        ("predict: a heat map's stem that is another's name", "stems[stem] == 1 and stem not in "
         "names else", "stems[stem] == 1 else"),
    ],
    GRADES + "heat_is_grad_cam_of_the_expected_grade": [
        ("predict: heat is rectified", ".sum(1, keepdim=True).relu().detach()",
         ".sum(1, keepdim=True).abs().detach()"),
        ("predict: heat is of the expected grade",
         "(logits[:, 1:].sigmoid().sum() if", "(logits[:, :1].sigmoid().sum() if"),
    ],
    CHANNELS + "channels_in_files_of_their_own_are_joined_as_nnunet_numbers_them": [
        ("predict: a file a channel is one scan", "if count > 1 and NUMBERED.search(name):",
         "if count > 9 and NUMBERED.search(name):"),
        ("predict: what an output is of is all its files", "note = networks.note(*scan)",
         "note = networks.note(*scan[:1])"),
    ],
    CHANNELS + "scans_named_like_channels_of_a_network_of_one_are_pointed_out": [
        ("predict: scans named like channels", "if count == 1 and (name :=", "if count == 0 and (name :="),
        ("predict: only where all are named so", "if found and all(numbered)", "if found and any(numbered)"),
    ],
    CHANNELS + "numbered_scans_of_several_channels_each_are_not_joined": [
        ("predict: numbered files with channels of their own",
         "return set(_sides(file)[0][3:]) <= {1}", "return True"),
        ("predict: two scans that would have one name",
         "if cases.setdefault(whole, files) != files:", "if False:"),
    ],
    "test_commands_2d.py::test_a_data_set_of_the_other_tree_with_the_same_name_is_not_drawn_over": [
        ("a name is one tree's", 'for other in sorted({"2d", "3d"} - {tree}):',
         "for other in []:"),
    ],
    "test_guide.py::test_what_is_read_follows_the_interval": [
        ("guide: a gain has to lie above its shuffled start's",
         'if said == "above" and undone is not None:', "if False:"),
        ("guide: a shuffled start that gains too", 'if verdict(undone) == "above":', "if False:"),
        ("guide: and where it does that is said", "if over else \", but not over", "if False else \", but not over"),
    ],
    "test_guide.py::test_a_task_is_solved_learnt_or_not": [
        ("guide: what is not learnt is said", '"learnt" if value >= chance + LEARNT * (1 - chance)',
         '"learnt" if value >= chance'),
    ],
    "test_guide.py::test_the_table_in_the_readme_is_that_of_the_records": [
        ("guide: today's recipe alone", "if one.folds > 1 and not one.generated]", "if True]"),
    ],
}
