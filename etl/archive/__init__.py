"""The raw archive: files kept byte for byte, their names, reading them again."""
