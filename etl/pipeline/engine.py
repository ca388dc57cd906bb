"""The engine that carries out a plan: this process, or the workers of a Dask cluster."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec

from etl.api.client import Client
from etl.archive.reader import ArchiveReader
from etl.config.settings import Settings
from etl.model.errors import UsageError
from etl.pipeline.job import Job
from etl.pipeline.load import load
from etl.pipeline.plan import Plan
from etl.storage.store import Store

#: Does what a plan says, as `etl.pipeline.load.load` does; the outcomes are in the job's tally.
Engine = Callable[[Plan, Job, Client | ArchiveReader, Store], Awaitable[None]]


def require_engine(settings: Settings) -> None:
    """Raise UsageError where the engine that is asked for is not installed."""
    if settings.engine.kind == "dask" and find_spec("distributed") is None:
        raise UsageError(
            "engine.kind: Dask is not installed; install the extra: pip install '.[dask]' in a "
            "clone, else pip install 'aht-etl[dask]'"
        )


def engine_of(settings: Settings) -> Engine:
    """Return the engine. Only a run on Dask imports Dask's."""
    if settings.engine.kind == "dask":
        from etl.pipeline.cluster.run import load as load_on_a_cluster  # noqa: PLC0415

        return load_on_a_cluster
    return load
