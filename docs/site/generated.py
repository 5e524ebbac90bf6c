"""Pages of the site that are made from code: commands from their parsers, the public interface from docstrings.

MkDocs runs this with mkdocs-gen-files; notebooks, and what lies outside docs/ (CHANGELOG, CONTRIBUTING, protocols),
become pages too.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import mkdocs_gen_files
from nbconvert import MarkdownExporter

from nnunet_ssl.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
COPIES = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "protocols": "benchmarks/protocols/README.md",
}
TUTORIALS = "docs/tutorials"
PUBLIC = {
    "training": ["base", "terms", "targets", "teacher", "ema", "ramps", "recipe", "card", "settings"],
    "data": ["batches", "mixing", "splits", "views", "strong_view"],
}
"""Modules whose names stay, of packages that have others, too; of losses and architectures all do."""


def subparsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def commands_page() -> str:
    """What `nnunet_ssl COMMAND --help` prints, for every command."""
    os.environ["COLUMNS"] = "100"
    parts = ["# Commands", "What each command of the semi-supervised plugin prints with `--help`."]
    for name, summary in COMMANDS.items():
        parser = next(p for p in subparsers(build_parser(name)) if p.prog.endswith(f" {name}"))
        parts += [f"## nnunet_ssl {name}", f"{summary[0].upper()}{summary[1:]}.", f"```text\n{parser.format_help()}```"]
        parts += [f"```text\n{kind.format_help()}```" for kind in subparsers(parser)]
    return "\n\n".join(parts) + "\n"


def api_page(package: str) -> str:
    inside = import_module(f"nnunet_ssl.{package}").__path__
    modules = PUBLIC.get(package) or [module.name for module in pkgutil.iter_modules(inside)]
    promise = "For methods of your own: names and meanings on this page stay from version to version."
    title = f"# nnunet_ssl.{package}\n\n{promise}"
    return "\n\n".join([title, *(f"::: nnunet_ssl.{package}.{module}" for module in modules)]) + "\n"


def tutorial_page(name: str) -> str:
    """A notebook of docs/tutorials with the outputs it was stored with; its pictures become files beside the page."""
    body, resources = MarkdownExporter().from_filename(str(ROOT / TUTORIALS / f"{name}.ipynb"))
    for file, content in resources["outputs"].items():
        with mkdocs_gen_files.open(f"generated/{name}_{file}", "wb") as picture:
            picture.write(content)
        body = body.replace(f"]({file})", f"]({name}_{file})")
    return f"{body.strip()}\n\n<a href='../tutorials/{name}.ipynb'>This page as a notebook</a>\n"


def write(name: str, text: str, source: str) -> None:
    with mkdocs_gen_files.open(f"generated/{name}.md", "w") as file:
        file.write(text)
    mkdocs_gen_files.set_edit_path(f"generated/{name}.md", source)


for name, source in COPIES.items():
    write(name, (ROOT / source).read_text(encoding="utf-8"), source)
for path in sorted((ROOT / TUTORIALS).glob("*.ipynb")):
    write(f"tutorial-{path.stem}", tutorial_page(path.stem), f"{TUTORIALS}/{path.name}")
write("commands", commands_page(), "nnunet_ssl/cli.py")
for package in ("training", "losses", "data", "architectures"):
    write(f"api-{package}", api_page(package), f"nnunet_ssl/{package}")
