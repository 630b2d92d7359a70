"""Give exact Jacobians to SciPy's solvers, and differentiate through loops of plain NumPy code.

Four problems, each with the Jacobian by dg.jacobian and by SciPy's finite differences:

    root   scipy.optimize.root           Bratu's equation u'' + exp(u) = 0, u(0) = u(1) = 0
    fit    scipy.optimize.least_squares  a damped oscillation through noisy data, with error bars
    stiff  scipy.integrate.solve_ivp     Robertson's reactions, fourteen powers of ten in time
    orbit  no solver                     predator and prey by Runge-Kutta steps in a Python loop:
                                         how they depend on the parameters

The functions are ordinary NumPy code; nothing in them knows that they are differentiated.

    python examples/science.py --problem all --plot science.png

A call is one evaluation of the function, with numbers or with duals: a pass of dg.jacobian gives
the derivatives along all directions at once. The error of a Jacobian is its largest difference from
the exact one over the largest entry; the exact one comes from a formula written by hand or, for the
orbit, from differences with three steps, extrapolated.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dualgrad as dg

EXACT, OTHER, INK = "#0072B2", "#D55E00", "#222222"  # told apart by colour-blind readers too


class Row(NamedTuple):
    """What one way to get the Jacobian took and reached."""

    jacobian: str
    calls: int  # of the function, by the solver
    error: float  # of a Jacobian, relative
    measure: float  # the problem's own


class Solved(NamedTuple):
    """A problem's rows, the name of its measure, and how to draw it."""

    title: str
    measure: str
    rows: list[Row]
    draw: Callable[[Any], None]


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any) -> Any:
        self.calls += 1
        return self.function(*args)


def relative(found: Any, exact: Any) -> float:
    """Return the largest difference of two arrays over the largest entry."""
    return float(np.max(np.abs(found - exact)) / np.max(np.abs(exact)))


def compare(
    function: Callable, run: Callable, by_hand: Callable, measure: Callable
) -> tuple[list[Row], np.ndarray]:
    """Return the rows of both ways, and the solution with the exact Jacobian.

    run(f, jacobian) solves with the function f, by differences where jacobian is None.
    """
    from scipy.optimize import approx_fprime

    rows, solutions = [], []
    for name in ("dg.jacobian", "differences"):
        f = Counted(function)
        exact = dg.jacobian(f)
        x = run(f, exact if name == "dg.jacobian" else None)
        calls = f.calls
        j = exact(x) if name == "dg.jacobian" else approx_fprime(x, function)
        rows.append(Row(name, calls, relative(j, by_hand(x)), measure(x)))
        solutions.append(x)
    return rows, solutions[0]


# --- root: a boundary value problem on a grid

POINTS = 60


def bratu(u: Any) -> Any:
    """Return the residuals of u'' + exp(u) = 0 by central differences, u = 0 at both ends."""
    h = 1 / (POINTS + 1)
    ends = np.zeros_like(u[:1])
    full = np.concatenate([ends, u, ends])
    return (full[2:] - 2 * u + full[:-2]) / h**2 + np.exp(u)


def bratu_by_hand(u: np.ndarray) -> np.ndarray:
    """Return the Jacobian of bratu from its formula: a tridiagonal matrix."""
    h = 1 / (POINTS + 1)
    off = np.ones(POINTS - 1) / h**2
    return np.diag(np.exp(u) - 2 / h**2) + np.diag(off, 1) + np.diag(off, -1)


def solve_root() -> Solved:
    """Solve Bratu's equation, all 60 unknowns at once."""
    from scipy.optimize import root

    rows, found = compare(
        bratu,
        lambda f, jacobian: root(f, np.zeros(POINTS), jac=jacobian, tol=1e-13).x,
        bratu_by_hand,
        lambda u: float(np.max(np.abs(bratu(u)))),
    )

    def draw(axes: Any) -> None:
        x = np.linspace(0, 1, POINTS + 2)
        axes.plot(x, np.concatenate([[0.0], found, [0.0]]), color=EXACT, lw=2)
        axes.set(title="root: Bratu's equation", xlabel="x", ylabel="u(x)", xlim=(0, 1))

    return Solved("root: u'' + exp(u) = 0 at 60 points", "largest residual", rows, draw)


# --- fit: a damped oscillation

TIMES = np.linspace(0, 10, 80)
TRUE = np.array([2.0, 0.3, 2.5, 0.4, 0.5])  # amplitude, damping, frequency, phase, offset


def oscillation(p: Any, t: Any = TIMES) -> Any:
    """Return the damped oscillation with parameters p at the times t."""
    return p[0] * np.exp(-p[1] * t) * np.cos(p[2] * t + p[3]) + p[4]


def oscillation_by_hand(p: np.ndarray) -> np.ndarray:
    """Return the Jacobian of oscillation with respect to p from its formula."""
    decay, angle = np.exp(-p[1] * TIMES), p[2] * TIMES + p[3]
    wave, slope = decay * np.cos(angle), -p[0] * decay * np.sin(angle)
    return np.stack([wave, -TIMES * p[0] * wave, TIMES * slope, slope, np.ones_like(TIMES)], axis=1)


def solve_fit() -> Solved:
    """Fit the oscillation to noisy data; the exact Jacobian gives the error bars too."""
    from scipy.optimize import least_squares

    noise = 0.15
    data = oscillation(TRUE) + noise * dg.random.normal(dg.Key(0), TIMES.shape)
    start = np.array([1.0, 0.1, 2.3, 0.0, 0.0])

    def residuals(p: Any) -> Any:
        return oscillation(p) - data

    def run(f: Callable, jacobian: Any) -> np.ndarray:
        return least_squares(f, start, jac=jacobian or "2-point", xtol=1e-12, ftol=1e-14).x

    def slope_at(p: np.ndarray) -> float:  # of the sum of squares: zero at the minimum
        return float(np.max(np.abs(oscillation_by_hand(p).T @ residuals(p))))

    rows, p = compare(residuals, run, oscillation_by_hand, slope_at)
    j = dg.jacobian(oscillation)(p)
    covariance = noise**2 * np.linalg.inv(j.T @ j)

    def draw(axes: Any) -> None:
        fine = np.linspace(0, 10, 400)
        along = dg.jacobian(lambda p: oscillation(p, fine))(p)
        spread = 2 * np.sqrt(np.einsum("ij,jk,ik->i", along, covariance, along))
        y = oscillation(p, fine)
        axes.fill_between(fine, y - spread, y + spread, color=EXACT, alpha=0.25, lw=0)
        axes.plot(fine, y, color=EXACT, lw=2)
        axes.plot(TIMES, data, ".", color=INK, ms=4)
        axes.set(title="fit: damped oscillation, 2 sigma", xlabel="t", ylabel="y", xlim=(0, 10))

    return Solved("fit: 5 parameters, 80 data", "slope at the end", rows, draw)


# --- stiff: Robertson's reactions

RATES = (0.04, 3e7, 1e4)
END = 1e9


def robertson(t: Any, y: Any) -> Any:
    """Return dy/dt of three substances that react at very different rates."""
    first, second, third = RATES[0] * y[0], RATES[1] * y[1] ** 2, RATES[2] * y[1] * y[2]
    return np.stack([third - first, first - third - second, second])


def robertson_by_hand(y: np.ndarray) -> np.ndarray:
    """Return the Jacobian of robertson with respect to y from its formula."""
    a, b, c = RATES
    row = np.array([a, -2 * b * y[1] - c * y[2], -c * y[1]])
    return np.array([[-a, c * y[2], c * y[1]], row, [0.0, 2 * b * y[1], 0.0]])


def solve_stiff() -> Solved:
    """Follow the reactions for 30 years by an implicit method, which needs Jacobians."""
    from scipy.integrate import solve_ivp

    runs = []

    def run(f: Callable, jacobian: Any) -> np.ndarray:
        solution = solve_ivp(
            lambda t, y: f(y),
            (0.0, END),
            [1.0, 0.0, 0.0],
            method="Radau",
            jac=jacobian and (lambda t, y: jacobian(y)),
            rtol=1e-8,
            atol=1e-12,
        )
        runs.append(solution)
        return solution.y[:, -1]

    def lost(y: np.ndarray) -> float:  # the sum of the substances is 1 for ever
        return float(abs(np.sum(y) - 1))

    rows, _ = compare(lambda y: robertson(0.0, y), run, robertson_by_hand, lost)
    solution = runs[0]

    def draw(axes: Any) -> None:
        for y, name, colour in zip(
            solution.y * np.array([[1], [1e4], [1]]),
            ("first", "second, times 10,000", "third"),
            (EXACT, OTHER, INK),
            strict=True,
        ):
            axes.semilogx(solution.t[1:], y[1:], color=colour, lw=2, label=name)
        axes.set(
            title="stiff: Robertson's reactions", xlabel="t", ylabel="amount", xlim=(1e-5, END)
        )
        axes.legend(fontsize=8)

    return Solved("stiff: Robertson until t = 1e9", "mass that is lost", rows, draw)


# --- orbit: the derivative of a loop

STEPS, LAST = 400, 15.0
ORBIT = np.array([1.1, 0.4, 0.4, 0.1])  # birth, hunting, death, growth


def predators(p: Any) -> Any:
    """Return (prey, predators) after each Runge-Kutta step, shape (STEPS + 1, 2)."""

    def slope(y: Any) -> Any:
        return np.stack([y[0] * (p[0] - p[1] * y[1]), y[1] * (p[3] * y[0] - p[2])])

    h, path = LAST / STEPS, [np.array([10.0, 5.0])]
    for _ in range(STEPS):
        y = path[-1]
        k1 = slope(y)
        k2 = slope(y + h / 2 * k1)
        k3 = slope(y + h / 2 * k2)
        k4 = slope(y + h * k3)
        path.append(y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
    return np.stack(path)


def end(p: Any) -> Any:
    """Return the last state of predators."""
    return predators(p)[-1]


def end_by_extrapolation(p: np.ndarray) -> np.ndarray:
    """Return the Jacobian of end by central differences of three steps, accurate to h**6."""

    def central(h: float) -> np.ndarray:
        rows = [end(p + h * e) - end(p - h * e) for e in np.eye(len(p))]
        return np.stack(rows, axis=1) / (2 * h)

    one, two, four = central(2.5e-4), central(5e-4), central(1e-3)
    return (64 * one - 20 * two + four) / 45


def solve_orbit() -> Solved:
    """Differentiate a loop of 400 steps with respect to four parameters."""
    from scipy.optimize import approx_fprime

    def run(f: Callable, jacobian: Any) -> np.ndarray:
        jacobian(ORBIT) if jacobian else approx_fprime(ORBIT, f)
        return ORBIT

    rows, _ = compare(end, run, end_by_extrapolation, lambda p: float(end(p)[0]))

    def draw(axes: Any) -> None:
        t, growth = np.linspace(0, LAST, STEPS + 1), dg.jacobian(predators)(ORBIT)[..., 3]
        axes.plot(t, growth[:, 0], color=EXACT, lw=2, label="prey")
        axes.plot(t, growth[:, 1], color=OTHER, lw=2, label="predators")
        axes.set(title="orbit: derivative by the growth rate", xlabel="t", xlim=(0, LAST))
        axes.legend(fontsize=8)

    return Solved("orbit: 400 Runge-Kutta steps", "prey at the end", rows, draw)


# --- the command line

PROBLEMS = {"root": solve_root, "fit": solve_fit, "stiff": solve_stiff, "orbit": solve_orbit}


def table(solved: Solved) -> str:
    """Return the rows of a problem as text."""
    lines = [solved.title, f"  {'Jacobian':<13}{'calls':>7}{'error':>12}   {solved.measure}"]
    for row in solved.rows:
        lines.append(f"  {row.jacobian:<13}{row.calls:>7}{row.error:>12.1e}   {row.measure:.3g}")
    return "\n".join(lines)


def plot(path: Path, results: list[Solved]) -> None:
    """Write the picture: one frame for each problem."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(len(results), 2)
    rows = -(-len(results) // columns)
    figure, frames = pyplot.subplots(rows, columns, figsize=(5.5 * columns, 3.8 * rows))
    for axes, solved in zip(np.ravel(frames), results, strict=True):
        solved.draw(axes)
        axes.grid(color="0.9")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the options; bad ones end the program with exit code 2 and one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--problem", choices=[*PROBLEMS, "all"], default="all")
    option("--plot", type=Path, metavar="PATH", help="draw the solutions into this PNG file")
    option("--json", type=Path, metavar="PATH", help="write the figures to this file too")
    options = parser.parse_args(argv)
    for name in ("plot", "json"):
        path = getattr(options, name)
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            parser.error(f"argument --{name}: {str(path)!r} is no file in a folder that exists.")
    if options.plot is not None and options.plot.suffix != ".png":
        parser.error(f"argument --plot: {str(options.plot)!r} does not end in '.png'.")
    needed = ["scipy", *(["matplotlib"] if options.plot else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(
            f"not installed: {' and '.join(missing)}; python -m pip install {' '.join(missing)}"
        )
    return options


def main(argv: list[str] | None = None) -> int:
    """Solve, print a table for each problem, write the picture; return the exit code."""
    options = parse(argv)
    report, results = {}, []
    for name in PROBLEMS if options.problem == "all" else [options.problem]:
        solved = PROBLEMS[name]()
        print(table(solved), flush=True)
        results.append(solved)
        report[name] = {"measure": solved.measure, "rows": [row._asdict() for row in solved.rows]}
    try:
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
        if options.plot:
            plot(options.plot, results)
            print(f"picture: {options.plot}")
    except OSError as error:
        print(f"science.py: cannot write {error.filename or 'a result'}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
