"""The configuration: precedence of sources, unknown keys, and no secret in any message."""

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from etl.config.settings import Settings
from etl.config.sources import load, load_settings
from etl.model.errors import UsageError


def test_defaults_read_nothing() -> None:
    """Constructed directly, the settings are the documented defaults."""
    settings = Settings()
    assert settings.fetch.concurrency == 16
    assert list(settings.retry.server_delays) == [5, 10, 15]
    assert int(settings.limits.memory) == 512 * 2**20
    assert settings.auth.scheme == "none"


def test_precedence(tmp_path: Path) -> None:
    """Key by key: flags, then the environment, then secret files, then YAML."""
    config = tmp_path / "c.yaml"
    config.write_text("account: y\napi: {source: y}\nfetch: {concurrency: 1, rate: 1}\n")
    secrets = tmp_path / "secrets"
    (secrets / "..data").mkdir(parents=True)
    (secrets / "..data" / "account").write_text("s\n")
    (secrets / "account").symlink_to("..data/account")
    (secrets / "fetch__concurrency").write_text("2")
    (secrets / "api__source").write_text("s")
    environ = {
        "AHT_ETL_SECRETS_DIR": str(secrets),
        "AHT_ETL_FETCH__CONCURRENCY": "3",
        "AHT_ETL_API__SOURCE": "e",
    }
    settings = load_settings(config, environ, fetch={"concurrency": "4"})
    assert settings.fetch.concurrency == 4
    assert settings.api.source == "e"
    assert settings.account == "s"
    assert settings.fetch.rate == 1


def test_yaml_scalars_stay_text(tmp_path: Path) -> None:
    """An account id of digits keeps its zeros, a date is a time, options are strings."""
    config = tmp_path / "c.yaml"
    config.write_text(
        "account: 0123\nwindow: {from: 2022-06-01}\nlake: {options: {allow_http: true}}\nraw:\n"
    )
    settings = load_settings(config, {})
    assert settings.account == "0123"
    assert settings.window.start is not None
    assert settings.lake.options["allow_http"].get_secret_value() == "true"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1654041600", "seconds instead of milliseconds"),
        ("20220601", "a date without its hyphens"),
        ("2022-06-01T06:00", "the time zone are missing"),
        ("2022-06-01 06:00:00", "the time zone is missing"),
        ("2014-12-31", "from 2015 on"),
    ],
)
def test_a_mistyped_time_is_refused_in_every_source(value: str, said: str, tmp_path: Path) -> None:
    """A flag, a variable, a secret file, YAML without quotes, and a number from Python."""
    config = tmp_path / "c.yaml"
    config.write_text(f"window:\n  from: {value}\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "window__from").write_text(value)
    python: Any = int(value) if value.isdigit() else value
    for flags, file, environ in (
        ({"window": {"from": value}}, None, {}),
        ({"window": {"from": python}}, None, {}),
        ({}, config, {}),
        ({}, None, {"AHT_ETL_WINDOW__FROM": value}),
        ({}, None, {"AHT_ETL_SECRETS_DIR": str(tmp_path / "secrets")}),
    ):
        with pytest.raises(UsageError, match=r"^window\.from: ") as caught:
            load_settings(file, environ, **flags)
        assert said in str(caught.value)
        assert value in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime(2022, 6, 1), "no time zone"),
        (datetime(1970, 1, 20, tzinfo=UTC), "from 2015 on"),
        (1654041600.5, "not a time"),
        (True, "not a time"),
    ],
)
def test_a_wrong_time_from_python_is_refused(value: object, said: str) -> None:
    """A datetime needs a zone, and milliseconds are a whole number."""
    with pytest.raises(UsageError, match=said):
        load_settings(None, {}, window={"from": value})


@pytest.mark.parametrize(
    "value",
    [date(2022, 6, 1), 1654041600000, datetime(2022, 6, 1, 2, tzinfo=timezone(timedelta(hours=2)))],
)
def test_the_forms_of_a_time_from_python(value: object) -> None:
    """A date is midnight UTC, a whole number is milliseconds, a datetime has a zone."""
    assert load_settings(None, {}, window={"from": value}).window.start == datetime(
        2022, 6, 1, tzinfo=UTC
    )


def test_environment_forms() -> None:
    """Lists are JSON, sizes and durations have units, and Kubernetes' own variables are ignored."""
    settings = load_settings(
        None,
        {
            "AHT_ETL_RETRY__SERVER_DELAYS": "[0.5, 1]",
            "AHT_ETL_LIMITS__MEMORY": "64MB",
            "AHT_ETL_SHUTDOWN__GRACE": "0.5s",
            "AHT_ETL_LAKE__OPTIONS__ACCESS_KEY_ID": "123",
            "AHT_ETL_SERVICE_HOST": "10.0.0.1",
            "AHT_ETL_WEB_SERVICE_PORT_HTTP": "80",
            "AHT_ETL_PORT_80_TCP_ADDR": "10.0.0.1",
            "AHT_ETL_PORT": "tcp://10.0.0.1:80",
            "AHT_ETL_FETCH__RATE": "",
        },
    )
    assert list(settings.retry.server_delays) == [0.5, 1]
    assert int(settings.limits.memory) == 64_000_000
    assert settings.shutdown.grace.total_seconds() == 0.5
    assert settings.lake.options["access_key_id"].get_secret_value() == "123"


@pytest.mark.parametrize(
    ("flags", "environ", "named"),
    [
        ({"fetch": {"concurency": "3"}}, {}, "did you mean concurrency"),
        ({"windov": {}}, {}, "windov"),
        ({}, {"AHT_ETL_FETCH_RATE": "1"}, "AHT_ETL_FETCH_RATE"),
        ({}, {"AHT_ETL_FETCH__RATTE": "1"}, "fetch.ratte"),
        ({}, {"AHT_ETL_FETCH__SKIP": "abc"}, "fetch.skip"),
        ({}, {"AHT_ETL_AUTH": "[1"}, "auth"),
        ({"window": {"start": "2022-06-01"}}, {}, "window.start"),
        ({"window": {"from": "yesterday"}}, {}, "window.from"),
        ({"account": "le-1"}, {}, "account"),
        ({"account": "le1\n"}, {}, "account"),
        ({"api": {"source": "a" * 21}}, {}, "api.source"),
        ({"api": {"base_url": "http://example.com"}}, {}, "base_url"),
        ({"api": {"base_url": "ftp://example.com"}}, {}, "api.base_url"),
        ({"api": {"base_url": "https://user:pw@example.com"}}, {}, "api.base_url"),
        ({"fetch": {"concurrency": "0"}}, {}, "fetch.concurrency"),
        ({"limits": {"memory": "lots"}}, {}, "limits.memory"),
        ({"retry": {"server_delays": ["-1"]}}, {}, "retry.server_delays"),
        ({"lake": {"uri": "ftp://bucket"}}, {}, "lake.uri"),
        ({}, {"AHT_ETL_SECRETS_DIR": "/nonexistent"}, "AHT_ETL_SECRETS_DIR"),
    ],
)
def test_wrong_configuration_names_the_key(
    flags: dict[str, Any], environ: dict[str, str], named: str
) -> None:
    """Each wrong or unknown key is named in one line."""
    with pytest.raises(UsageError) as caught:
        load_settings(None, environ, **flags)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("acount", "account"),
        ("fetch_rate", "fetch.rate"),
        ("fetch.concurency", "concurrency"),
        ("concurrency", "fetch.concurrency"),
        ("retry.timeout", "fetch.timeout"),
        ("window.look_back", "lookback"),
        ("feth.rate", "fetch.rate"),
        ("feth", "fetch"),
        ("limits.memory.max", "limits.memory"),
        ("nonsense", None),
    ],
)
def test_each_source_says_which_key_was_meant(
    wrong: str, meant: str | None, tmp_path: Path
) -> None:
    """For variables and secret files, by the key's name there."""
    variable = f"AHT_ETL_{wrong.upper().replace('.', '__')}"
    (tmp_path / wrong.replace(".", "__")).write_text("hush-hush")
    said = []
    for environ in ({variable: "hush-hush"}, {"AHT_ETL_SECRETS_DIR": str(tmp_path)}):
        with pytest.raises(UsageError) as caught:
            load_settings(None, environ)
        said.append(str(caught.value))
    assert f"environment variable {variable}: " in said[0]
    assert f"secret file {wrong.replace('.', '__')}: " in said[1]
    assert all("unknown key" in text and "hush" not in text for text in said)
    if meant is None:
        assert all(" (known: " in text for text in said)
        return
    name = variable.rpartition("__")[0] + "__" if "." in wrong and "." not in meant else "AHT_ETL_"
    name += meant.upper().replace(".", "__")
    assert f"did you mean {meant} ({name})?" in said[0]
    assert f"did you mean {meant} ({name.removeprefix('AHT_ETL_').lower()})?" in said[1]


def test_all_unknown_variables_are_named_at_once() -> None:
    """Also a misspelled AHT_ETL_SECRETS_DIR."""
    environ = {"AHT_ETL_SECRET_DIR": "s", "AHT_ETL_ACOUNT": "a", "AHT_ETL_FETCH__RATE": "x"}
    with pytest.raises(UsageError) as caught:
        load_settings(None, environ)
    assert "AHT_ETL_SECRET_DIR: unknown key, did you mean AHT_ETL_SECRETS_DIR?" in str(caught.value)
    assert "AHT_ETL_ACOUNT: unknown key, did you mean account" in str(caught.value)


def test_the_source_of_a_wrong_value_is_named(tmp_path: Path) -> None:
    """The variable, the secret file or the YAML file."""
    config = tmp_path / "c.yaml"
    config.write_text("account: a-b\nretry: {server_delays: [1, x]}\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "fetch__timeout").write_text("1w")
    environ = {"AHT_ETL_SECRETS_DIR": str(tmp_path / "secrets"), "AHT_ETL_FETCH__RATE": "x"}
    with pytest.raises(UsageError) as caught:
        load_settings(config, environ)
    said = sorted(str(caught.value).split("; "))
    assert said[0].startswith("account: ")
    assert said[0].endswith(f"({config})")
    assert said[1].endswith("(AHT_ETL_FETCH__RATE)")
    assert said[2].endswith("(secret file fetch__timeout)")
    assert said[3].startswith("retry.server_delays.1: ")
    assert said[3].endswith(f"({config})")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost/"])
def test_http_to_loopback_is_allowed(url: str) -> None:
    """Plain http is allowed if it stays on the machine; a slash at the end is removed."""
    assert load_settings(None, {}, api={"base_url": url}).api.base_url == url.rstrip("/")


def test_unknown_secret_file(tmp_path: Path) -> None:
    """A secret file with an unknown key is named; its content is not shown."""
    (tmp_path / "auth__client_idd").write_text("hush-hush")
    (tmp_path / "acount").write_text("hush-hush")
    with pytest.raises(UsageError, match="acount") as caught:
        load_settings(None, {"AHT_ETL_SECRETS_DIR": str(tmp_path)})
    assert "hush" not in str(caught.value)


def test_a_secret_file_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path) -> None:
    """All of them at once, without their content."""
    (tmp_path / "account").symlink_to("..data/account")
    (tmp_path / "auth__client_id").mkdir()
    (tmp_path / "auth__client_secret").write_bytes("hush-hush".encode("utf-16"))
    with pytest.raises(UsageError) as caught:
        load_settings(None, {"AHT_ETL_SECRETS_DIR": str(tmp_path)})
    said = str(caught.value)
    for name, reason in (
        ("account", "cannot be read: it is a link to ..data/account, which does not exist"),
        ("auth__client_id", "is a folder"),
        ("auth__client_secret", "is not UTF-8 text"),
    ):
        assert f"secret file {tmp_path / name}: {reason}" in said
    assert "hush" not in said


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa1\r\n", b"\xef\xbb\xbfa1", b"a1\n"])
def test_a_byte_order_mark_is_no_part_of_a_secret(content: bytes, tmp_path: Path) -> None:
    """Some editors write one at the start of a file."""
    (tmp_path / "account").write_bytes(content)
    assert "a1" == load_settings(None, {"AHT_ETL_SECRETS_DIR": str(tmp_path)}).account


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"client_id": "hush-1"}, "auth.client_secret"),
        ({"consumer_key": "hush-1", "access_token": "hush-2"}, "auth.consumer_secret"),
        (
            {
                "client_id": "hush-1",
                "client_secret": "hush-2",
                "consumer_key": "hush-3",
            },
            "keep those of one",
        ),
        ({"consumer_kee": "hush-1"}, "consumer_key"),
        ({"signature_method": "hush-1"}, "auth.signature_method"),
    ],
)
def test_authentication_is_one_whole_scheme(auth: dict[str, str], said: str) -> None:
    """Half a scheme and two schemes are wrong; the message holds no value."""
    with pytest.raises(UsageError) as caught:
        load_settings(None, {}, auth=auth)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["auth: {client_secret: 'hush-hush", "- hush-hush", "auth: hush-hush", "hush: [}"]
)
def test_broken_yaml_is_not_quoted(text: str, tmp_path: Path) -> None:
    """The message names the position and does not quote the line, which may hold a secret."""
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_settings(config, {})
    assert "hush-hush" not in str(caught.value)


def test_secrets_are_hidden_when_shown() -> None:
    """Neither repr nor str of the settings shows a secret."""
    settings = load_settings(None, {}, auth={"client_id": "hush-1", "client_secret": "hush-2"})
    assert "hush" not in repr(settings)
    assert sorted(settings.secret_values()) == ["hush-1", "hush-2"]


def test_a_variable_may_hold_a_whole_section() -> None:
    """As JSON; a variable for one of its keys is stronger; other text is named, not ignored."""
    environ = {
        "AHT_ETL_FETCH": '{"rate": 2, "concurrency": 3}',
        "AHT_ETL_FETCH__RATE": "5",
        "AHT_ETL_LAKE__OPTIONS__SERVICE_ACCOUNT_KEY": '{"type": "hush-hush"}',
    }
    settings = load_settings(None, environ)
    assert (5, 3) == (settings.fetch.rate, settings.fetch.concurrency)
    options = settings.lake.options
    assert '{"type": "hush-hush"}' == options["service_account_key"].get_secret_value()
    with pytest.raises(UsageError, match=r"fetch: is a section, .+\(AHT_ETL_FETCH\)"):
        load_settings(None, {**environ, "AHT_ETL_FETCH": "hush"})


def test_keys_in_the_place_of_a_value_are_not_shown(tmp_path: Path) -> None:
    """They are part of the value, which may be a secret."""
    config = tmp_path / "c.yaml"
    config.write_text("auth: {consumer_key: {hush-hush: 1}}\nfetch: {rate: {hush-hush: 1}}\n")
    environ = {
        "AHT_ETL_AUTH": '{"consumer_key": {"hush-hush": 1}}',
        "AHT_ETL_FETCH": '{"rate": {"hush-hush": 1}}',
    }
    for file, variables, origin in ((config, {}, config), (None, environ, "AHT_ETL_AUTH")):
        with pytest.raises(UsageError) as caught:
            load_settings(file, variables)
        said = str(caught.value)
        assert f"auth.consumer_key: must be text, for example 0123456789abcdef ({origin})" in said
        assert "fetch.rate: must be a number, more than 0, for example 20 (" in said
        assert "hush" not in said


@pytest.mark.parametrize(
    "name", ["lake__uri__x", "account__x", "fetch__skip__0", "lake.uri", "fetch.rate"]
)
@pytest.mark.parametrize("value", ["", "1"])
def test_an_unknown_name_is_refused_whatever_else_is_set(
    name: str, value: str, tmp_path: Path
) -> None:
    """Below a value, with dots instead of `__`, empty, or where a stronger source sets the key."""
    (tmp_path / name).write_text(value)
    for environ in (
        {f"AHT_ETL_{name.upper()}": value},
        {"AHT_ETL_SECRETS_DIR": str(tmp_path), "AHT_ETL_FETCH__RATE": "1"},
    ):
        with pytest.raises(UsageError, match=r"unknown key, did you mean"):
            load_settings(
                None, environ, account="1", lake={"uri": "./lake"}, fetch={"rate": 1, "skip": ["a"]}
            )


def test_what_stands_in_the_place_of_a_section(tmp_path: Path) -> None:
    """JSON's null sets nothing, as in YAML; all else is reported though a key of it is set too."""
    config = tmp_path / "c.yaml"
    config.write_text("lake: {uri: ./y, compression: lz4}\n")
    environ = {"AHT_ETL_LAKE": "null", "AHT_ETL_LAKE__OPTIONS__REGION": "eu"}
    settings = load_settings(config, environ)
    assert ("./y", "lz4") == (settings.lake.uri, settings.lake.compression)
    for text in ("[]", "1", '"hush"'):
        with pytest.raises(UsageError, match=r"lake: is a section, .+\(AHT_ETL_LAKE\)"):
            load_settings(config, {**environ, "AHT_ETL_LAKE": text})
    with pytest.raises(UsageError, match=r"lake\.options: must be names with values"):
        load_settings(config, {**environ, "AHT_ETL_LAKE": "", "AHT_ETL_LAKE__OPTIONS": "hush"})


def test_the_source_of_a_rule_between_keys_is_the_strongest_that_sets_one(tmp_path: Path) -> None:
    """And an empty section sets no key."""
    config = tmp_path / "c.yaml"
    config.write_text("auth: {client_id: a, client_secret: }\nlake: {options: {a: {b: c}}}\n")
    with pytest.raises(UsageError) as caught:
        load_settings(config, {})
    assert f"auth: OAuth 2.0 needs auth.client_secret as well ({config})" in str(caught.value)
    assert f"lake.options.a: must be text, for example eu-west-1 ({config})" in str(caught.value)
    config.write_text("lake: {}\nfetch:\n")
    assert load([], config, {})[1] == {}
