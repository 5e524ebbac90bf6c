"""Helpers for networks that torch.compile or DDP may have wrapped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pydoc import locate
from typing import Any, cast

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.errors import complain

GRADIENT_NORM = 12.0  # nnU-Net's limit


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a DDP and/or torch.compile wrapper, or the module itself."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    return module._orig_mod if isinstance(module, OptimizedModule) else module


class _Conv3dOfTwoSlices(nn.Conv3d):
    """In bfloat16 on a CPU, PyTorch 2.14 computes wrong gradients, often NaN, of a 3 x 3 x 3 kernel on two slices."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[2] != 2:
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())


def for_bfloat16_on_cpu(module: nn.Module) -> nn.Module:
    """The module with the weights of its convolutions as oneDNN computes fastest: channels beside one another.

    Its feature maps follow. Values, names and shapes stay, so that checkpoints are the same. Convolutions of maps with
    two slices stay in float32.
    """
    kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
    for layer in module.modules():
        if type(layer) is nn.Conv3d:
            layer.__class__ = _Conv3dOfTwoSlices
    for parameter in module.parameters():
        if parameter.ndim in kinds:
            parameter.data = parameter.data.contiguous(memory_format=kinds[parameter.ndim])
    return module


def check_network_and_stage(trainer: str, plans: dict[str, Any], configuration: str, plain_logits: bool) -> None:
    """What semi-supervised trainers do not support.

    Args:
        trainer: its name.
        plans, configuration: of nnU-Net.
        plain_logits: the trainer needs a network that answers with logits alone in training, too.

    Raises:
        NotImplementedError: another network, or a cascade stage.
    """
    chosen = PlansManager(plans).get_configuration(configuration)
    plain = getattr(locate(chosen.network_arch_class_name), "answers_with_logits_alone", True)
    if plain_logits and not plain:
        raise NotImplementedError(
            f"{trainer} does not support {chosen.network_arch_class_name}, which answers with more than a segmentation "
            "in training. Use a trainer made for it, or other plans."
        )
    previous = chosen.previous_stage_name
    if previous is not None:
        raise NotImplementedError(
            f"{trainer} does not support cascade stages ({configuration} needs the predictions of {previous}). "
            "Train 3d_fullres, 3d_lowres or 2d."
        )


UNET_WANTED = "it needs plans with the levels of a U-Net (PlainConvUNet, ResidualEncoderUNet)."


def check_unet(trainer: str, plans: dict[str, Any], configuration: str, reason: str = UNET_WANTED) -> None:
    """Refuse plans of a network without the levels of a U-Net.

    Args:
        trainer: its name.
        plans, configuration: of nnU-Net.
        reason: what the levels are needed for, and what to do.

    Raises:
        NotImplementedError: there are none.
    """
    chosen = PlansManager(plans).get_configuration(configuration)
    if "features_per_stage" not in chosen.network_arch_init_kwargs:
        raise NotImplementedError(f"{trainer} does not support {chosen.network_arch_class_name}: {reason}")


@contextmanager
def tried_on_plans(trainer: str, configuration: str) -> Iterator[None]:
    """Networks built inside hold no memory; plans that they do not fit become an error for people.

    Raises:
        SemiSupervisedError: instead of ValueError and TypeError.
    """
    try:
        with torch.device("meta"):
            yield
    except (ValueError, TypeError) as error:
        raise complain(f"{trainer} cannot train {configuration} of these plans: {error}.") from error


@torch.no_grad()
def swap_weights(first: nn.Module, second: nn.Module) -> None:
    """Exchange parameters and buffers (batch norm statistics) of two networks of one architecture, without a copy."""
    first, second = unwrap(first), unwrap(second)
    pairs = zip([*first.parameters(), *first.buffers()], [*second.parameters(), *second.buffers()], strict=True)
    for a, b in pairs:
        a.data, b.data = b.data, a.data


@contextmanager
def in_place_of(network: nn.Module, predictor: nn.Module) -> Iterator[None]:
    """``network`` holds the weights of ``predictor``, and the other way round, inside; afterwards its own again."""
    if predictor is network:
        yield
        return
    swap_weights(network, predictor)
    try:
        yield
    finally:
        swap_weights(network, predictor)


def wrap(module: nn.Module, compiled: bool, is_ddp: bool, device: torch.device) -> nn.Module:
    """A module on its device behind the wrappers that nnU-Net puts around a network; DDP only where it is trained."""
    if compiled:
        module = cast(nn.Module, torch.compile(module))
    if is_ddp and any(p.requires_grad for p in module.parameters()):
        module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        module = DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
    return module


def optimize(
    total: Tensor, optimizer: torch.optim.Optimizer, scaler: Any, clipped: Callable[[], list[list[nn.Parameter]]]
) -> None:
    """Backward pass, clipping of each group of parameters on its own to a norm of 12, and the optimiser's step.

    Args:
        total: scalar.
        optimizer: whose gradients are zero.
        scaler: of mixed precision, or ``None``.
        clipped: gives the groups of parameters; in none, a gradient keeps its norm.
    """
    (scaler.scale(total) if scaler else total).backward()
    if scaler:
        scaler.unscale_(optimizer)
    for group in clipped():
        trainable = [p for p in group if p.requires_grad]
        if trainable:
            nn.utils.clip_grad_norm_(trainable, GRADIENT_NORM)
    if scaler:
        scaler.step(optimizer)
        scaler.update()
    else:
        optimizer.step()


def freeze_unused_heads(network: nn.Module) -> None:
    """Without deep supervision, the segmentation layers below the last one get no gradient, which DDP refuses.

    nnU-Net's decoders have those layers all the same, so that weights fit with and without deep supervision.
    """
    for module in unwrap(network).modules():
        layers = getattr(module, "seg_layers", None)
        if isinstance(layers, nn.ModuleList) and getattr(module, "deep_supervision", None) is False:
            layers[:-1].requires_grad_(False)
