"""One image without label through nnU-Net's preprocessor. Runs on the worker processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.image_files import spacing_file
from nnunet_ssl.data.quiet import Captured, captured_output, describe_failure
from nnunet_ssl.data.unlabeled_store import FOLDER, RECORD, publish
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.system.hashes import hash_of

CONFIGURATION_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
# nnU-Net's own schemes that look at the image alone; any other may use the foreground intensities of the plans
SELF_CONTAINED = {"ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"}
# the second name is that of older nnU-Nets, which this one still reads
INTENSITIES = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")


@dataclass(frozen=True)
class Recipe:
    """How to preprocess for one data identifier.

    Attributes:
        plans: content of the plans file.
        configurations: those that share the data identifier; the first one is used.
        data_identifier: name of the labelled cases' preprocessed folder.
        dataset_json: of the labelled cases.
        folder: the preprocessed folder of the images without labels.
    """

    plans: dict[str, Any]
    configurations: tuple[str, ...]
    data_identifier: str
    dataset_json: dict[str, Any]
    folder: str


def preprocessing_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """What preprocessing takes from the plans: reader, axes, spacing, resampling, normalisation and its statistics.

    Patch, batch and network are not among them, nor the intensities of channels whose normalisation uses none.
    """
    resolved = PlansManager(dict(plans)).get_configuration(configuration).configuration
    intensities: Mapping[str, Any] = next((plans[key] for key in INTENSITIES if key in plans), {})
    schemes = enumerate(resolved.get("normalization_schemes", []))
    used = [str(channel) for channel, scheme in schemes if scheme not in SELF_CONTAINED]
    return {
        **{key: resolved.get(key) for key in CONFIGURATION_KEYS},
        "image_reader_writer": plans.get("image_reader_writer"),
        "transpose_forward": plans.get("transpose_forward"),
        INTENSITIES[0]: {channel: intensities.get(channel) for channel in used},
    }


def settings_hash(plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]) -> str:
    """sha256 of everything in plans and dataset.json that changes a preprocessed image without label."""
    locations = empty_class_locations(PlansManager(dict(plans)), dataset_json)
    content = {**preprocessing_settings(plans, configuration), "class_locations": [list(key) for key in locations]}
    return hash_of(content)


def empty_class_locations(manager: PlansManager, dataset_json: Mapping[str, Any]) -> dict[tuple[int, ...], list[Any]]:
    """``properties["class_locations"]`` of a case without label, with which nnU-Net's loader crops at random.

    With an ignore label the loader asks for the annotated voxels under one key, of which there are none.
    """
    labels = manager.get_label_manager(dict(dataset_json))
    return {(-1, *map(int, labels.all_labels)): []} if labels.has_ignore_label else {}


def source_record(files: Sequence[str], settings: str) -> dict[str, Any]:
    """What a case is made from, as stored in its properties. A changed file or setting gives another record.

    A TIFF may have its spacing in a .json file beside it, which counts as a source.
    """
    sidecar = spacing_file(files[0])
    with_sidecar = files[0].lower().endswith((".tif", ".tiff")) and os.path.isfile(sidecar)
    sources = []
    for file in [*files, *([sidecar] if with_sidecar else [])]:
        try:
            status = os.stat(file)
        except OSError:  # a broken link: no case was ever made from it, and reading it will say why
            sources.append({"name": os.path.basename(file), "size": -1, "mtime_ns": -1})
        else:
            sources.append({"name": os.path.basename(file), "size": status.st_size, "mtime_ns": status.st_mtime_ns})
    return {"sources": sources, "settings": settings, FOLDER: os.path.dirname(os.path.abspath(files[0]))}


def preprocess_case(recipe: Recipe, scratch: str, case: str, files: Sequence[str], record: dict[str, Any]) -> str:
    """Preprocess one case in the scratch folder, then move it to its place.

    Returns:
        what is wrong with the case, or an empty string.

    Raises:
        SystemFailure: no space left and the like, for which no image is to blame.
    """
    own_scratch = os.path.join(scratch, case)
    printed = Captured()
    try:
        os.mkdir(own_scratch)
        with captured_output() as printed:
            _run_preprocessor(recipe, os.path.join(own_scratch, case), files, record)
        publish(case, own_scratch, recipe.folder)
    except Exception as error:
        raise_failure(error, recipe.folder)
        return describe_failure(error, printed.text, place=True)
    finally:
        shutil.rmtree(own_scratch, ignore_errors=True)
    return ""


def _run_preprocessor(recipe: Recipe, output: str, files: Sequence[str], record: dict[str, Any]) -> None:
    manager = PlansManager(recipe.plans)
    configuration = manager.get_configuration(recipe.configurations[0])
    preprocessor = configuration.preprocessor_class(verbose=False)
    run_case = preprocessor.run_case

    def run_case_without_label(*args: Any, **kwargs: Any) -> tuple[Any, Any, dict[str, Any]]:
        data, seg, properties = run_case(*args, **kwargs)
        properties["class_locations"] = empty_class_locations(manager, recipe.dataset_json)
        properties[RECORD] = record
        return data, seg, properties

    # on the instance, so that a preprocessor with its own run_case_save keeps its file format
    preprocessor.run_case = run_case_without_label
    preprocessor.run_case_save(output, list(files), None, manager, configuration, recipe.dataset_json)
