"""What every other package may use: errors, times, paths, columns, text for people."""
