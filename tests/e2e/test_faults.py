"""Faults of the network and the server: a passing one is survived, a lasting one is reported."""

import gzip
import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from etl.emulator import Dataset, Emulator, EmulatorOptions, Fault
from tests.conftest import COMMAND, Ended, Runner, Serve, check_report, environment
from tests.lakes import assert_lake_holds

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 5, tzinfo=UTC)
DATA = Dataset.generate(11, START, END, rows_per_file=30)
PATHS = [path for path, file in DATA.files.items() if file.rows]
ALL = len(DATA.files)

# Each fault, the failure kind if it lasts, and the number of requests in that case.
FAULTS: dict[str, tuple[dict[str, Any], str, int]] = {
    "500": ({"kind": "status", "status": 500}, "http", 4),
    "502": ({"kind": "status", "status": 502}, "http", 4),
    "503": ({"kind": "status", "status": 503}, "http", 4),
    "429": ({"kind": "status", "status": 429}, "throttled", 4),
    "429 for seconds": (
        {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
        "throttled",
        4,
    ),
    "429 until a date": (
        {
            "kind": "status",
            "status": 429,
            "headers": {"Retry-After": "Wed, 01 Jun 2022 00:00:00 GMT"},
        },
        "throttled",
        4,
    ),
    "reset before": ({"kind": "reset_before"}, "connection", 4),
    "reset in the middle": ({"kind": "reset_middle"}, "truncated", 4),
    "shorter than its length": ({"kind": "short"}, "truncated", 4),
    "chunked and cut": ({"kind": "chunked_cut"}, "truncated", 4),
    "half a gzip": ({"kind": "half_gzip"}, "truncated", 4),
    "no bytes": ({"kind": "empty"}, "truncated", 4),
    "damaged trailer": ({"kind": "bad_trailer"}, "corrupt", 4),
    "damaged middle": ({"kind": "bad_middle"}, "corrupt", 4),
    "a web page": ({"kind": "html"}, "corrupt", 4),
    "a web page, packed": (
        {
            "kind": "status",
            "status": 200,
            "body": gzip.compress(b"<html>"),
            "headers": {"Content-Encoding": "gzip"},
        },
        "corrupt",
        4,
    ),
    "nothing in time": ({"kind": "hang"}, "timeout", 4),
}
FINAL: dict[str, tuple[dict[str, Any], str, int]] = {
    "400": (
        {"kind": "status", "status": 400, "body": b'{"causes": ["bad path", "really"]}'},
        "http",
        1,
    ),
    "403": ({"kind": "status", "status": 403}, "http", 1),
    "404": ({"kind": "status", "status": 404}, "not_found", 1),
    "redirect": ({"kind": "redirect", "body": b"http://127.0.0.1:9/elsewhere"}, "http", 1),
}
SHORT = {"AHT_ETL_FETCH__TIMEOUT": "0.3s", "AHT_ETL_RETRY__THROTTLE_ATTEMPTS": "3"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_passing_fault_is_survived(run: Runner, serve: Serve, name: str) -> None:
    """It occurs once on a file and once on the listing. All is loaded; the retries are counted."""
    what, _, _ = FAULTS[name]
    on_listing = what["kind"] not in {"bad_trailer", "bad_middle"}
    faults = [Fault("file", path=PATHS[0], **what)]
    faults += [Fault("listing", **what)] if on_listing else []
    emulator = serve(DATA, auth="oauth1", faults=tuple(faults))
    ended = run(emulator, **SHORT)
    assert (0, ALL) == (ended.code, ended.report["files"]["loaded"])
    assert len(faults) == ended.report["http"]["retries"]
    assert (ended.report["http"]["throttled"] > 0) == name.startswith("429")
    assert_lake_holds(run.lake, DATA)
    sent = [request.authorization for request in emulator.requests]
    assert len(sent) == len(set(sent)) == ended.report["http"]["requests"]


@pytest.mark.parametrize("name", [*FAULTS, *FINAL])
def test_a_lasting_fault_fails_its_file_alone(run: Runner, serve: Serve, name: str) -> None:
    """All others are loaded. The report names the file and the kind, and the next run loads it.

    No key, token or signature appears in the output, not even at level debug.
    """
    what, kind, attempts = {**FAULTS, **FINAL}[name]
    fault = Fault("file", path=PATHS[0], times=None, **what)
    emulator = serve(DATA, auth="oauth1", faults=(fault,))
    window = ("--from", "2022-06-01", "--to", "2022-06-02")
    ended = run(emulator, *window, "--log-level", "debug", **SHORT)
    assert [] == secrets_in(ended, emulator)
    assert (3, "partial", ALL - 1) == (
        ended.code,
        ended.report["status"],
        ended.report["files"]["loaded"],
    )
    (failure,) = ended.report["failures"]
    assert (PATHS[0], kind, attempts) == (failure["path"], failure["kind"], failure["attempts"])
    assert attempts == emulator.file_requests()[PATHS[0]]
    if name == "400":
        assert "bad path" in failure["message"]
    emulator.options = EmulatorOptions(oldest=None)
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, DATA)


def secrets_in(ended: Ended, emulator: Emulator) -> list[str]:
    """Return the sent keys, tokens and signatures that a run's output contains."""
    output = ended.out + ended.err + json.dumps(ended.report)
    secrets = {value for name, value in emulator.keys.items() if "consumer_key" not in name}
    for request in emulator.requests:
        header = request.authorization or ""
        secrets |= {header, header.partition(" ")[2], *re.findall(r'signature="([^"]+)"', header)}
    return [secret for secret in secrets if secret and secret in output]


# A 404 of a listing is an empty window, and a listing that is damaged like a gzip is no JSON.
OF_LISTINGS = [*FAULTS, *(name for name in FINAL if name != "404"), "401"]


@pytest.mark.parametrize("name", OF_LISTINGS)
def test_a_listing_that_fails_is_never_an_empty_window(
    run: Runner, serve: Serve, name: str
) -> None:
    """The run ends with 1 and one line that says why. It fetches and writes nothing."""
    what = {"kind": "status", "status": 401} if name == "401" else {**FAULTS, **FINAL}[name][0]
    emulator = serve(DATA, faults=(Fault("listing", times=None, **what),))
    ended = run(emulator, "--from", "2022-06-01", "--to", "2022-06-02", **SHORT)
    assert (1, "failed", 0) == (ended.code, ended.report["status"], ended.report["files"]["listed"])
    assert "listing 2022-06-0" in ended.report["error"]
    assert ended.report["error"] in json.loads(ended.err.splitlines()[-1])["reason"]
    assert (0, False) == (emulator.count("file"), run.lake.exists())


@pytest.fixture
def nobody() -> Iterator[Callable[[str], str]]:
    """Return URLs of servers that cannot be reached."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    certificate = trustme.CA().issue_cert("localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    https = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    https.socket = context.wrap_socket(https.socket, server_side=True)
    https.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=https.serve_forever, daemon=True).start()
    urls = {
        "refused": f"http://127.0.0.1:{server.getsockname()[1]}",
        "no such name": "https://nowhere.invalid",
        "certificate": f"https://localhost:{https.server_port}",
    }
    yield lambda name: urls[name]
    https.shutdown()
    https.server_close()
    server.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refused", ": connection refused; check api.base_url"),
        ("no such name", "no connection to nowhere.invalid:443: the name cannot be looked up"),
        ("certificate", "localhost shows a certificate that is not trusted: "),
    ],
)
def test_an_unreachable_server(
    run: Runner, nobody: Callable[[str], str], name: str, said: str
) -> None:
    """A listing ends the run. A file fails with kind `connection`. The message says why."""
    paths = run.folder / "paths"
    paths.write_text(PATHS[0])
    for more, code in (((), 1), (("--paths", str(paths)), 3)):
        command = [COMMAND, "run", "--account", "a1", "--base-url", nobody(name), *more]
        done = subprocess.run(
            [*command, "--lake", str(run.lake), "--report", "-"],
            env=environment(),
            check=False,
            capture_output=True,
        )
        report = json.loads(done.stdout)
        check_report(report, code)
        reason = report["error"] or report["failures"][0]["message"]
        assert (code, True) == (done.returncode, said in reason)
        # A retry cannot make a certificate trusted.
        attempts = 1 if name == "certificate" else 4
        assert code == 1 or ("connection", attempts) == (
            report["failures"][0]["kind"],
            report["failures"][0]["attempts"],
        )


def test_authentication_that_fails_in_mid_run_ends_it(run: Runner, serve: Serve) -> None:
    """Downloaded files are committed, the rest is not attempted, and the exit code is 1."""
    fault = Fault("file", "status", status=401, path=PATHS[-1], times=None)
    emulator = serve(DATA, faults=(fault,))
    ended = run(emulator, AHT_ETL_FETCH__CONCURRENCY="1")
    files = ended.report["files"]
    assert (1, "failed", 1) == (ended.code, ended.report["status"], files["failed"])
    assert files["loaded"] + files["not_attempted"] == ALL - 1
    assert files["loaded"] >= PATHS.index(PATHS[-1]) > 0
    assert "status 401" in ended.report["error"]
    emulator.options = EmulatorOptions(oldest=None)
    assert run(emulator).code == 0
    assert_lake_holds(run.lake, DATA)


def test_a_revoked_token_is_renewed_once_for_all_workers(run: Runner, serve: Serve) -> None:
    """After a 401 in mid-run, the run gets one new token, which all workers use."""
    emulator = serve(DATA, auth="oauth2", faults=(Fault("file", "status", status=401, times=1),))
    ended = run(emulator)
    assert (0, 2) == (ended.code, emulator.count("token"))
    assert_lake_holds(run.lake, DATA)


def test_wrong_keys_end_the_run_with_advice(run: Runner, serve: Serve) -> None:
    """If the listing answers 401, the message names the permission that the key needs."""
    emulator = serve(DATA, auth="oauth1")
    window = ("--from", "2022-06-01", "--to", "2022-06-02")
    ended = run(emulator, *window, AHT_ETL_AUTH__CONSUMER_SECRET="another-secret")
    assert (1, 1) == (ended.code, emulator.count("listing", 401))
    assert "Agent Activity API" in ended.report["error"]


@pytest.mark.parametrize("limit", [{"max_concurrent": 3}, {"rate": 5}])
def test_a_rate_limit_slows_the_run_only(run: Runner, serve: Serve, limit: dict[str, Any]) -> None:
    """429s slow the run down, but no file fails."""
    emulator = serve(DATA, latency_s=0.2, **limit)
    ended = run(emulator)
    assert (0, ALL) == (ended.code, ended.report["files"]["loaded"])
    assert ended.report["http"]["throttled"] == emulator.count(status=429) > 0
    assert_lake_holds(run.lake, DATA)


def test_the_concurrency_is_never_exceeded(run: Runner, serve: Serve) -> None:
    """`fetch.concurrency` limits all requests in flight, whatever their purpose."""
    emulator = serve(DATA, latency_s=0.02)
    assert (
        run(emulator, "--from", "2022-05-25", "--to", "2022-06-02", "--concurrency", "3").code == 0
    )
    assert emulator.most_at_once == 3


def test_a_slow_answer_is_no_timeout(run: Runner, serve: Serve) -> None:
    """The timeout counts the time without a byte, not the total time."""
    emulator = serve(DATA, faults=(Fault("file", "drip", path=PATHS[0], delay_s=0.0005),))
    ended = run(emulator, AHT_ETL_FETCH__TIMEOUT="0.3s")
    assert (0, 0) == (ended.code, ended.report["http"]["retries"])
    assert_lake_holds(run.lake, DATA)


def test_a_file_that_unpacks_to_too_many_bytes_fails_alone(run: Runner, serve: Serve) -> None:
    """Beyond `limits.max_file_size`, only that file fails, not the run."""
    ended = run(serve(DATA), AHT_ETL_LIMITS__MAX_FILE_SIZE="6kB")
    kinds = {failure["kind"] for failure in ended.report["failures"]}
    assert (3, {"too_large"}) == (ended.code, kinds)
    assert 0 < ended.report["files"]["loaded"] < ALL


def test_no_secret_in_any_output(run: Runner, serve: Serve) -> None:
    """Nothing leaks, even at level debug and with a server that quotes the requests."""
    for scheme in ("oauth1", "oauth2"):
        echo = (
            b'{"causes": ["emulator-consumer-secret-0001", "Authorization: Bearer abcdef123456"]}'
        )
        faults = (
            Fault("file", "status", status=400, path=PATHS[0], body=echo),
            Fault("file", "reset_before", path=PATHS[1]),
        )
        emulator = serve(DATA, auth=scheme, faults=faults)
        window = ("--from", "2022-06-01", "--to", "2022-06-02", "--log-level", "debug")
        ended = run(emulator, *window)
        assert ended.code in {0, 3}
        output = ended.out + ended.err + json.dumps(ended.report)
        assert [] == secrets_in(ended, emulator)
        assert "oauth_signature" not in output
        assert "abcdef123456" not in output
