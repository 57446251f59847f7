"""Mutations of --track: what code, by its text; what replaces it; which tests should fail."""

TESTS = "test_track.py::test_"
TABLE = {
    TESTS + "a_tracker_is_told_what_the_log_holds_and_where_a_start_begins": [
        ("track: the line is in the log all the same", "        super().log(name, record)\n        if",
         "        if"),
        ("track: times are no curve", '        if name == "log":\n            self._tracker(record',
         '        if True:\n            self._tracker(record.get("step", 0) and record'),
        ("track: a start begins behind what is kept", "self._tracker(self.last_step()).settings",
         "self._tracker(0).settings"),
        ("track: a killed start's tracker is closed", "            self.close(done=False)\n", ""),
        ("track: scores of single cases are not told", 'not in ("cases", "seed")',
         'not in ("case", "seed")'),
        ("track: a run that is done is marked so", "self.close(done=True)\n\n    def last_step",
         "self.close(done=False)\n\n    def last_step"),
    ],
    TESTS + "only_finite_numbers_are_told_by_their_place": [
        ("track: nan is not told", "and math.isfinite(value)", "and True"),
        ("track: a switch is no number", "and not isinstance(value, bool)", "and True"),
    ],
    TESTS + "pictures_of_the_data_set_are_told_and_no_others": [
        ("track: pictures of this data set", 'results.glob(f"*_{dataset}.png")',
         'results.glob("*.png")'),
    ],
    TESTS + "a_package_that_is_not_there_is_named": [
        ("track: a missing package is said", "find_spec(PACKAGES[kind]) is None",
         "find_spec(PACKAGES[kind]) is False"),
    ],
    TESTS + "tensorboard_shows_a_resumed_run_as_one_curve": [
        ("track: what a killed start said too much goes", "purge_step=past + 1)",
         "purge_step=None)"),
        ("track: also of a start that was killed before it saved", "purge_step=past + 1)",
         "purge_step=past + 1 if past else None)"),
    ],
    TESTS + "exp_tells_tensorboard_every_line_and_its_numbers_stay": [
        ("track: a worker's runs are told", "_Report(job, _told(self.study, run), self.put)",
         "_Report(job, run, self.put)"),
    ],
}
