"""A downloaded file → rows in Arrow columns, and its bad rows."""
