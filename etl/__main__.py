"""`python -m etl` is `aht-etl`."""

from etl.cli import main

main()
