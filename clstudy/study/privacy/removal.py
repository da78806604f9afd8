"""Carries out a planned removal, and says what is left for somebody else to do."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path, PurePosixPath

from clstudy.records.failures import write_failures
from clstudy.records.study_record import write_study_record
from clstudy.storage.checksums import remove_checked
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.driver_lock import NAME as LOCK
from clstudy.storage.places import Place
from clstudy.storage.private_folder import is_private, node_folder
from clstudy.storage.trees import list_files, remove_tree, together
from clstudy.study.privacy.names import names_files, names_somebody, without
from clstudy.study.privacy.photo_folders import remove_photos
from clstudy.study.privacy.ray_sessions import forget_in_sessions
from clstudy.study.privacy.remade_report import remake_report, remove_comparison
from clstudy.study.privacy.removal_plan import Forgetting
from clstudy.study.privacy.study_layout import KINDS, SUMMARIES, read_small
from clstudy.study.privacy.tracked_runs import remove_runs, strange_pictures, vacuum

_MOST_SEARCHED_BYTES = 200_000_000


def carry_out(plan: Forgetting, say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Remove what was planned; the caller must hold the study (``only_driver``).

    Args:
        say: called with what comes next.

    Returns:
        What is left for somebody else to do, in words.
    """
    study, traces, tracked = plan.study, plan.traces, plan.tracked
    left: list[str] = []
    if not plan.last and (count := strange_pictures(study, tracked)):
        left.append(
            f"{count} folders of pictures in {study}/mlflow-artifacts, of runs that are not in "
            f"{tracked.shown if tracked else 'any MLflow that was named'}: say with --to which has them"
        )
    if tracked is not None:
        say("runs in MLflow")
        left += remove_runs(tracked, [*tracked.runs, *(tracked.reports if plan.last else ())])
    for folder in plan.folders if plan.photos else ():
        say(f"{folder.what} in {folder.photos}")
        remove_photos(folder)
    for what, paths in traces.files.items():
        say(what)
        for path in paths:
            (study / path).unlink(missing_ok=True)
    for folder_name in ("ray", *(f"{kind}/{part}" for kind in KINDS for part in ("drafts", "damaged"))):
        remove_tree(study / folder_name)
    _drop_local_copies(traces.digests)
    store = StudyStore(study)
    for kind, keys in traces.values.items():
        say(kind)
        together(getattr(store, kind).remove, keys, study)
    _rewrite_failures(study, traces.failures)
    say("the report")
    if plan.last:
        _remove_rest(plan)
    else:
        left += remake_report(plan)
    remove_comparison(plan)
    if tracked is not None and tracked.database is not None:
        say("free pages of MLflow's database")
        left += vacuum(tracked.database)
    say("study.yaml")
    if plan.last:
        _remove_study_file(plan)
    else:
        write_study_record(study, without(plan.record, traces.names))
    if not plan.last and names_somebody((plan.record.description or "").encode(), traces.names):
        left.append(f"the description in {study / 'study.yaml'} (from the space's file) contains the name")
    left += forget_in_sessions(plan.record.name, lambda content: names_files(content, traces.names))
    return left + [f"{path} contains the name, and it is not known why" for path in still_named(study, traces.names)]


def _drop_local_copies(digests: Collection[str]) -> None:
    """Remove photos that a killed worker on this machine had fetched."""
    if not is_private(node_folder()):
        return
    for copy in node_folder().glob("*/*"):
        if copy.stem in digests:
            copy.unlink(missing_ok=True)


def _rewrite_failures(study: Place, theirs: Collection[str]) -> None:
    if theirs:
        kept = {trial: why for trial, why in read_small(study / "failures.json").items() if trial not in theirs}
        write_failures(study, kept)


def _remove_rest(plan: Forgetting) -> None:
    """Remove what is left of a study without people, except ``study.yaml`` and files that are not ours."""
    study = plan.study
    remove_tree(study / "report")
    remove_tree(study / "mlflow-artifacts")
    if not plan.traces.strangers:
        for folder in (*KINDS, "results", "search", "logs", "timings", "inputs"):
            remove_tree(study / folder)
        for file in SUMMARIES:
            if file not in ("study.yaml", LOCK):
                (study / file).unlink(missing_ok=True)


def _remove_study_file(plan: Forgetting) -> None:
    study = plan.study
    remove_checked(study / "study.yaml")
    if isinstance(study, Path) and not plan.traces.strangers:
        (study / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # the folder also contains something of the user's own
            study.rmdir()


def still_named(study: Place, names: Collection[str]) -> list[str]:
    """Files that still name a person: a log of somebody else's, or files that are not ours.

    Files just written without the person are not searched: a short name may match ordinary words in them.
    """
    found = []
    for path, size in sorted(list_files(study).items()):
        made = PurePosixPath(path).parts[0] in (*KINDS, *SUMMARIES, "report", "mlflow-artifacts", "timings", "inputs")
        if not made and size < _MOST_SEARCHED_BYTES and names_somebody((study / path).read_bytes(), names):
            found.append(str(study / path))
    return found
