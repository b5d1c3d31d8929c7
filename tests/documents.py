"""Where the repository is, and the code in its documents."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def code_blocks(text: str) -> list[str]:
    """Returns the blocks of Python in a Markdown text."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
