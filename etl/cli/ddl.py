"""`aht-etl ddl`."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from etl.audit.ddl import Engine, check_name, read_facts, statement
from etl.cli.command import Call, command
from etl.cli.flags import ACCOUNT, LAKE
from etl.config.settings import open_lake

EngineName = Annotated[
    Engine,
    typer.Option(
        "--engine",
        metavar="ENGINE",  # the choices in one word would be wider than a narrow terminal
        help="athena, trino, spark, databricks, bigquery, snowflake, clickhouse or duckdb.",
    ),
]
Name = Annotated[
    str,
    typer.Option("--name", metavar="TABLE", help="The table's name, as the engine accepts it."),
]
#: The stores that engines of one cloud read by themselves.
_READS: Final = {Engine.ATHENA: "s3", Engine.BIGQUERY: "gs"}


@command("ddl.failed", ACCOUNT, LAKE, default_log_level="warning")
def ddl(call: Call, engine: EngineName, name: Name = "aht.units") -> None:
    """Print the statement that makes the lake, or its coarse copy, a table.

    Columns and partitions have their types, accountId is text, and only parts are read.
    The accounts, the first year and the spelling of the folders come from the lake; --account adds
    one, and an empty lake needs it. Athena and Trino compute the partitions; DuckDB, ClickHouse and
    BigQuery find them at each query. Spark, Databricks and Snowflake need the second statement
    after each load.

    The statements of DuckDB, ClickHouse and Spark were run against a lake. Those of Athena, Trino,
    Databricks, BigQuery and Snowflake were only parsed, not run in their clouds.

    Example: aht-etl ddl --engine athena --lake s3://bucket/lake --name aht.units
    """
    check_name(name)
    settings = call.settings()
    facts = read_facts(open_lake(settings), settings.account, datetime.now(UTC).year)
    azure_account = settings.options_of(settings.lake).get("account_name")
    text = statement(engine, facts, name, azure_account)
    wanted = _READS.get(engine)
    if wanted and not facts.place.startswith(f"{wanted}://"):
        typer.echo(
            f"note: {engine} reads {wanted}://, and the lake lies in {facts.place}; put its place "
            "there into the statement",
            err=True,
        )
    typer.echo(text)
