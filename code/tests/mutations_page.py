"""Mutations of the page of a study: what code, by its text; what replaces it; which tests fail."""

TESTS = "test_page.py::test_"
TABLE = {
    TESTS + "it_is_one_whole_page_in_the_order_of_the_questions": [
        ("page: generated data say so", "if curves.generated else []),\n        markup.paragraphs([QUESTION,",
         "if False else []),\n        markup.paragraphs([QUESTION,"),
        ("page: test cases are shown", "curves, parts, blocks), _learnt(parts, blocks), _pictures(blocks),",
         "curves, parts, blocks), _learnt(parts, blocks),"),
        ("page: not for clinical use", "from the records of the runs. {NOTICE}", "from the records of the runs."),
    ],
    TESTS + "nothing_is_fetched_from_anywhere": [
        ("page: the browser is told to fetch nothing", "POLICY = \"default-src 'none'; ", "POLICY = \""),
        ("page: pictures are in it", 'src="data:image/png;base64,{data}"', 'src="{path.name}"'),
        ("page: name spaces are left out of figures", 'parent.tag = parent.tag.rpartition("}")[2]',
         "parent.tag = parent.tag"),
    ],
    TESTS + "tables_are_those_of_the_markdown": [
        ("page: every table is there", "folded(\n        \"Scores of every measure, and every comparison\", *map(markup.section, rest))",
         "folded(\n        \"Scores of every measure, and every comparison\", *map(markup.section, rest[1:]))"),
        ("page: whole rows", 'for cell in row[1:]) + "</tr>" for row in rows)', 'for cell in row[2:]) + "</tr>" for row in rows)'),
        ("page: every row", "<tbody>\\n{body}\\n</tbody>", "<tbody>\\n</tbody>"),
        ("page: the words of a table", '*([paragraphs([part.words], "small")] if part.words else []),', ""),
    ],
    TESTS + "every_sentence_of_the_reading_is_there_once": [
        ("page: what the reading says besides", 'for topic in ("baseline", "seeds", "last")', 'for topic in ("baseline",)'),
        ("page: the oracle's sentences", '[*said["oracle"], *said["kept"], *said["could"],', '[*said["kept"], *said["could"],'),
        ("page: sentences of the exchange rates", '*said["saved"], *said["exchange"], *said["pools"]]', '*said["saved"], *said["pools"]]'),
    ],
    TESTS + "a_fraction_that_an_arm_lacks_has_no_hover": [
        ("page: gaps of a line are no points", "places[np.isfinite(places[:, 1])]", "places"),
    ],
    TESTS + "hovers_say_score_and_difference_and_lie_on_their_marks": [
        ("page: spots lie on their marks, across", "Spot(x - POINT / 2, y - POINT / 2,", "Spot(x, y - POINT / 2,"),
        ("page: spots lie on their marks, from the top", "float((panel.figure.bbox.height - y) * scale)", "float(y * scale)"),
        ("page: the score of a point", 'f"{head.label}: {shown(point.means[head.name])}"]', 'f"{head.label}: {point.last:.3f}"]'),
        ("page: the difference of a point", 'lines.append(f"to the baseline: {cell(point, curves)}"',
         'lines.append(f"to the baseline: {shown(point.means[head.name])}"'),
    ],
    TESTS + "hovers_claim_what_the_reading_claims": [
        ("page: a claim is the reading's", 'if said == "not shown" else', 'if said == "below" else'),
    ],
    TESTS + "differences_and_labels_saved_have_a_row_an_arm": [
        ("page: a panel's own fraction", "difference.differences(panel, curves, arms, fraction)\n            panel.xaxis",
         "difference.differences(panel, curves, arms, fractions[0])\n            panel.xaxis"),
        ("page: what a row says is of its fraction", "if point.fraction == fraction and point.difference}\n            spots",
         "if point.difference}\n            spots"),
        ("page: a row's spot is the row's", "for off in (-0.5, 0.5))", "for off in (0.5, 1.5))"),
    ],
    TESTS + "without_a_script_there_are_pictures_and_titles": [
        ("page: titles need no script", 'ElementTree.SubElement(rectangle, "title").text = spot.words', "pass"),
        ("page: a figure's ids are its own", "{before}{name}-{value}{after}", "{before}{value}{after}"),
        ("page: a figure's style is not the page's", 'if one.tag.endswith("style")]', "if False]"),
        ("page: figures are as wide as the screen lets them", "root.attrib.pop(number, None)", "pass"),
    ],
    TESTS + "pictures_say_in_words_what_they_show": [
        ("page: figures have a text", '"aria-label": alt}', '"aria-label": ""}'),
        ("page: pictures have a text", 'markup.picture(paths[kind], ": ".join(PICTURES[kind]), ', 'markup.picture(paths[kind], "", '),
        ("page: whoever hands on images is warned", "look whose they are before you hand it on.", ""),
    ],
    TESTS + "names_are_text_wherever_they_stand": [
        ("page: names are escaped", 'return html.escape(words.replace(" %", "\\N{NO-BREAK SPACE}%"), quote=True)',
         "return words"),
        ("page: no name of a machine", 'if (values := _values(settings, name))]', 'if (values := _values(settings, name))] + [["host", *_values(settings, "host")]]'),
    ],
    TESTS + "what_would_make_it_too_large_is_named": [
        ("page: at most so many bytes", "if len((text + block).encode()) > MOST_BYTES:", "if False:"),
        ("page: the most telling pictures first", "kind in PICTURES if kind in paths}", "kind in sorted(PICTURES)[::-1] if kind in paths}"),
    ],
    TESTS + "the_same_records_give_the_same_bytes": [
        ("page: ids of figures are not drawn anew", '"svg.hashsalt": "page",', ""),
        ("page: no date", "metadata=NO_NOTES", "metadata=None"),
    ],
    TESTS + "the_answers_follow_from_the_verdicts": [
        ("page: controls show no gain", "for point in curves.points if not is_control(point.task)}\n    doubtful",
         "for point in curves.points}\n    doubtful"),
        ("page: a doubt is said", 'if "above" in verdicts and doubtful else', "if False else"),
        ("page: a loss is said", '("No; a loss was", NO) if "below" in verdicts else', ""),
        ("page: without an oracle nothing is known", '("Not known", OPEN) if not oracles else', '("Yes", YES) if not oracles else'),
        ("page: an oracle that is not above shows nothing", "any(claims.verdict(point) == \"above\" for point in oracles) else\n        (\"No\"",
         "any(oracles) else\n        (\"No\""),
    ],
    TESTS + "labels_saved_are_a_yes_where_an_arm_saves_them": [
        ("page: labels are saved by who saves them", "if arms or fewer or said[", "if arms is not None or fewer or said["),
    ],
    TESTS + "labels_saved_are_a_yes_where_those_of_one_fraction_are_worth_more": [
        ("page: labels worth more are labels saved", "if arms or fewer or said[\"worth\"]:", "if arms or fewer:"),
    ],
    TESTS + "tasks_at_chance_are_not_learnt_and_without_chance_nothing_is_asked": [
        ("page: what is not learnt is told", '(("Not all", NO) if lines else', '(("Not all", NO) if False else'),
        ("page: without chance nothing is asked", 'if not any(run["chance"] for run in curves.pretraining):', "if not curves.pretraining:"),
    ],
    TESTS + "without_seeds_or_a_baseline_nothing_is_claimed": [
        ("page: nothing is claimed without intervals", '"Nothing can be claimed", OPEN, said["none"]', '"None shown", NO, said["none"]'),
    ],
    TESTS + "tasks_of_the_study_are_explained_and_no_others": [
        ("page: the study's tasks alone", "for task in used if task in NAMES}", "for task in NAMES}"),
    ],
    TESTS + "arms_beyond_the_most_are_named_in_the_caption": [
        ("page: arms left out are counted", "return len(efficiency.grouped(curves)[MOST:])", "return 0"),
        ("page: so many panels at most", "groups = efficiency.grouped(curves)[:MOST]", "groups = efficiency.grouped(curves)"),
    ],
    TESTS + "settings_that_differ_are_listed_and_commits_are_cited": [
        ("page: settings that differ", '", ".join(values[:MOST])', '", ".join(values[:1])'),
        ("page: hours are of all runs", "sum(took) / 3600", "max(took) / 3600"),
        ("page: commits are cited", 'note = f"  note  = {{commit', 'note = f"  note  = {{a commit" if commits else f"{{commit'),
    ],
    TESTS + "pages_lie_beside_ones_own_figures_and_beside_published_records_where_one_is": [
        ("page: none beside published records", "target=given.target, paged=not beside)", "target=given.target, paged=True)"),
        ("page: one that lies there is drawn again", "if paged or path.exists():", "if paged:"),
        ("page: none where --publish writes", "target=score, paged=False)", "target=score, paged=True)"),
    ],
    TESTS + "graph_writes_the_page_with_the_pictures_that_it_has_drawn": [
        ("page: with what was drawn", "pictures=[results / one for one in drawn])", "pictures=[])"),
    ],
    "test_learning_figure.py::test_titles_side_by_side_and_lines_below_each_other_are_of_one_size": [
        ("style: titles of one size", "fontsize=min(most, fits)", "fontsize=min(9.0, fits)"),
        ("style: lines of one size", "    size = 8.5 * min([1.0, *(", "    size = 8.5 * max([*("),
    ],
    "test_doubts.py::test_a_doubt_at_another_fraction_is_none_of_the_primary_comparisons": [
        ("page: doubts of the primary comparison", "[point for point in doubtful if point.primary]",
         "list(doubtful)"),
        ("page: a primary that is doubted", "[point for point in doubtful if point.primary]", "[]"),
        ("page: a gain over its shuffled start is no doubt",
         "if less.interval and less.interval[0] <= 0]", "if less.interval]"),
    ],
    "test_doubts.py::test_how_far_each_pretext_task_was_learnt_is_told_with_its_numbers": [
        ("page: solved is nine tenths", 'solved = min(shares, default=0) >= SOLVED', "solved = max(shares) >= SOLVED"),
        ("page: how far a task was learnt", "shares = [(value - chance) / (1 - chance) for",
         "shares = [value for"),
    ],
    "test_doubts.py::test_a_gain_that_the_scale_has_no_room_for_is_said_to_be_one": [
        ("reading: room of the scale", 'if one < room else f"{one:.3f}, which', 'if True else f"{one:.3f}, which'),
    ],
    "test_doubts.py::test_every_shown_gain_is_named": [
        ("reading: every gain", "the baseline: {every([gain(point)", "the baseline: {some([gain(point)"),
    ],
    "test_doubts.py::test_the_tables_have_every_arm_less_its_shuffled_start": [
        ("tables: less its shuffled start", "shown(claims.apart(curves, point, other, last=last), "
         "sign=True)", "shown(claims.apart(curves, other, point, last=last), sign=True)"),
    ],
    "test_doubts.py::test_an_arm_less_its_shuffled_start_is_read_with_the_last_weights_too": [
        ("claims: the last weights of both", "for task, arm in two.items()} if last else None",
         "for task, arm in two.items()} if not last else None"),
        ("reading: beside its shuffled start with the last weights too", "claims.side(less.interva"
         "l) != (\n                said := claims.side(last.interval))", "claims.side(less.interval) "
         "== (\n                said := claims.side(last.interval))"),
    ],
    "test_doubts.py::test_a_page_has_how_what_is_handed_on_is_trained": [
        ("page: the start's rate", '"START_LR_FACTOR": start.get("start lr factor"),', ""),
    ],
    "test_difference.py::test_a_seed_beyond_the_axis_is_a_head_at_its_end_and_the_others_are_dots": [
        ("difference: seeds beyond the axis", 'else "<" if score < low else ">", color', 'else ".", color'),
    ],
    "test_difference.py::test_labels_of_the_last_panel_keep_apart": [
        ("difference: labels apart", "if inches * np.log(after / tick) > APART", "if inches * np.log(after / tick) > -1"),
        ("difference: labels where there is room", "APART, LETTER = 0.065, 0.036", "APART, LETTER = 0.4, 0.036"),
    ],
    "test_difference.py::test_the_primary_fraction_has_its_label": [
        ("efficiency: the primary fraction's label first", "[*first, min(cases), max(cases)", "[min(cases), max(cases)"),
    ],
    "test_exchange_figure.py::test_arms_of_one_fraction_are_drawn_with_what_their_labels_are_worth": [
        ("exchange figure: names beside worth", "panel.annotate(task, (0.98, row - 0.4)", "panel.annotate(\"\", (0.98, row - 0.4)"),
    ],
}
