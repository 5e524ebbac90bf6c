"""What has not been measured, beside what a dataset is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nnunet_ssl.recommendation.evidence import Measured
from nnunet_ssl.recommendation.facts import Facts

FEW = "2 or 3 labelled scans or patients"  # in measured.csv
ENOUGH, NO_BETTER = 9, 34  # labelled cases of the hippocampus with which nnU-Net was equally good
RARE = 0.01  # share of the foreground below which a class counts as rare
FOR_RARE = ("nnUNetTrainerSKCDF", "nnUNetTrainerDHC", "nnUNetTrainerCPS")


def headroom_command(facts: Facts) -> str:
    """What measures whether more labels, and so images without labels, can help."""
    device = " -device cpu" if facts.gpu is None else ""
    return f"nnunet_ssl headroom -d {facts.number} -c {facts.configuration}{device}"


def open_questions(facts: Facts, measured: Sequence[Measured]) -> Iterator[str]:
    """What the figures behind a recommendation do not tell about a dataset, and what would.

    Args:
        facts: of the dataset.
        measured: what there is.
    """
    yield "Those are small networks and short training runs; at nnU-Net's full length nothing has been compared yet."
    whether = f" Whether more labels would help you at all: {headroom_command(facts)}."
    yield (
        f"Measured with {FEW} only; these data have {facts.labeled} labelled cases. On the hippocampus, with {ENOUGH} "
        f"to {NO_BETTER}, Mean Teacher and SKCDF gained nothing (400 steps; no other trainer was among them; "
        f"docs/benchmarks/hippocampus.md).{'' if facts.labeled > ENOUGH else whether} "
        "To compare trainers: nnunet_ssl benchmark."
    )
    yield from _of_classes(facts, measured)
    if facts.gpu is None:
        yield _without_gpu(facts)


def _of_classes(facts: Facts, measured: Sequence[Measured]) -> Iterator[str]:
    """What is not known of so many or so small classes; nothing where such classes were measured."""
    numbers = classes_of(measured)
    rare = facts.rarest is not None and facts.rarest < RARE
    if not rare and facts.classes <= max(numbers.values(), default=0):
        return
    seen = " and ".join(f"{number} ({name})" for name, number in numbers.items())
    line = f"Measured with {seen} foreground classes only, none of them rare; these data have {facts.classes}."
    if rare:
        made = [name for name in FOR_RARE if name not in facts.unsupported]
        line += (
            f" The rarest of them has {facts.rarest:.2%} of the labelled foreground. {', '.join(made)} (CPS with its "
            "setting balance) are made for rare classes, and have not been measured on any here."
        )
    yield line


def classes_of(measured: Sequence[Measured]) -> dict[str, int]:
    """Name of a dataset -> number of its foreground classes."""
    return {row.data.partition(",")[0]: row.classes for row in measured}


def _without_gpu(facts: Facts) -> str:
    line = "There is no GPU here, and nnU-Net's full length takes weeks without one."
    if facts.cpu_patch is None:
        return f"{line} The network of these plans is small."
    return (
        f"{line} The commands below make plans with a small network and train it for 2000 steps "
        "(docs/how-to/splits-and-settings.md)."
    )
