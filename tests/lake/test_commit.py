"""The commit protocol: each source once, with other writers and with any answer to a put."""

import errno
import itertools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.lake.commit import Committed, commit, read_state
from etl.lake.layout import PartitionState
from etl.lake.part import PartBuilder
from etl.lake.receipts import Receipt, UnreadablePartError
from etl.model.dataset import DECODED_SCHEMA, SCHEMA, SizedBatch
from etl.storage.local import LocalStore
from etl.storage.store import AlreadyExistsError, StagedFile, StoreError

DIRECTORY = "year=2022/month=6/day=1/hour=6/accountId=le1"


def batch(path: str, rows: int) -> pa.RecordBatch:
    columns = [
        pa.array([f"{path}-{n}" for n in range(rows)], pa.string()),
        pa.array(range(rows), pa.int64()),
        *(pa.nulls(rows, field.type) for field in list(DECODED_SCHEMA)[2:]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DECODED_SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "lake")
    store.prepare()
    return store


def new_builder(store: LocalStore) -> PartBuilder:
    return PartBuilder(store.stage, "zstd", "run")


def put(store: LocalStore, state: PartitionState, sources: dict[str, int]) -> Committed:
    """Build a part of these sources (path → rows) and commit it."""
    builder = new_builder(store)
    for path, rows in sources.items():
        builder.add(Receipt(path, rows, 0, 1, "0" * 64), [SizedBatch.of(batch(path, rows))])
    return commit(store, DIRECTORY, state, builder.finish(), lambda: new_builder(store))


def path_of(result: Committed) -> str:
    """Return the name in the lake of the part that was committed."""
    assert result.part is not None
    return result.part.path


def parts(store: LocalStore) -> list[Path]:
    return sorted((store.root / DIRECTORY).iterdir())


def rows_by_source(store: LocalStore) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in parts(store):
        for path in pq.read_table(part, columns=["sourcePath"])["sourcePath"].to_pylist():
            assert path is not None
            counts[path] = counts.get(path, 0) + 1
    return counts


def staged(store: LocalStore) -> list[Path]:
    return list((store.root / "_staging").iterdir())


def test_first_part(store: LocalStore) -> None:
    """A part gets number 0 and correct receipts, and no staged file stays."""
    state = read_state(store, DIRECTORY)
    result = put(store, state, {"/a": 3, "/b": 0})
    assert path_of(result) == f"{DIRECTORY}/part-00000.parquet"
    assert [part.name for part in parts(store)] == ["part-00000.parquet"]
    assert read_state(store, DIRECTORY) == PartitionState({"/a", "/b"}, 1, None)
    assert rows_by_source(store) == {"/a": 3}
    assert staged(store) == []


def test_metadata_is_the_contracts(store: LocalStore) -> None:
    """The footer has the documented keys."""
    put(store, PartitionState(), {"/a": 1})
    metadata = pq.read_metadata(parts(store)[0]).metadata or {}
    assert {key for key in metadata if key.startswith(b"aht_etl.")} == {
        b"aht_etl.sources",
        b"aht_etl.commit",
        b"aht_etl.run",
        b"aht_etl.version",
        b"aht_etl.schema",
    }
    assert metadata[b"aht_etl.schema"] == b"1"


def test_a_part_of_files_without_rows(store: LocalStore) -> None:
    """A file with no rows gets its receipt, in a part with no rows."""
    put(store, PartitionState(), {"/a": 0})
    assert pq.read_table(parts(store)[0]).num_rows == 0
    assert pq.read_schema(parts(store)[0]) == SCHEMA
    assert read_state(store, DIRECTORY).loaded == {"/a"}


def test_the_slower_of_two_brings_the_rest(store: LocalStore) -> None:
    """Sources that another run committed are removed; the others get the next number."""
    mine, theirs = PartitionState(), PartitionState()
    put(store, theirs, {"/a": 3, "/b": 2})
    result = put(store, mine, {"/b": 2, "/c": 4})
    assert result.brought_by_others == {"/b"}
    assert [source.path for source in result.sources] == ["/c"]
    assert path_of(result) == f"{DIRECTORY}/part-00001.parquet"
    assert rows_by_source(store) == {"/a": 3, "/b": 2, "/c": 4}
    assert mine == PartitionState({"/a", "/b", "/c"}, 2, None)
    assert staged(store) == []


def test_nothing_left_to_bring(store: LocalStore) -> None:
    """If other runs committed all sources, no part is written."""
    put(store, PartitionState(), {"/a": 3, "/b": 2})
    result = put(store, PartitionState(), {"/a": 3})
    assert (result.part, result.sources) == (None, ())
    assert result.brought_by_others == {"/a"}
    assert len(parts(store)) == 1


def test_another_runs_part_without_ours(store: LocalStore) -> None:
    """A part with other sources uses a number and changes nothing else."""
    put(store, PartitionState(), {"/a": 3})
    result = put(store, PartitionState(), {"/b": 1})
    assert path_of(result) == f"{DIRECTORY}/part-00001.parquet"
    assert rows_by_source(store) == {"/a": 3, "/b": 1}


def test_what_was_learned_for_one_part_counts_for_the_next(store: LocalStore) -> None:
    """A run removes from each of its parts all sources that it has read in parts of others."""
    mine = PartitionState()
    put(store, PartitionState(), {"/a": 3, "/b": 2})
    assert put(store, mine, {"/c": 1}).brought_by_others == frozenset()
    result = put(store, mine, {"/b": 2, "/d": 1})
    assert result.brought_by_others == {"/b"}
    assert (None, {"/a"}) == (put(store, mine, {"/a": 3}).part, mine.loaded & {"/a"})
    assert rows_by_source(store) == {"/a": 3, "/b": 2, "/c": 1, "/d": 1}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_runs_that_take_turns_in_any_order(data: st.DataObject) -> None:
    """Overlapping runs may cut their parts anywhere: each source is in the lake once."""
    paths = [f"/{n}" for n in range(data.draw(st.integers(1, 8)))]
    runs = []
    for _ in range(data.draw(st.integers(2, 3))):
        order = data.draw(st.permutations(paths))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(paths)))) | {0, len(paths)})
        runs.append([order[a:b] for a, b in itertools.pairwise(cuts)])
    turns = [index for index, parts_ in enumerate(runs) for _ in parts_]
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        store.prepare()
        states = [PartitionState() for _ in runs]
        claimed: list[str] = []
        for index in data.draw(st.permutations(turns)):
            part = dict.fromkeys(runs[index].pop(0), 1)
            result = put(store, states[index], part)
            ours = {source.path for source in result.sources}
            assert set(part) == ours | result.brought_by_others
            claimed += ours
        assert sorted(paths) == sorted(claimed)
        assert rows_by_source(store) == dict.fromkeys(paths, 1)


def test_many_writers_at_once(store: LocalStore) -> None:
    """Eight writers of overlapping sources: each source is there once, numbers have no gap."""
    shares = [{f"/{n}": n % 5 for n in range(i, i + 12)} for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda share: put(store, PartitionState(), share), shares))
    claimed = [source.path for result in results for source in result.sources]
    assert sorted(claimed) == sorted({path for share in shares for path in share})
    assert rows_by_source(store) == {f"/{n}": n % 5 for n in range(19) if n % 5}
    names = [part.name for part in parts(store)]
    assert names == [f"part-{n:05d}.parquet" for n in range(len(names))]


class LosesAnswers(LocalStore):
    """Puts the file, and reports a failure."""

    def __init__(self, root: Path, refusal: type[StoreError]) -> None:
        super().__init__(root)
        self.refusal = refusal

    def create(self, staged: StagedFile, name: str) -> None:
        super().create(staged, name)
        raise self.refusal("the answer was lost")


@pytest.mark.parametrize("refusal", [StoreError, AlreadyExistsError])
def test_a_lost_answer_is_no_lost_part(store: LocalStore, refusal: type[StoreError]) -> None:
    """The bytes show that a put that seemed to fail has succeeded."""
    result = put(LosesAnswers(store.root, refusal), PartitionState(), {"/a": 3})
    assert path_of(result) == f"{DIRECTORY}/part-00000.parquet"
    assert result.brought_by_others == frozenset()
    assert rows_by_source(store) == {"/a": 3}


class RefusesTwice(LocalStore):
    """Reports that the name exists although it does not, as S3's 409 does."""

    refusals = 2

    def create(self, staged: StagedFile, name: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise AlreadyExistsError("409")
        super().create(staged, name)


def test_a_refusal_with_nothing_there_is_asked_again(store: LocalStore) -> None:
    """The same number is tried again while no part has it."""
    refusing = RefusesTwice(store.root)
    result = put(refusing, PartitionState(), {"/a": 3})
    assert path_of(result) == f"{DIRECTORY}/part-00000.parquet"
    refusing.refusals = 100
    with pytest.raises(StoreError, match="the store says that it exists, but it does not"):
        put(refusing, PartitionState({"/a"}, 1), {"/b": 1})
    assert staged(store) == []


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", None])
def test_damaged_parts_stop_their_partition(store: LocalStore, content: bytes | None) -> None:
    """A part that cannot be read, or has no receipts, is never treated as absent."""
    put(store, PartitionState(), {"/a": 3})
    damaged = store.root / DIRECTORY / "part-00001.parquet"
    if content is None:
        pq.write_table(pa.table({"x": [1]}), damaged)
    else:
        damaged.write_bytes(content)
    state = read_state(store, DIRECTORY)
    assert state.loaded == {"/a"}
    assert state.damage is not None
    assert "part-00001.parquet" in state.damage
    with pytest.raises(UnreadablePartError):
        put(store, PartitionState({"/a"}, 1), {"/b": 1})
    assert len(parts(store)) == 2
    assert staged(store) == []


def test_foreign_files_are_left_alone(store: LocalStore) -> None:
    """Files that are not parts are not read, counted or changed."""
    put(store, PartitionState(), {"/a": 1})
    foreign = store.root / DIRECTORY / "theirs.parquet"
    foreign.write_bytes(b"theirs")
    assert read_state(store, DIRECTORY) == PartitionState({"/a"}, 1, None)
    assert foreign.read_bytes() == b"theirs"


def test_numbers_go_on_behind_the_highest(store: LocalStore) -> None:
    """The number of a part that an operator deleted is not used again."""
    put(store, PartitionState(), {"/a": 1})
    put(store, read_state(store, DIRECTORY), {"/b": 1})
    parts(store)[0].unlink()
    result = put(store, read_state(store, DIRECTORY), {"/a": 1})
    assert path_of(result) == f"{DIRECTORY}/part-00002.parquet"


@pytest.fixture
def no_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_hard_links")
def test_disks_without_hard_links(store: LocalStore) -> None:
    """Without hard links, a rename that does not replace does the same."""
    put(store, PartitionState(), {"/a": 3})
    result = put(store, PartitionState(), {"/a": 3, "/b": 2})
    assert result.brought_by_others == {"/a"}
    assert rows_by_source(store) == {"/a": 3, "/b": 2}
    assert staged(store) == []


def test_leftovers_go_unless_somebody_writes_them(store: LocalStore) -> None:
    """A killed run's staged file is removed by a later run; one in use is not."""
    leftover = store.root / "_staging" / ".dead.tmp"
    leftover.write_bytes(b"half a part")
    alive = store.stage()
    store.clean_up()
    assert not leftover.exists()
    assert alive.path.exists()
    alive.close()
    assert staged(store) == []


def test_a_lake_that_is_no_folder(tmp_path: Path) -> None:
    """A lake that cannot be used is an error before anything is fetched."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        LocalStore(tmp_path / "file").check_readable()
    with pytest.raises(StoreError, match="file"):
        LocalStore(tmp_path / "file").prepare()


def test_order_of_effects(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are synced before the name appears, and the folder afterwards."""
    effects: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        effects.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        real_fsync(descriptor)

    def link(source: Path, target: Path) -> None:
        effects.append("link")
        real_link(source, target)

    put(store, PartitionState(), {"/x": 1})  # the folders are there from now on
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    put(store, PartitionState({"/x"}, 1), {"/a": 1})
    assert effects == ["sync .tmp", "link", "sync "]


def test_folders_that_others_made(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their maker may not have synced their names yet: each is synced once, the deepest first."""
    put(store, PartitionState(), {"/x": 1})
    other = LocalStore(store.root)
    synced: list[Path] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            synced.append(path)
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    put(other, PartitionState({"/x"}, 1), {"/a": 1})
    (folder,) = {part.parent for part in store.root.rglob("*.parquet")}
    parents = [parent for parent in folder.parents if parent.is_relative_to(store.root)]
    assert [folder, *parents] == synced
    del synced[:]
    put(other, PartitionState({"/x", "/a"}, 2), {"/b": 1})
    assert [folder] == synced
