"""Hyper-parameters of SKCDF (Zhang et al., CVPR 2025), with what the paper or its released code says."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.trainers.skcdf.transfer import TRANSFER_ORDERS
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.settings import setting

CLASS_COUNTS = ("patches", "cases")


@dataclass(frozen=True)
class SKCDFHyperparameters(SemiSupervisedHyperparameters):
    unsupervised_weight: float = setting(
        10.0,
        "weight of the unlabelled terms at the end of their ramp",
        symbol=r"\lambda",
        source="10, Sec. 4.2",
        low=0.0,
    )
    rampup_fraction: float = setting(
        1.0,
        "fraction of training over which that weight rises",
        symbol="R",
        source="1, released code; constant, printed",
        low=1e-6,
        high=1.0,
    )
    transfer_decay: float = setting(
        0.99, "decay of knowledge transfer per step", symbol=r"\omega", source="0.99, Eq. 6", low=0.0, high=1.0
    )
    head_transfer_decay: float | None = setting(
        None,
        "decay of the transfer between heads; null: transfer_decay; 1: off",
        source="0.99, Eq. 6",
        low=0.0,
        high=1.0,
    )
    transfer_follows_rate: bool = setting(
        False, "1 - decay falls with the learning rate, so that the final weights are their own", source="no, Eq. 6"
    )
    transfer_order: str = setting(
        "H->D->H",
        "order of the transfers between heads (H) and decoders (D)",
        source="H->D->H, Table 5",
        choices=("none", *TRANSFER_ORDERS),
    )
    decoupling: bool = setting(True, "a decoder of its own for the unlabelled data", source="on, Table 3 (DF)")
    complementarity: bool = setting(True, "cross-attention at the bottleneck", source="on, Table 3 (SKCM)")
    balanced_heads: bool = setting(True, "auxiliary balanced heads", source="on, Table 3 (ABSH)")
    class_counts: str = setting(
        "patches",
        "voxels per class that thin out the balanced heads' classes: of the labelled patches so far (patches), which "
        "are oversampled for foreground, or of the whole labelled cases (cases)",
        symbol="N_c",
        source="cases, Sec. 3.3; recommended",
        choices=CLASS_COUNTS,
    )
    pseudo_label_dropout: bool = setting(
        False, "dropout on the way to the pseudo-labels, too", source="on, released code; recommended"
    )
    inference_decoder: str = setting(
        "unlabeled", "decoder that predicts", source="unlabelled, Table 4", choices=("unlabeled", "labeled")
    )
    auxiliary_dice_offset: bool = setting(
        True,
        "dropped voxels dilute the Dice of the balanced heads; false: delta = 0, a much stronger Dice",
        symbol=r"\delta",
        source="on, released code",
    )
    attention_heads: int = setting(
        2,
        "heads N_h of the attention, which has N_h times the bottleneck's channels",
        symbol="N_h",
        source="2, released code",
        low=1,
    )
    self_heads: str = setting(
        "split",
        "heads within a sample attend one by one (split) or together (merged)",
        source="split, released code",
        choices=("split", "merged"),
    )
    attention_dropout: float = setting(0.1, "dropout in the attention", source="0.1, released code", low=0.0, high=0.9)
    token_map: str = setting(
        "identity",
        "first values of the maps from voxels to tokens",
        source="xavier in the released code; recommended",
        choices=("identity", "xavier"),
    )
    context_samples: int | None = setting(
        2,
        "samples of the other stream in the attention, drawn anew in each step; null: all",
        source="2, released batch",
        low=1,
    )
    channel_dropout: float = setting(
        0.0,
        "dropout of whole channels at the bottleneck and before the heads",
        source="0.5 in the released V-Net; recommended",
        low=0.0,
        high=0.9,
    )

    @property
    def order_in_force(self) -> str | None:
        """The transfers that the switched-on parts leave; None for none."""
        if self.transfer_order == "none" or not (self.decoupling or self.balanced_heads):
            return None
        if not self.balanced_heads:
            return "D"
        if not self.decoupling:  # one decoder: its auxiliary head to its main head, and nothing else
            return "H->D" if "H" in self.transfer_order else None
        return self.transfer_order
