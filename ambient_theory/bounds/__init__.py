"""Effective sizes, the terms of the bound, exchange rates, and the same as SymPy expressions."""
