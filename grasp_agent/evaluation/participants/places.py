"""The files of participants, which machines without a shared disk get by value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grasp_agent.evaluation.participants.base import Given, OwnFile


def located(given: Given, file: Path | None, place: Path | None) -> Given:
    """Returns a participant that is loaded from another place.

    Args:
        given: the participant.
        file: path of its file, `Participant.file`.
        place: path of a file with the same content.
    """
    if file is None or place is None or file == place:
        return given
    if isinstance(given, OwnFile):
        return replace(given, path=place)
    kind, colon, rest = str(given).partition(":")
    return f"{kind}:{place}" if colon and rest and file in (Path(rest), Path(f"{rest}.zip")) else str(place)
