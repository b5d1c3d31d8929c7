"""The files of participants, which machines without a shared disk get by value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grasp_agent.evaluation.participants import archives
from grasp_agent.evaluation.participants.base import Given, OwnFile


def file_of(given: Given) -> Path | None:
    """Returns the path of the file that a participant is loaded from; None for one without a file of the user's."""
    if isinstance(given, OwnFile):
        return given.path
    if not isinstance(given, (str, Path)):
        return None
    return archives.existing(str(given)) or archives.existing(str(given).partition(":")[2])


def located(given: Given, file: Path | None, place: Path | None) -> Given:
    """Returns a participant that is loaded from another place.

    Args:
        given: the participant.
        file: path of its file, see `file_of`.
        place: path of a file with the same content.
    """
    if file is None or place is None or file == place:
        return given
    if isinstance(given, OwnFile):
        return replace(given, path=place)
    kind, colon, rest = str(given).partition(":")
    return f"{kind}:{place}" if colon and rest and file in (Path(rest), Path(f"{rest}.zip")) else str(place)
