"""The scanner is built wherever there is Python, and what is built is the same everywhere."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from etl import __version__
from etl.decode import kernel
from etl.model.errors import RunError
from tests.decode.kernel.__main__ import HERE, SCANNER, write_seeds
from tests.programs import program

ROOT = HERE.parents[2]
ZIG = [sys.executable, "-m", "ziglang", "cc"]


def build(folder: Path, source: Path = ROOT, **environment: str) -> Path:
    """Build a wheel of this checkout with what this environment has installed."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--quiet", "--wheel-dir", folder, source],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=110,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def library(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("etl/decode/kernel/scan.so", folder))


@pytest.mark.parametrize("compiler", ["cc", "none"])
def test_a_wheel_has_the_library_and_serves_every_python(compiler: str, tmp_path: Path) -> None:
    """With the system's compiler and, where there is none, with zig."""
    more = {"CC": shutil.which("cc") or "cc"} if compiler == "cc" else {"CC": "no-such-compiler"}
    wheel = build(tmp_path, ROOT, **more)
    assert wheel.name.startswith(f"aht_etl-{__version__}-py3-none-linux_")
    code = (
        "import sys; from pathlib import Path; from etl.decode import kernel;"
        "kernel._load(Path(sys.argv[1])); print('loaded')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, library(wheel, tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "loaded\n"


def test_a_wheel_is_built_from_the_source_distribution(tmp_path: Path) -> None:
    """It holds all that the build needs: sources, hook and pages."""
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "sdist",
        "-d",
        str(tmp_path / "sdist"),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = (tmp_path / "sdist").iterdir()
    wheel = build(tmp_path / "wheel", source=archive)
    assert library(wheel, tmp_path).read_bytes()[:4] == b"\x7fELF"


def test_musl_is_a_target(tmp_path: Path) -> None:
    """Alpine's C library, whatever this machine's is."""
    wheel = build(tmp_path, AHT_ETL_TARGET="x86_64-linux-musl")
    assert b"libc.so.6" not in library(wheel, tmp_path).read_bytes()


def test_other_architectures_and_c_libraries_are_compiled_for(tmp_path: Path) -> None:
    """The target names the wheel's platform."""
    wheel = build(tmp_path, AHT_ETL_TARGET="aarch64-linux-gnu")
    assert wheel.name.endswith("-py3-none-linux_aarch64.whl")
    head = library(wheel, tmp_path).read_bytes()[:20]
    assert (b"\x7fELF", 183) == (head[:4], int.from_bytes(head[18:20], "little"))


@pytest.mark.timeout(300)
def test_arm_finds_the_same_rows(tmp_path: Path) -> None:
    """The blocks of 16 bytes are another processor's instructions there."""
    write_seeds(tmp_path)
    seeds = sorted(tmp_path.glob("*-0"))
    digests = []
    for target, runner in (
        ("x86_64-linux-musl", []),
        ("aarch64-linux-musl", [program("qemu-aarch64")]),
    ):
        binary = tmp_path / target
        flags = ["-target", target, "-static", "-O2", "-DSTANDALONE", "-std=c11"]
        subprocess.run([*ZIG, *flags, "-o", binary, HERE / "fuzz.c", SCANNER], check=True)
        found = subprocess.run([*runner, binary, *seeds], check=True, capture_output=True)
        digests.append(found.stdout)
    assert digests[0] == digests[1]
    assert len(digests[0]) == 17


@pytest.mark.parametrize("broken", ["missing", "no library", "another version"])
def test_a_library_that_does_not_fit_is_one_clear_line(broken: str, tmp_path: Path) -> None:
    """It says what to do."""
    path = tmp_path / "scan.so"
    if broken == "no library":
        path.write_bytes(b"\x7fELF")
    elif broken == "another version":
        source = tmp_path / "scan.c"
        source.write_text(
            "long long aht_version(void) { return 0; } long long aht_batch_size(void) { return 0; }"
        )
        subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)
    with pytest.raises(RunError, match=r"scan.so .*; install aht-etl again"):
        kernel._load(path)
