"""What an object store's refusal means, in one line that says what to do next.

obstore's errors hold whole answers, URLs with signatures and its own data structures. Only the
parts that people need leave this module.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from etl.storage.places import Place
from etl.storage.store import ForbiddenError, RepeatableError, StoreError, StoreUnusableError

_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_CODE: Final = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_MESSAGE: Final = re.compile(r"<Message>\s*([^<\n]*)")
_SERVER_TIME: Final = re.compile(r"<ServerTime>\s*([\w:.+-]+)")
_REGION: Final = re.compile(r"<Region>\s*([\w-]+)|expecting '([\w-]+)'|s3[.-]([a-z]+-[\w-]+-\d)\.")
_REQUEST: Final = re.compile(r"Error performing (?:[A-Z]+ )?(https?://[^\s?]+)")
_SYSTEM: Final = re.compile(r'message: "([^"]{1,200})"')
# object_store's kind for what fails before there is a connection to send on: the host look-up, the
# connection to the host or a proxy, TLS. It has repeated that for long enough. If an open
# connection breaks, the kind is `Interrupted` (a reset: its cause is `ConnectionReset`) or
# `Request`, and the store may have done it.
_NOT_CONNECTED: Final = re.compile(r"\bHttpError \{\s*kind: Connect,")
# Hosts that give credentials if none are set.
_METADATA: Final = {"169.254.169.254", "metadata.google.internal", "metadata", "169.254.170.2"}
_TOKENS: Final = (
    "sts.",
    "login.microsoft",
    "oauth2.googleapis",
    "accounts.google",
    "169.254.170.23",
)

_NO_CREDENTIALS: Final = (
    "no credentials: none are set, and this machine's metadata service gives none; set them in the "
    "options, in the environment or as the machine's identity"
)
# What an answer means, and what to do. The first pattern that is found counts; it is searched for
# in the status, the code and, after a line break, the text of the answer.
_CONTAINER: Final = "there is no {kind} {container}: create it, or correct the URI"
_CLOCK: Final = "the clock of this machine is not the store's{there}; set it (NTP) and run again"
_EXPIRED: Final = "the credentials are refused: they have expired; renew them and run again"
_KEYS: Final = "the credentials are refused: check them, and the account that they are for"
_FULL: Final = "the store is full, or a quota is used up: make room, or have the quota raised"
_LOGIN: Final = (
    "a proxy or the network asks for a login: give it in the option proxy_url (or HTTPS_PROXY)"
)
_ANSWERS: Final = {
    r"\A\S* (NoSuchBucket|ContainerNotFound|NoSuchContainer)\n": _CONTAINER,
    r"\A\S* (RequestTimeTooSkewed|RequestExpired|RequestNotYetValid)\n|date header too old": _CLOCK,
    r"\A\S* (ExpiredToken|ExpiredTokenException|TokenRefreshRequired)\n|specified time frame": (
        _EXPIRED
    ),
    r"\A401 |\A\S* (InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|AuthenticationFailed"
    r"|AuthorizationFailure|InvalidAuthenticationInfo|AuthenticationRequired)\n": _KEYS,
    r"\A30[178] |\A\S* (PermanentRedirect|AuthorizationHeaderMalformed"
    r"|IllegalLocationConstraintException)\n": (
        "the {kind} is in {region}: set the option region (or AWS_REGION)"
    ),
    # Codes of S3, Ceph, MinIO and Google.
    r"\A507 |\A\S* (QuotaExceeded|InsufficientStorage|StorageQuotaExceeded"
    r"|XMinioAdminBucketQuotaExceeded|XMinioStorageFull)\n": _FULL,
    r"\A(407|511) ": _LOGIN,
    r"\A403 ": "the credentials may not do this: aht-etl docs stores lists what a run needs",
    r"\A501 ": "this store lacks what a run needs: conditional puts (If-None-Match)",
    r"\A(429|503) ": "the store asks for fewer requests: try again later",
    r"\A5": "the store is in trouble: try again later",
}
# The credentials, the clock or a proxy: every other request will fail too.
_LASTING: Final = {_CLOCK, _EXPIRED, _KEYS, _LOGIN}
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
    "IncompleteMessage|Connection(Reset|Aborted)|BrokenPipe|UnexpectedEof|body error": (
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
    #: Whether it may have been sent, and done.
    unanswered: bool = False
    #: Whether every other request will fail too: because of credentials, clock or a proxy.
    lasting: bool = False
    #: Whether the bucket or container itself is missing.
    container_is_missing: bool = False
    #: Whether the credentials may not do this; a full store may answer 403 too.
    forbidden: bool = False

    def as_error(self, operation: str, name: str) -> StoreError:
        """Return the error to raise."""
        if self.lasting:
            kind: type[StoreError] = StoreUnusableError
        elif self.unanswered or self.conflict:
            kind = RepeatableError
        else:
            kind = ForbiddenError if self.forbidden else StoreError
        return kind(f"{operation} {name}: {self.reason}")

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
        return Refusal(status, code, _NO_CREDENTIALS, lasting=True)
    if "REDACTED" in said or host.startswith(_TOKENS):  # an address may hold the token itself
        what = f"refused with {status} {code}".rstrip() if status else "could not be asked"
        reason = f"no credentials: {host or 'the token service'} {what}; check the identity"
        return Refusal(status, code, reason, lasting=True)
    if status is None and not code:
        reason = _unanswered(said, inside, host)
        portal = re.search(_NO_STORE, said) is not None
        unsent = "builder error" in said or _NOT_CONNECTED.search(inside) is not None
        sent = not portal and not unsent
        return Refusal(None, "", reason, unanswered=sent, lasting=portal)
    answer = f"{status or ''} {code}\n{said}"
    meaning = next((text for pattern, text in _ANSWERS.items() if re.search(pattern, answer)), "")
    region = next(filter(None, match.groups())) if (match := _REGION.search(said)) else None
    advice = meaning.format(
        kind="container" if place.scheme == "az" else "bucket",
        container=place.container,
        region=region or "another region",
        there=f": there it is {match[1]}" if (match := _SERVER_TIME.search(said)) else "",
    )
    match = _MESSAGE.search(said)
    message = match[1].strip().rstrip(".")[:200] if match and meaning != _CONTAINER else ""
    what = " ".join(str(part) for part in (status, code) if part)
    return Refusal(
        status,
        code,
        "; ".join(filter(None, (f"{what}: {message}" if message else what, advice))),
        lasting=meaning in _LASTING,
        container_is_missing=meaning == _CONTAINER,
        forbidden=status == 403 and meaning != _FULL,
    )


def _unanswered(said: str, inside: str, host: str) -> str:
    at = host or "the store"
    meanings = (text for pattern, text in _MEANINGS.items() if re.search(pattern, said + inside))
    meaning = next(meanings, None)
    if meaning is not None:
        return meaning.format(at=at)
    if match := _SYSTEM.search(inside):
        return f"{at}: {match[1].lower()}; check the endpoint and the network"
    return f"{at}: {said.splitlines()[0].rpartition(': ')[2][:200]}"
