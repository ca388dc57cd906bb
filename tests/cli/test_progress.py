"""How far a run is: a calm display on a terminal, an event now and then elsewhere, never both."""

import asyncio
import io
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from etl.api.limiter import Limiter
from etl.cli.display import View
from etl.cli.progress import shown
from etl.config.settings import Redactor
from etl.config.sources import load_settings
from etl.emulator import Dataset, Emulator, Fault
from etl.lake.layout import PartitionState
from etl.model.errors import FailureKind
from etl.model.paths import BreakdownPath
from etl.model.times import Window
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job
from etl.pipeline.plan import PartitionPlan, Plan
from etl.pipeline.progress import Facts, Meter
from etl.pipeline.state import RunState
from etl.pipeline.stop import Stop
from tests.conftest import COMMAND, Serve, environment
from tests.terminal import Seen, on_terminal

START = datetime(2022, 6, 1, tzinfo=UTC)
WINDOW = Window(START, datetime(2022, 6, 1, 6, tzinfo=UTC))
DATA = Dataset.generate(7, WINDOW.start, WINDOW.end, rows_per_file=5, files_per_hour=8)
BUSY = Facts(
    phase="loading",
    listed=1500,
    already_loaded=300,
    to_load=1200,
    done=345,
    loaded=340,
    failed=5,
    rows=1_234_567,
    downloaded_bytes=98_765_432,
    files_per_second=12.34,
    bytes_per_second=1_234_567.8,
    in_flight=14,
    concurrency=16,
    rate_limit=34.5,
    throttled=7,
    paused_seconds=0.0,
    seconds_left=4000.0,
)


def drawn(facts: Facts, width: int, encoding: str = "utf-8", **options: Any) -> list[str]:
    file = io.TextIOWrapper(io.BytesIO(), encoding)
    console = Console(file=file, width=width, **options)
    console.print(View(facts))
    file.seek(0)
    return file.read().splitlines()


@pytest.mark.parametrize("done", [0, 345, 1200])
@pytest.mark.parametrize("options", [{}, {"force_terminal": True}, {"no_color": True}])
def test_every_fact_fits_into_any_width(done: int, options: dict[str, Any]) -> None:
    """Broken between facts only, never by the terminal; nothing is lost where there is room."""
    facts = replace(BUSY, done=done)
    for width in range(30, 200):
        lines = drawn(facts, width, **options)
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        assert max(map(len, lines)) < width
        text = " · ".join(lines)
        for fact in (
            "loading",
            f"{done:,}/1,200 files",
            "1,234,567 rows",
            "5 failed",
            "12.3 files/s",
            "1.2 MB/s",
            "14 of 16 in flight",
            "throttled 7 times",
            "at most 34.5 requests/s",
            "1 h 07 min left",
        ):
            assert fact in text
    assert max(len(line) for line in drawn(facts, 8)) < 8


def test_what_waits_and_what_ends_is_said() -> None:
    """A pause for the server's sake, and a signal that was heard."""
    (_, *lines) = drawn(replace(BUSY, paused_seconds=3.2, phase="stopping"), 200)
    assert lines[0].startswith("commits what is downloaded · ")
    assert "throttled, waits 3 s" in lines[0]
    assert ["listing", "0 of 16 in flight"] == drawn(
        replace(
            BUSY,
            phase="listing",
            listed=0,
            to_load=0,
            done=0,
            failed=0,
            files_per_second=None,
            bytes_per_second=None,
            in_flight=0,
            rate_limit=None,
            throttled=0,
            seconds_left=None,
        ),
        80,
    )


def test_a_terminal_that_knows_ascii_only() -> None:
    """No letter that it has not."""
    assert all(line.isascii() for line in drawn(BUSY, 60, "ascii"))


def job_for(base_url: str, lake: Path) -> Job:
    settings = load_settings(
        environ={},
        account="le79344075",
        api={"base_url": base_url},
        lake={"uri": str(lake)},
        fetch={"concurrency": 2},
    )
    return Job(settings, WINDOW, START, Redactor())


def test_speed_is_that_of_the_last_half_minute() -> None:
    """It and what follows from it are unknown at first; then all of it counts, then the newest."""
    state, now = RunState(job_for("http://127.0.0.1:1", Path("lake"))), 100.0
    paths = [
        BreakdownPath.parse(f"/year=2022/month=6/day=1/hour=1/accountId=a1/{n}.json.gz")
        for n in range(100)
    ]
    meter = Meter(state, Stop(), lambda: now)
    assert ("listing", None, None) == (
        meter.read().phase,
        meter.read().files_per_second,
        meter.read().seconds_left,
    )
    partition = PartitionPlan(paths[0].partition, PartitionState(), (), tuple(paths))
    state.plan = Plan((), (), (partition,))
    state.outcomes.expect(state.plan)
    waiting = iter(paths)
    seen = []
    for second in range(80):
        now = 100.0 + second
        facts = meter.read()
        seen.append((facts.files_per_second, facts.seconds_left, facts.done))
        state.traffic.downloaded_bytes += 1000
        # One a second for 40 seconds, then none.
        for path in itertools.islice(waiting, 1 if second < 40 else 0):
            state.outcomes.failed(path.text, FailureKind.NOT_FOUND, "gone", 1)
    assert (None, None, 0) == seen[0]
    assert (1.0, 90.0, 10) == seen[10]
    assert (1.0, 60.0, 40) == seen[40]
    assert (0.3, 180.0, 40) == seen[60]
    assert (0.0, None, 40) == seen[79]


async def test_a_pause_is_a_fact() -> None:
    """It is the server's wish that counts, not the space between requests."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    limiter = Limiter(4, 2.0, lambda: now, sleep)
    async with limiter.slot(), limiter.slot():
        assert (2, 0.0) == (limiter.in_flight, limiter.paused_s)
        limiter.pause(5)
        assert limiter.paused_s == 5.0
    async with limiter.slot():
        assert (1, 0.0) == (limiter.in_flight, limiter.paused_s)


async def test_events_where_there_is_no_terminal(serve: Serve, tmp_path: Path) -> None:
    """With the same facts as the display; none where they are not wanted."""
    job = job_for(serve(DATA, latency_s=0.1).base_url, tmp_path / "lake")

    @asynccontextmanager
    async def watch(state: RunState, stop: Stop) -> AsyncIterator[None]:
        async with shown(state, stop, "auto", live=True, event_every_s=0.02):
            yield
            await asyncio.sleep(0.1)

    with capture_logs() as logs:
        await pipeline.run(job, Stop(), watch)
    events = [entry for entry in logs if entry["event"] == "run.progress"]
    last = events[-1]
    assert set(asdict(BUSY)) == set(last) - {"event", "log_level"}
    assert ("info", "loading", len(DATA.files), len(DATA.files), 0) == (
        last["log_level"],
        last["phase"],
        last["to_load"],
        last["done"],
        last["failed"],
    )
    assert sum(len(file.rows or ()) for file in DATA.files.values()) == last["rows"]
    assert "listing" in {event["phase"] for event in events}
    assert 2 == max(event["in_flight"] for event in events)
    assert len({event["done"] for event in events}) > 2

    with capture_logs() as logs:
        async with shown(RunState(job), Stop(), "off", live=True, event_every_s=0.001):
            await asyncio.sleep(0.05)
    assert [] == logs


def on_terminal_of(
    columns: int, emulator: Emulator, folder: Path, *more: str, term: str = "xterm-256color"
) -> Seen:
    arguments = [
        *(COMMAND, "run", "--account", "le79344075", "--base-url", emulator.base_url),
        *("--from", "2022-06-01", "--to", "2022-06-01T06:00:00Z", *more),
    ]
    env = environment(TERM=term, AHT_ETL_FETCH__CONCURRENCY="2")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        env.pop(name, None)
    return on_terminal(arguments, env, folder, columns=columns)


@pytest.mark.parametrize("columns", [40, 60, 120])
def test_one_calm_display_below_the_log(serve: Serve, tmp_path: Path, columns: int) -> None:
    """Log lines above it stay whole. It is shown once, and nothing of it remains."""
    faults = (Fault("file", "status", status=503, times=2),)
    seen = on_terminal_of(columns, serve(DATA, latency_s=0.15, faults=faults), tmp_path)
    assert seen.code == 0
    showing = [moment for moment in seen.moments if any("in flight" in line for line in moment)]
    loading = [moment for moment in showing if any("loading" in line for line in moment)]
    assert len(loading) > 2
    for moment in showing:
        heads = [row for row, line in enumerate(moment) if re.match(r"(listing|loading)\b", line)]
        assert 1 == len(heads)
        below = [line for line in moment[heads[0] :] if line]
        assert len(below) <= 5
        assert not any("[info" in line or "part.committed" in line for line in below)
    cursor = zip(seen.moments, seen.cursor_hidden, strict=True)
    # A run that is killed leaves a terminal that shows where one types.
    assert not any(hidden for moment, hidden in cursor if moment in loading)
    assert 1 == seen.text.count("request.retry"), "one of a cause"
    for not_for_people in ("part.committed", "run.finished", "run.progress", "run_id"):
        assert not_for_people not in seen.text
    assert not any("in flight" in line or "━" in line for line in seen.lines)
    assert re.search(r"ok in [0-9.]+ s: ", seen.text)


def test_a_level_that_is_asked_for_is_shown_on_a_terminal(serve: Serve, tmp_path: Path) -> None:
    """Each part then has its line; a run on a terminal is one, so its id is not shown."""
    seen = on_terminal_of(120, serve(DATA), tmp_path, "--log-level", "info")
    parts = len(list((tmp_path / "lake").rglob("*.parquet")))
    assert parts == seen.text.count("part.committed")
    assert parts == len(re.findall(r"part='?year=2022/[^' ]*part-00000\.parquet", seen.text))
    assert "run_id" not in seen.text


def test_json_on_a_terminal(serve: Serve, tmp_path: Path) -> None:
    """A display has no place between objects, unless it is asked for; each stays one line."""
    emulator = serve(DATA, latency_s=0.02)
    plain = on_terminal_of(1000, emulator, tmp_path, "--log-format", "json", "--lake", "one")
    asked = on_terminal_of(
        1000, emulator, tmp_path, "--log-format", "json", "--lake", "two", "--progress", "on"
    )
    assert not any("in flight" in line for moment in plain.moments for line in moment)
    assert any("in flight" in line for moment in asked.moments for line in moment)
    for seen in (plain, asked):
        objects = [json.loads(line) for line in seen.lines if line.startswith("{")]
        parts = [entry for entry in objects if entry["event"] == "part.committed"]
        assert 6 == len(parts)


@pytest.mark.parametrize(
    ("term", "more"), [("dumb", ()), ("xterm", ("--progress", "off", "--log-level", "warning"))]
)
def test_no_display(serve: Serve, tmp_path: Path, term: str, more: tuple[str, ...]) -> None:
    """Not where the cursor cannot move, not where it is not wanted."""
    seen = on_terminal_of(80, serve(DATA, latency_s=0.02), tmp_path, *more, term=term)
    assert seen.code == 0
    assert not any("in flight" in line for moment in seen.moments for line in moment)
    assert re.search(r"ok in [0-9.]+ s: ", seen.text)
