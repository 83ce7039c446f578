"""Hostile plans, policies and reports: text of our own formats that somebody else wrote."""

import json
import os

import test_hostile_plans as of_plans
import test_hostile_reports as of_reports
from hostile_case import NO_FILES, TRAINING, Case, Content, Scene, numbered, parameters, sparse

from reports.records.report import Report

DATA = 'title = "p"\n[data]\nsource = "digits"\npool = 40\n'
CODE = ("os:system", "subprocess:Popen", "builtins:eval", "runpy:run_path", "evil:go", "torch.hub:load", "os:getcwd")
GATE = ("gate", "report.json", "--policy", "policy.toml")


def plans(scene: Scene) -> list[Case]:
    """Return hostile plans."""
    found: dict[str, Content] = {
        f"{text[:20]!r}, {said}"[:60]: text
        for text, said in parameters(of_plans.test_what_breaks_parsers_is_refused_in_a_short_sentence)
    }
    evil = {"evil.py": scene.python + "\n", "torch.py": scene.python + "\n", "sitecustomize.py": scene.python + "\n"}
    for name in CODE:
        model = f'[model]\narchitecture = "{name}"\noptions = {{command = "{scene.shell}"}}\n'
        found[f"architecture {name}"] = DATA + model + TRAINING
    for name in CODE[:3]:
        sides = '[released.members]\nsource = "digits"\n[released.nonmembers]\nsource = "digits"\n'
        found[f"generator {name}"] = f'title = "g"\n[released]\ngenerator = "{name}"\nsamples = 10\n{sides}'
        known = DATA + '[model]\narchitecture = "mlp"\n' + TRAINING
        found[f"scheme {name}"] = f'{known}[scheme]\nname = "{name}"\n'
        found[f"attack {name}"] = f'{known}[[attacks]]\nname = "{name}"\n'
        found[f"data {name}"] = known.replace('"digits"', f'"{name}"')
    found |= {
        f"path {path}": DATA.replace('"digits"', f'"{path}"') + '[model]\narchitecture = "mlp"\n' + TRAINING
        for path in ("/dev/zero", "/dev/stdin", "/proc/self/mem", "/etc/passwd", "~nobody/x.npz", "x" * 5000 + ".npz",
                     "a\\u001b[2J.npz", "http://127.0.0.1:1/x.npz", "pipe.npz", "pipe.csv", "| touch x")
    }  # fmt: skip
    found |= {
        "an epsilon of escapes": 'title = "\\u001b[2J"\nconfidence = "\\u001b[31m"\n',
        "a width of 2**62": f'{DATA}[model]\narchitecture = "mlp"\noptions = {{hidden = [{2**62}]}}\n{TRAINING}',
        "a pool of 2**62": DATA.replace("40", str(2**62)) + '[model]\narchitecture = "mlp"\n' + TRAINING,
        "a list for an option": f'{DATA}[model]\narchitecture = "mlp"\noptions = {{hidden = [[[]]]}}\n{TRAINING}',
        "a pickle": b"\x80\x04\x95",
        "empty": b"",
        **NO_FILES,
    }
    return numbered("plan", found.items(), {**evil, "pipe.npz": os.mkfifo, "pipe.csv": os.mkfifo}, "plan.toml")


def policies(scene: Scene) -> list[Case]:
    """Return hostile policies."""
    found: dict[str, Content] = {
        f"{text[:20]!r}, {said}": text
        for text, said in parameters(of_reports.test_a_hostile_policy_is_refused_in_a_short_sentence)
    }
    found |= {
        "no UTF-8": b"a = '\xed\xa0\x80'",
        "a measure of code": "[[rules]]\nmeasure = \"__import__('os')\"\nmaximum = 1\n",
        "a maximum of code": '[[rules]]\nmeasure = "auc"\nmaximum = "__import__(\'os\').getcwd()"\n',
        "20,000 keys": "\n".join(f"k{index} = 1" for index in range(20_000)),
        "escapes": '[[rules]]\nmeasure = "\\u001b[2J"\nmaximum = 1\n',
        **NO_FILES,
    }
    cases = numbered("policy", found.items(), {"report.json": valid_report()}, "policy.toml")
    return [Case(case.kind, case.name, case.files, GATE) for case in cases]


def reports(scene: Scene) -> list[Case]:
    """Return hostile reports, for `gate`, as a baseline, and for `render`."""
    found: dict[str, Content] = {
        f"{said}, {', '.join(change)[:20]}": json.dumps(of_reports.SMALL[0] | change)
        for change, said in parameters(of_reports.test_what_is_too_much_is_refused_in_a_short_sentence)
    }
    for index, (text,) in enumerate(parameters(of_reports.test_what_breaks_parsers_is_refused)):
        found[f"text {index}"] = text
    found |= {
        "51 MB": sparse(51_000_000),
        "2**40 bytes": sparse(2**40),
        "half of it": valid_report()[: len(valid_report()) // 2],
        "empty": b"",
        "a list": b"[]",
        **NO_FILES,
    }
    gated = numbered("report", found.items(), {"policy.toml": of_reports.POLICY}, "report.json")
    cases = [Case("report", f"gate: {case.name}", case.files, GATE) for case in gated]
    cases += [
        Case("report", f"render: {case.name}", case.files, ("render", "report.json", "--out", "out")) for case in gated
    ]
    both = {"policy.toml": of_reports.POLICY, "report.json": valid_report()}
    against = (*GATE, "--baseline", "earlier.json")
    earlier = numbered("report", NO_FILES.items(), both, "earlier.json")
    return cases + [Case("report", f"baseline: {case.name}", case.files, against) for case in earlier]


def valid_report() -> str:
    """Return a report that is read."""
    return Report.model_validate(of_reports.SMALL[0]).to_json()
