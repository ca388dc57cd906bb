"""The pods of configs/kubernetes run as a kubelet starts them: same image, arguments, mounts."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from etl.emulator import Dataset, Emulator
from tests.conftest import Serve
from tests.container.conftest import Contain
from tests.container.containers import Container
from tests.kubernetes.manifests import config_map, container, job, pod, quantity, variables
from tests.lakes import assert_lake_holds
from tests.pods import reason
from tests.storage.conftest import SECRETS, Bucket
from tests.storage.proxy import proxied
from tests.storage.servers import moto, new_bucket

pytestmark = pytest.mark.timeout(900)

DATA = Dataset.generate(
    7, datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=20
)
SCHEDULED = "overlays/volume"
BACKFILL = "overlays/volume-backfill"
WINDOW = {"AHT_ETL_WINDOW__FROM": "2022-06-01", "AHT_ETL_WINDOW__TO": "2022-06-03"}


def containing(
    contain: Contain, name: str, emulator: Emulator, *more: tuple[str, str]
) -> Container:
    """Return a container like the pod of an overlay, with its configuration and keys.

    `more` are mounts that the cluster adds.
    """
    only, context = container(name), pod(name)["securityContext"]
    one = contain(
        user=f"{context['runAsUser']}:{context['runAsGroup']}",
        mounts=(*((each["name"], each["mountPath"]) for each in only["volumeMounts"]), *more),
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
    """Return the arguments, in which a kubelet has replaced variables, and the variables."""
    own = {"AHT_ETL_ACCOUNT": "le79344075", "AHT_ETL_API__BASE_URL": emulator.base_url}
    found = {**variables(name, SCHEDULED), **own, **more}
    arguments = container(name)["args"]
    return [re.sub(r"\$\((\w+)\)", lambda m: found[m[1]], each) for each in arguments], found


def test_the_scheduled_pod(contain: Contain, serve: Serve) -> None:
    """It loads all listed files. A second pod loads nothing twice."""
    emulator = serve(DATA, auth="oauth1")
    arguments, found = command(SCHEDULED, emulator, **WINDOW)
    one = containing(contain, SCHEDULED, emulator)
    for _ in range(2):
        ended = one.run(*arguments, **found)
        assert 0 == ended.code, ended.err
        assert_lake_holds(one.lake, DATA)
    assert len(DATA.files) == emulator.count("file")


def test_the_pods_of_a_backfill(contain: Contain, serve: Serve) -> None:
    """Each pod of the Job has its own share. Together they load each file once."""
    emulator = serve(DATA, auth="oauth1")
    one = containing(contain, BACKFILL, emulator)
    for index in range(job(BACKFILL)["completions"]):
        arguments, found = command(BACKFILL, emulator, JOB_COMPLETION_INDEX=str(index))
        ended = one.run(*arguments, **found)
        assert 0 == ended.code, ended.err
    assert_lake_holds(one.lake, DATA)
    assert len(DATA.files) == emulator.count("file")


def test_a_pod_with_workload_identity(contain: Contain, serve: Serve) -> None:
    """With EKS Pod Identity, a token in a file gets the bucket's keys. No manifest has keys."""
    token, place = "invented-token-of-a-pod", "/var/run/secrets/pods.eks.amazonaws.com"
    emulator = serve(DATA, auth="oauth1")
    one = containing(contain, "overlays/aws", emulator, ("token", place))
    (one.folder / "token").mkdir()
    (one.folder / "token" / "token").write_text(token)
    with moto() as port, proxied(port) as proxy, agent(token) as keys:
        new_bucket(port, "my-bucket")
        reader = {"region": "eu-west-1", "endpoint": proxy.url, **SECRETS["s3"]}
        bucket = Bucket(proxy, "s3", "my-bucket", reader, prefix="aht")
        arguments, found = command(
            "overlays/aws",
            emulator,
            **WINDOW,
            AWS_REGION="eu-west-1",
            AWS_ENDPOINT_URL=proxy.url,
            AWS_CONTAINER_CREDENTIALS_FULL_URI=keys,
            AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=f"{place}/token",
        )
        ended = one.run(*arguments, **found)
        assert 0 == ended.code, ended.err
        bucket.assert_holds(DATA)
    assert token not in ended.err
    assert [] == [*one.scratch.iterdir(), *one.lake.iterdir()]


@contextmanager
def agent(token: str) -> Iterator[str]:
    """Run an agent like that of an EKS node, which returns keys for the token; yield its URL."""

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == token else 401)
            self.end_headers()
            keys = SECRETS["s3"]
            answer = {
                "AccessKeyId": keys["access_key_id"],
                "SecretAccessKey": keys["secret_access_key"],
                "Token": "invented-session",
                "AccountId": "111122223333",
                "Expiration": "2099-01-01T00:00:00Z",
            }
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/credentials"
        finally:
            server.shutdown()
            thread.join()


def test_without_mounted_keys(contain: Contain, serve: Serve) -> None:
    """The pod's message names the folder. The exit code is 2, so the cluster does not retry."""
    emulator = serve(DATA, auth="oauth1")
    one = containing(contain, SCHEDULED, emulator)
    arguments, found = command(SCHEDULED, emulator, AHT_ETL_SECRETS_DIR="/etc/aht-etl/keyz")
    ended = one.run(*arguments, **found)
    assert 2 == ended.code
    assert reason(ended.err).startswith(
        "wrong usage: AHT_ETL_SECRETS_DIR=/etc/aht-etl/keyz: cannot"
    )
