from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"


def test_prometheus_scrapes_the_admin_listener_once_for_all_workers() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    (job,) = config["scrape_configs"]
    (group,) = job["static_configs"]
    assert group["targets"] == ["127.0.0.1:9464"]
    assert job.get("metrics_path", "/metrics") == "/metrics"


def test_a_page_with_unbounded_series_is_refused() -> None:
    (job,) = yaml.safe_load(CONFIG.read_text())["scrape_configs"]
    assert 3000 < job["sample_limit"] <= 50000
