"""Contrast between a query and classes that are modelled as Gaussians of their embeddings.

Source: PLGCL (Basak & Yin, CVPR 2023), Eqs. 2-5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import float32_region

COVARIANCES = ("full", "diag", "none")


def gaussian_info_nce(
    queries: Tensor,
    query_classes: Tensor,
    means: Tensor,
    covariances: Tensor,
    usable: Tensor,
    temperature: float = 0.2,
    covariance_weight: float = 4.0,
    negatives: float | Tensor = 1.0,
) -> Tensor:
    """Upper bound of InfoNCE in expectation over Gaussian keys, one value per query.

    Source: PLGCL, Eq. 5. With s_k = f mu_k / tau, q_k = f Sigma_k f and a_k = s_k + lambda / (2 tau^2) q_k, a query f
    of class y has

        L = log(exp(a_y) + zeta sum_{k != y} exp(a_k)) - s_y
          = lambda / (2 tau^2) q_y + log(1 + zeta sum_{k != y} exp(a_k - a_y)),

    which is never below its first term. The sum runs over usable classes. A bound it is for Gaussian keys, lambda >= 1
    and zeta keys per negative class; for keys of unit length it is a surrogate.

    Args:
        queries: (Q, D), of unit length; they alone receive a gradient.
        query_classes: (Q,) int64, y of each query, 0 to K - 1.
        means: (K, D), not normalised.
        covariances: (K, D, D), symmetric and positive semi-definite.
        usable: (K,) bool, classes with statistics worth using; or (Q, K), those that enter the loss of each query.
        temperature: tau.
        covariance_weight: lambda.
        negatives: zeta, the number of keys a negative class stands for; a number or a scalar tensor.

    Returns:
        (Q,) float32 (float64 for float64 queries). Without statistics of its own class, or without a usable negative, a
        query has the value 0, connected to ``queries``; see :func:`has_contrast`.
    """
    with float32_region(queries.device):  # a_k reaches 50, beyond what half precision can exp
        f = queries.to(torch.promote_types(queries.dtype, torch.float32))
        enters = usable.expand(len(f), -1)
        known = enters.any(0) if usable.ndim == 2 else usable
        mu = means.detach().to(f.dtype).where(known[:, None], 0.0)  # whatever stands for an unusable class
        sigma = covariances.detach().to(f.dtype).where(known[:, None, None], 0.0)

        s = f @ mu.T / temperature
        spread = (torch.matmul(f, sigma) * f).sum(-1).T * (covariance_weight / (2 * temperature**2))
        counted = has_contrast(query_classes, usable)
        own = query_classes[:, None]
        others = enters.scatter(1, own, False) | ~counted[:, None]  # no empty sum: its gradient would be NaN
        zeta = negatives.to(f.dtype).log() if isinstance(negatives, Tensor) else math.log(negatives)
        rest = (s + spread).masked_fill(~others, -math.inf).logsumexp(1) + zeta
        own_s, own_spread = (x.gather(1, own)[:, 0] for x in (s, spread))
        difference = rest - own_s - own_spread
        loss = own_spread + torch.logaddexp(torch.zeros_like(difference), difference)
        return torch.where(counted, loss, f.sum(1) * 0.0)


def has_contrast(query_classes: Tensor, usable: Tensor) -> Tensor:
    """(Q,) bool: the query's class is usable, and so is another one. Arguments as in :func:`gaussian_info_nce`."""
    enters = usable.expand(len(query_classes), -1)
    own = enters.gather(1, query_classes[:, None])[:, 0]
    return own & (enters.sum(1) > 1)


def gaussian_statistics(keys: Tensor, valid: Tensor, covariance: str = "full") -> tuple[Tensor, Tensor]:
    """Means and covariances of the valid keys of each class, divided by their number N and not by N - 1.

    Source: PLGCL, statistics of Eq. 5. For keys of unit length trace Sigma = 1 - |mu|^2, and u Sigma u is the variance
    of the keys projected on u.

    Args:
        keys: (K, N, D) float32 or float64.
        valid: (K, N) bool.
        covariance: "full", "diag" (the diagonal alone, which depends on the axes) or "none" (zeros).

    Returns:
        (K, D) and (K, D, D), zero for a class without a valid key.

    Raises:
        ValueError: unknown ``covariance``.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}, got {covariance!r}")
    with float32_region(keys.device):
        weight = valid.to(keys.dtype)[..., None]
        number = weight.sum(1).clamp(min=1.0)
        means = (keys * weight).sum(1) / number
        if covariance == "none":
            return means, keys.new_zeros(*means.shape, means.shape[1])
        centered = (keys - means[:, None]) * weight
        if covariance == "diag":
            return means, torch.diag_embed(centered.square().sum(1) / number)
        return means, centered.transpose(1, 2) @ centered / number[..., None]


def binary_entropy(x: Tensor) -> Tensor:
    """F(x) = -x log x - (1 - x) log(1 - x), natural logarithm, F(0) = F(1) = 0, at most ln 2.

    Source: PLGCL, Eq. 3. Not for gradients, which are infinite at 0 and 1.

    Args:
        x: any shape, values in [0, 1]; NaN outside.

    Returns:
        float32 (float64 for float64), since F(0.9999) is 0 in half precision.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return -torch.xlogy(x, x) - torch.xlogy(1 - x, 1 - x)


def mean_cosine(means: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """(mean cosine between the means of different usable classes, number of such pairs).

    1 for collapsed classes, around 0 or below for separate ones. 0 where there is no pair.
    """
    direction = F.normalize(means, dim=1)
    pairs = (usable[:, None] & usable).triu(1)
    cosine = torch.where(pairs, direction @ direction.T, 0.0)
    return cosine.sum() / pairs.sum().clamp(min=1), pairs.sum()
