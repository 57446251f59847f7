"""Mutations of what figures and tables promise their reader."""

TABLE = {
    "test_difference.py::test_the_adjusted_interval_is_the_thicker_line_and_holds_the_plain_one": [
        ("forest: the thick line is the adjusted interval",
         "_interval(panel, point.interval, row, look, THICK)",
         "_interval(panel, gain.interval, row, look, THICK)"),
        ("forest: the adjusted interval is the thick line",
         "THICK, THIN = 3.4, 1.1", "THICK, THIN = 1.1, 3.4"),
    ],
    "test_difference.py::test_ends_that_the_axis_cuts_have_arrow_heads_and_no_others": [
        ("forest: an end that is cut has an arrow head",
         '(ends[1] > high, high, ">")', '(ends[1] > 9, high, ">")'),
    ],
    "test_difference.py::test_a_control_outside_the_axis_is_an_arrow_with_its_number": [
        ("forest: controls do not stretch the axis",
         "points = [point for point in points if not bounded or not is_control(point.task)] or points",
         "points = list(points)"),
    ],
    "test_graph.py::test_many_arms_have_a_panel_each_over_the_same_baseline": [
        ("curves: one axis for all arms",
         "    _alike(drawn, measure)\n    middle", "    middle"),
        ("curves: the baseline's band is its interval",
         "_baseline(panel, curves, measure)\n        for", "for"),
    ],
    "test_curves.py::test_arms_come_in_one_order_controls_last_and_named_so": [
        ("arms: controls come last", "return task != BASELINE, is_control(task), task",
         "return task != BASELINE, False, task"),
    ],
    "test_curves.py::test_the_smallest_gain_is_half_the_adjusted_interval_of_the_arms": [
        ("gain: of the arms, without controls",
         "point.interval and not is_control(point.task)]", "point.interval]"),
        ("gain: half of the interval", "(point.interval[1] - point.interval[0]) / 2",
         "(point.interval[1] - point.interval[0])"),
    ],
    "test_palette.py::test_no_two_arms_of_a_figure_look_alike_and_controls_are_open": [
        ("palette: no look is dealt twice", "if (colour, *pair) not in taken)", "if pair)"),
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
         'RIGHT if grade == int(saved["truth"][row]) else WRONG',
         'WRONG if grade == int(saved["truth"][row]) else RIGHT'),
    ],
}
