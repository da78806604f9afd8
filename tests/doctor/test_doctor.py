"""The doctor: findings from invented facts; facts from this machine, a cluster, a bucket, a tracking server."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import clstudy
from clstudy.assets.model_files import find_files
from clstudy.cli.doctor import main
from clstudy.cluster.nodes import Answer, Node, ask_nodes, clocks, living_nodes, ray_complaint, telling_part
from clstudy.doctor.facts import FIX, NOTE, PASS, CheckLine, Disk, Facts, Probe, Seen, Tracking
from clstudy.doctor.gpu_extra import judge_gpu_extra
from clstudy.doctor.judges import (
    judge_answers,
    judge_auth,
    judge_auth_here,
    judge_clock,
    judge_code,
    judge_disks,
    judge_gpus,
    judge_instruction_sets,
    judge_machine,
    judge_onnx,
    judge_reach,
    judge_room,
    judge_share,
    judge_storage,
    judge_tracking,
    judge_versions,
    judge_weights,
)
from clstudy.doctor.machine import gather_facts, node_types, source_digest, torch_build, unmet_requirements
from clstudy.doctor.probes import (
    ask_tracking,
    file_system_of,
    has_arrived,
    listening_addresses,
    storage_probe,
    takes_locks,
    visit_storage,
    within,
)
from clstudy.doctor.sheet import whole_facts
from clstudy.settings.profiles import PROFILES, Resources
from clstudy.storage.places import open_place
from clstudy.storage.trees import list_files
from clstudy.tracking.local_database import sqlite_uri
from tests.support.namespace_hosts import missing, namespace_hosts
from tests.support.object_store import BUCKET, object_store

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
ENV.pop("MLFLOW_TRACKING_URI", None)
LINE = re.compile(r"(pass|FIX |note)  [\w ]+: .+")
GB = 10**9
MYSTYLE = PROFILES["mystyle"]()
VERSIONS = {"python": "3.11.7", "clstudy": "0.1.0", "ray": "2.60.0", "torch": "2.13.0+cu126", "onnxruntime": "1.31.1"}
FACTS = Facts(
    host="a",
    versions=VERSIONS,
    code="0123456789abcdef",
    folder="/home/me/clstudy",
    cpus=8,
    memory=32 * GB,
    gpus=("T4",),
    torch_gpus=("T4",),
    torch_cuda="12.6",
    onnx_providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
    disks=(Disk("/tmp", 100 * GB, 50 * GB), Disk("/dev/shm", 16 * GB, 16 * GB)),
    auth_mode="token",
    has_token=True,
)
"""A machine with nothing to complain about."""


def without_gpu(facts: Facts) -> Facts:
    return replace(facts, gpus=(), torch_gpus=(), onnx_providers=("CPUExecutionProvider",))


def only(lines: list[CheckLine]) -> CheckLine:
    assert len(lines) == 1, [str(line) for line in lines]
    return lines[0]


# --- judging -------------------------------------------------------------------------------------------------------


def test_a_line_says_its_kind_what_and_what_to_do() -> None:
    assert str(CheckLine(PASS, "disk", "9 GB free")) == "pass  disk: 9 GB free"
    assert str(CheckLine(FIX, "disk", "full", "make room")) == "FIX   disk: full -> make room"


def test_a_machine_in_a_line() -> None:
    two = replace(FACTS, gpus=("T4", "T4"))
    assert judge_machine("a", two).text == "a: 8 CPUs, 32.0 GB memory, 2 x T4"
    assert judge_machine("a", without_gpu(FACTS)).text.endswith("no GPU")


def test_versions_that_agree_pass_whatever_torch_is_built_for() -> None:
    head = replace(without_gpu(FACTS), versions={**VERSIONS, "torch": "2.13.0+cpu"})
    line = only(judge_versions({"a": FACTS, "b": head}))
    assert line.kind == PASS and "the same in 2 places" in line.text and "ray 2.60.0" in line.text


AVX2, AVX512 = frozenset({"avx2", "fma"}), frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"})


@pytest.mark.parametrize(
    ("chosen", "flags", "kind", "said", "remedy"),
    [
        ("native", [AVX512, AVX512], PASS, "avx512 everywhere", ""),
        ("native", [AVX2], PASS, "avx2", ""),
        ("native", [frozenset()], PASS, "neither avx2 nor avx512", ""),
        (
            "native",
            [AVX512, AVX2],
            NOTE,
            "avx512 (n0); avx2 (n1): the same stage differs",
            "compute.instruction_set=avx2",
        ),
        ("native", [AVX512, frozenset()], NOTE, "(n1): the same stage differs", "leave machines of the other kind out"),
        ("avx2", [AVX512, AVX2], PASS, "every machine can compute with avx2", ""),
        ("avx512", [AVX512, AVX2], FIX, "'avx512', which n1 cannot compute with", "choose native or avx2, or leave"),
    ],
)
def test_kinds_of_processor_are_compared_with_each_other_and_with_the_setting(
    chosen: str, flags: list[frozenset[str]], kind: str, said: str, remedy: str
) -> None:
    found = {f"n{place}": replace(FACTS, flags=one) for place, one in enumerate(flags)}
    line = only(judge_instruction_sets(chosen, found))
    assert line.kind == kind and said in line.text and remedy in line.remedy, str(line)


def test_versions_that_differ_are_named_with_their_places() -> None:
    other = replace(FACTS, versions={**VERSIONS, "ray": "2.61.0"})
    line = only(judge_versions({"a": FACTS, "b": other, "c": FACTS}))
    assert (
        line.kind == FIX and line.text == "ray differs: 2.60.0 (a, c); 2.61.0 (b)" and "constraints.txt" in line.remedy
    )


def test_what_is_broken_or_too_old_is_said_once_for_every_place() -> None:
    ill = replace(FACTS, broken={"torch": "libtorch.so: no such file"}, unmet=("numpy is 1.26, clstudy needs >=2.0",))
    lines = judge_versions({"a": FACTS, "b": ill})
    assert [line.kind for line in lines] == [FIX, FIX]
    assert [line.text for line in lines] == [
        "torch cannot be imported: libtorch.so: no such file (b)",
        "numpy is 1.26, clstudy needs >=2.0 (b)",
    ]


def test_the_gpu_package_of_onnxruntime_may_be_on_some_nodes_only() -> None:
    gpu = {name: version for name, version in VERSIONS.items() if name != "onnxruntime"}
    node = replace(FACTS, versions={**gpu, "onnxruntime-gpu": "1.31.1"})
    assert only(judge_versions({"a": FACTS, "b": node})).kind == PASS


def test_the_same_version_with_other_code_is_found_out() -> None:
    other = replace(FACTS, code="fedcba9876543210", folder="/opt/clstudy")
    line = only(judge_code({"the driver": FACTS, "b": other}))
    assert line.kind == FIX
    assert "01234567 in /home/me/clstudy (the driver); fedcba98 in /opt/clstudy (b)" in line.text
    elsewhere = replace(FACTS, folder="/opt/clstudy")
    assert only(judge_code({"the driver": FACTS, "b": elsewhere})).kind == PASS, "the same code in another folder"


def test_damaged_weights_of_the_package_are_said() -> None:
    line = only(judge_code({"a": replace(FACTS, altered=("packaged file x was altered",))}))
    assert line.kind == FIX and "packaged file x was altered (a)" in line.text


GPU_TROUBLES = {
    "a build for CPUs": (replace(FACTS, torch_gpus=(), torch_cuda=""), 1.0, "built for CPUs|install a CUDA build"),
    "hidden": (replace(FACTS, torch_gpus=(), visible_devices=""), 0.0, "CUDA_VISIBLE_DEVICES='' hides it|unset it"),
    "an old driver": (
        replace(FACTS, torch_gpus=()),
        None,
        "torch for CUDA 12.6 cannot use it|update the NVIDIA driver",
    ),
    "not offered": (FACTS, 0.0, "Ray offers 0 GPU on a, torch sees 1|--num-gpus=1"),
    "invented": (without_gpu(FACTS), 2.0, "Ray offers 2 GPU on a, torch sees 0|--num-gpus=0"),
}


@pytest.mark.parametrize("case", GPU_TROUBLES)
def test_gpus_that_cannot_be_used(case: str) -> None:
    facts, offered, expected = GPU_TROUBLES[case]
    line = only(judge_gpus(True, {"a": facts}, {} if offered is None else {"a": offered}))
    text, remedy = expected.split("|")
    assert line.kind == FIX and text in line.text and remedy in line.remedy
    assert only(judge_gpus(False, {"a": facts}, {})).kind == PASS, "a profile for CPUs does not care"


def test_gpus_that_all_agree_on() -> None:
    assert only(judge_gpus(True, {"a": FACTS}, {})).text == "torch sees 1"
    found = {"a": FACTS, "head": without_gpu(FACTS)}
    assert only(judge_gpus(True, found, {"a": 1.0, "head": 0.0})).text == "torch sees 1, and Ray offers them all"
    assert "stay idle: 1" in only(judge_gpus(False, found, {})).text
    assert judge_gpus(True, {"a": replace(FACTS, torch_gpus=None, broken={"torch": "?"})}, {}) == []


def test_the_two_packages_of_onnxruntime() -> None:
    cpu = ("CPUExecutionProvider",)
    both = {**VERSIONS, "onnxruntime-gpu": "1.31.1"}
    gpu = {name: version for name, version in both.items() if name != "onnxruntime"}

    def judged(versions: dict[str, str], providers: tuple[str, ...]) -> str:
        return only(judge_onnx(True, {"a": replace(FACTS, versions=versions, onnx_providers=providers)})).kind

    assert judged(both, cpu) == FIX
    assert judged(both, FACTS.onnx_providers) == NOTE
    assert judged(VERSIONS, cpu) == NOTE
    assert judged(gpu, FACTS.onnx_providers) == PASS
    assert judge_onnx(False, {"a": FACTS}) == [] and judge_onnx(True, {"a": without_gpu(FACTS)}) == []


def test_without_a_gpu_the_gpu_extra_is_told_in_words() -> None:
    cpu, cuda = ("CPUExecutionProvider",), FACTS.onnx_providers
    gpu = {name: version for name, version in VERSIONS.items() if name != "onnxruntime"} | {"onnxruntime-gpu": "1.31.1"}
    both = VERSIONS | gpu

    def line(versions: dict[str, str], providers: tuple[str, ...], torch_cuda: str) -> CheckLine:
        facts = replace(without_gpu(FACTS), versions=versions, onnx_providers=providers, torch_cuda=torch_cuda)
        return only(judge_gpu_extra(False, {"a": facts}))

    plain = line(VERSIONS, cpu, "")
    assert plain.kind == PASS and "onnxruntime 1.31.1 (providers: CPUExecutionProvider)" in plain.text
    assert "built for CPUs" in plain.text and "pip install onnxruntime-gpu" in plain.remedy
    complete = line(gpu, cuda, "12.6")
    assert complete.kind == PASS and "built for CUDA 12.6; both can use a GPU" in complete.text
    for providers, on_top in ((cpu, "CPUs"), (cuda, "GPUs")):
        shared = line(both, providers, "12.6")
        assert shared.kind == NOTE and f"installed last, now that for {on_top}, wins" in shared.text
    halves = line(gpu, cuda, ""), line(VERSIONS, cpu, "12.6")
    assert [half.kind for half in halves] == [NOTE, NOTE]
    assert "CUDA build of torch" in halves[0].remedy and "pip install onnxruntime-gpu" in halves[1].remedy
    assert "no onnxruntime (providers: none); no torch" in line({}, (), "").text
    assert judge_gpu_extra(True, {"a": FACTS}) == [], "GPUs that are computed with are judged by trying them"
    assert only(judge_gpu_extra(True, {"a": without_gpu(FACTS), "b": without_gpu(FACTS)})).text.startswith("a, b: ")
    assert only(judge_gpu_extra(False, {"a": FACTS})).kind == NOTE


@pytest.mark.parametrize(
    ("text", "expected"),
    [("cuda: Optional[str] = '12.6'\n", "12.6"), ("cuda = '13.0'\n", "13.0"), ("cuda: Optional[str] = None\n", "")],
)
def test_the_build_of_torch_is_read_without_importing_it(text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "version.py").write_text(f"__version__ = '2.13.0'\n{text}hip: Optional[str] = None\n")
    assert torch_build(ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))) == expected
    assert torch_build(None) == "" == torch_build(ModuleSpec("torch", None, origin=str(tmp_path / "gone" / "x.py")))
    torch = pytest.importorskip("torch")
    assert torch_build(importlib.util.find_spec("torch")) == (torch.version.cuda or "")


def test_settings_that_ask_for_weights_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    embedded = PROFILES["embedded"]()
    asking = replace(embedded, evaluation=replace(embedded.evaluation, lpips_backend="lpips", lpips_network="squeeze"))
    line = only(judge_weights(asking, find_files(asking, ()), (), False))
    assert line.kind == FIX and line.text.startswith("lpips_squeeze: no SqueezeNet 1")


def test_room_for_trials_is_counted_per_machine() -> None:
    share = Resources(cpus=2.0, gpus=0.5)
    line = judge_share(share, {"a": (8.0, 1.0), "b": (3.0, 4.0), "head": (0.0, 0.0)}, {})
    assert line.kind == PASS and "3 fit at a time" in line.text, "a: two by its GPU, b: one by its CPUs"
    assert judge_share(Resources(cpus=1.0), {"a": (0.5, 0.0), "b": (0.5, 0.0)}, {}).kind == FIX, "halves make no whole"


def test_a_gpu_that_nobody_has_and_one_that_the_autoscaler_brings() -> None:
    share = Resources(cpus=2.0, gpus=1.0)
    line = judge_share(share, {"this machine": (8.0, 0.0)}, {})
    assert line.kind == FIX and "this machine cannot give it" in line.text and "--device cpu" in line.remedy
    types = node_types(ROOT / "cluster.yaml")
    line = judge_share(share, {"head": (0.0, 0.0)}, types)
    assert line.kind == NOTE and "the autoscaler starts gpu_worker when" in line.text
    line = judge_share(Resources(cpus=64.0), {"head": (0.0, 0.0)}, types)
    assert line.kind == FIX


def test_disks_nearly_full_and_shared_memory_too_small() -> None:
    def with_disks(*disks: Disk) -> dict[str, Facts]:
        return {"a": replace(FACTS, disks=disks)}

    line = only(judge_disks({"a": FACTS, "b": replace(FACTS, disks=(Disk("/tmp", 100 * GB, 7 * GB),))}))
    assert line.kind == PASS and line.text.startswith("at least 7.0 GB free")
    line = only(judge_disks(with_disks(Disk("/tmp", 100 * GB, 4 * GB))))
    assert line.kind == FIX and "96.0% full" in line.text
    note, passed = judge_disks(with_disks(Disk("/dev/shm", 64 * 10**6, 64 * 10**6), Disk("/tmp", 100 * GB, 50 * GB)))
    assert note.kind == NOTE and "64 MB" in note.text and "--shm-size=10g" in note.remedy and passed.kind == PASS


PROBE = Probe(Path("/mnt/s/.doctor-1"), free=50 * GB)


def test_a_storage_that_all_share() -> None:
    seen = {"a": Seen(True), "b": Seen(True)}
    line = only(judge_storage("/mnt/s", PROBE, seen, ["a", "b"]))
    assert line.kind == PASS and "2 nodes" in line.text
    assert only(judge_storage("/mnt/s", PROBE, {}, ())).text == "this machine writes and reads /mnt/s"


STORAGE_TROUBLES = {
    "another folder": (Seen(False), [], "on b is not the folder that the driver writes to", "mount one network folder"),
    "no answer back": (Seen(True), [], "does not reach the driver: it is not shared", "mount one network folder"),
    "read only": (Seen(True, "Read-only file system"), [], "b cannot write /mnt/s: Read-only", "permissions"),
    "no credentials": (Seen(False, "AWS Error ACCESS_DENIED"), [], "b cannot read /mnt/s: AWS", "credentials"),
}


@pytest.mark.parametrize("case", STORAGE_TROUBLES)
def test_a_storage_that_one_node_does_not_share(case: str) -> None:
    answer, arrived, text, remedy = STORAGE_TROUBLES[case]
    line = only(judge_storage("/mnt/s", PROBE, {"a": Seen(True), "b": answer}, ["a", *arrived]))
    assert line.kind == FIX and text in line.text and remedy in line.remedy


def test_a_storage_that_the_driver_cannot_write_is_told_once() -> None:
    told = replace(PROBE, trouble="the storage /mnt/s cannot be written: No space; name another folder")
    line = only(judge_storage("/mnt/s", told, {"a": Seen(False)}, ()))
    assert (line.kind, line.text) == (FIX, "the storage /mnt/s cannot be written: No space")
    assert line.remedy == "name another folder" and judge_room("/mnt/s", told, MYSTYLE) == []
    hung = only(judge_storage("/mnt/s", replace(PROBE, trouble="no answer within 60 s"), {}, ()))
    assert hung.text == "/mnt/s: no answer within 60 s" and hung.remedy
    _, unlocked = judge_storage("/mnt/s", replace(PROBE, locks=False), {}, ())
    assert unlocked.kind == NOTE and "two drivers" in unlocked.text


def test_room_in_the_storage_follows_the_profile() -> None:
    trial = 10 * 125_000_000
    assert only(judge_room("s", replace(PROBE, free=2 * trial), MYSTYLE)).kind == PASS
    line = only(judge_room("s", replace(PROBE, free=2 * trial - 1), MYSTYLE))
    assert line.kind == FIX and "a trial writes up to 1.2 GB (10 stages)" in line.text
    assert only(judge_room("s", replace(PROBE, free=499_999_999), PROFILES["embedded"]())).kind == FIX
    assert only(judge_room("s", replace(PROBE, free=None), MYSTYLE)).kind == PASS


@pytest.mark.parametrize(
    ("span", "kind", "text"),
    [
        ((4.0, 4.5), FIX, "b is at least 4.0 s ahead of"),
        ((-9.0, -3.0), FIX, "b is at least 3.0 s behind"),
        ((-1.0, 2.5), NOTE, "takes 3.5 s to answer"),
        ((-2.5, 0.1), NOTE, "takes 2.6 s to answer"),
        ((-0.5, 1.9), PASS, "2026-01-01 00:00:00 UTC, at most 1.90 s from b"),
    ],
)
def test_clocks(span: tuple[float, float], kind: str, text: str) -> None:
    line = only(judge_clock(1_767_225_600.0, {"b": span}))
    assert line.kind == kind and text in line.text


def test_clocks_that_are_right_say_nothing_where_one_is_wrong() -> None:
    assert " c " in only(judge_clock(0.0, {"b": (0.0, 0.1), "c": (5.0, 5.1)})).text
    assert only(judge_clock(0.0, {})).kind == NOTE


TRACKING_TROUBLES = {
    "down": ("http://127.0.0.1:5000", "does not answer (Connection refused)", "mlflow server --host 127.0.0.1"),
    "host": ("http://head:5000", "failed with error code 403 != 200", "--allowed-hosts head"),
    "login": ("https://mlflow.example", "failed with error code 401 != 200", "MLFLOW_TRACKING_USERNAME"),
    "database": ("sqlite:////mnt/s/mlflow.db", "Permission denied", "MLFLOW_TRACKING_URI"),
}


@pytest.mark.parametrize("case", TRACKING_TROUBLES)
def test_mlflow_that_cannot_be_used(case: str) -> None:
    uri, trouble, remedy = TRACKING_TROUBLES[case]
    line = only(judge_tracking(Tracking(uri=uri, trouble=trouble)))
    assert line.kind == FIX and line.text == f"{uri}: {trouble}" and remedy in line.remedy


def test_mlflow_that_others_reach() -> None:
    here = Tracking(uri="http://127.0.0.1:5000", listens=("127.0.0.1", "::1"))
    assert only(judge_tracking(here)).kind == PASS
    for exposed in (replace(here, listens=("0.0.0.0",)), replace(here, uri="http://head:5000", listens=())):
        passed, note = judge_tracking(exposed)
        assert passed.kind == PASS and note.kind == NOTE and "whoever reaches that" in note.text
    line = only(judge_tracking(Tracking(uri="https://me:secret@mlflow.example")))
    assert line.kind == PASS and "secret" not in str(line), "a server with TLS and a password is no stranger's"


def test_a_tracking_database_on_a_network_folder() -> None:
    disk = Tracking(uri="sqlite:////mnt/s/mlflow.db", file_system="ext4")
    assert only(judge_tracking(disk)).text == "sqlite:////mnt/s/mlflow.db can be written"
    for kind in ("nfs4", "fuse.s3fs", "lustre"):
        _, note = judge_tracking(replace(disk, file_system=kind))
        assert note.kind == NOTE and kind in note.text


def test_weights_from_outside(tmp_path: Path) -> None:
    line = only(judge_weights(PROFILES["embedded"](), find_files(PROFILES["embedded"](), ()), (), True))
    assert line.kind == PASS and "in the package" in line.text
    (tmp_path / "ffhq.pkl").write_bytes(b"g")
    options = [str(tmp_path)]
    lines = judge_weights(MYSTYLE, find_files(MYSTYLE, options), options, True)
    fixes = [line for line in lines if line.kind == FIX]
    assert only(fixes).text.startswith("arcface: no ArcFace network") and "insightface" in only(fixes).remedy
    assert sorted(line.text.split()[0] for line in lines if line.kind == NOTE) == ["dists", "fid", "kid"]
    passed = only([line for line in lines if line.kind == PASS])
    assert "generator ffhq.pkl" in passed.text and "fetch them from the storage" in passed.text
    assert "fetch" not in str(judge_weights(MYSTYLE, find_files(MYSTYLE, options), options, False)[-1])


def test_whether_strangers_can_run_code() -> None:
    assert judge_auth_here(replace(FACTS, auth_mode="")).kind == PASS
    assert judge_auth_here(replace(FACTS, auth_mode="disabled")).kind == NOTE
    assert judge_auth_here(replace(FACTS, has_token=False)).kind == PASS, "a run makes one"
    assert only(judge_auth({"a": FACTS, "b": FACTS})).kind == PASS
    line = only(judge_auth({"a": FACTS, "b": replace(FACTS, auth_mode="")}))
    assert line.kind == NOTE and line.text.startswith("b: whoever")


def test_nodes_that_do_not_answer() -> None:
    answers = {
        "a": Answer(1, "", 0.0, 1.0),
        "b": Answer(None, "no answer within 90 s", 0.0, 90.0),
        "c": Answer(None, "ModuleNotFoundError: No module named 'clstudy'", 0.0, 1.0),
    }
    slow, without = judge_answers(answers)
    assert "b: no answer" in slow.text and "ray status" in slow.remedy
    assert "c: " in without.text and "install clstudy there" in without.remedy


INVALID_TOKEN = """\
[2026-11-21 13:51:12,564 W 23882 23882] gcs_client.cc:210: Failed to get cluster ID from GCS server: Unauthenticated: …
Traceback (most recent call last):
  File "python/ray/includes/common.pxi", line 119, in ray._raylet.check_status
ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken: Authentication token is missing or incorrect.
"""
NO_TOKEN = """\
[2026-11-21 13:51:17,676 C 23915 23915] authentication_token_loader.cc:115:  An unexpected system state has occurred.
 Check failed: has_token || ignore_auth_mode Token authentication is enabled but Ray couldn't find a token.
*** StackTrace Information ***
/tmp/venv/bin/python(_start+0x21) [0x5618af207081] _start
"""
OTHER_VERSION = """\
Traceback (most recent call last):
RuntimeError: Version mismatch: The cluster was started with:
    Ray: 2.9.0
    Python: 3.10.1
This process on node 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.mark.parametrize(
    ("said", "text", "remedy"),
    [
        (None, "does not answer", "firewall"),
        (INVALID_TOKEN, "wants a token", "~/.ray/auth_token"),
        (NO_TOKEN, "wants a token", "~/.ray/auth_token"),
        (OTHER_VERSION, "Ray: 2.9.0 Python: 3.10.1", "constraints.txt"),
        ("ConnectionError: Could not find any running Ray instance.", "any running Ray", "ray start --head"),
    ],
)
def test_a_cluster_that_lets_nobody_in(said: str | None, text: str, remedy: str) -> None:
    line = judge_reach("head:6379", None if said is None else telling_part(said))
    assert line is not None and line.kind == FIX and text in line.text and remedy in line.remedy
    assert judge_reach("head:6379", "") is None


def test_facts_of_another_clstudy_are_no_answer() -> None:
    older = replace(FACTS)
    object.__delattr__(older, "altered")
    answers = {"a": Answer((FACTS, Seen(True)), "", 0.0, 1.0), "b": Answer((older, Seen(True)), "", 0.0, 1.0)}
    checked = whole_facts(answers)
    assert checked["a"] is answers["a"] and checked["b"].value is None
    assert "install clstudy there" in only(judge_answers(checked)).remedy


# --- gathering -----------------------------------------------------------------------------------------------------


def doctor(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, from a folder of its own; it must say nothing but lines."""
    done = subprocess.run(
        [sys.executable, "-m", "clstudy.doctor", *options],
        env={**ENV, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.stderr == "" and all(LINE.fullmatch(line) for line in done.stdout.splitlines()), done
    return done


def starting(text: str, done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if line.startswith(text)]


def test_who_has_configured_nothing_gets_a_sheet_and_keeps_an_empty_folder(tmp_path: Path) -> None:
    began = time.monotonic()
    done = doctor(tmp_path)
    took = time.monotonic() - began
    assert done.returncode == 0 and not starting("FIX", done), done.stdout
    told = {line[6:].partition(":")[0] for line in done.stdout.splitlines()}
    assert told >= {"machine", "versions", "code", "storage", "room", "clock", "disk", "MLflow", "weights", "Ray token"}
    assert list(tmp_path.iterdir()) == []
    assert took < 20, "0.7 s on an idle machine"


def test_the_facts_of_this_machine() -> None:
    facts = gather_facts(look_for_gpus=False)
    assert facts.host == socket.gethostname() and facts.cpus == os.cpu_count()
    assert facts.versions["python"] == platform.python_version() and facts.versions["clstudy"] == clstudy.__version__
    assert facts.versions["numpy"] == importlib.metadata.version("numpy")
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    assert total and facts.memory == int(total[1]) * 1024
    assert facts.disks[0].total == shutil.disk_usage(facts.disks[0].path).total
    assert facts.torch_gpus is None and not facts.broken and not facts.unmet and not facts.altered


def test_requirements_are_those_of_the_package() -> None:
    assert unmet_requirements({"numpy": "1.26.0"}) == ("numpy is 1.26.0, clstudy needs >=2.0",)
    assert unmet_requirements({"torch": "2.13.0+cu126", "onnxruntime": "1.0", "onnxruntime-gpu": "1.31.1"}) == ()


def test_an_installation_that_is_damaged(tmp_path: Path) -> None:
    """A copy of clstudy with an altered weight file and another line of code, and a package that does not import."""
    copy = tmp_path / "lib"
    shutil.copytree(clstudy.__path__[0], copy / "clstudy", ignore=shutil.ignore_patterns("__pycache__"))
    before = source_digest(copy / "clstudy")
    (copy / "clstudy" / "seeding.py").open("a").write("# another line\n")
    assert source_digest(copy / "clstudy") != before
    (copy / "clstudy" / "assets" / "lpips_alex.safetensors").write_bytes(b"half a file")
    (copy / "onnxruntime").mkdir()
    (copy / "onnxruntime" / "__init__.py").write_text("raise ImportError('libonnx.so: cannot open shared object')")
    done = doctor(tmp_path, PYTHONPATH=str(copy))
    assert done.returncode == 1
    broken, altered = starting("FIX", done)
    assert "versions: onnxruntime cannot be imported: libonnx.so: cannot open shared object" in broken
    assert "code: packaged file lpips_alex.safetensors was altered" in altered


def test_a_gpu_that_the_installed_torch_cannot_use(tmp_path: Path) -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("needs a torch built for CPUs")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA T4'\n")
    (tools / "nvidia-smi").chmod(0o755)
    done = doctor(tmp_path, "--profile", "mystyle", PATH=f"{tools}:{os.environ['PATH']}")
    assert done.returncode == 1 and "1 x NVIDIA T4" in done.stdout
    assert "and torch" in only_line(starting("FIX   GPU", done)) and "built for CPUs" in done.stdout
    assert starting("FIX   room for trials: a trial takes 2 CPU and 1 GPU", done)
    assert len(starting("FIX   weights", done)) == 2


def only_line(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--profile", "embeded"], "Did you mean 'embedded'"),
        (["--storage", "ftp://x/y"], "Unrecognized filesystem"),
        (["--storage", "s3://key:secret@bucket/x"], "was given with credentials"),
        (["--profile", "mystyle", "--weights", "nowhere"], "no such folder"),
        (["--weights", "w"], "leave --weights out"),
    ],
)
def test_wrong_input(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == ""


def test_the_storage_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("kept")
    for place in (tmp_path / "there", tmp_path / "new" / "deep"):
        with storage_probe(place) as probe:
            assert probe.trouble == "" and probe.locks and probe.free and list_files(probe.folder) == {"driver": 16}
            assert probe.ahead is not None and -0.5 < probe.ahead[0] <= probe.ahead[1] < 0.5
    assert list_files(tmp_path) == {"there/mine": 4} and not (tmp_path / "new").exists()


def test_a_storage_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with storage_probe(tmp_path / "file") as probe:
        assert "cannot be written: it is a file" in probe.trouble
    done = doctor(tmp_path, "--storage", "file", MLFLOW_TRACKING_URI=sqlite_uri(tmp_path / "file"))
    storage, mlflow = starting("FIX", done)
    assert done.returncode == 1 and "it is a file -> name another" in storage
    assert "the file is not a SQLite database" in mlflow


def test_a_node_that_sees_another_folder_writes_nothing(tmp_path: Path) -> None:
    with storage_probe(tmp_path / "shared") as probe:
        assert visit_storage(probe.folder, "host/1a2b") == Seen(True)
        assert has_arrived(probe.folder, "host/1a2b") and not has_arrived(probe.folder, "host/3c4d")
        elsewhere = tmp_path / "own" / probe.folder.name
        assert visit_storage(elsewhere, "b") == Seen(False) and not elsewhere.parent.exists()
        (probe.folder / "driver").write_text("another doctor's")
        assert visit_storage(probe.folder, "c").trouble
        assert not has_arrived(probe.folder, "c")


def test_what_hangs_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 0 s"):
        within(0.1, lambda: time.sleep(20))
    assert time.monotonic() - began < 5
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)


def test_file_systems_and_locks(tmp_path: Path) -> None:
    mounts = (
        "/dev/vda / ext4 rw 0 0\nfs:/x /mnt nfs4 rw 0 0\nfs:/y /mnt/my\\040data cifs rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
    )
    kinds = {"/home/me": "ext4", "/mnt/a/b": "nfs4", "/mnt": "nfs4", "/mnt/my data/c": "cifs", "/runs": "ext4"}
    assert {path: file_system_of(Path(path), mounts) for path in kinds} == kinds
    assert file_system_of(tmp_path, "") == ""
    oracle = subprocess.run(["stat", "-f", "-c", "%T", "/proc"], capture_output=True, text=True).stdout.strip()
    assert file_system_of(Path("/proc"), Path("/proc/mounts").read_text()) == oracle == "proc"
    assert takes_locks(tmp_path)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_where_a_port_listens(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError as error:
        pytest.skip(f"no {address} here: {error}")
    with listener:
        port = listener.getsockname()[1]
        table = Path("/proc/net/tcp6" if ":" in address else "/proc/net/tcp").read_text()
        assert listening_addresses(port, table) == (address,)
    assert listening_addresses(port, "") == ()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[int]:
    """A tracking server that takes connections from everywhere; its port."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", str(port), "--workers", "1"]
        + ["--backend-store-uri", sqlite_uri(folder / "mlflow.db")],
        env={**ENV, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.3)
        yield port
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


def test_a_tracking_server_is_asked_as_the_recorder_asks(mlflow_server: int) -> None:
    found = ask_tracking(f"http://me:secret@127.0.0.1:{mlflow_server}")
    assert found.trouble == "" and found.listens == ("0.0.0.0",)
    # /health answers whatever the server is called; the rest only to names it knows
    strange = ask_tracking(f"http://127.0.0.2:{mlflow_server}")
    assert "403" in strange.trouble and "--allowed-hosts" in only(judge_tracking(strange)).remedy
    assert "404" in ask_tracking(f"http://127.0.0.1:{mlflow_server}/elsewhere").trouble


def test_no_tracking_server() -> None:
    assert ask_tracking(f"http://127.0.0.1:{free_port()}").trouble == "does not answer (Connection refused)"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        silent.close()
        assert "does not answer" in ask_tracking(uri).trouble


def test_a_local_database_is_not_made(tmp_path: Path) -> None:
    found = ask_tracking(sqlite_uri(tmp_path / "new" / "mlflow.db"))
    assert found.trouble == "" and found.file_system and list(tmp_path.iterdir()) == []


def test_a_bucket_is_tried_and_left_empty(tmp_path: Path) -> None:
    with object_store() as query:
        done = subprocess.run(
            [sys.executable, "-m", "clstudy.doctor", "--storage", f"s3://{BUCKET}/clstudy?{query}"],
            env={**ENV, **{name: value for name, value in os.environ.items() if name.startswith("AWS_")}},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done
        assert starting(f"pass  storage: this machine writes and reads s3://{BUCKET}/clstudy", done)
        assert "is an object store" in done.stdout and "s from the storage" in done.stdout
        assert list_files(open_place(f"s3://{BUCKET}?{query}")) == {}
        with storage_probe(open_place(f"s3://nobucket/clstudy?{query}")) as probe:
            assert "cannot be written" in probe.trouble


def test_what_the_autoscaler_may_start(tmp_path: Path) -> None:
    types = node_types(ROOT / "cluster.yaml")
    assert types["gpu_worker"]["GPU"] == 1 and types["head"] == {"CPU": 0}
    (tmp_path / "local.yaml").write_text("provider: {type: local}\n")
    assert node_types(tmp_path / "local.yaml") == node_types(tmp_path / "none.yaml") == {}


@pytest.mark.slow
def test_two_nodes_are_asked_and_one_that_fails_keeps_nothing_from_the_other(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name in ("RAY_AUTH_MODE", "RAY_USAGE_STATS_ENABLED"):
            patch.setenv(name, ENV[name])
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        stack.callback(cluster.shutdown)
        cluster.add_node(num_cpus=1)
        done = doctor(tmp_path, "--address", cluster.address, "--storage", "shared")
        # (the code would differ where somebody edits it meanwhile)
        assert [line for line in starting("FIX", done) if "FIX   code" not in line] == [], done.stdout
        assert only_line(starting("pass  cluster: 2 nodes", done)) and len(starting("pass  machine", done)) == 2
        assert only_line(starting("pass  storage: the driver and 2 nodes write and read the same", done))
        assert only_line(starting("pass  room for trials: a trial takes 1 CPU; 2 fit", done))
        assert starting("pass  clock", done) and starting("note  Ray token", done)
        assert list(tmp_path.iterdir()) == []

        ray.init(cluster.address, log_to_driver=False)
        stack.callback(ray.shutdown)
        nodes = living_nodes()
        first, second = (node.label for node in nodes)
        assert len({first, second}) == 2 and {node.cpus for node in nodes} == {1.0}

        def answer(label: str) -> str:
            if label == first:
                raise ValueError("ill")
            return ray.get_runtime_context().get_node_id()

        answers = ask_nodes(nodes, answer, 60)
        assert answers[first].value is None and "ValueError: ill" in answers[first].trouble
        assert answers[second].value == nodes[1].id, "it ran on the node that was meant"

        late = ask_nodes(nodes, lambda label: time.sleep(30 if label == first else 0) or label, 5)
        assert late[first].trouble == "no answer within 5 s" and late[second].value == second

        ahead = clocks([node for node in nodes if node.label == second])
        assert -1 < ahead[second][0] <= 0 <= ahead[second][1] < 1, "all clocks of one machine are one"

        gone = Node(id="a" * 56, label="gone", cpus=0, gpus=0)
        assert ask_nodes([gone], lambda label: label, 30)["gone"].value is None

        (tmp_path / "only_here.py").write_text("def say(label):\n    return label\n")
        patch.syspath_prepend(str(tmp_path))
        import only_here  # type: ignore[import-not-found]

        without = ask_nodes(nodes, only_here.say, 60)[second]
        assert "No module named 'only_here'" in without.trouble


def test_an_address_where_nothing_is(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--address", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1 and "nothing answers there (Connection refused)" in only_line(starting("FIX", done))
    assert starting("pass  versions", done) and starting("pass  storage", done), "what can be told is told"
    assert "nothing answers there" in str(ray_complaint("no-such-host.invalid:6379"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert ray_complaint(f"127.0.0.1:{silent.getsockname()[1]}", seconds=6) is None, "Ray itself would go on trying"


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_a_folder_that_is_on_every_machine_and_not_shared(tmp_path: Path) -> None:
    """Two machines made of namespaces: ``/mnt/shared`` is one folder, ``/mnt/own`` is there twice."""
    shared = tmp_path / "share"
    shared.mkdir()
    visible = {Path(sys.prefix), Path(sys.base_prefix), ROOT, *(Path(entry) for entry in sys.path if entry)}
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    folders = sorted(path for path in visible if path.is_dir())
    with namespace_hosts(tmp_path / "hosts", ["head", "worker"], {Path("/mnt/shared"): shared}, folders) as hosts:
        head, worker = hosts["head"], hosts["worker"]
        for line, host in (
            ("ray start --head --port=6379 --include-dashboard=false", head),
            (f"ray start --address={head.address}:6379", worker),
        ):
            started = host.run(f"mkdir -p /mnt/own && {line} --node-ip-address={host.address}", settings)
            assert started.returncode == 0, started.stdout

        def sheet(storage: str, **environment: str) -> str:
            command = f"python -m clstudy.doctor --address auto --storage {storage}"
            return head.run(command, {**settings, **environment}).stdout

        deadline = time.monotonic() + 200
        while "2 nodes: " not in (good := sheet("/mnt/shared")) and time.monotonic() < deadline:
            time.sleep(1)
        assert "pass  storage: the driver and 2 nodes write and read the same /mnt/shared" in good, good
        assert "pass  Ray token: wanted by 2 nodes" in good and "FIX" not in good.replace("FIX   code", "")
        bad = sheet("/mnt/own")
        assert "FIX   storage: /mnt/own on worker is not the folder that the driver writes to: it is not shared" in bad
        assert "/mnt/own on head" not in bad
        assert worker.run("ls -A /mnt/own").stdout == head.run("ls -A /mnt/own").stdout == ""
        assert worker.run("touch /mnt/own/x && mount -o remount,ro,bind /mnt/shared").returncode == 0
        assert "FIX   storage: worker cannot write /mnt/shared: Read-only file system" in sheet("/mnt/shared")
        refused = sheet("/mnt/shared", RAY_AUTH_TOKEN="1" * 32)
        assert "FIX   cluster: auto wants a token that this process does not have" in refused
        assert list_files(shared) == {}
