"""Where what was measured meets what theory says: prices, fits, utility curves, budget, and one self-contained page.

Everything here reads records (`ambient_theory.records`) and nothing else. `report.build_report` is the one call behind
`ambient compare`; nothing is imported at this level, so that the command line stays quick.
"""
