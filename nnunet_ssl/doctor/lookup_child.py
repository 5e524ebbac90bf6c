"""Run as a script by lookup.py: argv holds the answer file, and as JSON what to answer.

Its standard input is a pipe that closes with the parent; then this process ends.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # the folder of this script, which no command of nnU-Net has there

import json
import os
import threading
from functools import lru_cache
from typing import Any


def look_up(names: list[str]) -> dict[str, Any]:
    """name -> the class that nnU-Net finds, or the text of its error."""
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except (Exception, SystemExit) as error:  # a broken installation fails in any way, and for every name alike
        return dict.fromkeys(names, _text(error))
    ask_once_per_module()
    found: dict[str, Any] = {}
    for name in names:
        try:
            found[name] = recursive_find_trainer_class_by_name(name)
        except (Exception, SystemExit) as error:  # anything may happen in other people's modules
            found[name] = _text(error)
    return found


def ask_once_per_module() -> None:
    """For every name nnU-Net asks of each imported module whether it comes from a directory: thousands of questions
    whose answers do not change, a quarter of the time that all look-ups take.
    """
    from nnunetv2.utilities import find_class_by_name as search

    question = getattr(search, "_module_originates_from_path", None)
    if question is not None:
        search._module_originates_from_path = lru_cache(maxsize=None)(question)


def _text(error: BaseException) -> str:
    text = str(error).split(". If the trainer is located elsewhere")[0]
    return f"{type(error).__name__}: {text}" if text and not isinstance(error, RuntimeError) else text or repr(error)


def describe(name: str, found: Any) -> dict[str, Any]:
    if isinstance(found, str):
        return {"error": found}
    try:
        from nnunet_ssl.trainers import find_trainer
    except ModuleNotFoundError as error:
        return {"module": found.__module__, "same": False, "reason": str(error)}
    return {"module": found.__module__, "same": found is find_trainer(name)}


def end_with_parent() -> None:
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # for modules that read something
    threading.Thread(target=lambda: (os.read(pipe, 1), os._exit(1)), daemon=True).start()


def write(answer: str, content: dict[str, Any]) -> None:
    with open(f"{answer}.tmp", "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(f"{answer}.tmp", answer)


def main(answer: str, names: list[str], examination: dict[str, Any] | None) -> None:
    found = look_up(names)  # all of them before our package is imported here
    content: dict[str, Any] = {"trainers": {name: describe(name, trainer) for name, trainer in found.items()}}
    write(answer, content)  # kept, should the examination end this process
    if examination is not None:
        from nnunet_ssl.doctor.examination import examine  # PyTorch and nnU-Net are imported here already

        sections = examine(**examination, lookup=content["trainers"])
        write(answer, content | {"sections": [section.to_json() for section in sections]})


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1], **json.loads(sys.argv[2]))
