"""A run's figures for Prometheus: to a Pushgateway, to a text file of the node exporter, or both.

All are gauges: a run ends, so nobody could scrape a counter twice. They describe the last run and
stay until the next one ends. `HELP` lists them.

Each has the labels `account` and, where a run is a share (`--shard I/N`), `shard` (I). With
`job="aht_etl"` they are the Pushgateway's grouping key: runs of several accounts and shares do not
overwrite each other, also in one text file. A run leaves metrics that it does not know as they are:
the time of the last success outlives every failure.

Metrics never fail a run and delay its end by `PATIENCE_S` at most. A failed delivery is one
warning, `metrics.failed`. Nothing secret is sent: numbers, and the account's id.
"""

import asyncio
import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, get_args
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from prometheus_client import CollectorRegistry, Metric, generate_latest, pushadd_to_gateway
from prometheus_client.parser import text_string_to_metric_families

from etl.config.sections import MetricsSettings
from etl.model.errors import FailureKind
from etl.model.machine import resource_shortage
from etl.model.text import log
from etl.pipeline.job import Shard
from etl.pipeline.report import Report, Status
from etl.storage.disk import write_whole

JOB: Final = "aht_etl"
#: How long a gateway and a disk, together, may take before the run ends without them.
PATIENCE_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.01

_LAST_SUCCESS: Final = "aht_etl_last_success_timestamp_seconds"
_NEWEST_HOUR: Final = "aht_etl_newest_complete_hour_timestamp_seconds"

#: Every metric there is, with its help text.
HELP: Final = {
    _LAST_SUCCESS: "When the last run that succeeded (exit code 0) ended; other runs leave it.",
    "aht_etl_last_run_timestamp_seconds": "When the last run ended, whatever its end.",
    "aht_etl_last_run_duration_seconds": "How long it took.",
    "aht_etl_last_run_exit_code": "0 ok, 1 failed, 3 partial, 129, 130 and 143 interrupted.",
    "aht_etl_last_run_status": "1 for the status that it ended with, 0 for the others.",
    "aht_etl_last_run_files": "Files listed, by outcome.",
    "aht_etl_last_run_failures": "Files that failed, by kind.",
    "aht_etl_last_run_rows": "Rows loaded into the lake, and bad rows put into quarantine.",
    "aht_etl_last_run_bytes": "Bytes downloaded, unpacked from files, and written as Parquet.",
    "aht_etl_last_run_http_requests": "Requests sent, retries included.",
    "aht_etl_last_run_http_retries": "Requests that were sent again.",
    "aht_etl_last_run_http_throttled": "Requests that were answered 429, too many requests.",
    _NEWEST_HOUR: (
        "Start of the newest complete hour: it was over when the run began, and all listed files "
        "up to its end are in the lake. A run that finds none leaves it."
    ),
    "aht_etl_lag_seconds": (
        "From the newest complete hour's begin to the run's end; NaN for a run that finds none."
    ),
}


async def publish(report: Report, exit_code: int, shard: Shard, settings: MetricsSettings) -> None:
    """Deliver a report's metrics to the configured targets; log what fails, never raise.

    `exit_code` is the process's: it differs from the report's where that could not be written.
    """
    labels = {"account": report.account or "all"}
    if shard.count > 1:
        labels["shard"] = str(shard.index)
    targets: dict[str, Callable[[Sequence[Metric]], None]] = {}
    if settings.pushgateway is not None:
        targets["metrics.pushgateway"] = partial(_push, settings.pushgateway, labels)
    if settings.textfile is not None:
        targets["metrics.textfile"] = partial(_write, Path(settings.textfile), labels)
    problems: dict[str, str | None] = dict.fromkeys(targets, _no_answer())

    def deliver(setting: str) -> None:
        try:
            targets[setting](measure(report, exit_code, labels))
            problems[setting] = None
        except Exception as error:  # noqa: BLE001 - the run does not depend on its metrics
            problems[setting] = _reason(error)

    # The end of the process does not wait for these threads: a name server or a disk that does not
    # answer cannot be interrupted.
    threads = [Thread(target=deliver, args=(setting,), daemon=True) for setting in targets]
    try:
        for thread in threads:
            thread.start()
        await _join(threads)
    except RuntimeError as error:  # there are no threads to be had
        problems = dict.fromkeys(targets, resource_shortage(error) or str(error))
    for setting, problem in problems.items():
        if problem is not None:
            reason = f"{problem}; the run is not affected"
            log.warning("metrics.failed", setting=setting, reason=reason)


async def _join(threads: Sequence[Thread]) -> None:
    """Wait for the threads, `PATIENCE_S` at most.

    No thread of the pool can do that: after the grace all of them may hang in a store.
    """
    ends_at = time.monotonic() + PATIENCE_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < ends_at:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)


def measure(report: Report, exit_code: int, labels: dict[str, str]) -> list[Metric]:
    """Return the metrics of a run; each sample has these labels and its own."""
    ended_at = report.finished_at.timestamp()
    failures = Counter(failure.kind for failure in report.failures)
    values: dict[str, Any] = {
        "aht_etl_last_run_timestamp_seconds": ended_at,
        "aht_etl_last_run_duration_seconds": report.duration_seconds,
        "aht_etl_last_run_exit_code": exit_code,
        "aht_etl_last_run_status": {
            "status": {status: status == report.status for status in get_args(Status)}
        },
        "aht_etl_last_run_files": {
            "outcome": {key: n for key, n in asdict(report.files).items() if key != "listed"}
        },
        "aht_etl_last_run_failures": {"kind": {kind.value: failures[kind] for kind in FailureKind}},
        "aht_etl_last_run_rows": {"outcome": asdict(report.rows)},
        "aht_etl_last_run_bytes": {"step": asdict(report.bytes)},
        "aht_etl_last_run_http_requests": report.http.requests,
        "aht_etl_last_run_http_retries": report.http.retries,
        "aht_etl_last_run_http_throttled": report.http.throttled,
        "aht_etl_lag_seconds": float("nan"),
    }
    if exit_code == 0:
        values[_LAST_SUCCESS] = ended_at
    if (hour := report.newest_complete_hour) is not None:
        values[_NEWEST_HOUR] = hour.timestamp()
        values["aht_etl_lag_seconds"] = ended_at - values[_NEWEST_HOUR]
    metrics = []
    for name, value in values.items():
        metric = Metric(name, HELP[name], "gauge")
        if isinstance(value, dict):
            ((label, by_label),) = value.items()
            for text, number in by_label.items():
                metric.add_sample(name, {**labels, label: text}, number)
        else:
            metric.add_sample(name, labels, value)
        metrics.append(metric)
    return metrics


def _push(gateway: str, labels: dict[str, str], metrics: Sequence[Metric]) -> None:
    """Replace the metrics of this grouping key that are given; the others stay (POST)."""
    pushadd_to_gateway(
        gateway,
        JOB,
        _Given(metrics),
        grouping_key=labels,
        timeout=PATIENCE_S,
        handler=_send_plainly,
    )


def _write(file: Path, labels: dict[str, str], metrics: Sequence[Metric]) -> None:
    """Replace the text file in one step; what it has of other runs stays.

    The node exporter, another user, can read it whatever the umask is.
    """
    with _locked(file.parent):
        known = {metric.name: metric for metric in metrics}
        for old in _read(file):
            metric = known.setdefault(old.name, old)
            if metric is not old:
                metric.samples += [s for s in old.samples if not _same_run(s.labels, labels)]
        in_order = [known[name] for name in HELP if name in known]
        write_whole(generate_latest(_Given(in_order)).decode(), file)


def _read(file: Path) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(file.read_text("utf-8")))
    except (FileNotFoundError, ValueError):  # no file yet, or not ours
        return []


def _same_run(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(one.get(name) == other.get(name) for name in ("account", "shard"))


class _Given(CollectorRegistry):
    """A registry of metrics that are measured already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        super().__init__()
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder's text files, so that each run reads what the run before it wrote."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # no locks on this disk: of two at once the last one counts
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Refused(HTTPRedirectHandler):
    """Refuses redirects: urllib would follow one with a GET."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _send_plainly(
    url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    def send() -> None:
        request = Request(url, data, dict(headers), method=method)  # noqa: S310 - the settings'
        # Without a proxy, as for the vendor. (The lake's store obeys HTTPS_PROXY.)
        with build_opener(ProxyHandler({}), _Refused).open(request, timeout=timeout):
            pass

    return send


def _no_answer() -> str:
    return f"no answer within {PATIENCE_S:g} s"


def _reason(error: Exception) -> str:
    if isinstance(error, HTTPError):
        with error:
            said = error.read(200).decode("utf-8", "replace").strip().splitlines()
        return f"status {error.code}{': ' if said else ''}{said[0] if said else ''}"
    if isinstance(error, URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    if isinstance(error, TimeoutError):
        return _no_answer()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}"
