"""The command line's edge: wrong usage ends with 2 and one line, before anything is sent."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from etl import __version__
from etl.cli import app
from etl.cli.command import check_report_file
from etl.emulator import Dataset
from etl.model.errors import UsageError
from tests.conftest import COMMAND, Serve, environment

WINDOW = ("--from", "2022-06-01", "--to", "2022-06-02")


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in environment():
        if name.startswith("AHT_ETL_"):
            monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        ((), {}, "account: is missing"),
        (("--account", "a-b"), {}, "account:"),
        (("--account", ""), {}, "account"),
        (("--from", "2022-06-02", "--to", "2022-06-01"), {}, "--from 2022-06-02T00:00:00Z is not"),
        (("--from", "2022-06-01", "--to", "2022-06-01"), {}, "is not before"),
        (("--from", "yesterday"), {}, "window.from: not a time ('yesterday')"),
        (("--from", "2022-02-30"), {}, "window.from: no such time ('2022-02-30')"),
        (("--from", "1654041600"), {}, "'1654041600' is 1970-01-20"),
        (("--from", "2022-06-01", "--to", "20220602"), {}, "window.to: '20220602' is 1970-01-01"),
        ((), {"AHT_ETL_WINDOW__FROM": "2022"}, "a date without its hyphens? write 2022-01-01"),
        (("--from", "2022-06-01T06:00"), {}, "the time zone are missing"),
        (("--from", "2021-01-01", "--to", "2022-02-05T00:00:01Z"), {}, "400 days long, and 400 ar"),
        (("--lookback", "401d"), {}, "401 days long, and 400 are allowed"),
        (("--lookback", "7"), {}, "window.lookback: not a duration ('7')"),
        (("--lookback", "0s"), {}, "window.lookback"),
        (("--lookback", "999999d"), {}, "--lookback: reaches back before the year 1"),
        (("--shard", "2/2"), {}, "--shard 2/2"),
        (("--shard", "1"), {}, "--shard 1"),
        (("--shard", "-1/2"), {}, "--shard -1/2"),
        (("--concurrency", "0"), {}, "fetch.concurrency"),
        (("--concurrency", "many"), {}, "fetch.concurrency"),
        (("--base-url", "http://example.com"), {}, "api.base_url: plain http"),
        (("--base-url", "example.com"), {}, "api.base_url: not a host's URL"),
        (("--base-url", "https://a b"), {}, "api.base_url: not a host's URL"),
        (("--base-url", "https://me:secret@a.example"), {}, "api.base_url: not a host's URL"),
        (("--base-url", "https://a.example:99999"), {}, "api.base_url: not a host's URL"),
        (("--lake", "ftp://example/lake"), {}, "lake.uri"),
        (("--report", "no/such/folder/r.json"), {}, "--report no/such/folder/r.json"),
        (("--paths", "missing.txt"), {}, "--paths missing.txt: cannot be read: No such file"),
        (("--config", "missing.yaml"), {}, "--config missing.yaml: cannot be read"),
        ((), {"AHT_ETL_ACOUNT": "a1"}, "AHT_ETL_ACOUNT: unknown key, did you mean account"),
        ((), {"AHT_ETL_FETCH__CONCURENCY": "1"}, "fetch.concurency: unknown key, did you mean"),
        ((), {"AHT_ETL_AUTH__CONSUMER_KEY": "k"}, "auth.consumer_secret"),
        ((), {"AHT_ETL_SECRETS_DIR": "missing"}, "AHT_ETL_SECRETS_DIR=missing: cannot be read"),
        ((), {"AHT_ETL_METRICS__TEXTFILE": "a.txt"}, "metrics.textfile: must end in .prom"),
        ((), {"AHT_ETL_METRICS__PUSHGATEWAY": "http://u:p@h"}, "metrics.pushgateway: not a host"),
        (("--no-such-flag",), {}, "--no-such-flag"),
        (("--log-level", "loud"), {}, "loud"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], env: dict[str, str], said: str) -> None:
    """The exit code is 2, and the message names the wrong value."""
    account = () if "account" in said else ("--account", "a1")
    result = CliRunner().invoke(app, ["run", *account, "--lake", "lake", *arguments], env=env)
    assert result.exit_code == 2, result.output
    assert said in result.stderr.replace("\\", "")
    assert not Path("lake").exists()


def test_nothing_is_sent_on_wrong_usage(serve: Serve) -> None:
    """Not even a look-up of the host."""
    emulator = serve(Dataset.of({}))
    arguments = ["run", "--account", "a1", "--base-url", emulator.base_url, "--shard", "9"]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert [] == emulator.requests


def test_a_flag_given_twice(serve: Serve, tmp_path: Path) -> None:
    """The last one counts."""
    url = serve(Dataset.of({})).base_url
    arguments = [
        *(COMMAND, "run", "--account", "a1", "--account", "a2", "--base-url", url),
        *("--lake", "one", "--lake", "two", *WINDOW, "--report", "-"),
    ]
    done = subprocess.run(
        arguments, env=environment(), cwd=tmp_path, check=True, capture_output=True
    )
    assert "a2" == json.loads(done.stdout)["account"]


def test_a_lookback_flag_wins_over_a_configured_begin(serve: Serve, tmp_path: Path) -> None:
    """The flag is the stronger source; without it the configured begin counts."""
    url = serve(Dataset.of({})).base_url
    command = [COMMAND, "run", "--account", "a1", "--base-url", url, "--report", "-"]
    env = environment(AHT_ETL_WINDOW__FROM="2022-06-01", AHT_ETL_WINDOW__TO="2022-06-03")
    begins = []
    for more in ([], ["--lookback", "1h"]):
        done = subprocess.run(
            [*command, *more], env=env, cwd=tmp_path, check=True, capture_output=True
        )
        begins.append(json.loads(done.stdout)["window"]["from"])
    assert ["2022-06-01T00:00:00Z", "2022-06-02T23:00:00Z"] == begins


def test_times_finer_than_a_millisecond(serve: Serve, tmp_path: Path) -> None:
    """They are rounded to the vendor's milliseconds, and no request has an empty window."""
    url = serve(Dataset.of({})).base_url
    window = ("--from", "2022-06-01T00:00:00.0002Z", "--to", "2022-06-02T00:00:00.0007Z")
    command = [COMMAND, "run", "--account", "a1", "--base-url", url, *window, "--report", "-"]
    done = subprocess.run(command, env=environment(), cwd=tmp_path, check=True, capture_output=True)
    assert 1 == json.loads(done.stdout)["listing"]["requests"]


def test_a_terminal_that_knows_ascii_only(serve: Serve, tmp_path: Path) -> None:
    """A lake's name in other letters is shown escaped, and the run is ok."""
    url = serve(Dataset.of({})).base_url
    command = [COMMAND, "run", "--account", "a1", "--base-url", url, *WINDOW, "--lake", "lü"]
    done = subprocess.run(
        command,
        env=environment(PYTHONIOENCODING="ascii"),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert b"l\\xfc" in done.stdout


def test_a_listing_of_nothing_makes_no_lake(serve: Serve, tmp_path: Path) -> None:
    """Nothing to do is ok, and leaves nothing behind."""
    url = serve(Dataset.of({})).base_url
    arguments = [COMMAND, "run", "--account", "a1", "--base-url", url, *WINDOW]
    done = subprocess.run(
        arguments, env=environment(), cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert re.match(r"ok in [0-9.]+ s: nothing is listed\n  lake +./lake\n\Z", done.stdout)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "etl"]])
def test_the_version(command: list[str]) -> None:
    """Both names of the command."""
    done = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert f"aht-etl {__version__}\n" == done.stdout


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>/dev/full", "2>&-", "| true", "0<&-"])
def test_streams_that_take_nothing(streams: str, serve: Serve, tmp_path: Path) -> None:
    """Output that cannot be written does not stop the job and does not change its exit code."""
    path = "/year=2022/month=6/day=1/hour=6/accountId=a1/x.json.gz"
    url = serve(Dataset.of({path: b'{"segmentId": "a"}'})).base_url
    command = f"{COMMAND} run --account a1 --base-url {url} --report r.json {' '.join(WINDOW)}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {streams}"],
        env=environment(),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (0, 1) == (
        done.returncode,
        json.loads((tmp_path / "r.json").read_text())["files"]["loaded"],
    )
    assert "Exception" not in done.stderr


@pytest.mark.parametrize("stream", ["/dev/stdout", "/dev/stderr", "/dev/fd/2"])
def test_a_report_into_a_pipe(stream: str, serve: Serve, tmp_path: Path) -> None:
    """Also for a user who may not write to the pipe's folder; the exit code is the run's own."""
    url = serve(Dataset.of({})).base_url
    command = [COMMAND, "run", "--account", "a1", "--base-url", url, *WINDOW, "--report", stream]
    done = subprocess.run(
        command, env=environment(), cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr
    found = done.stdout if stream == "/dev/stdout" else done.stderr
    report = found[found.index("{\n") :]
    assert "ok" == json.JSONDecoder().raw_decode(report)[0]["status"]


def test_a_report_through_a_link(tmp_path: Path) -> None:
    """The folder of its target counts, and the target is replaced."""
    link = tmp_path / "report.json"
    link.symlink_to("missing/report.json")
    with pytest.raises(UsageError, match="not a file in a folder that can be written to"):
        check_report_file(str(link))
    (tmp_path / "missing").mkdir()
    check_report_file(str(link))


def test_a_report_that_cannot_be_written(serve: Serve, tmp_path: Path) -> None:
    """The exit code is the run's own, and a line says that the report is missing."""
    emulator = serve(Dataset.of({}))
    report = tmp_path / "folder" / "report.json"
    report.parent.mkdir()
    process = subprocess.Popen(
        [
            *(COMMAND, "run", "--account", "a1", "--paths", "-", "--base-url", emulator.base_url),
            *("--report", str(report)),
        ],
        env=environment(),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    report.parent.rmdir()
    _, err = process.communicate(b"")
    assert process.returncode in {1, 2}
    assert b"report" in err


@pytest.mark.parametrize("code", ["import etl", "from etl.cli import main; main()"])
def test_what_is_heavy_waits_until_it_is_needed(code: str) -> None:
    """Neither the package nor `--version` imports the libraries of a run."""
    heavy = ("pyarrow", "aiohttp", "pydantic", "rich", "altair")
    script = f"""
import atexit, os, sys
def end(code=0):
    print([module for module in {heavy} if module in sys.modules], flush=True)
    kill(code)
kill, os._exit = os._exit, end
atexit.register(end)
{code}"""
    arguments = [sys.executable, "-c", script, "--version"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert "[]" == done.stdout.splitlines()[-1]


def test_the_server_is_asked_before_arrow_is_loaded() -> None:
    """Before its first request a run imports nothing that decodes or encodes, or draws."""
    script = (
        "import sys; from etl.cli import load_command; load_command('run')\n"
        "print([m for m in sys.modules if m.startswith(('pyarrow', 'rich'))])"
    )
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    "rows", ["pa.array(range(4_000_000), pa.int64())", "[b'x' * 100_000 for _ in range(320)]"]
)
def test_threads_share_what_they_have_freed(rows: str) -> None:
    """Rows that one thread has freed leave their memory to the next, Arrow's or Python's."""
    script = f"""
import re, threading
from etl import cli
def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
def app(**_):
    import pyarrow as pa
    b"x" * 30_000_000  # after this the C library by default keeps smaller blocks
    over, seen = threading.Event(), []
    def use(used):
        {rows}
        used.set()
        over.wait()
    for _ in range(8):
        used = threading.Event()
        threading.Thread(target=use, args=(used,)).start()
        used.wait()
        seen.append(resident_mb())
    over.set()
    print(seen[-1] - seen[0], flush=True)
cli.app = app
cli.main()"""
    arguments = [sys.executable, "-c", script]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 64
