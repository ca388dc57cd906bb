"""configs/kubernetes: each overlay renders, is valid, and keeps the promises of its page."""

import base64
import copy
import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import etl
from etl import load_settings
from etl.config.settings import Settings
from etl.pipeline.metrics import PATIENCE_S
from tests.documents import page
from tests.kubernetes.manifests import (
    APPLIED,
    BACKFILLS,
    COPIES,
    FOLDER,
    KUBECTL,
    NAMES,
    ROOT,
    SCHEDULED,
    config_map,
    container,
    job,
    of_kind,
    pod,
    quantity,
    rendered,
    variables,
)

PAGE = page("kubernetes")


def settings(name: str, tmp_path: Path) -> Settings:
    """Return the configuration that the program would read in the pod, without keys."""
    on_a_store = name in {"overlays/backfill", "overlays/compact"}
    beside = "overlays/aws" if on_a_store else "overlays/volume"
    config = tmp_path / "config.yaml"
    config.write_text(config_map("aht-etl", name, beside)[config.name])
    found = variables(name, beside)
    del found["AHT_ETL_SECRETS_DIR"]
    return load_settings(config, found)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid(name: str) -> None:
    """The check is strict: no unknown field, for the newest Kubernetes version with a schema."""
    for manifest in rendered(name):
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_restricted(name: str) -> None:
    """It follows each rule of the restricted Pod Security Standard, and its root is read-only."""
    spec, only = pod(name), container(name)
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        assert host not in spec
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "secret", "persistentVolumeClaim"}
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert {"type": "RuntimeDefault"} == context["seccompProfile"]
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == only["securityContext"]
    assert "ports" not in only
    assert "initContainers" not in spec


@pytest.mark.parametrize("name", NAMES)
def test_it_has_no_more_than_it_needs(name: str) -> None:
    """It has no cluster token, can write only to scratch and lake, and runs as the image's user."""
    spec, only = pod(name), container(name)
    assert spec["automountServiceAccountToken"] is False
    writable = {m["mountPath"] for m in only["volumeMounts"] if not m.get("readOnly")}
    assert writable <= {"/scratch", "/lake", "/copy"}
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = f"USER {spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
    assert user in dockerfile
    assert "TMPDIR=/scratch" in dockerfile
    (scratch,) = (v for v in spec["volumes"] if v["name"] == "scratch")
    assert ["sizeLimit"] == list(scratch["emptyDir"])
    ephemeral = only["resources"]["limits"]["ephemeral-storage"]
    assert quantity(scratch["emptyDir"]["sizeLimit"]) <= quantity(ephemeral)


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_in_a_manifest(name: str) -> None:
    """Keys come as files from a Secret that the user makes. No variable has them."""
    assert [] == list(of_kind(name, "Secret"))
    text = yaml.safe_dump_all(rendered(name))
    assert "secretKeyRef" not in text
    assert not re.search(r"AHT_ETL_AUTH|(consumer|client|access)_(key|secret|token)", text)
    (keys,) = (v for v in pod(name)["volumes"] if v["name"] == "keys")
    assert {"secretName": "aht-etl-keys", "defaultMode": 0o440} == keys["secret"]
    (mount,) = (m for m in container(name)["volumeMounts"] if m["name"] == "keys")
    assert {"name": "AHT_ETL_SECRETS_DIR", "value": mount["mountPath"]} in container(name)["env"]
    assert pod(name)["securityContext"]["fsGroup"] == pod(name)["securityContext"]["runAsGroup"]


@pytest.mark.parametrize("name", NAMES)
def test_retries(name: str) -> None:
    """Code 2 is never retried, a lost node does not count, else each of 3 tries is a new pod."""
    spec = job(name)
    fail, ignore = spec["podFailurePolicy"]["rules"]
    assert ("FailJob", "In", [2]) == (
        fail["action"],
        fail["onExitCodes"]["operator"],
        fail["onExitCodes"]["values"],
    )
    assert ("Ignore", [{"type": "DisruptionTarget", "status": "True"}]) == (
        ignore["action"],
        ignore["onPodConditions"],
    )
    assert 2 == spec["backoffLimitPerIndex" if name in BACKFILLS else "backoffLimit"]
    assert "Never" == pod(name)["restartPolicy"]
    assert "FallbackToLogsOnError" == container(name)["terminationMessagePolicy"]
    assert spec["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize("name", SCHEDULED)
def test_the_schedule(name: str) -> None:
    """One run at a time, with a start and a run deadline. The last pods stay for inspection."""
    (cron,) = of_kind(name, "CronJob")
    spec = cron["spec"]
    assert ("Forbid", "Etc/UTC") == (spec["concurrencyPolicy"], spec["timeZone"])
    # Once an hour or once a night. A start that is an hour late is left to the next run.
    often = r"\d+ \d+ \* \* \*" if name in COPIES else r"\d+ \* \* \* \*"
    assert re.fullmatch(often, spec["schedule"])
    assert 10 < spec["startingDeadlineSeconds"] < 3600
    assert spec["successfulJobsHistoryLimit"] > 0
    assert spec["failedJobsHistoryLimit"] > 0
    assert job(name)["activeDeadlineSeconds"] > pod(name)["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("name", BACKFILLS)
def test_shards_and_completions_are_equal(name: str) -> None:
    """Both change together. Otherwise the lake would lack the share of a missing pod."""
    spec = job(name)
    assert "Indexed" == spec["completionMode"]
    args = container(name)["args"]
    shard = args[args.index("--shard") + 1]
    assert f"$(JOB_COMPLETION_INDEX)/{spec['completions']}" == shard
    assert 1 <= spec["parallelism"] <= spec["completions"]


@pytest.mark.parametrize("name", [name for name in BACKFILLS if name in APPLIED])
def test_a_backfill_pushes_no_metrics(name: str) -> None:
    """Its own variables come last, so they win over those of the scheduled run."""
    assert "" == variables(name, "overlays/volume")["AHT_ETL_METRICS__PUSHGATEWAY"]
    last = container(name)["envFrom"][-1]["configMapRef"]["name"]
    assert "AHT_ETL_METRICS__PUSHGATEWAY" in config_map(last, name)


def test_a_users_overlay_keeps_them_equal(tmp_path: Path) -> None:
    """The user changes one number in the file that the page names, and both values follow."""
    copied = tmp_path / "kubernetes"
    subprocess.run(["cp", "-r", FOLDER, copied], check=True)
    edited = copied / "overlays" / "backfill" / "kustomization.yaml"
    edited.write_text(edited.read_text().replace("value: 8}", "value: 7}"))
    for name in BACKFILLS:
        if name in APPLIED:
            text = subprocess.check_output([KUBECTL, "kustomize", copied / name], text=True)
            assert "completions: 7\n" in text
            assert "$(JOB_COMPLETION_INDEX)/7\n" in text


def test_scheduled_backfill_and_copy_are_the_same_pod() -> None:
    """Kustomize cannot share the pod between them, so it is written three times."""
    templates = [copy.deepcopy(job(name)["template"]) for name in ("base", "backfill", "compact")]
    for template in templates:
        for own in ("args", "envFrom"):
            del template["spec"]["containers"][0][own]
    assert templates[0] == templates[1] == templates[2]


@pytest.mark.parametrize("name", [name for name in COPIES if name in APPLIED])
def test_a_copy_is_outside_the_lake(name: str, tmp_path: Path) -> None:
    """On a volume, the copy has its own mounted volume."""
    found = settings(name, tmp_path)
    assert found.compact.uri is not None
    assert not found.lake_is_the_copy
    assert "compact" == container(name)["args"][0]
    if found.compact.uri.startswith("/"):
        (mount,) = (m for m in container(name)["volumeMounts"] if m["mountPath"] == "/copy")
        (volume,) = (v for v in pod(name)["volumes"] if v["name"] == mount["name"])
        assert "persistentVolumeClaim" in volume


@pytest.mark.parametrize("name", APPLIED)
def test_the_configuration_is_valid(name: str, tmp_path: Path) -> None:
    """The pod's configuration is valid. Its grace period and memory are large enough."""
    found = settings(name, tmp_path)
    assert "12345678" == found.account
    spec, only = pod(name), container(name)
    assert spec["terminationGracePeriodSeconds"] >= (
        2 * found.shutdown.grace.total_seconds() + PATIENCE_S
    )
    resources = only["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert quantity(resources["limits"]["memory"]) >= found.limits.memory + measured_peak()
    assert "cpu" not in resources["limits"]


def measured_peak() -> int:
    """Return the largest measured memory peak in bytes. Most of it is the memory budget."""
    peaks = re.findall(r"\bpeak (\d+) MB", page("performance"))
    assert peaks
    return max(map(int, peaks)) * 10**6


@pytest.mark.parametrize("name", APPLIED)
def test_referenced_objects_exist(name: str) -> None:
    """ConfigMaps, claims and the service account exist under their names, in one namespace."""
    together = [
        *rendered(name),
        *(rendered("overlays/volume") if name in (*BACKFILLS, *COPIES) else ()),
    ]
    there = {(m["kind"], m["metadata"]["name"]) for m in together}
    spec = pod(name)
    assert ("ServiceAccount", spec["serviceAccountName"]) in there
    for source in container(name)["envFrom"]:
        assert ("ConfigMap", source["configMapRef"]["name"]) in there
    for volume in spec["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in there
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
    assert {"aht-etl"} == {
        m["metadata"]["name"] if m["kind"] == "Namespace" else m["metadata"]["namespace"]
        for m in together
    }
    assert f"registry.example.com/aht-etl:{etl.__version__}" == container(name)["image"]


def test_the_page_names_every_overlay() -> None:
    """The table and the commands on the page name exactly the existing overlays."""
    table = PAGE.partition("| folder |")[2].partition("\n\n")[0]
    for name in APPLIED:
        assert f"`{name}`" in table or f"`{name.partition('/')[2]}`" in table
    applied = re.findall(r"kubectl apply -k (?:configs/kubernetes/)(\S+)", PAGE)
    assert {"overlays/aws", "overlays/backfill", "overlays/compact"} == set(applied)
    (named,) = re.findall(r"get job (\S+)", PAGE)
    assert [named] == [m["metadata"]["name"] for m in of_kind("overlays/backfill", "Job")]


def test_the_secret_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command makes the Secret that the pods mount, from the folder of getting-started."""
    monkeypatch.chdir(tmp_path)
    text = page("getting-started")
    (making,) = re.findall(r"(mkdir -m 700 secrets && .*?cd \.\.)\n", text, re.DOTALL)
    subprocess.run(["bash", "-euc", making], check=True)
    (command,) = re.findall(r"kubectl (-n aht-etl create secret .*)", PAGE)
    made = yaml.safe_load(
        subprocess.check_output([KUBECTL, *command.split(), "--dry-run=client", "-o", "yaml"])
    )
    assert ("aht-etl-keys", "aht-etl") == (
        made["metadata"]["name"],
        made["metadata"]["namespace"],
    )
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, content in made["data"].items():
        (mounted / name).write_bytes(base64.b64decode(content))
    found = load_settings(environ={"AHT_ETL_SECRETS_DIR": str(mounted)})
    assert found.auth.access_token_secret is not None
    assert "your access token secret" == found.auth.access_token_secret.get_secret_value()


def test_the_check_of_the_page() -> None:
    """Its sed replaces `run` by `check` and changes nothing else."""
    (program,) = re.findall(r"sed '(.*)' \|", PAGE)
    before = yaml.safe_dump(job("overlays/aws"))
    after = subprocess.check_output(["sed", program], input=before, text=True)
    changed = copy.deepcopy(job("overlays/aws"))
    changed["template"]["spec"]["containers"][0]["args"][0] = "check"
    assert changed == yaml.safe_load(after)
