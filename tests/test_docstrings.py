"""The examples in docstrings print what they say."""

import doctest
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg


def modules_with_examples():
    """Return the names of the library's modules whose text holds an example."""
    names = ["dualgrad", *(m.name for m in pkgutil.walk_packages(dg.__path__, "dualgrad."))]
    origins = {name: importlib.util.find_spec(name).origin for name in names}
    return [name for name, origin in origins.items() if ">>> " in Path(origin).read_text()]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    names = {"np": np, "dg": dg}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0 and result.failed == 0
