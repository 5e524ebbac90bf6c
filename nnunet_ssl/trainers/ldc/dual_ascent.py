"""When a trainer's Lagrange multipliers enter the loss, and when they move."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ssl.losses.lagrangian import (
    LagrangeMultipliers,
    add_norm_gradient,
    bound_excess,
    class_volumes,
    relative_volume_error,
    soft_volumes,
    squared_norm,
)
from nnunet_ssl.trainers.ldc.settings import PLAIN, LDCHyperparameters
from nnunet_ssl.training.distributed import sum_over_ranks, voxel_count
from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.targets import Targets
from nnunet_ssl.training.watch import WEIGHT

LABELED, UNLABELED = "labeled", "unlabeled"
"""Parts of the data, with multipliers of their own."""


class DualAscent:
    """Constraints on predicted volumes, on probabilities and on the norm of the weights of one network.

    In a step: :meth:`begin`, :meth:`constrain` for each part of the data, :meth:`norm_term`, the optimiser (which this
    class listens to), :meth:`ascend`. Constraint values are summed over ranks, so that multipliers agree on all.

    Args:
        network: unwrapped; its convolution and linear weights are limited, not its norms and biases.
        optimizer: that steps it. A step that mixed precision skips moves no multiplier.
        targets: the foreground classes.
        settings: rule, steps and limits. C = norm_budget ||W(0)||^2; with 2 the limit is inert until the squared norm
            has doubled. The steps of bounds and norm, their limits and the excess that is allowed of a probability are
            those of :mod:`nnunet_ssl.losses.lagrangian`.
        device: where the constraints are evaluated.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        targets: Targets,
        settings: LDCHyperparameters,
        device: torch.device,
    ) -> None:
        self.multipliers = LagrangeMultipliers(
            len(targets.foreground),
            (LABELED, UNLABELED),
            step=settings.multiplier_step,
            limit=settings.multiplier_limit,
            penalty=settings.penalty,
            device=device,
        )
        self.settings = settings
        self.margin, self.regions = settings.value_margin, targets.has_regions
        self.budget_factor = settings.norm_budget
        self.weights = layer_weights(network)
        self.budget = torch.empty(())
        self.norm_excess = torch.empty(())
        self.values: dict[str, Tensor] = {}
        self.stepped = False
        self.set_budget()
        optimizer.register_step_pre_hook(self._before_step)

    def set_budget(self) -> None:
        """C of the weights as they are now; infinite without a limit."""
        self.budget = (self.budget_factor or math.inf) * squared_norm(self.weights)

    def begin(self) -> None:
        """A new step: nothing is known yet."""
        self.stepped = False
        self.values = {}
        self.norm_excess = squared_norm(self.weights) / self.budget - 1.0

    def constrain(
        self, part: str, logits: Tensor, target: Tensor, mask: Tensor | None, teacher: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(what the constraints of one part add to its loss, the number of voxels that count).

        Args:
            part: of the multipliers.
            logits: (B, K, *P).
            target: classes (B, 1, *P) or regions (B, K, *P).
            mask: (B, 1, *P) bool, where they count; ``None``: everywhere.
            teacher: (B, K, *P), logits behind a target of pseudo-labels.
        """
        predicted, expected = class_volumes(logits, target, mask, regions=self.regions)
        if teacher is not None and self.settings.ascent != PLAIN:
            expected = soft_volumes(teacher, mask, regions=self.regions)
        count = voxel_count(mask, logits)
        term = self.multipliers.volume_term(part, predicted - expected)
        kept = [predicted.detach(), expected]
        if self.margin > 0:
            bounds = bound_excess(logits, self.margin, 1.0 - self.margin, mask=mask, regions=self.regions)
            term = term + self.multipliers.bound_term(part, *bounds)
            kept.append(torch.stack(bounds).detach())
        precise = torch.cat(kept).to(self.multipliers.norm.dtype) * count
        self.values[part] = torch.cat((precise, count.to(precise.dtype).view(1)))
        return term, count

    def norm_term(self) -> tuple[Tensor, Tensor]:
        """(||W||^2 / C - 1, its multiplier), without gradient: that is added just before the optimiser's step."""
        return self.norm_excess, self.multipliers.norm.float()

    def _before_step(self, *_: Any) -> None:
        self.stepped = True
        add_norm_gradient(self.weights, self.multipliers.norm_coefficient(self.norm_excess), self.budget)

    def step_weights(self, ramp: float) -> dict[str, float]:
        """What the step of each part is multiplied by, at this weight r of the unlabelled terms.

        The gradient of the loss with respect to lambda is the volume error times the weight of the part: gamma, or
        gamma gamma_U r. Before the end of the warm-up, where r is 0, errors are those of an untrained network; from
        there on both parts begin as slowly as r does.
        """
        own = self.settings
        if own.ascent == PLAIN:
            return {LABELED: 1.0, UNLABELED: float(own.unlabeled_weight * ramp > 0)}
        labeled = own.constrained_weight * ramp
        return {LABELED: labeled, UNLABELED: labeled * own.unlabeled_weight}

    @torch.no_grad()
    def ascend(self, ramp: float) -> None:
        """One step of projected dual ascent for the volumes and the norm, if the optimiser has taken its own."""
        if not self.stepped:
            return
        for part, weight in self.step_weights(ramp).items():
            if weight > 0 and part in self.values:  # a part without a weight in the loss is not constrained
                predicted, expected, bounds = self._joint(part)
                plain = self.settings.ascent == PLAIN
                error = predicted - expected if plain else relative_volume_error(predicted, expected)
                self.multipliers.ascend_volume(part, error, weight)
                if len(bounds):
                    self.multipliers.ascend_bounds(part, bounds[0], bounds[1])
        self.multipliers.ascend_norm(self.norm_excess)

    def _joint(self, part: str) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted and expected shares and bounds of all ranks together."""
        values = sum_over_ranks(self.values[part])
        means, classes = values[:-1] / values[-1].clamp(min=1), len(self.multipliers.volume[part])
        return means[:classes], means[classes : 2 * classes], means[2 * classes :]

    @torch.no_grad()
    def observe(self, monitor: Monitor) -> None:
        """Put volumes, multipliers and violations of this rank on record."""
        own = self.multipliers
        products = [own.norm * self.norm_excess.abs()]
        for part, values in self.values.items():
            means, classes = values[:-1] / values[-1].clamp(min=1), len(own.volume[part])
            counted = values[-1].clamp(max=1)  # nothing is recorded of a part without a voxel that counts
            predicted, expected, bounds = means[:classes], means[classes : 2 * classes], means[2 * classes :]
            for k in range(classes):
                monitor.add(f"volume_{part}_{k + 1}", predicted[k], counted)
                monitor.add(f"target_volume_{part}_{k + 1}", expected[k], counted)
                monitor.add(f"volume_error_{part}_{k + 1}", predicted[k] - expected[k], counted)
                monitor.add(f"{WEIGHT}volume_{part}_{k + 1}", own.volume[part][k])
            monitor.add(f"violation_volume_{part}", (predicted - expected).abs().max(), counted)
            for name, multiplier, excess in zip(("upper", "lower"), (own.upper, own.lower), bounds, strict=False):
                monitor.add(f"violation_{name}_{part}", excess)
                monitor.add(f"{WEIGHT}{name}_{part}", multiplier[part])
                products.append(multiplier[part] * excess.abs())
        monitor.add("violation_norm", self.norm_excess)
        monitor.add("complementarity", torch.stack(products).max())

    def state(self) -> dict[str, Any]:
        """Plain tensors, for the checkpoint."""
        return {
            "multipliers": {name: value.clone() for name, value in self.multipliers.state_dict().items()},
            "norm_budget": self.budget.clone(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.multipliers.load_state_dict(state["multipliers"])
        self.budget = state["norm_budget"].to(self.budget.device)


def layer_weights(network: nn.Module) -> list[Tensor]:
    """The trained weights, each once, of convolutions and linear layers."""
    convolutions = nn.modules.conv._ConvNd
    found = {id(m.weight): m.weight for m in network.modules() if isinstance(m, (convolutions, nn.Linear))}
    return [weight for weight in found.values() if weight.requires_grad]
