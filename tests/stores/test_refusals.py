"""What a store refuses is one line that says what to do, and holds no key."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web

from etl.emulator import Dataset
from etl.lake.store import LakeError
from tests.conftest import Runner, Serve
from tests.stores.conftest import SECRETS, Bucket
from tests.stores.proxy import DENIED, Fault, puts

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 3, tzinfo=UTC)
DATA = Dataset.generate(5, START, END, rows_per_file=40)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
ALWAYS = 10_000


def everything(_: web.Request) -> bool:
    return True


def writes(request: web.Request) -> bool:
    return request.method == "PUT"


def xml(code: str, message: str = "", more: str = "") -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"


def refused(run: Runner, serve: Serve, bucket: Bucket, **env: str) -> str:
    """Run into a store that refuses; return the one line that says why."""
    ended = run(
        serve(DATA),
        *("--lake", bucket.uri, "--log-level", "debug", *WINDOW),
        **{**bucket.env, **env},
    )
    assert 1 == ended.code, ended.err
    error: str = ended.report["error"]
    last = json.loads(ended.err.splitlines()[-1])
    assert ("run.failed", f"error: {error}") == (last["event"], last["reason"])
    for secret in SECRETS[bucket.kind].values():
        assert secret not in ended.err + ended.out + json.dumps(ended.report)
    assert "Debug source" not in ended.err
    assert "\n" not in error
    return error


def test_no_bucket(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """It is named; nothing makes one."""
    bucket.name = "nosuchbucket"
    kind = "container" if bucket.kind == "az" else "bucket"
    assert f"there is no {kind} nosuchbucket: create it" in refused(run, serve, bucket)


def test_nobody_listens(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """A dead endpoint ends the run within the time that the documentation says."""
    options = {**bucket.options, "endpoint": "http://127.0.0.1:1/account"}
    error = refused(run, serve, bucket, AHT_ETL_LAKE__OPTIONS=json.dumps(options))
    assert "127.0.0.1: connection refused; check the endpoint" in error


def test_no_such_host(run: Runner, serve: Serve, s3: Bucket) -> None:
    """A host that the network does not know."""
    options = {**s3.options, "endpoint": "https://store.invalid"}
    error = refused(run, serve, s3, AHT_ETL_LAKE__OPTIONS=json.dumps(options))
    assert "no such host: store.invalid" in error


@pytest.mark.parametrize(
    ("concerns", "answer", "said"),
    [
        (everything, DENIED, "the credentials may not do this: configs/stores.md"),
        (writes, DENIED, "the credentials may not do this: configs/stores.md"),
        (everything, (403, xml("InvalidAccessKeyId")), "the credentials are refused"),
        (everything, (403, xml("SignatureDoesNotMatch")), "the credentials are refused"),
        (everything, (400, xml("ExpiredToken")), "the credentials are refused"),
        (everything, (401, ""), "the credentials are refused"),
        (
            everything,
            (
                400,
                xml("AuthorizationHeaderMalformed", "wrong", "<Region>eu-central-1</Region>"),
            ),
            "the bucket is in eu-central-1: set the option region",
        ),
        (
            everything,
            (
                301,
                xml("PermanentRedirect", "", "<Endpoint>b.s3.eu-west-3.amazonaws.com</Endpoint>"),
            ),
            "set the option region",
        ),
        (writes, (501, xml("NotImplemented")), "lacks what a run needs: conditional puts"),
        (everything, (503, xml("SlowDown")), "the store asks for fewer requests"),
        (everything, (500, xml("InternalError")), "the store is in trouble: try again later"),
    ],
)
def test_answers_that_mean_no(
    s3: Bucket, concerns: Callable[[web.Request], bool], answer: tuple[int, str], said: str
) -> None:
    """What is said names the cause and the next step, not what obstore holds in memory."""
    s3.proxy.faults.append(Fault(concerns, ALWAYS, answer=answer))
    store = s3.store(patient=False)
    look = store.prepare if concerns is writes else store.check_readable
    with pytest.raises(LakeError) as caught:
        look()
    message = str(caught.value)
    assert said in message
    assert "Debug" not in message
    assert "\n" not in message
    assert s3.options["secret_access_key"] not in message


def test_keys_that_azure_refuses(run: Runner, serve: Serve, azure: Bucket) -> None:
    """The signature is checked by the emulator itself."""
    options = {**azure.options, "account_key": "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50"}
    error = refused(run, serve, azure, AHT_ETL_LAKE__OPTIONS=json.dumps(options))
    assert "the credentials are refused" in error
    assert options["account_key"] not in error


def test_a_store_without_conditional_puts(run: Runner, serve: Serve, s3: Bucket) -> None:
    """It is found out before a part is written, and nothing stays behind."""
    s3.proxy.faults.append(Fault(writes, ALWAYS, strip=("if-none-match",)))
    assert "does not know conditional puts (If-None-Match)" in refused(run, serve, s3)
    assert [] == s3.objects()
    with pytest.raises(LakeError, match="conditional puts"):
        s3.store().try_out()
    assert [] == s3.objects()


@pytest.mark.parametrize("lost", [1, 2])
def test_the_probe_and_lost_answers(bucket: Bucket, lost: int) -> None:
    """Its own put, repeated because its answer was lost, proves nothing and misleads nobody."""
    bucket.proxy.faults.append(Fault(writes, lost, lose_answer=True))
    bucket.store().prepare()
    assert [f"{bucket.prefix}/_aht_etl_probe"] == bucket.objects()
    bucket.store().prepare()
    bucket.proxy.faults.append(Fault(writes, lost, lose_answer=True))
    assert "was written, read back and removed" in bucket.store().try_out()
    assert [f"{bucket.prefix}/_aht_etl_probe"] == bucket.objects()


def test_a_probe_that_may_not_be_removed(s3: Bucket) -> None:
    """A run needs no permission to delete; `check` says what it left."""
    s3.proxy.faults.append(Fault(lambda request: request.method == "DELETE", ALWAYS, answer=DENIED))
    assert "AccessDenied" in s3.store().try_out()
    assert 1 == len(s3.objects())


def test_a_put_that_is_refused_fails_its_files(run: Runner, serve: Serve, s3: Bucket) -> None:
    """The rest goes on; the exit code and the kind say so."""
    s3.proxy.faults.append(Fault(puts, 1, answer=DENIED))
    ended = run(serve(DATA), "--lake", s3.uri, *WINDOW, **s3.env)
    assert (3, {"lake"}) == (ended.code, {f["kind"] for f in ended.report["failures"]})
    assert "403 AccessDenied" in ended.report["failures"][0]["message"]
    ended = run(serve(DATA), "--lake", s3.uri, *WINDOW, **s3.env)
    assert 0 == ended.code
    s3.assert_holds(DATA)
