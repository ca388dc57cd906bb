"""Object stores: names, ranges, creation, for each kind."""

import io
import os
from contextlib import closing
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from etl.storage.objects import ObjectStore
from etl.storage.store import AlreadyExistsError, StoreError, create_new
from tests.storage.conftest import Bucket
from tests.storage.proxy import CONFLICT, Fault, puts

HOUR = "year=2022/month=6/day={}/hour={}/accountId=a1"


def put(store: ObjectStore, name: str, content: bytes, *, replace: bool = False) -> None:
    staged = store.stage()
    try:
        staged.stream.write(content)
        (store.replace if replace else store.create)(staged, name)
    finally:
        staged.close()


def created(store: ObjectStore, name: str, content: bytes) -> bool:
    with closing(store.stage()) as staged:
        staged.stream.write(content)
        return create_new(store, staged, name)


def walked(store: ObjectStore, folder: str = "") -> list[str]:
    return [file.name for file in store.walk(_raise, folder)]


def _raise(_: str, error: StoreError) -> None:
    raise error


def test_created_once_and_replaced(bucket: Bucket) -> None:
    """The second creation of a name fails; `replace` replaces."""
    store = bucket.store()
    put(store, "a/b.parquet", b"first")
    with pytest.raises(AlreadyExistsError):
        put(store, "a/b.parquet", b"second")
    assert b"first" == store.open("a/b.parquet").read()
    put(store, "a/b.parquet", b"third", replace=True)
    assert b"third" == store.open("a/b.parquet").read()
    assert 5 == store.stat("a/b.parquet").bytes
    put(store, "a/empty.parquet", b"")
    assert b"" == store.open("a/empty.parquet").read()
    for look in (store.open, store.stat):
        with pytest.raises(FileNotFoundError):
            look("a/none")


def test_a_root_exists_with_its_first_object(bucket: Bucket) -> None:
    """A root without objects does not exist."""
    store = bucket.store()
    assert not store.check_readable()
    put(store, "a/b.parquet", b"x")
    assert store.check_readable()


def test_names_and_walk(bucket: Bucket) -> None:
    """Hidden names are skipped; a folder's own files come first, then its folders in order."""
    store = bucket.store()
    names = [
        "b.parquet",
        "a=1/x=2/f.parquet",
        "a=1/z.parquet",
        "a=10/f.parquet",
        "a=1/_h/f.txt",
        "a=1/_f",
    ]
    hidden = ["_f", "_quarantine/a=1/f.ndjson", ".h/f.txt"]
    for name in (*names, *hidden):
        put(store, name, b"x")
    assert [
        "b.parquet",
        "a=1/_f",
        "a=1/z.parquet",
        "a=1/x=2/f.parquet",
        "a=10/f.parquet",
    ] == walked(store)
    assert ["_quarantine/a=1/f.ndjson"] == walked(store, "_quarantine")
    assert ["_f", "_h", "x=2", "z.parquet"] == store.names("a=1")
    assert [] == store.names("none")
    assert [".h", "_f", "_quarantine", "a=1", "a=10", "b.parquet"] == store.names("")


def test_several_partitions_are_listed_by_day(bucket: Bucket) -> None:
    """With one request for each day; each name belongs to its partition."""
    store = bucket.store()
    partitions = [HOUR.format(day, hour) for day in (1, 2, 10) for hour in range(3)]
    for partition in partitions[1:]:
        put(store, f"{partition}/part-00000.parquet", b"x")
    bucket.proxy.seen.clear()
    found = store.names_of(partitions)
    assert {p: ["part-00000.parquet"] for p in partitions[1:]} | {partitions[0]: []} == found
    assert 3 == len(bucket.proxy.seen)


def test_a_year_is_walked_month_by_month(s3: Bucket) -> None:
    """Only one month is held in memory; the order is that of any walk."""
    store = s3.store()
    names = [f"year=2022/month={month}/day=1/f" for month in (10, 6)]
    for name in (*names, "year=2022/f", "year=2022/_h/f"):
        put(store, name, b"x")
    s3.proxy.seen.clear()
    assert ["year=2022/f", *names] == walked(store)
    assert 4 == len(s3.proxy.seen)


def test_markers_of_folders_are_no_files(s3: Bucket) -> None:
    """Consoles and Hadoop mark a folder by an empty object of its name and a slash."""
    store = s3.store()
    put(store, "a=1/f.parquet", b"x")
    for marker in ("", "a=1/", "b=2/"):
        s3.put_raw(f"{s3.prefix}/{marker}")
    assert ["a=1/f.parquet"] == walked(store)
    assert ["f.parquet"] == store.names("a=1")
    assert ["a=1", "b=2"] == store.names("")


def test_a_listing_of_many_pages(s3: Bucket) -> None:
    """More objects than a store lists at once."""
    for number in range(1100):
        obstore.put(s3.client, f"{s3.prefix}/a/{number:04}.parquet", b"x")
    assert [f"a/{number:04}.parquet" for number in range(1100)] == walked(s3.store())


def test_a_footer_is_one_small_request(bucket: Bucket) -> None:
    """Only the end of a listed part is read; its rows come in large pieces."""
    rows = pa.table({"a": range(300_000), "b": [f"{n * 7919:x}" for n in range(300_000)]})
    file = io.BytesIO()
    pq.write_table(rows, file, row_group_size=100_000)
    store = bucket.store()
    name = f"{HOUR.format(1, 1)}/part-00000.parquet"
    put(store, name, file.getvalue())
    store.names_of([HOUR.format(1, 1)])
    bucket.proxy.seen.clear()
    with store.open(name) as stream:
        assert 300_000 == pq.read_metadata(stream).num_rows
        (seen,) = bucket.proxy.seen
        assert ("GET", 64 * 1024) == (seen.method, seen.answer_bytes)
        stream.seek(0)
        assert rows.equals(pq.ParquetFile(stream).read())
    assert len(bucket.proxy.seen) <= 2 + len(file.getvalue()) // (4 * 2**20)


def test_a_store_that_cannot_read_from_the_end(s3: Bucket) -> None:
    """It answers with the whole object; then the size is requested, and the last bytes by range."""
    content = os.urandom(200_000)
    store = s3.store()
    put(store, "f", content)

    def ends(request: web.Request) -> bool:
        return request.headers.get("Range", "").startswith("bytes=-")

    s3.proxy.faults.append(Fault(ends, 1000, strip=("range",)))
    assert content == store.open("f").read()


def test_any_piece_in_any_order(bucket: Bucket) -> None:
    """Reads at the end, across two pieces and from the start return the object's bytes."""
    content = bytes(range(256)) * 20_000  # over five million
    store = bucket.store()
    put(store, "f", content)
    with store.open("f") as stream:
        for start, length in ((-10, 10), (0, 5), (4_190_000, 9_000), (5_054_000, 5_000), (7, 99)):
            stream.seek(start, io.SEEK_END if start < 0 else io.SEEK_SET)
            assert content[start:][:length] == stream.read(length)
        stream.seek(0)
        assert content == stream.read()
        assert len(content) == stream.tell()


def gets(request: web.Request) -> bool:
    return request.method == "GET"


@pytest.mark.parametrize("reset", [False, True])
def test_answers_that_break_off(bucket: Bucket, reset: bool) -> None:
    """They are requested again, from the same object."""
    content = os.urandom(6_000_000)
    store = bucket.store()
    put(store, "f", content)
    bucket.proxy.faults.append(Fault(gets, 3, cut_answer=True, reset=reset))
    with store.open("f") as stream:
        assert content == stream.read()
    bucket.proxy.faults.append(Fault(gets, 2, cut_answer=True, reset=reset))
    assert ["f"] == store.names("")


def test_a_lost_answer_to_a_replacement(bucket: Bucket) -> None:
    """It is sent again with the same content."""
    store = bucket.store()
    put(store, "f", b"old")
    bucket.proxy.faults.append(Fault(lambda request: request.method == "PUT", 2, lose_answer=True))
    put(store, "f", b"new", replace=True)
    assert b"new" == store.open("f").read()


def test_an_object_that_is_replaced_while_it_is_read(s3: Bucket) -> None:
    """A mixture of two objects is never returned."""
    store = s3.store()
    put(store, "f", b"a" * 5_000_000)
    with store.open("f") as stream:
        put(store, "f", b"b" * 5_000_000, replace=True)
        with pytest.raises(StoreError, match="replaced meanwhile"):
            stream.read()


def test_an_object_that_grew_since_it_was_listed(azure: Bucket) -> None:
    """Azure's end is requested by the size in the listing; a newer size is noticed."""
    store = azure.store()
    for content in (b"long" * 20_000, b"short", b"", b"longer" * 20_000):
        put(store, "a/b/f.txt", content, replace=True)
        assert content == store.open("a/b/f.txt").read()
        store.names("a/b")


def test_a_conflict_is_tried_again(s3: Bucket) -> None:
    """S3's 409 stores nothing; a 409 that stays is an error, not another run's success."""
    store = s3.store()
    s3.proxy.faults.append(Fault(puts, 2, answer=CONFLICT))
    assert created(store, "a.parquet", b"x")
    s3.proxy.faults.append(Fault(puts, 100, answer=CONFLICT))
    with pytest.raises(StoreError, match="409 ConditionalRequestConflict") as caught:
        created(store, "b.parquet", b"x")
    assert not isinstance(caught.value, AlreadyExistsError)


def test_a_large_part_has_more_time(s3: Bucket) -> None:
    """200 MB are put in one request, which has a longer limit than a small one."""
    store = s3.store()
    piece = bytes(2**20)
    staged = store.stage()
    for _ in range(200):
        staged.stream.write(piece)
    store.create(staged, "large.parquet")
    staged.close()
    (seen,) = s3.proxy.of("PUT")
    assert 200 * 2**20 == seen.body_bytes
    assert 200 * 2**20 == store.stat("large.parquet").bytes
    limits = [store._connection.for_bytes(size).client_options for size in (1, 200 * 2**20)]
    assert ["30s", "480s"] == [options["timeout"] for options in limits]


def test_a_put_that_takes_longer_than_its_limit(s3: Bucket) -> None:
    """It may be stored later, and a look at the name finds it."""
    store = s3.store(timeout="1s")
    s3.proxy.faults.append(Fault(puts, 1, delay_s=2))
    assert created(store, "late.parquet", b"x")
    assert b"x" == store.open("late.parquet").read()


def test_a_put_that_takes_long_is_not_repeated(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one may take eight minutes to fail: a network that cannot carry it fails it once."""
    monkeypatch.setattr("etl.storage.objects.REQUEST_S", 0.5)
    fault = Fault(puts, 100, break_body=True, delay_s=1)
    s3.proxy.faults.append(fault)
    with pytest.raises(StoreError, match="broke the connection"):
        created(s3.store(patient=False), "large.parquet", b"x")
    assert fault.times == 99


def test_nothing_is_left_in_the_temporary_folder(
    s3: Bucket, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged files have no name, so that a killed process leaves nothing."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    staged = s3.store().stage()
    staged.stream.write(b"x" * 100_000)
    assert [] == list(tmp_path.iterdir())
    assert staged.path.exists()
    staged.close()
