"""docs/operations.md says what the operation table holds."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

TOOL = Path(__file__).parent.parent / "tools" / "operations_page.py"


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="the page has the names of NumPy 2.4"
)
def test_the_page_is_what_the_table_gives():
    spec = importlib.util.spec_from_file_location("operations_page", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text() == tool.page(), "run python tools/operations_page.py"
