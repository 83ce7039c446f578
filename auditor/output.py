"""An audit as files: the record, its page, its summary, and the scores for their owner's eyes."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from auditor.audit import Audit
from auditor.workplace import write_private
from reports.html import render
from reports.markdown import summary
from reports.record import Report

FILES = ("report.json", "report.html", "summary.md", "scores.npz")


def clear(folder: Path) -> None:
    """Remove what an earlier audit left in a folder, so that nobody takes it for the result of one that then fails.

    Raises:
        OSError: If the folder cannot be written, which is better known now than after hours of training.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    write_private(folder / FILES[0], b"")
    (folder / FILES[0]).unlink()
    if made:
        folder.rmdir()


def write_audit(audit: Audit, folder: Path) -> Path:
    """Write `report.json`, `report.html`, `summary.md` and `scores.npz` (mode 0600, shuffled) into a folder.

    A report that shows private records is for its owner's eyes too, and gets the same mode.

    Args:
        audit: What `run_audit` returned.
        folder: Made if it is not there; earlier files of the same names are replaced.

    Returns:
        The path of the page to open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"scores_{name}": values for name, values in audit.scores.items()}
    np.savez(content, included=audit.included, **arrays)
    write_private(folder / "scores.npz", content.getvalue())
    if any(not item.synthetic for item in audit.report.gallery):
        for name in ("report.json", "report.html"):  # they show people
            write_private(folder / name, b"")
    (folder / "report.json").write_text(audit.report.to_json())
    return write_readable(audit.report, folder)


def write_readable(report: Report, folder: Path) -> Path:
    """Write what people read, `report.html` and `summary.md`, from the record alone; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.md").write_text(summary(report))
    page = folder / "report.html"
    page.write_text(render(report))
    return page
