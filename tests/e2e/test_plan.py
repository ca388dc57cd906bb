"""`aht-etl plan` shows what `run` would do, and changes nothing."""

import json
import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from etl.emulator import Dataset, Emulator, Fault
from tests.conftest import COMMAND, Ended, Runner, Serve, environment, keys_of

START = datetime(2022, 6, 1, tzinfo=UTC)
DATA = Dataset.generate(9, START, START + timedelta(hours=8), rows_per_file=20, files_per_hour=6)
COUNT = len(DATA.files)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-02")
HOUR = "/year=2022/month=6/day=1/hour={}/accountId=le79344075/{}.json.gz"


def plan(emulator: Emulator, run: Runner, *more: str, stdin: str = "", **env: str) -> Ended:
    """Run the command. If it prints JSON, the report is that JSON."""
    done = subprocess.run(
        [
            *(COMMAND, "plan", "--account", "le79344075", "--base-url", emulator.base_url),
            *("--lake", str(run.lake), *more),
        ],
        env=environment(**{**keys_of(emulator), **env}),
        cwd=run.folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    report = json.loads(done.stdout) if "--json" in more and done.returncode == 0 else {}
    return Ended(done.returncode, done.stdout, done.stderr, report)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return all names below a folder, with times and sizes."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in folder.rglob("*")
    }


def test_the_plan_is_what_the_run_does(run: Runner, serve: Serve) -> None:
    """They agree hour by hour, before and after each run. The plan fetches and writes nothing."""
    emulator = serve(DATA, auth="oauth1")
    planned = plan(emulator, run, *WINDOW, "--json")
    assert (0, "", 0, False) == (
        planned.code,
        "".join(line for line in planned.err.splitlines() if "window.old" not in line),
        emulator.count("file"),
        run.lake.exists(),
    )
    assert {"from": "2022-06-01T00:00:00Z", "to": "2022-06-02T00:00:00Z"} == planned.report[
        "window"
    ]
    for loaded in (0, COUNT):
        report = plan(emulator, run, *WINDOW, "--json").report
        files, partitions = report["files"], report["partitions"]
        assert {
            "listed": COUNT,
            "already_loaded": loaded,
            "to_load": COUNT - loaded,
            "invalid": 0,
            "skipped": 0,
        } == files
        for key in ("listed", "already_loaded", "to_load"):
            assert files[key] == sum(partition[key] for partition in partitions)
        ended = run(emulator, *WINDOW)
        assert files["to_load"] == ended.report["files"]["loaded"]
        assert {p["partition"]: p["to_load"] for p in partitions if p["to_load"]} == {
            os.path.dirname(part["path"]): part["sources"]  # noqa: PTH120 - a name in the lake
            for part in ended.report["parts"]
        }
    first = partitions[0]
    assert ("2022-06-01T00:00:00Z", None) == (first["hour"], first["damage"])
    assert (run.lake / first["partition"]).is_dir()


def test_files_that_a_run_would_not_load(run: Runner, serve: Serve) -> None:
    """It distinguishes invalid, skipped and damaged. It is complete, so the exit code is 0."""
    emulator = serve(DATA)
    run(emulator, "--from", "2022-06-01", "--to", "2022-06-01T04:00:00Z")
    parts = sorted(run.lake.rglob("part-*.parquet"))
    parts[0].write_text("damaged")
    (run.lake / "_staging" / ".leftover.tmp").write_text("of a run that was killed")
    before = tree(run.lake)
    damaged = parts[0].parent.name, parts[0].parent.parent.name
    directory = f"year=2022/month=6/day=1/{damaged[1]}/{damaged[0]}"
    listed = [path for path in DATA.files if "/hour=7/" in path]
    stdin = "\n".join(
        [*listed, f"/{directory}/new.json.gz", "/../x", HOUR.format(25, "a"), HOUR.format(1, "bad")]
    )
    arguments = ("--paths", "-")
    env = {"AHT_ETL_FETCH__SKIP": '["*/bad.json.gz"]'}
    requests = len(emulator.requests)
    ended = plan(emulator, run, *arguments, "--json", stdin=stdin, **env)
    assert 0 == ended.code
    assert None is ended.report["window"]
    assert {
        "listed": len(listed) + 4,
        "already_loaded": 0,
        "to_load": len(listed) + 1,
        "invalid": 2,
        "skipped": 1,
    } == ended.report["files"]
    (damage,) = [p for p in ended.report["partitions"] if p["damage"]]
    assert (directory, 1) == (damage["partition"], damage["to_load"])
    assert ["/../x", HOUR.format(25, "a")] == [p["path"] for p in ended.report["invalid_paths"]]
    assert [HOUR.format(1, "bad")] == ended.report["skipped_paths"]
    text = plan(emulator, run, *arguments, stdin=stdin, **env).out
    for words in (
        f"{len(listed) + 1} of {len(listed) + 4} listed files to load",
        "1 skipped, by fetch.skip",
        "2 invalid, never requested:",
        "  '/../x': does not fit the documented pattern",
        "! 1 cannot be loaded, their partition is damaged:",
        f"  {directory}: part-00000.parquet is no readable Parquet file",
        "a run loads all the others and ends with exit code 3",
    ):
        assert words in text
    assert requests == len(emulator.requests)
    assert before == tree(run.lake)
    ended = run.end(run.start(emulator, *arguments, **env), stdin)
    assert (3, len(listed), 1, 2) == (
        ended.code,
        ended.report["files"]["loaded"],
        ended.report["files"]["failed"],
        ended.report["files"]["invalid"],
    )


def test_shares(run: Runner, serve: Serve) -> None:
    """They are disjoint and complete, like those of a run."""
    emulator = serve(DATA)
    shares = [
        plan(emulator, run, *WINDOW, "--json", "--shard", f"{i}/3").report["partitions"]
        for i in range(3)
    ]
    assert COUNT == sum(partition["to_load"] for share in shares for partition in share)
    names = [partition["partition"] for share in shares for partition in share]
    assert len(set(names)) == len(names) > 3


@pytest.mark.parametrize(
    ("fault", "env", "said"),
    [
        (Fault("listing", "status", status=500, times=None), {}, "listing 2022-06-01T00:00:00Z"),
        (None, {"AHT_ETL_AUTH__CONSUMER_SECRET": "wrong-secret"}, "Agent Activity API"),
        (None, {"AHT_ETL_LAKE__URI": "/dev/null"}, "check lake.uri"),
    ],
)
def test_a_plan_that_cannot_be_made(
    run: Runner, serve: Serve, fault: Fault | None, env: dict[str, str], said: str
) -> None:
    """The exit code is 1, standard error has one line that says why, standard output is empty."""
    emulator = serve(DATA, auth="oauth1", faults=(fault,) if fault else ())
    if "AHT_ETL_LAKE__URI" in env:
        run.lake = Path(env["AHT_ETL_LAKE__URI"])
    for form in ("console", "json"):
        more = ("--json", "--log-format", form, "--log-level", "error")
        ended = plan(emulator, run, *WINDOW, *more, **env)
        assert (1, "") == (ended.code, ended.out)
        (line,) = ended.err.splitlines()
        assert said in line
        assert "wrong-secret" not in line
        assert line.startswith("aht-etl: error: ") or json.loads(line)["event"] == "plan.failed"


@pytest.mark.parametrize("command", [("plan",), ("status", "--against", "api")], ids=" ".join)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it(
    run: Runner, serve: Serve, number: int, code: int, command: tuple[str, ...]
) -> None:
    """It ends at once, wherever it waits. So does `status` with the API."""
    emulator = serve(DATA, faults=(Fault("listing", "hang", times=None),))
    run.lake.mkdir()  # without a lake, `status` is an error
    process = subprocess.Popen(
        [
            *(COMMAND, *command, "--account", "le79344075", "--base-url", emulator.base_url),
            *("--lake", str(run.lake), *WINDOW),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not emulator.in_flight:
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (code, b"") == (process.returncode, out)
    assert "before the end; " in json.loads(err.splitlines()[-1])["reason"]


def test_its_width_and_characters_fit_the_terminal(run: Runner, serve: Serve) -> None:
    """It uses the width of the terminal, and only characters that the terminal can show."""
    env = {"COLUMNS": "60", "PYTHONIOENCODING": "ascii"}
    paths = [HOUR.format(hour, "a") for hour in range(3)]
    ended = plan(serve(DATA), run, "--paths", "-", stdin="\n".join(paths), **env)
    lines = ended.out.split("\n\n")[1].splitlines()
    assert (0, 60, 5) == (ended.code, max(map(len, lines)) + 1, len(lines))
    assert "2022-06-01 02:00        1        0        1  .............." == lines[3]


def test_nothing_is_listed(run: Runner, serve: Serve) -> None:
    """The plan says so in words. It makes no lake."""
    ended = plan(serve(Dataset.of({})), run, *WINDOW)
    assert (0, True, False) == (ended.code, "nothing is listed" in ended.out, run.lake.exists())
