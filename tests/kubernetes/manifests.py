"""The manifests of configs/kubernetes, as `kubectl kustomize` renders them."""

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ByteSize, TypeAdapter

from tests.conftest import COMMAND

ROOT: Final = Path(__file__).parent.parent.parent
FOLDER: Final = ROOT / "configs" / "kubernetes"
KUBECTL: Final = str(Path(COMMAND).with_name("kubectl"))
NAMES: Final = sorted(
    str(file.parent.relative_to(FOLDER))
    for file in FOLDER.rglob("kustomization.yaml")
    if "components" not in file.parts
)
SCHEDULED: Final = [name for name in NAMES if "backfill" not in name]
#: The nightly copies are scheduled too. Another overlay has their account, lake and keys.
COPIES: Final = [name for name in NAMES if "compact" in name]
BACKFILLS: Final = [name for name in NAMES if "backfill" in name]
APPLIED: Final = [name for name in NAMES if name.startswith("overlays/")]

Manifest = dict[str, Any]


@cache
def rendered(name: str) -> tuple[Manifest, ...]:
    """Return the objects that `kubectl apply -k` would send."""
    text = subprocess.check_output(
        [KUBECTL, "kustomize", str(FOLDER / name)], env={**os.environ, "HOME": "/nonexistent"}
    )
    return tuple(yaml.safe_load_all(text))


def of_kind(name: str, kind: str) -> Iterator[Manifest]:
    return (manifest for manifest in rendered(name) if manifest["kind"] == kind)


def job(name: str) -> Manifest:
    """Return the specification of the overlay's only job, scheduled or not."""
    (manifest,) = (m for m in rendered(name) if m["kind"] in {"CronJob", "Job"})
    spec: Manifest = manifest["spec"]
    return spec["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else spec


def pod(name: str) -> Manifest:
    spec: Manifest = job(name)["template"]["spec"]
    return spec


def container(name: str) -> Manifest:
    (only,) = pod(name)["containers"]
    assert "aht-etl" == only["name"]
    return dict(only)


def variables(name: str, *beside: str) -> dict[str, str]:
    """Return the container's variables. Its ConfigMaps may also be in the overlays `beside`."""
    found: dict[str, str] = {}
    for source in container(name)["envFrom"]:
        found |= config_map(source["configMapRef"]["name"], name, *beside)
    return found | {variable["name"]: variable["value"] for variable in container(name)["env"]}


def config_map(wanted: str, *names: str) -> dict[str, str]:
    """Return the content of the first ConfigMap with this name."""
    content: dict[str, str] | None = next(
        manifest.get("data")
        for name in names
        for manifest in of_kind(name, "ConfigMap")
        if manifest["metadata"]["name"] == wanted
    )
    return content or {}


def quantity(text: str) -> int:
    """Return a Kubernetes quantity in bytes."""
    return TypeAdapter(ByteSize).validate_python(f"{text}B" if text[-1] == "i" else text)
