"""The engine that carries out a plan: this process, or the workers of a Dask cluster."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec

from etl.api.client import Client
from etl.errors import UsageError
from etl.job import Job
from etl.lake.store import Store
from etl.loader import load
from etl.plan import Plan
from etl.replay import Replay
from etl.settings import Settings

#: Does what a plan says, as `etl.loader.load` does; the outcomes are in the job's tally.
Engine = Callable[[Plan, Job, Client | Replay, Store], Awaitable[None]]


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
        from etl.cluster.run import load as load_on_a_cluster  # noqa: PLC0415

        return load_on_a_cluster
    return load
