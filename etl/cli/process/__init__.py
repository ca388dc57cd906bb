"""The process that a command runs in: signals, standard streams, logs."""
