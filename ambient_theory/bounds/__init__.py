"""Effective sizes, the terms of the bound, exchange rates, and the same as SymPy expressions.

    from ambient_theory import bounds

    bounds.bound(k=2, d=1, levels=[0.2, 0.6], counts=[100, 900]).total

Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ambient_theory.shared.lazy import lazily

if TYPE_CHECKING:
    from ambient_theory.bounds.laws import LAWS as LAWS
    from ambient_theory.bounds.laws import identifiability_band as identifiability_band
    from ambient_theory.bounds.laws import law_named as law_named
    from ambient_theory.bounds.laws import laws_for_atoms as laws_for_atoms
    from ambient_theory.bounds.rates import STATEMENTS as STATEMENTS
    from ambient_theory.bounds.sizes import BoundTerms as BoundTerms
    from ambient_theory.bounds.sizes import bound as bound
    from ambient_theory.bounds.sizes import low_weight_condition as low_weight_condition
    from ambient_theory.bounds.sizes import n_counted as n_counted
    from ambient_theory.bounds.sizes import n_d as n_d
    from ambient_theory.bounds.sizes import n_l as n_l
    from ambient_theory.bounds.sizes import n_mean as n_mean
    from ambient_theory.bounds.sizes import total_noise as total_noise
    from ambient_theory.bounds.sizes import weight_condition as weight_condition

_HERE = {
    "sizes": (
        "BoundTerms",
        "bound",
        "low_weight_condition",
        "n_counted",
        "n_d",
        "n_l",
        "n_mean",
        "total_noise",
        "weight_condition",
    ),
    "laws": ("LAWS", "identifiability_band", "law_named", "laws_for_atoms"),
    "rates": ("STATEMENTS",),
}
_PLACES = {name: f"ambient_theory.bounds.{room}:{name}" for room, names in _HERE.items() for name in names}

__getattr__, __dir__ = lazily(__name__, _PLACES)
