"""Knowledge transfer: parameters of one module pull those of another, slowly and in one direction.

Source: SKCDF (Zhang et al., CVPR 2025), Eq. 6 and Table 5.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from nnunet_ssl.training.ema import update_ema

_LABELED_HEAD, _DECODER, _UNLABELED_HEAD = "labeled head", "decoder", "unlabeled head"

TRANSFER_ORDERS: dict[str, tuple[str, ...]] = {
    "D": (_DECODER,),
    "H->D": (_LABELED_HEAD, _DECODER),
    "D->H->H": (_DECODER, _LABELED_HEAD, _UNLABELED_HEAD),
    "H->H->D": (_LABELED_HEAD, _UNLABELED_HEAD, _DECODER),
    "H->D->H": (_LABELED_HEAD, _DECODER, _UNLABELED_HEAD),
}
"""The rows of SKCDF's Table 5 (D: decoder, H: head). Two H in a row, before or after D: the same algorithm."""


class Branch(NamedTuple):
    """One decoder with its heads; ``main_head`` may be part of ``decoder`` as well."""

    decoder: nn.Module
    main_head: nn.Module
    auxiliary_head: nn.Module | None = None


def transfer_knowledge(target: nn.Module, source: nn.Module, decay: float) -> None:
    """target <- decay * target + (1 - decay) * source, for every parameter once, in place; exact where both are equal.

    Source: SKCDF, Eq. 6. The rule of :func:`update_ema`, with a source that is trained on its own. Buffers, gradients
    and the state of an optimiser are left alone. A parameter that both modules share keeps its value.

    Raises:
        ValueError: decay outside [0, 1], or the two modules have different parameters.
    """
    update_ema(target, source, decay)


def knowledge_transfer(
    order: str, labeled: Branch, unlabeled: Branch, decay: float, head_decay: float | None = None
) -> None:
    """The transfers of one iteration, back to back, each seeing the result of the one before.

    A head step moves the main head of a branch towards its auxiliary head; the decoder step moves the whole unlabelled
    branch, body and heads, towards the labelled one. SKCDF's own order is ``"H->D->H"``, at the start of an iteration.

    Args:
        order: a key of ``TRANSFER_ORDERS``. The single head of ``"H->D"`` is that of the labelled branch.
        labeled, unlabeled: branches of equal structure; the decoders must not hold copies of an encoder.
        decay: of the decoder step, 0.99 in SKCDF.
        head_decay: of the head steps; ``None`` means ``decay``, as in SKCDF, and 1 turns them off.

    Raises:
        ValueError: unknown order, a head step without an auxiliary head, or as :func:`transfer_knowledge`.
    """
    if order not in TRANSFER_ORDERS:
        raise ValueError(f"unknown order of transfer {order!r}, must be one of {', '.join(TRANSFER_ORDERS)}")
    for step in TRANSFER_ORDERS[order]:
        if step == _DECODER:
            transfer_knowledge(_all_of(unlabeled), _all_of(labeled), decay)
            continue
        branch = labeled if step == _LABELED_HEAD else unlabeled
        if branch.auxiliary_head is None:
            raise ValueError(f"order {order!r} needs auxiliary heads; without them only 'D' is possible")
        transfer_knowledge(branch.main_head, branch.auxiliary_head, decay if head_decay is None else head_decay)


def _all_of(branch: Branch) -> nn.Module:
    """The branch as one module, whose parameters() holds a head once even where the decoder holds it too."""
    return nn.ModuleList([module for module in branch if module is not None])
