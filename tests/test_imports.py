"""No modules import each other in a circle, in any of the four packages; imports for type checkers count."""

import grimp


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("auditor", "attacks", "defenses", "reports")
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    open_ended = dict(imports)
    while leaves := [module for module, below in open_ended.items() if not below & open_ended.keys()]:
        for module in leaves:
            del open_ended[module]
    # What is left is a circle, or imports one.
    circles = {module: sorted(below & open_ended.keys()) for module, below in open_ended.items()}
    assert not circles
