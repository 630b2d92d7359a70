"""Each error once, in full: what happened, with the values; why; the way out."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import errors

ONES = np.ones(3)


def kept_dual():
    kept = []
    dg.jvp(lambda x: (kept.append(x), x)[1], (1.0,), (1.0,))
    return kept[0]


MESSAGES = {
    "MissingRuleError": (
        lambda: dg.jvp(lambda x: np.unravel_index(x, (2, 2)), (ONES,), (ONES,)),
        "np.unravel_index has no tangent rule (it takes places, which are integers); argument 0 "
        "is a dual. Write the computation with functions that have one (docs/operations.md), "
        "declare a rule with dg.custom_jvp, or pass dg.primal(x) if this derivative is not wanted.",
    ),
    "MissingRuleError of an argument": (
        lambda: dg.jvp(
            lambda w: np.quantile(ONES, 0.5, weights=w, method="inverted_cdf"), (ONES,), (ONES,)
        ),
        "np.quantile has no tangent rule in weights; argument weights= is a dual. Write the "
        "computation with functions that have one (docs/operations.md), declare a rule with "
        "dg.custom_jvp, or pass dg.primal(x) if this derivative is not wanted.",
    ),
    "LevelError": (
        lambda: kept_dual() + 1,
        "add: this dual belongs to level N, a call of dg.jvp that has returned, so its tangent "
        "means nothing any more. Return the value from the function that dg.jvp calls, or keep "
        "dg.primal(x) (only repr and dg.primal still work).",
    ),
    "ShapeError": (
        lambda: dg.jvp(np.sin, (ONES,), (np.ones(2),)),
        "dg.jvp: a tangent has shape (2,); the shape of its primal, (3,), was expected. Give the "
        "tangent the shape (3,).",
    ),
    "StructureError": (
        lambda: dg.jvp(np.sin, ([1.0],), ((1.0,),)),
        "dg.jvp: two trees differ in structure.\n  expected: ([*],)\n  got:      ((*,),)\nGive "
        "both the same containers, keys and static fields.",
    ),
    "DtypeError": (
        lambda: dg.gradient(np.square)(2),
        "dg.gradient: a primal of dtype int64 has no derivative. Give a floating array "
        "(x.astype(float)), or close over the integer instead of passing it.",
    ),
    "ConversionError of a number": (
        lambda: float(dg.dual(1.0, 1.0)),
        "float(x): turning a dual into a plain number would lose the tangent. Compute with NumPy "
        "functions instead (np.sin, not math.sin); write it into an array made by "
        "np.zeros_like(x) of a dual, or join several with np.stack; or say dg.primal(x) if the "
        "derivative is not wanted.",
    ),
    "ConversionError of an array": (
        lambda: np.asarray(dg.dual(1.0, 1.0)),
        "np.array(x), or writing a dual into an array, is a conversion to a plain array, which "
        "would lose the tangent. Stay with the dual: np.stack joins several (np.concatenate for "
        "np.r_, np.column_stack for np.c_), np.zeros_like(x) of a dual can be written to, A @ x "
        "does A.dot(x), dg.special has logsumexp, and A.toarray() or dg.custom_jvp serves a "
        "sparse A. Or say dg.primal(x) if the derivative is not wanted.",
    ),
    "WriteError of an argument": (
        lambda: dg.jvp(lambda x: x.__setitem__(0, 1.0), (ONES,), (ONES,)),
        "x[i] = v: x is read-only (an argument of the function being differentiated, a view of "
        "one, or a broadcast). Say x = x.copy() first, or use np.where.",
    ),
    "WriteError of +=": (
        lambda: np.ones(3).__iadd__(dg.dual(1.0, 1.0)),
        "np.add: the result is a dual, and out= (the left side of +=, -=, ...) is a plain array, "
        "which would lose the tangent. Write y = y + x instead, or make the array with "
        "np.zeros_like(x) of a dual.",
    ),
    "OptionError": (
        lambda: dg.jacobian(np.sin, chunk_size=0)(ONES),
        "dg.jacobian: chunk_size=0; give the number of tangents a pass, >= 1.",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    mistake, text = MESSAGES[name]
    with pytest.raises(getattr(dg, name.split()[0])) as caught:
        mistake()
    message = str(caught.value)
    if "level N" in text:
        number = message.partition("level ")[2].partition(",")[0]
        text = text.replace("level N", f"level {number}")
    assert message == text


BUILT_IN = {
    "MissingPackageError": (ImportError,),
    "MissingRuleError": (NotImplementedError, TypeError),
    "LevelError": (RuntimeError,),
    "ShapeError": (ValueError,),
    "StructureError": (ValueError, TypeError),
    "DtypeError": (TypeError,),
    "ConversionError": (TypeError,),
    "WriteError": (TypeError, ValueError),
    "DeviceError": (TypeError,),
    "NonFiniteError": (FloatingPointError,),
    "OptionError": (ValueError,),
    "DataError": (ValueError, OSError),
    "CheckpointError": (ValueError, OSError),
}


def test_every_error_is_one_of_ours_and_one_that_a_caller_would_catch():
    ours = {
        n: e for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, Exception)
    }
    assert set(ours) == {"DualgradError", *BUILT_IN}
    for name, expected in BUILT_IN.items():
        assert (
            issubclass(ours[name], (dg.DualgradError, *expected))
            and getattr(dg, name) is ours[name]
        )
        assert all(issubclass(ours[name], e) for e in expected)
        assert ours[name].__doc__


def test_a_missing_rule_says_which_argument_is_the_dual():
    x = dg.dual(ONES, ONES)
    for call, place in (
        (lambda: np.unravel_index(x, (2, 2)), "argument 0"),
        (lambda: np.busday_count("2020-01-01", x), "argument 1"),
        (lambda: np.busday_offset("2020-01-01", offsets=x), "argument offsets="),
    ):
        with pytest.raises(dg.MissingRuleError, match=f"{place} is a dual"):
            call()
