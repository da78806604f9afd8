"""Lists what will be removed from one study, before anything is removed."""

from __future__ import annotations

from dataclasses import dataclass

from clstudy.records.study_record import CompleteRecord, read_complete_record
from clstudy.storage.places import Place
from clstudy.study.privacy.census import Census, take_census
from clstudy.study.privacy.photo_folders import PhotoFolder, photo_folders
from clstudy.study.privacy.traces import Traces, find_traces
from clstudy.study.privacy.tracked_runs import Tracked, find_tracked, tracking_uri


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """Everything that will be removed from one study, known before anything is removed."""

    name: str
    study: Place
    record: CompleteRecord
    census: Census
    traces: Traces
    tracked: Tracked | None
    folders: tuple[PhotoFolder, ...]
    photos: bool

    @property
    def last(self) -> bool:
        """Whether the plan would have nobody left."""
        return not self.traces.others

    def lines(self) -> list[str]:
        """What will be removed, for the user to confirm."""
        traces = self.traces
        counts = [
            *((kind, len(keys)) for kind, keys in traces.values.items()),
            *((what, len(paths)) for what, paths in traces.files.items()),
            ("failures", len(traces.failures)),
        ]
        held = ", ".join(f"{count} {what}" for what, count in counts if count)
        text = [
            f"{self.name} in {self.study}: {traces.trials} of {len(self.census.planned)} planned trials, "
            f"{traces.size / 1e6:.1f} MB ({held or 'no values'})"
        ]
        if self.last:
            stays = f"; what is finished of {', '.join(traces.strangers)} stays" if traces.strangers else ""
            text.append(f"  nobody is left in its plan: the whole study goes, report and study.yaml too{stays}")
        else:
            text.append("  study.yaml and the report are made anew without them")
        if traces.files["search"]:
            text.append("  the record of the learning-rate search goes: the next run of the space searches again")
        if self.tracked is not None:
            pictures = ", the attached report is replaced" if self.tracked.reports else ""
            text.append(f"  MLflow at {self.tracked.shown}: {len(self.tracked.runs)} runs{pictures}")
        for folder in self.folders:
            stays = "" if self.photos else " stay (--photos removes them too)"
            text.append(f"  {folder.what} in {folder.photos}{stays}")
            if beside := [str(place) for place in folder.beside if place.exists()]:
                text.append(
                    f"  what preparing left beside them ({', '.join(beside)}), with faces of others in the footage, "
                    + ("too" if self.photos else "stays as well")
                )
        return text


def plan_forgetting(name: str, study: Place, to: str | None, photos: bool) -> Forgetting | None:
    """Look everything up; None if the study knows nobody of this name.

    Raises:
        UserError: the folder is not a study, or MLflow does not answer.
    """
    record = read_complete_record(study)
    census = take_census(study, record.trials)
    if name not in census.people:
        return None
    traces = find_traces(study, census, name)
    uri = tracking_uri(study, to)
    return Forgetting(
        name=name,
        study=study,
        record=record,
        census=census,
        traces=traces,
        tracked=find_tracked(uri, record.name, census, traces.names) if uri else None,
        folders=tuple(photo_folders(study, record.data_set, name, traces.digests)),
        photos=photos,
    )
