"""What a worker process on this machine does first; Dask imports it by name (`preload`)."""

import logging
import signal
from typing import Any, Final

from etl.model.events import log_library_messages
from etl.pipeline.cluster import relay as forward
from etl.pipeline.cluster import worker as tasks

# To be imported before the first task, not by it.
__all__ = ["dask_setup", "tasks"]

# Those for which Dask sets handlers up.
_LOGGERS: Final = ("distributed", "distributed.client", "distributed.gc", "bokeh", "tornado")


def dask_setup(_worker: Any) -> None:
    """Leave the terminal's signals to the client, and logs to what it makes of them."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for name in (*_LOGGERS, "tornado.application"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    log_library_messages()
    forward.collect()
