"""The place of a lake or a raw archive, as people write it: a folder, or an object store's URI.

No error message holds the text, because it may contain a password.
"""

import os
import re
import sys
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote

Scheme = Literal["s3", "gs", "az"]

_SCHEMES: Final[dict[str, Scheme]] = {
    "s3": "s3",
    "s3a": "s3",  # Hadoop and Spark write it
    "gs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
}
_SLASHES_MISSING: Final = re.compile(r"(?i)(s3a?|gs|az|abfss?|file):")
_AZURE_HOST: Final = re.compile(
    r"(?P<container>[^@/]+)@(?P<account>[a-z0-9]{3,24})\.(dfs|blob)\.core\.windows\.net"
)
_CONTAINER: Final = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}")
# Names that every store accepts and that every reader of the lake spells in the same way.
_NAME: Final = re.compile(r"[A-Za-z0-9 !'()+,.:=@_~-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket or container, and the prefix in it, which may be empty.

    `account` is Azure's storage account, if the URI names it.
    """

    scheme: Scheme
    container: str
    prefix: str = ""
    account: str | None = None

    def __str__(self) -> str:
        """Return the URI, the same one for every way to write it."""
        if self.account is not None:
            root = f"abfss://{self.container}@{self.account}.dfs.core.windows.net"
        else:
            root = f"{self.scheme}://{self.container}"
        return f"{root}/{self.prefix}" if self.prefix else root

    @classmethod
    def parse(cls, uri: str) -> "Place":
        """Read the URI of an object store. Raises ValueError."""
        written, separator, rest = uri.partition("://")
        scheme = _SCHEMES.get(written.lower())
        if not separator or scheme is None:
            raise ValueError("write a folder, file:///folder, s3://, gs:// or az://")
        if "?" in rest or "#" in rest:
            raise ValueError(
                "nothing may follow the path: settings of the store, keys too, go into the options"
            )
        container, _, prefix = rest.partition("/")
        account = None
        if "@" in container and scheme == "az":
            match = _AZURE_HOST.fullmatch(container)
            if match is None:
                raise ValueError(
                    "write abfss://container@account.dfs.core.windows.net/prefix, or "
                    "az://container/prefix"
                )
            container, account = match["container"], match["account"]
        if "@" in container or ":" in container:
            raise ValueError("it may not hold a user, password or port: keys go into the options")
        if not _CONTAINER.fullmatch(container):
            what = "container" if scheme == "az" else "bucket"
            raise ValueError(f"names no {what}: write {scheme}://{what}/prefix")
        prefix = prefix.rstrip("/")
        if prefix and not all(
            _NAME.fullmatch(name) and name not in {".", ".."} for name in prefix.split("/")
        ):
            raise ValueError(
                "its prefix has an empty name, . or .., or a character that readers spell in "
                "different ways"
            )
        return cls(scheme, container, prefix, account)

    def holds(self, other: "Place") -> bool:
        """Return whether another place is this one, or is inside it."""
        return (
            (self.scheme, self.container) == (other.scheme, other.container)
            and (self.account == other.account or None in (self.account, other.account))
            and f"{other.prefix}/".startswith(f"{self.prefix}/" if self.prefix else "")
        )


def is_remote(uri: str) -> bool:
    """Return whether a normalised URI names an object store and not a folder."""
    return uri.partition("://")[0] in _SCHEMES


def normalised_uri(uri: str) -> str:
    """Return a folder as a path with `~/` expanded, or an object store's URI. Raises ValueError."""
    if not uri:
        raise ValueError("must not be empty")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if match := _SLASHES_MISSING.match(uri):
            store = _SCHEMES.get(match[1].lower())
            raise ValueError(
                f"write {store}://bucket/prefix, with two slashes"
                if store
                else "write file:///folder, with three slashes"
            )
        return writable_path(os.path.expanduser(uri) if uri.startswith("~/") else uri)  # noqa: PTH111
    if scheme.lower() != "file":
        return str(Place.parse(uri))
    if not rest.startswith("/"):
        raise ValueError("write file:///folder, with three slashes")
    return writable_path(unquote(rest, errors="surrogateescape"))


def writable_path(path: str) -> str:
    """Return a path that is text which this machine can write. Raises ValueError otherwise.

    Reports, logs and JSON repeat the path. Errors are rare: in the locale C, Python writes file
    names in UTF-8 too (PEP 538 and PEP 540).
    """
    encoding = sys.getfilesystemencoding()
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        raise ValueError(
            f"has a character that file names cannot have here, in the encoding {encoding}; write "
            "it in ASCII, or set PYTHONUTF8=1"
        ) from None
    if b"\0" in encoded:
        raise ValueError("has a NUL character, which no file name can have; write it without")
    try:
        encoded.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError(
            f"has bytes that are no text in the encoding {encoding}; rename the folder, or choose "
            "another"
        ) from None
    return path
