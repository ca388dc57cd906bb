"""Where a lake or a raw archive lies, as people write it: a folder, or a URI of an object store.

No error text holds what was written: a password may stand in it.
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
    "s3a": "s3",  # how Hadoop and Spark write it
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
# Names that every store takes and every reader of the lake spells in the same way.
_NAME: Final = re.compile(r"[A-Za-z0-9 !'()+,.:=@_~-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, or a container, and the prefix in it under which everything lies, perhaps none.

    `account` is the storage account of Azure, where the URI names it.
    """

    scheme: Scheme
    container: str
    prefix: str = ""
    account: str | None = None

    def __str__(self) -> str:
        """Return the URI: the same one for all ways of writing it."""
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
                "nothing may stand behind the path: what a store must be told, keys too, goes "
                "into the options"
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
            raise ValueError("no user, password or port may stand in it: keys go into the options")
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
        """Tell whether another place is this one, or lies in it."""
        return (
            (self.scheme, self.container) == (other.scheme, other.container)
            and (self.account == other.account or None in (self.account, other.account))
            and f"{other.prefix}/".startswith(f"{self.prefix}/" if self.prefix else "")
        )


def is_remote(uri: str) -> bool:
    """Tell whether a normalised URI is one of an object store, and no folder."""
    return uri.partition("://")[0] in _SCHEMES


def normalised(uri: str) -> str:
    """Return a folder as a path, `~/` in it expanded, an object store as its URI. ValueError."""
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
        return writable(os.path.expanduser(uri) if uri.startswith("~/") else uri)  # noqa: PTH111
    if scheme.lower() != "file":
        return str(Place.parse(uri))
    if not rest.startswith("/"):
        raise ValueError("write file:///folder, with three slashes")
    return writable(unquote(rest, errors="surrogateescape"))


def writable(path: str) -> str:
    """Return a path that this machine can write. Raises ValueError, before anything is fetched.

    A path has to be text: it is repeated in reports, logs and JSON. Where the locale is C, Python
    writes file names in UTF-8 (PEP 538 and PEP 540), so this is rare.
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
            f"has bytes that are no text in the encoding {encoding}; rename the folder, or write "
            "another"
        ) from None
    return path
