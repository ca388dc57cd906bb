"""Whole files in a folder or an object store, with a `create` that never overwrites."""
