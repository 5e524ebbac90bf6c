"""The notebooks of docs/tutorials, executed: the shortest by `make test`, the others by `make test-pages`.

With `-m '' --record` their outputs are stored.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import FORK_POOLS
from tests.integration.readme import INDENTED, OURS, within_sentences

nbformat = pytest.importorskip("nbformat", reason="notebooks are executed with the extra [dev]")
nbclient = pytest.importorskip("nbclient", reason="notebooks are executed with the extra [dev]")
pytest.importorskip("ipykernel", reason="notebooks are executed with the extra [dev]")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
HOME = "/home/me/tutorial"  # stands in stored outputs for the folder in which a notebook was executed
CLONE = "/home/me/nnunet_ssl"  # and for that of the package
INSTALL = "from tests.docs.tutorial_kernel import install\ninstall(get_ipython())"
SECONDS = 300  # for one cell
SHORT = "unlabeled-folder"
SHOWN = {  # what a reader is told to look for
    "first-model": [
        "imagesUn: demo_003_0000.nii.gz",
        r"Done\.|preprocess",
        r"labelled cases|pseudo",
        "Training done",
        "Dice",
        r"With 1 and 2 labelled cases the Dice is \d",
        "Take nnUNetTrainerFixMatch",
        "nnUNetPlans_small__unlabeled|without labels",
    ],
    "unlabeled-folder": [
        "2024-05-01.png",
        "2024-05-08",
        r"7/7",
        r"Unlabelled pool: 7 cases, 0 of them withheld",
        "Training done",
    ],
    "compare": ["n2", r"2 jobs: 2 complete\.", r"Supervised \(control\)", "FixMatch"],
}


def executed(name: str, folder: Path) -> Any:
    """The notebook with new outputs."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL))
    variables = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(map(str, [FORK_POOLS, ROOT])),
        "nnUNet_n_proc_DA": "1",  # with 0 nnU-Net cannot plan
        "OMP_NUM_THREADS": "1",
        "nnUNet_compile": "f",
    }
    clean = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    client = nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(folder)}})
    client.execute(env=clean | variables)
    del notebook.cells[0]
    return notebook


def text(notebook: Any) -> str:
    """All that its cells have printed and shown as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(
        output.get("text")
        or output.get("data", {}).get("text/markdown")
        or output.get("data", {}).get("text/plain", "")
        for output in outputs
    )


def kinds(notebook: Any) -> list[set[str]]:
    """For each cell, what its outputs are."""
    return [
        {kind for output in cell.get("outputs", []) for kind in output.get("data", {output["output_type"]: ""})}
        for cell in notebook.cells
    ]


def test_every_tutorial_is_executed():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == SHORT else pytest.mark.pages) for name in SHOWN]
)
def test_as_it_stands(name: str, tmp_path: Path, record: bool):
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook = executed(name, tmp_path)
    for wanted in SHOWN[name]:
        assert re.search(wanted, text(notebook)), f"{wanted}\n{text(notebook)[-4000:]}"
    if record:
        plain = nbformat.writes(notebook).replace(str(tmp_path), HOME).replace(str(ROOT), CLONE)
        (FOLDER / f"{name}.ipynb").write_text(plain + "\n", encoding="utf-8")
        return
    assert kinds(notebook) == kinds(stored), "record the outputs again: --record"


@pytest.mark.parametrize("name", SHOWN)
def test_every_command_of_the_text_is_run(name: str):
    """In a cell of the notebook, of which a sentence may name the beginning; or by a test of its own."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    run = [line[1:].split() for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    named = {command for text in texts for command in within_sentences(text)} - OURS.keys()
    assert [
        command for command in named if not any(line[: len(command.split())] == command.split() for line in run)
    ] == []
    blocks = [command for text in texts for command in INDENTED.findall(text)]
    assert [command for command in blocks if command.split() not in run] == []


@pytest.mark.parametrize("name", SHOWN)
def test_stored_outputs_name_no_folder_of_a_machine(name: str):
    stored = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert text(stored)
    assert not re.search(r"(?<![\w.])/(?!home/me/)(home|root|tmp|work|opt|usr)/", text(stored))
