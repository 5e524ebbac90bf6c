"""A cross-entropy and Dice consistency under constraints, and the Lagrange multipliers of these constraints.

Source: Zheng et al., "Lagrange Duality and Compound Multi-Attention Transformer for Semi-Supervised Medical Image
Segmentation" (arXiv:2409.07793), Eqs. 2 and 3. Eq. 3 as printed has no minimiser of interest (its bounds cancel, its
objective is missing, its weight norm has the wrong sign); what stands here is the Lagrangian of the problem that the
text describes. See docs/methods/ldc.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32

PAPER_WEIGHTS = (0.3138137, 0.6861863)  # of two foreground classes, released code; Eq. 2 prints 0.314 and 0.685
SMOOTH = 1e-5  # released code
DICE_FORMS = ("summed", "voxel")
LEAST_VOLUME = 1e-3  # a share of the voxels below which a volume error counts as that of this share; recommended

# ---- the objective, Eq. 2


def dice_cross_entropy_consistency(
    logits: Tensor,
    target: Tensor,
    class_weights: Sequence[float] | Tensor | None = None,
    alpha: float = 0.3,
    mask: Tensor | None = None,
    *,
    regions: bool = False,
    dice_form: str = "summed",
) -> Tensor:
    """alpha H + 1/2 sum_c w_c (1 - D_c) over the foreground classes c.

    Source: Eq. 2, with the logarithm over all classes: with that of the foreground alone, a prediction of foreground
    everywhere is a minimum. With p the softmax, y the one-hot target, N the number of voxels and B that of samples,

        H = -(1 / N) sum y log p,   D_c = (1 / B) sum_b (2 sum_i p_c y_c + 1e-5) / (sum_i p_c + sum_i y_c + 1e-5).

    Args:
        logits: (B, K, *S); receives the gradient.
        target: (B, 1, *S), class indices 0 to K - 1; with regions (B, K, *S), true or 1 inside each. May hold anything
            where the mask is false.
        class_weights: w_c, one per foreground class (with regions per channel). ``None``: for two of them those of the
            paper, the larger for the second; otherwise 1 over their number.
        alpha: 0.3, released code.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.
        regions: channels are overlapping regions: p is the sigmoid, H the mean over channels of the binary
            cross-entropy.
        dice_form: "voxel" has Eq. 2's second term as printed, -(1 / N) sum_i sum_c w_c y_c p_c / (y_c + p_c + 1e-5),
            which weighs a voxel alike in a large and in a small class.

    Returns:
        Scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: a shape, the number of weights or the form of the Dice is wrong.
    """
    logits, counted = _checked(logits, target, mask, regions)
    probability, truth = _foreground(logits, target, counted, regions)
    weights = _weights(class_weights, probability)
    if regions:
        error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1, keepdim=True)
    else:
        label = target.long() if counted is None else torch.where(counted.bool(), target, 0).long()
        error = F.cross_entropy(logits, label[:, 0], reduction="none").unsqueeze(1)
    number = error.numel() if counted is None else counted.sum().clamp(min=1.0)
    cross_entropy = (error if counted is None else error * counted).sum() / number

    if counted is not None:
        probability = probability * counted  # truth is zero there already
    inside = list(range(2, logits.ndim))
    if dice_form == "voxel":
        share = (truth * probability / (truth + probability + SMOOTH)).sum([0, *inside]) / number
        return alpha * cross_entropy - (weights * share).sum()
    if dice_form != "summed":
        raise ValueError(f"dice_form must be one of {', '.join(DICE_FORMS)}, got {dice_form!r}")
    overlap = (probability * truth).sum(inside)
    dice = ((2.0 * overlap + SMOOTH) / (probability.sum(inside) + truth.sum(inside) + SMOOTH)).mean(0)
    return alpha * cross_entropy + 0.5 * (weights * (1.0 - dice)).sum()


def default_class_weights(number: int) -> tuple[float, ...]:
    """w_c of ``number`` foreground classes: those of the paper for two, else uniform."""
    return PAPER_WEIGHTS if number == 2 else (1.0 / number,) * number


def frequency_class_weights(volumes: Sequence[float]) -> tuple[float, ...]:
    """w_c proportional to frequency^(-1/4), their sum 1: at a ratio of 23 in volume this is the paper's ratio of 2.19.

    Recommended for more than two foreground classes of very different size. A class without volume counts as 1.
    """
    raw = [max(volume, 1.0) ** -0.25 for volume in volumes]
    return tuple(weight / sum(raw) for weight in raw)


def brier_score(logits: Tensor, target: Tensor, mask: Tensor | None = None, *, regions: bool = False) -> Tensor:
    """Mean over voxels and all channels of (p - y)^2, p the probabilities.

    Source: the "standard MSE" on labelled data of Eq. 5. The authors' code takes it of logits, which pulls against the
    cross-entropy: both together are minimal at p = 0.42 on background and 0.76 on foreground.

    Args and returns: as :func:`dice_cross_entropy_consistency`.
    """
    logits, counted = _checked(logits, target, mask, regions)
    foreground, truth = _foreground(logits, target, counted, regions)
    error = torch.square(foreground - truth)
    if not regions:  # the background, too
        background = torch.square((foreground - truth).sum(1, keepdim=True))  # both sum to 1 with the background
        error = torch.cat((background, error), 1)
    error = error.mean(1, keepdim=True)
    return error.mean() if counted is None else (error * counted).sum() / counted.sum().clamp(min=1.0)


# ---- the constraints


def class_volumes(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, *, regions: bool = False
) -> tuple[Tensor, Tensor]:
    """(m, s), each (F,): share of the voxels that is predicted as and that belongs to each foreground class.

    Source: the "sum of output values" of Eq. 3, per class. The mean over all channels of a softmax is 1 / K whatever is
    predicted.

    Args: as :func:`dice_cross_entropy_consistency`. The gradient reaches the logits through m; s is a constant.
    """
    logits, counted = _checked(logits, target, mask, regions)
    probability, truth = _foreground(logits, target, counted, regions)
    return _shares(probability, counted), _shares(truth, counted)


@torch.no_grad()
def soft_volumes(logits: Tensor, mask: Tensor | None = None, *, regions: bool = False) -> Tensor:
    """s (F,) of a teacher: the mean of its probabilities of each foreground class over the voxels that count.

    Its hard labels lose what it is not sure of, above all of small classes, of which they may hold nothing.

    Args: as :func:`dice_cross_entropy_consistency`.
    """
    probability = logits.float().sigmoid() if regions else logits.float().softmax(1)[:, 1:]
    return _shares(probability, mask)


def relative_volume_error(predicted: Tensor, expected: Tensor) -> Tensor:
    """(m - s) / max(m, s, 0.001), in [-1, 1]: of a small class as large as of a large one, up as fast as down.

    Args:
        predicted, expected: m and s, (F,).
    """
    return (predicted - expected) / torch.maximum(predicted, expected).clamp(min=LEAST_VOLUME)


def bound_excess(
    logits: Tensor,
    lower: float,
    upper: float,
    tolerance: float = 1e-4,
    mask: Tensor | None = None,
    *,
    regions: bool = False,
) -> tuple[Tensor, Tensor]:
    """(g+, g-): mean of [p - upper]_+ and of [lower - p]_+ over voxels and channels, each minus a tolerance.

    Source: bounds of Eq. 3, aggregated, since multipliers per voxel do not outlive a random patch. That no probability
    is negative, also in Eq. 3, holds by construction and has multiplier zero.

    Args:
        logits: (B, K, *S); receives the gradient.
        lower, upper, tolerance: in probability.
        mask, regions: as in :func:`dice_cross_entropy_consistency`.
    """
    logits = at_least_float32(logits)
    probability = logits.sigmoid() if regions else logits.softmax(1)
    above, below = ((excess.relu()).mean(1, keepdim=True) for excess in (probability - upper, lower - probability))
    if mask is None:
        return above.mean() - tolerance, below.mean() - tolerance
    number = mask.sum().clamp(min=1)
    return (above * mask).sum() / number - tolerance, (below * mask).sum() / number - tolerance


@torch.no_grad()
def squared_norm(weights: Iterable[Tensor]) -> Tensor:
    """||W||^2 over all tensors together, a float32 scalar without gradient."""
    return torch.stack(torch._foreach_norm([w.detach() for w in weights])).float().square().sum()


@torch.no_grad()
def add_norm_gradient(weights: Iterable[Tensor], multiplier: Tensor, budget: Tensor) -> None:
    """grad += 2 eta W / C, the gradient of eta (||W||^2 / C - 1), for every weight that has a gradient, in place."""
    trained = [(w.detach(), w.grad) for w in weights if w.grad is not None]
    if trained:
        own, gradients = ([*tensors] for tensors in zip(*trained, strict=True))
        factor = (2.0 * multiplier / budget).to(own[0].dtype)
        torch._foreach_add_(gradients, torch._foreach_mul(own, factor))


# ---- the multipliers, Eq. 3


def equality_term(multiplier: Tensor, error: Tensor, penalty: float = 0.0) -> Tensor:
    """sum lambda e + (rho / 2) sum e^2 for constraints e = 0; a multiplier is a constant here."""
    term = (multiplier.detach().to(error.dtype) * error).sum()
    return term + 0.5 * penalty * torch.square(error).sum() if penalty > 0 else term


def inequality_term(multiplier: Tensor, excess: Tensor, penalty: float = 0.0) -> Tensor:
    """mu g for a constraint g <= 0; augmented, with rho > 0: (max(0, mu + rho g)^2 - mu^2) / (2 rho)."""
    multiplier = multiplier.detach().to(excess.dtype)
    if penalty <= 0:
        return multiplier * excess
    return (torch.square((multiplier + penalty * excess).relu()) - torch.square(multiplier)) / (2 * penalty)


class LagrangeMultipliers:
    """The multipliers of all constraints, and their projected dual ascent.

    Volumes (a free sign per foreground class) and bounds (not negative) have multipliers of their own for each part of
    the data, the norm of the weights has one. All start at zero and are plain tensors: an optimiser would minimise over
    them. One ascent per optimiser step, with the constraint values of its forward:

        lambda <- clip(lambda + tau w e, -limit, limit),   mu <- clip(mu + tau g, 0, limit),
        with rho > 0:  mu <- clip(mu + rho g, 0, limit).

    with e the volume error m - s, or a relative one, and w the weight that its term has in the loss. Source: Eq. 3 and
    "KKT conditions"; steps of 0.01 are the authors' code, limits are recommended. For labels that are
    right, in the form per voxel, a useful lambda never exceeds alpha + max w / 4: 0.48 with the paper's weights, 0.55
    with a single class.

    Args:
        classes: F, foreground classes.
        parts: names of the parts of the data.
        step, limit: of the volume multipliers lambda; step 0 keeps them as they are.
        bound_step, bound_limit: of mu+ and mu-.
        norm_step, norm_limit: of eta.
        penalty: rho of the augmented Lagrangian, 0 for none.
        device: where the constraints are evaluated.
    """

    def __init__(
        self,
        classes: int,
        parts: Sequence[str] = ("labeled", "unlabeled"),
        *,
        step: float = 0.01,
        limit: float = 0.5,
        bound_step: float = 0.01,
        bound_limit: float = 10.0,
        norm_step: float = 0.01,
        norm_limit: float = 10.0,
        penalty: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.step, self.limit = step, limit
        self.bound_step, self.bound_limit = bound_step, bound_limit
        self.norm_step, self.norm_limit = norm_step, norm_limit
        self.penalty = penalty
        dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64  # which has no float64

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.volume = {part: zeros(classes) for part in parts}
        self.upper = {part: zeros() for part in parts}
        self.lower = {part: zeros() for part in parts}
        self.norm = zeros()

    # the Lagrangian

    def volume_term(self, part: str, error: Tensor) -> Tensor:
        """sum_c lambda_c (m_c - s_c), augmented where there is a penalty; error (F,) = m - s."""
        return equality_term(self.volume[part], error, self.penalty)

    def bound_term(self, part: str, above: Tensor, below: Tensor) -> Tensor:
        """mu+ g+ + mu- g-, see :func:`bound_excess`."""
        upper = inequality_term(self.upper[part], above, self.penalty)
        return upper + inequality_term(self.lower[part], below, self.penalty)

    def norm_coefficient(self, excess: Tensor) -> Tensor:
        """What multiplies the gradient of the norm's excess: eta, with a penalty max(0, eta + rho g)."""
        return (self.norm + self.penalty * excess).clamp(min=0.0)

    # dual ascent

    @torch.no_grad()
    def ascend_volume(self, part: str, error: Tensor, weight: float = 1.0) -> None:
        """lambda_c <- clip(lambda_c + tau w e_c, -limit, limit)."""
        self.volume[part].add_(error.detach(), alpha=self.step * weight).clamp_(-self.limit, self.limit)

    @torch.no_grad()
    def ascend_bounds(self, part: str, above: Tensor, below: Tensor) -> None:
        """mu <- clip(mu + tau g, 0, limit) for both bounds."""
        step = (self.penalty or self.bound_step) if self.bound_step > 0 else 0.0
        for multiplier, excess in ((self.upper[part], above), (self.lower[part], below)):
            multiplier.add_(excess.detach(), alpha=step).clamp_(0.0, self.bound_limit)

    @torch.no_grad()
    def ascend_norm(self, excess: Tensor) -> None:
        """eta <- clip(eta + tau (||W||^2 / C - 1), 0, limit)."""
        step = (self.penalty or self.norm_step) if self.norm_step > 0 else 0.0
        self.norm.add_(excess.detach(), alpha=step).clamp_(0.0, self.norm_limit)

    def reset(self) -> None:
        """All zero again, which the authors' code does in every epoch."""
        for multiplier in self.state_dict().values():
            multiplier.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """The multipliers themselves by name, plain tensors."""
        named = {"volume": self.volume, "upper": self.upper, "lower": self.lower}
        state = {f"{kind}_{part}": tensor for kind, parts in named.items() for part, tensor in parts.items()}
        return {**state, "norm": self.norm}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state_dict`, in place.

        Raises:
            ValueError: other constraints, or another number of classes.
        """
        own = self.state_dict()
        if {name: t.shape for name, t in own.items()} != {name: t.shape for name, t in state.items()}:
            raise ValueError(f"the multipliers are {sorted(own)}, and the state holds {sorted(state)} or other shapes")
        for name, multiplier in own.items():
            multiplier.copy_(state[name])


# ---- shapes


def _checked(logits: Tensor, target: Tensor, mask: Tensor | None, regions: bool) -> tuple[Tensor, Tensor | None]:
    """Logits in at least float32, the mask in their type; ValueError for shapes that do not fit."""
    batch, channels, *space = logits.shape
    for name, tensor, number in (("target", target, channels if regions else 1), ("mask", mask, 1)):
        if tensor is not None and tensor.shape != (batch, number, *space):
            raise ValueError(f"{name} must have the shape {(batch, number, *space)}, got {tuple(tensor.shape)}")
    logits = at_least_float32(logits)
    return logits, None if mask is None else mask.to(logits.dtype)


def _foreground(logits: Tensor, target: Tensor, counted: Tensor | None, regions: bool) -> tuple[Tensor, Tensor]:
    """(probabilities, one-hot truth) of the foreground classes, (B, F, *S) each; the truth is zero outside the mask."""
    if regions:
        probability, truth = logits.sigmoid(), target > 0
    else:
        classes = torch.arange(1, logits.shape[1], device=logits.device).view(1, -1, *[1] * (logits.ndim - 2))
        probability, truth = logits.softmax(1)[:, 1:], target == classes
    if counted is not None:
        truth = truth & counted.bool()
    return probability, truth.to(logits.dtype)


def _shares(volume: Tensor, counted: Tensor | None) -> Tensor:
    """Mean (F,) of (B, F, *S) over the voxels that count, zero outside of which the volume need not be."""
    everywhere = [0, *range(2, volume.ndim)]
    if counted is None:
        return volume.mean(everywhere)
    return (volume * counted).sum(everywhere) / counted.sum().clamp(min=1.0)


def _weights(given: Sequence[float] | Tensor | None, like: Tensor) -> Tensor:
    number = like.shape[1]
    values = default_class_weights(number) if given is None else given
    if len(values) != number:
        raise ValueError(f"{len(values)} class weights for {number} foreground classes")
    return torch.as_tensor(values, dtype=like.dtype, device=like.device)
