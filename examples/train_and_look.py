"""Train on digits of which nine in ten are noisy, look at samples, and score them.

python examples/train_and_look.py
"""

import argparse
from pathlib import Path

from ambient_train import evaluate, generate, train


def main(outdir: Path, duration: str = "20k", n: int = 500) -> None:
    run = train(
        data="digits",
        sigma=0.6,  # standard deviation of the noise, in units of [-1, 1]
        corruption=0.9,  # share of noisy images
        duration=duration,  # images to train on
        evaluation={"n": n},
        outdir=outdir / "run",
    )
    print(run)
    print(generate(run.directory, outdir / "images", seeds=range(64), form="grid"))
    scores = evaluate(run.directory, n=n, memorisation=True)
    print(scores)
    print(scores.memorisation.sentence())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/train"))
    main(parser.parse_args().outdir)
