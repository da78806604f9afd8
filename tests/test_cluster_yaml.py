"""cluster.yaml against Ray's own schema, offline, and against our own rules: spot workers, nothing open but SSH."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "cluster.yaml"


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def prepared(raw: dict[str, Any]) -> dict[str, Any]:
    """The file with Ray's defaults filled in, as `ray up` sees it before it talks to AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(raw))
    validate_config(config)
    return config


def commands(config: dict[str, Any]) -> str:
    return "\n".join("\n".join(value) for key, value in config.items() if key.endswith("_commands"))


def test_ray_accepts_it(prepared: dict[str, Any]):
    assert prepared["provider"]["type"] == "aws"
    assert prepared["docker"]["container_name"]


def test_the_check_can_fail(raw: dict[str, Any]):
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError, match="worker_typo"):
        validate_config(prepare_config({**copy.deepcopy(raw), "worker_typo": 1}))


def test_head_on_demand_and_spot_gpu_workers_from_zero(prepared: dict[str, Any]):
    nodes = prepared["available_node_types"]
    head = nodes.pop(prepared["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert nodes
    for node in nodes.values():
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
        assert node["resources"]["GPU"] >= 1
        assert node["min_workers"] == 0
        assert 0 < node["max_workers"] <= prepared["max_workers"]


def test_nothing_is_open_but_ssh(prepared: dict[str, Any]):
    assert "IpPermissions" not in prepared["provider"].get("security_group", {})
    text = commands(prepared)
    assert "0.0.0.0" not in text
    assert "--dashboard-host=127.0.0.1" in text
    assert re.search(r"mlflow server\s+--host 127\.0\.0\.1 ", text)
    assert not any("-p" in option.split() or "--publish" in option for option in prepared["docker"]["run_options"])


def test_no_secrets_and_no_key_files():
    text = FILE.read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|aws_secret|ssh_private_key|password|token", text, re.IGNORECASE)


def test_every_mounted_file_is_in_the_repository(raw: dict[str, Any]):
    missing = [local for local in raw["file_mounts"].values() if not (ROOT / local).exists()]
    assert missing == []


def test_image_and_constraints_have_one_ray(raw: dict[str, Any]):
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert raw["docker"]["image"].startswith(f"rayproject/ray:{pinned[1]}-py311")


def test_workers_share_the_folder_that_results_go_to(raw: dict[str, Any]):
    assert any("/mnt/clstudy:/mnt/clstudy" in option for option in raw["docker"]["run_options"])
    assert "/mnt/clstudy" in "\n".join(raw["initialization_commands"])
    assert "--out /mnt/clstudy/runs" in FILE.read_text()
