"""Logs are JSON except on a terminal, and never show a secret."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from etl.cli import log
from etl.config.settings import Redactor


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


def test_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error if it is no terminal; nothing on standard output."""
    log.configure("auto", "info", Redactor())
    structlog.get_logger().debug("not.shown")
    structlog.get_logger().info("file.loaded", path="/a\nb", rows=3)
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    event = json.loads(line)
    assert ("file.loaded", "/a\nb", 3, "info") == (
        event["event"],
        event["path"],
        event["rows"],
        event["level"],
    )
    assert out == ""


def test_secrets_are_hidden_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    """In a value, in a tree of them, in a traceback, in another library's warning."""
    log.configure("json", "debug", Redactor(["very-secret"]))
    structlog.get_logger().info("a", value="very-secret", tree={"b": ["x very-secret"]})
    try:
        raise ValueError("very-secret")
    except ValueError:
        structlog.get_logger().exception("b")
    logging.getLogger("aiohttp").warning("sent %s", "very-secret")
    err = capsys.readouterr().err
    assert ("very-secret" in err, 4 <= err.count("***")) == (False, True)
    assert all(json.loads(line) for line in err.splitlines())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_are_for_debug(
    capsys: pytest.CaptureFixture[str], log_format: log.LogFormat
) -> None:
    """At every other level an error is one line, another library's too."""
    for level in ("info", "debug"):
        log.configure(log_format, level, Redactor())
        try:
            raise ValueError("a\nb")
        except ValueError:
            structlog.get_logger().exception("job.broke")
            logging.getLogger("asyncio").exception("task broke")
        err = capsys.readouterr().err
        assert 2 == err.count("ValueError: a" + (" b" if level == "info" else ""))
        assert (0 if level == "info" else 2) == err.count("Traceback")
        assert level == "debug" or 2 == len(err.splitlines())


def test_foreign_text_cannot_write_to_the_console(capsys: pytest.CaptureFixture[str]) -> None:
    """No escape, no line of its own, no reversed text."""
    log.configure("console", "info", Redactor())
    hostile = "a\x1b[2Jb\r\nc\x00d\u202ee"
    structlog.get_logger().warning("path.invalid", path=hostile, paths=[hostile])
    log.complain(f"error: {hostile}", "run.failed", "console")
    event, line = capsys.readouterr().err.splitlines()
    assert "path='a [2Jb c d e'" in event
    assert "aht-etl: error: a [2Jb c d e" == line
    assert (event + line).isprintable()


def test_a_console_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """Without colours if standard error is no terminal."""
    log.configure("console", "info", Redactor())
    structlog.get_logger().warning("file.failed", kind="timeout")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "file.failed" in err
    assert "kind=timeout" in err


def test_people_read_one_warning_of_each_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers in it do not matter. Other events are all shown, and at debug these too."""
    for level, count in ((None, 1), ("debug", 3)):
        log.configure("console", level, Redactor())  # type: ignore[arg-type]
        for number in range(3):
            reason = f"nothing arrived for {number} s"
            structlog.get_logger().warning(
                "file.failed", kind="timeout", reason=reason, run_id="r1"
            )
            structlog.get_logger().warning("window.empty", reason=reason)
        structlog.get_logger().warning("file.failed", kind="http", reason="nothing arrived for 1 s")
        err = capsys.readouterr().err
        assert (count, 1, 3) == (
            err.count("kind=timeout"),
            err.count("kind=http"),
            err.count("window.empty"),
        )
        assert "run_id" not in err


def test_machines_read_every_event(capsys: pytest.CaptureFixture[str]) -> None:
    """With the run's id, from `info` up."""
    log.configure("auto", None, Redactor())
    for _ in range(3):
        structlog.get_logger().warning("file.failed", kind="timeout", reason="a", run_id="r1")
    structlog.get_logger().info("part.committed", run_id="r1")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert ["r1"] * 4 == [event["run_id"] for event in events]
