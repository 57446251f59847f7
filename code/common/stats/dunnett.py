"""Dunnett's two-sided quantiles: many arms, each compared with the same baseline.

With as many seeds for the baseline as for an arm, the t values of any two arms correlate by one
half. Given what all arms share, z of the baseline and u = s/sigma of the estimated spread, they are
independent, and

    P(all |t| <= x) = E over u, z of [Phi(z + sqrt(2) x u) - Phi(z - sqrt(2) x u)]^arms.

Both expectations are sums over even steps, z of the normal density and log u of the chi density;
such sums converge faster than any power of the step. Source: Dunnett 1955, A Multiple Comparison
Procedure for Comparing Several Treatments with a Control; 1964, New Tables. (scipy's
multivariate_t.cdf is random in its last digits; tables have to come out alike byte for byte.)
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, stdtr, stdtrit  # scipy.stats takes a second to import

STEPS = 41             # of z, from -8.5 to 8.5
PER_WIDTH = 3          # steps of log u per standard deviation of it
NEGLIGIBLE = 36.0      # logarithm of what is left out of the chi density
SMALLEST_LOG_U = -10.0  # below, with 2 degrees of freedom, lie two in a thousand million

Floats = NDArray[np.float64]


def outside(x: float, arms: int, df: float) -> float:
    """Return the probability that the largest of ``arms`` |t| with ``df`` degrees is above ``x``.

    This is the adjusted p of the largest, Dunnett's single step.
    """
    if arms == 1:
        return float(2 * stdtr(df, -abs(x)))
    z, of_z, u, of_u = _nodes(df)
    reach = 2**0.5 * abs(x) * u[:, None]
    inside = (ndtr(z + reach) - ndtr(z - reach)) ** arms
    return float(1 - of_u @ (inside @ of_z))


@lru_cache(maxsize=4096)
def quantile(arms: int, df: float, alpha: float = 0.05) -> float:
    """Return the x that the largest of ``arms`` |t| exceeds with probability ``alpha``.

    For one arm Student's t. Between the t of one arm and Bonferroni's of all.
    """
    low, high = (float(-stdtrit(df, alpha / 2 / number)) for number in (1, arms))
    if arms == 1 or high - low < 1e-9:
        return low
    return float(brentq(lambda x: outside(x, arms, df) - alpha, 0.999 * low, 1.001 * high,
                        xtol=1e-9))


@lru_cache(maxsize=1024)
def _nodes(df: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Nodes and weights of z and of u."""
    z = np.linspace(-8.5, 8.5, STEPS)
    of_z = np.exp(-z * z / 2)
    low = max(-NEGLIGIBLE / df - min(0.5, (NEGLIGIBLE / df) ** 0.5), SMALLEST_LOG_U)
    high = float(np.log1p(2 * NEGLIGIBLE / df + 4 * (NEGLIGIBLE / df) ** 0.5) / 2)
    count = int(np.ceil((high - low) * PER_WIDTH * (2 * df) ** 0.5)) + 1
    log_u = np.linspace(low, high, count)
    of_u = np.exp(df * (log_u - np.expm1(2 * log_u) / 2))
    return z, of_z / of_z.sum(), np.exp(log_u), of_u / of_u.sum()
