"""The place of a lake: its URI, its store's options, and what is refused."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from etl.config.settings import open_archive, open_lake
from etl.config.sources import load_settings
from etl.model.errors import UsageError
from etl.storage.local import LocalStore
from etl.storage.places import Place
from tests.conftest import COMMAND, environment

KEYS = {"access_key_id": "AKIAINVENTED", "secret_access_key": "invented-secret"}


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "GOOGLE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("./lake", "./lake"),
        ("file:///data/my%20lake", "/data/my lake"),
        ("~/lake", "/home/a/lake"),
        ("a~/lake", "a~/lake"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket/a=1", "s3://bucket/a=1"),
        ("s3a://bucket/a", "s3://bucket/a"),
        ("gs://bucket.example.com/a", "gs://bucket.example.com/a"),
        ("az://container/a", "az://container/a"),
        ("abfs://container/a", "az://container/a"),
        (
            "abfs://container@account1.dfs.core.windows.net/a",
            "abfss://container@account1.dfs.core.windows.net/a",
        ),
    ],
)
def test_forms_of_a_place(written: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every form of the same place gives the same text."""
    monkeypatch.setenv("HOME", "/home/a")
    options = {"account_name": "account1"} if meant.startswith("az") else {}
    assert meant == load_settings(None, {}, lake={"uri": written, "options": options}).lake.uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "ftp://bucket/a",
        "https://bucket.s3.amazonaws.com/a",
        "file://host/folder",
        "s3://",
        "s3:///a",
        "s3:/bucket/a",
        "S3A:bucket",
        "abfss:/container/a",
        "file:/folder",
        "s3://bucket/a?region=eu",
        "s3://bucket/a#b",
        "s3://key:hush@bucket/a",
        "s3://bucket:9000/a",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a%20b",
        "az://container@example.com/a",
        "lake\0",
        "file:///lake%00",
        "file:///lake%ff",
        "lake\udcff",
    ],
)
def test_wrong_uris(uri: str) -> None:
    """Wrong usage: the message names the key and does not show the value."""
    with pytest.raises(UsageError, match=r"^lake\.uri: ") as caught:
        load_settings(None, {}, lake={"uri": uri})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "options", "said"),
    [
        ("s3://b1/a", {"endpont": "https://example.com"}, "endpont: no option of S3, did you mean"),
        ("gs://b1/a", {"region": "eu"}, "region: no option of Google Cloud Storage"),
        ("az://b1/a", {}, "account_name is missing"),
        ("s3://b1/a", {"access_key_id": "a"}, "secret_access_key is missing"),
        ("s3://b1/a", {"bucket": "other"}, "bucket: the URI says that"),
        ("s3://b1/a", {"region": "a", "REGION": "b"}, "is set twice"),
        ("s3://b1/a", {"allow_http": "perhaps"}, 'should be "true" or "false"'),
        ("s3://b1/a", {"timeout": "perhaps"}, "a time limit is none"),
        ("s3://b1/a", {"endpoint": "http://example.com"}, "plain http would show keys"),
        ("s3://b1/a", {"endpoint": "example.com"}, "endpoint: is no URL"),
        ("s3://b1/a", {"endpoint": "https://u:hush@example.com"}, "no user, password or query"),
        ("gs://b1/a", {"endpoint": "http://example.com"}, "plain http would show keys"),
        ("gs://b1/a", {"service_account": "/none"}, "service account's file or key"),
        ("az://b1/a", {"account_name": "a", "account_key": "hush!"}, "is not base64"),
    ],
)
def test_options_that_a_store_does_not_accept(uri: str, options: dict[str, str], said: str) -> None:
    """They are noticed before any request; no value is shown."""
    with pytest.raises(UsageError) as caught:
        load_settings(None, {}, lake={"uri": uri, "options": options})
    assert said in str(caught.value)
    assert "lake.options" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "http://127.0.0.1:9000"},
        {"endpoint": "http://localhost:9000", "allow_http": "false"},
        {"aws_endpoint_url": "http://example.com", "aws_allow_http": "true"},
        {"AWS_ENDPOINT": "https://example.com", "connect_timeout": "2s", "region": "eu-west-1"},
        {"endpoint": "https://example.com", "virtual_hosted_style_request": "true", **KEYS},
    ],
)
def test_options_that_a_store_accepts(options: dict[str, str]) -> None:
    """By object_store's names and aliases, also those of the HTTP client."""
    settings = load_settings(environ={}, lake={"uri": "s3://b1/a", "options": options})
    assert "s3://b1/a" == open_lake(settings).place


def test_an_endpoint_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is checked like the option `endpoint`, which is stronger."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://example.com")
    with pytest.raises(UsageError, match="plain http"):
        load_settings(None, {}, lake={"uri": "s3://b1/a"})
    load_settings(None, {}, lake={"uri": "s3://b1/a", "options": {"endpoint": "https://b.example"}})


@pytest.mark.parametrize(
    ("lake", "raw", "options", "inside"),
    [
        ("s3://b1/a", "s3://b1/a/raw", {}, True),
        ("s3://b1/a", "s3a://b1/a", {}, True),
        ("s3://b1", "s3://b1/raw", {}, True),
        ("s3://b1/a", "s3://b1/ab", {}, False),
        ("s3://b1/a", "s3://b1", {}, False),
        ("s3://b1/a", "s3://b2/a", {}, False),
        ("s3://b1/a", "gs://b1/a", {}, False),
        ("s3://b1/a", "s3://b1/a", {"endpoint": "https://another.example"}, False),
        ("s3://b1/a", "s3://b1/a", KEYS, True),
        ("s3://b1/a", "./raw", {}, False),
        ("./lake", "s3://b1/a", {}, False),
        ("./lake", "./lake/raw", {}, True),
    ],
)
def test_raw_files_lie_outside_the_lake(
    lake: str, raw: str, options: dict[str, str], inside: bool
) -> None:
    """Readers of the lake would read them as well."""
    flags: dict[str, Any] = {"lake": {"uri": lake}, "raw": {"uri": raw, "options": options}}
    if inside:
        with pytest.raises(UsageError, match="must not lie in"):
            load_settings(None, {}, **flags)
    else:
        archive = open_archive(load_settings(None, {}, **flags))
        assert archive is not None
        assert raw.startswith("./") == isinstance(archive, LocalStore)


def test_other_forms_of_the_same_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a slash at the end, or in the environment, it is the same bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://b.example/")
    options = {"endpoint": "https://b.example"}
    flags: dict[str, Any] = {
        "lake": {"uri": "s3://b1/a", "options": KEYS},
        "raw": {"uri": "s3://b1/a/raw", "options": options},
    }
    with pytest.raises(UsageError, match="must not lie in"):
        load_settings(None, {}, **flags)


def test_keys_of_the_environment_are_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an object store is used, because it may repeat them."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "invented-session-token")
    assert [] == list(load_settings(None, {}).secret_values())
    settings = load_settings(None, {}, raw={"uri": "s3://b1/a"})
    assert "invented-session-token" in set(settings.secret_values())


def test_an_archives_options() -> None:
    """Its own options, or those of a lake of the same kind; both are secret."""
    flags: dict[str, Any] = {"uri": "s3://b1/a", "options": KEYS}
    settings = load_settings(None, {}, lake=flags, raw={"uri": "s3://b2"})
    assert KEYS == settings.options_of(settings.raw)
    settings = load_settings(None, {}, lake=flags, raw={"uri": "gs://b2"})
    assert {} == settings.options_of(settings.raw)
    own = {"bearer_token": "invented-token"}
    settings = load_settings(None, {}, lake=flags, raw={"uri": "gs://b2", "options": own})
    assert own == settings.options_of(settings.raw)
    assert {*KEYS.values(), *own.values()} <= set(settings.secret_values())


def test_one_prefix_in_another() -> None:
    """By whole names, not by their letters."""
    assert Place.parse("s3://b1/a").holds(Place.parse("s3://b1/a/b"))
    assert not Place.parse("s3://b1/a/b").holds(Place.parse("s3://b1/a"))


@pytest.mark.parametrize("command", ["run", "check", "plan", "status"])
def test_a_path_that_the_locale_cannot_write_is_refused_at_once(
    command: str, tmp_path: Path
) -> None:
    """By each command, before any request; with UTF-8, the default, it is accepted."""
    (tmp_path / "c.yaml").write_text("account: a1\nlake: {uri: ./l\u00fc}\n", "utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    call = [COMMAND, command, "--config", "c.yaml"]
    for env, more, said in (
        (ascii_only, (), "lake.uri: has a character that file names cannot have here"),
        ({}, ("--lake", os.fsdecode(b"l\xff")), "lake.uri: has bytes that are no text"),
    ):
        done = subprocess.run(
            [*call, *more],
            env=environment(**env),
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert 2 == done.returncode
        assert said in done.stderr.decode()
    assert "lü" == Path(load_settings(tmp_path / "c.yaml", {}).lake.uri).name
