"""Write docs/operations.md, the list of functions that take duals, from the operation table.

python tools/operations_page.py
"""

from pathlib import Path

import dualgrad as dg
from dualgrad.operations import OPERATIONS, UFUNC_METHODS, WRITES, name_of

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"
HEAD = """# Functions that take duals

Made from the operation table by `python tools/operations_page.py`; a test compares the two.
Whatever is not here raises `MissingRuleError`, and so does an argument that a rule does not take.

Operators, and ndarray's methods on duals, are the NumPy functions of the same meaning. Functions
that make arrays from numbers (`np.full`, `np.array`, `np.arange`, ...) see a dual among them only
where `like=x` says that the result is one: `np.full(3, x[0], like=x)`.
"""


def page() -> str:
    """Return the text of docs/operations.md."""
    parts = [HEAD]
    families: dict[str, list[str]] = {}
    constant = set()
    for operation in OPERATIONS.values():
        if operation.differentiable:
            families.setdefault(operation.family, []).append(operation.name)
        else:
            constant.add(operation.name)
    for family in sorted(families):
        parts.append(
            f"\n## {family.capitalize()}\n\n{_listing(families[family])}\n".replace("\\\n", "\n")
        )
    methods = _listing(f"ufunc.{method}" for method in UFUNC_METHODS if method != "__call__")
    parts.append(f"\n## Methods of ufuncs\n\nOf every ufunc on this page: {methods}\n")
    written = _listing(map(name_of, WRITES))
    parts.append(f"\n## Writing into duals\n\nBesides `x[index] = v` and `out=`: {written}\n")
    parts.append(
        "\n## Piecewise constant\n\nThe result is a plain array: there is no tangent to carry.\n\n"
        f"{_listing(constant)}\n"
    )
    return "".join(parts)


def _listing(names) -> str:
    return ", ".join(f"`{name}`" for name in sorted(set(names))) + "."


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"dualgrad {dg.__version__}: {len(OPERATIONS)} functions in {PAGE}")
