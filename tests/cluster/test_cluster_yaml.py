"""The cluster files against Ray's own schema, our own rules, a real shell, and a simulated AWS.

Nothing leaves this machine. `cluster.local.yaml` runs for real in `test_ray_up.py`.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config

from clstudy.tracking.telemetry import SWITCHES
from tests.support.documentation import blocks, marked

ROOT = Path(__file__).resolve().parents[2]
AWS, LOCAL = ROOT / "cluster.yaml", ROOT / "cluster.local.yaml"
FILES = [pytest.param(AWS, id="aws"), pytest.param(LOCAL, id="local")]
MARK = "# ---- From here on nothing needs to change"
CHANGED_BY_USERS = {
    AWS: ["us-west-2", "ami-00000000000000000", "your-bucket", "m5.large", "g4dn.xlarge", "c6i.2xlarge", "max_workers"],
    LOCAL: ["192.0.2.10", "192.0.2.11", "ssh_user", "ssh_private_key", "/mnt/clstudy", "clstudy-python"],
}


def raw(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """With Ray's defaults filled in, as `ray up` sees it before it talks to any machine."""
    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, value in config.items() if key.endswith("_commands") for line in value]


@pytest.mark.parametrize("file", FILES)
def test_ray_accepts_it(file: Path):
    import jsonschema

    assert prepared(raw(file))["provider"]["type"] == ("aws" if file == AWS else "local")
    with pytest.raises(jsonschema.ValidationError, match="worker_typo"):
        prepared({**raw(file), "worker_typo": 1})


@pytest.mark.parametrize("file", FILES)
def test_what_users_change_is_at_the_top_and_nowhere_else(file: Path):
    top, mark, rest = re.sub(r"(?m)^ *#(?! ----).*\n", "", file.read_text()).partition(MARK)
    assert mark
    assert [value for value in CHANGED_BY_USERS[file] if value not in top] == []
    assert [value for value in CHANGED_BY_USERS[file] if value in rest] == []


@pytest.mark.parametrize("file", FILES)
def test_pages_are_bound_to_the_head_itself(file: Path):
    text = "\n".join(commands(prepared(raw(file))))
    assert "0.0.0.0" not in text
    assert re.search(r"ray start --head .*--dashboard-host=127\.0\.0\.1", text)
    assert re.search(r"mlflow server --host 127\.0\.0\.1 ", text)


def test_mlflow_starts_with_the_command_that_the_real_run_tries():
    assert raw(AWS)["head_start_ray_commands"][-1] == raw(LOCAL)["head_start_ray_commands"][-1]


@pytest.mark.parametrize("file", FILES)
def test_no_secrets(file: Path):
    secret = r"AKIA[0-9A-Z]{16}|aws_secret|aws_access|password|PRIVATE KEY|RAY_AUTH_TOKEN|\b[0-9a-f]{32,}\b"
    assert not re.search(secret, file.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("file", FILES)
def test_the_package_and_the_token_go_to_every_machine(file: Path):
    mounts = raw(file)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert [local for local in mounts.values() if not (ROOT / local).exists()] == []
    installed = {Path(local).name for local in mounts.values()}
    build = (ROOT / "pyproject.toml").read_text()
    assert {"clstudy", "search_spaces", "pyproject.toml", "constraints.txt"} <= installed
    needed = re.search(r'readme = "(.+)"\n(?:.*\n)*?license-files = \["(.+)", "(.+)"\]', build)
    assert needed and set(needed.groups()) <= installed, "without these pip does not build the package"


# --- what the settings are in the shells that Ray opens ---------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run a command as Ray does on a node, in an empty home with the token in it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            " ".join(_with_interactive(line)),
            shell=True,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    return run


def settings_commands(file: Path, storage: str) -> list[str]:
    """The setup commands of a head, but for those that install."""
    config = prepared(raw(file))
    lines = [
        line for line in config["head_setup_commands"] if "pip install" not in line and "import clstudy" not in line
    ]
    replaced = [
        line.replace("$HOME/clstudy-python", sys.prefix).replace("=/mnt/clstudy", f"={storage}") for line in lines
    ]
    assert len(replaced) >= 3
    return replaced


@pytest.mark.parametrize("file", FILES)
def test_settings_reach_the_shells_on_a_head_however_often_it_is_set_up(file: Path, tmp_path: Path, shell):
    for line in settings_commands(file, str(tmp_path)) * 2:
        done = shell(line)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / ".bashrc").read_text().count("clstudy-env") == 1
    shown = shell("echo $RAY_AUTH_MODE $CLSTUDY_STORAGE $MLFLOW_TRACKING_URI; command -v ray")
    storage = str(tmp_path) if file == LOCAL else "s3://your-bucket/clstudy"
    expected = [f"token {storage} http://127.0.0.1:5000"]
    if file == LOCAL:
        expected.append(str(Path(sys.prefix) / "bin" / "ray"))
    assert shown.stdout.split("\n")[: len(expected)] == expected
    set_there = dict(line.partition("=")[::2] for line in shell("env").stdout.splitlines())
    assert {name: set_there.get(name) for name in SWITCHES} == dict(SWITCHES)


def test_a_machine_without_the_shared_folder_says_so(tmp_path: Path, shell):
    results = [shell(line) for line in settings_commands(LOCAL, str(tmp_path / "nowhere"))]
    failed = [done.stdout for done in results if done.returncode]
    assert len(failed) == 1 and f"{tmp_path / 'nowhere'} is not a folder of" in failed[0]


# --- AWS --------------------------------------------------------------------------------------------------------------


def test_image_and_constraints_have_one_ray():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert raw(AWS)["docker"]["image"] == f"rayproject/ray:{pinned[1]}-py311-gpu"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, Any], dict[str, Any]]]:
    """A simulated AWS on which Ray has made what the file asks for: (ec2, config, one machine of each kind)."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # the SSH key goes there
        patch.setenv("AWS_ACCESS_KEY_ID", "simulated")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "simulated")
        for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        region = raw(AWS)["provider"]["region"]
        for name in profile_names():
            boto3.client("iam", region_name=region).create_instance_profile(InstanceProfileName=name)
        ec2 = boto3.client("ec2", region_name=region)
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        config = yaml.safe_load(AWS.read_text().replace("ami-00000000000000000", image))
        config = AWSNodeProvider.fillout_available_node_types_resources(prepared(config))
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for kind, entry in config["available_node_types"].items():
            provider.create_node(entry["node_config"], {"ray-node-name": kind, "ray-user-node-type": kind}, 1)
        machines = {
            next(tag["Value"] for tag in machine["Tags"] if tag["Key"] == "ray-user-node-type"): machine
            for reservation in ec2.describe_instances()["Reservations"]
            for machine in reservation["Instances"]
        }
        yield ec2, config, machines
        provider.terminate_nodes([machine["InstanceId"] for machine in machines.values()])
        left = ec2.describe_instances(
            Filters=[{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
        )
        assert not left["Reservations"], "terminated, not stopped"
        assert not ec2.describe_volumes()["Volumes"], "a disk that stays costs on"


def profile_names() -> set[str]:
    """Instance profiles that the file names."""
    kinds = raw(AWS)["available_node_types"].values()
    return {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in kinds}


def test_a_head_on_demand_and_spot_workers_from_zero(account):
    _, config, machines = account
    kinds = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert "InstanceLifecycle" not in machines["head"]
    assert kinds["head"]["resources"]["CPU"] == 0, "no trial on the head"
    for name in kinds.keys() - {"head"}:
        assert machines[name]["InstanceLifecycle"] == "spot"
        assert kinds[name]["min_workers"] == 0
        # Seen with Ray 2.60: when a kind is at its limit and the cluster is not, CPU work goes to GPU machines.
        assert kinds[name].get("max_workers", config["max_workers"]) == config["max_workers"] > 0
    assert kinds["gpu_worker"]["resources"]["GPU"] == 1
    assert "GPU" not in kinds["cpu_worker"]["resources"]


def test_resources_are_what_the_kinds_of_machine_have(account):
    ec2, config, machines = account
    for name in ("gpu_worker", "cpu_worker"):
        kind = ec2.describe_instance_types(InstanceTypes=[machines[name]["InstanceType"]])["InstanceTypes"][0]
        told = config["available_node_types"][name]["resources"]
        assert told["CPU"] == kind["VCpuInfo"]["DefaultVCpus"]
        assert told.get("GPU", 0) == sum(gpu["Count"] for gpu in kind.get("GpuInfo", {}).get("Gpus", []))


def test_nothing_is_open_but_ssh_and_the_cluster_to_itself(account):
    ec2, _, machines = account
    groups = {group["GroupId"] for machine in machines.values() for group in machine["SecurityGroups"]}
    assert len(groups) == 1
    (group,) = ec2.describe_security_groups(GroupIds=list(groups))["SecurityGroups"]
    from_outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [("tcp", 22, 22)]
    inside = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert inside == [group["GroupId"]]
    assert not any(option.split()[0] in {"-p", "--publish"} for option in raw(AWS)["docker"]["run_options"])


def test_every_machine_has_its_role_and_an_encrypted_disk(account):
    ec2, _, machines = account
    roles = {name: machine["IamInstanceProfile"]["Arn"].rpartition("/")[2] for name, machine in machines.items()}
    assert roles == {"head": "clstudy-head", "gpu_worker": "clstudy-worker", "cpu_worker": "clstudy-worker"}
    assert all(machine["MetadataOptions"]["HttpTokens"] == "required" for machine in machines.values())
    volumes = ec2.describe_volumes()["Volumes"]
    assert len(volumes) == len(machines) and all(volume["Encrypted"] for volume in volumes)


# --- the walk-through -------------------------------------------------------------------------------------------------

GUIDE = ROOT / "docs" / "cluster.md"


def shell_blocks() -> list[str]:
    return [block.text for block in blocks("bash", (GUIDE,))]


def test_commands_of_the_walk_through_are_valid_bash_and_name_real_files():
    assert len(shell_blocks()) >= 10
    for block in shell_blocks():
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, block + done.stderr
        named = re.findall(r"^ray \S+ (?:\S+ )*?(cluster\S*\.yaml)", block, re.MULTILINE)
        assert all((ROOT / name).is_file() for name in named)


def test_the_walk_through_makes_the_roles_that_the_file_names():
    prepare = marked("bash", "aws:prepare").text
    (made,) = re.findall(r"for role in (.+); do", prepare)
    assert set(made.split()) == profile_names()


def test_the_walk_through_prepares_an_account(tmp_path: Path):
    """With a stand-in for `aws` that keeps what it is asked: policies are JSON, and only the bucket is given away."""
    (tmp_path / "aws").write_text(
        '#!/bin/bash\nprintf "%s\\0" "$@" >> "$ASKED"; printf "\\1" >> "$ASKED"; echo 123456789012\n'
    )
    (tmp_path / "aws").chmod(0o755)
    prepare = marked("bash", "aws:prepare").text
    asked = tmp_path / "asked"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(asked)}
    assert shutil.which("aws", path=environment["PATH"]) == str(tmp_path / "aws")
    subprocess.run(["bash", "-eu", "-c", prepare], env=environment, check=True, capture_output=True)
    calls = [call.split("\0")[:-1] for call in asked.read_text().split("\1")[:-1]]
    policies = {
        (call[call.index("--role-name") + 1], call[call.index("--policy-name") + 1]): yaml.safe_load(call[-1])[
            "Statement"
        ]
        for call in calls
        if "--policy-document" in call
    }
    for role in profile_names():
        statements = policies[role, "the-bucket"]
        assert {statement["Resource"] for statement in statements} == {
            "arn:aws:s3:::your-bucket",
            "arn:aws:s3:::your-bucket/*",
        }
    (passing,) = policies["clstudy-head", "workers-role"]
    assert passing["Resource"] == "arn:aws:iam::123456789012:role/clstudy-worker"
    assert {role for role, _ in policies} == profile_names()
