"""Dask itself: a scheduler that is there, or workers of our own; what it says kept in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from etl.config.sections import EngineSettings
from etl.model.errors import RunError, describe
from etl.model.machine import cores
from etl.model.version import __version__
from etl.storage.scratch import scratch_folder

if TYPE_CHECKING:
    from distributed import Client

# A worker process that was asked to end and does not is killed after so long.
_TO_END_S: Final = 0.2


@asynccontextmanager
async def connected(engine: EngineSettings, most_workers: int) -> AsyncIterator["Client"]:
    """Connect to the scheduler, or start workers of our own, which end with the block.

    They end with this process, too, whatever its end. Raises RunError.
    """
    dask = _imported()
    if engine.scheduler is not None:
        client = dask.Client(
            engine.scheduler, asynchronous=True, set_as_default=False, name="aht-etl"
        )
        try:
            await _started(client, f"the Dask scheduler at {engine.scheduler}", "engine.scheduler")
            await _check_versions(client)
            yield client
        finally:
            await _to_its_end(client.close())
        return
    from dask import config  # noqa: PLC0415 - an extra

    workers = min(engine.workers or cores(), most_workers)
    cluster = dask.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        asynchronous=True,
        # Nobody else on this machine can join in, or read what is said.
        security=dask.Security.temporary(),
        dashboard_address=None,
        # The scheduler listens for http all the same, at a port that other runs want, too.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        # `limits.memory` bounds it; what bounds a container ends the whole of it.
        memory_limit=None,
        local_directory=scratch_folder(),
        silence_logs=logging.CRITICAL,  # until the preload takes over
        preload=["etl.pipeline.cluster.preload"],
    )
    try:
        advice = "a script that calls run needs `if __name__ == '__main__':` around it"
        # What has begun to start is closed when it has started, and not in between.
        with config.set({"distributed.scheduler.http.routes": []}):  # no page for anybody
            await _to_its_end(_started(cluster, "Dask's workers on this machine", advice))
        client = dask.Client(cluster, asynchronous=True, set_as_default=False, name="aht-etl")
        try:
            await client
            yield client
        finally:
            await _to_its_end(client.close())
    finally:
        await _to_its_end(_ended(cluster))


def _imported() -> Any:
    """Import Dask; it is not to print logs of its own, they go where those of libraries go."""
    import dask.config  # noqa: PLC0415 - an extra

    with dask.config.set(logging={"version": 1, "disable_existing_loggers": False}):
        import distributed  # noqa: PLC0415 - an extra
    return distributed


async def _started(what: Any, name: str, advice: str) -> None:
    try:
        await what
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{name}: no answer: {reason}; check {advice}") from error


async def _ended(cluster: Any) -> None:
    """End the workers and the scheduler: nobody waits for anything of theirs any more."""
    nanny_log = logging.getLogger("distributed.nanny")
    level = nanny_log.level
    nanny_log.setLevel(logging.CRITICAL)  # that they do not end by themselves is no news
    try:
        nannies = [nanny.close(timeout=_TO_END_S) for nanny in cluster.workers.values()]
        await asyncio.gather(*nannies, return_exceptions=True)
        await cluster.close()
    finally:
        nanny_log.setLevel(level)


async def _check_versions(client: "Client") -> None:
    """Raise RunError where the cluster has another version of this package, or none."""
    try:
        versions: Any = await client.get_versions(packages=["aht-etl"])  # type: ignore[misc]
    except Exception as error:
        raise RunError(f"the Dask cluster does not tell its versions: {describe(error)}") from error
    for name, said in {"the scheduler": versions["scheduler"], **versions["workers"]}.items():
        there = said["packages"].get("aht-etl") if said else None
        if there != __version__:
            raise RunError(
                f"{name} of the Dask cluster has {f'aht-etl {there}' if there else 'no aht-etl'}, "
                f"this is {__version__}: install the same version on scheduler and workers"
            )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for work that must be done, also when the waiting is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
