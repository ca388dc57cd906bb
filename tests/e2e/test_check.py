"""`aht-etl check`: each possible error and its message."""

import json
import os
import pty
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from etl.cli import app
from etl.emulator import Dataset, Emulator, EmulatorOptions, Fault
from etl.model.times import Window
from tests.certificates import certified
from tests.conftest import COMMAND, Serve, environment, keys_of
from tests.e2e.test_endings import wait_until

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 3, tzinfo=UTC)
DATA = Dataset.generate(3, START, END, rows_per_file=20)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-02")
NAMES = (
    "configuration", "host", "connection", "authentication", "listing", "file", "lake", "temporary",
)  # fmt: skip
OUTCOME = dict.fromkeys(NAMES, "ok")
#: The checks after a failed look-up of the host.
NOT_TRIED = dict.fromkeys(NAMES[2:6], "skipped")


@dataclass
class Checked:
    """The exit code, and the outcomes and messages by name."""

    code: int
    outcomes: dict[str, str]
    said: dict[str, str]
    err: str


Check = Callable[..., Checked]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """Run `aht-etl check --json`, with an emulator's host and keys, over the data's window."""

    def checked(emulator: Emulator | None, *more: str, **env: str) -> Checked:
        base = ("--base-url", emulator.base_url) if emulator else ()
        keys = keys_of(emulator) if emulator else {}
        window = () if "--to" in more else WINDOW
        arguments = ["check", "--json", "--account", "le79344075", *base, *window, *more]
        if "SSL_CERT_FILE" in env:  # a process reads it only once
            done = subprocess.run(
                [COMMAND, *arguments],
                env=environment(**env),
                cwd=tmp_path,
                check=False,
                capture_output=True,
                text=True,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            result = CliRunner().invoke(app, arguments, env={**keys, **env})
            code, out, err = result.exit_code, result.stdout, result.stderr
        answer = json.loads(out)
        assert answer["ok"] == (code == 0) == all(each["ok"] for each in answer["checks"])
        assert all(each["ok"] == (each["outcome"] == "ok") for each in answer["checks"])
        secrets = [value for value in keys.values() if not value.startswith("http")]
        assert [] == [secret for secret in secrets if secret in out + err]
        return Checked(
            code,
            {each["name"]: each["outcome"] for each in answer["checks"]},
            {each["name"]: each["message"] for each in answer["checks"]},
            err,
        )

    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("AHT_ETL_"):
            monkeypatch.delenv(name)
    yield checked
    structlog.reset_defaults()


@pytest.mark.parametrize("auth", ["none", "oauth1", "oauth2"])
def test_everything_works(check: Check, serve: Serve, tmp_path: Path, auth: str) -> None:
    """Every check is ok, one file is downloaded, and no folder is left."""
    emulator = serve(DATA, auth=auth)
    checked = check(emulator, "--lake", "a/b/lake", AHT_ETL_RAW__URI="raw")
    assert (0, {**OUTCOME, "raw": "ok"}) == (checked.code, checked.outcomes)
    assert f"{len(DATA.files)} files from 2022-06-01T00:00:00Z" in checked.said["listing"]
    (path,) = emulator.file_requests()
    rows = DATA.files[path].rows
    assert rows is not None
    assert f"{path}: " in checked.said["file"]
    assert f"{len(rows)} rows" in checked.said["file"]
    assert [] == list(tmp_path.iterdir())


def test_it_looks_up_the_host(check: Check, serve: Serve) -> None:
    """Without `api.base_url`, the check looks the host up at the Domain API, as a run does."""
    emulator = serve(DATA)
    checked = check(None, AHT_ETL_API__DOMAIN_URL=emulator.base_url)
    assert (0, 1) == (checked.code, emulator.count("domain"))
    assert f"looked up at {emulator.base_url}" in checked.said["host"]


def test_it_does_not_change_the_lake(check: Check, serve: Serve, tmp_path: Path) -> None:
    """The check changes no file in it, also while a run uses it."""
    for name in ("_staging/.1.tmp", "year=2022/part-00000.parquet"):
        file = tmp_path / "lake" / name
        file.parent.mkdir(parents=True)
        file.write_text(name)
    before = sorted(tmp_path.rglob("*"))
    assert check(serve(DATA)).code == 0
    assert before == sorted(tmp_path.rglob("*"))
    assert all(file.read_text() in str(file) for file in before if file.is_file())


def test_every_value_is_shown_with_its_origin(check: Check, serve: Serve, tmp_path: Path) -> None:
    """The origin is a flag, variable, secret file, YAML or default; a secret is set or unset."""
    (tmp_path / "c.yaml").write_text("fetch: {timeout: 30s}\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "api__source").write_text("me")
    emulator = serve(DATA, auth="oauth1")
    said = check(
        emulator, "--config", "c.yaml", AHT_ETL_SECRETS_DIR="secrets", AHT_ETL_FETCH__RATE="100"
    ).said["configuration"]
    assert "account: le79344075 (--account)" in said
    assert "fetch.rate: 100 (AHT_ETL_FETCH__RATE)" in said
    assert "api.source: me (secret file api__source)" in said
    assert "fetch.timeout: 30s (c.yaml)" in said
    assert "limits.memory: 512MiB (default)" in said
    assert "auth.consumer_key: set (AHT_ETL_AUTH__CONSUMER_KEY)" in said
    assert "auth.client_id: unset (default)" in said


@pytest.mark.parametrize("name", ["CONSUMER_SECRET", "CONSUMER_KEY", "ACCESS_TOKEN"])
def test_wrong_keys(check: Check, serve: Serve, name: str) -> None:
    """The message for a 401 names the needed permission; the checks after it are skipped."""
    emulator = serve(DATA, auth="oauth1")
    checked = check(emulator, **{f"AHT_ETL_AUTH__{name}": "something-else"})
    failed = {"authentication": "failed", "listing": "skipped", "file": "skipped"}
    assert (1, {**OUTCOME, **failed}) == (checked.code, checked.outcomes)
    permission = "Data > Workforce Management > Agent Activity API"
    assert permission in checked.said["authentication"]
    assert "it needs authentication" in checked.said["listing"]
    assert 1 == len(emulator.requests)


def test_no_keys(check: Check, serve: Serve) -> None:
    """If the server needs keys and gets none, the message says that they are missing."""
    url = serve(DATA, auth="oauth1").base_url
    checked = check(None, "--base-url", url)
    assert (1, "failed") == (checked.code, checked.outcomes["authentication"])
    assert "no keys are set (auth.*)" in checked.said["authentication"]


def test_a_token_that_is_refused(check: Check, serve: Serve) -> None:
    """A wrong OAuth 2.0 client fails before the first listing."""
    emulator = serve(DATA, auth="oauth2")
    checked = check(emulator, AHT_ETL_AUTH__CLIENT_SECRET="something-else")
    assert (1, "failed") == (checked.code, checked.outcomes["authentication"])
    assert "check auth.client_id and auth.client_secret" in checked.said["authentication"]
    assert 0 == emulator.count("listing")


def test_it_shows_the_answer_to_the_listing(check: Check, serve: Serve) -> None:
    """A 200, a 206, or a 404 that can be the vendor's mean that the keys are accepted."""
    emulator = serve(DATA, auth="oauth1")
    said = "OAuth 1.0a: the keys are accepted (the listing answered {})".format
    assert said("200") == check(emulator).said["authentication"]
    partial = EmulatorOptions(auth="oauth1", oldest=None, partial=(Window(START, END),))
    emulator.options = partial
    assert said("206, some files are missing") == check(emulator).said["authentication"]
    emulator.dataset, emulator.options = Dataset.of({}), replace(partial, partial=())
    assert said("404, no files") == check(emulator).said["authentication"]


@pytest.mark.parametrize(("ahead", "named"), [(3600, True), (-3600, True), (5, False)])
def test_a_wrong_clock_is_reported_even_if_all_checks_pass(
    check: Check, serve: Serve, ahead: int, named: bool
) -> None:
    """A server may refuse a signature with a wrong time."""
    headers = {"Date": format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)}
    empty = Fault("listing", "status", status=404, body=b"{}", headers=headers, times=None)
    checked = check(serve(DATA, faults=(empty,)))
    assert (0, named) == (checked.code, "this machine's clock is" in checked.said["authentication"])


def test_it_names_a_proxy_that_is_not_used(
    check: Check, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says why a variable does not count; with `api.use_proxy` it does."""
    emulator = serve(DATA)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    checked = check(emulator)
    assert checked.code == 0
    assert "HTTPS_PROXY is set and not used, since api.use_proxy is false" in checked.said["host"]
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    checked = check(emulator)
    assert "HTTP_PROXY and HTTPS_PROXY are set and not used" in checked.said["host"]
    checked = check(emulator, AHT_ETL_API__USE_PROXY="true")
    assert (1, "failed") == (checked.code, checked.outcomes["connection"])
    assert "by the proxy 127.0.0.1:1 (HTTP_PROXY)" in checked.said["host"]
    assert "no connection to the proxy 127.0.0.1:1 (HTTP_PROXY)" in checked.said["connection"]
    checked = check(emulator, AHT_ETL_API__USE_PROXY="true", NO_PROXY="127.0.0.1")
    assert checked.code == 0
    assert "are set and not used, since NO_PROXY has these hosts" in checked.said["host"]


def test_an_account_that_the_vendor_does_not_know(check: Check, serve: Serve) -> None:
    """The look-up of the host fails and says what to check; the lake is checked too."""
    emulator = serve(DATA, faults=(Fault("domain", "status", status=404, times=None),))
    checked = check(None, AHT_ETL_API__DOMAIN_URL=emulator.base_url)
    assert (1, {**OUTCOME, "host": "failed", **NOT_TRIED}) == (checked.code, checked.outcomes)
    assert "404, not found" in checked.said["host"]
    assert "check account" in checked.said["host"]


@pytest.mark.parametrize("looked_up", [False, True])
def test_certificates(
    check: Check, serve: Serve, tmp_path_factory: pytest.TempPathFactory, looked_up: bool
) -> None:
    """A certificate that is not trusted fails the check, and the advice in the message works."""
    context, authority = certified(tmp_path_factory.mktemp("ca"), "127.0.0.1")
    url = serve(DATA, tls=context).base_url
    where = () if looked_up else ("--base-url", url)
    env = {"AHT_ETL_API__DOMAIN_URL": url} if looked_up else {}
    checked = check(None, *where, **env)
    step = "host" if looked_up else "connection"
    assert (1, "failed") == (checked.code, checked.outcomes[step])
    assert "not trusted: unable to get local issuer certificate" in checked.said[step]
    assert "SSL_CERT_FILE" in checked.said[step]
    checked = check(None, *where, **env, SSL_CERT_FILE=str(authority))
    assert (0, OUTCOME) == (checked.code, checked.outcomes)
    assert "its certificate is good until " in checked.said["connection"]


@pytest.mark.parametrize(
    ("name", "life", "outcome", "said"),
    [
        ("elsewhere.example", timedelta(days=90), "failed", "127.0.0.1"),
        ("127.0.0.1", timedelta(days=-1), "failed", "certificate has expired"),
        ("127.0.0.1", timedelta(days=3), "ok", ", which is soon"),
    ],
)
def test_certificates_that_are_not_valid(
    check: Check,
    serve: Serve,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    life: timedelta,
    outcome: str,
    said: str,
) -> None:
    """A certificate of another host or an expired one fails. One that expires soon is reported."""
    until = datetime.now(UTC) + life
    context, authority = certified(tmp_path_factory.mktemp("ca"), name, until)
    url = serve(DATA, tls=context).base_url
    checked = check(None, "--base-url", url, SSL_CERT_FILE=str(authority))
    assert outcome == checked.outcomes["connection"]
    assert said in checked.said["connection"]


@pytest.mark.parametrize(
    ("url", "step", "said"),
    [
        ("http://127.0.0.1:1", "connection", "127.0.0.1:1: connection refused"),
        ("https://nowhere.invalid", "host", "nowhere.invalid.* cannot be looked up"),
    ],
)
@pytest.mark.parametrize("looked_up", [False, True])
def test_no_connection(check: Check, url: str, step: str, said: str, looked_up: bool) -> None:
    """The messages for a refused connection and for an unknown name differ."""
    checked = (
        check(None, AHT_ETL_API__DOMAIN_URL=url) if looked_up else check(None, "--base-url", url)
    )
    step = "host" if looked_up else step
    assert (1, "failed", "skipped") == (
        checked.code,
        checked.outcomes[step],
        checked.outcomes["listing"],
    )
    assert re.search(said, checked.said[step])


def test_a_server_that_speaks_plain_http(check: Check, serve: Serve) -> None:
    """If it is called by https, the message says that it does not speak TLS."""
    url = serve(DATA).base_url.replace("http:", "https:")
    checked = check(None, "--base-url", url)
    assert (1, "failed") == (checked.code, checked.outcomes["connection"])
    assert "does not speak TLS" in checked.said["connection"]


@pytest.mark.parametrize(
    ("lake", "said"),
    [
        ("file/lake", "Not a directory"),
        ("file", "reading file: Not a directory"),
        ("lake", "writing to lake: File exists"),
    ],
)
@pytest.mark.parametrize("key", ["lake", "raw"])
def test_a_lake_that_cannot_be_written(
    check: Check, serve: Serve, tmp_path: Path, key: str, lake: str, said: str
) -> None:
    """The check fails, says why and what to check, and leaves no file."""
    (tmp_path / "file").touch()
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "_staging").touch()
    before = sorted(tmp_path.rglob("*"))
    uris = {"lake": "good", "raw": "good_too", key: lake}
    checked = check(serve(DATA), "--lake", uris["lake"], AHT_ETL_RAW__URI=uris["raw"])
    expected = {**OUTCOME, "raw": "ok", key: "failed"}
    assert (1, expected) == (checked.code, checked.outcomes)
    assert f"check {key}.uri, its permissions and its free space" in checked.said[key]
    assert said in checked.said[key]
    assert before == sorted(tmp_path.rglob("*"))


def test_the_temporary_folder(
    check: Check, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the folder; one that cannot be written to fails the check."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    checked = check(serve(DATA))
    assert f"{tmp_path} takes what does not fit" in checked.said["temporary"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    checked = check(serve(DATA))
    assert (1, {**OUTCOME, "temporary": "failed"}) == (checked.code, checked.outcomes)
    assert "gone: No such file or directory; make room" in checked.said["temporary"]


def test_an_empty_last_day(check: Check, serve: Serve) -> None:
    """The check lists some days before it, as far back as the vendor keeps files."""
    emulator = serve(DATA)
    checked = check(emulator, "--to", "2022-06-13")
    assert (0, OUTCOME) == (checked.code, checked.outcomes)
    assert "0 files from 2022-06-12T00:00:00Z" in checked.said["listing"]
    assert "files from 2022-05-31T00:00:00Z to 2022-06-01T00:00:00Z" in checked.said["listing"]
    assert (6, 1) == (emulator.count("listing"), emulator.count("file"))


def test_nothing_listed_at_all(check: Check, serve: Serve) -> None:
    """A month of 404s is ok; the message says that no file was found, and what to check."""
    emulator = serve(Dataset.of({}))
    checked = check(emulator, "--to", "2022-06-29")
    assert (0, OUTCOME) == (checked.code, checked.outcomes)
    assert "nor on any day tried back to 2022-06-01T00:00:00Z" in checked.said["listing"]
    assert "check account" in checked.said["listing"]
    assert "none to try" in checked.said["file"]
    assert (8, 8) == (emulator.count("listing"), emulator.count("listing", 404))


def test_it_lists_nothing_before_the_configured_start(check: Check, serve: Serve) -> None:
    """The check lists nothing before `--from`."""
    emulator = serve(Dataset.of({}))
    checked = check(emulator, "--from", "2022-06-01T12:00:00Z", "--to", "2022-06-02")
    assert (0, 1) == (checked.code, emulator.count("listing"))
    assert "0 files from 2022-06-01T12:00:00Z to 2022-06-02T00:00:00Z" in checked.said["listing"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"kind": "bad_middle"}, "corrupt: "),
        ({"kind": "half_gzip"}, "truncated: "),
        ({"kind": "html"}, "corrupt: "),
        ({"kind": "status", "status": 404}, "not_found: "),
        ({"kind": "status", "status": 500}, "http: "),
        ({"kind": "reset_before"}, "connection: "),
        ({"kind": "hang"}, "timeout: "),
    ],
)
def test_a_file_that_cannot_be_downloaded(
    check: Check, serve: Serve, fault: dict[str, Any], said: str
) -> None:
    """It is requested once; the message has its path, kind and reason."""
    emulator = serve(DATA, faults=(Fault("file", times=None, **fault),))
    checked = check(emulator, AHT_ETL_FETCH__TIMEOUT="0.3s")
    assert (1, {**OUTCOME, "file": "failed"}) == (checked.code, checked.outcomes)
    ((path, count),) = emulator.file_requests().items()
    assert count == 1
    assert checked.said["file"].startswith(f"{path}: {said}")


def test_paths_that_cannot_be_used(check: Check, serve: Serve) -> None:
    """Skipped and invalid paths are not downloaded; if all others are invalid, the check fails."""
    path = next(iter(DATA.files))
    emulator = serve(Dataset.of({"/elsewhere.json.gz": b"", path: b""}))
    checked = check(emulator, AHT_ETL_FETCH__SKIP=f'["{path}"]')
    assert (1, "failed", 0) == (checked.code, checked.outcomes["file"], emulator.count("file"))
    assert "/elsewhere.json.gz does not fit" in checked.said["file"]
    emulator.dataset = Dataset.of({path: b""})
    checked = check(emulator, AHT_ETL_FETCH__SKIP='["*"]')
    assert (0, 0) == (checked.code, emulator.count("file"))
    assert "fetch.skip has all" in checked.said["file"]


@pytest.mark.parametrize(
    ("fault", "authentication"),
    [
        ({"kind": "status", "status": 503, "headers": {"Retry-After": "600"}}, "skipped"),
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "600"}}, "skipped"),
        ({"kind": "reset_before"}, "skipped"),
        ({"kind": "hang"}, "skipped"),
        ({"kind": "status", "status": 400}, "skipped"),
        ({"kind": "status", "status": 404, "body": b"default backend - 404"}, "skipped"),
        ({"kind": "html"}, "skipped"),
    ],
)
def test_a_listing_that_fails(
    check: Check, serve: Serve, fault: dict[str, Any], authentication: str
) -> None:
    """It is requested once, without a wait; whether the keys are accepted stays unknown."""
    emulator = serve(DATA, auth="oauth1", faults=(Fault("listing", times=None, **fault),))
    checked = check(emulator, AHT_ETL_FETCH__TIMEOUT="0.3s")
    failed = {"authentication": authentication, "listing": "failed", "file": "skipped"}
    assert (1, {**OUTCOME, **failed}) == (checked.code, checked.outcomes)
    assert 1 == len(emulator.requests)
    assert checked.said["listing"].startswith("listing 2022-06-01T00:00:00Z to ")


def test_a_server_that_quotes_the_keys(check: Check, serve: Serve) -> None:
    """The output hides keys that the server quotes. The fixture checks it."""
    body = (
        b'{"causes": ["emulator-consumer-secret-0001"], "message": "Authorization: Bearer abc123"}'
    )
    emulator = serve(
        DATA, auth="oauth1", faults=(Fault("file", "status", status=400, body=body, times=None),)
    )
    checked = check(emulator, "--log-level", "debug")
    assert "***" in checked.said["file"]
    assert "abc123" not in checked.said["file"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--concurrency", "0"), "fetch.concurrency"),
        (("--config", "missing.yaml"), "--config missing.yaml"),
        (("--account", "a-b"), "account"),
        (("--from", "2022-06-02", "--to", "2022-06-01"), "is not before"),
        (("--from", "1654041600"), "seconds instead of milliseconds? write 1654041600000"),
        (("--from", "2020-06-01", "--to", "2022-06-01"), "730 days long, and 400 are allowed"),
    ],
)
def test_a_wrong_configuration(
    check: Check, serve: Serve, arguments: tuple[str, ...], said: str
) -> None:
    """The exit code is 2, with one line and one check; nothing is sent."""
    emulator = serve(DATA)
    checked = check(emulator, *arguments)
    assert (2, {"configuration": "failed"}) == (checked.code, checked.outcomes)
    assert said in checked.said["configuration"]
    assert said in json.loads(checked.err)["reason"]
    assert [] == emulator.requests


def on_a_terminal(
    columns: int,
    arguments: list[str],
    env: dict[str, str],
    folder: Path,
    meanwhile: Callable[[subprocess.Popen[bytes]], None] = lambda _: None,
) -> str:
    """Return the output of a command on a terminal of this width."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        arguments,
        env={**env, "COLUMNS": str(columns), "TERM": "xterm"},
        cwd=folder,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        meanwhile(process)
        shown = b""
        try:
            while more := os.read(ours, 2**16):
                shown += more
        except OSError:  # on Linux, the end of a pty is an error
            pass
    os.close(ours)
    return shown.decode()


def test_the_output_for_people(serve: Serve, tmp_path: Path) -> None:
    """A pipe gets one line a check; a narrow terminal wraps; only a terminal gets colours."""
    emulator = serve(DATA, auth="oauth1")
    command = [COMMAND, "check", "--account", "a1", "--base-url", emulator.base_url, *WINDOW]
    env = environment(**{**keys_of(emulator), "AHT_ETL_AUTH__ACCESS_TOKEN": "something-else"})
    env.pop("COLUMNS", None)
    done = subprocess.run(
        command, env=env, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    lines = [line.split() for line in done.stdout.splitlines() if line and line[0] != " "]
    words = [line[0] for line in lines]
    assert list(NAMES) == [line[1] for line in lines]
    assert ["ok", "ok", "ok", "FAILED", "skipped", "skipped", "ok", "ok"] == words
    assert "defaults: " not in done.stdout
    [last] = done.stderr.splitlines()
    assert json.loads(last)["reason"].startswith("Not ready for a run: fix authentication and")
    assert (1, False) == (done.returncode, "\x1b" in done.stdout)
    verbose = subprocess.run(
        [*command, "--verbose"], env=env, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert "defaults: api.allow_http false, " in verbose.stdout
    narrow = subprocess.run(
        [*command, "--verbose"],
        env={**env, "COLUMNS": "60"},
        cwd=tmp_path,
        check=False,
        capture_output=True,
    )
    for line in narrow.stdout.decode().splitlines():
        assert len(line) <= 60 or " " not in line.strip(), line
    shown = on_a_terminal(60, command, env, tmp_path)
    assert "\x1b[1;31mFAILED" in shown
    plain = on_a_terminal(60, command, {**env, "NO_COLOR": "1"}, tmp_path)
    assert ("FAILED" in plain, []) == (True, re.findall(r"\x1b\[[0-9;]*3[0-9]m", plain))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    """The check ends with the documented exit code, and the cursor comes back."""
    emulator = serve(DATA, faults=(Fault("listing", "hang", times=None),))
    command = [COMMAND, "check", "--account", "a1", "--base-url", emulator.base_url, *WINDOW]

    def end(process: subprocess.Popen[bytes]) -> None:
        wait_until(lambda: emulator.in_flight > 0)
        process.send_signal(number)
        assert 128 + number == process.wait(10)

    shown = on_a_terminal(80, command, environment(), tmp_path, end)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Traceback" not in shown
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>&-", "| head -1", "--json >/dev/full"])
def test_streams_that_cannot_be_written(serve: Serve, tmp_path: Path, streams: str) -> None:
    """Output that cannot be written does not change the exit code."""
    url = serve(DATA).base_url
    command = f"{COMMAND} check --account a1 --base-url {url} {' '.join(WINDOW)} {streams}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (0, "") == (done.returncode, done.stderr)
