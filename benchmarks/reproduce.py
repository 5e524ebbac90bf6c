"""The commands of a page of docs/reproduce: printed, or run one after the other, or tried on imitated data.

    python benchmarks/reproduce.py docs/reproduce/skcdf.md                         # every command, in full
    python benchmarks/reproduce.py docs/reproduce/skcdf.md --row t3-df --run       # one row, plans to score
    python benchmarks/reproduce.py docs/reproduce/skcdf.md --run                   # all of it; goes on where it stopped
    python benchmarks/reproduce.py docs/reproduce/skcdf.md --table                 # the scores so far, as a table
    python benchmarks/reproduce.py docs/reproduce/skcdf.md --figures --run         # its figures, after its rows
    python benchmarks/reproduce.py docs/reproduce/skcdf.md --small                 # as they are tried in the tests

Rows stand in tables with the columns row, in the paper, published, commands, with. "commands" names a block of the
page, whose words in capitals are replaced by what stands under "with" (KEY=VALUE; ...) and by ROW, the row's name. A
list (FOLD=0,1,2) repeats every line that holds the word. $OUT is a folder of yours, where scores go to, those of a page
below $OUT/PAGE; $DATA is the one with the downloads.

--small: patches of 32 voxels, the same networks with 2 to 8 features, two training steps, on a CPU. It shows that the
commands fit one another, and nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from resume import left_of

NO_COMMANDS = "-"
BLOCK = re.compile(r"^#+ Commands `(?P<name>[\w-]+)`$")
WORD = re.compile(r"(?<![A-Za-z$])(BASE|FOLD|OPTIONS|ROW|SEED|SPLIT|TRAINER)(?![A-Za-z])")
LISTS = ("FOLD", "SEED")
METRICS = ("dice", "jaccard", "hd95", "asd")
OVERLAPS = ("dice", "jaccard")
SMALL_TRAINING = "num_epochs=1 num_iterations_per_epoch=2 num_val_iterations_per_epoch=1"


def _per_axis(text: str, number: int, between: str) -> Callable[[re.Match[str]], str]:
    """So many times the number as there are in the match."""
    return lambda match: text + between.join([str(number)] * len(re.findall(r"\d+", match[0])))


# --small: what is put in the place of what a page says
SMALLER: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"--patch( \d+)+"), _per_axis("--patch ", 32, " ")),
    (re.compile(r"stride=\[(\d+,?)+"), _per_axis("stride=[", 16, ",")),
    (re.compile(r"--batch \d+"), lambda match: "--batch 2"),
    (re.compile(r"--network \w+"), lambda match: match[0] + " --features 2 4 4 4 4"),
    (re.compile(r"--features \d\d+( \d+)+"), lambda match: "--features 4 8 8 8"),
    (re.compile(r"--size( \d+)+"), lambda match: re.sub(r"[1-9]\d*", "16", match[0])),
    (re.compile(r"--least \d+"), lambda match: "--least 16"),
    (re.compile(r" kept_epochs=\S+| checkpoint_epoch_\d+\.pth"), lambda match: ""),
    (re.compile(r" num_(epochs|iterations_per_epoch|val_iterations_per_epoch)=\d+"), lambda match: ""),
)


@dataclass(frozen=True)
class Row:
    """One row of a paper's table.

    Attributes:
        name: of the page, unique.
        paper: what it is called there.
        published: numbers.
        block: name of the commands; "-": it cannot be run.
        words: word in capitals -> its values; of a row that cannot be run, the reason under "".
    """

    name: str
    paper: str
    published: str
    block: str
    words: dict[str, list[str]]

    @property
    def runs(self) -> bool:
        return self.block != NO_COMMANDS


@dataclass(frozen=True)
class Page:
    """What a page of docs/reproduce holds.

    Attributes:
        name: of the file, and of the folder of its scores.
        preparation: commands that come first, in order.
        blocks: name -> lines of commands, with words in capitals.
        rows: of all tables.
        figures: commands under headings that begin with "Figure", which need the rows that they name.
        percent: it gives overlaps in %, not as fractions.
    """

    name: str
    preparation: list[str]
    blocks: dict[str, list[str]]
    rows: list[Row]
    figures: list[str]
    percent: bool


def read_page(path: str | os.PathLike[str]) -> Page:
    """A page; ValueError for a row of another form, twice the same row, or unknown commands."""
    preparation: list[str] = []
    figures: list[str] = []
    blocks: dict[str, list[str]] = {}
    rows: list[Row] = []
    target = preparation
    text = Path(path).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            found = BLOCK.match(line)
            other = figures if re.match(r"#+ Figure", line) else preparation
            target = blocks.setdefault(found["name"], []) if found else other
        elif line.startswith("    ") and line.strip():
            command = line.strip()
            if target and target[-1].endswith("\\"):
                target[-1] = f"{target[-1][:-1].strip()} {command}"
            else:
                target.append(command)
        elif line.startswith("| `"):
            rows.append(_row(line))
    names = [row.name for row in rows]
    unknown = sorted({row.block for row in rows if row.runs} - set(blocks))
    twice = sorted({name for name in names if names.count(name) > 1})
    if unknown or twice:
        raise ValueError(f"{path}: unknown commands {unknown}, rows that stand there twice {twice}")
    percent = re.search(r"^Published: .* in %", text, re.MULTILINE) is not None
    return Page(Path(path).stem, preparation, blocks, rows, figures, percent)


def _row(line: str) -> Row:
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    if len(cells) != 5:
        raise ValueError(f"a row needs 5 cells, this one has {len(cells)}: {line}")
    name, paper, published, block, words = (cell.strip("`") for cell in cells)
    if block == NO_COMMANDS:
        return Row(name, paper, published, block, {"": [words]})
    pairs = [pair.strip().split("=", 1) for pair in words.split(";") if pair.strip()]
    return Row(name, paper, published, block, {k: v.split(",") if k in LISTS else [v] for k, v in pairs})


def commands_of(page: Page, row: Row) -> list[str]:
    """Every command of a row in full.

    Raises:
        ValueError: a word that the commands need and the row lacks, or that it has and they do not need.
    """
    words, used = {"ROW": [row.name], **row.words}, set()
    result = []
    for line in page.blocks[row.block]:
        found = list(dict.fromkeys(WORD.findall(line)))
        used |= set(found)
        if absent := [word for word in found if word not in words]:
            raise ValueError(f"{row.name}: nothing stands for {', '.join(absent)} in {line}")
        for values in itertools.product(*(words[word] for word in found)):
            given = dict(zip(found, values, strict=True))
            full = WORD.sub(lambda match, given=given: given[match[0]], line)  # type: ignore[misc]
            result.append(re.sub(r" +", " ", full).strip())
    if unused := sorted(set(words) - used):
        raise ValueError(f"{row.name}: the commands `{row.block}` have no word {', '.join(unused)}")
    return result


def smaller(command: str) -> str:
    """The same command for --small."""
    for pattern, change in SMALLER:
        command = pattern.sub(change, command)
    if command.startswith("nnunet_ssl plans") and " -p " in command:
        command = re.sub(r" --training\b|$", f" --training {SMALL_TRAINING}", command, count=1)
    if re.match(r"nnUNetv2_train|nnunet_ssl predict-as-paper|nnunet_ssl figure .*-tr ", command):
        command += " -device cpu"
    return command


def scores(folder: Path) -> Iterator[dict[str, float]]:
    """Means over classes of every evaluation below a folder."""
    for path in sorted(folder.rglob("evaluation.json")):
        mean = json.loads(path.read_text(encoding="utf-8"))["mean"]
        yield {name: value for name, value in mean.items() if value is not None}


def table(page: Page, out: Path) -> str:
    """Rows that have scores below ``out``/PAGE, in the page's unit, beside what was published.

    Of several folds or seeds the mean and the population standard deviation.
    """
    lines = [
        "| row | in the paper | published | runs | " + " | ".join(METRICS) + " |",
        "|---" * (4 + len(METRICS)) + "|",
    ]
    for row in page.rows:
        found = list(scores(out / page.name / row.name)) if row.runs else []
        if found:
            means = [[run[name] for run in found if name in run] for name in METRICS]
            cells = [_cell(name, values, page.percent) for name, values in zip(METRICS, means, strict=True)]
            lines.append(f"| `{row.name}` | {row.paper} | {row.published} | {len(found)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(metric: str, values: Sequence[float], percent: bool) -> str:
    """Mean and standard deviation of one metric over runs."""
    if not values:
        return "-"
    scale, digits = (100, 2) if percent and metric in OVERLAPS else (1, 2 if percent else 3)
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {scale * statistics.pstdev(values):.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page")
    parser.add_argument("--row", nargs="+", help="only these; without the preparation")
    parser.add_argument("--run", action="store_true", help="run what is left of them, and stop at the first that fails")
    parser.add_argument("--small", action="store_true", help="sizes reduced, two training steps, on a CPU")
    parser.add_argument("--figures", action="store_true", help="the commands of the figures, not of the rows")
    parser.add_argument("--table", action="store_true", help="the scores below $OUT beside the published ones")
    args = parser.parse_args(argv)
    page = read_page(args.page)
    if args.table:
        print(table(page, Path(os.environ["OUT"])))
        return 0
    unknown = sorted(set(args.row or ()) - {row.name for row in page.rows if row.runs})
    if unknown:
        parser.error(f"no such rows with commands: {', '.join(unknown)}")
    wanted = [row for row in page.rows if row.runs and (args.row is None or row.name in args.row)]
    commands = [*([] if args.row else page.preparation), *(c for row in wanted for c in commands_of(page, row))]
    commands = page.figures if args.figures else commands
    for command in commands:
        command = smaller(command) if args.small else command
        left = left_of(command) if args.run else command
        print(f"# done: {command}" if left is None else left, flush=True)
        if left is None:
            continue
        command = left
        if args.run and (code := subprocess.run(command, shell=True).returncode):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
