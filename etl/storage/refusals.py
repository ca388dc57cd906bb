"""What an object store's refusal means, in one line that says what to do next.

obstore's errors hold whole answers, URLs with signatures and its own data structures. Only the
parts that people need leave this module.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from etl.storage.places import Place
from etl.storage.store import StoreError, StoreUnusableError

_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_CODE: Final = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_MESSAGE: Final = re.compile(r"<Message>\s*([^<\n]*)")
_SERVER_TIME: Final = re.compile(r"<ServerTime>\s*([\w:.+-]+)")
_REGION: Final = re.compile(r"<Region>\s*([\w-]+)|expecting '([\w-]+)'|s3[.-]([a-z]+-[\w-]+-\d)\.")
_REQUEST: Final = re.compile(r"Error performing (?:[A-Z]+ )?(https?://[^\s?]+)")
_SYSTEM: Final = re.compile(r'message: "([^"]{1,200})"')
# Hosts that give credentials if none are set.
_METADATA: Final = {"169.254.169.254", "metadata.google.internal", "metadata", "169.254.170.2"}
_TOKENS: Final = (
    "sts.",
    "login.microsoft",
    "oauth2.googleapis",
    "accounts.google",
    "169.254.170.23",
)

_NO_CONTAINER: Final = {"NoSuchBucket", "ContainerNotFound", "NoSuchContainer"}
_ENDED_KEYS: Final = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_WRONG_CLOCK: Final = {"RequestTimeTooSkewed", "RequestExpired", "RequestNotYetValid"}
_BAD_KEYS: Final = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "InvalidAuthenticationInfo",
    "AuthenticationRequired",
}
# A full store, or a quota that is used up: codes of S3, Ceph, MinIO and Google.
_FULL: Final = {
    "QuotaExceeded",
    "InsufficientStorage",
    "StorageQuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
}
_LOGIN: Final = {
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    HTTPStatus.NETWORK_AUTHENTICATION_REQUIRED,
}
_ELSEWHERE: Final = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_ASKS_FOR_LOGIN: Final = (
    "a proxy or the network asks for a login: give it in the option proxy_url (or HTTPS_PROXY)"
)
# What to do, if the code does not say more.
_BY_STATUS: Final[dict[int, str]] = {
    407: _ASKS_FOR_LOGIN,
    511: _ASKS_FOR_LOGIN,
    403: "the credentials may not do this: aht-etl docs stores lists what a run needs",
    501: "this store lacks what a run needs: conditional puts (If-None-Match)",
    429: "the store asks for fewer requests: try again later",
    503: "the store asks for fewer requests: try again later",
}
# The answer lacks something that each answer of a store has.
_NO_STORE: Final = "Unable to extract metadata from headers|Header missing|invalid list response"
# What obstore's messages mean if there was no answer.
_MEANINGS: Final = {
    "BadScheme": 'plain http is refused; use https, or set the option allow_http to "true"',
    "without LOCATION": (
        "a redirect that leads nowhere: the bucket is in another region; set the option region "
        "(or AWS_REGION)"
    ),
    "failed to lookup|dns error": (
        "no such host: {at}; check the endpoint, the account's name and the network"
    ),
    "(?i)timedout|timed out": "{at} gave no answer in time; check the endpoint and the network",
    "(?i)invalidcertificate|invalid peer certificate": (
        "the certificate of {at} is not trusted; set the option root_certificate"
    ),
    "IncompleteMessage|ConnectionReset|BrokenPipe|body error": (
        "{at} broke the connection; check the endpoint and the network"
    ),
    _NO_STORE: (
        "{at} answered, but not as an object store does: a proxy or a login page of the network "
        "may have; check the endpoint and the network"
    ),
    "invalid path": (
        "an object's name has an empty segment (//), which no folder can have; remove that object"
    ),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request failed; `status` and `code` are the answer's, if there was one."""

    status: int | None
    code: str
    reason: str
    #: Whether it was sent and may have been done.
    unanswered: bool = False
    #: Whether every other request will fail too: because of credentials, clock or a proxy.
    lasting: bool = False

    def as_error(self, operation: str, name: str) -> StoreError:
        """Return the error to raise."""
        kind = StoreUnusableError if self.lasting else StoreError
        return kind(f"{operation} {name}: {self.reason}")

    @property
    def container_is_missing(self) -> bool:
        """Whether the bucket or container itself is missing."""
        return self.code in _NO_CONTAINER

    @property
    def forbidden(self) -> bool:
        """Whether the credentials may not do this; a full store may answer 403 too."""
        return self.status == HTTPStatus.FORBIDDEN and self.code not in _FULL

    @property
    def has_no_such_range(self) -> bool:
        """Whether the object ends before the requested bytes."""
        return self.status == 416 or "non-partial response" in self.reason

    @property
    def conflict(self) -> bool:
        """Whether it met another request: nothing was stored, and it can be tried again.

        Azure answers 409 also if the object exists.
        """
        return self.status == 409 and self.code not in {"BlobAlreadyExists", "ObjectAlreadyExists"}


def refusal_of(error: Exception, place: Place) -> Refusal:
    """Return the meaning of an error of obstore."""
    said, _, inside = str(error).partition("\n\nDebug source")
    status = int(match[1]) if (match := _STATUS.search(said)) else None
    code = match[1] if (match := _CODE.search(said)) else ""
    address = match[1] if (match := _REQUEST.search(said)) else ""
    host = (urlsplit(address).hostname or "") if address else ""
    if host in _METADATA:
        reason = (
            "no credentials: none are set, and this machine's metadata service gives none; set "
            "them in the options, in the environment or as the machine's identity"
        )
        return Refusal(status, code, reason, lasting=True)
    if "REDACTED" in said or host.startswith(_TOKENS):  # an address may hold the token itself
        what = f"refused with {status} {code}".rstrip() if status else "could not be asked"
        reason = f"no credentials: {host or 'the token service'} {what}; check the identity"
        return Refusal(status, code, reason, lasting=True)
    if status is None and not code:
        reason = _unanswered(said, inside, host)
        portal = re.search(_NO_STORE, said) is not None
        sent = not portal and "builder error" not in said and "kind: Connect" not in inside
        return Refusal(None, "", reason, unanswered=sent, lasting=portal)
    message = match[1].strip().rstrip(".") if (match := _MESSAGE.search(said)) else ""
    if code in _NO_CONTAINER:
        message = ""  # the advice says the same
    what = " ".join(str(part) for part in (status, code) if part)
    what = f"{what}: {message[:200]}" if message else what
    advice = _advice(status, code, said, place)
    lasting = _about_keys(status or 0, code, said) is not None or status in _LOGIN
    return Refusal(status, code, f"{what}; {advice}" if advice else what, lasting=lasting)


def lake_error(operation: str, name: str, error: Exception, place: Place) -> StoreError:
    """Return the error to raise for one of obstore's."""
    return refusal_of(error, place).as_error(operation, name)


def _advice(status: int | None, code: str, said: str, place: Place) -> str:
    kind = "container" if place.scheme == "az" else "bucket"
    number = status or 0
    if code in _NO_CONTAINER:
        advice = f"there is no {kind} {place.container}: create it, or correct the URI"
    elif (about_keys := _about_keys(number, code, said)) is not None:
        advice = about_keys
    elif code in _ELSEWHERE or number in {301, 307, 308}:
        match = _REGION.search(said)
        region = next((found for found in match.groups() if found), None) if match else None
        where = region or "another region"
        advice = f"the {kind} is in {where}: set the option region (or AWS_REGION)"
    elif code in _FULL or number == 507:
        advice = "the store is full, or a quota is used up: make room, or have the quota raised"
    elif number in _BY_STATUS:
        advice = _BY_STATUS[number]
    else:
        advice = "the store is in trouble: try again later" if number >= 500 else ""
    return advice


def _about_keys(number: int, code: str, said: str) -> str | None:
    """Return what to do about refused credentials, or None if they are not the cause."""
    if code in _WRONG_CLOCK or "date header too old" in said:
        match = _SERVER_TIME.search(said)
        there = f": there it is {match[1]}" if match else ""
        return f"the clock of this machine is not the store's{there}; set it (NTP) and run again"
    if code in _ENDED_KEYS or "specified time frame" in said:
        return "the credentials are refused: they have expired; renew them and run again"
    if code in _BAD_KEYS or number == HTTPStatus.UNAUTHORIZED:
        return "the credentials are refused: check them, and the account that they are for"
    return None


def _unanswered(said: str, inside: str, host: str) -> str:
    at = host or "the store"
    meanings = (text for pattern, text in _MEANINGS.items() if re.search(pattern, said + inside))
    meaning = next(meanings, None)
    if meaning is not None:
        return meaning.format(at=at)
    if match := _SYSTEM.search(inside):
        return f"{at}: {match[1].lower()}; check the endpoint and the network"
    return f"{at}: {said.splitlines()[0].rpartition(': ')[2][:200]}"
