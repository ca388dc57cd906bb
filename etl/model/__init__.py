"""What every other package may use: errors, times, paths, columns, text for people."""

__version__ = "0.1.0"
