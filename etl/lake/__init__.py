"""The lake: parts of Parquet with their receipts, committed by conditional create."""
