"""A part encoded again without some of its sources: another run has brought them."""

from collections.abc import Collection

from etl.lake.part import Encoded, PartBuilder
from etl.lake.rows import source_rows
from etl.model.dataset import DECODED_SCHEMA, SizedBatch


def without(encoded: Encoded, paths: Collection[str], builder: PartBuilder) -> Encoded | None:
    """Encode a part again without some of its sources; None if none is left.

    Closes the part that it was given.
    """
    try:
        if all(source.path in paths for source in encoded.sources):
            return None
        with encoded.staged.path.open("rb") as stream:
            for source, rows in source_rows(stream, encoded.bytes, encoded.sources):
                if source.path not in paths:
                    decoded = (batch.select(DECODED_SCHEMA.names) for batch in rows)
                    builder.add(source, map(SizedBatch.of, decoded))
        return builder.finish()
    finally:
        encoded.staged.close()
        builder.close()  # changes nothing if it was finished
