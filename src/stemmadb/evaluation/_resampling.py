"""What is computed by drawing again and again: sign flips and bootstraps, in numpy, which is only imported here and when it is used."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from stemmadb.errors import MissingDependencyError

_CELLS: Final = 100_000
"""How many numbers are drawn at once: 800 kB, which a core keeps at hand. It decides about the time alone: the numbers stay the same."""


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ImportError:
        raise MissingDependencyError("stats") from None


def sign_flip_p(differences: Sequence[float], *, two_sided: bool, resamples: int, seed: int) -> float:
    """
    Return the p-value of the sign-flip permutation test of the mean difference.

    Every pattern of signs is tried when there are at most ``resamples`` of them; then the p-value is exact. Else so many are drawn, and the
    one that was observed counts as one more.

    Raises:
        MissingDependencyError: the extra ``stats`` is not installed.
    """
    np = _numpy()
    values = np.asarray(differences, dtype=float)
    observed = values.sum()
    # Sums of the same numbers in another order differ in their last digits.
    slack = 1e-12 * np.abs(values).sum()
    exact = len(values) < 60 and 2 ** len(values) <= resamples
    hits = tried = 0
    for signs in _patterns(np, len(values)) if exact else _draws(np, len(values), resamples, seed):
        sums = signs @ values
        hits += int((np.abs(sums) >= abs(observed) - slack).sum() if two_sided else (sums >= observed - slack).sum())
        tried += len(signs)
    return hits / tried if exact else (hits + 1) / (tried + 1)


def _patterns(np: Any, n: int) -> Iterator[Any]:
    step = max(1, _CELLS // max(n, 1))
    for start in range(0, 2**n, step):
        numbers = np.arange(start, min(start + step, 2**n))
        yield ((numbers[:, None] >> np.arange(n)) & 1) * 2.0 - 1.0


def _draws(np: Any, n: int, count: int, seed: int) -> Iterator[Any]:
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // n)
    for start in range(0, count, step):
        yield random.integers(0, 2, (min(step, count - start), n)) * 2.0 - 1.0


def bootstrap_interval(differences: Sequence[float], *, alpha: float, resamples: int, seed: int) -> tuple[float, float]:
    """
    Return the percentile bootstrap interval of the mean difference, of confidence 1 - alpha.

    Raises:
        MissingDependencyError: the extra ``stats`` is not installed.
    """
    np = _numpy()
    values = np.asarray(differences, dtype=float)
    random = np.random.default_rng(seed)
    step = max(1, _CELLS // len(values))
    means = [
        values[random.integers(0, len(values), (min(step, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
