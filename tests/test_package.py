"""The wheel that is shipped, and the directions in which its parts may know each other."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from nnunet_ssl import __version__
from nnunet_ssl.trainers import TRAINERS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nnunet_ssl"
PYTHON = "Programming Language :: Python :: "

# ---- the wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution beside it, so that this holds all that is needed."""
    for module in ("setuptools", "build"):
        pytest.importorskip(module, reason="without it nothing can be built without the network")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves build folders beside pyproject.toml
    source.mkdir()
    files = [path.name for path in ROOT.iterdir() if path.is_file()]
    for name in [*files, "nnunet_ssl", "tests", "trainers", "architectures"]:
        (source / name).symlink_to(ROOT / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)], source)
    (built,) = folder.glob("*.whl")
    return built


def run(command: list[str], folder: Path, environment: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_source_distribution_holds_the_package_and_what_it_says_of_itself(wheel):
    (archive,) = wheel.parent.glob("*.tar.gz")
    assert archive.name == f"nnunet_ssl-{__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= names
    assert {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")} <= names
    assert not [name for name in names if name.startswith("tests")]
    pytest.importorskip("twine")
    said = run([sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(archive)], wheel.parent)
    assert said.count("PASSED") == 2


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == __version__
    first = next(line for line in changelog.splitlines() if line.startswith("## "))
    assert first == f"## {__version__}, {citation['date-released']}"


def test_authors_and_versions_of_python_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["authors"] == citation["authors"]
    versions = [each.removeprefix(PYTHON) for each in project["classifiers"] if re.match(rf"{PYTHON}\d+\.", each)]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"tested with Python {' and '.join(versions)}." in readme
    assert project["requires-python"] == f">={versions[0]}"


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"nnunet_ssl-{__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name for name in names if name.startswith("nnunet_ssl/")}
    python = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    templates = {path.relative_to(ROOT).as_posix() for path in (PACKAGE / "evaluation" / "templates").iterdir()}
    assert shipped == python | templates | {
        "nnunet_ssl/py.typed",
        "nnunet_ssl/evaluation/report/published.csv",
        "nnunet_ssl/recommendation/measured.csv",
    }
    assert "nnunet_ssl/external/nnunet_ssl_trainers.py" in shipped
    information = f"nnunet_ssl-{__version__}.dist-info/"
    assert {name.split("/")[0] + "/" for name in names} == {"nnunet_ssl/", information}
    metadata = zipfile.ZipFile(wheel).read(information + "METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "semi-supervised" in metadata
    assert information + "licenses/LICENSE" in names


@pytest.mark.slow
def test_installed_into_an_empty_environment_it_works_from_another_folder(wheel, tmp_path):
    """Its dependencies are those of the tests, which the environment gets to see once the wheel is installed."""
    elsewhere, place = tmp_path / "elsewhere", tmp_path / "env"
    elsewhere.mkdir()
    venv.create(place)
    python = place / "bin" / "python"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "nnUNet_extTrainer")}
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    run(pip, elsewhere, clean)
    site = Path(run([str(python), "-c", "import site; print(site.getsitepackages()[0])"], elsewhere, clean))
    folders = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    (site / "dependencies.pth").write_text("\n".join(folders))

    assert run([str(place / "bin" / "nnunet_ssl"), "--version"], elsewhere, clean) == __version__
    directory = run([str(place / "bin" / "nnunet_ssl"), "path"], elsewhere, clean)
    assert directory == str((site / "nnunet_ssl" / "external").resolve())
    script = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"import sys\nfor name in {[*TRAINERS]}:\n    print('FOUND', sys.modules[find(name).__module__].__file__)"
    )
    said = run([str(python), "-c", script], elsewhere, clean | {"nnUNet_extTrainer": directory})
    found = [line for line in said.splitlines() if line.startswith("FOUND")]
    files = [site.joinpath(*module.split(".")).with_suffix(".py") for module in TRAINERS.values()]
    assert found == [f"FOUND {file}" for file in files]
    assert not any(elsewhere.iterdir())


# ---- who may know whom

MAY_KNOW = {
    "errors": set(),
    "system": {"errors"},
    "losses": set(),
    "architectures": set(),
    "data": {"errors", "system"},
    "training": {"data", "losses", "errors", "system"},
    "trainers": {"training", "losses", "architectures", "data", "errors"},
}
# folders within evaluation
SIDE_BY_SIDE: dict[str, set[str]] = {
    "pages": set(),
    "prediction_record": set(),
    "model_folder": {"prediction_record"},
    "as_paper": {"model_folder", "prediction_record"},
    "figures": {"model_folder", "report", "scoring"},
    "scoring": {"pages", "prediction_record"},
    "benchmark": {"scoring"},
    "report": {"benchmark", "scoring", "pages", "prediction_record"},
}
# trainers and their length variants look each other up by name, when asked for one
LOOK_UP = {("nnunet_ssl.trainers", "nnunet_ssl.trainers.variants")}
ON_TOP = {
    "planning",
    "evaluation",
    "doctor",
    "demo",
    "headroom",
    "selftrain",
    "commands",
    "cli",
    "console",
    "discovery",
    "methods",
    "recommendation",
    "setting_descriptions",
    "external",
    "__init__",
}


def part_of(module: str) -> str:
    """nnunet_ssl.data.splits -> data; the package itself -> __init__."""
    return [*module.split("."), "__init__"][1]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module of ours that the source imports, at any depth, relative imports resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from nnunet_ssl import data` imports a module, `from nnunet_ssl import __version__` does not
            names = [name if is_module(name := f"{origin}.{alias.name}") else origin for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "nnunet_ssl")


@cache
def known_to() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports, also late or for its types, for the whole package."""
    files = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    return {
        module: {*imports(path.read_text(encoding="utf-8"), module, path.name == "__init__.py")} - {module}
        for module, path in files.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """What leads back to itself, each circle once, as the nodes on it."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found = error.args[1]
        rest = {node: after - {found[0]} if node == found[1] else after for node, after in graph.items()}
        return [found, *circles(rest)]
    return []


def edges() -> set[tuple[str, str, str]]:
    """(module, part it belongs to, part it imports) of the whole package."""
    return {(module, part_of(module), part_of(name)) for module, names in known_to().items() for name in names}


def test_every_part_has_its_place():
    parts = {part_of(module_name(path)) for path in PACKAGE.rglob("*.py")}
    assert parts - ON_TOP == set(MAY_KNOW)


def test_no_import_runs_upwards():
    forbidden = sorted(
        f"{module} imports {target}"
        for module, part, target in edges()
        if part in MAY_KNOW and target != part and target not in MAY_KNOW[part]
    )
    assert forbidden == []


def test_no_imports_run_in_a_circle():
    graph = {m: {n for n in names if (m, n) not in LOOK_UP} for m, names in known_to().items()}
    assert circles(graph) == []


def test_nnunet_may_rename_the_argument_of_load_checkpoint():
    """Nobody here names it, so that ours and nnU-Net's may be called differently."""
    calls = [
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load_checkpoint"
    ]
    assert len(calls) >= 3 and not [ast.unparse(call) for call in calls if call.keywords]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    found = circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}})
    assert sorted(map(sorted, map(set, found))) == [["a", "b", "c"], ["d", "e"]]


def test_the_parts_on_top_know_each_other_in_one_direction():
    graph: dict[str, set[str]] = {}
    for _, part, target in edges():
        graph.setdefault(part, set()).update({target} - {part, "__init__"})
    assert circles(graph) == []


def test_folders_of_the_evaluation_know_each_other_in_one_direction():
    wrong = [
        f"{module} imports {name}"
        for module, names in known_to().items()
        for name in names
        if part_of(module) == part_of(name) == "evaluation"
        and (folder := module.split(".")[2]) != (other := name.split(".")[2])
        and other not in SIDE_BY_SIDE[folder]
    ]
    assert wrong == []


def test_strings_of_module_names_lead_to_no_detour():
    """importlib.import_module("nnunet_ssl....") would pass the test above unseen."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        module = module_name(path)
        if part_of(module) in MAY_KNOW and module != "nnunet_ssl.trainers":  # which names its own modules
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and node.value.startswith("nnunet_ssl.")
                ):
                    found.append(f"{module}: {node.value}")
    assert found == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import nnunet_ssl.training.ema", {"nnunet_ssl.training.ema"}),
        ("def f():\n    from nnunet_ssl.data.splits import Fold", {"nnunet_ssl.data.splits"}),
        ("from nnunet_ssl import data", {"nnunet_ssl.data"}),
        ("from . import ema", {"nnunet_ssl.training.ema"}),
        ("from ..data import splits", {"nnunet_ssl.data.splits"}),
        ("from .. import cli", {"nnunet_ssl.cli"}),
        ("import torch\nfrom nnunetv2.paths import nnUNet_raw", set()),
    ],
)
def test_imports_are_seen_in_every_form(source, expected):
    assert set(imports(source, "nnunet_ssl.training.base", False)) == expected


# ---- the house


def users_of_training() -> dict[str, set[str]]:
    """Module of training/ -> who uses it: methods (a room or a file), other parts, other modules of training."""
    users: dict[str, set[str]] = {
        module_name(path): set() for path in (PACKAGE / "training").glob("*.py") if path.name != "__init__.py"
    }
    for path in PACKAGE.rglob("*.py"):
        module = module_name(path)
        parts = module.split(".")
        user = part_of(module)
        if user == "trainers":
            user = ".".join(parts[:3]).removesuffix("_settings")  # beside the single file of its method
        elif user == "training":
            user = module
        source = path.read_text(encoding="utf-8").replace(
            "from nnunet_ssl.training import ", "import nnunet_ssl.training."
        )
        for name in imports(source, module, path.name == "__init__.py"):
            if name in users and name != module:
                users[name].add(user)
    return users


def test_training_holds_what_methods_share_and_nothing_else():
    users = users_of_training()
    assert len(users) <= 20
    of_one_method = {
        m for m, who in users.items() if len(who) == 1 and next(iter(who)).startswith("nnunet_ssl.trainers")
    }
    assert of_one_method == set() and all(users.values())


def levels(trainer: type) -> int:
    """Edges on the longest way to nnU-Net's trainer."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    if trainer is nnUNetTrainer:
        return 0
    return 1 + max(levels(base) for base in trainer.__bases__ if issubclass(base, nnUNetTrainer))


@pytest.mark.parametrize("name", TRAINERS)
def test_at_most_four_levels_from_a_method_to_nnunet(name):
    """A preset is one more."""
    from nnunet_ssl.trainers import find_trainer
    from tests.trainers.registered import PRESETS

    assert levels(find_trainer(name)) <= 4 + (name in PRESETS)
