"""Cross pseudo supervision: two networks label unlabelled patches for each other.

Source: Chen et al., "Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision" (CVPR 2021); the forms of
SSL4MIS and of the code published with DHC, see docs/methods/cps.md.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.trainers.cps.balance import NAMES, Balance, enter
from nnunet_ssl.trainers.cps.settings import CPSHyperparameters, CrossHyperparameters
from nnunet_ssl.trainers.cutmix_trainer import MixesPatches
from nnunet_ssl.training.base import Terms, nnUNetTrainerSemiSupervised
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.deep_supervision import finest, split_outputs

SECOND = NAMES[1]


class nnUNetTrainerCPS(MixesPatches, nnUNetTrainerSemiSupervised):
    """L = L_sup^1 + L_sup^2 + w r(progress) { CE(z_1, argmax z_2) + CE(z_2, argmax z_1) } on the unlabelled patches.

    Two networks of the same plans with weights of their own. With CutMix both learn on mixed patches what the other one
    says of the unmixed ones. No weights are averaged.
    """

    Hyperparameters: ClassVar[type] = CPSHyperparameters
    hyperparameters: CrossHyperparameters
    views: ClassVar[tuple[str, ...]] = ("labeled.image", "unlabeled.weak")
    labeled_view: ClassVar[str] = "image"
    card: ClassVar[MethodCard] = MethodCard(
        paper="Chen et al., CPS, CVPR 2021",
        predicts="first network (option: second)",
        dimensions="2D, 3D",
        extra_memory="a second network",
        extra_time="about 2.3",
    )

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> Terms:
        hp, valid = self.hyperparameters, unlabeled.valid
        networks = (self.network, self.auxiliary[SECOND])
        if hp.cross_weight == 0 and self.balances[0].rule == "none":
            images, pairs = getattr(labeled, self.labeled_view), zip(NAMES, networks, self.balances, strict=True)
            each = ((f"supervised_{n}", self.forward(network, images), own) for n, network, own in pairs)
            return Terms((name, self.supervise(outputs, labeled.target, own)) for name, outputs, own in each)
        weight = self.held(hp.cross_weight * self.ramp(hp.rampup_fraction))
        box = self.cutmix.draw(unlabeled.weak)
        images = torch.cat([getattr(labeled, self.labeled_view), self.cutmix.paste(unlabeled.weak, box)])
        both = [split_outputs(self.forward(network, images), len(labeled)) for network in networks]
        on_labeled, other = ([finest(outputs) for outputs in stream] for stream in zip(*both, strict=True))
        unmixed = other if box is None else [self.label_with(network, unlabeled.weak) for network in networks]
        self.observe_pseudo_labels(unmixed[0], unmixed[1], valid)
        decided = [self.targets.decide(logits) for logits in unmixed]
        if self.balances[0].rule != "none":
            enter(self, self.balances, labeled.target, valid, decided, on_labeled)
        terms = Terms()
        for name, (outputs, _), balance in zip(NAMES, both, self.balances, strict=True):
            terms[f"supervised_{name}"] = self.supervise(outputs, labeled.target, balance)
        labels = [self.cutmix.paste(label, box) for label in decided]
        valid = self.cutmix.paste(valid, box)
        if hp.cross_on == "all":
            labels = [torch.cat([self.targets.decide(z), y]) for z, y in zip(on_labeled, labels, strict=True)]
            other = [torch.cat(pair) for pair in zip(on_labeled, other, strict=True)]
            valid = torch.cat([valid.new_ones(len(labeled), *valid.shape[1:]), valid])
        for name, logits, label, balance in zip(NAMES, other, reversed(labels), self.balances, strict=True):
            terms.add(f"cross_{name}", self.cross(logits, label, valid, balance), weight)
        return terms

    def supervise(self, outputs: Any, target: Any, balance: Balance) -> Tensor:
        """The supervised term of one network."""
        return self.supervised_loss(outputs, target)

    def cross(self, logits: Tensor, label: Tensor, valid: Tensor, balance: Balance) -> Tensor:
        """Cross-entropy towards the other network's labels, with the weights of the classes."""
        keep = valid
        if balance.rule == "cld":
            keep = balance.keep(self.targets.decide(logits), valid)
            if self.observing:
                self.monitor.kept(label, keep, valid)
        return self.targets.pseudo_supervision("ce", logits, label, keep.expand_as(label), valid, balance.weights())

    @property
    def pulled(self) -> list[nn.Parameter]:
        return [*super().pulled, *self.auxiliary[SECOND].parameters()]

    # ---- construction

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().check_supported(plans, configuration, dataset_json)
        hp: CrossHyperparameters = cls.settings_of(plans).hyperparameters
        hp.check_classes(cls.__name__, PlansManager(plans).get_label_manager(dataset_json))

    def build_auxiliary(self) -> dict[str, nn.Module]:
        self.balances = self.build_balances()
        return {**super().build_auxiliary(), SECOND: self.second_network()}

    def build_balances(self) -> list[Balance]:
        """The weights of the classes of each network."""
        hp: Any = self.hyperparameters
        return [Balance(hp.balance, self) for _ in range(2)]

    def predictor(self) -> nn.Module:
        return self.auxiliary[SECOND] if self.hyperparameters.predict_with == SECOND else self.network

    # ---- checkpoint

    def auxiliary_state(self) -> dict[str, Any]:
        return super().auxiliary_state() | {"balance": [balance.state for balance in self.balances]}

    def load_auxiliary_state(self, state: dict[str, Any]) -> None:
        super().load_auxiliary_state(state)
        for balance, known in zip(self.balances, state["balance"], strict=True):
            balance.load(known)
