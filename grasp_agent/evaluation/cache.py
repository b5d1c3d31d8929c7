"""A cache of played episodes, from which an interrupted comparison continues."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from grasp_agent.evaluation.evaluate import Episode, Evaluation
from grasp_agent.evaluation.folder import check_no_links
from grasp_agent.files import atomic_write, check_writable
from grasp_agent.reading import read_json, reading

Played = tuple[list[Episode], list[list[float]]]
"""Episodes, and the times of their `predict` calls [s]."""


_PROBLEM = "no episodes of a comparison (remove the file to play them again)"
_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


def _checksum(content: dict[str, Any]) -> str:
    """Returns the SHA-256 of the JSON form, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _episode(row: list[Any], times: list[float]) -> Episode:
    """Returns an episode of a file, after a check of each value's type."""
    episode = Episode(*row)
    for name, hint in Episode.__annotations__.items():
        value: Any = getattr(episode, name)
        kind, *none = str(getattr(hint, "__forward_arg__", hint)).split(" | ")
        right = isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))
        if not (right or (none and value is None)) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name}: expected {hint}, got {str(value)[:80]}")
    if len(times) != episode.steps or not all(isinstance(time, (int, float)) and time >= 0 for time in times):
        raise ValueError(f"seconds: expected the times of {episode.steps} actions, got {len(times)}")
    return episode


class Store:
    """Played episodes, in RAM and, with a folder, in files that are written once: several processes may share it.

    Args:
        folder: folder of the files; None writes none.
        setting: settings that must be equal for episodes of one comparison.

    Raises:
        ValueError: if the folder holds another comparison, or a symbolic link.
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path | None, setting: dict[str, Any]) -> None:
        self._folder = folder
        try:
            self._setting = json.loads(json.dumps(setting))
        except TypeError as error:
            raise ValueError(f"env_kwargs: expected options that JSON can hold, got {setting['options']}") from error
        if folder is not None:
            check_no_links(folder)
            check_writable(folder / "0.json")  # before anything is played
        self._played: dict[str, dict[int, tuple[Episode, list[float]]]] = {}
        for path in sorted(folder.glob("*.json")) if folder is not None else ():
            self._read(path)

    def _read(self, path: Path) -> None:
        held = read_json(path, _PROBLEM)
        with reading(path, _PROBLEM):
            found = held.pop("sha256", None)  # older files have none
            if found is not None and found != _checksum(held):
                raise ValueError("its content does not fit its checksum")
            setting, key = held["setting"], str(held["agent"])
            rows = [(_episode(row, times), times) for row, times in held["episodes"]]
        if setting != self._setting:
            raise ValueError(
                f"{path} is of another comparison, {setting}; expected {self._setting} (choose another folder)"
            )
        self._played.setdefault(key, {}).update({episode.seed: (episode, times) for episode, times in rows})

    def holds(self, key: str, seeds: range) -> bool:
        """Returns whether an agent has played the episodes of all these seeds."""
        return set(seeds) <= set(self._played.get(key, {}))

    def keep(self, key: str, played: Played, *, only_now: bool = False) -> None:
        """Adds played episodes; `only_now` does not write them to the folder."""
        rows = list(zip(*played, strict=True))
        self._played.setdefault(key, {}).update({episode.seed: (episode, times) for episode, times in rows})
        if self._folder is None or only_now:
            return
        name = f"{hashlib.sha256(key.encode()).hexdigest()[:12]}-{rows[0][0].seed}-{rows[-1][0].seed}.json"
        with atomic_write(self._folder / name) as aside:
            content = {"setting": self._setting, "agent": key, "episodes": rows}
            content["sha256"] = _checksum(content)
            aside.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def evaluation(self, key: str, name: str, env_id: str, seeds: range) -> Evaluation:
        """Returns the episodes of one agent."""
        rows = [self._played[key][seed] for seed in seeds]
        seconds = np.array([second for _, times in rows for second in times])
        return Evaluation(env_id, name, seeds[0], tuple(episode for episode, _ in rows), seconds, 0.0)
