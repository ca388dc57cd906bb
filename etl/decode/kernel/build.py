"""Compiles the scanner when the package is built: a hatchling build hook, not imported at run time.

It uses the system's C compiler. If none works, it adds the `ziglang` wheel to the build
requirements and uses that. Environment variables: `CC` names a compiler; `AHT_ETL_TARGET`
(`aarch64-linux-gnu`, `x86_64-linux-musl`, …) cross-compiles with zig.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any
from zlib import crc32

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SOURCE = Path(__file__).parent / "scan.c"
_LIBRARY = Path("etl/decode/kernel/scan.so")
# Baseline instructions: one wheel runs on every processor of its architecture.
_FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra")
#: The build requirement if no compiler of the system works.
ZIG = "ziglang>=0.17.1"


class CustomBuildHook(BuildHookInterface[Any]):
    """Puts the compiled scanner and the pages into wheels; editable installs have them in place."""

    def dependencies(self) -> list[str]:
        """Return the build requirements: zig, unless a compiler of the system works."""
        if self.target_name != "wheel" or _system_compiler():
            return []
        return [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile. Raises RuntimeError if no compiler works."""
        if self.target_name != "wheel":
            return
        if version == "editable":
            _compile(Path(self.root, _LIBRARY))
        else:
            self._folder = tempfile.TemporaryDirectory()
            library = Path(self._folder.name, _LIBRARY.name)
            _compile(library)
            build_data["force_include"][str(library)] = str(_LIBRARY)
            build_data["force_include"]["configs/docs"] = "etl/docs"  # for `aht-etl docs`
        build_data["pure_python"] = False
        # ctypes loads the library, so it does not depend on the ABI of a Python version.
        build_data["tag"] = f"py3-none-{_platform()}"


def _target() -> str:
    return os.environ.get("AHT_ETL_TARGET", "")


def _platform() -> str:
    architecture = _target().partition("-")[0]
    name = f"linux-{architecture}" if architecture else sysconfig.get_platform()
    return name.replace("-", "_").replace(".", "_")


def _system_compiler() -> list[str]:
    """Return the command of a C compiler that compiles the scanner; empty if there is none."""
    if _target():
        return []
    named = os.environ.get("CC")
    for command in [shlex.split(named)] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            with tempfile.TemporaryDirectory() as folder:
                if not _run(command, Path(folder, _LIBRARY.name)).returncode:
                    return command
    return []


def _compile(library: Path) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc", *(["-target", _target()] if _target() else [])]
    done = _run(_system_compiler() or zig, library)
    if done.returncode:
        raise RuntimeError(
            f"cannot compile {_SOURCE.name} with {shlex.join(done.args[:3])}: {done.stderr.strip()}"
        )


def _run(command: list[str], library: Path) -> subprocess.CompletedProcess[str]:
    # Compiled under another name first: a process that has loaded the old library keeps it.
    new = library.with_suffix(f".{os.getpid()}")
    # Loading compares this with the sources, so a library of other sources is an error.
    version = crc32(_SOURCE.with_suffix(".h").read_bytes() + _SOURCE.read_bytes())
    done = subprocess.run(  # noqa: S603 - the compiler
        [*command, *_FLAGS, f"-DAHT_VERSION={version}", "-o", str(new), str(_SOURCE)],
        check=False,
        capture_output=True,
        text=True,
    )
    if not done.returncode:
        new.replace(library)
    return done
