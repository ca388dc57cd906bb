"""A run logs one event per file, one per part and one summary, each once."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl.emulator import Dataset, Fault
from tests.conftest import Ended, Runner, Serve

DATA = Dataset.generate(
    8,
    datetime(2022, 6, 1, tzinfo=UTC),
    datetime(2022, 6, 1, 3, tzinfo=UTC),
    rows_per_file=10,
    files_per_hour=6,
)
FIRST = min(DATA.files)


def events(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.err.splitlines()]


def test_one_event_a_file_a_part_and_a_run(run: Runner, serve: Serve) -> None:
    """All events have the run's id. The summary agrees with the report."""
    faults = (
        Fault("file", "status", path=FIRST, status=404, times=None),
        Fault("file", "status", status=503),
    )
    ended = run(serve(DATA, faults=faults), *("--log-level", "debug"), *_WINDOW)
    logged = events(ended)
    assert {ended.report["run_id"]} == {event["run_id"] for event in logged}
    files = [event["path"] for event in logged if event["event"].startswith("file.")]
    assert sorted(DATA.files) == sorted(files)
    count = Counter((event["event"], event["level"]) for event in logged)
    assert (1, len(DATA.files) - 1, len(ended.report["parts"]), 1) == (
        count["file.failed", "warning"],
        count["file.decoded", "debug"],
        count["part.committed", "info"],
        count["run.finished", "info"],
    )
    *_, summary, last = logged
    assert "run.partial" == last["event"]
    assert ended.report["files"] == {key: summary[key] for key in ended.report["files"]}
    for key in ("status", "exit_code", "duration_seconds", "newest_complete_hour"):
        assert ended.report[key] == summary[key]
    assert ended.report["rows"]["loaded"] == summary["rows"]


def test_by_default_loaded_files_are_not_logged(run: Runner, serve: Serve) -> None:
    """At the default level, a run logs its windows without files, its plan, parts and summary."""
    ended = run(serve(DATA), *_WINDOW)
    names = [event["event"] for event in events(ended)]
    assert [
        "window.old",
        "window.empty",
        "plan.made",
        *["part.committed"] * len(ended.report["parts"]),
        "run.finished",
    ] == names


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_reason_of_a_failure_is_logged_once(run: Runner, serve: Serve, log_format: str) -> None:
    """The last line, after the summary, has the reason, without a traceback."""
    refused = serve(DATA, faults=(Fault("listing", "status", status=400, times=None),))
    ended = run(refused, "--log-format", log_format, *_WINDOW)
    *_, summary, last = ended.err.splitlines()
    assert (1, 1) == (ended.code, ended.err.count(ended.report["error"]))
    assert "run.finished" in summary
    assert ended.report["error"] in last
    assert "Traceback" not in ended.err


def test_a_file_that_breaks_a_decoder(run: Runner, serve: Serve, tmp_path: Path) -> None:
    """Only this file fails, with one line. The traceback is logged at level debug."""
    broken = Dataset.of({FIRST: gzip.compress(b'{"segmentId": "a"}')})
    folder = tmp_path / "broken"
    folder.mkdir()
    # Python imports it at start-up. It makes every decoding in that process fail.
    (folder / "sitecustomize.py").write_text(
        "from etl.decode.file import Decoded\n"
        "def broken(*_, **__): raise RuntimeError('of our making')\n"
        "Decoded.finish = broken\n"
    )
    emulator = serve(broken)
    for level, tracebacks in (("info", 0), ("debug", 1)):
        ended = run(emulator, "--log-level", level, *_WINDOW, PYTHONPATH=str(folder))
        names = [event["event"] for event in events(ended)]
        (failure,) = ended.report["failures"]
        assert (3, "malformed", tracebacks, tracebacks) == (
            ended.code,
            failure["kind"],
            ended.err.count("Traceback"),
            names.count("file.undecodable"),
        )
        assert (1, True) == (names.count("file.failed"), "please report it" in failure["message"])


_WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
