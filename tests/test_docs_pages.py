"""The pages of docs/ say what runs: every spelling of dualgrad's in them is executed."""

import re
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "coming-from.md").read_text()
PAIRS = [
    (theirs.strip(), re.findall(r"`([^`]+)`", ours)[0])
    for theirs, ours in re.findall(r"^\| (.+?) \| (`.+) \|$", PAGE, re.MULTILINE)
]


def names_of_the_page():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    return names


def run(spelling):
    names = names_of_the_page()
    if "dg.special" in spelling:
        pytest.importorskip("scipy")
    return eval(spelling, names)


def test_the_tables_are_read():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(PAIRS) == len(rows) - 3 > 60  # three heads
    assert all("dg." in ours or "key." in ours for _, ours in PAIRS)


@pytest.mark.parametrize("spelling", sorted({ours for _, ours in PAIRS}))
def test_the_spelling_runs(spelling):
    if "sparse" in spelling:
        pytest.importorskip("scipy")
    result = run(spelling)
    for leaf in dg.tree.leaves(result):
        leaf = leaf.toarray() if hasattr(leaf, "toarray") else leaf
        if dg.tree.is_floating(leaf):
            assert np.isfinite(dg.primal(leaf)).all()


EQUAL = [
    ('dg.jacobian(f, mode="reverse")(x)', "dg.jacobian(f)(x)"),
    ("dg.jacobian(f, chunk_size=2)(x)", "dg.jacobian(f)(x)"),
    ('dg.gradient(g, mode="reverse")(x)', "dg.gradient(g)(x)"),
    ("dg.pushforward(f, (x,), (vs,))[1].T", "dg.jacobian(f)(x)"),
    ('dg.hvp(g, (x,), (v,), mode="reverse")', "dg.hessian(g)(x) @ v"),
    ("dg.vjp(f, x)[1](v)[0]", "v @ dg.jacobian(f)(x)"),
    ("dg.vjp(f, x)[1](dg.jvp(f, (x,), (v,))[1])[0]",
     "dg.jacobian(f)(x).T @ dg.jacobian(f)(x) @ v"),
    ("dg.jvp(np.tanh, (x,), (np.ones_like(x),))[1]", "1 - np.tanh(x) ** 2"),
    ("dg.derivative(np.exp)(1j)", "np.exp(1j)"),
    ("dg.jet(f, (x,), ([v, v],))[1][0]", "dg.jvp(f, (x,), (v,))[1]"),
    ("dg.gradient(lambda x: g(np.where(np.arange(3) == 0, v[1], x)))(x)[0]", "0.0"),
]  # fmt: skip


@pytest.mark.parametrize("one, other", EQUAL)
def test_spellings_of_one_thing_agree(one, other):
    np.testing.assert_allclose(run(one), run(other), rtol=1e-12, atol=1e-14)


def test_the_files_that_how_it_works_names_exist():
    page = (ROOT / "docs" / "how-it-works.md").read_text()
    named = set(re.findall(r"`((?:dualgrad/)?[a-z_]+(?:/[a-z_]+)*(?:\.py|/))`", page))
    assert len(named) > 12
    for name in named:
        assert any((ROOT / base / name).exists() for base in (".", "dualgrad")), name
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(example, {})
    for link in re.findall(r"\]\(([a-z-]+\.md)\)", page + PAGE):
        assert (ROOT / "docs" / link).exists(), link
