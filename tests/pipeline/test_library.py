"""The job from Python: the same job and report, and no side effects on the host program."""

import asyncio
import gzip
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

import etl
from etl import (
    RunError,
    Settings,
    UsageError,
    load_settings,
    plan,
    plan_async,
    run,
    run_async,
    status,
    status_async,
    verify,
    verify_async,
)
from etl.emulator import Dataset, Emulator, Fault
from etl.model.errors import FailureKind
from etl.pipeline.state import FailedFile
from tests.conftest import Runner, Serve, check_report, environment
from tests.documents import blocks, page
from tests.lakes import assert_lake_holds, receipts

START = datetime(2022, 6, 1, tzinfo=UTC)
DATA = Dataset.generate(
    8, START, datetime(2022, 6, 1, 8, tzinfo=UTC), rows_per_file=20, files_per_hour=6
)
COUNT = len(DATA.files)
DEMO = {"from": "2022-06-01", "to": "2022-06-03"}


def settings_for(emulator: Emulator, lake: Path, **more: Any) -> Settings:
    return load_settings(
        environ={},
        account="le79344075",
        api={"base_url": emulator.base_url, "domain_url": emulator.base_url},
        auth=emulator.keys,
        lake={"uri": str(lake)},
        **{
            "window": {"from": "2022-06-01", "to": "2022-06-02"},
            "retry": {"server_delays": [0.01], "throttle_delay": 0.01},
            **more,
        },
    )


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - it happens in the server's thread
            await asyncio.sleep(0.005)


def test_the_job_and_its_report(serve: Serve, tmp_path: Path) -> None:
    """The report is typed; its JSON is that of `--report`. A second call loads no file."""
    emulator = serve(DATA, auth="oauth1")
    settings = settings_for(emulator, tmp_path / "lake")
    planned = plan(settings)
    assert (COUNT, 0, COUNT) == (planned.listed, planned.already_loaded, planned.to_load)
    assert (0, False) == (emulator.count("file"), (tmp_path / "lake").exists())

    report = run(settings)
    assert report is report.raise_for_status()
    assert ("ok", 0, None, COUNT, 0) == (
        report.status,
        report.exit_code,
        report.error,
        report.files.loaded,
        report.files.already_loaded,
    )
    assert_lake_holds(tmp_path / "lake", DATA)
    assert (START, datetime(2022, 6, 2, tzinfo=UTC)) == (
        report.window and report.window.start,
        report.window and report.window.end,
    )
    assert len(report.parts) == len(planned.partitions)
    assert sum(part.rows for part in report.parts) == report.rows.loaded
    check_report(json.loads(json.dumps(report.as_json())), 0)

    again = run(settings)
    assert (0, COUNT) == (again.files.loaded, again.files.already_loaded)
    assert again.run_id != report.run_id
    assert (COUNT, 0) == (plan(settings).already_loaded, plan(settings).to_load)


def test_the_report_has_the_content_of_the_command(serve: Serve, run: Runner) -> None:
    """All keys agree, except times, speeds and orders."""
    emulator = serve(DATA)
    ended = run(emulator)
    shutil.rmtree(run.lake)
    content = etl.run(settings_for(emulator, run.lake, window=DEMO)).as_json()
    assert list(ended.report) == list(content)
    for key in ("version", "status", "exit_code", "account", "window", "files", "rows", "error"):
        assert ended.report[key] == content[key]
    for key in ("listing", "bytes", "http"):
        assert ended.report[key].keys() == content[key].keys()
    assert ended.report["parts"][0].keys() == content["parts"][0].keys()


async def test_runs_at_once_do_not_disturb_each_other(serve: Serve, tmp_path: Path) -> None:
    """In one loop, with one lake or two, each file is loaded once. Events belong to their run."""
    emulator = serve(DATA, latency_s=0.01)
    both, alone = tmp_path / "both", tmp_path / "alone"
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        reports = await asyncio.gather(
            *(run_async(settings_for(emulator, lake)) for lake in (both, both, alone))
        )
    assert COUNT == reports[0].files.loaded + reports[1].files.loaded
    assert {COUNT} == {report.files.listed for report in reports}
    assert COUNT == reports[2].files.loaded
    for lake in (both, alone):
        assert_lake_holds(lake, DATA)
    for report in reports:
        its = [log for log in logs if log.get("run_id") == report.run_id]
        committed = [log for log in its if log["event"] == "part.committed"]
        assert len(report.parts) == len(committed)
    assert {report.run_id for report in reports} == {log.get("run_id") for log in logs}
    assert {} == structlog.contextvars.get_contextvars()


def test_runs_in_several_threads(serve: Serve, tmp_path: Path) -> None:
    """Schedulers run tasks in threads. Shares of one window are disjoint and complete."""
    settings = settings_for(serve(DATA), tmp_path / "lake")
    with ThreadPoolExecutor(3) as threads:
        reports = list(threads.map(lambda i: run(settings, shard=f"{i}/3"), range(3)))
    assert COUNT == sum(report.files.loaded for report in reports)
    assert COUNT == sum(report.files.listed for report in reports)
    assert_lake_holds(tmp_path / "lake", DATA)


async def test_inside_a_running_loop(serve: Serve, tmp_path: Path) -> None:
    """Notebooks have a running loop. Synchronous calls work there too and raise the same errors."""
    settings = settings_for(serve(DATA), tmp_path / "lake")
    assert plan(settings).to_load == COUNT
    assert run(settings).files.loaded == COUNT
    assert (await plan_async(settings)).already_loaded == COUNT
    with pytest.raises(UsageError, match="--shard"):
        run(settings, shard="1")


@pytest.mark.parametrize("where", ["listing", "file", "domain"])
async def test_cancelled_while_the_server_hangs(serve: Serve, tmp_path: Path, where: Any) -> None:
    """The run stops its requests at once."""
    emulator = serve(DATA, faults=(Fault(where, "hang", times=None),))
    settings = settings_for(emulator, tmp_path / "lake")
    if where == "domain":
        settings = load_settings(
            environ={}, account="le79344075", api={"domain_url": emulator.base_url}
        )
    task = asyncio.create_task(run_async(settings))
    await until(lambda: emulator.in_flight > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {} == structlog.contextvars.get_contextvars()


@pytest.mark.parametrize("cancels", [1, 2])
async def test_cancelled_in_the_middle(serve: Serve, tmp_path: Path, cancels: int) -> None:
    """Downloads are committed, unless it is cancelled again. No file is half loaded."""
    lake = tmp_path / "lake"
    emulator = serve(DATA, latency_s=0.02)
    settings = settings_for(emulator, lake, fetch={"concurrency": 2})
    task = asyncio.create_task(run_async(settings))
    await until(lambda: emulator.count("file", 200) >= 12)
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    loaded = [receipt["path"] for receipt in receipts(lake)]
    assert len(set(loaded)) == len(loaded) < COUNT
    if cancels == 1:
        assert len(loaded) >= 10  # two of the 12 answers may be in flight
        assert [] == list((lake / "_staging").iterdir())
    report = await run_async(settings)
    assert len(loaded) == report.files.already_loaded
    assert_lake_holds(lake, DATA)
    assert [] == list((lake / "_staging").iterdir())


async def test_a_time_limit_of_the_host(serve: Serve, tmp_path: Path) -> None:
    """`asyncio.timeout` ends a run like any other coroutine."""
    emulator = serve(DATA, faults=(Fault("file", "hang", times=None),))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await run_async(settings_for(emulator, tmp_path / "lake"))


async def test_the_host_program_is_not_changed(serve: Serve, tmp_path: Path) -> None:
    """The library sets no signal handler, configures no log, and prints nothing."""
    emulator = serve(DATA, latency_s=0.02)
    before = host()
    task = asyncio.create_task(run_async(settings_for(emulator, tmp_path / "lake")))
    await until(lambda: emulator.count("file") >= 5)
    assert before == host()
    await task
    assert before == host()


def host() -> list[Any]:
    return [
        *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)),
        structlog.is_configured(),
        *logging.getLogger().handlers,
        logging.getLogger().level,
        *(sys.stdin, sys.stdout, sys.stderr),
        {name: value for name, value in os.environ.items() if name.startswith("AHT")},
    ]


SCRIPT = """
import sys, structlog
from etl import Settings, plan, run, status, verify
settings = Settings(
    account="le79344075",
    api={"base_url": sys.argv[1]},
    window={"from": "2022-06-01", "to": "2022-06-03"},
    lake={"uri": sys.argv[2]},
)
plan(settings)
report = run(settings)
assert report.files.loaded == status(settings).files == verify(settings).files
assert not structlog.is_configured()
"""


def test_the_library_logs_only_if_the_host_asks(serve: Serve, tmp_path: Path) -> None:
    """It prints nothing, even if a file fails. The documented example turns the log on."""
    faults = (Fault("file", "status", status=404, times=None, path=next(iter(DATA.files))),)
    url = serve(DATA, faults=faults).base_url
    quiet = subprocess.run(
        [sys.executable, "-c", SCRIPT, url, "one"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("", "") == (quiet.stdout, quiet.stderr)
    _, example, _ = blocks(page("python"), "python")
    asked = subprocess.run(
        [sys.executable, "-c", example + SCRIPT.replace("assert not", "assert"), url, "two"],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (asked.returncode, asked.stderr)
    assert "plan.made" in asked.stdout
    assert "file.failed" in asked.stdout


def test_the_lake_from_python(serve: Serve, tmp_path: Path) -> None:
    """`status` and `verify` give the results of the commands, also in a running loop."""
    settings = settings_for(serve(DATA), tmp_path / "lake")
    with pytest.raises(RunError, match="there is no lake at"):
        status(settings)
    assert not verify(settings).ok
    loaded = run(settings).files.loaded
    later = datetime(2022, 6, 1, 1, tzinfo=UTC)
    found, proof = status(settings), verify(settings)
    assert (loaded, loaded, True) == (found.files, proof.files, proof.ok)
    assert 0 < asyncio.run(status_async(settings, start=later)).files < loaded
    assert 0 < asyncio.run(verify_async(settings, end=later)).files < loaded
    assert 0 == status(settings, account="other").files
    with pytest.raises(UsageError, match=r"raw\.uri: is missing"):
        verify(settings, deep=True)


def test_a_job_that_failed(serve: Serve, tmp_path: Path) -> None:
    """The report says why. An error is raised on request; a plan always raises it."""
    settings = settings_for(serve(DATA, faults=(Fault("listing", "status", times=None),)), tmp_path)
    report = run(settings)
    assert ("failed", 1, 0) == (report.status, report.exit_code, report.files.listed)
    assert report.error
    assert report.error.startswith("listing 2022-06-01T00:00:00Z")
    with pytest.raises(RunError, match="failed: listing 2022-06-01"):
        report.raise_for_status()
    with pytest.raises(RunError, match="listing 2022-06-01"):
        plan(settings)


def test_a_partial_job(serve: Serve, tmp_path: Path) -> None:
    """On request, a partial run raises an error too. It names the first failure."""
    path = next(iter(DATA.files))
    fault = Fault("file", "status", status=404, path=path, times=None)
    report = run(settings_for(serve(DATA, faults=(fault,)), tmp_path / "lake"))
    assert ("partial", 3, COUNT - 1, 1) == (
        report.status,
        report.exit_code,
        report.files.loaded,
        report.files.failed,
    )
    (failure,) = report.failures
    assert isinstance(failure, FailedFile)
    assert (path, FailureKind.NOT_FOUND, 1) == (failure.path, failure.kind, failure.attempts)
    with pytest.raises(RunError, match=f"partial: 1 of {COUNT} files failed.*{path}"):
        report.raise_for_status()


def test_no_secret_leaks(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No event, report or error has one, although the server quotes the requests."""
    emulator = serve(DATA, auth="oauth1")
    secret = emulator.keys["consumer_secret"]
    body = json.dumps({"message": "x" * 290 + secret}).encode()
    quoted = ("status", {"status": 400, "times": None, "body": body})
    for endpoint in ("file", "listing"):
        emulator.options = type(emulator.options)(
            auth="oauth1",
            oldest=None,
            faults=(Fault(endpoint, quoted[0], **quoted[1]),),  # type: ignore[arg-type]
        )
        with capture_logs() as logs:
            report = run(settings_for(emulator, tmp_path / "lake"))
        assert report.status != "ok"
        assert secret[:9] not in repr(logs) + repr(report) + json.dumps(report.as_json())
    with pytest.raises(RunError) as failed:
        plan(settings_for(emulator, tmp_path / "lake"))
    assert secret[:9] not in str(failed.value)
    assert secret not in repr(settings_for(emulator, tmp_path)) + capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "arguments", "said"),
    [
        ({"account": None}, {}, "account: is missing"),
        ({"window": {"from": "2022-06-02", "to": "2022-06-01"}}, {}, "is not before"),
        ({}, {"shard": "2/2"}, "--shard 2/2"),
        ({}, {"paths": "one.txt"}, "this is one text"),
        ({}, {"paths": Path("missing.txt")}, "missing.txt cannot be read"),
    ],
)
def test_wrong_usage(
    serve: Serve, tmp_path: Path, more: dict[str, Any], arguments: dict[str, Any], said: str
) -> None:
    """It raises an error before any request."""
    emulator = serve(DATA)
    keys = settings_for(emulator, tmp_path).model_dump(by_alias=True, exclude_unset=True)
    settings = load_settings(environ={}, **{**keys, **more})
    for call in (run, plan):
        with pytest.raises(UsageError, match=said):
            call(settings, **arguments)
    assert [] == emulator.requests


def test_paths_instead_of_a_window(serve: Serve, tmp_path: Path) -> None:
    """Paths are strings or a file. Any other value is invalid. A plan of paths needs no server."""
    paths = [*list(DATA.files)[:3], '{"files": 1}', "a\nb"]
    file = tmp_path / "paths.txt"
    file.write_text("\n".join(paths[:3]))
    emulator = serve(DATA)
    settings = settings_for(emulator, tmp_path / "lake")
    for given, invalid in ((iter(paths), 2), (file, 0)):
        planned = plan(settings, paths=given)
        assert (None, 3, invalid) == (planned.window, planned.to_load, planned.invalid)
    assert [] == emulator.requests
    report = run(settings, paths=paths)
    assert (None, 3, 2, "partial") == (
        report.window,
        report.files.loaded,
        report.files.invalid,
        report.status,
    )
    assert paths[3:] == [entry.path for entry in report.invalid_paths]


def test_settings_as_the_command_reads_them(tmp_path: Path) -> None:
    """Keywords win over the environment, secret files and YAML; or only keywords count."""
    config = tmp_path / "job.yaml"
    config.write_text("account: '1'\nfetch: {concurrency: 2, rate: 3}\nlake: {uri: /yaml}\n")
    environ = {"AHT_ETL_FETCH__CONCURRENCY": "4", "AHT_ETL_LAKE__URI": "/environment"}
    settings = load_settings(config, environ, lake={"uri": "/keyword"})
    assert ("1", 4, 3.0, "/keyword") == (
        settings.account,
        settings.fetch.concurrency,
        settings.fetch.rate,
        settings.lake.uri,
    )
    assert load_settings(str(config), {}).lake.uri == "/yaml"
    with pytest.raises(UsageError, match=r"fetch\.concurency: unknown key, did you mean"):
        load_settings(environ={}, fetch={"concurency": 1})


def python(code: str, *, folder: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(**env),
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_names_of_the_package(tmp_path: Path) -> None:
    """`etl.plan` is always the function, whatever was imported before; the module exists too."""
    code = """
import sys, etl
assert not {"pyarrow", "aiohttp", "pydantic", "structlog", "rich"} & set(sys.modules)
from etl.pipeline.plan import Plan, make_plan
import etl.pipeline.plan
from etl import *
from etl import plan as again
assert callable(plan) and plan is again is etl.plan, plan
assert Plan.__module__ == "etl.pipeline.plan" and run.__module__ == "etl.pipeline.library"
assert set(etl.__all__) <= set(dir(etl)) and "plan" in dir(etl)
try:
    etl.nothing
except AttributeError as error:
    print(error)
"""
    assert "module 'etl' has no attribute 'nothing'\n" == python(code, folder=tmp_path)


@pytest.mark.parametrize("notebook", [False, True])
def test_ctrl_c(serve: Serve, tmp_path: Path, notebook: bool) -> None:
    """It ends a synchronous call with KeyboardInterrupt, also in a notebook's running loop."""
    emulator = serve(DATA, latency_s=0.3)
    settings = f"""etl.load_settings(
        account="le79344075", api={{"base_url": "{emulator.base_url}"}},
        window={{"from": "2022-06-01", "to": "2022-06-02"}}, fetch={{"concurrency": 2}})"""
    code = f"""
import asyncio, etl, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
async def cell():
    etl.run({settings})
try:
    {"asyncio.new_event_loop().run_until_complete(cell())" if notebook else f"etl.run({settings})"}
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    while emulator.count("file", 200) < 12:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert "interrupted" in out.splitlines()
    # The server counts an answer before the client has it, so two of the 12 may be in flight.
    assert 10 <= len(receipts(tmp_path / "lake")) < COUNT
    assert [] == list((tmp_path / "lake" / "_staging").iterdir())


def test_a_file_of_bad_rows_is_quarantined_from_python_too(serve: Serve, tmp_path: Path) -> None:
    """The report counts the quarantined rows."""
    path = "/year=2022/month=6/day=1/hour=1/accountId=a1/x.json.gz"
    content = gzip.compress(b'{"segmentId": "a"}\n{"segmentId": "b"}\n{"sequence": 1}\n')
    report = run(settings_for(serve(Dataset.of({path: content})), tmp_path / "lake"))
    assert (2, 1) == (report.rows.loaded, report.rows.quarantined)
    assert 1 == len(list((tmp_path / "lake" / "_quarantine").rglob("*.ndjson")))
