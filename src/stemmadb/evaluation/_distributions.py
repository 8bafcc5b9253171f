"""Distributions that tests and intervals are read from, in plain Python, so that closed forms need no further package."""

import functools
import math
from typing import Final

_STEPS: Final = 500
_TINY: Final = 1e-300
_COUNTED: Final = 500
"""Up to how many coins their ways to fall are counted out."""


def beta_share(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), for a and b over 0 and x from 0 to 1."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    # The continued fraction converges fast on one side of the mean; the other side is its complement.
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_share(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of I_x(a, b) by Lentz's method."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _STEPS + 1):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def t_tail(t: float, freedom: float) -> float:
    """Return P(T > t) of Student's t."""
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    square = t * t
    # Of I_x and its complement the one is taken whose argument keeps its digits.
    both = beta_share(freedom / 2.0, 0.5, freedom / (freedom + square))
    return both / 2.0 if t >= 0 else 1.0 - both / 2.0


# Runs of the same scenarios have the same number of pairs, and there is one plan for all of them.
@functools.lru_cache(256)
def t_quantile(share: float, freedom: float) -> float:
    """Return the t with P(T <= t) = share, for a share from 0.5 to below 1."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1.0 - share:
        low, high = high, high * 2.0
    t = (low + high) / 2.0
    for _ in range(200):
        excess = t_tail(t, freedom) - (1.0 - share)
        if excess > 0.0:
            low = t
        else:
            high = t
        # Newton's step, which doubles the digits; where it leaves the bracket, half of that.
        better = t + excess / (_t_density(t, freedom) or _TINY)
        if not low < better < high:
            better = (low + high) / 2.0
        if abs(better - t) <= 1e-15 * t:
            break
        t = better
    return t


def _t_density(t: float, freedom: float) -> float:
    log_scale = math.lgamma((freedom + 1.0) / 2.0) - math.lgamma(freedom / 2.0) - math.log(freedom * math.pi) / 2.0
    return math.exp(log_scale - (freedom + 1.0) / 2.0 * math.log1p(t * t / freedom))


def normal_tail(z: float) -> float:
    """Return P(Z > z) of the standard normal distribution."""
    return math.erfc(z / math.sqrt(2.0)) / 2.0


def fair_tail(at_least: int, n: int) -> float:
    """Return P(X >= at_least) for the number of heads of n fair coins."""
    if at_least <= 0 or at_least > n:
        return 1.0 if at_least <= 0 else 0.0
    if n <= _COUNTED:
        return sum(math.comb(n, heads) for heads in range(at_least, n + 1)) / (1 << n)
    return beta_share(at_least, n - at_least + 1, 0.5)
