"""Loading on the workers of a Dask cluster: `--engine dask` (configs/docs/dask.md).

The client (`run`) lists, plans and cuts the plan into shares of whole partitions (`shares`). Tasks
hand them to workers (`worker`), which load them as a local run does. The lake's receipts are the
only state, so a task can be repeated at any time.
"""

import dask.config

# Dask configures logs when it is imported. Without handlers of its own, its logs go where those of
# other libraries go.
with dask.config.set(logging={"version": 1, "disable_existing_loggers": False}):
    import distributed  # noqa: F401
