"""The pages of the project, their examples, and the twin law that turns one face into the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

README = ROOT / "README.md"

GUIDE = ROOT / "CONTRIBUTING.md"

PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]

EXAMPLES = {
    f"{page.relative_to(ROOT)}-{n}": example
    for page in PAGES
    for n, example in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}


def blocking(example: str) -> str:
    """Return the example by the twin law: without async and await, with .sync in the import."""
    text = example.replace("from drift_async import", "from drift_async.sync import")
    return re.sub(r"\b(?:async|await) ", "", text)
