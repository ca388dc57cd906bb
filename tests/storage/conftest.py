"""Each kind of object store, with a bucket of its own for each test."""

import json
import os
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.emulator import Dataset
from etl.storage.objects import ObjectStore
from etl.storage.places import Place
from tests.lakes import TIMESTAMPS, Row, counted, expected
from tests.storage.proxy import Proxy, proxied
from tests.storage.servers import (
    AZURE_ACCOUNT,
    AZURE_KEY,
    azurite,
    moto,
    new_bucket,
    new_container,
)

KINDS = ("s3", "gs", "az")
SECRETS = {
    "s3": {"access_key_id": "AKIAINVENTED", "secret_access_key": "invented-secret-of-a-test"},
    "gs": {"bearer_token": "invented-token-of-a-test"},
    "az": {"account_key": AZURE_KEY},
}


@dataclass
class Bucket:
    """A bucket, or a container, behind a proxy of its own."""

    proxy: Proxy
    kind: str
    name: str
    options: dict[str, str]
    prefix: str = "some/lake"
    #: The variables of a run into it, in addition to its URI.
    env: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.env = {"AHT_ETL_LAKE__OPTIONS": json.dumps(self.options)}

    @property
    def uri(self) -> str:
        return f"{self.kind}://{self.name}/{self.prefix}"

    def store(self, *, patient: bool = True, **options: str) -> ObjectStore:
        return ObjectStore(Place.parse(self.uri), {**self.options, **options}, patient=patient)

    @property
    def client(self) -> Any:
        """Obstore's own view of the whole bucket."""
        return ObjectStore(Place.parse(f"{self.kind}://{self.name}"), self.options)._store

    def put_raw(self, name: str) -> None:
        """Make an empty object in moto's server, whatever its name."""
        url = f"http://127.0.0.1:{self.proxy.upstream}/{self.name}/{name}"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"")):
            pass

    def objects(self) -> list[str]:
        return sorted(each["path"] for each in obstore.list(self.client).collect())

    def parts(self) -> list[str]:
        return [
            name
            for name in self.objects()
            if name.endswith(".parquet") and name.startswith(f"{self.prefix}/year=")
        ]

    def read(self, name: str) -> bytes:
        return bytes(obstore.get(self.client, name).bytes())

    def rows(self) -> Counter[Row]:
        """Return every row of every part, read by pyarrow from obstore's bytes."""
        found: list[dict[str, Any]] = []
        for name in self.parts():
            table = pq.read_table(pa.BufferReader(self.read(name)))
            for column in TIMESTAMPS:
                index = table.column_names.index(column)
                table = table.set_column(index, column, table[column].cast(pa.int64()))
            folders = name.removeprefix(f"{self.prefix}/").split("/")[:-1]
            keys = dict(folder.split("=", 1) for folder in folders)
            found += [{**row, **keys} for row in table.to_pylist()]
        return counted(found)

    def receipts(self) -> list[str]:
        """Return the source of every receipt."""
        found: list[str] = []
        for name in self.parts():
            metadata = pq.read_metadata(pa.BufferReader(self.read(name))).metadata or {}
            found += [source["path"] for source in json.loads(metadata[b"aht_etl.sources"])]
        return sorted(found)

    def assert_holds(self, dataset: Dataset) -> None:
        """Compare the whole lake with the dataset, row by row."""
        assert sorted(dataset.files) == self.receipts()
        assert expected(dataset) == self.rows()
        # Readers skip all other objects.
        others = set(self.objects()) - set(self.parts())
        below = {name.removeprefix(f"{self.prefix}/") for name in others}
        assert all(name.startswith("_") and not name.endswith(".parquet") for name in below)


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    with moto() as port:
        yield port


@pytest.fixture(scope="session")
def azurite_port() -> Iterator[int]:
    with azurite() as port:
        yield port


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on this machine's settings for a cloud."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)


def _bucket(kind: str, port: int, proxy: Proxy) -> Bucket:
    # Letters only: the requests for Google quote what moto does not unquote.
    name = f"bucket{uuid.uuid4().hex[:12]}"
    if kind == "az":
        new_container(port, name)
        endpoint = f"{proxy.url}/{AZURE_ACCOUNT}"
        own = {"account_name": AZURE_ACCOUNT, "endpoint": endpoint}
    else:
        new_bucket(port, name)
        own = {"endpoint": proxy.url, **({"region": "eu-west-1"} if kind == "s3" else {})}
    return Bucket(proxy, kind, name, {**own, **SECRETS[kind]})


@pytest.fixture(params=KINDS)
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """Make a bucket of each kind."""
    port = request.getfixturevalue("azurite_port" if request.param == "az" else "moto_port")
    with proxied(port, google=request.param == "gs") as proxy:
        yield _bucket(request.param, port, proxy)


@pytest.fixture
def s3(moto_port: int) -> Iterator[Bucket]:
    """Make a bucket of S3."""
    with proxied(moto_port) as proxy:
        yield _bucket("s3", moto_port, proxy)


@pytest.fixture
def azure(azurite_port: int) -> Iterator[Bucket]:
    """Make a container of Azure."""
    with proxied(azurite_port) as proxy:
        yield _bucket("az", azurite_port, proxy)
