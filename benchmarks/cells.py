"""Measured cells, each a line of a file, so that a run goes on where it stopped."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Cells:
    """Finished cells by their settings, and the file that keeps them, if there is one.

    A last line that was cut off is cut away from the file.
    """

    def __init__(self, path: Path | None, names: Sequence[str]) -> None:
        """Read what path holds; names are the entries of a row that are its settings, if given."""
        self.path = path
        self.names = names
        self.found: dict[str, Row] = {}
        if path is not None and path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                path.write_text(whole)
            rows = [json.loads(line) for line in whole.splitlines()]
            self.found = {self._identity(row): row for row in rows}

    def _identity(self, row: Row) -> str:
        return json.dumps([row.get(name) for name in self.names])

    def get(self, settings: Row, make: Callable[[], Row], progress: str = "") -> Row:
        """Return the cell of these settings, which make() completes unless it is there.

        progress stands before a new cell on stderr; without it, how many there are.
        """
        name = self._identity(settings)
        if name not in self.found:
            self.found[name] = {**settings, **make()}
            line = json.dumps(self.found[name])
            print(f"{progress or len(self.found)} {line}", file=sys.stderr, flush=True)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(line + "\n")
        return self.found[name]
