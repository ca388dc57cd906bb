"""Cutting a plan into shares for tasks, and limits into shares for those that run at once."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from etl.config.sections import FetchSettings
from etl.config.settings import Settings
from etl.pipeline.plan import PartitionPlan
from etl.storage.places import is_remote

# A share is this part of what is left for each place: the first are large, which costs little, the
# last are small, so that all places end at about the same time.
_OF_WHAT_IS_LEFT: Final = 4
# But no smaller than this part of a place's even share of the whole,
_LEAST: Final = 16
# and no larger than some seconds of work: it is what a stop, or a place that is late, waits for.
_MOST_FILES: Final = 2000
# Other processes end this long before the grace is over, to be heard.
_HEARD_S: Final = 1.0


def cut(partitions: Sequence[PartitionPlan], places: int) -> Iterator[list[str]]:
    """Yield the paths to load in shares of whole partitions, in the order of the plan."""
    left = sum(len(partition.to_load) for partition in partitions)
    least = -(-left // (_LEAST * places))
    share: list[str] = []
    for partition in partitions:
        share += (path.text for path in partition.to_load)
        wanted = max(least, -(-left // (_OF_WHAT_IS_LEFT * places)))
        if len(share) >= min(wanted, _MOST_FILES):
            left -= len(share)
            yield share
            share = []
    if share:
        yield share


def share_out(fetch: FetchSettings, places: int) -> list[FetchSettings]:
    """Return the limits of so many tasks at once, `fetch.concurrency` at most.

    Together they are the limits of the whole.
    """
    each, more = divmod(fetch.concurrency, places)
    rate = fetch.rate / places if fetch.rate else None
    return [
        fetch.model_copy(update={"concurrency": each + (place < more), "rate": rate})
        for place in range(places)
    ]


def portable(settings: Settings) -> Settings:
    """Return the settings for any process: of the plain class, with no path that depends on it."""
    plain = Settings.model_construct(
        **{name: getattr(settings, name) for name in Settings.model_fields}
    )
    grace = settings.shutdown.grace
    grace -= min(timedelta(seconds=_HEARD_S), grace / 4)
    changed = {
        "lake": settings.lake.model_copy(update={"uri": _anywhere(settings.lake.uri)}),
        "raw": settings.raw.model_copy(
            update={"uri": settings.raw.uri and _anywhere(settings.raw.uri)}
        ),
        "shutdown": settings.shutdown.model_copy(update={"grace": grace}),
    }
    return plain.model_copy(update=changed)


def _anywhere(uri: str) -> str:
    return uri if is_remote(uri) else str(Path(uri).absolute())
