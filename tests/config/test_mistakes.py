"""The message for each wrong key: its name, what is allowed, an example; no words of pydantic."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from etl.config.keys import KEYS, variable
from etl.config.settings import Settings
from etl.config.sources import load_settings
from etl.model.errors import UsageError

#: Wrong texts for keys that accept most texts.
WRONG_TEXTS = {
    "lake.uri": "ftp://host/lake",
    "raw.uri": "s3:/bucket",
    "compact.uri": "s3:/bucket",
    "lake.options": "region",
    "raw.options": "region",
}
#: Keys that accept any text.
ANY_TEXT = {key for key in KEYS if key.startswith("auth.")} - {"auth.signature_method"}
#: Words that come from pydantic or Python.
MACHINERY = re.compile(
    r"(?i)pydantic|input should|value error|\bvalid (dict|str|int)|instance of|\bpattern\b|"
    r"datetime\.|\w+Settings|<\w+ object|object at|NoneType|Annotated|_\w+Error"
)


def nested(key: str, value: Any) -> Any:
    """Return a document in which a dotted key has this value."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def said_of(flags: Any, config: Path | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(config, environ or {}, **flags)
    return str(caught.value)


def helps(key: str, said: str) -> None:
    """Require that the line names the key, says what is allowed and shows an example."""
    assert said.startswith(f"{key}"), said
    assert re.search(r"for example \S|write \S", said), said
    assert not MACHINERY.search(said), said
    assert "\n" not in said
    assert len(said) < 300


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_type_of_each_key_is_explained(key: str, tmp_path: Path) -> None:
    """From Python, from YAML and, as JSON, from the environment."""
    value: Any = [["hush"]]
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(nested(key, value)))
    for said in (said_of(nested(key, value)), said_of({}, file)):
        helps(key, said)
        assert "hush" not in said
    assert f"({file})" in said
    if key in {"fetch.skip", "retry.server_delays", "lake.options", "raw.options"}:
        said = said_of({}, None, {variable(key): "[[1]]"})
        helps(key, said)
        assert f"({variable(key)})" in said


@pytest.mark.parametrize("key", sorted({*KEYS} - ANY_TEXT))
def test_a_wrong_value_of_each_key_is_explained(key: str, tmp_path: Path) -> None:
    """From a flag, from a variable and from YAML."""
    value = WRONG_TEXTS.get(key, "no such value ☃")
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(nested(key, value)))
    for said in (
        said_of(nested(key, value)),
        said_of({}, file),
        said_of({}, None, {variable(key): value}),
    ):
        helps(key, said)
        assert ("☃" in said) == (key in {"window.from", "window.to"} or "duration" in said)


@pytest.mark.parametrize("key", KEYS)
def test_nothing_for_each_key_is_explained_or_means_unset(key: str, tmp_path: Path) -> None:
    """An empty text is wrong; an optional key without a value, or an empty variable, is unset."""
    helps(key, said_of(nested(key, "")))
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(nested(key, None)))
    if KEYS[key].get_default(call_default_factory=True) is None:
        load_settings(file, {})
    else:
        helps(key, said_of({}, file))
    assert load_settings(None, {variable(key): ""}).model_dump() == Settings().model_dump()


@pytest.mark.parametrize("section", sorted({key.partition(".")[0] for key in KEYS if "." in key}))
def test_a_value_in_a_sections_place_is_explained(section: str) -> None:
    """The message says which keys can be set."""
    said = said_of({section: "x"})
    assert said.startswith(f"{section}: is a section, not a value: set the keys in it, such as ")
    assert f"such as {section}." in said
    assert not MACHINERY.search(said)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"fetch": {"concurrency": "0"}}, "must be a whole number, 1 or more, for example 16"),
        ({"limits": {"max_bad_row_ratio": "2"}}, "must be a number from 0 to 1, for example 0.5"),
        ({"shutdown": {"grace": "-1s"}}, "write a number with s, m, h or d, for example 90s"),
        ({"window": {"lookback": "0s"}}, "s, m, h or d, more than 0s, for example 7d"),
        ({"retry": {"server_delays": ["a"]}}, "must be a number of seconds, 0 or more, for exa"),
        ({"lake": {"options": {"region": {}}}}, "lake.options.region: must be text"),
        ({"auth": {"client_id": ""}}, "auth.client_id: is empty and must be text"),
        ({"engine": {"kind": "spark"}}, "engine.kind: must be local or dask, for example local"),
    ],
)
def test_messages(document: Any, said: str) -> None:
    """They hold the limits, and as example the key's default if it has one."""
    assert said in said_of(document)
