"""Requests to an object store: its credentials and its time limits.

obstore takes credentials from the options and, where these have none, from the usual places: the
environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`), a web identity, the machine's own metadata service.
"""

import math
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from obstore.exceptions import BaseError, UnknownConfigurationKeyError
from obstore.store import AzureStore, GCSStore, S3Store

from etl.storage.options import take_apart, unknown, wrong
from etl.storage.places import Place

#: How long a request may take, to the last byte of its answer.
REQUEST_S: Final = 30
# After so long a request that failed is not repeated.
_REPEATED_S: Final = 45
_REPETITIONS: Final = 10
# A large put has more time: a store that takes less than this is as good as dead.
_SLOWEST_BYTES_A_SECOND: Final = 500_000

_STORES: Final = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}


class Connection:
    """How the objects of one place are reached; safe to use from several threads.

    Raises ValueError where the options are wrong, in words that hold no value of theirs; nothing is
    sent. Not `patient`, a request that failed is not repeated.
    """

    def __init__(self, place: Place, options: Mapping[str, str], *, patient: bool = True) -> None:
        self._place = place
        self._own, self._client = take_apart(place.scheme, options)
        if place.account is not None:
            self._own["account_name"] = place.account
        self._patient = patient
        self._by_limit: dict[int, Any] = {}
        self._lock = threading.Lock()
        self.store = self.for_bytes(0)

    def for_bytes(self, size: int) -> Any:
        """Return the obstore store whose time limit fits a request with so large a body."""
        times = max(1, size / _SLOWEST_BYTES_A_SECOND / REQUEST_S)
        # Each has connections of its own, so there are few: powers of two.
        limit_s = REQUEST_S * 2 ** math.ceil(math.log2(times))
        with self._lock:
            if limit_s not in self._by_limit:
                self._by_limit[limit_s] = self._new(limit_s)
            return self._by_limit[limit_s]

    def _new(self, limit_s: int) -> Any:
        place = self._place
        retry = {
            "max_retries": _REPETITIONS if self._patient else 0,
            "retry_timeout": timedelta(seconds=_REPEATED_S + limit_s - REQUEST_S),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=5),
                "base": 2,
            },
        }
        new: Any = _STORES[place.scheme]
        try:
            return new(
                place.container,
                prefix=place.prefix or None,
                config=self._own,
                client_options={"timeout": f"{limit_s}s", **self._client},
                retry_config=retry,
            )
        except UnknownConfigurationKeyError as error:
            raise ValueError(unknown(place.scheme, str(error))) from None
        except (BaseError, ValueError) as error:
            raise ValueError(wrong(place.scheme, str(error))) from None
        except BaseException as error:
            # A panic of the library is no Exception; its text is of no use to anyone.
            if type(error).__name__ != "PanicException":
                raise
            raise ValueError(wrong(place.scheme, "")) from None
