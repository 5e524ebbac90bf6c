"""docs/settings_tables.py: the tables of docs/methods are those of the dataclasses."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from nnunet_ssl.trainers import TRAINERS, find_trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import settings_tables
from settings_tables import BLOCK, COMMAND, PAGES, outdated, parent_of, table_of, updated

from tests.trainers.registered import PRESETS


def page_of(name: str) -> str:
    """A file, or a room and a file of it."""
    places = TRAINERS[name].removeprefix("nnunet_ssl.trainers.").split(".")
    return (PAGES / f"{'_'.join(p for p in places if p != 'trainer')}.md").read_text(encoding="utf-8")


def names_in(table: str) -> list[str]:
    return [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]


def test_every_table_is_current():
    pages = [path.name for path, _ in outdated(PAGES)]
    assert pages == [], f"run `{COMMAND}` and commit what it writes"


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_has_its_table_on_its_page_and_no_other(name):
    settings = dataclasses.fields(find_trainer(name).Hyperparameters)
    assert name in page_of(name)
    assert [match["name"] for match in BLOCK.finditer(page_of(name))] == [name if settings else "training"]


def test_no_table_of_settings_is_written_by_hand():
    for path in PAGES.glob("*.md"):
        by_hand = BLOCK.sub("", path.read_text(encoding="utf-8"))
        assert "| name |" not in by_hand and "<!-- settings" not in by_hand, path.name


@pytest.mark.parametrize("name", TRAINERS)
def test_a_method_lists_every_setting(name):
    trainer = find_trainer(name)
    if parent_of(trainer) is None and trainer.__name__ != "nnUNetTrainerSupervised":
        assert names_in(table_of(name)) == [field.name for field in dataclasses.fields(trainer.Hyperparameters)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_lists_what_differs_and_the_default_of_its_parent(name):
    preset, parent = find_trainer(name), find_trainer(name.split("_")[0])
    assert parent_of(preset) is parent
    own, before = preset.Hyperparameters(), parent.Hyperparameters()
    changed = [f.name for f in dataclasses.fields(own) if getattr(own, f.name) != getattr(before, f.name)]
    assert changed and names_in(table_of(name)) == changed
    title, _, *rows = (line.split(" | ") for line in table_of(name).splitlines())
    assert f"`{parent.__name__}`" in title
    for row in rows:
        value = getattr(before, row[0].removeprefix("| ").strip("`"))
        was = "null" if value is None else str(value).lower()
        assert row[title.index(f"`{parent.__name__}`")].lower() == was


def test_prose_around_a_table_stays_and_a_cell_stays_one_cell(monkeypatch, tmp_path):
    page = "# A\n\nbefore\n\n<!-- settings: training -->\nold\n<!-- end -->\n\nafter | as it is\n"
    new = updated(page)
    assert new.startswith("# A\n\nbefore\n\n<!-- settings: training -->\n\n| name | default |")
    assert new.endswith("|\n\n<!-- end -->\n\nafter | as it is\n")
    assert r"a trainer name ending in _\<N>epochs wins" in new
    assert updated(new) == new
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(settings_tables, "PAGES", tmp_path)
    assert settings_tables.main() == 0
    assert (tmp_path / "page.md").read_text() == new
