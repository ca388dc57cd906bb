"""`aht-etl status`: what the lake holds, as JSON and as a picture."""

import gzip
import json
import os
import pty
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from etl.cli import app
from etl.emulator import Dataset, EmulatorOptions, Fault, run_in_thread
from etl.model.times import Window, to_millis
from tests.conftest import COMMAND, Serve, environment, load
from tests.lakes import receipts

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
DATA = Dataset.generate(7, START, END, rows_per_file=20, late_share=0.2)
ACCOUNT = "le79344075"
ROW = gzip.compress(b'{"segmentId":"a"}\n')


def path(at: str, account: str = "a1", name: str = "a") -> str:
    """Return a path of the hour `at`, written like 2022-06-01T06."""
    year, month, day, hour = (int(number) for number in re.findall(r"\d+", at))
    return f"/year={year:04}/month={month}/day={day}/hour={hour}/accountId={account}/{name}.json.gz"


def made(lake: Path, *paths: str, content: bytes = ROW) -> Path:
    """Make a lake that holds these files, by the real job."""
    listed = lake.with_suffix(".txt")
    listed.write_text("\n".join(paths))
    with run_in_thread(Dataset.of(dict.fromkeys(paths, content)), EmulatorOptions()) as emulator:
        subprocess.run(
            [
                *(COMMAND, "run", "--account", "a1", "--base-url", emulator.base_url),
                *("--paths", str(listed), "--lake", str(lake)),
            ],
            env=environment(),
            check=True,
            capture_output=True,
        )
    return lake


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake of two days."""
    lake = tmp_path_factory.mktemp("status") / "lake"
    with run_in_thread(DATA, EmulatorOptions(oldest=None)) as emulator:
        assert 0 == load(emulator, lake)["exit_code"]
    return lake


@pytest.fixture
def lake(loaded: Path, tmp_path: Path) -> Path:
    """Copy it, to change the copy."""
    return Path(shutil.copytree(loaded, tmp_path / "lake"))


def invoke(lake: Path, *more: str, code: int = 0) -> Any:
    ended = CliRunner().invoke(app, ["status", "--lake", str(lake), *more])
    structlog.reset_defaults()
    assert code == ended.exit_code, ended.output
    return ended


def status(lake: Path, *more: str) -> dict[str, Any]:
    """Return the command's JSON."""
    document: dict[str, Any] = json.loads(invoke(lake, "--json", *more).stdout)
    return document


def text(lake: Path, *more: str) -> str:
    return str(invoke(lake, *more).stdout)


def gaps(lake: Path, *more: str) -> list[tuple[str, str, str]]:
    return [(gap["account"], gap["from"], gap["to"]) for gap in status(lake, *more)["gaps"]]


def on_terminal(*command: str, **env: str) -> str:
    """Return what a command shows on a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    more = {"TERM": "xterm-256color", "COLUMNS": "60", "LANG": "C.UTF-8", **env}
    clean = {k: v for k, v in environment(**more).items() if k != "NO_COLOR" or k in env}
    with subprocess.Popen(command, env=clean, stdin=theirs, stdout=theirs, stderr=theirs) as shown:
        os.close(theirs)
        output = b""
        try:
            while piece := os.read(ours, 65536):
                output += piece
        except OSError:  # Linux's way of saying that the other side has closed
            pass
        os.close(ours)
    assert 0 == shown.returncode, output
    return output.decode().replace("\r\n", "\n")


def test_everything_is_counted(loaded: Path) -> None:
    """Files, rows, bytes, parts and bad rows, in all and hour by hour, are the lake's own."""
    sources = receipts(loaded)
    files = [*loaded.rglob("*.parquet")]
    document = status(loaded)
    assert (len(DATA.files), sum(s["rows"] for s in sources), len(files)) == (
        document["files"],
        document["rows"],
        document["parts"],
    )
    assert sum(file.stat().st_size for file in files) == document["bytes"]
    for key in ("files", "rows", "bytes", "parts", "quarantined"):
        assert document[key] == sum(partition[key] for partition in document["partitions"])
    partitions = {partition["partition"]: partition for partition in document["partitions"]}
    assert {s["path"].rpartition("/")[0][1:] for s in sources} == set(partitions)
    assert [p["hour"] for p in document["partitions"]] == sorted(
        p["hour"] for p in document["partitions"]
    )
    for directory, partition in partitions.items():
        (part,) = (loaded / directory).iterdir()
        at = datetime.fromtimestamp(part.stat().st_mtime, UTC)
        loaded_at = datetime.fromisoformat(partition["loaded"]["last"])
        assert abs(at - loaded_at) < timedelta(milliseconds=1)
        assert ACCOUNT == partition["account"]


def test_how_late_files_came(loaded: Path) -> None:
    """From the end of their hour to the time in their names."""
    delays: dict[str, list[float]] = {}
    for file in DATA.files.values():
        written = int(file.path.split(".")[1])
        delay = (written - file.closed_ms[1] - 1) / 1000
        delays.setdefault(file.path.rpartition("/")[0][1:], []).append(delay)
    document = status(loaded)
    late = [d for several in delays.values() for d in several if d > 24 * 3600]
    assert len(late) > 5
    assert len(late) == document["late_files"]
    for partition in document["partitions"]:
        expected = delays[partition["partition"]]
        assert sum(d > 24 * 3600 for d in expected) == partition["late_files"]
        assert round(max(expected)) == partition["delay_seconds"]["max"]
    assert f"{len(late)} files after more than 24 h" in text(loaded)


def test_names_that_tell_no_time(tmp_path: Path) -> None:
    """The output says that the delay of a file is not known."""
    lake = made(tmp_path / "lake", path("2022-06-01T06"))
    (partition,) = status(lake)["partitions"]
    assert (0, None) == (partition["late_files"], partition["delay_seconds"])
    assert "not known" in text(lake)


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    """Separately from the rows of their hour."""
    lake = made(tmp_path / "lake", path("2022-06-01T06"), content=b'{"segmentId":"a"}\n{"x":1}\n')
    (partition,) = status(lake)["partitions"]
    assert (1, 1) == (partition["rows"], partition["quarantined"])
    assert re.search(r"bad rows +1, kept in .+/_quarantine", text(lake).replace("\n", " "))


def test_gaps_between_the_first_and_the_last(tmp_path: Path) -> None:
    """Per account, half-open, joined; both spellings of an hour are that hour."""
    lake = made(
        tmp_path / "lake",
        path("2022-06-01T00"),
        path("2022-06-01T01").replace("month=6", "month=06"),
        path("2022-06-01T03"),
        path("2022-06-02T05"),
        path("2022-06-01T02", "b2"),
        path("2022-06-01T04", "b2"),
    )
    expected = [
        ("a1", "2022-06-01T02:00:00Z", "2022-06-01T03:00:00Z"),
        ("a1", "2022-06-01T04:00:00Z", "2022-06-02T05:00:00Z"),
        ("b2", "2022-06-01T03:00:00Z", "2022-06-01T04:00:00Z"),
    ]
    assert expected == gaps(lake)
    assert expected[2:] == gaps(lake, "--account", "b2")
    assert [] == gaps(lake, "--account", "c3")


def test_a_day_is_judged_by_what_lies_beyond(tmp_path: Path) -> None:
    """Chosen hours without files are a gap, also at the edge of the chosen hours."""
    lake = made(tmp_path / "lake", path("2022-06-01T22"), path("2022-06-03T02"))
    day = ("--from", "2022-06-02", "--to", "2022-06-03")
    assert [("a1", "2022-06-02T00:00:00Z", "2022-06-03T00:00:00Z")] == gaps(lake, *day)
    assert [] == status(lake, *day)["partitions"]
    part_of_hours = ("--from", "2022-06-02T10:30:00Z", "--to", "2022-06-02T12:30:00Z")
    assert [("a1", "2022-06-02T10:00:00Z", "2022-06-02T13:00:00Z")] == gaps(lake, *part_of_hours)
    assert [] == gaps(lake, "--from", "2022-06-04")


def test_a_window_says_which_hours_are_expected(tmp_path: Path) -> None:
    """Its hours before and after those of the lake are gaps, but not hours after now."""
    lake = made(tmp_path / "lake", path("2022-06-01T02"), path("2022-06-01T04"))
    day = ("--from", "2022-06-01", "--to", "2022-06-02")
    expected = [
        ("a1", "2022-06-01T00:00:00Z", "2022-06-01T02:00:00Z"),
        ("a1", "2022-06-01T03:00:00Z", "2022-06-01T04:00:00Z"),
        ("a1", "2022-06-01T05:00:00Z", "2022-06-02T00:00:00Z"),
    ]
    assert expected == gaps(lake, *day)
    assert expected[:2] == gaps(lake, *day[:2])
    assert expected[1:] == gaps(lake, *day[2:])
    assert expected[1:2] == gaps(lake)
    assert "2022-06-01 05:00 to 2022-06-02 00:00, 19 hours" in text(lake, *day)
    assert [("b2", "2022-06-01T00:00:00Z", "2022-06-02T00:00:00Z")] == gaps(
        lake, *day, "--account", "b2"
    )
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    later = (now + timedelta(days=2)).isoformat()
    (gap,) = gaps(lake, "--from", (now - timedelta(hours=3)).isoformat(), "--to", later)
    assert now <= datetime.fromisoformat(gap[2]) <= datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize(
    ("flags", "hours"),
    [
        (("--from", "2022-06-01T05:59:59Z", "--to", "2022-06-01T07:00:00Z"), [5, 6]),
        (("--from", "2022-06-01T06:00:00Z", "--to", "2022-06-01T07:00:01Z"), [6, 7]),
        (("--to", "2022-06-01T02:00:00Z"), [0, 1]),
        (("--lookback", "1h", "--to", "2022-06-01T09:00:00Z"), [8]),
        (("--lookback", "1h"), []),
    ],
)
def test_hours_that_are_chosen(loaded: Path, flags: tuple[str, ...], hours: list[int]) -> None:
    """Hours that overlap the window of the flags."""
    there = {p["hour"] for p in status(loaded)["partitions"]}
    expected = [f"2022-06-01T{hour:02d}:00:00Z" for hour in hours]
    chosen = status(loaded, *flags)
    assert [hour for hour in expected if hour in there] == [p["hour"] for p in chosen["partitions"]]
    assert chosen["files"] == sum(p["files"] for p in chosen["partitions"])


def test_a_damaged_part_is_shown_and_no_gap(lake: Path) -> None:
    """An hour or a day that cannot be listed is not a gap either."""
    before = status(lake)
    hour = lake / "year=2022/month=6/day=1/hour=12" / f"accountId={ACCOUNT}"
    (hour / "part-00000.parquet").write_bytes(b"no")
    (hour / "part-00001.parquet").mkdir()
    shut = lake / "year=2022/month=6/day=1/hour=13" / f"accountId={ACCOUNT}"
    shutil.rmtree(shut)
    shut.write_text("no folder")
    day = lake / "year=2022/month=6/day=2"
    after_day = lake / "year=2022/month=6/day=3/hour=1" / f"accountId={ACCOUNT}"
    shutil.copytree(day / "hour=1" / f"accountId={ACCOUNT}", after_day)
    shutil.rmtree(day)
    day.symlink_to(day)
    document = status(lake)
    (damaged,) = (p for p in document["partitions"] if "day=1/hour=12" in p["partition"])
    assert (0, 0, 2, 2) == tuple(damaged[key] for key in ("files", "rows", "parts", "damaged"))
    assert [
        "year=2022/month=6/day=2",
        f"year=2022/month=6/day=1/hour=12/accountId={ACCOUNT}/part-00000.parquet",
        f"year=2022/month=6/day=1/hour=12/accountId={ACCOUNT}/part-00001.parquet",
        f"year=2022/month=6/day=1/hour=13/accountId={ACCOUNT}",
    ] == [damage["path"] for damage in document["damaged"]]
    first_day = [gap for gap in before["gaps"] if gap["to"] < "2022-06-02"]
    expected = {"account": ACCOUNT, "from": "2022-06-03T00:00:00Z", "to": "2022-06-03T01:00:00Z"}
    assert [*first_day, expected] == document["gaps"]
    shown = text(lake)
    assert re.search(r"2022-06-01 (. ){12}! ! ", shown)
    assert "4 parts or folders cannot be read: restore from a backup" in shown
    messages = [damage["message"] for damage in document["damaged"]]
    assert f"hour=12/accountId={ACCOUNT}/part-00000.parquet is no readable Parquet" in messages[1]
    assert all(damage["path"] in damage["message"] for damage in document["damaged"])


def test_foreign_files_and_hidden_names(lake: Path) -> None:
    """They are ignored."""
    before = status(lake)
    hour = lake / "year=2022/month=6/day=1/hour=6" / f"accountId={ACCOUNT}"
    part = hour / "part-00000.parquet"
    for name in ("theirs.parquet", ".part-00001.parquet", "_part-00001.parquet", "part-2.txt"):
        shutil.copy(part, hour / name)
    shutil.copy(part, lake / "part-00000.parquet")
    (lake / "_staging" / "part-00009.parquet").write_text("half")
    (lake / "year=2022/month=13/day=1/hour=0/accountId=a1").mkdir(parents=True)
    (lake / "year=2022/month=6/day=9/hour=0/accountId=a1").mkdir(parents=True)
    assert before == status(lake)


def test_a_lake_that_does_not_exist(tmp_path: Path) -> None:
    """An error that first advises to check the name. Nothing is created, not even the page."""
    lake, page = tmp_path / "lake", tmp_path / "page.html"
    for flags in ((), ("--json",), ("--html", str(page))):
        ended = invoke(lake, *flags, code=1)
        (line,) = ended.stderr.splitlines()
        reason = json.loads(line)["reason"]
        assert ("", True) == (ended.stdout, f"there is no lake at {lake}" in reason)
        assert reason.index("typing error") < reason.index("aht-etl run")
    assert [] == [*tmp_path.iterdir()]


def test_a_lake_that_holds_nothing(tmp_path: Path) -> None:
    """The output says so. A file instead of a folder is an error in one line."""
    lake = tmp_path / "lake"
    lake.mkdir()
    assert text(lake).replace("\n", " ").startswith(f"{lake} holds nothing yet: check --lake ")
    document = status(lake)
    assert ([], [], 0) == (document["partitions"], document["gaps"], document["files"])
    assert "nothing of account a1" in text(lake, "--account", "a1").replace("\n", " ")
    (tmp_path / "file").touch()
    ended = invoke(tmp_path / "file", code=1)
    assert f"reading {tmp_path / 'file'}: Not a directory" in json.loads(ended.stderr)["reason"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--account", "a-b"), "account:"),
        (("--from", "2022-06-02", "--to", "2022-06-01"), "is not before"),
        (("--from", "yesterday"), "window.from: not a time"),
        (("--against", "api"), "account: is missing, and --against api needs it"),
        (("--against", "me"), "--against"),
        (("--html", "no/such/folder/page.html"), "not a file in a folder that exists"),
        (("--timezone", "Europe/Amsterdam"), "--timezone is for the page: give --html FILE too"),
        (("--timezone", "Mars/Base", "--html", "page.html"), "--timezone Mars/Base: no such time"),
        (("--timezone", "../x", "--html", "page.html"), "--timezone ../x: no such time zone here"),
    ],
)
def test_wrong_usage(tmp_path: Path, flags: tuple[str, ...], said: str) -> None:
    """Exit code 2 and what is wrong, by its name."""
    assert said in invoke(tmp_path, *flags, code=2).stderr


def test_against_the_api(lake: Path, serve: Serve) -> None:
    """Listed files that the lake lacks, hour by hour, with those of a damaged part."""
    emulator = serve(DATA, partial=(Window(START, START + timedelta(days=1)),))
    gone = lake / "year=2022/month=6/day=1/hour=9" / f"accountId={ACCOUNT}"
    damaged = lake / "year=2022/month=6/day=2/hour=9" / f"accountId={ACCOUNT}"
    lost = {
        folder: sum(s["part"].startswith(str(folder.relative_to(lake))) for s in receipts(lake))
        for folder in (gone, damaged)
    }
    shutil.rmtree(gone)
    (damaged / "part-00000.parquet").write_bytes(b"no")
    flags = (
        *("--against", "api", "--account", ACCOUNT, "--base-url", emulator.base_url),
        *("--from", "2022-06-01", "--to", "2022-06-03"),
    )
    against = status(lake, *flags)["against"]
    assert (len(DATA.files), sum(lost.values())) == (against["listed"], against["missing"])
    assert against["listed"] - against["missing"] == against["already_loaded"]
    assert {str(f.relative_to(lake)): (n, n, f == damaged) for f, n in lost.items()} == {
        p["partition"]: (p["listed"], p["missing"], p["damage"] is not None)
        for p in against["partitions"]
        if p["missing"]
    }
    assert 1 == len(against["partial_windows"])
    shown = text(lake, *flags)
    assert f"2022-06-01 09:00  {lost[gone]} of {lost[gone]} missing\n" in shown
    assert f"{lost[damaged]} cannot be loaded until 1 damaged part is restored" in shown
    assert "aht-etl run over the same window loads the others." in shown
    assert re.search(r"2022-06-01 (. ){9}\?", shown)
    assert re.search(r"2022-06-02 (. ){9}!", shown)
    assert 0 == emulator.count("file")


def test_a_listing_that_is_refused(lake: Path, serve: Serve) -> None:
    """It is an error in one line, never an empty window."""
    emulator = serve(DATA, faults=(Fault("listing", "status", times=None, status=400),))
    flags = ("--against", "api", "--account", ACCOUNT, "--base-url", emulator.base_url)
    ended = invoke(lake, *flags, code=1)
    assert ("", True) == (ended.stdout, "listing" in json.loads(ended.stderr)["reason"])


def test_the_page(lake: Path, tmp_path: Path) -> None:
    """It does not change the text or the JSON, and standard error says where it is."""
    page = tmp_path / "page.html"
    ended = invoke(lake, "--html", str(page), "--json")
    assert json.loads(ended.stdout) == status(lake)
    assert f"The page is at {page.as_uri()}\n" == ended.stderr
    assert ACCOUNT in page.read_text()


@pytest.mark.parametrize(
    ("options", "remark"),
    [
        ({}, ""),
        (
            {"partial": (Window(START, START + timedelta(days=1)),)},
            "paths are missing in its own listing of 2022-06-01 00:00 to 2022-06-02 00:00 UTC",
        ),
        (
            {
                "faults": (
                    Fault(
                        "listing",
                        "status",
                        times=None,
                        status=404,
                        body=b"default backend - 404",
                        query=f"fromMillis={to_millis(START)}",
                    ),
                )
            },
            "The API did not answer for 2022-06-01 00:00 to 2022-06-02 00:00 UTC",
        ),
    ],
    ids=["whole", "partial", "unanswered"],
)
def test_a_gap_of_which_the_vendor_lists_nothing(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    remark: str,
) -> None:
    """The page says so, and the day is open. An incomplete listing proves nothing.

    All that is listed is in the lake.
    """
    monkeypatch.setenv("AHT_ETL_RETRY__SERVER_DELAYS", "[0.01]")
    files = {name: file for name, file in DATA.files.items() if "/day=1/hour=9/" not in name}
    lake, page = tmp_path / "lake", tmp_path / "page.html"
    load(serve(Dataset(files)), lake)
    emulator = serve(Dataset(files), **options)
    ended = invoke(
        lake,
        *("--against", "api", "--account", ACCOUNT, "--base-url", emulator.base_url),
        *("--from", "2022-06-01", "--to", "2022-06-03", "--html", str(page)),
    )
    shown = page.read_text()
    gap = "09:00 to 10:00: gap, no files"
    assert (f"{gap}, and the vendor lists none" in shown) is not bool(remark)
    assert "and the lake lacks none of them" in shown
    if remark:
        assert remark in shown
        assert remark in " ".join(ended.stdout.split())
        assert "✕</span> 23 of 24 hours; a gap at 09:00 to 10:00" in shown
        assert "1 hour of 48 is missing" in shown
    else:
        said = "23 of 24 hours so far; the vendor lists nothing at 09:00 to 10:00"
        assert f"…</span> {said}" in shown
        assert "All that the vendor lists is loaded" in shown


def test_a_page_into_a_pipe(loaded: Path) -> None:
    """It is written into a pipe without a name as into a file."""
    done = subprocess.run(
        [COMMAND, "status", "--lake", str(loaded), "--html", "/dev/stderr"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "</html>" in done.stderr


def test_a_page_that_cannot_be_written(lake: Path) -> None:
    """It ends with 1 and one line."""
    ended = invoke(lake, "--html", "/proc/page.html", code=1)
    assert ("", 1) == (ended.stdout, len(ended.stderr.splitlines()))
    assert "--html /proc/page.html: cannot be written" in json.loads(ended.stderr)["reason"]


@pytest.mark.parametrize("level", ["warning", "debug"])
def test_an_error_that_nobody_foresaw(
    lake: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and exit code 1; the traceback is for level debug."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("etl.cli.status.survey", broken)
    ended = invoke(lake, "--log-level", level, code=1)
    *before, last = ended.stderr.splitlines()
    assert "status.failed" == json.loads(last)["event"]
    assert "unexpected ZeroDivisionError: by zero" in json.loads(last)["reason"]
    assert [level == "debug"] == ["Traceback" in "".join(before)]


def test_in_a_pipe(loaded: Path) -> None:
    """Plain characters, no line wider than COLUMNS says, no blanks at the ends of lines."""
    done = subprocess.run(
        [COMMAND, "status", "--lake", str(loaded), "--hours"],
        env=environment(COLUMNS="60"),
        check=True,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert done.stdout.isascii()
    assert "UTC        00    03    06    09    12    15    18    21" in lines
    assert [] == [line for line in lines if len(line) > 60 or line != line.rstrip()]
    assert 48 == sum(bool(re.match(r"06-0[12] \d\d +\d", line)) for line in lines) + sum(
        line.count(" .") for line in lines if line.startswith("2022-06-0")
    )


def test_each_days_rows_stand_behind_it(loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is room."""
    monkeypatch.setenv("COLUMNS", "71")
    days = [0, 0]
    for partition in status(loaded)["partitions"]:
        days[partition["hour"] > "2022-06-02"] += partition["rows"]
    found = re.findall(r"^2022-06-0\d (?:. ){24} +([0-9,]+)$", text(loaded), re.MULTILINE)
    assert [f"{rows:,}" for rows in days] == found
    monkeypatch.setenv("COLUMNS", "70")
    assert 59 >= max(len(line) for line in text(loaded).splitlines() if line.startswith("2022"))


def test_on_a_terminal(lake: Path) -> None:
    """Blocks and the terminal's own colours; NO_COLOR and dumb terminals get the plain form."""
    (
        lake / "year=2022/month=6/day=1/hour=5" / f"accountId={ACCOUNT}" / "part-00000.parquet"
    ).write_bytes(b"")
    command = (COMMAND, "status", "--lake", str(lake))
    shown = on_terminal(*command)
    assert {"\x1b[32m", "\x1b[1;31m", "\x1b[0m", "\x1b[1m", "\x1b[2m"} >= set(
        re.findall(r"\x1b\[[0-9;]*m", shown)
    ) - {"\x1b[31m"}
    assert "█" in shown
    assert "!!" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert max(len(line) for line in plain.splitlines() if str(lake) not in line) <= 60
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[3" not in (dull := on_terminal(*command, **env))
        assert "█" not in dull


def test_many_accounts_are_one_line_each(tmp_path: Path) -> None:
    """With few accounts, each has a heat map."""
    accounts = ["a1", "b2", "c3", "d4"]
    lake = made(tmp_path / "lake", *(path("2022-06-01T00", account) for account in accounts))
    assert accounts == re.findall(r"^(\w\d) +1 +1 +1 +0 +2022", text(lake), re.MULTILINE)
    shutil.rmtree(lake / "year=2022/month=6/day=1/hour=0/accountId=d4")
    assert accounts[:3] == re.findall(r"^account (\w\d)$", text(lake), re.MULTILINE)


def test_many_days(tmp_path: Path) -> None:
    """The last month is shown, or all that is asked for; long gaps are one line."""
    days = [START + timedelta(days=n) for n in range(40)]
    hours = [f"{day:%Y-%m-%dT%H}" for day in days]
    lake = made(tmp_path / "lake", *map(path, hours), path("0001-01-01T00"), path("9999-12-31T23"))
    shown = text(lake)
    assert "... 11 earlier days: --from" in shown
    assert "\n2,913,712 days with nothing\n9999-12-31" in shown
    assert 31 == len(re.findall(r"^\d{4}-\d\d-\d\d [ .0-9]", shown, re.MULTILINE))
    assert "and 31 more; --json has them all" in shown
    shown = text(lake, "--from", "2022-06-01", "--to", "2022-07-11")
    assert 40 == len(re.findall(r"^2022-\d\d-\d\d ", shown, re.MULTILINE))
