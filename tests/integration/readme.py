"""The commands of README.md and of other Markdown: in blocks of their own, and within sentences."""

from __future__ import annotations

import re
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
COMMAND = r"(?:nnunet_ssl|nnUNetv2_\w+) "
BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(rf"^    ({COMMAND}.*)$", re.MULTILINE)
INLINE = re.compile(rf"`({COMMAND}[^`]*)`")
OURS = {  # commands within sentences of README that another test runs -> its file
    "nnunet_ssl demo": "tests/demo/test_whole_demo.py",
    "nnunet_ssl headroom -d 4 -c 3d_fullres -o OUT": "tests/headroom/test_command.py",
}


def blocks(markdown: str) -> str:
    """The lines of all blocks, without comments, each command in one line."""
    text = "".join(BLOCK.findall(re.sub(r" \\\n +", " ", markdown)))
    return re.sub(r" +#.*$", "", text, flags=re.MULTILINE)


def within_sentences(markdown: str) -> list[str]:
    """Commands in backticks, each once, in the order of the page; none of a block."""
    text = " ".join(BLOCK.sub("", markdown).split())
    return [*dict.fromkeys(INLINE.findall(text))]
