"""The command line. Only here are arguments and the environment read, and signals and logs set up.

Each command is a module of its name, which is imported when the command is called. So
`aht-etl --version`, the help and the completion of commands load none of the large libraries.
"""

import ctypes
import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from etl.cli.process import SIGNALS, guard_streams, handled, last_line, leave, logs_json
from etl.model import __version__

#: The commands, each with the first sentence of its help. `etl.cli.run` has the function `run`.
COMMANDS: Final = {
    "run": "Load the files that are listed and not yet in the lake.",
    "plan": "Show what `run` would load, hour by hour, without fetching or writing anything.",
    "check": "Try everything that a run needs, and say how to fix what fails.",
    "status": "Show what the lake holds, hour by hour: files, rows, gaps, late arrivals.",
    "verify": (
        "Read the whole lake and prove that it is right: receipts, rows, bad rows, no file twice."
    ),
    "ddl": "Print the statement that makes the lake, or its coarse copy, a table.",
    "compact": "Keep a coarse copy of the lake: few files, for scans of weeks or months.",
    "erase": (
        "Take a segment, or all segments of a conversation, out of the raw archive and the lake."
    ),
    "demo": "Load two days from an emulator of the vendor's API; you need no account.",
    "docs": "Show the documents: one page, or the list of pages.",
    "emulator": "Serve an emulator of the vendor's API on loopback, to try things out.",
    "config": "Show the configuration, or describe it.",
}
# Parameters of the C library's allocator (`man mallopt`).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 8 * 2**20
#: Python collects garbage after this many new objects. Imports create many objects and hardly any
#: garbage: with Python's default, collections took 80 of the 570 ms before the first request.
GARBAGE_AFTER: Final = 100_000


class _Commands(TyperGroup):
    """The commands by name and help; one that is called or completed is imported."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for name, summary in COMMANDS.items():
            self.add_command(TyperCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load_command(name), rest


def load_command(name: str) -> Any:
    """Import a command, or a group of commands, and return it with its flags and its whole help."""
    with _quick_imports():
        made = getattr(importlib.import_module(f"etl.cli.{name}"), name)
    program = typer.Typer(rich_markup_mode=None)
    if isinstance(made, typer.Typer):
        program.add_typer(made, name=name)
    else:
        program.command(name)(made)
    return get_group(program).commands[name]


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Spare the imports inside the block what no command needs.

    structlog would import rich to draw tracebacks, and none is drawn here: a fourteenth of a run's
    start. aiohttp would read the machine's certificates twice: 45 of the 320 ms before the first
    request. Its default contexts then trust no server: requests use what
    `etl.api.network.trusted_certificates` returns.
    """
    if not {"rich", "structlog"} & sys.modules.keys():
        sys.modules["rich"] = None  # type: ignore[assignment]
        importlib.import_module("structlog")
        del sys.modules["rich"]
    given = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        if given is not None:
            os.environ["SSL_CERT_FILE"] = given


app = typer.Typer(
    name="aht-etl",
    cls=_Commands,
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


def main() -> None:
    """Run the command line; the entry point of `aht-etl`."""
    # This comes before the heavy imports: from here on a signal ends the process with the promised
    # exit code, also as process 1 of a container, where the kernel ignores unhandled signals. `run`
    # and `compact` keep the first signal for the job, which then still writes its report.
    if sys.argv[1:2] in (["run"], ["compact"]):
        SIGNALS.defer()
    for number in handled():
        signal.signal(number, SIGNALS)
    guard_streams()
    _share_memory()
    # Without this, pydantic reads the metadata of every installed package to find plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(GARBAGE_AFTER)
    try:
        ended = app(standalone_mode=False)
        code = ended if isinstance(ended, int) else 0  # what `typer.Exit` was raised with
    except typer.TyperException as wrong:
        _explain(wrong)
        code = wrong.exit_code
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except Exception as failure:  # noqa: BLE001 - the outermost boundary: one line says why
        from etl.model.errors import explain_blindly  # noqa: PLC0415 - a crash alone needs it

        last_line(f"error: {explain_blindly(failure)}", "command.failed")
        code = 1
    if code > 128:
        line = f"interrupted: {signal.Signals(code - 128).name}; run the command again"
        last_line(line, "command.interrupted")
    leave(code)  # everything is written and closed


def _explain(wrong: typer.TyperException) -> None:
    """Say in the last line what is wrong with the arguments, and what to do.

    On a terminal the help comes first if there are no arguments.
    """
    from etl.model.text import one_line  # noqa: PLC0415 - structlog slows `--version`

    given, command = _called(sys.argv[1:])
    if isinstance(command, TyperGroup) and given == sys.argv[1:]:
        if not logs_json():
            typer.echo(wrong.format_message(), err=True)
        last_line("wrong usage: a command is missing; for example aht-etl demo", "usage.wrong")
        return
    message = one_line(wrong.format_message()).rstrip(".")
    help_of = " ".join(("aht-etl", *given, "--help"))
    last_line(f"wrong usage: {message}; see {help_of}", "usage.wrong")


def _called(arguments: list[str]) -> tuple[list[str], Any]:
    """Return the command that arguments name: the first of them, and the command itself."""
    command: Any = get_group(app)
    if arguments and arguments[0] in COMMANDS:
        command = load_command(arguments[0])
        inner = getattr(command, "commands", {})
        if arguments[1:] and arguments[1] in inner:
            return arguments[:2], inner[arguments[1]]
        return arguments[:1], command
    return [], command


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
