"""What is a noisy image worth? From records, here those that ship: the price by level, a purchase, and the page.

python examples/price_and_page.py
"""

import argparse
from pathlib import Path

from ambient_theory import compare


def main(outdir: Path, page: bool = True) -> None:
    found = compare.read_shipped()  # your own: compare.read("runs/", "results/records.jsonl")
    print(found)
    asked = compare.Asked(price_clean=10, price_noisy=1, budget=5000)
    for answer in compare.budget(found.records, asked, sigma_n=0.2):
        print(answer.sentence())
    if page:
        print(compare.report(found.records, outdir).page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("examples-out/report"))
    main(parser.parse_args().outdir)
