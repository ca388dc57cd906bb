"""Fixtures that run the installed command as users do: as a process."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from etl.config.settings import Redactor, Settings
from etl.emulator import Dataset, Emulator, EmulatorOptions, run_in_thread
from etl.model.errors import RunError
from etl.model.times import Window
from etl.pipeline import run as pipeline
from etl.pipeline.job import Job
from etl.pipeline.progress import logged
from etl.pipeline.stop import Stop

COMMAND = str(Path(sys.executable).with_name("aht-etl"))
#: The vendor's delays last seconds. Tests use short ones.
QUICK = {
    "AHT_ETL_RETRY__SERVER_DELAYS": "[0.01, 0.02, 0.03]",
    "AHT_ETL_RETRY__THROTTLE_DELAY": "0.05",
}


@dataclass
class Ended:
    """The outcome of a process."""

    code: int
    out: str
    err: str
    report: dict[str, Any]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment, with these settings and no others."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AHT_ETL_")}
    return {**clean, **QUICK, **more}


def keys_of(emulator: Emulator) -> dict[str, str]:
    """Return the variables with the keys that the emulator accepts."""
    keys = {f"AHT_ETL_AUTH__{name.upper()}": value for name, value in emulator.keys.items()}
    return {**keys, "AHT_ETL_API__DOMAIN_URL": emulator.base_url}


class Runner:
    """Starts `aht-etl run` against an emulator, by default for the demo's two days."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lake = folder / "lake"
        self._count = 0

    def arguments(self, emulator: Emulator, *more: str, report: str) -> list[str]:
        return [
            *(COMMAND, "run", "--account", "le79344075", "--base-url", emulator.base_url),
            *("--lake", str(self.lake), "--report", report),
            *(more or ("--from", "2022-06-01", "--to", "2022-06-03")),
        ]

    def start(self, emulator: Emulator, *more: str, **env: str) -> subprocess.Popen[str]:
        self._count += 1
        return subprocess.Popen(
            self.arguments(emulator, *more, report=f"{self.folder}/report-{self._count}.json"),
            env=environment(**{**keys_of(emulator), **env}),
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], stdin: str | None = None) -> Ended:
        out, err = process.communicate(stdin, timeout=60)
        assert isinstance(process.args, list)
        report = Path(str(process.args[process.args.index("--report") + 1]))
        content = json.loads(report.read_text()) if report.exists() else {}
        if content:
            into_lake = "--archive-only" not in process.args
            check_report(content, process.returncode, into_lake=into_lake)
        return Ended(process.returncode, out, err, content)

    def __call__(self, emulator: Emulator, *more: str, **env: str) -> Ended:
        return self.end(self.start(emulator, *more, **env))


def load(emulator: Emulator, lake: Path, /, **more: Any) -> dict[str, Any]:
    """Run the job inside this process, for the same two days; return its report.

    `more` are sections of the settings.
    """
    flags: Any = {"api": {"base_url": emulator.base_url}, "lake": {"uri": str(lake)}, **more}
    window = Window(datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC))
    job = Job(Settings(account="le79344075", **flags), window, datetime.now(UTC), Redactor())
    report = asyncio.run(pipeline.run(job, Stop(), logged)).as_json()
    if report["status"] == "failed":
        raise RunError(report["error"])
    check_report(report, report["exit_code"])
    return report


def check_report(report: dict[str, Any], code: int, *, into_lake: bool = True) -> None:
    """Check that the report counts every listed path once, however the run ended."""
    files = dict(report["files"])
    assert files.pop("listed") == sum(files.values())
    assert report["exit_code"] == code
    assert len(report["failures"]) == files["failed"]
    assert sum(part["rows"] for part in report["parts"]) == report["rows"]["loaded"]
    assert sum(part["sources"] for part in report["parts"]) == (files["loaded"] if into_lake else 0)
    assert sum(part["bytes"] for part in report["parts"]) == report["bytes"]["written"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="Kill hundreds of runs and decode a hundred times as many invented files.",
    )


def pytest_configure(config: pytest.Config) -> None:
    # No deadline: the time of an example depends on the load of the machine.
    settings.register_profile("short", deadline=None)
    settings.register_profile("long", max_examples=10_000, deadline=None)
    settings.load_profile("long" if config.getoption("--long") else "short")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    # A gzip header holds the time, so the bytes and their number differ between processes.
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """Reset the logging that a command configured in this process, before the next test."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """Return how many runs a test kills at random moments."""
    return 200 if request.config.getoption("--long") else 8


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


Serve = Callable[..., Emulator]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve datasets until the test ends. By default the emulator keeps files of any age."""
    running = []

    def start(dataset: Dataset, **options: Any) -> Emulator:
        context = run_in_thread(dataset, EmulatorOptions(**{"oldest": None, **options}))
        running.append(context)
        return context.__enter__()

    yield start
    for context in running:
        context.__exit__(None, None, None)
