"""Build the image of the Dockerfile without Docker and without a registry.

The base image is made of Debian packages, because tests download no image. The Dockerfile is the
one that users build.
"""

import json
import os
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from etl.decode.kernel.build import ZIG
from tests.conftest import COMMAND
from tests.programs import as_root, program

ROOT: Final = Path(__file__).parent.parent.parent
REVISION: Final = "0123456789abcdef0123456789abcdef01234567"
CREATED: Final = "2026-01-02T03:04:05Z"

_BASE: Final = "localhost/base"
_NAME: Final = "localhost/aht-etl"


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its configuration, its files as a folder, the bytes that it adds to its base."""

    config: dict[str, Any]
    files: Path
    own_bytes: int


def build(folder: Path) -> Image:
    """Build the base and the image in the folder."""
    as_root()
    (folder / "scratch").mkdir()
    buildah = [
        *(program("buildah"), "--root", str(folder / "store"), "--runroot", str(folder / "run")),
        *("--storage-driver", "vfs"),
    ]

    def call(*arguments: str) -> str:
        return _output([*buildah, *arguments], folder)

    base = call("from", "scratch")
    call("add", "--quiet", base, str(_debian(folder)), "/")
    version = call(
        *("run", "--isolation", "chroot", base, "--"),
        *("python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"),
    )
    call("commit", "--quiet", "--rm", base, _BASE)
    # The build uses this machine's package sources. The image must not keep their configuration.
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    call(
        *("build", "--isolation", "chroot", "--pull-never", "--quiet"),
        *("--volume", f"{_wheels(folder, version)}:/wheels:ro"),
        *("--secret", f"id=pip.conf,src={folder / 'pip.conf'}"),
        *("--build-arg", f"BASE={_BASE}"),
        *("--build-arg", f"REVISION={REVISION}", "--build-arg", f"CREATED={CREATED}"),
        *("--tag", _NAME, str(ROOT)),
    )
    inspected = json.loads(call("inspect", "--type", "image", _NAME))
    sizes = {
        image["names"][0]: _bytes(image["size"]) for image in json.loads(call("images", "--json"))
    }
    files = call("mount", call("from", "--pull-never", _NAME))
    return Image(
        inspected["OCIv1"]["config"],
        Path(files),
        sizes[f"{_NAME}:latest"] - sizes[f"{_BASE}:latest"],
    )


def _debian(folder: Path) -> Path:
    """Return an archive of a minimal root file system of this Debian version, with Python."""
    archive = folder / "base.tar"
    _output(
        [
            *(program("mmdebstrap"), "--variant=essential", "--quiet"),
            "--include=ca-certificates,libstdc++6,python3,python3-venv,python-is-python3",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")),
            *(_codename(), str(archive)),
        ],
        folder,
    )
    return archive


def _codename() -> str:
    release = Path("/etc/os-release").read_text()
    return release.partition("VERSION_CODENAME=")[2].split()[0]


def _wheels(folder: Path, version: str) -> Path:
    """Return a folder with all packages that the build needs for this version of Python."""
    wheels = folder / "wheels"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _output(
        [
            *(str(Path(COMMAND).with_name("python")), "-m", "pip", "download", "--quiet"),
            *("--python-version", version, "--only-binary", ":all:", "--dest", str(wheels)),
            # The base has no C compiler.
            *(*project["build-system"]["requires"], ZIG, *project["project"]["dependencies"]),
        ],
        folder,
    )
    return wheels


def _bytes(text: str) -> int:
    number, unit = text.split()
    return round(float(number) * {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[unit.upper()])


def _output(command: list[str], folder: Path) -> str:
    ended = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(folder / "scratch")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == ended.returncode, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout.strip()
