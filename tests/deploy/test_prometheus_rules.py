import re
from pathlib import Path

import yaml

from gateway.telemetry.catalogue import BY_NAME

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def rules() -> list[dict[str, str]]:
    (group,) = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    assert isinstance(group["rules"], list)
    return group["rules"]


def test_the_configuration_reads_the_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert config["rule_files"] == ["rules.yml"]


def test_every_rule_is_about_metrics_that_the_gateway_has() -> None:
    for rule in rules():
        names = set(re.findall(r"\b(?:chatgw|gen_ai)_\w+", rule["expr"]))
        assert names <= BY_NAME.keys(), rule["alert"]
        assert names or rule["expr"].startswith("up{"), rule["alert"]


def test_every_alert_is_tested_firing_and_quiet() -> None:
    text = (FOLDER / "rules_test.yml").read_text()
    for rule in rules():
        assert f"alertname: {rule['alert']}, exp_alerts: []" in text
        assert f'alertname="{rule["alert"]}"' in text
