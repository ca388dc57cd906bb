"""Keys that are not in the options come from the environment or from the machine's identity."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from etl.emulator import Dataset
from tests.conftest import Runner, Serve
from tests.storage.conftest import SECRETS, Bucket

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 3, tzinfo=UTC)
DATA = Dataset.generate(5, START, END, rows_per_file=40)
GIVEN = {
    "Code": "Success",
    "Type": "AWS-HMAC",
    "AccessKeyId": "ASIAINVENTED",
    "SecretAccessKey": "invented-secret-of-an-instance",
    "Token": "invented-token-of-an-instance",
    "LastUpdated": "2022-06-01T00:00:00Z",
    "Expiration": "2199-01-01T00:00:00Z",
}


@dataclass
class Metadata:
    """A metadata service, as EC2 and EKS have it."""

    url: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    service = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            service.asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "PUT":
                body = b"session"
            elif self.path.endswith("security-credentials/"):
                body = b"the-role"
            else:
                body = json.dumps(GIVEN).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = _answer  # noqa: N815 - the names that are called

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield service
        server.shutdown()
        thread.join()


def without_keys(bucket: Bucket) -> dict[str, str]:
    options = {
        name: value
        for name, value in bucket.options.items()
        if name not in SECRETS[bucket.kind] and name != "endpoint"
    }
    return {"AHT_ETL_LAKE__OPTIONS": json.dumps(options)}


def load(run: Runner, serve: Serve, bucket: Bucket, **env: str) -> None:
    window = ("--from", "2022-06-01", "--to", "2022-06-03")
    ended = run(serve(DATA), "--lake", bucket.uri, *window, **without_keys(bucket), **env)
    assert 0 == ended.code, ended.err
    bucket.assert_holds(DATA)


def test_the_environment(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """By the names that each cloud's own tools have."""
    url = bucket.options["endpoint"]
    env = {
        "s3": {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "AKIAINVENTED",
            "AWS_SECRET_ACCESS_KEY": "invented-secret-of-a-test",
        },
        "gs": {"GOOGLE_BASE_URL": url, "GOOGLE_BEARER_TOKEN": "invented-token-of-a-test"},
        "az": {
            "AZURE_STORAGE_ENDPOINT": url,
            "AZURE_STORAGE_ACCOUNT_KEY": SECRETS["az"]["account_key"],
        },
    }
    load(run, serve, bucket, **env[bucket.kind])


def test_the_instances_role(run: Runner, serve: Serve, s3: Bucket, metadata: Metadata) -> None:
    """Asked for with a session, as AWS recommends."""
    url = s3.options["endpoint"]
    load(run, serve, s3, AWS_ENDPOINT_URL=url, AWS_METADATA_ENDPOINT=metadata.url)
    assert "PUT /latest/api/token" == metadata.asked[0]
    assert metadata.asked[-1].endswith("/security-credentials/the-role")


def test_the_pods_role(
    run: Runner, serve: Serve, s3: Bucket, metadata: Metadata, tmp_path: Path
) -> None:
    """By the URL and the token that EKS Pod Identity puts into a container."""
    token = tmp_path / "token"
    token.write_text("invented")
    load(
        run,
        serve,
        s3,
        AWS_ENDPOINT_URL=s3.options["endpoint"],
        AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{metadata.url}/v1/credentials",
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token),
    )
    assert ["GET /v1/credentials"] == sorted(set(metadata.asked))
