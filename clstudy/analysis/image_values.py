"""Reads values of single images from the stored rows, in the form that the cluster bootstrap needs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.matrix import TRIAL_COLUMNS, ScoreCell, codes
from clstudy.analysis.statistics.intervals import IdentityImages
from clstudy.errors import UserError


def identity_images(
    rows: pa.Table,
    cells: Sequence[ScoreCell],
    timestamps: int | Mapping[str, int] | None = None,
    *,
    trials: Collection[str] | None = None,
) -> list[IdentityImages]:
    """The cluster bootstrap's input from stored rows: labels are ``cells``, the images in order of their names.

    As in every paired number, an identity takes part if it has a seed in all of ``cells``, with the seeds common to
    them. So pass the two cells of a comparison, or cells that have the same identities and seeds; otherwise a gap in
    one of them removes its identity from all. Values that a trial lacks are NaN, which the bootstrap refuses.

    Args:
        rows: a table in ``RESULT_SCHEMA``.
        cells: at least one, all of one protocol and metric. Which score they name is ignored, but joint
            training (``upper``) has only the final performance: leave its cells out for other scores. A cell without
            a learning rate, as the cells of a study that searched for one, takes trials of any rate.
        timestamps: T, for all identities or by identity; by default the largest number that any of its trials has seen.
        trials: names of the trials that may take part, by default all of ``rows``.

    Returns:
        Sorted by identity; empty if no identity has all cells.

    Raises:
        ValueError: no cells, a cell twice, or cells of two protocols or metrics.
        UserError: an image is twice in a cell of a trial, a row is outside 0 <= k <= t < T, or a cell, identity and
            seed have two trials (with two learning rates, if the cell has none).
    """
    _check_cells(cells)
    wanted = (pc.field("protocol") == cells[0].protocol) & (pc.field("metric") == cells[0].metric)
    rows = rows.filter(wanted if trials is None else wanted & pc.field("trial").isin(list(trials)))
    label_of = {(cell.learning_rate, cell.strategy, cell.buffer_size): i for i, cell in enumerate(cells)}
    taken: dict[str, dict[tuple[int, int], str]] = {}
    for entry in rows.group_by(TRIAL_COLUMNS, use_threads=False).aggregate([]).to_pylist():
        place = (entry["strategy"], entry["buffer_size"])
        label = label_of.get((entry["learning_rate"], *place), label_of.get((None, *place)))
        if label is None:
            continue
        other = taken.setdefault(entry["identity"], {}).setdefault((label, entry["seed"]), entry["trial"])
        if other != entry["trial"]:
            raise UserError(
                f"trials {other} and {entry['trial']} are the same cell, identity and seed: give the names of those "
                "that are to be compared (trials=...)."
            )
    found = []
    for identity, names in sorted(taken.items()):
        seeds = [{seed for label, seed in names if label == wanted} for wanted in range(len(cells))]
        common = sorted(set.intersection(*seeds))
        if common:
            places = {names[label, seed]: (label, i) for label in range(len(cells)) for i, seed in enumerate(common)}
            found.append(_images(rows.filter(pc.field("identity") == identity), identity, cells, places, timestamps))
    return found


def _check_cells(cells: Sequence[ScoreCell]) -> None:
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"expected at least one cell and none twice, got {list(cells)}")
    for one, other in combinations(cells, 2):
        if (one.protocol, one.metric) != (other.protocol, other.metric):
            raise ValueError(f"cells of two metrics cannot share one bootstrap: {one} and {other}")


def _images(
    rows: pa.Table,
    identity: str,
    cells: Sequence[ScoreCell],
    places: Mapping[str, tuple[int, int]],
    timestamps: int | Mapping[str, int] | None,
) -> IdentityImages:
    """One identity's rows as an array; ``places``: trial -> (label, seed) indices."""
    rows = rows.filter(pc.is_in(rows["trial"], pa.array(list(places))))
    t, k = rows["train_timestamp"].to_numpy(), rows["test_timestamp"].to_numpy()
    seen = int(t.max()) + 1
    size = timestamps if isinstance(timestamps, int) else (timestamps or {}).get(identity, seen)
    if ((k < 0) | (k > t) | (t >= size)).any():
        raise UserError(
            f"identity {identity}: rows outside 0 <= test <= train timestamp < {size}. The results do not belong to "
            "this study: remove them and run it again."
        )
    trial_names, trial = codes(rows["trial"])
    image_names, image = codes(rows["image"])
    photos, photo = np.unique(k * len(image_names) + image, return_inverse=True)
    first = np.searchsorted(photos, np.arange(size + 1) * len(image_names))  # where each k starts in photos
    counts = np.diff(first)
    values = np.full((len(cells), 1 + max(seed for _, seed in places.values()), size, size, counts.max()), np.nan)
    label, seed = np.array([places[name] for name in trial_names])[trial].T
    where = (label, seed, t, k, photo - first[k])
    flat = np.ravel_multi_index(where, values.shape)
    if len(np.unique(flat)) < len(flat):
        raise UserError(f"identity {identity}: an image stands twice in one cell of a trial. Run the study again.")
    values[where] = rows["value"].to_numpy(zero_copy_only=False)
    # A timestamp that was never measured still has a column, of one missing photo.
    return IdentityImages(identity=identity, labels=tuple(cells), values=values, counts=np.maximum(counts, 1))
