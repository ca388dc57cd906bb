"""Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake."""

__version__ = "0.1.0"
