"""The emulator as a command: its flags, and the text that says how to use it."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, cast, get_args

from etl.emulator import Dataset, Emulator, EmulatorOptions, Fault
from etl.emulator.behaviour import Endpoint, Kind
from etl.model.errors import UsageError
from etl.model.times import parse_duration, parse_instant

_DEFAULT_AGE: Final = timedelta(days=2)


def dataset(
    account: str,
    start: str | None,
    end: str | None,
    seed: int,
    files_per_hour: float,
    rows_per_file: float,
    *,
    mixed_shapes: bool,
) -> Dataset:
    """Generate the data for these flags. Raises UsageError."""
    if not (account.isascii() and account.isalnum()):
        raise UsageError("--account: letters and digits only")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        first = parse_instant(start) if start else today - _DEFAULT_AGE
        last = parse_instant(end) if end else max(today, first) + timedelta(days=1)
    except ValueError as error:
        raise UsageError(f"--from, --to: {error}") from None
    if first >= last:
        raise UsageError("--from is not before --to")
    return Dataset.generate(
        seed,
        first,
        last,
        account=account,
        files_per_hour=files_per_hour,
        rows_per_file=rows_per_file,
        mixed_shapes=mixed_shapes,
    )


def options(
    account: str,
    auth: Literal["none", "oauth1", "oauth2"],
    latency: str,
    rate: float | None,
    at_once: int | None,
    faults: list[str],
) -> EmulatorOptions:
    """Return the behaviour for these flags. Raises UsageError."""
    try:
        latency_s = parse_duration(latency).total_seconds()
    except ValueError as error:
        raise UsageError(f"--latency: {error}") from None
    if rate is not None and rate <= 0:
        raise UsageError("--rate: must be more than 0")
    return EmulatorOptions(
        account=account,
        auth=auth,
        oldest=None,
        latency_s=latency_s,
        rate=rate,
        max_concurrent=at_once,
        faults=tuple(map(_fault, faults)),
    )


def _fault(text: str) -> Fault:
    endpoint, _, rest = text.partition(":")
    kind, _, times = rest.partition(":")
    status = int(kind) if kind.isascii() and kind.isdigit() and len(kind) == 3 else None
    endpoints, kinds = get_args(Endpoint), get_args(Kind)
    if (
        endpoint not in endpoints
        or (status is None and kind not in kinds)
        or not (times in {"", "always"} or (times.isascii() and times.isdigit()))
    ):
        raise UsageError(
            f"--fault {text}: write ENDPOINT:KIND[:TIMES]; ENDPOINT is one of "
            f"{', '.join(endpoints)}; KIND a status or one of {', '.join(kinds)}"
        )
    count = None if times == "always" else int(times or 1)
    if status is not None:
        return Fault(cast("Endpoint", endpoint), "status", times=count, status=status)
    return Fault(cast("Endpoint", endpoint), cast("Kind", kind), times=count)


async def serve(
    data: Dataset, behaviour: EmulatorOptions, port: int, account: str, command: str
) -> None:
    """Serve until the process ends; `command` is the name under which aht-etl was called.

    Raises OSError if the port is not free.
    """
    emulator = Emulator(data, behaviour)
    await emulator.start(port=port)
    try:
        keys = "".join(
            f"export AHT_ETL_AUTH__{name.upper()}={value}\n"
            for name, value in emulator.keys.items()
        )
        if behaviour.auth == "oauth2":
            keys += f"export AHT_ETL_API__DOMAIN_URL={emulator.base_url}\n"
        print(  # noqa: T201 - the command's result
            f"The emulator serves {len(data.files)} files of account {account} on "
            f"{emulator.base_url}; Ctrl-C ends it. In another terminal:\n\n"
            f"{keys}{command} run --account {account} --base-url {emulator.base_url} --lookback 3d "
            "--lake ./emulator-lake\n",
            flush=True,
        )
        await asyncio.Event().wait()
    finally:
        await emulator.stop()
