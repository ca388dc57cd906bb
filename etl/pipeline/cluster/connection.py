"""The connection to a Dask scheduler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from etl.config.sections import EngineSettings
from etl.model import __version__
from etl.model.errors import RunError, describe

if TYPE_CHECKING:
    from distributed import Client


@asynccontextmanager
async def connected(engine: EngineSettings) -> AsyncIterator["Client"]:
    """Connect to the scheduler, whose workers must have this version. Raises RunError."""
    dask = _imported()
    client = dask.Client(engine.scheduler, asynchronous=True, set_as_default=False, name="aht-etl")
    try:
        try:
            await client
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunError(
                f"the Dask scheduler at {engine.scheduler}: no answer: {reason}; check "
                "engine.scheduler"
            ) from error
        await _check_versions(client)
        yield client
    finally:
        await _close(client)


def _imported() -> Any:
    """Import Dask without its own handlers: its logs go where those of libraries go."""
    import dask.config  # noqa: PLC0415 - an extra

    with dask.config.set(logging={"version": 1, "disable_existing_loggers": False}):
        import distributed  # noqa: PLC0415 - an extra
    return distributed


async def _check_versions(client: "Client") -> None:
    """Raise RunError where the cluster has another version of this package, or none."""
    try:
        versions: Any = await client.get_versions(packages=["aht-etl"])  # type: ignore[misc]
    except Exception as error:
        raise RunError(
            f"the Dask cluster does not report its versions: {describe(error)}"
        ) from error
    for name, found in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        version = found["packages"].get("aht-etl") if found else None
        if version != __version__:
            raise RunError(
                f"{name} of the Dask cluster has "
                f"{f'aht-etl {version}' if version else 'no aht-etl'}, this is {__version__}: "
                "install the same version on scheduler and workers"
            )


async def _close(client: Any) -> None:
    """Close the client to the end, also when the run is cancelled meanwhile."""
    task = asyncio.ensure_future(client.close())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
