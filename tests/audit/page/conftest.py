"""Lakes to make pages of, and the browser that reads them."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from etl.audit.page import write_page
from etl.audit.survey import survey
from etl.emulator import Dataset, EmulatorOptions, run_in_thread
from etl.lake.layout import Selection, write_bad_rows
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt
from etl.model.dataset import SCHEMA, SizedBatch
from etl.storage.local import LocalStore
from tests.conftest import load

NOW = datetime(2022, 6, 3, 18, tzinfo=UTC)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def directory(hour: datetime, account: str = "le79344075") -> str:
    at = f"year={hour.year:04d}/month={hour.month}/day={hour.day}/hour={hour.hour}"
    return f"{at}/accountId={account}"


def put(
    lake: Path,
    hour: datetime,
    rows: Sequence[dict[str, Any]] = (),
    *,
    name: str = "sequences.json.gz",
    account: str = "le79344075",
    run: str = "00000000-0000-0000-0000-000000000000",
    reasons: Sequence[str] = (),
) -> Path:
    """Put a part with one source file into a lake, as the job does, with its bad rows."""
    store = LocalStore(lake)
    store.prepare()
    folder = directory(hour, account)
    path = f"/{folder}/{name}"
    if reasons:
        bad = [
            {"sourcePath": path, "row": row, "reason": reason, "raw": "Jane Doe"}
            for row, reason in enumerate(reasons)
        ]
        lines = "".join(json.dumps(line) + "\n" for line in bad)
        write_bad_rows(store, path, BytesIO(lines.encode()))
    builder = PartBuilder(store.stage, "zstd", run)
    schema = pa.schema(field for field in SCHEMA if field.name != "sourcePath")
    table = pa.Table.from_pylist(list(rows), schema=schema)
    builder.add(
        Receipt(path, len(rows), len(reasons), 1, "0" * 64), map(SizedBatch.of, table.to_batches())
    )
    encoded = builder.finish()
    number = sum(entry.startswith("part-") for entry in store.names(folder))
    part = f"{folder}/part-{number:05d}.parquet"
    store.create(encoded.staged, part)
    encoded.staged.close()
    return lake / part


def row(millis: int | None = 1000, *, start: str = "consumerMessage", end: str = "close") -> Any:
    return {
        "segmentId": "account:le79344075:conversation:x",
        "startReason": start,
        "endReason": end,
        "handleTimeMillis": millis,
    }


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days from the emulator, loaded by the real job."""
    lake = tmp_path_factory.mktemp("loaded") / "lake"
    start, end = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 3, tzinfo=UTC)
    dataset = Dataset.generate(1, start, end, files_per_hour=2, rows_per_file=40)
    with run_in_thread(dataset, EmulatorOptions(oldest=None)) as emulator:
        report = load(emulator, lake)
    assert report["status"] == "ok"
    return lake


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the page of a lake."""

    def write(lake: Path, *, now: datetime = NOW, **more: Any) -> Path:
        file = tmp_path_factory.mktemp("page") / "page.html"
        store, selection = LocalStore(lake), more.pop("selection", Selection())
        write_page(store, survey(store, selection, now), file, now=now, **more)
        return file

    return write


class Browser:
    """Chromium, without a window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        driver.execute_cdp_cmd("Network.enable", {})

    def screen(self, *, width: int = 1280, dark: bool = False, scripts: bool = True) -> None:
        """Emulate a screen for the pages that are opened from now on."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})

    def open(self, page: Path, *, drawn: bool = True, **screen: Any) -> None:
        """Open a page and wait until its charts are drawn."""
        self.screen(**screen)
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self._log(log)  # empties it
        self.driver.get(page.as_uri())
        if drawn:
            self.until("return document.documentElement.dataset.drawn === 'true'")

    def until(self, condition: str) -> None:
        """Wait until a script returns true, for half a minute at most."""
        deadline = time.monotonic() + 30
        while not self.js(condition):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.complaints()}"
            time.sleep(0.05)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """Return what the console said since the page was opened."""
        return [entry["message"] for entry in self._log("browser")]

    def _log(self, name: str) -> list[dict[str, str]]:
        entries: list[dict[str, str]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the page was opened."""
        events = (json.loads(entry["message"]) for entry in self._log("performance"))
        return [
            event["message"]["params"]["request"]["url"]
            for event in events
            if event["message"]["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for each of the test processes, each with a profile and ports of its own."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        missing = "no chromium and chromedriver: apt-get install chromium chromium-driver"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    options = webdriver.ChromeOptions()
    for flag in (*_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.binary_location = str(found[0])
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(found[1])))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
