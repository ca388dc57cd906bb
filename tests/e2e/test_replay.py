"""`--from-archive` loads without the vendor. `--archive-only` fills an archive without a lake."""

import gzip
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import etl
from etl.archive.reader import version_name
from etl.emulator import Dataset, EmulatorOptions, Fault, run_in_thread
from tests.conftest import COMMAND, Runner, Serve, environment, load
from tests.lakes import assert_lake_holds, expected, receipts, through_duckdb, through_pyarrow

ACCOUNT, OTHER = "le79344075", "12345678"
START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
HOUR = f"/year=2022/month=6/day=1/hour=6/accountId={ACCOUNT}/"
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
DATA = Dataset.generate(8, START, END, files_per_hour=2, rows_per_file=20, mixed_shapes=True)
DAMAGED = f"{HOUR}damaged.json.gz"
MALFORMED = f"{HOUR}malformed.json.gz"
BAD_ROWS = f"{HOUR}bad.json.gz"
HIDDEN = tuple(f"{HOUR}{name}.json.gz" for name in ("_a", ".a"))
ALL = Dataset(
    {
        **DATA.files,
        **Dataset.of(
            {
                DAMAGED: gzip.compress(b'{"segmentId":"a"}\n')[:-3],
                MALFORMED: gzip.compress(b"{no\n" * 3),
                **{
                    path: gzip.compress(b'{"segmentId":"%b"}\n' % path[-9:].encode())
                    for path in HIDDEN
                },
                BAD_ROWS: gzip.compress(b'{"segmentId":"a"}\n{"segmentId":"b"}\n{"x":1}\n'),
            }
        ).files,
    }
)


def command(folder: Path, name: str, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of the archive, `raw`, without a network or an account."""
    return subprocess.run(
        [COMMAND, name, *flags],
        cwd=folder,
        env=environment(**{"AHT_ETL_RAW__URI": "raw", **env}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def replay(folder: Path, *flags: str, **env: str) -> dict[str, Any]:
    """Run with --from-archive, by default for both days; return the report."""
    flags = flags if "--from" in flags or "--paths" in flags else (*WINDOW, *flags)
    ended = command(folder, "run", "--from-archive", *flags, "--report", "-", **env)
    report: dict[str, Any] = json.loads(ended.stdout)
    assert (0, 0) == (report["http"]["requests"], report["listing"]["requests"])
    return report


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a lake and its archive, with temporary faults."""
    folder = tmp_path_factory.mktemp("loaded")
    passing = [path for path in DATA.files if path.endswith("7.json.gz")][:3]
    faults = tuple(Fault("file", "half_gzip", path) for path in passing)
    with run_in_thread(ALL, EmulatorOptions(oldest=None, faults=faults)) as emulator:
        load(
            emulator,
            folder / "lake",
            raw={"uri": str(folder / "raw")},
            retry={"server_delays": [0.01, 0.01]},
        )
    return folder


@pytest.fixture
def folder(loaded: Path, tmp_path: Path) -> Path:
    """Copy the lake and its archive."""
    return Path(shutil.copytree(loaded, tmp_path / "folder"))


def test_a_lake_from_the_archive_is_the_lake_from_the_api(folder: Path) -> None:
    """They have the same rows, receipts and bad rows. Files that failed fail again."""
    report = replay(folder, "--lake", "again")
    truth = expected(Dataset({p: f for p, f in ALL.files.items() if p not in (DAMAGED, MALFORMED)}))
    for engine in (through_pyarrow, through_duckdb):
        assert truth == engine(folder / "again") == engine(folder / "lake")
    assert sorted(tuple(r.items())[:5] for r in receipts(folder / "lake")) == sorted(
        tuple(r.items())[:5] for r in receipts(folder / "again")
    )
    quarantines = [
        {str(f.relative_to(lake)): f.read_bytes() for f in lake.rglob("*.ndjson")}
        for lake in (folder / "lake", folder / "again")
    ]
    assert quarantines[0] == quarantines[1] != {}
    assert {DAMAGED: "truncated", MALFORMED: "malformed"} == {
        failure["path"]: failure["kind"] for failure in report["failures"]
    }
    assert (3, None, len(ALL.files)) == (
        report["exit_code"],
        report["account"],
        report["files"]["listed"],
    )
    assert [1, 1] == [failure["attempts"] for failure in report["failures"]]
    report = replay(folder, "--lake", "again")
    assert (len(DATA.files) + 1 + len(HIDDEN), 2) == tuple(
        report["files"][key] for key in ("already_loaded", "failed")
    )


def test_the_plan_is_what_the_run_does(folder: Path) -> None:
    """This holds for windows, shares and accounts."""
    flags = ("--from", "2022-06-01T06:30:00Z", "--to", "2022-06-01T08:00:00Z", "--lake", "some")
    shown = command(folder, "plan", "--from-archive", *flags, "--json")
    plan = json.loads(shown.stdout)
    hours = {f"year=2022/month=6/day=1/hour={hour}/accountId={ACCOUNT}" for hour in (6, 7)}
    assert (0, None, hours) == (
        shown.returncode,
        plan["account"],
        {partition["partition"] for partition in plan["partitions"]},
    )
    assert "all accounts" in command(folder, "plan", "--from-archive", *flags).stdout
    shares = [replay(folder, *flags, "--shard", f"{share}/2") for share in (0, 1)]
    assert plan["files"]["to_load"] == sum(share["files"]["listed"] for share in shares)
    assert 0 == replay(folder, *flags, "--account", OTHER)["files"]["listed"]


def test_paths_from_a_list(folder: Path) -> None:
    """The bytes come from the archive. A path that is not in it fails with `not_found`."""
    first, absent = next(iter(DATA.files)), f"{HOUR}absent.json.gz"
    (folder / "paths").write_text(f"{first}\n{absent}\n")
    report = replay(folder, "--paths", "paths", "--lake", "some")
    assert [(absent, "not_found", "not in the raw archive")] == [
        (f["path"], f["kind"], f["message"]) for f in report["failures"]
    ]
    assert (1, None, 3) == (report["files"]["loaded"], report["window"], report["exit_code"])
    shown = command(folder, "plan", "--from-archive", "--paths", "paths", "--lake", "some")
    assert "1 of 2 listed files to load" in shown.stdout


def test_all_accounts_or_one(tmp_path: Path) -> None:
    """Each account has its own partition. Months and days may have a leading zero."""
    paths = [
        f"year=2022/{day}/accountId={account}/{account}.json.gz"
        for day in ("month=6/day=1/hour=6", "month=06/day=01/hour=06")
        for account in (ACCOUNT, OTHER)
    ]
    for path in paths:
        (tmp_path / "raw" / path).parent.mkdir(parents=True)
        (tmp_path / "raw" / path).write_bytes(gzip.compress(b'{"segmentId":"a"}\n'))
    assert 4 == replay(tmp_path, "--lake", "all")["files"]["loaded"]
    assert [f"/{path}" for path in sorted(paths)] == sorted(
        receipt["path"] for receipt in receipts(tmp_path / "all")
    )
    years = ("--from", "2015-06-01", "--to", "2022-06-03")
    report = replay(tmp_path, "--account", OTHER, "--lake", "one", *years)
    assert (2, OTHER) == (report["files"]["loaded"], report["account"])


def test_of_several_files_the_newest_good_one_counts(folder: Path) -> None:
    """The path is listed once, and a warning says that it has several files."""
    path = next(iter(DATA.files))
    plain = folder / f"raw{path}"
    beside = plain.with_name(version_name(plain.name, "a" * 64))
    beside.write_bytes(gzip.compress(b'{"segmentId":"new"}\n'))
    ended = command(folder, "run", "--from-archive", *WINDOW, "--lake", "again")
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [(1, path)] == [
        (event["paths"], event["first"]) for event in events if event["event"] == "archive.several"
    ]
    rows = [row for row in through_pyarrow(folder / "again") if row[9] == path]
    assert ["new"] == [row[0] for row in rows]


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    """Only this file fails, with kind `lake`."""
    path = next(iter(DATA.files))
    (folder / f"raw{path}").unlink()
    (folder / f"raw{path}").symlink_to("nowhere")
    report = replay(folder, "--lake", "again")
    assert {path: "lake"} == {
        f["path"]: f["kind"] for f in report["failures"] if f["path"] in DATA.files
    }
    assert len(DATA.files) + len(HIDDEN) == report["files"]["loaded"]


def test_large_files_are_read_in_place(tmp_path: Path) -> None:
    """Files that are larger than their share of memory give the same rows."""
    text = b"".join(b'{"segmentId":"%d","sequence":"%d"}\n' % (n, n) for n in range(60_000))
    file = tmp_path / f"raw{HOUR}large.json.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(text, 0))
    report = replay(tmp_path, AHT_ETL_LIMITS__MEMORY="64MiB", AHT_ETL_FETCH__CONCURRENCY="200")
    assert (60_000, file.stat().st_size) == (
        report["rows"]["loaded"],
        report["bytes"]["downloaded"],
    )
    report = replay(tmp_path, "--lake", "small", AHT_ETL_LIMITS__MAX_FILE_SIZE="1MB")
    assert ["too_large"] == [failure["kind"] for failure in report["failures"]]


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        (("--from-archive",), {"AHT_ETL_RAW__URI": ""}, "raw.uri: is missing, and --from-archive"),
        (("--archive-only", "--account", "a1"), {"AHT_ETL_RAW__URI": ""}, "raw.uri: is missing"),
        (("--archive-only",), {}, "account: is missing"),
        (("--archive-only",), {"AHT_ETL_ENGINE__KIND": "dask"}, "engine.kind: --archive-only"),
        (("--archive-only", "--from-archive"), {}, "exclude each other"),
    ],
)
def test_wrong_usage(
    tmp_path: Path, flags: tuple[str, ...], env: dict[str, str], said: str
) -> None:
    """The exit code is 2, for `plan` too, and nothing is created."""
    for name in ("run", "plan"):
        ended = command(tmp_path, name, *flags, **env)
        assert (2, True) == (ended.returncode, said in ended.stderr)
    assert [] == list(tmp_path.iterdir())


def test_a_window_without_archived_files(folder: Path) -> None:
    """The run is ok, and one event says what to check."""
    late = ("--from", "2021-06-01", "--to", "2021-06-02")
    ended = command(folder, "run", "--from-archive", *late, "--lake", "again")
    events = [json.loads(line) for line in ended.stderr.splitlines()]
    said = [event["reason"] for event in events if event["event"] == "listing.empty"]
    assert (0, 1) == (ended.returncode, len(said))
    assert "check --from, --to and --account" in said[0]


def test_an_archive_that_does_not_exist(tmp_path: Path) -> None:
    """It is an error and no empty window, because the name may be wrong."""
    report = replay(tmp_path)
    assert (1, True) == (report["exit_code"], "check raw.uri" in report["error"])
    assert [] == list(tmp_path.iterdir())
    (tmp_path / "raw").write_text("in the way")
    report = replay(tmp_path)
    assert (1, True) == (report["exit_code"], "check raw.uri" in report["error"])


def test_archive_first_and_load_later(run: Runner, serve: Serve) -> None:
    """The first run fills the archive and makes no lake. The next run loads exactly its files."""
    flags = (*WINDOW, "--archive-only")
    env = {"AHT_ETL_RAW__URI": "raw"}
    emulator = serve(ALL, faults=(Fault("file", "bad_middle", next(iter(DATA.files))),))
    shown = command(run.folder, "plan", *flags, "--json", *account(emulator))
    assert len(ALL.files) == json.loads(shown.stdout)["files"]["to_load"]
    landed = [run(emulator, *flags, **env), run(emulator, *flags, **env)]
    assert not run.lake.exists()
    good = len(DATA.files) + 1 + len(HIDDEN)
    for ended, loaded, already in zip(landed, (good, 0), (0, good), strict=True):
        assert {DAMAGED: "truncated", MALFORMED: "malformed"} == {
            failure["path"]: failure["kind"] for failure in ended.report["failures"]
        }
        assert (3, loaded, already, 0) == (
            ended.code,
            ended.report["files"]["loaded"],
            ended.report["files"]["already_loaded"],
            ended.report["rows"]["loaded"],
        )
    assert "  archive        raw\n" in landed[0].out
    for path, file in ALL.files.items():
        assert file.content == (run.folder / f"raw{path}").read_bytes()
    report = replay(run.folder, "--lake", str(run.lake))
    assert (good, 2) == (report["files"]["loaded"], report["files"]["failed"])
    shutil.rmtree(run.folder / "raw" / HOUR[1:])
    ended = run(emulator, *flags, **env)
    assert sum(path.startswith(HOUR) for path in ALL.files) - 2 == ended.report["files"]["loaded"]


def test_three_archive_runs_at_once(run: Runner, serve: Serve) -> None:
    """A run counts only the files that it added. Files of another run count as already loaded."""
    emulator = serve(DATA, latency_s=0.01)
    processes = [
        run.start(
            emulator,
            *WINDOW,
            "--archive-only",
            AHT_ETL_RAW__URI="raw",
            AHT_ETL_FETCH__CONCURRENCY=concurrency,
        )
        for concurrency in ("1", "2", "16")
    ]
    ended = [run.end(process) for process in processes]
    assert [0, 0, 0] == [end.code for end in ended]
    files = [end.report["files"] for end in ended]
    assert len(DATA.files) == sum(each["loaded"] for each in files)
    assert {len(DATA.files)} == {each["loaded"] + each["already_loaded"] for each in files}


def account(emulator: etl.emulator.Emulator) -> tuple[str, ...]:
    return ("--account", ACCOUNT, "--base-url", emulator.base_url)


def test_from_python(folder: Path, serve: Serve) -> None:
    """`etl.run` and `etl.plan` accept the same as arguments."""
    settings = etl.Settings.model_validate(
        {
            "lake": {"uri": str(folder / "again")},
            "raw": {"uri": str(folder / "raw")},
            "window": {"from": START, "to": END},
        }
    )
    assert len(ALL.files) == etl.plan(settings, from_archive=True).to_load
    assert len(DATA.files) + 1 + len(HIDDEN) == etl.run(settings, from_archive=True).files.loaded
    emulator = serve(DATA)
    settings = etl.Settings.model_validate(
        {
            "account": ACCOUNT,
            "api": {"base_url": emulator.base_url},
            "raw": {"uri": str(folder / "new")},
            "window": {"from": START, "to": END},
        }
    )
    assert str(folder / "new") == etl.plan(settings, archive_only=True).archive
    assert len(DATA.files) == etl.run(settings, archive_only=True).files.loaded
    with pytest.raises(etl.UsageError, match="exclude each other"):
        etl.run(settings, archive_only=True, from_archive=True)


def test_a_month(run: Runner, serve: Serve, request: pytest.FixtureRequest) -> None:
    """A lake built from the archive of a month, or of three days, is the lake from the API."""
    days = 30 if request.config.getoption("--long") else 3
    month = Dataset.generate(
        5, START, START + timedelta(days=days), files_per_hour=4, rows_per_file=80
    )
    flags = ("--from", "2022-06-01", "--to", f"2022-07-{1 if days == 30 else 2:02}")
    assert 0 == run(serve(month), *flags, AHT_ETL_RAW__URI="raw").code
    assert 0 == replay(run.folder, *flags, "--lake", "again")["exit_code"]
    for lake in (run.lake, run.folder / "again"):
        assert_lake_holds(lake, month)
    proved = command(run.folder, "verify", "--lake", "again", "--deep", "--json")
    result = json.loads(proved.stdout)
    assert (0, len(month.files), [], []) == (
        proved.returncode,
        result["files"],
        result["findings"],
        result["notes"],
    )
