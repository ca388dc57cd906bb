"""The image: small, without root, with a read-only root folder, with signals as process 1."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import etl
from etl.emulator import Dataset, Emulator
from tests.conftest import Serve, check_report, keys_of
from tests.container.conftest import Contain
from tests.container.images import CREATED, REVISION, ROOT, Image
from tests.e2e.test_endings import assert_lake_is_sound, wait_until
from tests.lakes import assert_lake_holds
from tests.pods import reason

# The first test builds the image, the others wait for it.
pytestmark = pytest.mark.timeout(900)

DATA = Dataset.generate(
    6, datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=20
)
REPORT = ("--report", "/scratch/report.json")


def settings(emulator: Emulator, **more: str) -> dict[str, str]:
    """Return the variables that a cluster sets."""
    return {
        "AHT_ETL_ACCOUNT": "le79344075",
        "AHT_ETL_API__BASE_URL": emulator.base_url,
        "AHT_ETL_WINDOW__FROM": "2022-06-01",
        "AHT_ETL_WINDOW__TO": "2022-06-03",
        **keys_of(emulator),
        **more,
    }


def test_the_configuration_of_the_image(image: Image) -> None:
    """It has its own entry point, user, volume and labels, none of the base image."""
    config = image.config
    assert (["aht-etl"], ["run"], "/") == (
        config["Entrypoint"],
        config["Cmd"],
        config["WorkingDir"],
    )
    assert {"/scratch": {}} == config["Volumes"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", config["User"])
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    assert ("aht-etl", etl.__version__, REVISION, CREATED, "localhost/base") == tuple(
        labels[name] for name in ("title", "version", "revision", "created", "base.name")
    )
    assert [] == [one for one in config["Env"] if one.startswith("AHT_ETL_")]


def test_the_image_is_small(image: Image) -> None:
    """It adds to its base only the program, its dependencies and their bytecode."""
    assert image.own_bytes < 200e6
    files = image.files
    assert [] == [name for name in ("source", "pip", "etc/pip.conf") if (files / name).exists()]
    assert [] == list((files / "wheels").glob("*"))
    assert [] == [path for path in (files / "root").rglob("*") if ".cache" in path.parts]
    packages = next((files / "opt/aht-etl/lib").glob("python3*/site-packages"))
    assert [] == list(packages.glob("pip*"))
    sources = [*packages.glob("etl/**/*.py"), *packages.glob("pyarrow/*.py")]
    assert len(sources) > 100
    for source in sources:
        assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


def test_a_load(contain: Contain, serve: Serve) -> None:
    """The default command loads with large files on disk, and writes only lake and scratch."""
    emulator = serve(DATA, auth="oauth1")
    container = contain()
    ended = container.run(**settings(emulator, AHT_ETL_LIMITS__MEMORY="1MB"))
    assert (0, "ok in") == (ended.code, ended.out[:5]), ended.err
    assert_lake_holds(container.lake, DATA)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in container.lake.rglob("*")}
    assert {(65532, 65532)} == owners
    assert [] == list(container.scratch.iterdir())


def test_any_user_can_run_it(contain: Contain, serve: Serve) -> None:
    """Some clusters choose the user id for each namespace."""
    container = contain(user="1000730000:0")
    ended = container.run("run", *REPORT, **settings(serve(DATA)))
    assert 0 == ended.code, ended.err
    check_report(ended.report, ended.code)
    assert_lake_holds(container.lake, DATA)


def test_without_a_mounted_lake(contain: Contain, serve: Serve) -> None:
    """The run does not load into the container's own files. The pod's message says why."""
    container = contain(mounts=(("scratch", "/scratch"),))
    ended = container.run(**settings(serve(DATA)))
    assert 1 == ended.code
    assert "ead-only file system" in reason(ended.err)


def test_wrong_usage(contain: Contain) -> None:
    """The exit code is 2, which no cluster retries, and the message says why."""
    container = contain()
    ended = container.run()
    assert 2 == ended.code
    assert reason(ended.err).startswith("wrong usage: account: is missing")


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_a_signal_to_process_1(contain: Contain, serve: Serve, name: str, code: int) -> None:
    """It ends gracefully: downloaded files are in the lake, and report and pod message say so."""
    container = contain()
    emulator = serve(DATA, latency_s=0.1)
    env = settings(emulator, AHT_ETL_FETCH__CONCURRENCY="1")
    process = container.start("run", *REPORT, **env)
    wait_until(lambda: emulator.count("file", 200) >= 3)
    status = Path(f"/proc/{container.pid()}/status").read_text()
    assert ["1"] == re.findall(r"^NSpid:\t\d+\t(\d+)$", status, re.MULTILINE)
    assert ["65532"] == re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)
    container.signal(name)
    ended = container.end(process)
    check_report(ended.report, code)
    files = ended.report["files"]
    assert (code, "interrupted") == (ended.code, ended.report["status"])
    assert files["loaded"] >= 2
    assert files["not_attempted"] > 0
    assert reason(ended.err) == (
        f"interrupted: SIG{name}; {files['loaded']} files loaded, "
        f"{files['not_attempted']} left to the next run"
    )
    assert_lake_is_sound(container.lake, DATA)


def test_the_dockerfile_is_self_contained() -> None:
    """Its version is the program's, its base is one argument, and it names no index."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert {f"ARG VERSION={etl.__version__}"} == {
        line for line in lines if line.startswith("ARG VERSION")
    }
    assert {"FROM ${BASE} AS install", "FROM ${BASE}"} == {
        line for line in lines if line.startswith("FROM")
    }
    code = [line for line in lines if not line.startswith("#")]
    assert [] == [line for line in code if "://" in line or "index" in line]
