"""The job: the order of its stages, their outcomes, the engines, the Python API."""
