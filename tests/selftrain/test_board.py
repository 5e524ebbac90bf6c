"""The live table of rounds."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, read_record
from nnunet_ssl.selftrain.board import RoundsBoard
from nnunet_ssl.selftrain.keys import Keys
from tests.selftrain.fakes import WORDS, Place, run


def shown(board: RoundsBoard) -> list[list[str]]:
    """The cells of each line."""
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(board.table(20))
    return [line.split("  ") for line in console.export_text().splitlines()]


def test_a_row_per_round(place: Place, capsys):
    assert run(place, *WORDS, "--rounds", "1", "--threshold", "0.8") == 0
    settled = place.settled()
    steps = [*Keys(settled).steps.values()]
    board = RoundsBoard(settled, str(place.out), steps, 1)
    for step in steps:
        if step.round == 0 or step.kind in ("predict", "select", "dataset"):
            board.found(step.id)
    record = read_record(str(place.out), "round1__preprocess")
    assert record is not None and record.state == COMPLETE
    board.changed("round1__preprocess", replace(record, state="running"))
    lines = [[cell.strip() for cell in line if cell.strip()] for line in shown(board)]
    assert ["round", "predicted", "kept", "data", "trained", "doing now"] in lines
    assert ["0", "2 of 2"] in lines
    assert ["1", "2 of 2", "3 of 6", "1 of 2", "0 of 1", "preprocess"] in lines
    assert ["control", "0 of 1"] in lines
    board.changed("round1__preprocess", replace(record, state="failed"))
    assert any("preprocess FAILED" in cell for line in shown(board) for cell in line)
