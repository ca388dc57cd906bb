"""Answers of servers that are not the vendor's, and files of another account."""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from etl.emulator import Dataset, EmulatorOptions, Fault
from etl.emulator.dataset import DEFAULT_ACCOUNT
from etl.model.times import to_millis
from tests.conftest import COMMAND, Runner, Serve, environment
from tests.lakes import assert_lake_holds

DAYS = [datetime(2022, 6, day, tzinfo=UTC) for day in (1, 2, 3, 4)]
DATA = Dataset.generate(3, DAYS[0], DAYS[3], files_per_hour=1, rows_per_file=5)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-04")
SECOND = {"from": "2022-06-02T00:00:00Z", "to": "2022-06-03T00:00:00Z"}
ALL = len(DATA.files)
OF_THE_SECOND = sum("/day=2/" in path for path in DATA.files)
ELSEWHERE = [
    {"kind": "status", "status": 404, "body": b"default backend - 404"},
    {"kind": "status", "status": 404, "body": b"<html>nginx</html>"},
    {"kind": "html"},
    {"kind": "status", "status": 200, "body": b'{"login": "please"}'},
]


@pytest.mark.parametrize("what", ELSEWHERE)
def test_an_unanswered_window_does_not_affect_others(
    run: Runner, serve: Serve, what: dict[str, object]
) -> None:
    """The rest is loaded, the run is partial and names the window, and the next run retries it."""
    query = f"fromMillis={to_millis(DAYS[1])}"
    fault = Fault("listing", times=None, query=query, **what)  # type: ignore[arg-type]
    emulator = serve(DATA, auth="oauth1", faults=(fault,))
    ended = run(emulator, *WINDOW)
    report = ended.report
    assert (3, "partial", [SECOND], []) == (
        ended.code,
        report["status"],
        report["listing"]["unanswered_windows"],
        report["listing"]["empty_windows"],
    )
    # The window of the day before also lists a file of midnight.
    assert 0 <= report["files"]["loaded"] - (ALL - OF_THE_SECOND) <= 2
    assert report["newest_complete_hour"] == "2022-06-01T23:00:00Z"
    assert (3 + 3, 3) == (report["listing"]["requests"], report["http"]["retries"])
    assert ended.err.count('"window.unanswered"') == 1
    assert f"unanswered     {SECOND['from']} to {SECOND['to']}" in ended.out
    emulator.options = EmulatorOptions(auth="oauth1", oldest=None)
    ended = run(emulator, *WINDOW)
    assert (0, "2022-06-03T23:00:00Z") == (ended.code, ended.report["newest_complete_hour"])
    assert_lake_holds(run.lake, DATA)


def test_a_stray_answer_is_survived(run: Runner, serve: Serve) -> None:
    """One 404 of a restarting proxy loses no file."""
    faults = tuple(Fault("listing", **what) for what in ELSEWHERE)  # type: ignore[arg-type]
    ended = run(serve(DATA, faults=faults), *WINDOW)
    assert (0, []) == (ended.code, ended.report["listing"]["unanswered_windows"])
    assert_lake_holds(run.lake, DATA)


def test_every_404_is_an_empty_window_if_that_is_set(run: Runner, serve: Serve) -> None:
    """There is no retry. The report and the log name the window."""
    query = f"fromMillis={to_millis(DAYS[1])}"
    fault = Fault("listing", "status", status=404, body=b"gone", query=query, times=None)
    ended = run(serve(DATA, faults=(fault,)), *WINDOW, AHT_ETL_API__ANY_404_IS_EMPTY="true")
    assert (0, [SECOND]) == (ended.code, ended.report["listing"]["empty_windows"])
    assert (0, 1) == (ended.report["http"]["retries"], ended.err.count('"window.empty"'))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("plan",), f"! {SECOND['from']} to {SECOND['to']}: not answered by the API"),
        (("status", "--against", "api"), "The API did not answer for 2022-06-02 00:00 to"),
    ],
)
def test_other_commands_name_unanswered_windows(
    run: Runner, serve: Serve, tmp_path: Path, command: tuple[str, ...], said: str
) -> None:
    """A plan, or a comparison with the API, is then incomplete."""
    emulator = serve(DATA)
    assert run(emulator, "--from", "2022-06-01", "--to", "2022-06-02").code == 0
    query = f"fromMillis={to_millis(DAYS[1])}"
    faults = (Fault("listing", "html", query=query, times=None),)
    emulator.options = EmulatorOptions(oldest=None, faults=faults)
    where = ("--account", DEFAULT_ACCOUNT, "--base-url", emulator.base_url, "--lake", str(run.lake))
    for more in ((), ("--json",)):
        done = subprocess.run(
            [COMMAND, *command, *where, *WINDOW, *more],
            env=environment(),
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (0, 1) == (done.returncode, done.stderr.count('"window.unanswered"'))
        if more:
            content = json.loads(done.stdout)
            assert [SECOND] == content.get("against", content)["unanswered_windows"]
        else:
            assert said in " ".join(done.stdout.split())


@contextmanager
def a_web_server(folder: Path) -> Iterator[str]:
    """Serve a folder as `python3 -m http.server` does."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_any_web_server_is_not_the_api(tmp_path: Path) -> None:
    """The run fails and says what answered. A check says the same and accepts no keys."""
    report = tmp_path / "report.json"
    with a_web_server(tmp_path) as url:
        common = ("--account", "a1", "--base-url", url, *WINDOW, "--lake", str(tmp_path / "lake"))
        ended = [
            subprocess.run(
                [COMMAND, *command, *common],
                env=environment(),
                check=False,
                capture_output=True,
                text=True,
            )
            for command in (("run", "--report", str(report)), ("check", "--json"), ("plan",))
        ]
    assert [1, 1, 1] == [done.returncode for done in ended]
    content = json.loads(report.read_text())
    assert ("failed", 3) == (content["status"], len(content["listing"]["unanswered_windows"]))
    assert "404, but not the vendor's" in content["error"]
    checks = {check["name"]: check for check in json.loads(ended[1].stdout)["checks"]}
    assert checks["authentication"]["outcome"] == "skipped"
    assert "what answers is not the API" in checks["authentication"]["message"]
    assert "404, but not the vendor's" in checks["listing"]["message"]


def test_files_of_another_account_are_loaded_with_one_warning(run: Runner, serve: Serve) -> None:
    """It may be the same account with a prefix, so it is a warning and no error."""
    ended = run(serve(DATA), *WINDOW, "--account", "79344075")
    assert (0, ALL) == (ended.code, ended.report["files"]["loaded"])
    assert [DEFAULT_ACCOUNT] == ended.report["quality"]["other_accounts"]
    (said,) = [json.loads(line) for line in ended.err.splitlines() if '"account.other"' in line]
    assert ("79344075", [DEFAULT_ACCOUNT]) == (said["asked"], said["listed"])


def test_files_of_the_requested_account_cause_no_warning(run: Runner, serve: Serve) -> None:
    """This is the normal case."""
    ended = run(serve(DATA), *WINDOW)
    assert ([], 0) == (
        ended.report["quality"]["other_accounts"],
        ended.err.count('"account.other"'),
    )


@contextmanager
def speaking_no_tls() -> Iterator[str]:
    """Answer each connection with a line of another protocol."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(2**10)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def failed(url: str, folder: Path, **env: str) -> dict[str, object]:
    """Run against a server; return the report of a run that failed."""
    done = subprocess.run(
        [COMMAND, "run", "--account", "a1", "--base-url", url, *WINDOW, "--report", "-"],
        env=environment(**env),
        cwd=folder,
        check=False,
        capture_output=True,
    )
    report: dict[str, object] = json.loads(done.stdout)
    assert (1, "failed") == (done.returncode, report["status"])
    return report


def test_a_port_without_tls_is_reported_without_retries(tmp_path: Path) -> None:
    """A retry cannot help."""
    with speaking_no_tls() as url:
        report = failed(url, tmp_path)
    assert "127.0.0.1 does not speak TLS on port" in str(report["error"])
    assert {"retries": 0}.items() <= report["http"].items()  # type: ignore[attr-defined]
    assert "<ssl" not in str(report["error"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("SSL_CERT_FILE", None, "No such file or directory"),
        ("SSL_CERT_FILE", "", "holds no certificate"),
        ("SSL_CERT_FILE", "nonsense", "holds no certificate"),
        ("SSL_CERT_DIR", None, "there is no such folder"),
    ],
)
def test_missing_certificates(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    """Without them no server is trusted. The message names the variable, and nothing is sent."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    report = failed("https://127.0.0.1:1", tmp_path, **{name: str(file)})
    assert f"{name}={file}: {said}" in str(report["error"])
    assert {"requests": 0}.items() <= report["http"].items()  # type: ignore[attr-defined]
