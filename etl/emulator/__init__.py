"""A server that answers like the vendor's API, for the demo, tests, benchmarks and experiments."""

from etl.emulator.behaviour import EmulatorOptions, Fault
from etl.emulator.dataset import Dataset, EmulatedFile
from etl.emulator.server import Emulator, Request, run_in_thread

__all__ = [
    "Dataset",
    "EmulatedFile",
    "Emulator",
    "EmulatorOptions",
    "Fault",
    "Request",
    "run_in_thread",
]
