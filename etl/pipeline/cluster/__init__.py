"""Loading on the workers of a Dask cluster: `--engine dask` (configs/docs/dask.md).

The client (`run`) lists, plans and cuts the plan into shares of whole partitions (`shares`); as
many tasks as there are places hand them to workers (`worker`), which load them as a local run
would. Nothing is remembered but what the lake says, so a task may be repeated at any time.
"""
