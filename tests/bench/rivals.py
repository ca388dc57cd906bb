"""Alternatives: each loads the files that a server lists into Parquet, one folder per hour.

Run each as a process: `python -m tests.bench.rivals NAME BASE_URL DAYS LAKE`. None of them retries,
checks its input, keeps bad rows, commits atomically or remembers loaded files.
"""

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from etl.model.times import to_millis
from tests.bench.workload import ACCOUNT, START

_COLUMNS: Final = (
    "{segmentId: 'VARCHAR', sequence: 'BIGINT', startReason: 'VARCHAR', endReason: 'VARCHAR', "
    "startTimestamp: 'BIGINT', endTimestamp: 'BIGINT', insertTimestamp: 'BIGINT', "
    "handleTimeMillis: 'BIGINT'}"
)
# The fastest way: times stay integers, while the other programs make timestamps.
_SELECT: Final = """
SELECT *
FROM read_ndjson({files}, columns = {columns}, compression = 'gzip', filename = 'sourcePath',
    hive_partitioning = true, hive_types = {{'accountId': VARCHAR}})
"""
_COPY: Final = """
COPY ({select}) TO '{lake}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1,
    PARTITION_BY (year, month, day, hour, accountId))
"""


def _listings(base: str, days: int) -> list[str]:
    """Return the listing URLs of the server, one per day."""
    api = f"{base}/api/account/{ACCOUNT}/agent-segments/breakdown?source=bench"
    midnights = [to_millis(START + timedelta(days=day)) for day in range(days + 1)]
    return [f"{api}&fromMillis={first}&toMillis={end}" for first, end in pairwise(midnights)]


def _listed(base: str, days: int) -> list[str]:
    """Request the listings of all days at once."""
    from urllib.request import urlopen

    def ask(url: str) -> list[str]:
        with urlopen(url) as answer:
            files: list[str] = json.load(answer)["files"]
            return files

    with ThreadPoolExecutor(days) as pool:
        return [path for files in pool.map(ask, _listings(base, days)) for path in files]


def _duckdb(files: list[str], lake: str, threads: int, *, httpfs: bool) -> None:
    import duckdb

    connection = duckdb.connect()
    if httpfs:
        import duckdb_extension_httpfs

        (extension,) = Path(duckdb_extension_httpfs.__file__).parent.rglob("*.duckdb_extension")
        connection.execute(f"LOAD '{extension}'")
        connection.execute("SET http_keep_alive = true")
        connection.execute("SET enable_http_metadata_cache = true")
    connection.execute(f"SET threads = {threads}")
    connection.execute("SET preserve_insertion_order = false")
    select = _SELECT.format(files=files, columns=_COLUMNS)
    connection.execute(_COPY.format(select=select, lake=lake))


def duckdb_httpfs(base: str, days: int, lake: str) -> None:
    """DuckDB alone, with a thread for each core."""
    files = [base + path for path in _listed(base, days)]
    _duckdb(files, lake, len(os.sched_getaffinity(0)), httpfs=True)


def duckdb_httpfs_32(base: str, days: int, lake: str) -> None:
    """DuckDB alone, with enough threads to wait for a slow server in parallel."""
    files = [base + path for path in _listed(base, days)]
    _duckdb(files, lake, 32, httpfs=True)


def aria2_duckdb(base: str, days: int, lake: str) -> None:
    """aria2c to disk, 16 files at once, then DuckDB."""
    if not shutil.which("aria2c"):
        subprocess.run(["apt-get", "install", "-y", "-qq", "aria2"], check=True)
    paths = _listed(base, days)
    with tempfile.TemporaryDirectory() as folder:
        lines = "".join(f"{base}{path}\n  out={path[1:]}\n" for path in paths)
        subprocess.run(
            ["aria2c", "-q", "-j16", "-x1", "--file-allocation=none", f"--dir={folder}", "-i-"],
            input=lines,
            text=True,
            check=True,
        )
        files = [folder + path for path in paths]
        _duckdb(files, lake, len(os.sched_getaffinity(0)), httpfs=False)


def aiohttp_pyarrow(base: str, days: int, lake: str) -> None:
    """Run a carefully written script: 16 downloads at once, isal and pyarrow.json in threads."""
    asyncio.run(_aiohttp_pyarrow(base, days, lake))


async def _aiohttp_pyarrow(base: str, days: int, lake: str) -> None:
    import aiohttp
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq
    from isal import igzip

    timestamp: Any = pa.timestamp("ms", tz="UTC")
    plain = pa.schema(
        [  # type: ignore[arg-type]  # types of several kinds
            ("segmentId", pa.string()),
            ("sequence", pa.int64()),
            ("startReason", pa.string()),
            ("endReason", pa.string()),
            ("startTimestamp", pa.int64()),
            ("endTimestamp", pa.int64()),
            ("insertTimestamp", pa.int64()),
            ("handleTimeMillis", pa.int64()),
        ]
    )
    parsing = pj.ParseOptions(explicit_schema=plain, unexpected_field_behavior="ignore")

    def parse(body: bytes, path: str) -> Any:
        text = igzip.decompress(body)  # type: ignore[no-untyped-call]
        reading = pj.ReadOptions(use_threads=False, block_size=len(text) + 1)
        table = pj.read_json(io.BytesIO(text), reading, parsing)
        for name in ("startTimestamp", "endTimestamp", "insertTimestamp"):
            index = table.column_names.index(name)
            table = table.set_column(index, name, table[name].cast(timestamp))
        source = pa.repeat(pa.scalar(path), len(table))
        return table.append_column("sourcePath", source)

    def write(tables: list[Any], folder: str) -> None:
        Path(folder).mkdir(parents=True)
        table = pa.concat_tables(tables)
        pq.write_table(table, f"{folder}/part.parquet", compression="zstd")

    by_hour: dict[str, list[str]] = defaultdict(list)
    places = asyncio.Semaphore(16)
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def listed(url: str) -> list[str]:
            async with session.get(url) as answer:
                files: list[str] = (await answer.json(content_type=None))["files"]
                return files

        async def load(path: str) -> Any:
            async with places:
                url = f"{base}/api/account/{ACCOUNT}/agent-segments/files?path={path}&source=bench"
                async with session.get(url) as answer:
                    body = await answer.read()
            return await loop.run_in_executor(pool, parse, body, path)

        async def load_hour(folder: str, files: list[str]) -> None:
            tables = await asyncio.gather(*(load(path) for path in files))
            await loop.run_in_executor(pool, write, list(tables), lake + folder)

        for files in await asyncio.gather(*map(listed, _listings(base, days))):
            for path in files:
                by_hour[path.rpartition("/")[0]].append(path)
        await asyncio.gather(*(load_hour(folder, files) for folder, files in by_hour.items()))


RIVALS: Final[dict[str, Callable[[str, int, str], None]]] = {
    "DuckDB httpfs": duckdb_httpfs,
    "DuckDB httpfs, 32 threads": duckdb_httpfs_32,
    "aria2c + DuckDB": aria2_duckdb,
    "aiohttp + pyarrow script": aiohttp_pyarrow,
}

if __name__ == "__main__":
    name, base_url, count, target = sys.argv[1:]
    RIVALS[name](base_url, int(count), target)
