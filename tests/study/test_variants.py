"""Variants: a method beside itself with other settings, each with a name, a label and its own runs."""

import copy
import json

import pytest

from helpers.repository import ROOT
from rankwise.core import provenance
from rankwise.core.config import ConfigError
from rankwise.study import grids, jobs, outputs
from rankwise.study.describe import about
from rankwise.study.plan import Cell, Plan

GRID = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora", "galore"],
    "ranks": [4],
    "seeds": [0],
    "variants": {
        "fast": {"override": {"lora": {"learning_rate": 1.0e-3}}},
        "all.linear": {"override": {"lora": {"options": {"targets": ["query", "up"]}}}},
        "short": {"schedule": {"epochs": 1}},
    },
}
STUDY = {"name": "s", "question": "?", "device": "cpu", "schedule": {"epochs": 4}}
PROFILE = {
    "models": ["tiny"],
    "datasets": ["generated_reviews"],
    "methods": ["full", "lora"],
    "ranks": [4],
    "measurements": ["memory"],
}
LORA = Cell("tiny", "generated_reviews", "lora", 4, seed=0)


def planned(grid: dict | None = None, profile: list | None = None, **changes: object) -> Plan:
    grid = copy.deepcopy({**GRID, **(grid or {})})
    return Plan({**STUDY, "train": [grid], "profile": profile or [], **changes}, ROOT, "s.yaml")


def trained(plan: Plan, variant: str | None) -> dict:
    """The request of LoRA's training run."""
    return plan.request("train", LORA._replace(variant=variant))


# Cells and requests -------------------------------------------------------------------------------


def test_each_variant_is_beside_the_method_as_it_is() -> None:
    runs = [(cell.method_name, cell.folder) for cell in planned().cells("train")]
    prefix = "tiny/generated_reviews"
    assert runs == [
        ("full", f"{prefix}/full/r0/seed0"),
        ("lora", f"{prefix}/lora/r4/seed0"),
        ("galore", f"{prefix}/galore/r4/seed0"),
        ("lora@all.linear", f"{prefix}/lora@all.linear/r4/seed0"),
        ("lora@fast", f"{prefix}/lora@fast/r4/seed0"),
        ("full@short", f"{prefix}/full@short/r0/seed0"),
        ("lora@short", f"{prefix}/lora@short/r4/seed0"),
        ("galore@short", f"{prefix}/galore@short/r4/seed0"),
    ]


def test_a_variant_changes_what_it_names_and_nothing_else() -> None:
    plan = planned()
    plain, fast, linear, short = (
        trained(plan, name) for name in (None, "fast", "all.linear", "short")
    )
    assert plain["method"]["learning_rate"] == 2e-4  # of the entry in config/methods.yaml
    assert plain["method"]["options"]["targets"] == ["query", "value"]
    assert fast == {**plain, "method": {**plain["method"], "learning_rate": 1e-3}}
    options = {**plain["method"]["options"], "targets": ["query", "up"]}
    assert linear == {**plain, "method": {**plain["method"], "options": options}}
    assert short == {**plain, "schedule": {**plain["schedule"], "epochs": 1}}


def test_a_plan_from_sorted_keys_is_the_same() -> None:
    """The page's job plans again from its request, whose keys are sorted."""
    override = {"lora": {"options": {"rslora": True, "alpha": 2}, "learning_rate": 1.0}}
    plan = planned({"variants": {"z": {"override": override}, **GRID["variants"]}})
    again = Plan(json.loads(json.dumps(plan.study, sort_keys=True)), ROOT, "s.yaml")
    assert plan.cells("train") == again.cells("train")
    for cell in plan.cells("train"):
        assert plan.request("train", cell) == again.request("train", cell)
    assert outputs.labels(plan) == outputs.labels(again)


def test_the_same_run_in_another_study_has_the_same_request() -> None:
    override = {"lora": {"learning_rate": 1.0e-3}}
    other = planned({"variants": {"slow": GRID["variants"]["short"]}, "override": override})
    assert provenance.digest(trained(other, None)) == provenance.digest(trained(planned(), "fast"))


def test_a_study_that_gains_a_variant_keeps_all_its_requests() -> None:
    without = {name: value for name, value in GRID.items() if name != "variants"}
    before = Plan({**STUDY, "train": [without]}, ROOT)
    after = planned()
    for measurement in ("train", "predict"):
        for cell in before.cells(measurement):
            assert before.request(measurement, cell) == after.request(measurement, cell)


def test_a_change_is_on_top_of_what_study_and_grid_override() -> None:
    own = {"lora": {"learning_rate": 5.0e-4, "options": {"alpha": 32}}}
    plan = planned({"override": own}, override={"galore": {"learning_rate": 3.0e-3}})
    method = trained(plan, "fast")["method"]
    assert (method["learning_rate"], method["options"]["alpha"]) == (1e-3, 32)
    method = trained(plan, "all.linear")["method"]
    assert (method["learning_rate"], method["options"]["alpha"]) == (5e-4, 32)
    galore = Cell("tiny", "generated_reviews", "galore", 4, seed=0, variant="short")
    assert plan.request("train", galore)["method"]["learning_rate"] == 3e-3


def test_methods_say_what_a_variant_with_a_schedule_is_for() -> None:
    variants = {
        "short": {"schedule": {"epochs": 1}, "methods": ["lora"]},
        "both": {"schedule": {"epochs": 2}, "override": {"galore": {"learning_rate": 0.5}}},
    }
    cells = planned({"variants": variants}).cells("train")
    assert [c.method_name for c in cells if c.variant] == ["galore@both", "lora@short"]


def test_a_profile_has_variants_of_what_decides_it() -> None:
    options = {"lora": {"options": {"targets": ["query", "up"]}}}
    plan = planned(profile=[{**PROFILE, "variants": {"all.linear": {"override": options}}}])
    memory = [cell.method_name for cell in plan.cells("memory")]
    assert memory == ["full", "lora", "lora@all.linear"]
    request = plan.request("memory", LORA._replace(seed=None, variant="all.linear"))
    assert request["method"]["options"]["targets"] == ["query", "up"]


LEDGER = {**PROFILE, "measurements": ["ledger"], "measured": False, "batch_size": 8}
LARGER = {"settings": {"batch_size": 16, "checkpointing": True}}


def test_a_profile_has_variants_with_settings_of_their_own() -> None:
    plan = planned(profile=[{**LEDGER, "variants": {"larger": LARGER}}])
    cells = [cell.method_name for cell in plan.cells("ledger")]
    assert cells == ["full", "lora", "full@larger", "lora@larger"]
    plain = plan.request("ledger", LORA._replace(seed=None))
    larger = plan.request("ledger", LORA._replace(seed=None, variant="larger"))
    assert (plain["shapes"]["batch_size"], plain["checkpointing"]) == (8, False)
    shapes = {**plain["shapes"], "batch_size": 16}
    assert larger == {**plain, "shapes": shapes, "checkpointing": True}
    assert plan.grids.variants["lora@larger"] == "batch size 16, checkpointing"


def test_training_and_profile_may_share_a_name_for_the_same_method() -> None:
    fast = override(options={"dropout": 0.5})
    train = {"methods": ["lora"], "variants": {"fast": {**fast, "schedule": {"epochs": 1}}}}
    profile = {**LEDGER, "methods": ["lora"], "variants": {"fast": {**fast, **LARGER}}}
    plan = planned(train, [profile])
    cell = LORA._replace(variant="fast")
    assert plan.request("train", cell)["schedule"]["epochs"] == 1
    assert plan.request("ledger", cell._replace(seed=None))["shapes"]["batch_size"] == 16


def test_a_name_in_a_table_has_its_method() -> None:
    assert [grids.base_name(name) for name in ("lora@all.linear", "lora")] == ["lora", "lora"]
    assert grids.split_name("lora@fast") == ("lora", "fast")
    assert grids.split_name("lora") == ("lora", None)


# Labels -------------------------------------------------------------------------------------------


def variant_labels(plan: Plan) -> dict[str, str]:
    return {name: label for name, label in outputs.labels(plan) if "@" in name}


def test_labels_name_what_differs_right_after_the_method() -> None:
    names = [name for name, _ in outputs.labels(planned())]
    place = names.index("lora")
    assert names[place : place + 5] == ["lora", "lora@all.linear", "lora@fast", "lora@short", "lora_qkv"]  # fmt: skip
    assert variant_labels(planned()) == {
        "full@short": "Full AdamW (epochs 1)",
        "lora@fast": "LoRA (learning rate 0.001)",
        "lora@all.linear": "LoRA (targets query+up)",
        "lora@short": "LoRA (epochs 1)",
        "galore@short": "GaLore (epochs 1)",
    }


@pytest.mark.parametrize(
    ("override", "label"),
    [
        ({"options": {"rslora": True, "dropout": 0.0}}, "LoRA (dropout 0, rslora)"),
        ({"options": {"rslora": True, "alpha": "rank"}}, "LoRA (rslora)"),  # alpha is as before
        ({"weights": "nf4"}, "LoRA (weights nf4)"),
        # Too long for a figure: the variant's name.
        (
            {"learning_rate": 1.0, "options": {"targets": ["query", "up"], "dropout": 0.2}},
            "LoRA (x)",
        ),
        ({"optimizer": {"weight_decay": 0.5}}, "LoRA (weight decay 0.5)"),
        # lora_alpha16 has this label already.
        ({"options": {"alpha": 16}}, "LoRA (alpha 16), x"),
    ],
)
def test_a_label_has_only_what_differs(override: dict, label: str) -> None:
    plan = planned({"variants": {"x": {"override": {"lora": override}}}})
    assert variant_labels(plan) == {"lora@x": label}


def test_a_study_may_give_the_words_of_a_label() -> None:
    variants = {"x": {"override": {"lora": {"learning_rate": 1.0}}, "label": "as published"}}
    assert variant_labels(planned({"variants": variants})) == {"lora@x": "LoRA (as published)"}


def test_a_label_with_brackets_gets_no_second_pair() -> None:
    variants = {"x": {"override": {"lora_qkv": {"learning_rate": 1.0}}}}
    plan = planned({"methods": ["lora_qkv"], "variants": variants})
    assert variant_labels(plan) == {"lora_qkv@x": "LoRA (q, k, v) with learning rate 1"}


def test_the_page_describes_each_variant_with_its_own_ranks_and_storage() -> None:
    variants = {"x": {"override": {"lora": {"weights": "bf16"}}}}
    methods = {entry["name"]: entry for entry in about(planned({"variants": variants}))["methods"]}
    assert list(methods) == ["full", "lora", "lora@x", "galore"]
    assert methods["lora@x"]["label"] == "LoRA (weights bf16)"
    assert [methods[name]["weights"] for name in ("lora", "lora@x")] == ["fp32", "bf16"]
    assert methods["lora@x"]["ranks"] == [4]
    assert methods["lora@x"]["note"] == "a variant: weights bf16"
    assert methods["lora@x"]["source"] == methods["lora"]["source"]


# Searches -----------------------------------------------------------------------------------------


SEARCH = {"learning_rate_factors": [1, 10], "seeds": [5]}


def test_a_variant_is_searched_with_its_own_settings() -> None:
    variants = {"fast": GRID["variants"]["fast"]}
    plan = planned({"methods": ["full", "lora"], "variants": variants, "search": SEARCH})
    tried: dict[str, list] = {}
    for cell in plan.cells("trial"):
        tried.setdefault(cell.method_name, []).append(cell.trial)
    assert tried == {
        "full": ["lr2e-05", "lr0.0002"],
        "lora": ["lr0.0002", "lr0.002"],
        "lora@fast": ["lr0.001", "lr0.01"],
    }
    curve = LORA._replace(seed=None)
    plain, fast = plan.choice(curve), plan.choice(curve._replace(variant="fast"))
    assert [trial["trial"] for trial in fast["trials"]] == ["lr0.001", "lr0.01"]
    digests = [{trial["digest"] for trial in choice["trials"]} for choice in (plain, fast)]
    assert digests[0].isdisjoint(digests[1])
    chosen = [trained(plan, name)["inputs"]["search"] for name in (None, "fast")]
    assert chosen == [provenance.digest(plain), provenance.digest(fast)]


def test_the_trials_of_a_variant_are_inputs_of_its_own_choice() -> None:
    variants = {"fast": GRID["variants"]["fast"]}
    plan = planned({"methods": ["lora"], "variants": variants, "search": SEARCH})
    for job in jobs.choice_jobs(plan):
        folder = f"/{job.cell.method_name}/"
        assert len(job.inputs) == 2
        assert all(folder in path for path in (*job.inputs, *job.outputs))


# Mistakes -----------------------------------------------------------------------------------------


def override(**changes: object) -> dict:
    return {"override": {"lora": changes}}


FAST = override(learning_rate=1.0e-3)
# What a user might get wrong -> the grid's variants, what the sentence must hold.
WRONG = {
    "a variant that changes nothing": (
        {"same": override(learning_rate=2.0e-4)},
        ["train.0.variants.same: got 'the settings of lora at tiny/generated_reviews/lora@same/r4'"],
    ),
    "a default written out": (
        {"same": override(options={"rslora": False})},
        ["train.0.variants.same: got 'the settings of lora at"],
    ),
    "a schedule that is the study's": (
        {"same": {"schedule": {"epochs": 4}}},
        ["train.0.variants.same: got 'the settings of full at"],
    ),
    "two variants that are the same": (
        {"fast": FAST, "quick": FAST},
        ["train.0.variants.quick: got 'the settings of lora@fast at", "no other lora"],
    ),
    "no change at all": ({"empty": {}}, ["train.0.variants.empty: got 'no change'", "override"]),
    "an unknown method": (
        {"x": {"override": {"lroa": {"learning_rate": 1.0}}}},
        ["train.0.variants.x.override: got 'lroa', allowed: full, galore, lora (nearest: 'lora')"],
    ),
    "a method outside the grid": (
        {"x": {"override": {"rsvd": {"learning_rate": 1.0}}}},
        ["train.0.variants.x.override: got 'rsvd', allowed: full, galore, lora"],
    ),
    "a method that it is not for": (
        {"x": {**FAST, "methods": ["full"]}},
        ["train.0.variants.x.override: got 'lora', allowed: full"],
    ),
    "methods outside the grid": (
        {"x": {**FAST, "methods": ["lora", "rsvd"]}},
        ["train.0.variants.x.methods: got 'rsvd', allowed: full, galore, lora"],
    ),
    "a bad name": ({"a b": FAST}, ["train.0.variants: got 'a b'", "letters, digits, _, - and ."]),
    "a name with the mark": ({"a@b": FAST}, ["train.0.variants: got 'a@b'", "letters, digits"]),
    "a number as a name": ({0.001: FAST}, ["train.0.variants: got 0.001, allowed: a text"]),
    "a rank": (
        {"x": override(options={"rank": 8})},
        ["train.0.variants.x.override.lora.options: got 'rank'", "ranks of a curve are those of the grid"],
    ),
    "a misspelt key": ({"x": {"overide": {}}}, ["train.0.variants.x: got 'overide'", "'override'"]),
    "a wrong value": ({"x": override(options={"alpha": "much"})}, ["lora.options.alpha: got 'much'"]),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_one_sentence(what: str) -> None:
    variants, wanted = WRONG[what]
    with pytest.raises(ConfigError) as caught:
        planned({"variants": variants})
    assert all(part in str(caught.value) for part in wanted), caught.value
    assert "\n" not in str(caught.value)


def test_a_learning_rate_changes_no_profile() -> None:
    with pytest.raises(ConfigError, match=r"profile\.0\.variants\.fast: got 'the settings of lora"):
        planned(profile=[{**PROFILE, "variants": {"fast": FAST}}])


def test_a_profile_has_no_schedule() -> None:
    with pytest.raises(ConfigError, match=r"profile\.0\.variants\.x: got 'schedule', allowed"):
        planned(profile=[{**PROFILE, "variants": {"x": {"schedule": {"epochs": 1}}}}])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"batch_sise": 8}, r"variants\.x\.settings: got 'batch_sise', allowed: .*batch_size"),
        ({"batch_size": 0}, r"variants\.x\.settings\.batch_size: got 0, allowed: at least 1"),
        ({"ranks": [2]}, r"variants\.x\.settings: got 'ranks', allowed: .*precision"),
        ({"batch_size": 8}, r"variants\.x: got 'the settings of full at .*/full@x/r0'"),
    ],
)
def test_settings_of_a_profile_are_checked(settings: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        planned(profile=[{**LEDGER, "variants": {"x": {"settings": settings}}}])


def test_one_name_is_one_setting_of_all_profiles() -> None:
    other = {"settings": {"batch_size": 32}}
    grids_of_study = [
        {**LEDGER, "methods": ["lora"], "variants": {"x": LARGER}},
        {**LEDGER, "methods": ["lora"], "ranks": [2], "variants": {"x": other}},
    ]
    with pytest.raises(ConfigError, match=r"profile\.1\.variants\.x: got 'batch size 32', allowed"):
        planned(profile=grids_of_study)


def test_a_rate_that_a_search_replaces_changes_nothing() -> None:
    search = {"learning_rates": [1.0e-3, 1.0e-2], "seeds": [5]}
    with pytest.raises(ConfigError, match=r"variants\.fast: got 'the settings of lora at"):
        planned({"methods": ["lora"], "variants": {"fast": FAST}, "search": search})


def test_one_name_is_one_change_in_the_whole_study() -> None:
    options = override(options={"dropout": 0.5})
    with pytest.raises(ConfigError) as caught:
        planned(profile=[{**PROFILE, "variants": {"fast": options}}])
    assert str(caught.value) == (
        "s.yaml: profile.0.variants.fast: got 'dropout 0.5', "
        "allowed: what lora@fast changes in another grid of the study, or another name"
    )


def test_one_cell_with_two_settings_is_told_of_variants() -> None:
    plain = {name: value for name, value in GRID.items() if name != "variants"}
    other = {**plain, "methods": ["lora"], "override": {"lora": {"learning_rate": 1.0e-3}}}
    with pytest.raises(ConfigError, match=r"train\.1: got 'tiny/.*/lora/r4/seed0'.* a variant"):
        Plan({**STUDY, "train": [plain, other]}, ROOT)
