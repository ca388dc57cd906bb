"""Checks everything that a run needs, each thing once, with the code of a run.

Nothing is retried, and a wait that a server asks for is skipped. If a check needs another one that
failed, it is skipped, which is not ok.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Literal

from yarl import URL

from etl.api.auth import AuthenticationError
from etl.api.client import Client, connect
from etl.api.errors import UnauthorizedError
from etl.api.listing import Listing, require_an_answer
from etl.api.network import Proxy, proxy_for, proxy_variables, resolve
from etl.api.responses import ForeignResponseError
from etl.api.transport import Traffic, Transport
from etl.config.keys import ShownValue
from etl.config.settings import Redactor, Settings, open_archive, open_lake
from etl.lake.layout import PartitionState
from etl.model.errors import AhtEtlError, FailureKind, FileError, RunError, describe
from etl.model.paths import BreakdownPath
from etl.model.text import size
from etl.model.times import Window, rfc3339
from etl.pipeline.job import Shard, require_engine
from etl.pipeline.load import Decoder, Memory
from etl.pipeline.plan import make_plan
from etl.storage.disk import scratch_error, scratch_folder
from etl.storage.store import Store

Outcome = Literal["ok", "failed", "skipped"]
Name = Literal[
    "configuration",
    "host",
    "connection",
    "authentication",
    "listing",
    "file",
    "lake",
    "raw",
    "temporary",
    "engine",
]

_DAY: Final = timedelta(days=1)
# If the last day has no files, these days before it are listed, one after another. The vendor
# keeps a month (of February).
_DAYS_BACK: Final = (0, 1, 2, 4, 7, 12, 20, 27)
# Failures of one file: a run reports it and loads the others.
_OF_ONE_FILE: Final = {
    FailureKind.NOT_FOUND,
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
}


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check; the message says what was seen, or how to fix it."""

    name: Name
    outcome: Outcome
    message: str

    @property
    def ok(self) -> bool:
        """Whether it was tried, and nothing was wrong."""
        return self.outcome == "ok"


def configuration(values: Sequence[ShownValue]) -> Check:
    """Return the first check: the configuration was read. It shows each value and its origin."""
    shown = "; ".join(f"{value.key}: {value.text} ({value.origin})" for value in values)
    return Check("configuration", "ok", shown)


class _UnknownError(Exception):
    """A check cannot tell; those that need it are tried."""


class Checkup:
    """The checks of one configuration.

    `on_start` receives the name of each check when it starts, `on_end` the check when it ends. The
    last day of `window` is listed; if it has no files, some days before it.
    """

    def __init__(
        self,
        settings: Settings,
        window: Window,
        redactor: Redactor,
        on_end: Callable[[Check], None],
        on_start: Callable[[Name], None],
    ) -> None:
        self._settings = settings
        self._window = window
        self._redactor = redactor
        self._on_end = on_end
        self._on_start = on_start
        self._blocking: set[Name] = set()  # a check that needs one of these is skipped

    # What a check finds for those after it.
    _client: Client
    _listed: Listing | Exception
    _entries: list[str]

    async def run(self) -> None:
        """Run all checks."""
        settings = self._settings
        retry = settings.retry.model_copy(update={"server_delays": (), "throttle_attempts": 0})
        once = settings.model_copy(update={"retry": retry})
        clock = asyncio.get_running_loop().time
        async with Transport(once, Traffic(), clock, asyncio.sleep, self._redactor) as transport:
            await self._try("host", partial(self._host, transport))
            await self._try("connection", self._connection, needs="host")
            await self._try("authentication", self._authentication, needs="connection")
            await self._try("listing", self._listing, needs="authentication")
            await self._try("file", self._file, needs="listing")
        await self._try("lake", partial(_store, "lake.uri", open_lake(settings, patient=False)))
        if (raw := open_archive(settings, patient=False)) is not None:
            await self._try("raw", partial(_store, "raw.uri", raw))
        await self._try("temporary", _temporary)
        if settings.engine.kind == "dask":
            await self._try("engine", partial(_dask, settings))

    async def _try(
        self, name: Name, work: Callable[[], Awaitable[str]], needs: Name | None = None
    ) -> None:
        """Run one check, which returns what it saw, and report it."""
        outcome: Outcome = "ok"
        if needs in self._blocking:
            self._blocking.add(name)
            outcome, message = "skipped", f"not tried: it needs {needs}, which is not ok"
        else:
            self._on_start(name)
            try:
                message = await work()
            except _UnknownError as unknown:
                outcome, message = "skipped", str(unknown)
            except Exception as error:  # noqa: BLE001 - the boundary of a check: the others continue
                self._blocking.add(name)
                outcome, message = "failed", describe(error)
        self._on_end(Check(name, outcome, self._redactor.text(" ".join(message.split()))))

    async def _host(self, transport: Transport) -> str:
        api = self._settings.api
        client = self._client = await connect(transport, self._settings)
        found = [
            await resolve(origin, self._proxy(origin), self._settings.fetch.timeout.total_seconds())
            for origin in client.origins
        ]
        by = "set by api.base_url" if api.base_url else f"looked up at {api.domain_url}"
        tokens = f"; tokens from {found[1]}" if found[1:] else ""
        return f"{found[0]}, {by}{tokens}{self._unused_proxies()}"

    def _proxy(self, origin: str) -> Proxy | None:
        return proxy_for(URL(origin)) if self._settings.api.use_proxy else None

    def _unused_proxies(self) -> str:
        """Return a note on variables that name a proxy, if requests use none."""
        variables = proxy_variables()
        if not variables or any(self._proxy(origin) for origin in self._client.origins):
            return ""
        are = "is" if len(variables) == 1 else "are"
        why = "since api.use_proxy is false"
        if self._settings.api.use_proxy:
            why = "since NO_PROXY has these hosts, or the variable is not for them"
        return f"; {' and '.join(variables)} {are} set and not used, {why}"

    async def _connection(self) -> str:
        origins = dict.fromkeys(self._client.origins)
        connect_once = self._client.transport.connect_once
        return "; ".join([await connect_once(each) for each in origins])

    async def _authentication(self) -> str:
        """List the last day: only a listing shows whether the server accepts a signature."""
        try:
            await self._client.authenticate()
            listing = self._listed = await self._list(self._days()[0])
        except Exception as error:
            if isinstance(error, AuthenticationError) or isinstance(
                error.__cause__, UnauthorizedError
            ):
                raise
            why = "the response to the listing does not show it"
            if isinstance(error.__cause__, ForeignResponseError):
                why = "what answers is not the API"
            self._listed = error
            raise _UnknownError(f"not known: {why}") from error
        if listing.empty_windows:
            status = "404, no files"
        else:
            status = "206, some files are missing" if listing.partial_windows else "200"
        seen = f"(the listing answered {status})"
        if clock := self._client.transport.wrong_clock:
            seen += f"; but {clock}: set it (NTP)"
        scheme = self._settings.auth.scheme
        if scheme == "none":
            return f"no keys are set (auth.*), and the server asks for none {seen}"
        name = "OAuth 1.0a" if scheme == "oauth1" else "OAuth 2.0"
        return f"{name}: the keys are accepted {seen}"

    def _days(self) -> list[Window]:
        """Return the last day of the window and some days before it, newest first."""
        longest = min(_DAY, self._settings.api.request_window)
        days = []
        for back in _DAYS_BACK:
            end = self._window.end - back * _DAY
            if end > self._window.start:
                days.append(Window(max(end - longest, self._window.start), end))
        return days

    async def _listing(self) -> str:
        listed = self._listed
        if isinstance(listed, Exception):
            raise listed
        day, *before = self._days()
        seen = f"{len(listed.entries):,} files from {day}"
        if listed.partial_windows:
            seen += " (the vendor says that some are missing there)"
        for day in before:
            if listed.entries:
                break
            listed = await self._list(day)
            if listed.entries:
                seen += f"; {len(listed.entries):,} files from {day}"
        if not listed.entries:
            seen += (
                f", nor on any day tried back to {rfc3339(day.start)}; if there should be some, "
                "check account, the window, and that the vendor has switched the API on"
            )
        self._entries = list(listed.entries)
        return seen

    async def _list(self, day: Window) -> Listing:
        listing = Listing()
        await self._client.list([day], listing)
        require_an_answer(listing, [day])
        return listing

    async def _file(self) -> str:
        if not self._entries:
            return "none to try: nothing is listed"
        skip = self._settings.fetch.skip
        plan = await make_plan(self._entries, skip, Shard(), _as_if_empty)
        if not plan.partitions and plan.invalid:
            first = plan.invalid[0]
            raise RunError(f"no listed path can be used: {first.path[:200]} {first.message}")
        if not plan.partitions:
            return "none to try: fetch.skip has all that is listed"
        newest = plan.partitions[-1].to_load[0]
        try:
            return await self._download(newest)
        except FileError as error:
            alone = "; a run reports such a file and loads the others"
            raise RunError(
                f"{newest.text}: {error.kind.value}: {error.message}"
                f"{alone if error.kind in _OF_ONE_FILE else ''}"
            ) from error

    async def _download(self, path: BreakdownPath) -> str:
        limits = self._settings.limits
        memory = Memory.share_out(limits.memory, 1)
        with (
            # There is no retry here, and a kept connection may be closed.
            await self._client.download(
                path, memory.download, limits.max_file_size, new_connection=True
            ) as body,
            await Decoder(limits, memory).decode(path.text, body) as decoded,
        ):
            bad = f", {decoded.quarantined:,} bad rows" if decoded.quarantined else ""
            return f"{path.text}: {size(decoded.bytes)}, {decoded.rows:,} rows{bad}"


def _as_if_empty(directories: Sequence[str]) -> list[PartitionState]:
    return [PartitionState() for _ in directories]


async def _store(key: str, store: Store) -> str:
    try:
        return f"{store.place}: {await asyncio.to_thread(store.try_out)}"
    except AhtEtlError as error:
        raise RunError(f"{error}; check {key}, {store.advice}") from error


async def _temporary() -> str:
    folder = scratch_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"aht-etl check")
            file.flush()
    except OSError as error:
        raise RunError(scratch_error(error).message) from error
    free = size(shutil.disk_usage(folder).free)
    return f"{folder} takes what does not fit into limits.memory, {free} free"


async def _dask(settings: Settings) -> str:
    require_engine(settings)
    from etl.pipeline.cluster.run import connected  # noqa: PLC0415 - an extra

    async with connected(settings.engine) as dask:
        workers = len(await dask.nthreads())  # type: ignore[no-untyped-call]
    seen = f"Dask at {settings.engine.scheduler}: {workers:,} workers, with this version"
    return seen + ("" if workers else "; a run waits for the first")
