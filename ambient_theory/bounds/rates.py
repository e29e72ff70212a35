"""The rates as SymPy expressions: each with source, grade and regime, LaTeX and a numeric counterpart.

Grades: `stated`, read in a primary source; `reconstructed`, known second-hand and derived again; `derived`, derived
here and checked numerically. Theorems are cited by paper and content, never by number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sympy as sp

from ambient_theory.shared.errors import UsageError

Grade = Literal["stated", "reconstructed", "derived"]
GRADES: tuple[Grade, ...] = get_args(Grade)

DWYZ = "Doss, Wu, Yang, Zhou, arXiv 2002.05818"
WU_YANG = "Wu, Yang, arXiv 1807.07237"
HEINRICH_KAHN = "Heinrich, Kahn, arXiv 1504.03506"
AMBIENT = "Daras, Cherapanamjeri, Daskalakis, arXiv 2411.02780"
HERE = "this project"

k, d, n, k0 = sp.symbols("k d n k_0", positive=True, integer=True)
s0, sigma, s, lam, delta = sp.symbols("s_0 sigma s lambda delta", positive=True)
C_d, C_l, R = sp.symbols("C_d C_l R", positive=True)
n_d, n_l, n_m, N_eff = sp.symbols("n_d n_l n_m N_eff", positive=True)
sigmas, i = sp.IndexedBase("s"), sp.symbols("i", positive=True, integer=True)
LOG = sp.log(1 / delta)


@dataclass(frozen=True)
class Statement:
    """One formula of the theory. symbols: name -> meaning with unit; regime: where it holds and up to what."""

    name: str
    expression: sp.Expr
    symbols: Mapping[str, str]
    source: str
    grade: Grade
    regime: str

    def __post_init__(self) -> None:
        assert self.grade in GRADES
        missing = self.free_names() - set(self.symbols)
        assert not missing, f"{self.name}: {missing} not explained"

    def free_names(self) -> set[str]:
        """Names of the free symbols."""
        return {str(x) for x in self.expression.free_symbols if not isinstance(x, sp.Indexed)} - {"i"}

    def latex(self) -> str:
        """The expression as LaTeX (no dollar signs)."""
        return sp.latex(self.expression)

    def mathml(self) -> str:
        """The expression as a MathML element, which browsers draw without any script."""
        return f"<math>{sp.mathml(self.expression, printer='presentation')}</math>"

    def __call__(self, **values: Any) -> float:
        """The number at given values of all free symbols (s as a sequence for sums over samples).

        Raises UsageError for missing or unknown names.
        """
        names = self.free_names()
        if set(values) != names:
            given = ", ".join(sorted(values)) or "nothing"
            raise UsageError(f"{self.name} needs {', '.join(sorted(names))}, not {given}")
        if not self.expression.has(sp.Indexed):
            return float(self.expression.subs({x: values[str(x)] for x in self.expression.free_symbols}))
        noise = list(values.pop("s"))
        if len(noise) != values["n"]:
            raise UsageError(f"{self.name}: n = {values['n']} samples but {len(noise)} noise levels s")
        expanded = self.expression.subs(
            {x: values[str(x)] for x in self.expression.free_symbols if str(x) in values}
        ).doit()
        return float(expanded.subs({sigmas[j]: v for j, v in enumerate(noise, 1)}))

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "expression": str(self.expression),
            "latex": self.latex(),
            "symbols": dict(self.symbols),
            "source": self.source,
            "grade": self.grade,
            "regime": self.regime,
        }


_MEANING = {
    "k": "number of atoms",
    "k_0": "number of well separated clusters",
    "d": "dimension",
    "n": "number of samples, all of unit noise",
    "n_d": "effective size of the subspace term, sum of s_i^-4",
    "n_l": "effective size of the low-dimensional term, sum of s_i^-(4k-2)",
    "N_eff": "samples that count for the weights, sum of 1/(1 + s_i^2/R^2)",
    "n_m": "effective size for a mean, sum of s_i^-2",
    "s": "noise of sample i (total standard deviation)",
    "s_0": "intrinsic width of a clean sample",
    "sigma": "noise added to a sample, unit of s_0",
    "lambda": "signal strength rho^2 in the subspace",
    "delta": "probability of failure",
    "C_d": "constant of the subspace term (unknown)",
    "C_l": "constant of the low-dimensional term (unknown, depends on k)",
    "R": "radius of the ball that holds the atoms",
}


def _state(name: str, expression: sp.Expr, source: str, grade: Grade, regime: str) -> Statement:
    names = {str(x) for x in expression.free_symbols if not isinstance(x, sp.Indexed)}
    return Statement(name, expression, {x: _MEANING[x] for x in sorted(names) if x in _MEANING}, source, grade, regime)


def exchange_rate(name: str, m: float, regime: str) -> Statement:
    """`c = (1 + sigma^2/s_0^2)^-m`, or `exp(-sigma^2/s_0^2)` for m = inf: clean samples that a noisy one is worth in
    the weights of the bound. `ambient_theory.bounds.laws.LAWS` lists the exponents."""
    ratio = sigma**2 / s0**2
    expression = sp.exp(-ratio) if math.isinf(m) else (1 + ratio) ** -sp.nsimplify(m)
    return _state(name, expression, HERE, "derived", regime)


HOMOSCEDASTIC = _state(
    "homoscedastic minimax rate",
    (d / n) ** sp.Rational(1, 4) + n ** (-1 / (4 * k - 2)),
    DWYZ,
    "stated",
    "W1, unit noise, R and k fixed, up to a constant that depends on k and R; upper and lower bound match",
)
LINE = _state(
    "rate on the line",
    n ** (-1 / (4 * k - 2)),
    WU_YANG,
    "stated",
    "W1, d = 1, unit noise, worst case over k-atomic laws; reached by the denoised method of moments",
)
SEPARATED = _state(
    "rate with k0 separated clusters",
    n ** (-1 / (4 * (k - k0) + 2)),
    f"{HEINRICH_KAHN}; adaptive by {WU_YANG}",
    "stated",
    "W1, d = 1, atoms in k0 <= k clusters whose distance and weight stay bounded below; k0 = k gives n^(-1/2)",
)
SUBSPACE_TERM = _state(
    "subspace term",
    C_d * ((d + LOG) / n_d) ** sp.Rational(1, 4),
    AMBIENT,
    "reconstructed",
    "k >= 2, with probability 1 - delta; no sample may carry more than about 1/d of the weight s_i^-4",
)
LOW_TERM = _state(
    "low-dimensional term",
    C_l * (LOG / n_l) ** (1 / (4 * k - 2)),
    AMBIENT,
    "reconstructed",
    "k >= 2, with probability 1 - delta; worst case over k-atomic laws",
)
HETEROSCEDASTIC = _state(
    "heteroscedastic bound",
    SUBSPACE_TERM.expression + LOW_TERM.expression,
    AMBIENT,
    "reconstructed",
    "k >= 2, W1 with probability 1 - delta, matching lower bounds claimed; constants unknown",
)
MEAN = _state(
    "mean estimation",
    sp.sqrt(d / n_m),
    HERE,
    "derived",
    "k = 1: no subspace term; root mean square Euclidean error of the Gauss-Markov mean, n_m = sum s_i^-2",
)
WEIGHT_FLOOR = _state(
    "weight floor",
    R / sp.sqrt(N_eff),
    HERE,
    "derived",
    "k >= 2, the natural third term: the atoms' weights must be estimated whatever the noise, even as s -> 0",
)
N_COUNTED = _state(
    "effective size N_eff",
    sp.Sum(1 / (1 + sigmas[i] ** 2 / R**2), (i, 1, n)),
    HERE,
    "derived",
    "floor of the weights; a sample counts in full where its noise is below R, and as (R/s)^2 of one above",
)
N_D = _state(
    "effective size n_d",
    sp.Sum(sigmas[i] ** -4, (i, 1, n)),
    AMBIENT,
    "reconstructed",
    "subspace term; s_i total standard deviations in units of the clean width",
)
N_L = _state(
    "effective size n_l",
    sp.Sum(sigmas[i] ** -(4 * k - 2), (i, 1, n)),
    AMBIENT,
    "reconstructed",
    "low-dimensional term; s_i total standard deviations in units of the clean width",
)
C_LOW = _state(
    "exchange rate c_low",
    (1 + sigma**2 / s0**2) ** -(2 * k - 1),
    HERE,
    "derived",
    "clean samples a noisy one is worth in n_l; a weight, not the marginal worth",
)
C_SUBSPACE = _state(
    "exchange rate of a direction",
    s0**2 * (lam + s0**2) / (s**2 * (lam + s**2)),
    f"{HERE}; cf. weighted PCA, arXiv 1810.12862",
    "derived",
    "direction finding at signal strength lambda, s^2 = s_0^2 + sigma^2; from (s_0/s)^4 (weak) to (s_0/s)^2 (strong)",
)
CROSSOVER = _state(
    "crossover n*",
    (C_d / C_l) ** (4 * (2 * k - 1) / (2 * k - 3)) * d ** ((2 * k - 1) / (2 * k - 3)),
    HERE,
    "derived",
    "k >= 2, equal noise: above n* the low-dimensional term leads; strongly dependent on constants nobody knows",
)

STATEMENTS: tuple[Statement, ...] = (
    HOMOSCEDASTIC, LINE, SEPARATED, SUBSPACE_TERM, LOW_TERM, HETEROSCEDASTIC, MEAN, WEIGHT_FLOOR, N_COUNTED, N_D, N_L,
    C_LOW, C_SUBSPACE, CROSSOVER,
)  # fmt: skip
