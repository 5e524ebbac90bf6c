"""What a person hands to `nnunet_ssl splits`: subjects of the cases, and lists of labelled cases."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection

from nnunet_ssl.data.text_files import read_json, read_text
from nnunet_ssl.errors import complain


def read_groups(path: str, cases: Collection[str]) -> dict[str, str]:
    """The subject of every case.

    Args:
        path: JSON {"case": "subject"}, or CSV with the columns case,subject (or two columns without a header).
        cases: identifiers of the labelled cases; the file must name exactly these.

    Raises:
        SemiSupervisedError: unreadable file; cases missing, unknown, without a subject or with two of them.
    """
    pairs = _pairs_of_json(path) if path.lower().endswith(".json") else _pairs_of_csv(path)
    subjects: dict[str, set[str]] = {}
    for case, subject in pairs:
        subjects.setdefault(case, set()).add(subject)
    problems = [f"{case}: without subject" for case, found in sorted(subjects.items()) if "" in found]
    problems += [
        f"{case}: more than one subject ({', '.join(sorted(found))})"
        for case, found in sorted(subjects.items())
        if len(found) > 1
    ]
    problems += [f"{case}: missing in the file" for case in sorted(set(cases) - set(subjects))]
    problems += [f"{case}: not a labelled case of the dataset" for case in sorted(set(subjects) - set(cases))]
    if problems:
        raise complain(
            f"The groups in {path} do not fit the dataset:",
            problems,
            "Give every labelled case exactly one subject and name no other case.",
        )
    return {case: subjects[case].pop() for case in sorted(subjects)}


def read_case_lists(path: str, cases: Collection[str]) -> dict[str, list[str]]:
    """Named lists of labelled cases from JSON: [ids], then called "list", or {"name": [ids]}.

    Raises:
        SemiSupervisedError: another form, an empty list, or identifiers that are repeated or unknown.
    """
    content = read_json(path)
    lists = {"list": content} if isinstance(content, list) else content
    if not isinstance(lists, dict) or not all(
        isinstance(ids, list) and all(isinstance(case, str) for case in ids) for ids in lists.values()
    ):
        raise complain(f'{path} must hold a list of case identifiers, or {{"name": [case identifiers]}}.')
    problems = [f"{name}: no case" for name, ids in lists.items() if not ids]
    for name, ids in lists.items():
        problems += [f"{name}: {case} is named more than once" for case in sorted({c for c in ids if ids.count(c) > 1})]
        problems += [f"{name}: {case} is not a labelled case of the dataset" for case in sorted(set(ids) - set(cases))]
    if problems or not lists:
        raise complain(f"The labelled cases in {path} do not fit the dataset:", problems or ["no list"])
    return lists


def _pairs_of_json(path: str) -> list[tuple[str, str]]:
    pairs = read_json(path, object_pairs_hook=_Pairs)  # a plain dictionary would hide a case that is named twice
    allowed = (str, int)
    if not isinstance(pairs, _Pairs) or not all(isinstance(subject, allowed) for _, subject in pairs):
        raise complain(f'{path} must hold {{"case": "subject", ...}}.')
    return [(case, str(subject)) for case, subject in pairs]


class _Pairs(list):
    """The pairs of a JSON object, distinguishable from a JSON list."""


def _pairs_of_csv(path: str) -> list[tuple[str, str]]:
    rows, numbers = [], []
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append([cell.strip() for cell in row])
                numbers.append(reader.line_num)  # as an editor counts, empty lines too
    except csv.Error as error:
        raise complain(f"{path} is not readable CSV ({error}).") from error
    header = [cell.lower() for cell in rows[0]] if rows else []
    case, subject, start = 0, 1, 0
    if "case" in header and "subject" in header:
        case, subject, start = header.index("case"), header.index("subject"), 1
    elif any(len(row) != 2 for row in rows):
        raise complain(f"{path} needs a header with case,subject, or two columns separated by a comma.")
    body = rows[start:]
    numbered = zip(numbers[start:], body, strict=True)
    short = [f"line {number}: {','.join(row)}" for number, row in numbered if len(row) < len(header)]
    if short:
        raise complain(f"{path} has incomplete rows:", short)
    return [(row[case], row[subject]) for row in body]
