"""How far a grid is, and how long it will take: the time left follows the machine."""

import pytest

from common.schedule import progress
from common.schedule.progress import Progress, in_words


class Clock:
    """A time that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def advance(shown: Progress, clock: Clock, seconds: float, amount: float,
            kind: str = "work") -> None:
    clock.now += seconds
    shown.put((kind, "finetune/x", amount))


def test_time_left_is_work_left_at_the_measured_speed(clock: Clock) -> None:
    shown = Progress(100.0, clock)
    assert shown.seconds_left() is None
    advance(shown, clock, 10.0, 20.0)  # 2 a second, 80 left
    assert shown.seconds_left() == pytest.approx(40.0)


def test_start_up_is_no_training(clock: Clock) -> None:
    shown = Progress(100.0, clock)
    advance(shown, clock, 500.0, 0.0, "skip")  # a run begins; imports and data came before
    advance(shown, clock, 10.0, 10.0)
    assert shown.seconds_left() == pytest.approx(90.0)


def test_what_an_earlier_process_did_is_no_speed(clock: Clock) -> None:
    shown = Progress(100.0, clock)
    advance(shown, clock, 0.0, 50.0, "skip")   # resumed from a checkpoint
    assert shown.seconds_left() is None
    advance(shown, clock, 10.0, 10.0)
    assert shown.seconds_left() == pytest.approx(40.0)  # not 10 * 40 / 60
    advance(shown, clock, 0.0, 30.0, "skip")   # saved by patience
    assert shown.seconds_left() == pytest.approx(10.0)
    assert shown.where(90.0) == "90 % (finetune/x)"


def test_percentages_are_of_the_whole_study(clock: Clock,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(100.0, clock, behind={"finetune/done": 20.0, "finetune/x": 12.0})
    assert shown.where(32.0) == "32 %"         # nothing made yet: as the last stop said
    advance(shown, clock, 0.0, 10.0, "skip")   # x resumes, 2 less than was read of it
    advance(shown, clock, 40.0, 10.0)
    assert shown.seconds_left() == pytest.approx(240.0)  # of 60: the finished run is not left
    assert capsys.readouterr().out.splitlines()[-1].startswith("progress  40 %, ")
    advance(shown, clock, 0.0, 5.0, "skip")    # saved by patience: not resumed a second time
    assert shown.where(45.0) == "45 % (finetune/x)"
    assert shown.where(32.0) == "32 % (13 % since the last checkpoints are made again; finetune/x)"


def test_time_left_follows_the_load(clock: Clock) -> None:
    shown = Progress(10_000.0, clock)
    for _ in range(100):
        advance(shown, clock, 1.0, 10.0)       # 10 a second for 100 s
    assert shown.seconds_left() == pytest.approx(900.0)
    for _ in range(70):
        advance(shown, clock, 10.0, 10.0)      # then 1 a second for 700 s, more than the window
    left = 10_000 - 1_000 - 700
    assert shown.seconds_left() == pytest.approx(left, rel=0.02)  # and not 8300 / 1700 * 800
    before = shown.seconds_left()
    clock.now += 300.0                         # nothing ends meanwhile: the time left grows
    assert before is not None and (shown.seconds_left() or 0) > 1.3 * before


def test_the_first_estimate_is_said_once_and_lines_follow(
        clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(10_000.0, clock)
    advance(shown, clock, 5.0, 10.0)
    assert not capsys.readouterr().out
    for _ in range(10):
        advance(shown, clock, 10.0, 20.0)
    said = capsys.readouterr().out.splitlines()
    first = [line for line in said if line.startswith("time ")]
    assert first == ["time      at most about 1.4 hours left, measured over the first 25 s of "
                     "training"]
    assert [line for line in said if line.startswith("progress")][0].startswith("progress  1 %, at")


def test_times_in_words() -> None:
    assert [in_words(hours) for hours in (12.4, 1.25, 0.5, 0.001)] == [
        "12 hours", "1.2 hours", "30 minutes", "1 minute"]
    assert progress.FIRST_AFTER < progress.PLAIN_EVERY < progress.WINDOW
