"""Hyper-parameters of DKUXNet (Wu, Li & Zhang, ISBI 2024), with what the paper or the released network says."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.architectures.dkuxnet import CLASS_HEADS, NORMS
from nnunet_ssl.training.base import SemiSupervisedHyperparameters
from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import WatchedHyperparameters

NETWORK_OPTIONS = (
    "queries", "query_width", "kmax_levels", "layers_per_level", "response_scale", "class_head", "norms", "mask_stride",
    "recompute",
)  # fmt: skip


@dataclass(frozen=True)
class DKUXNetSupervisedHyperparameters(WatchedHyperparameters):
    queries: int = setting(
        32, "queries N, the cluster centres", symbol="N", source="128, released code; recommended, for memory", low=2
    )
    groups: int | None = setting(
        None,
        "query groups G; null: one per class, at most 3; 2 with regions",
        symbol="G",
        source="3, released code",
        low=2,
    )
    group_sizes: list[int] | None = setting(  # noqa: RUF009 - a field, as the others
        None,
        "queries per group, background first; null: half, then an eighth and the rest of three, else equal parts",
        source="16, 4, 108 in the released code; recommended",
    )
    query_width: int = setting(
        256,
        "channels of a query; keys have half of it, the feed-forward network eight times",
        source="256, released code",
        low=16,
    )
    pixel_width: int = setting(
        64, "first width of the voxels' last embedding", source="256, released code; recommended, for memory", low=1
    )
    mask_width: int = setting(32, "its second width", source="128, released code; recommended, for memory", low=1)
    kmax_levels: list[int] | None = setting(  # noqa: RUF009
        None,
        "decoder levels that update the centres, 0 being full resolution, "
        "S - 1 the bottleneck; null: those of stride 8 and 4, or the nearest, never 0",
        source="strides 8 and 4, released code",
    )
    layers_per_level: int = setting(2, "k-means layers on each of them", source="2, released code", low=1)
    response_scale: float = setting(
        1.0, "initial scale of the responses", source="0.1, released code, which starts slowly; recommended", low=0.0
    )
    class_head: str = setting(
        "shared",
        "one network for each query (shared), or one for all together (flat)",
        source="shared, Sec. 2.2.3; flat, released code",
        choices=CLASS_HEADS,
    )
    norms: str = setting(
        "independent",
        "independent: layer norm for queries, the plans' norm for maps; batch: batch norm",
        source="batch, released code",
        choices=NORMS,
    )
    mask_stride: int = setting(1, "2: responses at half the resolution, upsampled; less memory", choices=(1, 2))
    recompute: bool | None = setting(
        None,
        "half of the memory for a few percent more operations: what lies between convolutions is computed again in the "
        "backward pass; null: on a GPU alone",
    )
    query_loss_weight: float = setting(
        1.0,
        "lambda_qd, weight of the query distribution",
        symbol=r"\lambda_{qd}",
        source="0.1 of a sum over voxels, released code; recommended",
        low=0.0,
    )
    assignment_weight: float = setting(
        1.0,
        "lambda_aux, weight of the k-means layers' assignment",
        symbol=r"\lambda_{aux}",
        source="absent from paper and code; recommended",
        low=0.0,
    )


@dataclass(frozen=True)
class DKUXNetHyperparameters(DKUXNetSupervisedHyperparameters, SemiSupervisedHyperparameters):
    contrast_weight: float = setting(
        0.1,
        "lambda, weight of the contrast at the end of its ramp; 0: labelled cases alone, without a pool",
        symbol=r"\lambda",
        source="no value in Eq. 5; recommended",
        low=0.0,
    )
    temperature: float = setting(
        0.1, "tau of the contrast", symbol=r"\tau", source="no value in Eq. 3; recommended", low=0.01
    )
    warmup_fraction: float = setting(
        0.1, "fraction of training without contrast", source="recommended", low=0.0, high=1.0
    )
    rampup_fraction: float = setting(
        0.3, "fraction over which its weight then rises", source="recommended", low=0.0, high=1.0
    )
    contrast: str = setting(
        "none",
        "none: whole maps without negatives, (1 - s) / tau of the positive pair; sample: InfoNCE, a vector is a whole "
        "map; voxel: one vector per voxel, negatives at the same position, with contrast_channels=all alone",
        source="sample or voxel, Eq. 4; none recommended",
        choices=("sample", "voxel", "none"),
    )
    contrast_channels: str = setting(
        "all",
        "classes and groups that are contrasted",
        source="all, Eq. 4",
        choices=("foreground", "all"),
    )
    segmentation_contrast: bool = setting(True, "contrast of the predictions P", source="on, Eq. 4")
    query_contrast: bool = setting(True, "contrast of the query distributions Q", source="on, Eq. 4")
    detach_weak: bool = setting(False, "only the strong views learn from the contrast", source="both, Fig. 1")

    @property
    def contrasts(self) -> bool:
        """Whether any unlabelled patch ever teaches anything."""
        return self.contrast_weight > 0 and (self.segmentation_contrast or self.query_contrast)
