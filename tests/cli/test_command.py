"""What the decorator gives each command: shared flags, and one line about an error."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner

from etl.cli.command import Call, command
from etl.cli.flags import ACCOUNT, LAKE, WINDOW
from etl.model.errors import RunError, UsageError
from tests.conftest import environment


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def made(work: Callable[[Call], None]) -> typer.Typer:
    """Return a program with one command that does this work."""

    @command("plan.failed", ACCOUNT, *WINDOW, LAKE, default_log_level="warning")
    def tried(call: Call) -> None:
        work(call)

    app = typer.Typer()
    app.command()(tried)
    return app


@pytest.mark.parametrize(
    ("failure", "code", "event", "said"),
    [
        (UsageError("--x: no"), 2, "usage.wrong", "wrong usage: --x: no"),
        (RunError("no lake"), 1, "plan.failed", "error: no lake"),
        (KeyError("y"), 1, "plan.failed", "this is a defect of aht-etl"),
    ],
)
def test_an_error_is_one_line(failure: Exception, code: int, event: str, said: str) -> None:
    """With the exit code and the event of its kind."""

    def fail(call: Call) -> None:
        call.read()
        raise failure

    done = CliRunner().invoke(made(fail), ["--log-format", "json"])
    (line,) = done.stderr.splitlines()
    assert (code, "") == (done.exit_code, done.stdout)
    assert f'"event": "{event}"' in line
    assert said in line


def test_secrets_are_hidden_in_what_a_command_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its output and in its error, once the configuration is read."""
    for key in ("ID", "SECRET"):
        monkeypatch.setenv(f"AHT_ETL_AUTH__CLIENT_{key}", "hush-hush")

    def fail(call: Call) -> None:
        call.read()
        call.print_json({"answer": ["hush-hush"]})
        raise RunError("refused: hush-hush")

    done = CliRunner().invoke(made(fail), [])
    assert (1, False) == (done.exit_code, "hush-hush" in done.output)
    assert 2 == done.output.count("***")


def test_an_unexpected_error_before_the_secrets_are_known_is_not_quoted(tmp_path: Path) -> None:
    """Its text may hold one."""
    code = (
        "import etl.cli.command as command\n"
        "def load(*_): raise KeyError('hush-hush')\n"
        "command.load = load\n"
        "from etl.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "status", "--log-level", "debug"],
        env=environment(TMPDIR=str(tmp_path)),
        check=False,
        capture_output=True,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert (1, "") == (done.returncode, done.stdout)
    assert "unexpected KeyError: this is a defect of aht-etl" in line
    assert "hush-hush" not in line + next(tmp_path.iterdir()).read_text()


def test_flags_reach_the_configuration_with_their_names() -> None:
    """A flag wins, and one that is not given leaves the key to the other sources."""

    def show(call: Call) -> None:
        settings, origins = call.read()
        call.print_json([settings.account, settings.lake.uri, origins["account"]])

    done = CliRunner().invoke(
        made(show), ["--account", "a1"], env={"AHT_ETL_LAKE__URI": "elsewhere"}
    )
    assert '["a1","elsewhere","--account"]' == "".join(done.stdout.split())
