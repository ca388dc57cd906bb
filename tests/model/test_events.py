"""The events that the program logs are the documented ones."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


@dataclass(frozen=True)
class Event:
    """A logging call, or a row of the table. With `more`, the call also has a mapping of fields."""

    name: str
    level: str
    fields: frozenset[str]
    more: bool = False


def logged() -> Iterator[Event]:
    """Yield every logging call in the package."""
    for file in sorted(ROOT.glob("etl/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "command":
                yield from (Event(name, "error", frozenset({"reason"})) for name in names(node, 0))
            elif isinstance(node, ast.Call) and called_name(node) in {"complain", "last_line"}:
                yield from (Event(name, "error", frozenset({"reason"})) for name in names(node, 1))
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "event":
                # The choice of a name for `complain`.
                for name in constants(node.value):
                    yield Event(name, "error", frozenset({"reason"}))
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            called, logger = node.func.attr, ast.unparse(node.func.value)
            if called in LEVELS and (logger in {"log", "text.log"} or "get_logger()" in logger):
                fields = {keyword.arg for keyword in node.keywords if keyword.arg} - {"exc_info"}
                more = any(keyword.arg is None for keyword in node.keywords)
                for name in names(node, 0):
                    yield Event(name, called, frozenset(fields), more)


def called_name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def names(call: ast.Call, position: int) -> list[str]:
    """Return the event's name, or both of a choice; nothing inside `complain` itself."""
    argument = call.args[position]
    found = constants(argument)
    assert found or ast.unparse(argument) == "event", ast.unparse(call)
    return found


def constants(value: ast.expr) -> list[str]:
    choice = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    return [str(node.value) for node in choice if isinstance(node, ast.Constant)]


def documented() -> dict[str, Event]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "configs" / "docs" / "logs.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    events: dict[str, Event] = {}
    for name, level, _, said in rows:
        fields = re.findall(r"`([a-z_]+)`(?! \()", said)
        if match := re.fullmatch(r"as `(.+)`", said):
            fields = list(events[match[1]].fields)
        events[name.strip("`")] = Event(name.strip("`"), level, frozenset(fields))
    assert len(rows) == len(events)
    return events


def test_every_event_is_in_the_table_as_it_is_logged() -> None:
    """With its level and its fields; the table has no other event."""
    table = documented()
    calls = list(logged())
    assert {event.name for event in calls} == set(table)
    for name, row in table.items():
        same = [event for event in calls if event.name == name]
        assert {row.level} == {event.level for event in same}, name
        fields = frozenset[str]().union(*(event.fields for event in same))
        if any(event.more for event in same):
            assert fields <= row.fields, name
        else:
            assert fields == row.fields, name


def test_names_are_a_noun_and_a_verb() -> None:
    """In lower case, with one dot between them."""
    assert [] == [
        event.name for event in logged() if not re.fullmatch("[a-z]+[.][a-z_]+", event.name)
    ]
