"""Are images without labels fit for preprocessing? Every case is really read; all bad cases are reported at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.file_damage import find_damage
from nnunet_ssl.data.image_files import file_problem, spacing_file, spacing_file_problem
from nnunet_ssl.data.quiet import Captured, captured_output, describe_failure, one_line
from nnunet_ssl.data.workers import Workers
from nnunet_ssl.errors import complain
from nnunet_ssl.system.failures import raise_failure

NATURAL_IMAGES = "NaturalImage2DIO"  # nnU-Net's reader of PNG, BMP and TIFF; all channels in one file


@dataclass(frozen=True)
class Needs:
    """What the plans ask of an image.

    Attributes:
        reader: name of nnU-Net's reader/writer class.
        channels: names of the input channels.
        file_ending: of the dataset, with the dot.
        slice_axis: axis of the image as read that may have a single voxel (2D configurations only), or None.
        transpose: nnU-Net's transpose_forward.
        spacings: configuration -> target spacing in mm, transposed; two entries for 2D.
    """

    reader: str
    channels: tuple[str, ...]
    file_ending: str
    slice_axis: int | None
    transpose: tuple[int, ...]
    spacings: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class CaseReport:
    """What reading one case showed.

    Attributes:
        case: case id.
        problems: why it cannot be used, one line each.
        remarks: what a person may want to know.
        shape: voxels per axis after cropping to nonzero, as read; None where there are problems.
        spacing: mm per axis, as read.
    """

    case: str
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None


def needs_of(plans: Mapping[str, Any], configurations: Sequence[str], dataset_json: Mapping[str, Any]) -> Needs:
    """What these configurations of a plans file ask of an image."""
    manager = PlansManager(dict(plans))
    spacings = {name: tuple(manager.get_configuration(name).spacing) for name in configurations}
    only_2d = all(len(spacing) == 2 for spacing in spacings.values())
    channels = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    return Needs(
        reader=plans["image_reader_writer"],
        channels=tuple(map(str, channels.values())),
        file_ending=dataset_json["file_ending"],
        slice_axis=manager.transpose_forward[0] if only_2d else None,
        transpose=tuple(manager.transpose_forward),
        spacings=spacings,
    )


def check_images(
    folder: str,
    cases: Mapping[str, Sequence[str]],
    needs: Needs,
    workers: Workers,
    known_problems: Sequence[str] = (),
) -> list[CaseReport]:
    """Read every case.

    Args:
        folder: where the images are, for the message.
        cases: case id -> files in the order of the channels.
        needs: what the plans ask for.
        workers: the processes that read.
        known_problems: lines about the names of the files, listed first.

    Raises:
        SemiSupervisedError: with every problem of every case.
    """
    tasks = {case: (case, list(files), needs) for case, files in cases.items()}
    reports = list(workers.map(inspect_case, tasks, "Checking images").values()) if tasks else []
    problems = [*known_problems, *(f"{r.case}: {problem}" for r in reports for problem in r.problems)]
    if problems:
        raise complain(
            f"Images in {folder} cannot be used for semi-supervised training; nothing was preprocessed:",
            problems,
            "Correct or remove these files and run the command again.",
        )
    return reports


def inspect_case(case: str, files: Sequence[str], needs: Needs) -> CaseReport:
    """Read one case with the plans' reader and judge it. One bad file does not raise, it must not hide the others.

    Raises:
        SystemFailure: permission denied, a lost network file system and the like, for which no image is to blame.
    """
    try:
        return _inspect(case, files, needs)
    except Exception as error:
        raise_failure(error)
        names = ", ".join(map(os.path.basename, files))
        return CaseReport(case, (f"{names} is damaged: {describe_failure(error)}",))


def _inspect(case: str, files: Sequence[str], needs: Needs) -> CaseReport:
    reader = recursive_find_reader_writer_by_name(needs.reader)()
    unusable = [(file, find_damage(file) or file_problem(file, reader)) for file in files]
    unusable.append((files[0], spacing_file_problem(files[0], reader)))
    if any(problem for _, problem in unusable):
        return CaseReport(case, tuple(f"{os.path.basename(file)} {text}" for file, text in unusable if text))
    printed = Captured()
    try:
        with captured_output() as printed:
            images, properties = reader.read_images(list(files))
    except Exception as error:
        raise_failure(error)
        return CaseReport(case, tuple(_why_unreadable(files, reader, describe_failure(error, printed.text))))
    spacing = tuple(float(s) for s in properties["spacing"])
    problems = [
        *_channel_problems(case, len(files), len(images), needs),
        *_grid_problems(images.shape[1:], spacing, needs),
        *_value_problems(images, files),
    ]
    if problems:
        return CaseReport(case, tuple(problems))
    shape = nonzero_shape(images)
    beside = spacing_file(files[0])
    source = (
        f" (spacing: {os.path.basename(beside)})" if isinstance(reader, Tiff3DIO) and os.path.isfile(beside) else ""
    )
    vanished = [problem + source for problem in _vanishing_axes(shape, spacing, needs)]
    remarks = [one_line(printed.text)] if printed.text.strip() else []
    remarks += [f"channel {c} has the same value everywhere" for c, image in enumerate(images) if np.ptp(image) == 0]
    return CaseReport(case, tuple(vanished), tuple(remarks), shape, spacing)


def _why_unreadable(files: Sequence[str], reader: BaseReaderWriter, reason: str) -> list[str]:
    """Channel by channel: one file may be unreadable, or they do not fit together."""
    problems, grids = [], []
    printed = Captured()
    for file in files:
        try:
            with captured_output() as printed:
                image, properties = reader.read_images([file])
        except Exception as error:
            raise_failure(error)
            text = describe_failure(error, printed.text)
            problems.append(f"{os.path.basename(file)} cannot be read: {text}")
        else:
            grids.append((os.path.basename(file), image.shape[1:], properties["spacing"]))
    if problems:
        return problems
    first = grids[0]
    if any(grid[1] != first[1] or not np.allclose(grid[2], first[2]) for grid in grids):
        found = [f"{name} {_by(shape)} voxels of {_by(spacing)} mm" for name, shape, spacing in grids]
        return [f"the channels differ in shape or spacing: {', '.join(found)}"]
    return [f"cannot be read: {reason}"]


def _channel_problems(case: str, files: int, channels: int, needs: Needs) -> list[str]:
    wanted = len(needs.channels)
    if channels == wanted:
        return []
    text = f"wrong number of channels: {channels} in {files} file(s), needed {wanted} ({', '.join(needs.channels)})"
    if files == channels < wanted:
        missing = [f"{case}_{index:04d}{needs.file_ending}" for index in range(files, wanted)]
        # channels of natural images are in one file as a rule; a grey image among coloured ones has a single one
        colour = f"save it with {wanted} channels as the others, or, one file per channel: "
        text += f"; {colour if needs.reader == NATURAL_IMAGES else ''}missing {', '.join(missing)}"
    return [text]


def _grid_problems(shape: tuple[int, ...], spacing: tuple[float, ...], needs: Needs) -> list[str]:
    problems = []
    if any(length < 2 for axis, length in enumerate(shape) if axis != needs.slice_axis):
        problems.append(f"fewer than 2 voxels on an axis: {_by(shape)}")
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        problems.append(f"the voxel spacing must be positive, it is {_by(spacing)} mm")
    return problems


def _value_problems(images: np.ndarray, files: Sequence[str]) -> list[str]:
    problems = []
    for channel, image in enumerate(images):
        count = image.size - int(np.count_nonzero(np.isfinite(image)))
        if count:
            name = os.path.basename(files[channel]) if len(files) == len(images) else f"channel {channel}"
            problems.append(f"{name} has {count} NaN or infinite voxels")
    return problems


def nonzero_shape(images: np.ndarray) -> tuple[int, ...]:
    """Shape of the box around everything nonzero in (C, *S), to which nnU-Net crops; all of it where all is zero."""
    nonzero = (images != 0).any(axis=0)
    shape = []
    for axis in range(nonzero.ndim):
        occupied = np.flatnonzero(nonzero.any(axis=tuple(a for a in range(nonzero.ndim) if a != axis)))
        shape.append(int(occupied[-1] - occupied[0] + 1) if len(occupied) else nonzero.shape[axis])
    return tuple(shape)


def _vanishing_axes(shape: tuple[int, ...], spacing: tuple[float, ...], needs: Needs) -> list[str]:
    """Configurations whose resampling would leave an axis without voxels."""
    shape, spacing = tuple(shape[a] for a in needs.transpose), tuple(spacing[a] for a in needs.transpose)
    problems = []
    for configuration, target in needs.spacings.items():
        full_target = (spacing[0], *target) if len(target) == 2 else target
        resampled = compute_new_shape(shape, spacing, full_target)
        if min(resampled) < 1:
            problems.append(
                f"{_by(shape)} voxels of {_by(spacing)} mm become {_by(resampled)} voxels at the spacing of "
                f"{configuration}, {_by(full_target)} mm"
            )
    return problems


def _by(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
