"""A downloaded file → rows in Arrow columns, and the rows that are none (bad rows).

What needs pyarrow is loaded when it is first asked for: a run asks its server first.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from etl.decode.limits import DecodeLimits

if TYPE_CHECKING:
    from etl.decode.decoded import Decoded
    from etl.decode.file import decode
    from etl.decode.scanner import Scanner

__all__ = ["DecodeLimits", "Decoded", "Scanner", "decode"]

_HOMES: Final = {
    "Decoded": "decoded",
    "Scanner": "scanner",
    "decode": "file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
