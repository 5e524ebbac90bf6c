"""When a trainer's Lagrange multipliers enter the loss, and when they move."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ssl.losses.lagrangian import LagrangeMultipliers, add_norm_gradient, squared_norm
from nnunet_ssl.training.distributed import sum_over_ranks
from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.watch import WEIGHT


class DualAscent:
    """Constraints on predicted volumes, on probabilities and on the norm of the weights of one network.

    In a step: :meth:`begin`, :meth:`constrain` for each part of the data, :meth:`norm_term`, the optimiser (which this
    class listens to), :meth:`ascend`. Constraint values are summed over ranks, so that multipliers agree on all.

    Args:
        network: unwrapped; its convolution and linear weights are limited, not its norms and biases.
        optimizer: that steps it. A step that mixed precision skips moves no multiplier.
        multipliers: see :class:`LagrangeMultipliers`.
        budget_factor: C = factor ||W(0)||^2; with 2 the limit is inert until the squared norm has doubled.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        multipliers: LagrangeMultipliers,
        budget_factor: float,
    ) -> None:
        self.multipliers, self.budget_factor = multipliers, budget_factor
        self.weights = layer_weights(network)
        self.budget = torch.empty(())
        self.norm_excess = torch.empty(())
        self.values: dict[str, Tensor] = {}
        self.stepped = False
        self.set_budget()
        optimizer.register_step_pre_hook(self._before_step)

    def set_budget(self) -> None:
        """C of the weights as they are now."""
        self.budget = self.budget_factor * squared_norm(self.weights)

    def begin(self) -> None:
        """A new step: nothing is known yet."""
        self.stepped = False
        self.values = {}
        self.norm_excess = squared_norm(self.weights) / self.budget - 1.0

    def constrain(
        self, part: str, volumes: tuple[Tensor, Tensor], count: Tensor, bounds: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """What the constraints of one part add to its loss.

        Args:
            part: of the multipliers.
            volumes: predicted and expected shares (F,).
            count: voxels over which these are means.
            bounds: their excess, or ``None``.
        """
        predicted, expected = volumes
        error = predicted - expected
        term = self.multipliers.volume_term(part, error)
        kept = [predicted.detach(), expected]
        if bounds is not None:
            term = term + self.multipliers.bound_term(part, *bounds)
            kept.append(torch.stack(bounds).detach())
        precise = torch.cat(kept).to(self.multipliers.norm.dtype) * count
        self.values[part] = torch.cat((precise, count.to(precise.dtype).view(1)))
        return term

    def norm_term(self) -> tuple[Tensor, Tensor]:
        """(||W||^2 / C - 1, its multiplier), without gradient: that is added just before the optimiser's step."""
        return self.norm_excess, self.multipliers.norm.float()

    def _before_step(self, *_: Any) -> None:
        self.stepped = True
        add_norm_gradient(self.weights, self.multipliers.norm_coefficient(self.norm_excess), self.budget)

    @torch.no_grad()
    def ascend(self, parts: list[str]) -> None:
        """One step of projected dual ascent for these parts and the norm, if the optimiser has taken its own."""
        if not self.stepped:
            return
        for part in parts:
            predicted, expected, bounds = self._joint(part)
            self.multipliers.ascend_volume(part, predicted - expected)
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
