"""Two atoms from numbers of which each has its own known noise: the precise tenth and the rest are not averaged alike.

python examples/fit_noisy_numbers.py
"""

import numpy as np

from ambient_theory import HeteroscedasticMixture


def main(n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    atoms = rng.choice([-1.0, 1.0], size=n, p=[0.3, 0.7])
    noise = np.where(np.arange(n) < n // 10, 0.5, 2.0)  # standard deviation of each number
    x = (atoms + noise * rng.normal(size=n))[:, None]
    fit = HeteroscedasticMixture(n_components=2, random_state=0).fit(x, noise_std=noise)
    print(f"atoms {fit.means_.ravel().round(3)}, weights {fit.weights_.round(3)}")
    print(fit.diagnostics_)
    return fit.means_.ravel(), fit.weights_


if __name__ == "__main__":
    main()
