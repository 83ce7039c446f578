"""A plan that does not fit is refused before anything is trained, in a sentence that names key, value and remedy."""

import pytest

from attacks.registry import registered_attacks
from auditor.plan.plan import parse_plan, parse_table
from auditor.plan.resolve import resolve_architecture, resolve_attacks, resolve_defense, resolve_recipe
from auditor.verdicts.findings import check_limits
from defenses.errors import PlanError
from defenses.nadam import Nadam
from defenses.updates import SGD, Adam, UpdateRule

GOOD = """
title = "t"
[data]
source = "digits"
pool = 100
[model]
architecture = "mlp"
[training]
epochs = 1
batch_size = 10
learning_rate = 0.1
"""

CHECKPOINT = """
title = "t"
model = { architecture = "mlp" }
checkpoint = { path = "x", members = { source = "a" }, nonmembers = { source = "b" } }
"""


def test_a_good_plan_and_its_defaults() -> None:
    plan = parse_plan(GOOD)
    assert plan.seed is None
    assert [limit.measure for limit in plan.limits] == ["tpr_at_fpr_0.01"]
    assert {attack.name for attack, _ in resolve_attacks(plan)} >= {"lira", "rmia", "loss_threshold"}
    assert not any(required for _, required in resolve_attacks(plan))
    assert resolve_defense(plan).name == "none"


def test_digest_is_of_the_content() -> None:
    reordered = GOOD.replace("epochs = 1\nbatch_size = 10", "# a remark\nbatch_size = 10\nepochs = 1")
    assert parse_plan(reordered).digest == parse_plan(GOOD).digest
    assert parse_plan(GOOD.replace("epochs = 1", "epochs = 2")).digest != parse_plan(GOOD).digest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("pool =", "pol ="), r"'data.pol' is unknown; did you mean 'pool'"),
        (GOOD.replace("epochs = 1", "epochs = 0"), r"training.epochs: .*greater than or equal to 1, not 0"),
        (GOOD.replace("epochs = 1\n", ""), "'training.epochs' is missing"),
        (GOOD + "[checkpoint]\npath='x'\nmembers={source='a'}\nnonmembers={source='b'}", "exactly one"),
        (GOOD + "[claim]\nepsilon=1\ndelta=1e-5", "is for a checkpoint"),
        (GOOD + "sed = 1", r"'training.sed' is unknown"),
        (GOOD.replace("[training]", "[trainin]"), "did you mean 'training'"),
        ("title = ", "not TOML"),
        (GOOD.replace('"mlp"', "3"), "valid string"),
        (GOOD + 'optimizer = "adam"\nmomentum = 0.9', "momentum is for optimizer 'sgd'"),
        (GOOD + 'optimizer = "nadam"\nmomentum = 0.9', "momentum is for optimizer 'sgd'"),
        (GOOD + "[control]\nlearning_rate = 0.5", "an unprotected target is its own control"),
        (CHECKPOINT + "seed = 3", "nothing is drawn from it for a checkpoint"),
        (CHECKPOINT + '[scheme]\nname = "dp_sgd"\nepsilon = 1.0', "without .training."),
    ],
)
def test_a_bad_plan_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        parse_plan(text)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('[scheme]\nname = "dpsgd"', "did you mean 'dp_sgd'"),
        ('[scheme]\nname = "dp_sgd"\nepsilom = 2.0', "did you mean 'epsilon'"),
        ('[scheme]\nname = "dp_sgd"', "give exactly one of the two"),
        ('[scheme]\nname = "dp_sgd"\nepsilon = -1.0', "above 0"),
        ('[scheme]\nname = "none"\nepsilon = 1.0', "it takes none"),
    ],
)
def test_a_bad_scheme_is_refused_in_a_sentence(extra: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        resolve_defense(parse_plan(GOOD + extra))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('[[attacks]]\nname = "lirra"', "did you mean 'lira'"),
        ('[[attacks]]\nname = "lira"\nshadow = 3', "did you mean 'shadows'"),
        ('[[attacks]]\nname = "lira"\nshadows = 1', "at least 2"),
        ('[[attacks]]\nname = "lira"\n[[attacks]]\nname = "lira"', "listed twice"),
        ('[[attacks]]\nname = "lira"\nvariance = "wide"', "variance is 'wide'"),
        ('[[attacks]]\nname = "lira"\nshadows = 4.5', "shadows is 4.5"),
        ('[[attacks]]\nname = "lira"\nonline = "perhaps"', "online is 'perhaps'"),
    ],
)
def test_a_bad_attack_is_refused_in_a_sentence(extra: str, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        resolve_attacks(parse_plan(GOOD + extra))


@pytest.mark.parametrize(
    ("measure", "maximum", "words"),
    [
        ("acu", 0.6, "acu"),
        ("auc", 0.4, r"\[0.5, 1\]"),
        ("tpr_at_fpr_0.01", 0.001, "guessing alone reaches 0.01"),
        ("tpr_at_fpr_0.010", 0.1, "is spelled 'tpr_at_fpr_0.01'"),
    ],
)
def test_a_bad_limit_is_refused_in_a_sentence(measure: str, maximum: float, words: str) -> None:
    plan = parse_plan(GOOD + f'[[limits]]\nmeasure = "{measure}"\nmaximum = {maximum}')
    with pytest.raises(PlanError, match=words):
        check_limits(plan, [registered_attacks()["lira"]()])


def test_a_named_attack_is_required_and_keeps_its_parameters() -> None:
    plan = parse_plan("shadows = 5\n" + GOOD + '[[attacks]]\nname = "rmia"\ngamma = 2.0\nonline = false')
    ((attack, required),) = resolve_attacks(plan)
    assert required
    assert (attack.name, attack.shadows, attack.gamma, attack.online) == ("rmia", 5, 2.0, False)  # type: ignore[attr-defined]


def test_code_runs_only_where_it_is_allowed() -> None:
    plan = parse_plan(GOOD.replace('"mlp"', '"os.path:join"'))
    with pytest.raises(PlanError, match="--allow-code"):
        resolve_architecture(plan, allow_code=False)
    assert resolve_architecture(plan, allow_code=True).name == "os.path:join"


def test_words_become_the_types_of_the_parameters() -> None:
    plan = parse_plan(GOOD + '[[attacks]]\nname = "lira"\nonline = "false"')
    ((attack, _),) = resolve_attacks(plan)
    assert attack.online is False  # type: ignore[attr-defined]


def test_an_attack_that_a_limit_names_must_run() -> None:
    plan = parse_plan(GOOD + '[[limits]]\nmeasure = "auc"\nmaximum = 0.6\nattack = "rmia"')
    assert {attack.name: required for attack, required in resolve_attacks(plan)} == {
        "lira": False, "loss_threshold": False, "rmia": True, "shadow_classifier": False,
    }  # fmt: skip


def test_delta_is_that_of_what_is_promised() -> None:
    claim = "[claim]\nepsilon = 1.0\ndelta = 1e-4\n"
    assert parse_plan(CHECKPOINT + claim).judged_delta == 1e-4
    assert parse_plan("delta = 1e-6" + CHECKPOINT + claim).judged_delta == 1e-6
    assert parse_plan(GOOD).judged_delta == 1e-5


def test_what_is_audited_does_not_change_with_how_it_is_judged() -> None:
    plain = parse_plan(GOOD).subject_digest
    judged = parse_plan(
        "seed = 3\nshadows = 9\nconfidence = 0.9" + GOOD.replace('"t"', '"u"') + "[control]\nenabled = false"
    )
    assert judged.subject_digest == plain
    assert parse_plan(GOOD.replace("pool = 100", "pool = 101")).subject_digest != plain
    assert parse_plan(GOOD + '[scheme]\nname = "dp_sgd"\nepsilon = 1.0').subject_digest != plain


def test_a_parameter_without_a_default_is_asked_for() -> None:
    plan = parse_plan(GOOD + '[[attacks]]\nname = "attribute_inference"\n')
    with pytest.raises(PlanError, match="attack 'attribute_inference' needs its parameter 'attribute'"):
        resolve_attacks(plan)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("sgd", SGD(weight_decay=0.1)), ("adam", Adam(weight_decay=0.1)), ("nadam", Nadam(weight_decay=0.1))],
)
def test_a_plan_chooses_its_optimiser(name: str, rule: UpdateRule) -> None:
    plan = parse_plan(GOOD + f'optimizer = "{name}"\nweight_decay = 0.1')
    assert plan.training is not None
    recipe = resolve_recipe(plan.training, resolve_architecture(plan, allow_code=False), 100)
    assert type(recipe.optimizer) is type(rule)
    assert recipe.optimizer == rule


@pytest.mark.parametrize(("key", "command"), [("tune", "auditor tune"), ("schemes", "auditor compare")])
def test_a_plan_of_another_command_is_sent_there(key: str, command: str) -> None:
    with pytest.raises(PlanError, match=command):
        parse_table({"title": "x", key: []})
