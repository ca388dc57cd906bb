"""The configuration: its keys, its sources, its secrets, and where each value came from."""
