"""The manifest for Kubernetes and the image: fields, versions and the command; nothing is applied."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from tests.docs.test_pages import of_clstudy, parsed

ROOT = Path(__file__).resolve().parents[2]
CONTAINER = {"name", "image", "resources", "volumeMounts", "env"}
POD = {"containers", "volumes", "securityContext"}
GROUP = {"rayStartParams", "template"}
CLUSTER = {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"}
JOB = {
    "entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
    "rayClusterSpec",
}  # fmt: skip
"""KubeRay's fields (API reference of ray.io/v1) that the manifest may use; a mistyped one is not among them."""


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all((ROOT / "kuberay.yaml").read_text())}


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_it_uses_known_fields_only(documents: dict[str, dict[str, Any]]) -> None:
    job = documents["RayJob"]
    assert job["apiVersion"] == "ray.io/v1" and set(job["spec"]) == JOB
    cluster = job["spec"]["rayClusterSpec"]
    assert set(cluster) == CLUSTER and set(cluster["headGroupSpec"]) == GROUP
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == GROUP | {"groupName", "minReplicas", "maxReplicas"}
        assert 0 <= group["minReplicas"] <= group["maxReplicas"]
    for pod in pods(job):
        assert set(pod) <= POD and len(pod["containers"]) == 1
        assert set(pod["containers"][0]) <= CONTAINER
        limits, requests = (pod["containers"][0]["resources"][kind] for kind in ("limits", "requests"))
        assert limits == requests, "Ray counts the limits; what is not requested may not be there"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])


def test_everybody_writes_to_the_claimed_volume_which_the_command_names(documents: dict[str, dict[str, Any]]) -> None:
    claim, job = documents["PersistentVolumeClaim"], documents["RayJob"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    words = shlex.split(job["spec"]["entrypoint"])
    storage = words[words.index("--storage") + 1]
    for pod in pods(job):
        (volume,), (mount,) = pod["volumes"], pod["containers"][0]["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert (mount["name"], mount["mountPath"]) == (volume["name"], storage)
        assert len({pod["containers"][0]["image"] for pod in pods(job)}) == 1


def test_the_command_is_one_of_ours_on_the_cluster_that_is_there(documents: dict[str, dict[str, Any]]) -> None:
    arguments = of_clstudy(shlex.split(documents["RayJob"]["spec"]["entrypoint"]))
    assert arguments is not None and arguments[arguments.index("--address") + 1] == "auto"
    parsed(arguments)


def test_ray_is_the_version_that_the_image_installs(documents: dict[str, dict[str, Any]]) -> None:
    version = documents["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version}\n" in (ROOT / "constraints.txt").read_text()
    assert version == ray.__version__


def copied() -> list[str]:
    lines = re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [name for line in lines for name in line.split()[:-1]]


def test_what_the_image_needs_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*" and {f"!{name}" for name in copied()} <= set(ignored)
    assert all((ROOT / name).exists() for name in copied())


@pytest.mark.network
def test_the_files_that_the_image_copies_are_enough_to_install_the_package(tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    for name in copied():
        source, target = ROOT / name, tmp_path / "clone" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copyfile(source, target)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path / "wheels"),
        ".",
    ]
    made = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(target),
         *map(str, (tmp_path / "wheels").glob("clstudy-*.whl"))],
        check=True,
    )  # fmt: skip
    assert (target / "clstudy" / "search_spaces" / "hull_sizes.yaml").is_file()
