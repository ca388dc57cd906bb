"""Which certificates a run trusts, and when it reads them."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.emulator import Dataset
from tests.certificates import certified
from tests.conftest import Runner, Serve
from tests.lakes import assert_lake_holds

DATA = Dataset.generate(
    7,
    datetime(2022, 6, 1, tzinfo=UTC),
    datetime(2022, 6, 1, 4, tzinfo=UTC),
    rows_per_file=10,
    files_per_hour=6,
)


def test_the_ca_in_the_variable_is_trusted(
    run: Runner, serve: Serve, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With `SSL_CERT_FILE`, a run loads over https. Without it, not even the listing succeeds."""
    context, authority = certified(tmp_path_factory.mktemp("ca"), "127.0.0.1")
    emulator = serve(DATA, tls=context, auth="oauth2")
    ended = run(emulator, AHT_ETL_RETRY__SERVER_DELAYS="[0,0,0]")
    assert (1, 0) == (ended.code, ended.report["files"]["listed"])
    assert "127.0.0.1 shows a certificate that is not trusted" in ended.report["error"]
    assert "SSL_CERT_FILE" in ended.report["error"]
    assert ([], 0) == (emulator.requests, ended.report["http"]["retries"])
    assert 0 == run(emulator, SSL_CERT_FILE=str(authority)).code
    assert_lake_holds(run.lake, DATA)


def test_over_http_no_certificate_is_read(run: Runner, serve: Serve, tmp_path: Path) -> None:
    """The file is a pipe without a writer, so a run that opened it would hang."""
    certificates = tmp_path / "certificates"
    os.mkfifo(certificates)
    process = run.start(serve(DATA), SSL_CERT_FILE=str(certificates))
    try:
        assert 0 == run.end(process).code
    finally:
        process.kill()
        process.wait()
    assert_lake_holds(run.lake, DATA)
