"""Statements that make a lake, or its coarse copy, a table in a query engine.

`read_facts` reads the accounts, years and spellings of a lake, and `statement` writes the statement
from them. Nothing here connects to an engine. The sources are the documents of the engines:

- Athena: "Supported types for partition projection" (`integer` without `digits` does not pad),
  "Set up partition projection" (`storage.location.template`). `MSCK REPAIR TABLE` does not
  work: it skips keys that are not all lower case, such as `accountId`.
- Trino: Hive connector, "Partition projection".
- BigQuery: "Manage external Hive partitioned data", the schema in `WITH PARTITION COLUMNS`.
- Snowflake: `CREATE EXTERNAL TABLE`, partitions computed from `METADATA$FILENAME`.
- ClickHouse: `use_hive_partitioning`. DuckDB: "Hive Partitioning", `hive_types`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from etl.lake.layout import read_layout
from etl.model.dataset import INTEGER_COLUMNS, SCHEMA, TIMESTAMP_COLUMNS
from etl.model.errors import RunError, UsageError
from etl.storage.places import Place, is_remote
from etl.storage.store import Store

# A projection needs a last year: this many years after the newest one in the lake.
_YEARS_AHEAD: Final = 10
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_]*){0,2}")
_RANGES: Final = {"month": (1, 12), "day": (1, 31), "hour": (0, 23)}


class Engine(StrEnum):
    """The engines for which there is a statement."""

    ATHENA = "athena"
    TRINO = "trino"
    SPARK = "spark"
    DATABRICKS = "databricks"
    BIGQUERY = "bigquery"
    SNOWFLAKE = "snowflake"
    CLICKHOUSE = "clickhouse"
    DUCKDB = "duckdb"


@dataclass(frozen=True, slots=True)
class Dialect:
    """An engine's types, its lines of a column and of a partition key, and its statement.

    `statement` (the function) and `_key_line` fill the places in braces.
    """

    text: str
    integer: str
    timestamp: str
    key: str
    statement: str
    column_line: str = "{name} {type}"
    key_line: str = "{name} {type}"
    between_columns: str = ",\n  "
    between_keys: str = ", "


_SPARK: Final = Dialect(
    "STRING", "BIGINT", "TIMESTAMP", "INT",
    """\
CREATE TABLE {name} (
  {columns},
  {keys}, accountId STRING)
USING PARQUET
PARTITIONED BY ({names}, accountId)
LOCATION '{place}';

-- Again after each load: it makes new partitions known.
MSCK REPAIR TABLE {name}""",
)  # fmt: skip

_DIALECTS: Final = {
    # Athena's names are in lower case; it matches them with the columns of the files all the same.
    Engine.ATHENA: Dialect(
        "string", "bigint", "timestamp", "int",
        """\
CREATE EXTERNAL TABLE {name} (
  {columns})
PARTITIONED BY ({keys}, `accountid` string)
STORED AS PARQUET
LOCATION '{place}/'
TBLPROPERTIES (
  {properties},
  'storage.location.template' = '{template}/')""",
        column_line="`{lower}` {type}",
        key_line="`{name}` {type}",
    ),
    Engine.TRINO: Dialect(
        "varchar", "bigint", "timestamp(3)", "integer",
        """\
CREATE TABLE {name} (
  {columns},
  {keys},
  accountid varchar WITH (partition_projection_type = 'ENUM', \
partition_projection_values = ARRAY[{accounts}]))
WITH (
  format = 'PARQUET',
  external_location = '{place}/',
  partitioned_by = ARRAY[{quoted}, 'accountid'],
  partition_projection_enabled = true,
  partition_projection_location_template = '{template}/')""",
        column_line="{lower} {type}",
        key_line="{name} {type} WITH (partition_projection_type = 'INTEGER', "
        "partition_projection_range = ARRAY['{first}', '{last}']{digits})",
        between_keys=",\n  ",
    ),
    Engine.SPARK: _SPARK,
    Engine.DATABRICKS: _SPARK,
    Engine.BIGQUERY: Dialect(
        "STRING", "INT64", "TIMESTAMP", "INT64",
        """\
CREATE EXTERNAL TABLE {name} (
  {columns})
WITH PARTITION COLUMNS ({keys}, accountId STRING)
OPTIONS (
  format = 'PARQUET',
  uris = ['{place}/year=*'],
  hive_partition_uri_prefix = '{place}')""",
    ),
    Engine.SNOWFLAKE: Dialect(
        "VARCHAR", "NUMBER(38, 0)", "TIMESTAMP_LTZ", "NUMBER(4, 0)",
        """\
-- Of a stage: CREATE STAGE aht_stage URL = '{place}/' STORAGE_INTEGRATION = …
CREATE EXTERNAL TABLE {name} (
  {columns},
  {keys},
  accountId VARCHAR AS \
(REGEXP_SUBSTR(METADATA$FILENAME, '/accountId=([^/]+)/', 1, 1, 'e')::VARCHAR))
PARTITION BY ({names}, accountId)
LOCATION = @aht_stage/
PATTERN = '(.*/)?year=.*/part-[0-9]+[.]parquet'
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)
AUTO_REFRESH = FALSE;

-- Again after each load: it makes new parts known.
ALTER EXTERNAL TABLE {name} REFRESH""",
        column_line='{name} {type} AS ($1:"{name}"::{type})',
        key_line="{name} {type} AS (REGEXP_SUBSTR(METADATA$FILENAME, "
        "'{before}{name}=([^/]+)/', 1, 1, 'e')::{type})",
        between_keys=",\n  ",
    ),
    Engine.CLICKHOUSE: Dialect(
        "Nullable(String)", "Nullable(Int64)", "Nullable(DateTime64(3, ''UTC''))", "Int32",
        """\
CREATE OR REPLACE VIEW {name} AS
SELECT * FROM {function},
  '{columns}, {keys}, accountId String')
SETTINGS use_hive_partitioning = 1""",
        between_columns=", ",
    ),
    Engine.DUCKDB: Dialect(
        "VARCHAR", "BIGINT", "TIMESTAMPTZ", "INTEGER",
        """\
{schema}CREATE OR REPLACE VIEW {name} AS
SELECT * FROM read_parquet('{place}/year=*/**/*.parquet', hive_partitioning = true,
  hive_types = {{{keys}, 'accountId': VARCHAR}})""",
        key_line="'{name}': {type}",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a lake that a statement needs.

    `place` is a folder's full path or a URI, without a slash at its end. Keys in `padded` always
    have two digits, keys in `mixed` have both forms. `doubled`: an hour has a folder of each
    spelling. In a coarse copy (`is_copy`) `hour` is a column of the files and not a key.
    """

    place: str
    accounts: tuple[str, ...]
    first_year: int
    last_year: int
    padded: frozenset[str] = frozenset()
    mixed: frozenset[str] = frozenset()
    doubled: bool = False
    is_copy: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The partition keys that are integers, in the order of the directories."""
        return ("year", "month", "day") if self.is_copy else ("year", "month", "day", "hour")

    def range_of(self, key: str) -> tuple[int, int]:
        """Return the first and the last value of a key."""
        return _RANGES.get(key, (self.first_year, self.last_year + _YEARS_AHEAD))

    @property
    def template(self) -> str:
        """The place of a partition, with `${key}` for the values."""
        folders = "/".join(f"{key}=${{{key}}}" for key in self.keys)
        return f"{self.place}/{folders}/accountId=${{accountid}}"

    @property
    def glob(self) -> str:
        """A pattern that matches all parts, and no other files of the lake."""
        folders = "/".join(f"{key}=*" for key in self.keys)
        return f"{self.place}/{folders}/accountId=*/part-*.parquet"


def read_facts(store: Store, account: str | None, this_year: int) -> Facts:
    """Read the facts about a lake from its names; no file is opened. Blocking.

    `account` is added to the accounts of the lake. `this_year` is the year of an empty lake. Raises
    StoreError if the lake cannot be read, and UsageError if it is empty and no account is given.
    """
    layout = read_layout(store)
    partitions = [*layout.parts, *layout.unlistable]
    accounts = {partition.account for partition in partitions} | ({account} if account else set())
    if not accounts:
        raise UsageError(
            f"{store.place} holds nothing yet, so its accounts are not known: give --account, or "
            "check --lake"
        )
    spelled: dict[str, set[bool]] = {}
    for partition in partitions:
        for key, value in (each.split("=") for each in partition.directory.split("/")):
            if key in _RANGES and int(value) < 10:  # others are spelled in one way only
                spelled.setdefault(key, set()).add(len(value) == 2)
    years = [partition.hour.year for partition in partitions] or [this_year]
    return Facts(
        store.place.rstrip("/"),
        tuple(sorted(accounts)),
        min(years),
        max(years),
        frozenset(key for key, padded in spelled.items() if padded == {True}),
        frozenset(key for key, padded in spelled.items() if len(padded) == 2),
        len({(partition.hour, partition.account) for partition in partitions}) < len(partitions),
        layout.is_copy,
    )


def check_name(name: str) -> None:
    """Raise UsageError if the name of a table would need quotes."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: write a table's name that the engine accepts without quotes, for "
            "example aht.units or catalog.aht.units"
        )


def statement(engine: Engine, facts: Facts, name: str, azure_account: str | None = None) -> str:
    """Return the statement, or several in their order, that makes this lake the table `name`.

    `azure_account` is the storage account of an `az://` place that does not name it. Raises
    RunError if the engine could not see all partitions.
    """
    projected, listed = {Engine.ATHENA, Engine.TRINO}, {Engine.SPARK, Engine.DATABRICKS}
    if (facts.mixed and engine in projected) or (facts.doubled and engine in listed):
        keys = ", ".join(sorted(facts.mixed))
        raise RunError(
            f"{facts.place} has folders of both spellings, with and without a leading zero, of "
            f"{keys}: a table of {engine.value} would see one of the two only. Make it of a coarse "
            "copy (aht-etl compact), which has one spelling, or use another engine"
        )
    facts = _placed(engine, facts, azure_account)
    dialect = _DIALECTS[engine]
    types = dict.fromkeys(SCHEMA.names, dialect.text)
    types |= dict.fromkeys(INTEGER_COLUMNS, dialect.integer)
    types |= dict.fromkeys(TIMESTAMP_COLUMNS, dialect.timestamp)
    if facts.is_copy:
        types["hour"] = dialect.key
    columns = (
        dialect.column_line.format(name=column, lower=column.lower(), type=type_)
        for column, type_ in types.items()
    )
    schema = name.rpartition(".")[0]
    text = dialect.statement.format(
        name=name,
        place=facts.place,
        template=facts.template,
        columns=dialect.between_columns.join(columns),
        keys=dialect.between_keys.join(_key_line(dialect, facts, key) for key in facts.keys),
        names=", ".join(facts.keys),
        quoted=", ".join(f"'{key}'" for key in facts.keys),
        accounts=", ".join(f"'{account}'" for account in facts.accounts),
        properties=",\n  ".join(f"'{key}' = '{value}'" for key, value in _projection(facts)),
        function=_clickhouse_function(facts),
        schema=f"CREATE SCHEMA IF NOT EXISTS {schema};\n\n" if schema else "",
    )
    return f"{text};"


def _placed(engine: Engine, facts: Facts, azure_account: str | None) -> Facts:
    """Return the facts with the place in the engine's notation."""
    place = facts.place
    if not is_remote(place):
        # Engines that read object stores want a URI for a folder, too.
        if engine not in {Engine.CLICKHOUSE, Engine.DUCKDB}:
            place = f"file://{place}"
    else:
        parsed = Place.parse(place)
        account = parsed.account or azure_account
        if engine is Engine.SPARK and parsed.scheme == "s3":
            place = place.replace("s3://", "s3a://", 1)
        elif parsed.scheme == "az" and account and engine is not Engine.DUCKDB:
            prefix = f"/{parsed.prefix}" if parsed.prefix else ""
            place = f"abfss://{parsed.container}@{account}.dfs.core.windows.net{prefix}"
    return replace(facts, place=place.replace("'", "''"))


def _key_line(dialect: Dialect, facts: Facts, key: str) -> str:
    first, last = facts.range_of(key)
    return dialect.key_line.format(
        name=key,
        type=dialect.key,
        first=first,
        last=last,
        digits=", partition_projection_digits = 2" if key in facts.padded else "",
        before="" if key == "year" else "/",  # a stage may begin with the year
    )


def _projection(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield Athena's properties of the partitions."""
    yield "projection.enabled", "true"
    for key in facts.keys:
        first, last = facts.range_of(key)
        yield f"projection.{key}.type", "integer"
        yield f"projection.{key}.range", f"{first},{last}"
        if key in facts.padded:
            yield f"projection.{key}.digits", "2"
    yield "projection.accountid.type", "enum"
    yield "projection.accountid.values", ",".join(facts.accounts)


def _clickhouse_function(facts: Facts) -> str:
    """Return ClickHouse's table function and its arguments up to the structure."""
    if not is_remote(facts.place):
        return f"file('{facts.glob}', 'Parquet'"
    place = Place.parse(facts.place)
    if place.scheme != "az":
        return f"{'s3' if place.scheme == 's3' else 'gcs'}('{facts.glob}', 'Parquet'"
    blobs = facts.glob.removeprefix(facts.place).removeprefix("/")
    host = f"https://{place.account or 'ACCOUNT'}.blob.core.windows.net"
    path = f"{place.prefix}/{blobs}" if place.prefix else blobs
    return f"azureBlobStorage('{host}', '{place.container}', '{path}', 'Parquet', 'auto'"
