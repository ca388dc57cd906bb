"""Metrics agree with the report at every destination, and never delay or fail a run."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

import etl
from etl.config.sections import MetricsSettings
from etl.config.settings import Redactor, Settings
from etl.emulator import Dataset, Fault
from etl.model.times import parse_rfc3339
from etl.pipeline import metrics
from etl.pipeline.job import Job, Shard
from etl.pipeline.report import Report
from etl.pipeline.state import RunState
from tests.conftest import Runner, Serve
from tests.pipeline.test_library import settings_for
from tests.programs import listening

DATA = Dataset.generate(
    7,
    datetime(2022, 6, 1, tzinfo=UTC),
    datetime(2022, 6, 1, 3, tzinfo=UTC),
    rows_per_file=10,
    files_per_hour=4,
)
SUCCESS = "aht_etl_last_success_timestamp_seconds"
HOUR = "aht_etl_newest_complete_hour_timestamp_seconds"

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def parsed(text: str) -> Samples:
    """Return the program's own samples by name and labels, without labels that a gateway adds."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        if family.name in metrics.HELP:
            assert (metrics.HELP[family.name], "gauge") == (family.documentation, family.type)
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in {"job", "instance"}}
                found.setdefault(sample.name, {})[frozenset(labels.items())] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    account = {"account": "le79344075", **labels}
    return samples.get(f"aht_etl_{name}", {}).get(frozenset(account.items()))


def report(**more: Any) -> Report:
    """Return the report of a run without files."""
    now = datetime.now(UTC)
    job = Job(Settings(account="a1"), None, now, Redactor())
    return replace(Report.of(RunState(job, now - timedelta(seconds=5)), None, None), **more)


def publish(made: Report, shard: Shard, settings: MetricsSettings) -> None:
    asyncio.run(metrics.publish(made, 0, shard, settings))


@pytest.fixture
def gateway() -> Iterator[str]:
    with listening("prometheus-pushgateway", "--persistence.file=") as url:
        yield url


def at_gateway(url: str) -> Samples:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        return parsed(answer.read().decode())


def test_metrics_agree_with_the_report(run: Runner, serve: Serve, gateway: str) -> None:
    """Gateway and text file have the same metrics. The run has some of each outcome."""
    last = max(DATA.files)
    faults = (
        Fault("file", "status", status=404, path=last, times=None),
        Fault("file", "status", status=503, times=1),
        Fault("file", "status", status=429, times=2),
    )
    file = run.folder / "aht.prom"
    places = {"AHT_ETL_METRICS__PUSHGATEWAY": gateway, "AHT_ETL_METRICS__TEXTFILE": str(file)}
    ended = run(serve(DATA, faults=faults), **places)
    there = parsed(file.read_text())
    assert (3, there) == (ended.code, at_gateway(gateway))
    for samples in (there, at_gateway(gateway)):
        said = ended.report
        for name, label, group in (
            ("files", "outcome", {k: n for k, n in said["files"].items() if k != "listed"}),
            ("rows", "outcome", said["rows"]),
            ("bytes", "step", said["bytes"]),
        ):
            for key, number in group.items():
                assert number == value(samples, f"last_run_{name}", **{label: key})
        for key in ("requests", "retries", "throttled"):
            assert said["http"][key] == value(samples, f"last_run_http_{key}")
        assert (2, True) == (said["http"]["throttled"], said["http"]["retries"] >= 3)
        assert 1 == value(samples, "last_run_failures", kind="not_found")
        assert 0 == value(samples, "last_run_failures", kind="lake")
        assert (1, 0) == tuple(
            value(samples, "last_run_status", status=status) for status in ("partial", "ok")
        )
        assert (3, said["duration_seconds"]) == (
            value(samples, "last_run_exit_code"),
            value(samples, "last_run_duration_seconds"),
        )
        finished = parse_rfc3339(said["finished_at"]).timestamp()
        hour = parse_rfc3339(said["newest_complete_hour"]).timestamp()
        assert (finished, None) == (
            value(samples, "last_run_timestamp_seconds"),
            value(samples, "last_success_timestamp_seconds"),
        )
        assert hour == datetime(2022, 6, 1, 1, tzinfo=UTC).timestamp()
        assert hour == value(samples, "newest_complete_hour_timestamp_seconds")
        assert finished - hour == value(samples, "lag_seconds")
        assert set(metrics.HELP) - {SUCCESS} == set(samples)


def test_the_last_success_stays_after_failures(run: Runner, serve: Serve, gateway: str) -> None:
    """A later run that fails or is interrupted keeps only the values that it does not know."""
    file = run.folder / "aht.prom"
    places = {"AHT_ETL_METRICS__PUSHGATEWAY": gateway, "AHT_ETL_METRICS__TEXTFILE": str(file)}
    good = run(serve(DATA), **places).report
    refused = serve(DATA, faults=(Fault("listing", "status", status=400, times=None),))
    assert run(refused, **places).code == 1
    process = run.start(hanging := serve(DATA, faults=(Fault("listing", "hang"),)), **places)
    while not hanging.count("listing"):
        assert process.poll() is None
    process.terminate()
    assert run.end(process).code == 143
    for samples in (parsed(file.read_text()), at_gateway(gateway)):
        assert parse_rfc3339(good["finished_at"]).timestamp() == value(
            samples, "last_success_timestamp_seconds"
        )
        assert parse_rfc3339(good["newest_complete_hour"]).timestamp() == value(
            samples, "newest_complete_hour_timestamp_seconds"
        )
        assert (143, 1, "nan") == (
            value(samples, "last_run_exit_code"),
            value(samples, "last_run_status", status="interrupted"),
            str(value(samples, "lag_seconds")),
        )
        assert set(metrics.HELP) == set(samples)


def test_shares_and_accounts_do_not_overwrite_each_other(gateway: str, tmp_path: Path) -> None:
    """Each has its own metrics, even if all end at the same moment."""
    file = tmp_path / "aht.prom"
    settings = MetricsSettings(pushgateway=gateway, textfile=str(file))
    runs = [(f"a{account}", Shard(i, 4)) for account in range(4) for i in range(4)]
    runs.append(("a0", Shard()))
    with ThreadPoolExecutor(len(runs)) as pool:
        for account, shard in runs:
            said = report(account=account, duration_seconds=shard.index)
            pool.submit(publish, said, shard, settings)
    wanted = {
        frozenset(
            {"account": account, **({"shard": str(shard.index)} if shard.count > 1 else {})}.items()
        ): shard.index
        for account, shard in runs
    }
    for samples in (parsed(file.read_text()), at_gateway(gateway)):
        assert wanted == samples["aht_etl_last_run_duration_seconds"]
        assert len(runs) == len(samples[SUCCESS])
    assert [file] == list(tmp_path.iterdir())


def test_a_run_from_python_publishes_metrics_too(serve: Serve, tmp_path: Path) -> None:
    """They are the same metrics, also for a run that fails."""
    file = tmp_path / "aht.prom"
    settings = settings_for(serve(DATA), tmp_path / "lake", metrics={"textfile": str(file)})
    report = etl.run(settings)
    samples = parsed(file.read_text())
    assert report.files.loaded > 0
    assert report.files.loaded == value(samples, "last_run_files", outcome="loaded")
    assert report.finished_at.timestamp() == value(samples, "last_success_timestamp_seconds")
    refused = serve(DATA, faults=(Fault("listing", "status", status=400, times=None),))
    etl.run(settings_for(refused, tmp_path / "lake", metrics={"textfile": str(file)}))
    assert 1 == value(parsed(file.read_text()), "last_run_exit_code")


def test_a_gateway_url_with_a_path(tmp_path: Path) -> None:
    """The URL may have a path, with or without a slash at its end."""
    with listening(
        "prometheus-pushgateway", "--persistence.file=", "--web.route-prefix=/push"
    ) as url:
        settings = MetricsSettings(pushgateway=f"{url}/push/")
        publish(report(), Shard(), settings)
        assert set(metrics.HELP) - {HOUR} == set(at_gateway(f"{url}/push"))


def test_the_node_exporter_can_read_the_text_file(tmp_path: Path) -> None:
    """The exporter runs as another user, so the umask does not matter."""
    file = tmp_path / "aht.prom"
    before = os.umask(0o077)
    try:
        publish(report(), Shard(), MetricsSettings(textfile=str(file)))
    finally:
        os.umask(before)
    assert 0o644 == file.stat().st_mode & 0o777


@pytest.mark.parametrize("old", ["", "no metrics {", "aht_etl_last_run_status{", "other 1\n"])
def test_an_existing_text_file_is_replaced(tmp_path: Path, old: str) -> None:
    """The old content does not matter, because the file belongs to the program."""
    file = tmp_path / "aht.prom"
    file.write_text(old)
    publish(report(), Shard(), MetricsSettings(textfile=str(file)))
    assert set(metrics.HELP) - {HOUR} == set(parsed(file.read_text()))
    assert (0o644, [file]) == (file.stat().st_mode & 0o777, list(tmp_path.iterdir()))


class _Answer(BaseHTTPRequestHandler):
    status = 500

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"what went wrong\nand more\n")

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Run an HTTP server that always answers with this status."""
    handler = type("Answer", (_Answer,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def nobody() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("serving", "said"),
    [
        (lambda: answering(400), "status 400: what went wrong;"),
        (lambda: answering(302), "status 302: what went wrong;"),
        (nobody, "Connection refused;"),
        (silent, "no answer within 2 s;"),
    ],
    ids=["400", "redirect", "nobody", "silent"],
)
def test_a_gateway_that_fails_is_one_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    serving: Callable[[], Any],
    said: str,
) -> None:
    """The text file is written anyway."""
    if serving is silent:
        monkeypatch.setattr(metrics, "PATIENCE_S", 2.0)
    file = tmp_path / "aht.prom"
    with ExitStack() as stack, structlog.testing.capture_logs() as logs:
        url = stack.enter_context(serving())
        settings = MetricsSettings(pushgateway=url, textfile=str(file))
        publish(report(), Shard(), settings)
    (event,) = logs
    assert ("metrics.failed", "warning", "metrics.pushgateway") == (
        event["event"],
        event["log_level"],
        event["setting"],
    )
    assert event["reason"].startswith(said)
    assert file.exists()


def test_a_text_file_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    """It names the folder that is missing."""
    settings = MetricsSettings(textfile=str(tmp_path / "missing" / "aht.prom"))
    with structlog.testing.capture_logs() as logs:
        publish(report(), Shard(), settings)
    assert [f"No such file or directory: {tmp_path}/missing; the run is not affected"] == [
        event["reason"] for event in logs
    ]


async def test_threads_that_hang_do_not_delay_metrics(tmp_path: Path) -> None:
    """After the grace, all threads of a run's pool may wait for a store that does not answer."""
    file, over = tmp_path / "aht.prom", Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    hanging = loop.run_in_executor(None, over.wait)
    try:
        async with asyncio.timeout(metrics.PATIENCE_S / 2):
            settings = MetricsSettings(textfile=str(file))
            await metrics.publish(report(), 0, Shard(), settings)
    finally:
        over.set()
        await hanging
    assert file.exists()


def test_failing_metrics_change_nothing_of_a_run(run: Runner, serve: Serve) -> None:
    """The exit code and the last line of a failed run stay the same."""
    with nobody() as url:
        places = {"AHT_ETL_METRICS__PUSHGATEWAY": url}
        ended = run(serve(DATA), **places)
        assert (0, "ok") == (ended.code, ended.report["status"])
        refused = serve(DATA, faults=(Fault("listing", "status", status=400, times=None),))
        ended = run(refused, **places)
    events = [json.loads(line)["event"] for line in ended.err.splitlines()]
    assert (1, ["run.finished", "metrics.failed", "run.failed"]) == (ended.code, events[-3:])


def test_metrics_names_and_help() -> None:
    """They follow Prometheus's rules: base units, no `_total` on a gauge, a help text for each."""
    for name, text in metrics.HELP.items():
        assert re.fullmatch(r"aht_etl_[a-z_]+(?<!_total)", name)
        assert text.endswith(".")
    assert not [name for name in metrics.HELP if re.search("_(millis|minutes|hours|mb)", name)]


def test_a_run_without_metrics_does_not_import_their_library() -> None:
    """So metrics cost nothing if they are not used."""
    code = "import sys, etl.cli.run; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "prometheus_client" not in done.stdout.split()
