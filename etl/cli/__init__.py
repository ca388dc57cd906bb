"""The command line: alone reads arguments and environment, sets up logs and signals.

One module a command. Heavy imports wait inside the commands until one needs them: `aht-etl
--version` is quick.
"""

import ctypes
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Annotated, Final

import typer

from etl.cli.check import check
from etl.cli.compact import compact
from etl.cli.config import config
from etl.cli.ddl import ddl
from etl.cli.demo import demo
from etl.cli.docs import docs
from etl.cli.emulator import emulator
from etl.cli.erase import erase
from etl.cli.plan import plan
from etl.cli.process import streams
from etl.cli.process.signals import SIGNALS, handled
from etl.cli.run import run
from etl.cli.status import status
from etl.cli.verify import verify
from etl.model.version import __version__

# Of the C library (`man mallopt`).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 8 * 2**20
#: After so many objects more Python looks for garbage: imports make many and hardly any garbage,
#: and to look as often as it does by itself took 80 of 570 ms before the first request.
GARBAGE_AFTER: Final = 100_000

app = typer.Typer(
    name="aht-etl",
    help=(
        "Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake: "
        "completely, exactly once, unattended.\n\n"
        "Example: aht-etl demo"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, plan, check, status, verify, ddl, compact, erase, demo, docs, emulator):
    app.command()(command)
app.add_typer(config, name="config")


def main() -> None:
    """Run the command line; the entry point of `aht-etl`."""
    # Before anything heavy is imported: from here on a signal ends with the promised exit code,
    # also as process 1 of a container, for which the kernel ignores unhandled ones. A run keeps
    # the first for the job that it prepares: there is to be a report.
    if sys.argv[1:2] in (["run"], ["compact"]):
        SIGNALS.defer()
    for number in handled():
        signal.signal(number, SIGNALS)
    streams.guard()
    _share_memory()
    # To look for pydantic's plugins is to read about every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(GARBAGE_AFTER)
    code: object = 0
    try:
        app()
    except SystemExit as ending:
        code = ending.code
        if isinstance(ending.__context__, typer.TyperException):  # a flag that there is not
            if "\n" in ending.__context__.format_message():  # the whole help: no command was given
                line = "wrong usage: a command is missing; for example aht-etl demo"
                streams.last_line(line, "usage.wrong")
        elif isinstance(code, int) and code > 128:  # a command that ends gently, not at once
            line = f"interrupted: {signal.Signals(code - 128).name}; run the command again"
            streams.last_line(line, "command.interrupted")
    except Exception as failure:  # noqa: BLE001 - the outermost boundary: one line says why
        _complain_about(failure)
        code = 1
    finally:
        streams.settle()
    if code is None or isinstance(code, int):
        # All is written and closed: to take the interpreter apart would take 0.2 s.
        os._exit(code or 0)
    sys.exit(code if isinstance(code, str) else 1)


def _complain_about(failure: Exception) -> None:
    """Say in one line why the command ends, also where memory is too short for a log."""
    from etl.pipeline.defects import explain_blindly

    line = f"error: {explain_blindly(failure)}"
    try:
        from etl.cli.process import log
        from etl.config.redact import Redactor

        log.configure("auto", "error", Redactor())
        log.complain(line, "command.failed", "auto")
    except (ImportError, MemoryError):
        sys.stderr.write(f"aht-etl: {line}\n")


def _share_memory() -> None:
    """Let what one thread has freed serve the next: all allocate from one arena.

    Against Arrow's own choice jemalloc takes a fifth less memory at the peak, and is no slower;
    with one arena it is a third less again, and a twentieth of the time, the more so as what is
    free may be kept for some seconds. The C library's is Python's own: an eighth less memory on
    many small files, and hardly more for ten times as many.
    """
    # Nothing here is for BLAS, which numpy would start a thread of for each further core.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "narenas:1,dirty_decay_ms:4000,muzzy_decay_ms:0")
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with suppress(OSError, AttributeError):  # a C library that cannot be told
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        # Else it gives back and fetches again all the time, a sixth slower: 8 MB may be kept.
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"aht-etl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass
