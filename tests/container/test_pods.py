"""The pods of configs/kubernetes, as a kubelet starts them: their image, arguments, mounts."""

import re
from datetime import UTC, datetime

import pytest

from etl.emulator import Dataset, Emulator
from tests.conftest import Serve
from tests.container.conftest import Contain
from tests.container.containers import Container
from tests.kubernetes.manifests import config_map, container, job, pod, quantity, variables
from tests.lakes import assert_lake_holds

pytestmark = pytest.mark.timeout(900)

DATA = Dataset.generate(
    7, datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=20
)
SCHEDULED = "overlays/volume"
BACKFILL = "overlays/volume-backfill"


def containing(contain: Contain, name: str, emulator: Emulator) -> Container:
    """Return a container as the pod of an overlay asks for it, with its configuration and keys."""
    only, context = container(name), pod(name)["securityContext"]
    one = contain(
        user=f"{context['runAsUser']}:{context['runAsGroup']}",
        mounts=tuple((mount["name"], mount["mountPath"]) for mount in only["volumeMounts"]),
        memory_bytes=quantity(only["resources"]["limits"]["memory"]),
    )
    for folder, content in (
        ("config", config_map("aht-etl", name, SCHEDULED)),
        ("keys", {f"auth__{key}": value for key, value in emulator.keys.items()}),
    ):
        (one.folder / folder).mkdir()
        for file, text in content.items():
            (one.folder / folder / file).write_text(text)
    return one


def command(name: str, emulator: Emulator, **more: str) -> tuple[list[str], dict[str, str]]:
    """Return arguments, with variables put in as a kubelet does, and the variables."""
    own = {"AHT_ETL_ACCOUNT": "le79344075", "AHT_ETL_API__BASE_URL": emulator.base_url}
    found = {**variables(name, SCHEDULED), **own, **more}
    arguments = container(name)["args"]
    return [re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], each) for each in arguments], found


def test_the_scheduled_pod(contain: Contain, serve: Serve) -> None:
    """It loads what is listed, and repeated nothing twice."""
    emulator = serve(DATA, auth="oauth1")
    window = {"AHT_ETL_WINDOW__FROM": "2022-06-01", "AHT_ETL_WINDOW__TO": "2022-06-03"}
    arguments, found = command(SCHEDULED, emulator, **window)
    one = containing(contain, SCHEDULED, emulator)
    for _ in range(2):
        ended = one.run(*arguments, **found)
        assert 0 == ended.code, ended.err
        assert_lake_holds(one.lake, DATA)
    assert len(DATA.files) == emulator.count("file")


def test_the_pods_of_a_backfill(contain: Contain, serve: Serve) -> None:
    """As many as the Job completes, each with its own share: together they load each file once."""
    emulator = serve(DATA, auth="oauth1")
    one = containing(contain, BACKFILL, emulator)
    for index in range(job(BACKFILL)["completions"]):
        arguments, found = command(BACKFILL, emulator, JOB_COMPLETION_INDEX=str(index))
        ended = one.run(*arguments, **found)
        assert 0 == ended.code, ended.err
    assert_lake_holds(one.lake, DATA)
    assert len(DATA.files) == emulator.count("file")


def test_keys_that_nobody_mounted(contain: Contain, serve: Serve) -> None:
    """The pod says which folder; exit code 2, so nobody tries again."""
    emulator = serve(DATA, auth="oauth1")
    one = containing(contain, SCHEDULED, emulator)
    arguments, found = command(SCHEDULED, emulator, AHT_ETL_SECRETS_DIR="/etc/aht-etl/keyz")
    assert 2 == one.run(*arguments, **found).code
    assert one.termination.startswith("wrong usage: AHT_ETL_SECRETS_DIR=/etc/aht-etl/keyz: cannot")
