"""docs/operations.md says what the operation table holds."""

import importlib.util
from pathlib import Path

TOOL = Path(__file__).parent.parent / "tools" / "operations_page.py"


def test_the_page_is_what_the_table_gives():
    spec = importlib.util.spec_from_file_location("operations_page", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.page(), "run python tools/operations_page.py"
