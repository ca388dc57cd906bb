"""Help, reference, completion and suggestions, for whatever commands there are."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner

import etl.cli
from etl.cli import app, load_command
from tests.conftest import COMMAND, environment
from tests.reference import reference

ROOT = Path(__file__).parent.parent.parent


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command and group with the words that lead to it."""
    yield (), get_command(app)
    for name in etl.cli.COMMANDS:
        command = load_command(name)
        yield (name,), command
        for below in getattr(command, "commands", {}):
            yield (name, below), command.commands[below]


COMMANDS = dict(commands())
each_command = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: "-".join(path) or "all")


def flags(path: tuple[str, ...]) -> list[Any]:
    """Return a command's flags, but for those that typer brings with it."""
    own = {"help", "install_completion", "show_completion"}
    context = Context(COMMANDS[path], info_name="aht-etl")
    return [flag for flag in COMMANDS[path].get_params(context) if flag.name not in own]


@each_command
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    """The example is a call that the command understands: of itself, or of one below it."""
    examples = re.findall(r"^Example: (.*(?:\n(?!\n).*)*)", COMMANDS[path].help, re.MULTILINE)
    assert examples, f"no line `Example: aht-etl {' '.join(path)} …` in the docstring"
    for example in examples:
        name, *words = shlex.split(example.partition(" > ")[0].partition(" | ")[0])
        assert ("aht-etl", list(path)) == (name, words[: len(path)])
        called: tuple[str, ...] = ()
        while words and (*called, words[0]) in COMMANDS:
            called = (*called, words.pop(0))
        COMMANDS[called].make_context("aht-etl", words)  # raises if a flag or a value is wrong


@each_command
def test_every_flag_has_help_with_an_example(path: tuple[str, ...]) -> None:
    """A flag with a value shows one: among its choices, as its default, or `for example`."""
    context = Context(COMMANDS[path], info_name="aht-etl")
    for flag in flags(path):
        assert flag.help, f"{flag.opts} has no help"
        _, shown = flag.get_help_record(context)
        itself = getattr(flag, "is_bool_flag", False) or flag.type_descriptor.is_choice
        assert itself or re.search(r"(?i)for example|\[default: ", shown), f"{flag.opts}: {shown}"


def test_the_table_of_commands_is_whole() -> None:
    """Each module that makes a command is in it, with the first sentence of the command's help."""
    made = {
        file.stem
        for file in Path(etl.cli.__file__).parent.glob("*.py")
        if re.search(r"^@command\(|^def docs\(|\.command\(\)$", file.read_text(), re.MULTILINE)
    }
    assert made == set(etl.cli.COMMANDS)
    for name, line in etl.cli.COMMANDS.items():
        said = " ".join(COMMANDS[name,].help.split())
        assert said.startswith(f"{line} ")
        assert 1 == len(re.findall(r"\.(?= |$)", line))


@each_command
def test_help_is_shown(path: tuple[str, ...]) -> None:
    """By both names of the flag, with every flag of the command, on a narrow terminal too."""
    for flag in ("--help", "-h"):
        done = subprocess.run(
            [COMMAND, *path, flag],
            env=environment(COLUMNS="60"),
            check=True,
            capture_output=True,
            text=True,
        )
        assert [] == [each.opts for each in flags(path) if each.opts[0] not in done.stdout]
        assert [] == [line for line in done.stdout.splitlines() if len(line) > 60]


def test_flags_say_what_they_are_without_in_each_command() -> None:
    """By default `status` and `verify` read all hours, and a run looks back 7 days."""
    shown = reference().split("\n## ")
    of = {part.partition("\n")[0].strip("`"): part for part in shown}
    for name in ("aht-etl status", "aht-etl verify"):
        assert "(default 7d)" not in of[name]
        assert re.search(r"--lookback DURATION` \| Only the last hours.*default: all", of[name])
    for name in ("aht-etl run", "aht-etl plan", "aht-etl check"):
        assert re.search(r"--lookback DURATION` \| .*\(default 7d\)", of[name])
        assert "| `--raw URI` |" in of[name]


def test_the_reference_is_the_programs_own() -> None:
    """`python -m tests.reference > configs/docs/reference.md` writes the same page."""
    there = (ROOT / "configs" / "docs" / "reference.md").read_text()
    assert reference() == there, "run: python -m tests.reference > configs/docs/reference.md"
    for columns in ("30", "300"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.reference"],
            env=environment(COLUMNS=columns, AHT_ETL_LAKE__URI="elsewhere", TERMINAL_WIDTH=columns),
            check=True,
            capture_output=True,
            text=True,
        )
        assert reference() == done.stdout


@each_command
def test_a_mistyped_flag_suggests_the_right_one(path: tuple[str, ...]) -> None:
    """A letter too many at the end of each flag."""
    for flag in flags(path):
        right = flag.opts[0]
        if not right.startswith("-"):
            continue  # an argument
        wrong = f"{right}x"
        result = CliRunner().invoke(app, [*path, wrong])
        assert 2 == result.exit_code
        assert f"No such option: {wrong}" in result.stderr
        assert right in result.stderr


@each_command
def test_a_mistyped_command_suggests_the_right_one(path: tuple[str, ...]) -> None:
    """A letter too many at the end of each command's name."""
    if path:
        wrong = [*path[:-1], f"{path[-1]}s"]
        result = CliRunner().invoke(app, wrong)
        assert 2 == result.exit_code
        assert re.search(rf"Did you mean .*'{path[-1]}'.*\?", result.stderr)


def completed(*words: str) -> list[str]:
    """Return what bash offers behind these words."""
    done = subprocess.run(
        [COMMAND],
        env=environment(
            _AHT_ETL_COMPLETE="complete_bash",
            COMP_WORDS=shlex.join(["aht-etl", *words]),
            COMP_CWORD=str(len(words)),
        ),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "" == done.stderr
    return done.stdout.split()


def test_completion() -> None:
    """Commands, commands below them, flags and choices."""
    assert ["run"] == completed("ru")
    assert ["show", "schema"] == completed("config", "s")
    assert {"--lookback", "--lake"} <= set(completed("run", "--l"))
    assert ["debug"] == completed("run", "--log-level", "de")


def test_completion_in_a_shell(tmp_path: Path) -> None:
    """The script that the program shows makes bash complete, and it can be installed."""
    shown = subprocess.run(
        ["bash", "-c", f"{COMMAND} --show-completion bash; true"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    script = f"""
        PATH={Path(COMMAND).parent}:$PATH
        {shown}
        COMP_WORDS=(aht-etl che); COMP_CWORD=1
        $(complete -p aht-etl | sed 's/.*-F \\([^ ]*\\).*/\\1/') aht-etl
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], env=environment(), check=True, capture_output=True, text=True
    )
    assert "check\n" == done.stdout
    subprocess.run(
        ["bash", "-c", f"{COMMAND} --install-completion; true"],
        env=environment(HOME=str(tmp_path)),
        check=True,
        capture_output=True,
    )
    assert shown.strip() == (tmp_path / ".bash_completions" / "aht-etl.sh").read_text()


def test_what_is_heavy_is_imported_late() -> None:
    """The version and the help are quick: none of the large libraries is needed for them."""
    code = "import sys, etl.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"pyarrow", "aiohttp", "asyncio", "pydantic", "rich", "yaml", "structlog"}
    assert set() == heavy & set(done.stdout.split())
