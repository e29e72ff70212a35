"""Where what was measured meets what theory says: prices, fits, utility curves, budget, and one self-contained page.

Everything here reads records (`ambient_theory.shared.records`) and nothing else. `page.build.build_report` is the one
call behind `ambient compare`; nothing is imported at this level, so that the command line stays quick.
"""
