"""What was measured of a model: kept in a file from run to run, and no longer where the model is another one."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from grasp_agent.serialization import atomic_write

Row = dict[str, Any]


@dataclass(frozen=True)
class Ledger:
    """Rows of measurements under names, in a JSON file.

    Attributes:
        path: the file; it need not be there.
        model: what tells the model from others, such as a hash of its file.
    """

    path: Path
    model: str

    def read(self) -> dict[str, list[Row]]:
        """All that was measured of this model."""
        held = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        return held["results"] if held.get("model") == self.model else {}

    def add(self, name: str, row: Row) -> None:
        """Writes one more row. What others have written meanwhile stays: parts may be measured side by side."""
        digits = hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]
        with FileLock(Path(tempfile.gettempdir()) / f"ledger-{digits}.lock"):
            results = self.read()
            results.setdefault(name, []).append(row)
            with atomic_write(self.path) as aside:
                aside.write_text(json.dumps({"model": self.model, "results": results}) + "\n", encoding="utf-8")
