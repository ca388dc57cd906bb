"""The command line. Only here are arguments and the environment read, and signals and logs set up.

Each command is a module. The modules import heavy libraries inside the functions that need them, so
that `aht-etl --version` and the help are quick.
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
from etl.model import __version__

# Parameters of the C library's allocator (`man mallopt`).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 8 * 2**20
#: Python collects garbage after this many new objects. Imports create many objects and hardly any
#: garbage: with Python's default, collections took 80 of the 570 ms before the first request.
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
    # This comes before the heavy imports: from here on a signal ends the process with the promised
    # exit code, also as process 1 of a container, where the kernel ignores unhandled signals. `run`
    # and `compact` keep the first signal for the job, which then still writes its report.
    if sys.argv[1:2] in (["run"], ["compact"]):
        SIGNALS.defer()
    for number in handled():
        signal.signal(number, SIGNALS)
    streams.guard()
    _share_memory()
    # Without this, pydantic reads the metadata of every installed package to find plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(GARBAGE_AFTER)
    code = 0
    try:
        app()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
        if isinstance(ending.__context__, typer.TyperException):  # typer has printed what is wrong
            if "\n" in ending.__context__.format_message():  # the whole help: no command was given
                line = "wrong usage: a command is missing; for example aht-etl demo"
                streams.last_line(line, "usage.wrong")
        elif code > 128:
            line = f"interrupted: {signal.Signals(code - 128).name}; run the command again"
            streams.last_line(line, "command.interrupted")
    except Exception as failure:  # noqa: BLE001 - the outermost boundary: one line says why
        _complain_about(failure)
        code = 1
    finally:
        streams.settle()
    # Everything is written and closed. A normal exit would take 0.2 s to tear down the interpreter.
    os._exit(code)


def _complain_about(failure: Exception) -> None:
    """Write in one line why the command ends, even if memory does not suffice for the logs."""
    from etl.pipeline.defects import explain_blindly

    line = f"error: {explain_blindly(failure)}"
    try:
        from etl.cli.process import log
        from etl.model.text import Redactor

        log.configure("auto", "error", Redactor())
        log.complain(line, "command.failed", "auto")
    except (ImportError, MemoryError):
        sys.stderr.write(f"aht-etl: {line}\n")


def _share_memory() -> None:
    """Let all threads allocate from one arena, so that one reuses what another has freed.

    For Arrow, jemalloc needs a fifth less memory at the peak than the default allocator and is no
    slower. One arena saves another third of the memory and a twentieth of the time, partly because
    it keeps free memory for some seconds. Python uses the C library's allocator: there one arena
    saves an eighth of the memory on many small files.
    """
    # numpy would start a BLAS thread for each further core, and nothing here uses BLAS.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "narenas:1,dirty_decay_ms:4000,muzzy_decay_ms:0")
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    with suppress(OSError, AttributeError):  # not every C library has mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        # Otherwise the allocator returns memory and requests it again all the time, which costs a
        # sixth of the speed. With this it keeps 8 MB.
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
