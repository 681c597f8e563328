"""What a preparation dropped, at which step and why: `report.json` and `report.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ditto.training.dataset import write_bytes, write_json
from ditto.training.prepare.work import Dropped, Item, Media, seconds_of

DETAILS_SHOWN = 200  # lines of single drops in report.md; report.json has all


class StepReport(NamedTuple):
    """What a step did: ids that went in and on, seconds that went on (None where not known yet), and what it dropped."""

    step: str
    given: int
    kept: int
    seconds: float
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]


def report_of(
    step: str, given: Sequence[Item], kept: Sequence[Item], dropped: Sequence[Dropped], notes: Sequence[str] = ()
) -> StepReport:
    """The report of a step, with its own notes and those of its items."""
    of_items = tuple(f"{item.id}: {item.note}" for item in kept if isinstance(item, Media) and item.note)
    return StepReport(step, len(given), len(kept), round(sum(map(seconds_of, kept)), 2), tuple(dropped), (*notes, *of_items))


def reasons(reports: Sequence[StepReport]) -> str:
    """The reasons for all drops, the commonest first: "no face 3, blurred 1"."""
    counts = Counter(drop.reason for report in reports for drop in report.dropped)
    return ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


def write_reports(folder: Path, reports: Sequence[StepReport]) -> None:
    """Write both reports; the same preparation gives the same bytes. Raises OutputError."""
    steps = [r._asdict() | {"dropped": [d._asdict() for d in r.dropped]} for r in reports]
    write_json(folder / "report.json", {"steps": steps})
    write_bytes(folder / "report.md", markdown(reports).encode())


def markdown(reports: Sequence[StepReport]) -> str:
    lines = ["# Preparation", ""]
    lines += ["| step | in | out | seconds out | dropped |", "|---|---|---|---|---|"]
    for r in reports:
        lines.append(f"| {r.step} | {r.given} | {r.kept} | {r.seconds:.1f} | {reasons([r]) or '-'} |")
    for r in reports:
        details = [f"* {d.id}: {d.reason}, {d.seconds:.1f} s: {d.detail}" for d in r.dropped]
        details += [f"* {note}" for note in r.notes]
        if details:
            lines += ["", f"## {r.step}", "", *details[:DETAILS_SHOWN]]
        if len(details) > DETAILS_SHOWN:
            lines.append(f"* and {len(details) - DETAILS_SHOWN} more: report.json")
    return "\n".join(lines) + "\n"
