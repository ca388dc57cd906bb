"""Whole files in a folder or a bucket, created only where there is none."""
