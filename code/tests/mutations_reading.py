"""Mutations of what the reading of a study promises: every wording, and what it takes to claim."""

TABLE = {
    "test_reading.py::test_under_three_seeds_nothing_can_be_claimed": [
        ("reading: no claim without intervals",
         "if not any(point.interval for point in compared):", "if not compared:"),
        ("reading: seeds on different folds",
         "' on different folds' * (curves.folds > 1)", "' on different folds' * 1"),
    ],
    "test_reading.py::test_a_baseline_alone_has_nothing_beside_it": [
        ("reading: nothing beside the baseline",
         "    if not compared:\n", "    if compared is None:\n"),
    ],
    "test_reading.py::test_without_a_baseline_nothing_is_compared": [
        ("reading: no baseline",
         "if BASELINE not in curves.tasks:", "if not curves.tasks:"),
    ],
    "test_brief.py::test_the_verdict_of_an_interval": [
        ("reading: above is the whole interval",
         'return "above" if interval[0] > 0 else', 'return "above" if interval[1] > 0 else'),
    ],
    "test_reading.py::test_the_primary_comparison_comes_first_and_is_not_adjusted": [
        ("reading: the primary comparison alone",
         "found = [point for point in points if point.primary]",
         "found = [point for point in points if point.interval]"),
    ],
    "test_reading.py::test_without_an_oracle_the_recipe_is_not_known": [
        ("reading: a shuffled oracle is none",
         "and not is_shuffled(point.task) and point.fraction == fraction]",
         "and point.fraction == fraction]"),
        ("reading: the oracle at the smallest fraction",
         "curves.primary_fraction, min(point.fraction for",
         "curves.primary_fraction, max(point.fraction for"),
    ],
    "test_reading.py::test_an_oracle_that_is_not_above_the_baseline_judges_no_arm": [
        ("reading: an oracle has to be above",
         '            above = verdict(point) == "above"', "            above = True"),
        ("reading: no arm is judged there",
         'if not any(verdict(point) == "above" for point in here):', "if False:"),
    ],
    "test_doubts.py::test_the_oracle_is_asked_where_the_primary_comparison_is_made": [
        ("reading: the oracle where the primary comparison is",
         "asked = dict.fromkeys((curves.primary_fraction, min(",
         "asked = dict.fromkeys((0, min("),
    ],
    "test_reading.py::test_an_oracle_above_the_baseline_says_how_far_it_goes": [
        ("reading: the way to all labels",
         "share = point.difference.mean / (base[100] - base[point.fraction])",
         "share = point.difference.mean / base[100]"),
    ],
    "test_reading.py::test_arms_shown_above_and_below_the_baseline": [
        ("reading: controls are not among the arms shown",
         "arms = [point for point in points if not point.alone and point.interval]",
         "arms = [point for point in points if point.interval]"),
    ],
    "test_reading.py::test_no_arm_shown_above_names_the_largest_estimate": [
        ("reading: the largest estimate",
         "best = max(arms, key=", "best = min(arms, key="),
    ],
    "test_reading.py::test_fractions_where_arms_vary_unequally_are_named": [
        ("reading: moderated where it is",
         "for fraction, one in curves.families.items() if one.moderated]",
         "for fraction, one in curves.families.items()]"),
    ],
    "test_reading.py::test_what_could_be_shown_is_said_at_the_ends": [
        ("reading: the widest interval could be shown",
         "{fraction: (could[0][1], could[1][1]) for", "{fraction: (could[0][0], could[1][1]) for"),
        ("reading: what the primary comparison could show is its own",
         "for one in named.get(fraction, widest[fraction]))", "for one in widest[fraction])"),
        ("reading: the primary comparison's fraction could show, too",
         "for fraction in dict.fromkeys([*named, *[*widest]", "for fraction in dict.fromkeys([*[*widest]"),
    ],
    "test_reading.py::test_what_was_expected_before_training_is_compared": [
        ("reading: another spread from a quarter on", "MUCH = 1.25 ", "MUCH = 2.0 "),
        ("reading: the same number of seeds", 'or len(curves.seeds) != one["seeds"]:', "or False:"),
    ],
    "test_doubts.py::test_an_arm_that_is_as_good_no_sooner_than_the_baseline_may_be_saves_no_labels": [
        ("reading: saved is before the baseline",
         "if one.high is not None and one.high < start]", "if one.high is not None]"),
    ],
    "test_reading.py::test_no_labels_are_saved": [
        ("reading: controls save no labels",
         "if task != BASELINE and not is_control(task)}", "if task != BASELINE}"),
    ],
    "test_reading.py::test_a_shuffled_start_above_the_baseline_is_pointed_out": [
        ("reading: shuffled starts that gain",
         'if is_shuffled(point.task) and verdict(point) == "above"]',
         "if is_shuffled(point.task)]"),
    ],
    "test_reading.py::test_pretext_tasks_that_were_not_learnt_are_named": [
        ("reading: learnt is a tenth of the way",
         "if value < chance + LEARNT * (1 - chance)]", "if value < chance]"),
    ],
    "test_reading.py::test_the_last_weights_read_the_same_or_otherwise": [
        ("reading: otherwise is another verdict",
         "if said != verdict(point):", "if said == verdict(point):"),
        ("reading: a loss of the last weights",
         '"below" if interval[1] < 0 else "not shown"\n', '"not shown"\n'),
    ],
    "test_reading.py::test_the_primary_comparisons_last_weights_are_not_adjusted": [
        ("reading: the primary comparison's last weights",
         "interval = other.interval if point.alone else other.adjusted",
         "interval = other.adjusted"),
    ],
    "test_doubts.py::test_a_gain_that_a_shuffled_start_has_as_well_is_not_laid_to_what_was_learnt": [
        ("reading: a shuffled start that may gain as much",
         "        if less.interval[0] > 0:", "        if True:"),
        ("reading: an arm shown above its shuffled start is not doubted",
         "        if less.interval[0] > 0:", "        if False:"),
        ("reading: doubts only what is claimed",
         'if not is_control(point.task) and verdict(point) == "above"',
         "if not is_control(point.task)"),
        ("reading: a control claims nothing that could be doubted",
         'if not is_control(point.task) and verdict(point) == "above"',
         'if verdict(point) == "above"'),
        ("reading: a shuffled start shown above is said once",
         'elif verdict(undone) != "above":', "else:"),
    ],
    "test_doubts.py::test_a_page_says_whose_constants_an_oracle_is_pretrained_with": [
        ("page: an oracle's constants where there is one",
         "oracle = any(ORACLE in parts(run[", "oracle = True or any(ORACLE in parts(run["),
        ("page: an oracle's constants are told",
         "oracle = any(ORACLE in parts(run[", "oracle = False and any(ORACLE in parts(run["),
    ],
    "test_doubts.py::test_beside_shuffled_starts_the_primary_comparison_is_read_first": [
        ("reading: the primary comparison's shuffled start first",
         "key=lambda one: (not one[0].primary, one[0].fraction))", "key=lambda one: one[0].fraction)"),
        ("reading: the primary comparison's side first",
         "    sides.sort(key=lambda side: not any(point.primary for point, _ in side[1]))\n", ""),
    ],
}
