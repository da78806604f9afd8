"""Small files that ask for far more than they have: all are refused in a sentence, soon, within bounds on memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks.fuzz import bombs, inputs
from benchmarks.fuzz.harness import FAILURES, Outcome, prepare, run_child
from clstudy.analysis.study_plan import read_study
from clstudy.assets.model_files import require_file
from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.onnx_network import takes_raw_pixels
from clstudy.assets.readers.restricted_pickle import read_objects
from clstudy.errors import UserError
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.ir_se_encoder import read_encoder
from clstudy.identities.check import inspect_folder
from clstudy.metrics.dists import load_dists
from clstudy.metrics.inception import load_inception
from clstudy.records.study_record import read_complete_record
from clstudy.settings.space_file import load_space
from clstudy.storage.documents import SPACE, Bounds, DocumentError, check_yaml, load_json, load_yaml, read_text, shorten


def refused(read: Callable[[Path], object], path: Path, tmp_path: Path) -> str:
    """What a reader says of a file, read in a bounded child; fails unless it is a clear error."""

    def work() -> Outcome:
        read(path)
        return Outcome.SAME

    outcome, words, seconds, megabytes = run_child(work, tmp_path / "output.txt", memory=600_000_000)
    assert outcome is Outcome.CLEAR_ERROR, f"{outcome.value} after {seconds:.1f} s, {megabytes:.0f} MB: {words}"
    assert len(words) < 1000
    return words


@pytest.mark.parametrize("name", bombs.PICKLES)
def test_pickles_are_bounded_in_work_depth_and_memory(name: str, tmp_path: Path) -> None:
    """Hashes of nested tuples took minutes, a deep key overflowed the C stack, aliases of 16 MB filled 6.2 GB."""
    path = tmp_path / "network.pt"
    path.write_bytes(bombs.PICKLES[name](1 if name.startswith("nested") or name == "deep_key" else 0.1))
    said = refused(read_checkpoint, path, tmp_path)
    wanted = {
        "nested_hash_key": "uses a tuple as a key",
        "nested_hash_set": "uses a tuple as a key",
        "deep_key": "uses a tuple as a key",
        "nested_torch": "torch files nested in torch files",
        "storage_named_often": "403 tensors share numbers and would take 644,",
        "overlapping_zip": "overlap",
        "copied_dict": "again and again",
        "encoded_text": "again and again",
        "many_instructions": "pickle instructions",
    }.get(name, "")
    assert wanted in said
    for read in (lambda path: read_encoder(path, 4), lambda path: load_inception(path, torch.device("cpu"))):
        if name in ("nested_hash_key", "nested_torch"):
            refused(read, path, tmp_path)


@pytest.mark.parametrize("name", bombs.SAFETENSORS)
def test_headers_of_safetensors_are_bounded(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bombs.SAFETENSORS[name](0.1))
    for read in (read_checkpoint, load_dists):
        refused(read, path, tmp_path)


@pytest.mark.parametrize("name", bombs.YAMLS)
def test_yaml_is_bounded(name: str, tmp_path: Path) -> None:
    """412 bytes of aliases became 2 GB of text before the message was cut to 80 letters."""
    path = tmp_path / "study.yaml"
    path.write_bytes(bombs.YAMLS[name](1))
    refused(load_space, path, tmp_path)
    for read in (read_complete_record, read_study):
        refused(lambda path, read=read: read(path.parent), path, tmp_path)


def test_aliases_within_the_bounds_are_as_good_as_what_they_stand_for() -> None:
    shared = [1, 2, {"a": "b"}]
    content = {"first": shared, "second": shared, "third": [shared, shared]}
    text = yaml.safe_dump(content)
    assert "*id001" in text and load_yaml(text) == content
    # By hand: the shared list is 6 values (itself, 1, 2, the group, its key, its value) and occurs 4 times; around it
    # are the outer group, its three keys, and the list under "third". Through that list it goes four deep.
    values = 1 + 3 + 1 + 4 * 6
    check_yaml(text, Bounds(size=10_000, values=values, depth=4))
    with pytest.raises(DocumentError, match="more than 28 values"):
        check_yaml(text, Bounds(size=10_000, values=values - 1, depth=4))
    with pytest.raises(DocumentError, match="nested more than 3 deep"):
        check_yaml(text, Bounds(size=10_000, values=values, depth=3))


def test_texts_too_large_or_without_an_end_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "space.yaml")
    with pytest.raises(UserError, match="it is a pipe or a device"):
        load_space(tmp_path / "space.yaml")
    with pytest.raises(DocumentError, match="pipe or a device"):
        read_text(Path("/dev/zero"), 10)
    (tmp_path / "large.yaml").write_bytes(b"#" * (SPACE.size + 1))
    with pytest.raises(UserError, match="1,000,001 bytes, expected at most 1,000,000"):
        load_space(tmp_path / "large.yaml")


@pytest.mark.parametrize("bomb", bombs.JSONS.values())
def test_json_without_end_is_a_damaged_document(bomb: bombs.Bomb) -> None:
    with pytest.raises(DocumentError, match="not valid JSON"):
        load_json(bomb(1))


def test_a_value_is_cut_before_it_is_written_out() -> None:
    value: Any = "lol"
    for _ in range(30):
        value = [value] * 10
    started = time.monotonic()
    assert len(shorten(value)) <= 200 and len(shorten("x" * 10**6)) <= 200
    assert time.monotonic() - started < 1
    for plain in (0.001, "ada", [1, 2], {"a": 1}, None):
        assert shorten(plain) == repr(plain)


def test_what_is_no_file_is_never_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "arcface.onnx"
    os.mkfifo(pipe)
    for read in (read_checkpoint, load_dists, lambda path: read_encoder(path, 4)):
        refused(read, pipe, tmp_path)
    refused(lambda path: load_inception(path, torch.device("cpu")), pipe, tmp_path)
    with pytest.raises(UserError, match="is a pipe or a device"):
        require_file("arcface", pipe)


def test_photo_folders_hold_regular_files_only(tmp_path: Path) -> None:
    """A pipe among the photos was waited for without end; a folder called a.png was left out without a word."""
    inputs._photos(_given(tmp_path), np.random.default_rng(0))
    root = tmp_path / "given"
    train = root / "ada" / "0" / "train"
    os.mkfifo(train / "pipe.png")
    (train / "folder.png").mkdir()
    (train / "zero.png").symlink_to("/dev/zero")
    (train / "loop.png").symlink_to("loop.png")
    (train / "gone.png").symlink_to("nothing-there")
    started = time.monotonic()
    problems = inspect_folder(root, image_size=64).problems
    assert time.monotonic() - started < 10
    assert [problem.partition(":")[0].rpartition("/")[2] for problem in problems] == [
        *("folder.png", "gone.png", "loop.png", "pipe.png", "zero.png")
    ]


def _given(folder: Path) -> Path:
    (folder / "given").mkdir()
    return folder


def test_a_damaged_onnx_container_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for content in (b"\x80" * 1_000_000, b"\x3b\x3b", b"\x3a\xff\xff\xff"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged ONNX file"):
            takes_raw_pixels(path)


def test_keys_that_published_files_have_are_read() -> None:
    import pickle

    content = {1: {"a": {(0, "b"): {2.5, None, True}}}, b"c": frozenset({"x", (1, 2)})}
    for protocol in range(2, 5):
        pickled = pickle.dumps({1: {"a": {(0, "b"): {2.5, None, True}}}}, protocol)
        assert read_objects(pickled)[0] == {1: content[1]}
    assert read_objects(pickle.dumps(content, 4))[0] == content
    with pytest.raises(CheckpointError, match="uses a tuple as a key"):
        read_objects(pickle.dumps({((1,),): 2}, 4))


@pytest.mark.parametrize("target", inputs.TARGETS, ids=lambda target: target.name)
def test_damaged_inputs_end_in_a_sentence(target: inputs.Target, tmp_path: Path) -> None:
    """The first cases of ``python -m benchmarks.fuzz``; the benchmark runs thousands."""
    prepared = prepare(target, tmp_path, seed=12)
    for number in range(3):
        ending = prepared.case(number)
        assert ending.outcome not in FAILURES, f"case {number}, {ending.damage}: {ending.outcome}: {ending.words}"
