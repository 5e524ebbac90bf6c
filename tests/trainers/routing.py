"""Which term teaches which parts of the networks, and from which stream: what each method promises.

A part is what its parameters' names begin with. A term reaches the parts and streams that stand beside it and no other;
of the frozen networks no parameter may even ask for a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Routes:
    parts: dict[str, tuple[str, ...]]
    terms: dict[str, str]
    frozen: tuple[str, ...] = ()
    streams: bool = True
    """False where batch statistics connect the streams."""
    silent: tuple[str, ...] = field(default=())
    """Terms that have no gradient until something goes wrong."""


def _skcdf_side(side: str) -> dict[str, tuple[str, ...]]:
    start = f"network.decoders.{side}."
    body = tuple(f"{start}unet_decoder.{name}." for name in ("stages", "transpconvs"))
    return {
        f"{side}_decoder": body,
        f"{side}_main": (f"{start}unet_decoder.seg_layers.",),
        f"{side}_auxiliary": (f"{start}seg_layers.auxiliary.",),
    }


WHOLE = Routes({"network": ("network.",)}, {"supervised": "network labeled"})
MEAN_TEACHER = Routes(WHOLE.parts, {**WHOLE.terms, "consistency": "network unlabeled"}, ("teacher",))
FIXMATCH = Routes(WHOLE.parts, {**WHOLE.terms, "strong": "network unlabeled"}, ("teacher",))
UNIMATCH = Routes(WHOLE.parts, {**FIXMATCH.terms, "features": "network unlabeled"}, ("teacher",))
BCP = Routes(
    WHOLE.parts,
    {"supervised": "network labeled unlabeled", "pseudo_label": "network labeled unlabeled"},  # of mixtures
    ("teacher",),
)
ADMT = Routes(WHOLE.parts, {**WHOLE.terms, "pseudo_label": "network unlabeled"}, ("teacher", "second_teacher"))
SKCDF = Routes(
    {
        "encoder": ("network.encoder.",),
        "attention": ("network.complementarity.",),
        **_skcdf_side("labeled"),
        **_skcdf_side("unlabeled"),
    },
    {
        "supervised": "encoder attention labeled_decoder labeled_main labeled",
        "supervised_balanced": "encoder attention labeled_decoder labeled_auxiliary labeled",
        "unsupervised": "encoder attention unlabeled_decoder unlabeled_main unlabeled",
        "unsupervised_balanced": "encoder attention unlabeled_decoder unlabeled_auxiliary unlabeled",
    },
)
PLGCL = Routes(
    {
        "embedded": ("network.encoder.stages.0.", "network.encoder.stages.1."),
        "bottleneck": ("network.encoder.stages.2.",),
        "decoder": ("network.decoder.",),
        "head": ("head.",),
    },
    {
        "supervised": "embedded bottleneck decoder labeled",
        "consistency": "embedded bottleneck decoder unlabeled",
        "contrast": "embedded head",
    },
    ("teacher", "teacher_head", "memory"),
)
DUAL_NETWORKS = Routes(
    {
        f"{who}{name}": tuple(f"network.{who}.{p}" for p in parts)
        for who in ("student", "teacher")
        for name, parts in {"": ("encoder.", "decoder.stages."), "_output": ("decoder.seg_layers.",)}.items()
    },
    {
        "supervised_student": "student student_output labeled",
        "supervised_teacher": "teacher teacher_output labeled",
        "disagreement_student": "student student_output labeled",
        "disagreement_teacher": "teacher teacher_output labeled",
        "consistency": "student student_output teacher teacher_output labeled unlabeled",
        "uncertainty": "student student_output labeled unlabeled",
        "pseudo_label_student": "student student_output unlabeled",
        "pseudo_label_teacher": "teacher teacher_output unlabeled",
        "contrast": "student unlabeled",
    },
)
DKUXNET = Routes(
    {
        "pixels": ("network.encoder.",),
        "layers": ("network.kmax_layers.",),
        "responses": ("network.predictor.",),
        "classes": ("network.class_head.",),
    },
    {
        "supervised": "pixels layers responses classes labeled",
        "query_distribution": "pixels layers responses labeled",
        "assignment": "pixels layers labeled",
        "segmentation_contrast": "pixels layers responses classes labeled unlabeled",
        "query_contrast": "pixels layers responses labeled unlabeled",
    },
)
LDC_PARTS = {
    "network": ("network.encoder.", "network.stages."),
    "output": ("network.decoder.seg_layers.",),
    "distance": ("distance_head.",),
    "projection": ("projection.",),
}
LDC = Routes(
    LDC_PARTS,
    {
        "constrained": "network output labeled",
        "constrained_unlabeled": "network output unlabeled",
        "squared_error": "network output labeled",
        "distance": "network distance labeled",
        "contrast": "network distance projection labeled unlabeled",
    },
    ("teacher", "teacher_distance_head", "teacher_projection"),
    silent=("norm",),
)
LDC_RELEASED = Routes(
    {part: LDC_PARTS[part] for part in ("network", "output")},
    {"constrained": "network output labeled", "contrast": "network output labeled"},
)
CPS = Routes(
    {"network": ("network.",), "second": ("second.",)},
    {
        "supervised_first": "network labeled",
        "supervised_second": "second labeled",
        "cross_first": "network unlabeled",
        "cross_second": "second unlabeled",
    },
)
DHC = Routes(
    CPS.parts,
    {**CPS.terms, "cross_first": "network labeled unlabeled", "cross_second": "second labeled unlabeled"},
)
MCNET = Routes(
    {
        "encoder": ("network.encoder.",),
        "first": ("network.decoder.",),
        "second": ("second.",),
        "third": ("third.",),
    },
    {
        "supervised": "encoder first second third labeled",
        "consistency": "encoder first second third labeled unlabeled",
    },
)
BODY = {"network": ("network.encoder.", "network.decoder.stages."), "output": ("network.decoder.seg_layers.",)}
DTC = Routes(
    {**BODY, "distance": ("distance_head.",)},
    {
        "supervised": "network output labeled",
        "distance": "network distance labeled",
        "consistency": "network output distance labeled unlabeled",
    },
)
SSNET = Routes(
    {**BODY, "heads": ("heads.",)},
    {
        "supervised": "network output labeled",
        "smoothness": "network output labeled unlabeled",
        "separation": "network heads labeled unlabeled",
    },
    ("memory",),
)
ROUTES = {
    "nnUNetTrainerSupervised": WHOLE,
    "nnUNetTrainerPublishedSupervised": WHOLE,
    "nnUNetTrainerUXNet": WHOLE,
    "nnUNetTrainerCMAformerSupervised": WHOLE,
    "nnUNetTrainerMeanTeacher": MEAN_TEACHER,
    "nnUNetTrainerUAMT": MEAN_TEACHER,
    "nnUNetTrainerURPC": Routes(WHOLE.parts, MEAN_TEACHER.terms),
    "nnUNetTrainerFixMatch": FIXMATCH,
    "nnUNetTrainerFixMatch_paper": Routes(FIXMATCH.parts, FIXMATCH.terms),
    "nnUNetTrainerUniMatch": UNIMATCH,
    "nnUNetTrainerUniMatch_paper": Routes(UNIMATCH.parts, UNIMATCH.terms),
    "nnUNetTrainerBCP": BCP,
    "nnUNetTrainerBCP_paper": BCP,
    "nnUNetTrainerADMT": ADMT,
    "nnUNetTrainerADMT_paper": ADMT,
    "nnUNetTrainerCPS": CPS,
    "nnUNetTrainerCPS_released": CPS,
    "nnUNetTrainerDHC": DHC,
    "nnUNetTrainerMCNet": MCNET,
    "nnUNetTrainerDTC": DTC,
    "nnUNetTrainerSSNet": SSNET,
    "nnUNetTrainerSKCDF": SKCDF,
    "nnUNetTrainerSKCDF_paper": SKCDF,
    "nnUNetTrainerPLGCL": PLGCL,
    "nnUNetTrainerPLGCL_paper": PLGCL,
    "nnUNetTrainerDualNetworks": DUAL_NETWORKS,
    "nnUNetTrainerDualNetworks_released": DUAL_NETWORKS,
    "nnUNetTrainerDKUXNet": DKUXNET,
    "nnUNetTrainerDKUXNet_paper": Routes(DKUXNET.parts, DKUXNET.terms, streams=False),
    "nnUNetTrainerDKUXNetSupervised": DKUXNET,
    "nnUNetTrainerLDC": LDC,
    "nnUNetTrainerLDC_released": LDC_RELEASED,
    "nnUNetTrainerCMAformer": LDC,
    "nnUNetTrainerCMAformer_paper": LDC,
}
