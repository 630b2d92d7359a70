"""What the functions of scipy.special are compared with: mpmath, by name and where they are drawn.

A `Row` is one result of one function. Its arguments are ranges, in which the derivative is taken,
or `given` values of what has no derivative.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath
import numpy as np

mp = mpmath.mp.clone()
mp.dps = 20

SLOW = (
    "y1 k0 k0e k1 k1e kn kv kve hankel1 hankel1e hankel2 hankel2e elliprd elliprj".split()
)  # for mpmath


class Row(NamedTuple):
    """One result of a function; `inverse` is what it inverts, in the argument `moving`."""

    name: str
    arguments: tuple
    exact: Callable | None = None  # of mpmath's numbers; None where only differences can tell
    index: int | None = None  # of the result, for functions with several
    inverse: Callable | None = None
    complex: bool = False
    first: float = 1e-10  # the relative tolerance of the first derivative
    second: float = 1e-8

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}[{self.index}]"


def given(*values: Any) -> list:
    return list(values)


ROWS: list[Row] = []


def row(name: str, *arguments: Any, exact: Any = None, **options: Any) -> None:
    ROWS.append(Row(name, arguments, exact, **options))


def several(name: str, *arguments: Any, exact: Any, **options: Any) -> None:
    for index, function in enumerate(exact):
        row(name, *arguments, exact=function, index=index, **options)


def half(z: Any) -> Any:
    return mp.sqrt(mp.pi / (2 * z))


def sized(x: Any) -> Any:
    return abs(mp.re(x))


UNIT, POSITIVE, REAL = (0.05, 0.95), (0.2, 6.0), (-3.0, 3.0)

# --- gamma and beta
row("gamma", (-2.7, 5.0), exact=mp.gamma, complex=True)
row("gammaln", (-2.7, 5.0), exact=lambda x: mp.log(abs(mp.gamma(x))))
row("loggamma", POSITIVE, exact=mp.loggamma, complex=True)
row("psi", (-2.7, 5.0), exact=mp.digamma, complex=True)
row("polygamma", given(1, 2, 5), (0.3, 5.0), exact=lambda n, x: mp.psi(int(n), x), complex=True)
row("rgamma", (-4.3, 5.0), exact=mp.rgamma, complex=True)
row("_zeta", given(1.5, 2, 4), POSITIVE, exact=mp.zeta)
row("beta", POSITIVE, POSITIVE, exact=mp.beta)
row("betaln", POSITIVE, POSITIVE, exact=lambda a, b: mp.log(mp.beta(a, b)))
row("binom", (4.0, 9.0), (0.5, 3.5), exact=mp.binomial)
row("poch", POSITIVE, (0.3, 3.0), exact=mp.rf)


def ibeta(a, b, x):
    return mp.betainc(a, b, 0, x, regularized=True)


def igamma(a, x):
    return mp.gammainc(a, 0, x, regularized=True)


SHAPES = given(0.7, 2.0, 5.5)
row("betainc", SHAPES, SHAPES, UNIT, exact=ibeta)
row("betaincc", SHAPES, SHAPES, UNIT, exact=lambda a, b, x: 1 - ibeta(a, b, x))
row("betaincinv", SHAPES, SHAPES, UNIT, inverse=ibeta)
row("betainccinv", SHAPES, SHAPES, UNIT, inverse=lambda a, b, x: 1 - ibeta(a, b, x))
row("gammainc", SHAPES, POSITIVE, exact=igamma)
row("gammaincc", SHAPES, POSITIVE, exact=lambda a, x: 1 - igamma(a, x))
row("gammaincinv", SHAPES, UNIT, inverse=igamma)
row("gammainccinv", SHAPES, UNIT, inverse=lambda a, x: 1 - igamma(a, x))

# --- error functions


def wofz(z):
    return mp.exp(-z * z) * mp.erfc(-1j * z)


def normal_cdf(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


row("erf", REAL, exact=mp.erf, complex=True)
row("erfc", REAL, exact=mp.erfc, complex=True)
row("erfcx", (-3.0, 60.0), exact=lambda x: mp.exp(x * x) * mp.erfc(x), complex=True)
row("erfi", REAL, exact=mp.erfi, complex=True)
row("dawsn", (-30.0, 30.0), exact=lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x))
row("dawsn", REAL, exact=lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x), complex=True)
row("erfinv", (-0.95, 0.95), inverse=mp.erf)
row("erfcinv", (0.05, 1.9), inverse=mp.erfc)
row("wofz", REAL, exact=wofz, complex=True)
row("ndtr", REAL, exact=normal_cdf, complex=True)
row("log_ndtr", (-60.0, 6.0), exact=lambda x: mp.log(normal_cdf(x)))
row("log_ndtr", REAL, exact=lambda x: mp.log(normal_cdf(x)), complex=True)
row("ndtri", UNIT, inverse=normal_cdf)
row("ndtri_exp", (-800.0, -0.001), inverse=lambda x: mp.log(normal_cdf(x)))
row(
    "voigt_profile",
    REAL,
    (0.3, 2.0),
    (0.3, 2.0),
    exact=lambda x, s, g: mp.re(wofz((x + 1j * g) / (s * mp.sqrt(2)))) / (s * mp.sqrt(2 * mp.pi)),
)
row("owens_t", REAL, REAL)
row("nrdtrimn", UNIT, (0.3, 2.0), REAL)
row("nrdtrisd", REAL, (0.7, 0.95), (4.0, 6.0))
several("fresnel", REAL, exact=(mp.fresnels, mp.fresnelc), complex=True)
for _name in ("modfresnelp", "modfresnelm"):
    several(_name, (0.2, 2.3), exact=(None, None))  # beyond, scipy's float32 loop gives NaN

# --- elementary
row("exp2", REAL, exact=lambda x: mp.mpf(2) ** x)
row("exp10", REAL, exact=lambda x: mp.mpf(10) ** x)
row("expm1", REAL, exact=mp.expm1, complex=True)
row("log1p", (-0.9, 3.0), exact=mp.log1p, complex=True)
row("cbrt", (0.2, 3.0), exact=mp.cbrt)
row("cosm1", REAL, exact=lambda x: mp.cos(x) - 1)
row("powm1", (0.3, 3.0), REAL, exact=lambda x, y: x**y - 1)
for _name, _function in (
    ("sindg", mp.sin),
    ("cosdg", mp.cos),
    ("tandg", mp.tan),
    ("cotdg", mp.cot),
):
    row(_name, (10.0, 80.0), exact=lambda x, f=_function: f(mp.radians(x)))
row("radian", REAL, REAL, REAL, exact=lambda d, m, s: mp.radians(d + m / 60 + s / 3600))
row("exprel", (-30.0, 30.0), exact=lambda x: mp.expm1(x) / x)
row("expit", (-30.0, 40.0), exact=lambda x: 1 / (1 + mp.exp(-x)))
row("logit", UNIT, exact=lambda x: mp.log(x / (1 - x)))
row("log_expit", (-30.0, 40.0), exact=lambda x: -mp.log1p(mp.exp(-x)))
row("softplus", (-30.0, 30.0), exact=lambda x: mp.log1p(mp.exp(x)))
row("sinc", REAL, exact=mp.sincpi)
row("xlogy", REAL, POSITIVE, exact=lambda x, y: x * mp.log(y), complex=True)
row("xlog1py", REAL, POSITIVE, exact=lambda x, y: x * mp.log1p(y), complex=True)
row("entr", POSITIVE, exact=lambda x: -x * mp.log(x))
row("rel_entr", POSITIVE, POSITIVE, exact=lambda x, y: x * mp.log(x / y))
row("kl_div", POSITIVE, POSITIVE, exact=lambda x, y: x * mp.log(x / y) - x + y)
row("huber", (0.2, 1.0), (1.2, 3.0), exact=lambda d, r: d * (abs(r) - d / 2))
row("huber", (2.0, 3.0), (-1.9, 1.9), exact=lambda d, r: r * r / 2)
row("pseudo_huber", POSITIVE, REAL, exact=lambda d, r: d**2 * (mp.sqrt(1 + (r / d) ** 2) - 1))
row("boxcox", (0.3, 4.0), (-0.4, 0.4), exact=lambda x, p: (x**p - 1) / p)
row("boxcox1p", (-0.5, 4.0), (-0.4, 0.4), exact=lambda x, p: ((1 + x) ** p - 1) / p)
row("inv_boxcox", (-0.5, 3.0), (0.02, 1.8), exact=lambda y, p: (1 + p * y) ** (1 / p))
row("inv_boxcox1p", (-0.5, 3.0), (0.02, 1.8), exact=lambda y, p: (1 + p * y) ** (1 / p) - 1)
row("tklmbda", (-1.2, 1.2), given(-0.5, 0.3, 0.7))
row("expi", POSITIVE, exact=mp.ei)
row("exp1", POSITIVE, exact=mp.e1, complex=True)
row("expn", given(0, 1, 2, 5), POSITIVE, exact=lambda n, x: mp.expint(int(n), x))
row("spence", (0.1, 5.0), exact=lambda z: mp.polylog(2, 1 - z), complex=True)
row(
    "_lambertw",
    (0.1, 5.0),
    given(0, 1),
    given(1e-8),
    complex=True,
    exact=lambda z, k, tol: mp.lambertw(z, int(k)),
)
row("wrightomega", REAL, exact=lambda z: mp.lambertw(mp.exp(z)), complex=True)
several("shichi", POSITIVE, exact=(mp.shi, mp.chi), complex=True)
several("sici", POSITIVE, exact=(mp.si, mp.ci), complex=True)

# --- Bessel functions and their kind
ORDERS, WHOLE, Z = given(0, 0.5, 1, 3, 4.3), given(0, 1, 4), (0.3, 9.0)
for _name, _function, _order in (
    ("j0", mp.besselj, 0), ("j1", mp.besselj, 1), ("y0", mp.bessely, 0), ("y1", mp.bessely, 1),
    ("i0", mp.besseli, 0), ("i1", mp.besseli, 1), ("k0", mp.besselk, 0), ("k1", mp.besselk, 1),
):  # fmt: skip
    row(_name, Z, exact=lambda x, f=_function, v=_order: f(v, x))
for _name, _function, _sign in (("i", mp.besseli, -1), ("k", mp.besselk, 1)):
    for _order in (0, 1):
        row(
            f"{_name}{_order}e",
            Z,
            exact=lambda x, f=_function, v=_order, s=_sign: f(v, x) * mp.exp(s * x),
        )
    row(f"{_name}v", ORDERS, Z, exact=_function, complex=True)
    row(f"{_name}ve", ORDERS, Z, exact=lambda v, x, f=_function, s=_sign: f(v, x) * mp.exp(s * x))
for _name, _function in (("jv", mp.besselj), ("yv", mp.bessely), ("hankel1", mp.hankel1),
                         ("hankel2", mp.hankel2)):  # fmt: skip
    row(_name, ORDERS, Z, exact=_function, complex=True)
row("jve", ORDERS, Z, exact=mp.besselj)
row("yve", ORDERS, Z, exact=mp.bessely)
row("yn", WHOLE, Z, exact=mp.bessely)
row("kn", WHOLE, Z, exact=mp.besselk)
row("kve", ORDERS, Z, exact=lambda v, z: mp.besselk(v, z) * mp.exp(z), complex=True)
row("hankel1e", ORDERS, Z, exact=lambda v, z: mp.hankel1(v, z) * mp.exp(-1j * z), complex=True)
row("hankel2e", ORDERS, Z, exact=lambda v, z: mp.hankel2(v, z) * mp.exp(1j * z), complex=True)
row("struve", ORDERS, Z, exact=mp.struveh)
row("modstruve", ORDERS, Z, exact=mp.struvel)
for _name in "itstruve0 itmodstruve0 it2struve0".split():
    row(_name, (1.0, 6.0))
for _name, _function in (("ber", mp.ber), ("bei", mp.bei), ("ker", mp.ker), ("kei", mp.kei)):
    row(_name, POSITIVE, exact=lambda x, f=_function: f(0, x))
    row(f"{_name}p", POSITIVE)
several(
    "kelvin",
    POSITIVE,
    exact=(
        lambda x: mp.ber(0, x) + 1j * mp.bei(0, x),
        lambda x: mp.ker(0, x) + 1j * mp.kei(0, x),
        None,
        None,
    ),
)
several(
    "airy",
    REAL,
    complex=True,
    exact=(
        mp.airyai,
        lambda z: mp.airyai(z, derivative=1),
        mp.airybi,
        lambda z: mp.airybi(z, derivative=1),
    ),
)


def zeta_of(z):
    return mp.mpf(2) / 3 * z * mp.sqrt(z)


several(
    "airye",
    POSITIVE,
    exact=(
        lambda z: mp.airyai(z) * mp.exp(zeta_of(z)),
        lambda z: mp.airyai(z, derivative=1) * mp.exp(zeta_of(z)),
        lambda z: mp.airybi(z) * mp.exp(-zeta_of(z)),
        lambda z: mp.airybi(z, derivative=1) * mp.exp(-zeta_of(z)),
    ),
)
several("itj0y0", POSITIVE, exact=(None, None))
several("iti0k0", POSITIVE, exact=(None, None))
several("itairy", (0.3, 3.0), exact=(None,) * 4)
for _name, _function in (("jn", mp.besselj), ("yn", mp.bessely), ("in", mp.besseli)):
    row(
        f"spherical_{_name}",
        WHOLE,
        Z,
        complex=True,
        exact=lambda n, z, f=_function: half(z) * f(n + mp.mpf(1) / 2, z),
    )
row("spherical_kn", WHOLE, Z, exact=lambda n, z: half(z) * mp.besselk(n + mp.mpf(1) / 2, z))

# --- elliptic
BELOW = (-3.0, 0.95)
row("ellipk", BELOW, exact=mp.ellipk)
row("ellipkm1", (0.01, 3.0), exact=lambda p: mp.ellipk(1 - p))
row("ellipe", BELOW, exact=mp.ellipe)
row("ellipkinc", (-5.0, 5.0), (-2.0, 0.9), exact=mp.ellipf)
row("ellipeinc", (-5.0, 5.0), (-2.0, 0.9), exact=mp.ellipe)
row("elliprc", POSITIVE, POSITIVE, exact=mp.elliprc)
row("elliprc", POSITIVE, (-5.0, -0.3), exact=mp.elliprc)
row("elliprd", POSITIVE, POSITIVE, POSITIVE, exact=mp.elliprd, complex=True)
row("elliprf", POSITIVE, POSITIVE, POSITIVE, exact=mp.elliprf, complex=True)
row("elliprj", POSITIVE, POSITIVE, POSITIVE, POSITIVE, exact=mp.elliprj)
row("elliprg", POSITIVE, POSITIVE, POSITIVE, exact=mp.elliprg)
row("agm", POSITIVE, POSITIVE, exact=mp.agm)
several(
    "ellipj",
    (-3.0, 3.0),
    (0.05, 0.95),
    exact=(
        lambda u, m: mp.ellipfun("sn", u, m=m),
        lambda u, m: mp.ellipfun("cn", u, m=m),
        lambda u, m: mp.ellipfun("dn", u, m=m),
        None,
    ),
)

# --- polynomials and hypergeometric functions
DEGREES, INSIDE = given(0, 1, 2, 7), (-0.95, 0.95)
row("eval_jacobi", DEGREES, given(0.5), given(1.5), INSIDE, exact=mp.jacobi, complex=True)
row("eval_sh_jacobi", DEGREES, given(3.5), given(1.5), UNIT)
row("eval_gegenbauer", DEGREES, given(0.5, 2.5), INSIDE, exact=mp.gegenbauer, complex=True)
row("eval_legendre", DEGREES, INSIDE, exact=mp.legendre, complex=True)
row("eval_sh_legendre", DEGREES, UNIT, exact=lambda n, x: mp.legendre(n, 2 * x - 1))
row("eval_chebyt", DEGREES, INSIDE, exact=mp.chebyt, complex=True)
row("eval_chebyu", DEGREES, INSIDE, exact=mp.chebyu, complex=True)
row("eval_chebyc", DEGREES, INSIDE, exact=lambda n, x: 2 * mp.chebyt(n, x / 2))
row("eval_chebys", DEGREES, INSIDE, exact=lambda n, x: mp.chebyu(n, x / 2))
row("eval_sh_chebyt", DEGREES, UNIT, exact=lambda n, x: mp.chebyt(n, 2 * x - 1))
row("eval_sh_chebyu", DEGREES, UNIT, exact=lambda n, x: mp.chebyu(n, 2 * x - 1))
row("eval_hermite", DEGREES, REAL, exact=mp.hermite)
row(
    "eval_hermitenorm",
    DEGREES,
    REAL,
    exact=lambda n, x: mp.mpf(2) ** (-mp.mpf(int(n)) / 2) * mp.hermite(n, x / mp.sqrt(2)),
)
row("eval_laguerre", DEGREES, POSITIVE, exact=lambda n, x: mp.laguerre(n, 0, x), complex=True)
row("eval_genlaguerre", DEGREES, given(0.5, 2), POSITIVE, exact=mp.laguerre, complex=True)
row("lpmv", given(0, 1, 2), given(2, 3.5), INSIDE)
row("hyp0f1", given(0.5, 2.0), REAL, exact=mp.hyp0f1, complex=True)
row("hyp1f1", given(0.5, -2.0), given(1.5), REAL, exact=mp.hyp1f1, complex=True)
row("hyp2f1", given(0.5, 1.0), given(1.5), given(2.7), (-2.0, 0.8), exact=mp.hyp2f1, complex=True)
row("hyperu", given(0.5, 2.0), given(1.5, 0.3), POSITIVE, exact=mp.hyperu, first=1e-8)
row(
    "wright_bessel",
    given(0.5, 1.0),
    given(0.7, 2.0),
    POSITIVE,
    exact=lambda a, b, x: mp.nsum(lambda k: x**k / mp.factorial(k) * mp.rgamma(a * k + b), [0, 60]),
)
row("log_wright_bessel", given(0.5, 1.0), given(0.7, 2.0), POSITIVE)

# --- equations of Mathieu and Weber
for _name in ("pbdv", "pbvv"):
    several(_name, given(0.5, 2.0), REAL, exact=(None, None))
row("pbdv", given(0.5, 2.0, -1.3), REAL, exact=mp.pcfd, index=0)
several("pbwa", given(0.5, 2.0), REAL, exact=(None, None))
for _name in ("mathieu_cem", "mathieu_sem"):
    several(_name, given(1, 2), given(0.5, 3.0), (10.0, 80.0), exact=(None, None))
for _name in ("modcem1", "modcem2", "modsem1", "modsem2"):
    several(f"mathieu_{_name}", given(1, 2), given(0.5, 3.0), (0.3, 1.5), exact=(None, None))

# --- distributions


def student(df, t):
    x = df / (df + t * t)
    tail = ibeta(mp.mpf(df) / 2, mp.mpf(1) / 2, x) / 2
    return 1 - tail if t > 0 else tail


def fisher(a, b, x):
    return ibeta(mp.mpf(a) / 2, mp.mpf(b) / 2, a * x / (a * x + b))


def chi_square(v, x):
    return igamma(mp.mpf(v) / 2, x / 2)


def binomial(k, n, p):
    return ibeta(n - mp.floor(k), mp.floor(k) + 1, 1 - p)


def negative_binomial(k, n, p):
    return ibeta(n, k + 1, p)


def poisson(k, m):
    return 1 - igamma(mp.floor(k) + 1, m)


FREEDOM, K, N = given(1, 2.5, 9), given(1, 2), given(5, 8)
row("stdtr", FREEDOM, REAL, exact=student)
row("stdtrit", FREEDOM, UNIT, inverse=student)
row("chdtr", FREEDOM, POSITIVE, exact=chi_square)
row("chdtrc", FREEDOM, POSITIVE, exact=lambda v, x: 1 - chi_square(v, x))
row("chdtri", FREEDOM, UNIT, inverse=lambda v, x: 1 - chi_square(v, x))
row("fdtr", FREEDOM, FREEDOM, POSITIVE, exact=fisher)
row("fdtrc", FREEDOM, FREEDOM, POSITIVE, exact=lambda a, b, x: 1 - fisher(a, b, x))
row("fdtri", FREEDOM, FREEDOM, UNIT, inverse=fisher)
row("gdtr", (0.3, 2.0), SHAPES, POSITIVE, exact=lambda a, b, x: igamma(b, a * x))
row("gdtrc", (0.3, 2.0), SHAPES, POSITIVE, exact=lambda a, b, x: 1 - igamma(b, a * x))
row("gdtrix", (0.3, 2.0), SHAPES, UNIT)
row("gdtria", UNIT, SHAPES, (0.3, 2.0))
row("bdtr", K, N, UNIT, exact=binomial)
row("bdtrc", K, N, UNIT, exact=lambda k, n, p: 1 - binomial(k, n, p))
row("bdtri", K, N, UNIT, inverse=binomial)
row("nbdtr", K, N, UNIT, exact=negative_binomial)
row("nbdtrc", K, N, UNIT, exact=lambda k, n, p: 1 - negative_binomial(k, n, p))
row("nbdtri", K, N, UNIT, inverse=negative_binomial)
row("pdtr", K, POSITIVE, exact=poisson)
row("pdtrc", K, POSITIVE, exact=lambda k, m: 1 - poisson(k, m))
row("pdtri", K, UNIT, inverse=poisson)


def draw(case: Row, rng: np.random.Generator, n: int, dtype: Any = float) -> tuple[list, list]:
    """Return n values of each argument, and the places of those that move."""
    args: list = []
    for where in case.arguments:
        if isinstance(where, list):
            args.append(np.array([where[i] for i in rng.integers(len(where), size=n)]))
        else:
            x = rng.uniform(*where, n)
            args.append((x + 1j * rng.uniform(-1, 1, n) if dtype is complex else x).astype(dtype))
    return args, [i for i, where in enumerate(case.arguments) if not isinstance(where, list)]
