"""The bound for a mix of clean and noisy samples, and a simulation beside it.

python examples/bound_and_simulation.py
"""

import argparse
from pathlib import Path

from ambient_theory import bounds, simulate


def main(outdir: Path, n: str = "1e3..1e5", reps: int = 100) -> None:
    for clean, noisy in ((1000, 0), (1000, 9000), (10_000, 0)):
        # s: total standard deviation of a sample about its atom; clean 1, noisy 2
        terms = bounds.bound(k=2, d=1, levels=[1.0, 2.0], counts=[clean, noisy])
        print(f"{clean:6,} clean + {noisy:6,} noisy: rate of W1 {terms.total:.3f} (constants 1)")
    result = simulate(n=n, k=[2], reps=reps, outdir=outdir)
    print(f"{len(result.summary['slopes'])} slopes; files: {', '.join(f.name for f in result.files)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/simulation"))
    main(parser.parse_args().outdir)
