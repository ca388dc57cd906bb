"""The alert rules and the dashboard: a real Prometheus accepts them and answers their queries."""

import gzip
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from etl.emulator import Dataset, Fault
from etl.pipeline import metrics
from tests.conftest import Runner, Serve
from tests.programs import listening, program

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RULES = CONFIGS / "monitoring" / "alerts.yaml"
UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((CONFIGS / "monitoring" / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
HOUR = "/year=2022/month=6/day=1/hour={}/accountId=le79344075/sequences.1.json.gz"
DATA = Dataset.of(
    {
        HOUR.format(hour): gzip.compress(b'{"segmentId": "a"}\n{"segmentId": "b"}\n{"sequence": 1}')
        for hour in (1, 2, 3)
    }
)


def queries() -> Iterator[str]:
    """Yield the dashboard's queries, for all accounts."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"].replace("$account", ".*")


def test_rules_are_valid_and_fire_in_time() -> None:
    """Prometheus's own tool proves it: they fire when they should, and not before."""
    promtool = program("promtool")
    for command, file in (("check", RULES), ("test", UNIT_TESTS)):
        done = subprocess.run(
            [promtool, command, "rules", str(file)], check=False, capture_output=True, text=True
        )
        assert (0, True) == (done.returncode, "SUCCESS" in done.stdout), done.stdout + done.stderr


def test_every_rule_is_tested_firing_and_silent() -> None:
    """For each alert, the unit tests have a case in which it fires and one in which it does not."""
    seen: dict[str, set[bool]] = {}
    for group in yaml.safe_load(UNIT_TESTS.read_text())["tests"]:
        for case in group["alert_rule_test"]:
            seen.setdefault(case["alertname"], set()).add(bool(case.get("exp_alerts")))
    assert {rule["alert"]: {True, False} for rule in ALERTS} == seen


def test_rules_and_dashboard_use_exactly_the_exported_metrics() -> None:
    """They use every metric that the program exports, and no other."""
    named = re.findall(r"\baht_etl_\w+", "\n".join([*queries(), *(r["expr"] for r in ALERTS)]))
    assert set(metrics.HELP) == set(named)


def test_every_rule_names_a_runbook() -> None:
    """The runbook is an existing section of the operator's page."""
    headings = re.findall(
        r"^#+ (.+)$", (CONFIGS / "docs" / "operations.md").read_text(), re.MULTILINE
    )
    for rule in ALERTS:
        match = re.fullmatch(r'configs/docs/operations\.md, "(.+)"', rule["annotations"]["runbook"])
        assert match is not None
        assert match[1] in headings


def test_prometheus_answers_every_query(run: Runner, serve: Serve) -> None:
    """After one real run, scraped from a real gateway, each panel has data."""
    fault = Fault("file", "status", status=404, path=HOUR.format(2), times=None)
    with listening("prometheus-pushgateway", "--persistence.file=") as gateway:
        places = {"AHT_ETL_METRICS__PUSHGATEWAY": gateway}
        assert run(serve(DATA), "--paths", _paths(run, 1), **places).code == 0
        assert run(serve(DATA, faults=(fault,)), **places).code == 3
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "pushgateway",
                    "honor_labels": True,
                    "static_configs": [{"targets": [gateway.removeprefix("http://")]}],
                }
            ],
        }
        file = run.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        with listening(
            "prometheus", f"--config.file={file}", f"--storage.tsdb.path={run.folder}/tsdb"
        ) as url:
            _until(lambda: _answers(f"{url}/-/ready"))
            _until(lambda: bool(ask(url, "aht_etl_last_run_exit_code")))
            empty = [query for query in queries() if not ask(url, query)]
            # They fire because the hours are years old and one of three rows in a file is bad.
            expected = {"AhtEtlLagging", "AhtEtlQuarantine"}
            _until(lambda: {r["name"] for r in rules(url) if r["state"] != "inactive"} == expected)
            assert {"ok"} == {rule["health"] for rule in rules(url)}
    assert [] == empty


def ask(url: str, query: str) -> list[Any]:
    return list(_get(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}")["result"])


def rules(url: str) -> list[dict[str, Any]]:
    (group,) = _get(f"{url}/api/v1/rules")["groups"]
    return list(group["rules"])


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        content: dict[str, Any] = json.load(answer)
    assert content["status"] == "success"
    return dict(content["data"])


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=10):
        return True
    return False


def _until(happened: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def _paths(run: Runner, hour: int) -> str:
    file = run.folder / "paths.txt"
    file.write_text(HOUR.format(hour) + "\n")
    return str(file)


def test_the_dashboard_is_well_formed() -> None:
    """It works with any data source name and contains nothing of another installation."""
    assert ("aht-etl", False) == (DASHBOARD["uid"], "id" in DASHBOARD)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert {"datasource": "datasource", "account": "query"} == {
        name: variable["type"] for name, variable in variables.items()
    }
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert len(PANELS) == len({panel["id"] for panel in PANELS})
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert [source] * (1 + len(panel["targets"])) == [
            panel["datasource"],
            *(target["datasource"] for target in panel["targets"]),
        ]
        references = [target["refId"] for target in panel["targets"]]
        assert sorted(set(references)) == references
        assert all('{account=~"$account"' in target["expr"] for target in panel["targets"])
    for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
        assert one["x"] + one["w"] <= 24
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
