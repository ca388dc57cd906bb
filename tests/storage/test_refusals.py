"""A store's refusal becomes one line that says what to do and holds no key."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web

from etl.emulator import Dataset
from etl.storage.store import StoreError
from tests.conftest import Runner, Serve
from tests.storage.conftest import SECRETS, Bucket
from tests.storage.proxy import DENIED, Fault, puts

START, END = datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 6, 1, 3, tzinfo=UTC)
DATA = Dataset.generate(5, START, END, rows_per_file=40)
MANY = Dataset.generate(
    6, START, datetime(2022, 6, 2, tzinfo=UTC), rows_per_file=10, files_per_hour=6
)
WINDOW = ("--from", "2022-06-01", "--to", "2022-06-03")
ALWAYS = 10_000


def everything(_: web.Request) -> bool:
    return True


def writes(request: web.Request) -> bool:
    return request.method == "PUT"


def xml(code: str, message: str = "", more: str = "") -> str:
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"


def refused(run: Runner, serve: Serve, bucket: Bucket, **env: str) -> str:
    """Run into a store that refuses; return the report's error."""
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
    """The message names it; no bucket is made."""
    bucket.name = "nosuchbucket"
    kind = "container" if bucket.kind == "az" else "bucket"
    assert f"there is no {kind} nosuchbucket: create it" in refused(run, serve, bucket)


def test_a_refused_connection(run: Runner, serve: Serve, bucket: Bucket) -> None:
    """The message names the host and what to check."""
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
        (everything, DENIED, "the credentials may not do this: aht-etl docs stores"),
        (writes, DENIED, "the credentials may not do this: aht-etl docs stores"),
        (everything, (403, xml("InvalidAccessKeyId")), "the credentials are refused"),
        (everything, (403, xml("SignatureDoesNotMatch")), "the credentials are refused"),
        (everything, (400, xml("ExpiredToken")), "the credentials are refused"),
        (everything, (401, ""), "the credentials are refused"),
        (writes, (400, xml("ExpiredToken")), "they have expired; renew them and run again"),
        (
            writes,
            (403, xml("RequestTimeTooSkewed", "", "<ServerTime>2022-06-01T06:00:00Z</ServerTime>")),
            "the clock of this machine is not the store's: there it is 2022-06-01T06:00:00Z; set",
        ),
        (writes, (403, xml("QuotaExceeded")), "a quota is used up: make room"),
        (writes, (507, ""), "the store is full"),
        (everything, (407, "<html>"), "asks for a login: give it in the option proxy_url"),
        (writes, (200, "<html>"), "answered, but not as an object store does"),
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
    """The message names the cause and the next step, not obstore's data structures."""
    s3.proxy.faults.append(Fault(concerns, ALWAYS, answer=answer))
    store = s3.store(patient=False)
    look = store.prepare if concerns is writes else store.check_readable
    with pytest.raises(StoreError) as caught:
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
    """This is noticed before a part is written, and no object stays."""
    s3.proxy.faults.append(Fault(writes, ALWAYS, strip=("if-none-match",)))
    assert "does not know conditional puts (If-None-Match)" in refused(run, serve, s3)
    assert [] == s3.objects()
    with pytest.raises(StoreError, match="conditional puts"):
        s3.store().try_out()
    assert [] == s3.objects()


@pytest.mark.parametrize("lost", [1, 2])
def test_the_probe_and_lost_answers(bucket: Bucket, lost: int) -> None:
    """A put that is repeated after a lost answer is not a proof, and no error either."""
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


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((400, xml("ExpiredToken", "The provided token has expired.")), "they have expired"),
        (DENIED, "the credentials may not do this"),
        ((403, xml("RequestTimeTooSkewed")), "the clock of this machine is not the store's"),
        ((407, "<html>"), "asks for a login"),
        ((200, "<html>"), "not as an object store does"),
    ],
)
def test_credentials_that_expire_in_mid_run(
    run: Runner, serve: Serve, s3: Bucket, answer: tuple[int, str], said: str
) -> None:
    """The run ends: no more files are fetched; the line says what failed and why."""
    parts = 0

    def concerns(request: web.Request) -> bool:
        nonlocal parts
        parts += puts(request)
        return parts > 3

    s3.proxy.faults.append(Fault(concerns, ALWAYS, answer=answer))
    # Slow enough that a busy machine has not fetched half of them when the fourth part is refused.
    emulator = serve(MANY, latency_s=0.1)
    arguments = ("--lake", s3.uri, *WINDOW, "--concurrency", "2")
    ended = run(emulator, *arguments, **s3.env)
    files = ended.report["files"]
    assert (1, "failed", 0) == (ended.code, ended.report["status"], files["failed"]), ended.err
    assert ended.report["error"].startswith("creating year=2022/month=6/day=")
    assert said in ended.report["error"]
    assert 3 == len(ended.report["parts"])
    assert emulator.count("file") < len(MANY.files) / 2
    assert files["not_attempted"] == len(MANY.files) - files["loaded"]
    s3.proxy.faults.clear()
    assert 0 == run(emulator, *arguments, **s3.env).code
    s3.assert_holds(MANY)


def reads_a_part(request: web.Request) -> bool:
    return request.method == "GET" and request.path.endswith(".parquet")


def keeps_a_file(request: web.Request) -> bool:
    return writes(request) and request.path.endswith(".json.gz")


def keeps_bad_rows(request: web.Request) -> bool:
    return writes(request) and request.path.endswith(".ndjson")


@pytest.mark.parametrize("concerns", [reads_a_part, keeps_a_file, keeps_bad_rows])
def test_credentials_may_end_at_any_request(
    run: Runner, serve: Serve, s3: Bucket, concerns: Callable[[web.Request], bool]
) -> None:
    """While receipts are read, or a raw file or bad rows are written: no file is blamed."""
    bad = {path: gzip.compress(b'{"segmentId": "a"}\n{"sequence": 1}\n') for path in DATA.files}
    emulator = serve(Dataset.of(bad))
    arguments = ("--lake", s3.uri, *WINDOW)
    env = {**s3.env, "AHT_ETL_RAW__URI": f"s3://{s3.name}/raw"}
    if concerns is reads_a_part:
        assert 0 == run(emulator, *arguments, **env).code
    fault = Fault(concerns, ALWAYS, answer=(400, xml("ExpiredToken")))
    s3.proxy.faults.append(fault)
    ended = run(emulator, *arguments, **env)
    assert (1, 0) == (ended.code, ended.report["files"]["failed"]), ended.err
    assert "they have expired; renew them" in ended.report["error"]
    s3.proxy.faults.clear()
    assert 0 == run(emulator, *arguments, **env).code
    assert len(bad) == len(s3.receipts())


def test_a_region_is_no_secret(run: Runner, serve: Serve, s3: Bucket) -> None:
    """The message shows the region that was set and the right one."""
    options = {**s3.options, "region": "eu-north-1"}
    wrong = "the region 'eu-north-1' is wrong; expecting 'eu-central-1'"
    answer = (400, xml("AuthorizationHeaderMalformed", wrong, "<Region>eu-central-1</Region>"))
    s3.proxy.faults.append(Fault(everything, ALWAYS, answer=answer))
    error = refused(run, serve, s3, AHT_ETL_LAKE__OPTIONS=json.dumps(options))
    assert f"{wrong}; the bucket is in eu-central-1" in error
    assert "***" not in error


def test_a_put_that_is_refused_fails_its_files(run: Runner, serve: Serve, s3: Bucket) -> None:
    """The other files are loaded; exit code 3, and the failures have the kind `lake`."""
    s3.proxy.faults.append(Fault(puts, 1, answer=DENIED))
    ended = run(serve(DATA), "--lake", s3.uri, *WINDOW, **s3.env)
    assert (3, {"lake"}) == (ended.code, {f["kind"] for f in ended.report["failures"]})
    assert "403 AccessDenied" in ended.report["failures"][0]["message"]
    ended = run(serve(DATA), "--lake", s3.uri, *WINDOW, **s3.env)
    assert 0 == ended.code
    s3.assert_holds(DATA)
