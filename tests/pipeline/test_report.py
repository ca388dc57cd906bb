"""The report sums up the outcomes."""

import errno
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.cli.run import to_text
from etl.config.settings import Redactor, Settings
from etl.lake.commit import Committed
from etl.lake.layout import PartitionState
from etl.model.errors import FailureKind
from etl.model.paths import BreakdownPath
from etl.model.times import Window, parse_instant
from etl.pipeline.job import Job
from etl.pipeline.plan import InvalidPath, PartitionPlan, Plan
from etl.pipeline.report import ListingOutcome, Report, write_report
from etl.pipeline.state import FailedFile, RunState

NOW = datetime(2022, 6, 1, tzinfo=UTC)
PATHS = [
    BreakdownPath.parse(f"/year=2022/month=6/day=1/hour=1/accountId=a1/{name}.json.gz")
    for name in "abcde"
]
PLAN = Plan(
    (InvalidPath("/x", "why"),),
    (PATHS[4],),
    (PartitionPlan(PATHS[0].partition, PartitionState(), (PATHS[0],), tuple(PATHS[1:4])),),
)


def state_of(plan: Plan = Plan((), (), ()), started_at: datetime = NOW) -> RunState:  # noqa: B008
    job = Job(Settings(account="a1"), None, NOW, Redactor())
    state = RunState(job, started_at, plan=plan)
    state.outcomes.expect(plan)
    return state


def report_of(state: RunState) -> Report:
    return Report.of(state, None, None)


def test_a_clock_that_is_set_back_makes_no_negative_duration() -> None:
    """A run that started in the future has the duration 0 and does not end before its start."""
    began = datetime.now(UTC) + timedelta(hours=1)
    report = report_of(state_of(started_at=began)).as_json()
    assert 0 <= report["duration_seconds"] < 60
    finished_at = parse_instant(report["finished_at"])
    # The report has milliseconds.
    took_s = (finished_at - parse_instant(report["started_at"])).total_seconds()
    assert took_s == pytest.approx(report["duration_seconds"], abs=0.002)


def test_every_path_has_one_outcome() -> None:
    """The sum is always the number of listed files, whenever the run ends."""
    state = state_of(PLAN)
    outcomes = state.outcomes
    outcomes.failed(PATHS[1].text, FailureKind.NOT_FOUND, "gone", 1)
    outcomes.committed("hour", Committed(None, (), frozenset({PATHS[2].text})))
    report = report_of(state).as_json()
    assert {
        "listed": 6,
        "already_loaded": 2,
        "loaded": 0,
        "failed": 1,
        "invalid": 1,
        "skipped": 1,
        "not_attempted": 1,
    } == report["files"]
    with pytest.raises(KeyError):
        outcomes.failed(PATHS[1].text, FailureKind.LAKE, "again", 1)


@pytest.mark.parametrize(
    ("loaded", "newest"),
    [
        ("", None),  # nothing was loaded
        ("1", 1),
        ("13", 1),  # a newer hour does not count while an older one is incomplete
        ("12", 2),
        ("123", 3),
        ("1234", 3),  # an hour that was not over at the run's start never counts
    ],
)
@pytest.mark.parametrize("ends", ["failed", "open"])
def test_the_newest_complete_hour(loaded: str, newest: int | None, ends: str) -> None:
    """All listed files of this hour and of all hours before it are in the lake."""
    names = {
        hour: f"/year=2022/month=6/day=1/hour={hour}/accountId=a1/x.json.gz" for hour in range(1, 5)
    }
    parsed = {hour: BreakdownPath.parse(name) for hour, name in names.items()}
    plan = Plan(
        (InvalidPath("/x", "why"),),
        (PATHS[4],),
        tuple(
            PartitionPlan(path.partition, PartitionState(), (), (path,)) for path in parsed.values()
        ),
    )
    state = state_of(plan, datetime(2022, 6, 1, 4, 59, 59, tzinfo=UTC))
    for hour, name in names.items():
        if str(hour) in loaded:
            state.outcomes.committed("hour", Committed(None, (), frozenset({name})))
        elif ends == "failed":
            state.outcomes.failed(name, FailureKind.NOT_FOUND, "gone", 1)
    expected = None if newest is None else f"2022-06-01T0{newest}:00:00Z"
    assert expected == report_of(state).as_json()["newest_complete_hour"]


def test_without_listed_files_no_hour_is_complete() -> None:
    """Nor is the last possible hour, which never ends."""
    assert None is report_of(state_of()).newest_complete_hour
    last = BreakdownPath.parse("/year=9999/month=12/day=31/hour=23/accountId=a1/x.json.gz")
    plan = Plan((), (), (PartitionPlan(last.partition, PartitionState(), (last,), ()),))
    assert None is report_of(state_of(plan)).newest_complete_hour


@pytest.mark.parametrize(
    ("error", "signal", "ends"),
    [
        (None, None, ("partial", 3)),
        ("no", None, ("failed", 1)),
        (None, 15, ("interrupted", 143)),
        (None, 2, ("interrupted", 130)),
        ("no", 15, ("interrupted", 143)),
    ],
)
def test_how_a_run_ends(error: str | None, signal: int | None, ends: tuple[str, int]) -> None:
    """A signal wins over an error, and an error over failed files."""
    report = Report.of(state_of(PLAN), error, signal)
    assert ends == (report.status, report.exit_code)
    good = report_of(state_of())
    assert ("ok", 0) == (good.status, good.exit_code)


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """It replaces an older report through a temporary file, which is removed."""
    file = tmp_path / "report.json"
    file.write_text("old")
    with pytest.raises(TypeError):
        write_report({"a": object()}, file)
    assert "old" == file.read_text()
    write_report({"a": "\ud800ü"}, file)
    assert {"a": "\ud800ü"} == json.loads(file.read_text())
    assert [file] == list(tmp_path.iterdir())


def test_a_report_follows_links_and_pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through a link, into a pipe, or into a file that cannot be replaced."""
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_report({"a": 1}, link)
    assert (True, {"a": 1}) == (link.is_symlink(), json.loads(target.read_text()))
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_text)
        write_report({"a": 2}, pipe)
        assert ({"a": 2}, True) == (json.loads(reading.result()), pipe.is_fifo())
    # The target of this link is no path: /proc/123/fd/pipe:[456].
    ours, theirs = os.pipe()
    write_report({"a": 4}, Path(f"/dev/fd/{theirs}"))
    os.close(theirs)
    with os.fdopen(ours) as unnamed:
        assert {"a": 4} == json.load(unnamed)

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "mounted on its own")

    monkeypatch.setattr(Path, "replace", busy)
    write_report({"a": 3}, target)
    assert {"a": 3} == json.loads(target.read_text())
    assert {target, link, pipe} == set(tmp_path.iterdir())


def test_the_summary_names_what_went_wrong() -> None:
    """It has the failures by kind and path, and what happens to the rest."""
    state = state_of(PLAN)
    state.outcomes.failed(PATHS[1].text, FailureKind.CORRUPT, "damaged gzip", 4)
    text = to_text(report_of(state), "/lake")
    assert f"  corrupt: {PATHS[1].text}: damaged gzip" in text.splitlines()
    assert re.match(r"partial in [0-9.]+ s: 6 files listed, 0 loaded, 1 failed\n", text)
    for words in ("invalid", "by fetch.skip", "left to the next run"):
        assert words in text


def test_failures_of_one_cause_are_one_line_of_the_summary() -> None:
    """The line has a count and an example. Numbers in a reason do not make another cause."""
    failures = [
        FailedFile(f"/hour={n}/a.json.gz", FailureKind(kind), message, 1)
        for n in range(400)
        for kind, message in (
            ("lake", f"writing year=2022/hour={n}/part-{n:05}.parquet: No space left on device"),
            ("timeout", f"nothing arrived for {n} s"),
        )
    ]
    report = replace(report_of(state_of(PLAN)), failures=failures)
    text = to_text(report, "/lake")
    assert (
        "  lake: 400 files, for example /hour=0/a.json.gz: writing year=2022/hour=0/"
        "part-00000.parquet: No space left on device"
    ) in text.splitlines()
    assert "  timeout: 400 files, for example /hour=0/a.json.gz: nothing arrived" in text
    assert len(text.splitlines()) < 15


def test_the_summary_shows_ten_causes_and_counts_the_rest() -> None:
    """The most frequent causes come first."""
    failures = [
        FailedFile("/a", FailureKind("http"), letter, 1)
        for letter in "abcdefghijkl"
        for _ in range(2 if letter == "l" else 1)
    ]
    report = replace(report_of(state_of(PLAN)), failures=failures)
    lines = to_text(report, "/lake").splitlines()
    shown = [line for line in lines if line.startswith("  http: ")]
    assert (10, "  http: 2 files, for example /a: l") == (len(shown), shown[0])
    assert "  … and 2 more files; --report FILE has them all" in lines


def test_the_summary_shows_ten_windows_and_counts_the_rest() -> None:
    """This holds for partial windows and for unanswered windows."""
    window = Window(NOW, NOW + timedelta(days=1))
    listing = ListingOutcome(0, (), (window,), (window,) * 40)
    report = replace(report_of(state_of(PLAN)), listing=listing)
    text = to_text(report, "/lake")
    assert (1, 10) == (text.count("  partial  "), text.count("  unanswered  "))
    assert "  … and 30 more such windows; --report FILE has them all\n" in text


def test_foreign_text_in_the_summary_cannot_control_the_terminal() -> None:
    """Text of a server or a listing is shown as printable text on one line."""
    failure = FailedFile("/a\x1b]0;x\x07", FailureKind("http"), "b\r\nc\u202ed", 1)
    report = replace(report_of(state_of(PLAN)), failures=(failure,))
    text = to_text(report, "/lake\x1b[2J")
    assert "  http: /a ]0;x: b c d" in text.splitlines()
    assert all(line.isprintable() for line in text.splitlines())
