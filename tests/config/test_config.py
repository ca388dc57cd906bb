"""`aht-etl config`: the values, their origins, and the schema for editors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from etl.cli import app
from etl.cli.flags import RUN
from etl.config.keys import KEYS, config_schema, shown_values, variable
from etl.config.settings import Settings
from etl.config.sources import load_settings
from etl.config.values import yaml_value
from etl.model.errors import UsageError
from tests.test_configurations import CONFIGS

VALIDATOR = jsonschema.Draft202012Validator(config_schema())


class _EditorLoader(yaml.SafeLoader):
    """Reads YAML as editors do (YAML 1.2): a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the base class's name for it
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for key in KEYS:
        monkeypatch.delenv(variable(key), raising=False)


def show(*arguments: str, **env: str) -> str:
    result = CliRunner().invoke(app, ["config", "show", *arguments], env=env)
    assert (0, "") == (result.exit_code, result.stderr)
    return result.stdout


def origins(*arguments: str, **env: str) -> dict[str, tuple[Any, str]]:
    found = json.loads(show("--json", *arguments, **env))
    return {each["key"]: (each["value"], each["origin"]) for each in found}


def test_each_source_is_named() -> None:
    """By the value's name in its strongest source; without secrets, and without an account."""
    Path("c.yaml").write_text("account: 0123\nfetch: {concurrency: 1, rate: 1, timeout: 90s}\n")
    Path("secrets").mkdir()
    Path("secrets", "auth__client_id").write_text("hush-hush")
    Path("secrets", "fetch__rate").write_text("2.5")
    env = {
        "AHT_ETL_SECRETS_DIR": "secrets",
        "AHT_ETL_AUTH": '{"client_secret": "hush-hush"}',
        "AHT_ETL_FETCH__CONCURRENCY": "3",
        "AHT_ETL_LAKE__OPTIONS__REGION": "hush-hush",
        "AHT_ETL_SHUTDOWN__GRACE": "",
    }
    shown = origins("--config", "c.yaml", "--concurrency", "4", "--lookback", "36h", **env)
    assert ("0123", "c.yaml") == shown["account"]
    assert (4, "--concurrency") == shown["fetch.concurrency"]
    assert (2.5, "secret file fetch__rate") == shown["fetch.rate"]
    assert ("90s", "c.yaml") == shown["fetch.timeout"]
    assert ("set", "secret file auth__client_id") == shown["auth.client_id"]
    assert ("set", "AHT_ETL_AUTH") == shown["auth.client_secret"]
    assert ("set", "AHT_ETL_LAKE__OPTIONS__REGION") == shown["lake.options.region"]
    assert ("36h", "--lookback") == shown["window.lookback"]
    assert (None, "--lookback") == shown["window.from"]
    assert ("20s", "default") == shown["shutdown.grace"]
    assert (None, "default") == shown["raw.uri"]
    assert "hush" not in show("--config", "c.yaml", **env)
    assert (None, "default") == origins()["account"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_what_is_shown_is_the_same_configuration(file: Path, tmp_path: Path) -> None:
    """Its YAML, loaded again with its comments, gives the same settings."""
    again = tmp_path / "again.yaml"
    again.write_text(show("--config", str(file)))
    assert load_settings(file, {}).model_dump() == load_settings(again, {}).model_dump()
    narrow = show("--config", str(file), COLUMNS="20")
    assert again.read_text() == narrow


#: Values of the flags that do not accept a day.
VALUES = {
    "account": "a1",
    "api.base_url": "https://a.example",
    "window.lookback": "2d",
    "lake.uri": "x",
    "fetch.concurrency": "3",
    "engine.kind": "dask",
    "engine.scheduler": "tls://dask:8786",
    "engine.workers": "3",
}


def test_every_key_is_shown_once() -> None:
    """With a comment; a flag that sets a key is named as its origin."""
    keys = list(KEYS)
    assert [*keys] == [*origins(), *()] == list(dict.fromkeys(keys))
    lines = [line for line in show().splitlines() if "#" in line]
    assert len(keys) == len(lines)
    assert {flag.key for flag in RUN} <= set(keys)
    for flag in RUN:
        found = origins(flag.name, VALUES.get(flag.key, "2022-06-01"))
        assert flag.name == found[flag.key][1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.5h", "90m"),
        ("0.5s", "0.5s"),
        ("0.000001s", "0.000001s"),
        ("60m", "1h"),
        ("60s", "60s"),
        ("36h", "36h"),
    ],
)
def test_durations_as_they_are_written(value: str, expected: str) -> None:
    """In the largest exact unit, which loads as the same value."""
    settings = load_settings(None, {}, fetch={"timeout": value})
    assert expected == yaml_value(settings.fetch.timeout)
    again = load_settings(None, {}, fetch={"timeout": expected})
    assert settings.fetch == again.fetch


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1GiB", "1GiB"), ("64MB", "64MB"), ("1536KiB", "1536KiB"), ("1001", 1001), ("1000", "1kB")],
)
def test_sizes_as_they_are_written(value: str, expected: str | int) -> None:
    """In the largest exact unit, which loads as the same value."""
    settings = load_settings(None, {}, limits={"memory": value})
    assert expected == yaml_value(settings.limits.memory)
    again = load_settings(None, {}, limits={"memory": str(expected)})
    assert settings.limits == again.limits


def test_a_wrong_configuration_is_not_shown() -> None:
    """Exit code 2, with the key and the origin of its value."""
    env = {"AHT_ETL_FETCH__CONCURRENCY": "0"}
    result = CliRunner().invoke(app, ["config", "show"], env=env)
    assert (2, "") == (result.exit_code, result.stdout)
    assert "fetch.concurrency: " in result.stderr
    assert "(AHT_ETL_FETCH__CONCURRENCY)" in result.stderr


def test_the_schema_is_valid_and_printed() -> None:
    """Draft 2020-12, as one JSON document on standard output."""
    result = CliRunner().invoke(app, ["config", "schema"])
    assert config_schema() == json.loads(result.stdout)
    assert "https://json-schema.org/draft/2020-12/schema" == config_schema()["$schema"]
    jsonschema.Draft202012Validator.check_schema(config_schema())


def properties(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key that holds a value, dotted, with its schema."""
    for name, field in schema["properties"].items():
        reference = next((each["$ref"] for each in field.get("anyOf", []) if "$ref" in each), None)
        if reference is None:
            yield prefix + name, field
        else:
            assert field["description"]
            inner = config_schema()["$defs"][reference.rpartition("/")[2]]
            yield from properties(inner, f"{prefix}{name}.")


def test_every_key_is_in_the_schema() -> None:
    """By its name in YAML, with a description, and with a default that is valid."""
    found = dict(properties(config_schema()))
    assert sorted(key for key in KEYS) == sorted(found)
    assert [] == [key for key, field in found.items() if not field.get("description")]
    for key, field in found.items():
        if "default" in field:
            document: Any = field["default"]
            for part in reversed(key.split(".")):
                document = {part: document}
            VALIDATOR.validate(document)
            settings = load_settings(environ={}, **_texts(document))
            assert settings.model_dump() == Settings().model_dump()


def _texts(value: Any) -> Any:
    """Return a document with its numbers as a YAML file holds them: as text."""
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_the_examples_fit_the_schema(file: Path) -> None:
    """The schema accepts what the program accepts."""
    VALIDATOR.validate(yaml.load(file.read_text(), _EditorLoader))


@pytest.mark.parametrize(
    "text",
    [
        "account: 12345678",
        "window: {from: 2022-06-01, to: 1654128000000}",
        "window: {from: 2022-06-01T00:00:00.5+02:00}",
        "limits: {memory: 64MB, max_file_size: 1073741824}",
        "limits: {memory: 1.5 GiB}",
        "limits: {memory: 64M}",
        "fetch: {rate: 0.5, skip: ['*.00066.json.gz']}",
        "auth: {client_id: 123, client_secret: abc}",
        "lake: {options: {region: eu, allow_http: true, retries: 3}}",
        "retry: {server_delays: []}",
        "fetch: {timeout: .5s}",
        "shutdown: {grace: 0s}",
        "api:",
    ],
)
def test_valid_yaml(text: str, tmp_path: Path) -> None:
    """The schema and the program accept it."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    VALIDATOR.validate(yaml.load(text, _EditorLoader))
    load_settings(file, {})


@pytest.mark.parametrize(
    "text",
    [
        "acount: a1",
        "account: le-1",
        "fetch: {concurency: 3}",
        "fetch: {concurrency: 0}",
        "fetch: {concurrency: many}",
        "fetch: {concurrency: }",
        "fetch: {timeout: 60}",
        "fetch: {timeout: 1w}",
        "fetch: {skip: '*'}",
        "window: {start: 2022-06-01}",
        "window: {from: yesterday}",
        "window: {from: 1654041600}",
        "window: {from: '20220601'}",
        "limits: {memory: lots}",
        "limits: {memory: 64X}",
        "limits: {max_bad_row_ratio: 1.5}",
        "lake: {compression: zip}",
        "retry: {server_delays: [-1]}",
        "retry: {throttle_attempts: 1.5}",
        "api: {base_url: ftp://a.example}",
        "api: {source: a-b}",
        "auth: key",
        "[1, 2]",
    ],
)
def test_invalid_yaml(text: str, tmp_path: Path) -> None:
    """The schema and the program refuse it."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert not VALIDATOR.is_valid(yaml.load(text, _EditorLoader))
    with pytest.raises(UsageError):
        load_settings(file, {})


def test_values_are_shown_as_people_write_them() -> None:
    """Sizes and durations with their units, an alias under its own key."""
    shown = {value.key: value.text for value in shown_values(Settings(), {})}
    assert ("512MiB", "1KiB", "60s", "unset") == (
        shown["limits.memory"],
        shown["fetch.least_rate"],
        shown["fetch.timeout"],
        shown["window.from"],
    )
