"""An audit as files: the record, its page, its summary, and the scores for their owner's eyes."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.files.result_files import write_whole
from defenses.private_files import write_private
from reports.pages.markdown import summary
from reports.pages.report_page import render
from reports.records.report import Report

if TYPE_CHECKING:
    from auditor.audit import Audit

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


def write_audit(audit: "Audit", folder: Path) -> Path:
    """Write `report.html`, `summary.md`, `scores.npz` (mode 0600, shuffled) and `report.json` into a folder.

    Each appears whole or not at all, and `report.json` last: where it is, the others are. A report that shows private
    records is for its owner's eyes too, and gets the same mode.

    Args:
        audit: What `run_audit` returned.
        folder: Made if it is not there; earlier files of the same names are replaced.

    Returns:
        The path of the page to open.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    arrays: dict[str, Any] = {f"scores_{name}": values for name, values in audit.scores.items()}
    np.savez(content, included=audit.included, **arrays)
    write_private(folder / "scores.npz", content.getvalue())
    page = write_readable(audit.report, folder)
    _write(audit.report, folder / "report.json", audit.report.to_json())
    return page


def write_readable(report: Report, folder: Path) -> Path:
    """Write what people read, `report.html` and `summary.md`, from the record alone; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "report.html"
    write_whole(folder / "summary.md", summary(report))
    _write(report, page, render(report))
    return page


def _write(report: Report, path: Path, text: str) -> None:
    """Write what holds the gallery; where it shows people, for the owner alone."""
    if any(not item.synthetic for item in report.gallery):
        write_private(path, text.encode())
    else:
        write_whole(path, text)
