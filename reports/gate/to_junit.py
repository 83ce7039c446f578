"""A gate's decision as JUnit XML, for CI systems that show test results."""

from reports.gate.gate_result import GateResult, Outcome
from reports.untrusted import writable

_ELEMENTS = {
    Outcome.FAIL: "failure",
    Outcome.INCONCLUSIVE: "error",
    Outcome.INCOMPLETE: "error",
    Outcome.NOT_COMPARABLE: "error",
    Outcome.MISFIT: "error",
}


def to_junit(result: GateResult) -> str:
    """Write the decision as JUnit XML.

    A failed check is a failure, an undecided one an error (so that CI does not go green on it), and a check that the
    policy lets through undecided is skipped.

    Args:
        result: The decision of `reports.gate.apply_policy.apply_policy`.

    Returns:
        The XML text; the same result gives the same bytes.
    """
    from xml.etree import ElementTree  # only this writer pays for it

    kinds = ["skipped" if row.tolerated else _ELEMENTS.get(row.outcome, "") for row in result.rows]
    counts = {
        "tests": str(len(kinds)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
        "skipped": str(kinds.count("skipped")),
    }
    root = ElementTree.Element("testsuites", {"name": "privacy gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "privacy gate", **counts, "time": "0"})
    for row, kind in zip(result.rows, kinds, strict=True):
        names = {"classname": writable(f"privacy.{row.attack or 'report'}"), "name": writable(row.label), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if kind == "skipped":
            ElementTree.SubElement(case, kind, {"message": writable(row.sentence)})
        elif kind:
            child = ElementTree.SubElement(case, kind, {"message": writable(row.sentence), "type": row.outcome.value})
            child.text = writable(row.sentence)
        else:
            ElementTree.SubElement(case, "system-out").text = writable(row.sentence)
    ElementTree.indent(root)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + ElementTree.tostring(root, encoding="unicode") + "\n"
