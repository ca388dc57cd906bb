"""Everything that a run needs, tried once each with the run's own parts. `Checkup.run` is the list.

A check answers as fast as the server does: nothing is retried, and a wait that a server asks for
is not waited for. What needs a check that failed is not tried (`skipped`), which is not ok.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ByteSize
from yarl import URL

from etl.api.client import Client, connect
from etl.api.error_responses import describe_clock
from etl.api.listing import Listing, require_an_answer
from etl.api.network import Proxy, connect_once, proxy_for, proxy_variables, resolve
from etl.api.responses import ForeignResponseError
from etl.api.retry import UnauthorizedError
from etl.api.transport import Traffic, Transport
from etl.config.redact import Redactor
from etl.config.settings import Settings, open_archive, open_lake
from etl.config.values import ShownValue
from etl.decode import DecodeLimits
from etl.decode.file import decode
from etl.model.errors import AhtEtlError, FailureKind, FileError, RunError, describe
from etl.model.paths import BreakdownPath, InvalidPathError, is_skipped
from etl.model.times import Window, rfc3339
from etl.pipeline.job import require_engine
from etl.pipeline.load import Memory
from etl.storage.scratch import scratch_error, scratch_folder
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
# Where the last day holds nothing: the days back that are tried, one after another. The vendor
# keeps a month (of February).
_DAYS_BACK: Final = (0, 1, 2, 4, 7, 12, 20, 27)
# Kinds of failures that are of one file alone: a run reports it and loads the others.
_OF_ONE_FILE: Final = {
    FailureKind.NOT_FOUND,
    FailureKind.TRUNCATED,
    FailureKind.CORRUPT,
    FailureKind.MALFORMED,
    FailureKind.TOO_LARGE,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run needs: whether it is there, what was seen, how to mend it."""

    name: Name
    outcome: Outcome
    message: str

    def as_json(self) -> dict[str, Any]:
        """Return the documented form; `ok` is false for what was not tried."""
        return {
            "name": self.name,
            "ok": self.outcome == "ok",
            "outcome": self.outcome,
            "message": self.message,
        }


def configuration(values: Sequence[ShownValue]) -> Check:
    """Return the first check, which is passed by getting here, with every value and its origin."""
    shown = "; ".join(f"{value.key}: {value.text} ({value.origin})" for value in values)
    return Check("configuration", "ok", shown)


class Checkup:
    """Checks one configuration.

    `tell` hears of each check as it ends, `begin` of its name before. Of `window` the last day is
    listed, and others further back where that one is empty.
    """

    def __init__(
        self,
        settings: Settings,
        window: Window,
        redactor: Redactor,
        tell: Callable[[Check], None],
        begin: Callable[[Name], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._window = window
        self._redactor = redactor
        self._tell = tell
        self._begin = begin
        self._timeout_s = settings.fetch.timeout.total_seconds()
        self._not_ok: set[Name] = set()

    async def run(self) -> bool:
        """Try everything; return whether all is ok."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        retry = settings.retry.model_copy(update={"server_delays": (), "throttle_attempts": 0})
        once = settings.model_copy(update={"retry": retry})
        async with Transport(
            once, Traffic(), loop.time, asyncio.sleep, self._redactor
        ) as transport:
            client = await self._try("host", lambda: self._host(transport))
            await self._try("connection", lambda: self._connection(client), needs="host")
            await self._ask(client, transport)
        lake = open_lake(settings, patient=False)
        await self._try("lake", lambda: self._lake("lake.uri", lake))
        if (raw := open_archive(settings, patient=False)) is not None:
            await self._try("raw", lambda: self._lake("raw.uri", raw))
        await self._try("temporary", _temporary)
        if settings.engine.kind == "dask":
            await self._try("engine", lambda: _dask(settings))
        return not self._not_ok

    async def _try(
        self,
        name: Name,
        work: Callable[[], Awaitable[tuple[str, Any]]],
        needs: Name | None = None,
    ) -> Any:
        """Do one check, which returns what it saw and found, or raises; return what it found."""
        if needs in self._not_ok:
            self._end(name, "skipped", f"not tried: it needs {needs}, which is not ok")
            return None
        self._begin(name)
        try:
            seen, found = await work()
        except Exception as error:  # noqa: BLE001 - the boundary of a check: the others go on
            self._end(name, "failed", str(_named(error)))
        else:
            self._end(name, "ok", seen)
            return found
        return None

    def _end(self, name: Name, outcome: Outcome, message: str) -> None:
        if outcome != "ok":
            self._not_ok.add(name)
        self._tell(Check(name, outcome, self._redactor.text(" ".join(message.split()))))

    async def _host(self, transport: Transport) -> tuple[str, Client]:
        api = self._settings.api
        try:
            client = await connect(transport, self._settings)
        except RunError as error:
            cause = error.__cause__
            if isinstance(cause, FileError) and cause.kind is FailureKind.CONNECTION:
                # Why there is no connection is said better by the smaller steps to it.
                await self._resolve(api.domain_url)
                await self._greet(api.domain_url)
            raise
        found = [await self._resolve(origin) for origin in client.origins]
        by = "set by api.base_url" if api.base_url else f"looked up at {api.domain_url}"
        tokens = f"; tokens from {found[1]}" if found[1:] else ""
        return f"{found[0]}, {by}{tokens}{self._said_of_proxies(client)}", client

    async def _resolve(self, origin: str) -> str:
        return await resolve(origin, self._proxy(origin), self._timeout_s)

    async def _greet(self, origin: str) -> str:
        return await connect_once(origin, self._proxy(origin), self._timeout_s)

    def _proxy(self, origin: str) -> Proxy | None:
        return proxy_for(URL(origin)) if self._settings.api.use_proxy else None

    def _said_of_proxies(self, client: Client) -> str:
        """Return a word on variables that name a proxy, where none is used."""
        variables = proxy_variables()
        if not variables or any(self._proxy(origin) for origin in client.origins):
            return ""
        are = "is" if len(variables) == 1 else "are"
        why = "since api.use_proxy is false"
        if self._settings.api.use_proxy:
            why = "since NO_PROXY has these hosts, or the variable is not for them"
        return f"; {' and '.join(variables)} {are} set and not used, {why}"

    async def _connection(self, client: Client) -> tuple[str, None]:
        seen = [await self._greet(origin) for origin in dict.fromkeys(client.origins)]
        return "; ".join(seen), None

    async def _ask(self, client: Client, transport: Transport) -> None:
        """Check authentication, the listing and one file, of which each needs the one before.

        Whether a signature is accepted shows in the listing's answer only: one request for both.
        """
        listing: Listing | None = None
        failure: AhtEtlError | None = None
        if "connection" not in self._not_ok:
            self._begin("authentication")
            try:
                await client.authenticate()
                listing = await self._list(client, self._windows()[0])
            except Exception as error:  # noqa: BLE001 - as in _try
                failure = _named(error)
        cause = failure.__cause__ if failure is not None else None
        if failure is None or "connection" in self._not_ok or _is_about_keys(failure, cause):
            off_s = transport.clock_offset_s
            await self._try(
                "authentication", lambda: self._keys(listing, failure, off_s), needs="connection"
            )
        else:
            # The listing's failure is the one to mend, and not for want of this.
            why = "the listing got no answer that tells"
            if isinstance(cause, ForeignResponseError):
                why = "what answers is not the API"
            self._tell(Check("authentication", "skipped", f"not known: {why}"))
        entries = await self._try(
            "listing", lambda: self._listing(client, listing, failure), needs="authentication"
        )
        await self._try("file", lambda: self._file(client, entries), needs="listing")

    async def _list(self, client: Client, window: Window) -> Listing:
        listing = await client.list([window])
        require_an_answer(listing, [window])
        return listing

    async def _keys(
        self, listing: Listing | None, failure: AhtEtlError | None, clock_offset_s: float | None
    ) -> tuple[str, None]:
        if failure is not None:
            raise RunError(str(failure))
        assert listing is not None  # noqa: S101 - it failed or it is there
        if listing.empty_windows:
            status = "404, no files"
        else:
            status = "206, some files are missing" if listing.partial_windows else "200"
        clock = describe_clock(clock_offset_s)
        seen = f"(the listing answered {status})" + (
            f"; but {clock}: set it (NTP)" if clock else ""
        )
        scheme = self._settings.auth.scheme
        if scheme == "none":
            return f"no keys are set (auth.*), and the server asks for none {seen}", None
        name = "OAuth 1.0a" if scheme == "oauth1" else "OAuth 2.0"
        return f"{name}: the keys are accepted {seen}", None

    def _windows(self) -> list[Window]:
        """Return the last day of the window and further ones back, newest first."""
        longest = min(_DAY, self._settings.api.request_window)
        windows = []
        for back in _DAYS_BACK:
            left = self._window.end - self._window.start - back * _DAY
            if left > timedelta(0):
                end = self._window.end - back * _DAY
                windows.append(Window(end - min(longest, left), end))
        return windows

    async def _listing(
        self, client: Client, listing: Listing | None, failure: AhtEtlError | None
    ) -> tuple[str, list[str]]:
        if failure is not None:
            raise failure
        assert listing is not None  # noqa: S101 - it failed or it is there
        last, *further = self._windows()
        seen = f"{len(listing.entries):,} files from {_span(last)}"
        if listing.partial_windows:
            seen += " (the vendor says that some are missing there)"
        tried = last
        for window in further:
            if listing.entries:
                break
            tried = window
            listing = await self._list(client, window)
            if listing.entries:
                seen += f"; {len(listing.entries):,} files from {_span(window)}"
        if not listing.entries:
            seen += (
                f", nor on any day tried back to {rfc3339(tried.start)}; if there should be some, "
                "check account, the window, and that the vendor has switched the API on"
            )
        return seen, list(listing.entries)

    async def _file(self, client: Client, entries: list[str]) -> tuple[str, None]:
        if not entries:
            return "none to try: nothing is listed", None
        paths = []
        for entry in entries:
            try:
                path = BreakdownPath.parse(entry)
            except InvalidPathError as error:
                reason = error
            else:
                if not is_skipped(self._settings.fetch.skip, entry):
                    paths.append(path)
        if not paths:
            if all(is_skipped(self._settings.fetch.skip, entry) for entry in entries):
                return "none to try: fetch.skip has all that is listed", None
            raise RunError(f"no listed path can be used: {entries[0][:200]} {reason}")
        newest = max(paths, key=lambda path: path.partition)
        try:
            return await self._fetch(client, newest), None
        except FileError as error:
            alone = (
                "; a run reports such a file and loads the others"
                if error.kind in _OF_ONE_FILE
                else ""
            )
            raise RunError(f"{newest.text}: {error.kind.value}: {error.message}{alone}") from error

    async def _fetch(self, client: Client, path: BreakdownPath) -> str:
        limits = self._settings.limits
        memory = Memory.share_out(limits.memory, 1)
        wanted = DecodeLimits(limits.max_file_size, limits.max_bad_row_ratio, memory.decode)
        async for attempt in client.attempts(path):
            with (
                attempt,
                await client.download(path, memory.download, limits.max_file_size) as body,
            ):
                try:
                    decoded = await asyncio.to_thread(
                        decode,
                        body.stream,
                        path.text,
                        wanted,
                        scratch=Path(scratch_folder()),
                        declared_gzip=body.declared_gzip,
                    )
                except OSError as error:
                    raise scratch_error(error) from error
                with decoded:
                    bad = f", {decoded.quarantined:,} bad rows" if decoded.quarantined else ""
                    size = _size(decoded.bytes)
                    return f"{path.text}: {size}, {decoded.rows:,} rows{bad}"
        raise AssertionError  # attempts end with an answer or an error

    async def _lake(self, key: str, store: Store) -> tuple[str, None]:
        try:
            return f"{store.place}: {await asyncio.to_thread(store.try_out)}", None
        except AhtEtlError as error:
            raise RunError(f"{error}; check {key}, {store.advice}") from error


def _named(error: Exception) -> AhtEtlError:
    """Return an error of ours as it is, any other as one that says what it was."""
    if isinstance(error, AhtEtlError):
        return error
    return RunError(describe(error))


def _is_about_keys(failure: AhtEtlError, cause: BaseException | None) -> bool:
    return isinstance(cause, UnauthorizedError) or str(failure).startswith("authentication:")


async def _temporary() -> tuple[str, None]:
    folder = scratch_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"aht-etl check")
            file.flush()
    except OSError as error:
        raise RunError(scratch_error(error).message) from error
    free = _size(shutil.disk_usage(folder).free)
    return f"{folder} takes what does not fit into limits.memory, {free} free", None


async def _dask(settings: Settings) -> tuple[str, None]:
    require_engine(settings)
    if settings.engine.scheduler is None:
        return "Dask is installed; a run starts worker processes on this machine", None
    from etl.pipeline.cluster.connection import connected  # noqa: PLC0415 - an extra

    async with connected(settings.engine, 1) as dask:
        workers = len(await dask.nthreads())  # type: ignore[no-untyped-call]
    seen = f"Dask at {settings.engine.scheduler}: {workers:,} workers, with this version"
    return seen + ("" if workers else "; a run waits for the first"), None


def _size(count: int) -> str:
    return ByteSize(count).human_readable(decimal=True, separator=" ")


def _span(window: Window) -> str:
    return f"{rfc3339(window.start)} to {rfc3339(window.end)}"
