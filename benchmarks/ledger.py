"""Results of a model, kept in a file between runs and discarded when the model changes."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from grasp_agent.files import atomic_write

Row = dict[str, Any]


@dataclass(frozen=True)
class Ledger:
    """Rows of measurements under names, in a JSON file.

    Attributes:
        path: the file; it need not exist.
        model: identifies the model, such as a hash of its file.
    """

    path: Path
    model: str

    def read(self) -> dict[str, list[Row]]:
        """Returns all results of this model."""
        held = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return held["results"] if held.get("model") == self.model else {}

    def add(self, name: str, row: Row) -> None:
        """Appends a row; rows that other processes have written meanwhile are kept."""
        digits = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]
        with FileLock(Path(tempfile.gettempdir()) / f"ledger-{digits}.lock"):
            results = self.read()
            results.setdefault(name, []).append(row)
            with atomic_write(self.path) as aside:
                aside.write_text(json.dumps({"model": self.model, "results": results}) + "\n", encoding="utf-8")
