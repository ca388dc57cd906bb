"""The example configurations in `configs` have every key and explain it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from etl.config.settings import Settings
from etl.config.sources import load_settings
from etl.emulator.dataset import DEFAULT_ACCOUNT
from tests.documents import ROOT

CONFIGS = sorted(ROOT.joinpath("configs").glob("*.yaml"))


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + (field.alias or name)


def test_every_key_is_in_the_daily_configuration_with_a_comment() -> None:
    """Users copy their configuration from this file."""
    content = yaml.safe_load((ROOT / "configs" / "daily.yaml").read_text())
    there = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in content.items()
        for key in (value if isinstance(value, dict) else [None])
    }
    assert set(keys(Settings)) == there


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_example_configurations_load_and_explain_each_key(file: Path) -> None:
    """Each file is valid unchanged, and a comment above each key says what it does.

    Without an edit, a file names no account (demo.yaml: the emulator's).
    """
    account = load_settings(file, {}).account
    assert account == (DEFAULT_ACCOUNT if file.name == "demo.yaml" else None)
    above = ""
    for line in file.read_text().splitlines():
        if re.match(r" *[a-z_]+:", line) and not re.fullmatch(r"[a-z]+:", line):
            assert above.lstrip().startswith("#"), line
        above = line


def test_the_daily_configuration_has_the_defaults() -> None:
    """Each value is the program's default, unless its comment says otherwise."""
    daily = load_settings(ROOT / "configs" / "daily.yaml", {}).model_dump()
    default = Settings().model_dump()
    differs = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in daily.items()
        for key in (value if isinstance(value, dict) else [None])
        if (value[key] if key else value) != (default[name][key] if key else default[name])
    }
    assert {"window.lookback"} == differs
