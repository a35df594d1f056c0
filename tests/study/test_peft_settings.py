"""Settings of peft's types are checked while a study is planned, without importing peft or torch."""

import subprocess
import sys

import pytest

from helpers.repository import ROOT
from rankwise.core.config import ConfigError
from rankwise.study.grids import Cell
from rankwise.study.plan import Plan

FILE = "config/mine.yaml"


def plan(name: str, options: dict, ranks: tuple[int, ...] = (4,), **changes: object) -> Plan:
    grid = {
        "models": ["tiny"],
        "datasets": ["generated_reviews"],
        "methods": [name],
        "ranks": list(ranks),
        "seeds": [0],
    }
    study = {"name": "mine", "question": "?", "device": "cpu", "train": [grid]}
    return Plan({**study, "override": {name: {"options": options, **changes}}}, ROOT, FILE)


@pytest.mark.parametrize(
    ("name", "options", "key", "got", "allowed"),
    [
        ("loha", {"settings": {"alfa": 3}}, "settings", "'alfa'", "alpha, alpha_pattern"),
        ("loha", {"settings": {"alpha": "much"}}, "settings.alpha", "'much'", "an integer"),
        ("loha", {"settings": {"r": 3}}, "settings.r", "3", "no key: `rank` sets it"),
        ("loha", {"settings": {"target_modules": ["q"]}}, "settings", "'target_modules'", "alpha"),
        ("loha", {"settings": [3]}, "settings", "[3]", "keys with values or null"),
        ("loha", {"rank": None}, "rank", "None", "an integer, or no key"),
        ("ln_tuning", {"rank": 3}, "rank", "3", "null: LN_TUNING has no rank"),
        ("ln_tuning", {"settings": {"alpha": 3}}, "settings", "'alpha'", "exclude_modules"),
        ("ln_tuning", {"targets": ["query"]}, "targets", "'query'", "no key: LN_TUNING finds its"),
        ("adaption_prompt", {"targets": "all-linear"}, "targets", "'all-linear'", "no key: ADAPT"),
        ("loha", {"type": "LOHO"}, "type", "'LOHO'", "LOHA"),
        (
            "trainable_tokens",
            {"settings": {"token_indices": [7, 9]}},
            "settings.token_indices",
            "'2 of them'",
            "as many as the rank, 4",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    name: str, options: dict, key: str, got: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(name, options)
    said = str(caught.value)
    assert said.startswith(f"{FILE}: override.{name}.options.{key}: got {got.strip()}, allowed: ")
    assert allowed in said
    assert "\n" not in said


def test_a_type_that_reads_dense_matrices_takes_no_codes() -> None:
    with pytest.raises(
        ConfigError, match=r"override\.loha\.weights: got .*fp32 or bf16 under LOHA"
    ):
        plan("loha", {}, weights="nf4")
    plan("boft", {}, weights="nf4")


def test_inherited_fields_are_settings_too() -> None:
    """LoHa's rank_pattern stands in the configuration that LyCORIS' types share."""
    plan("loha", {"settings": {"rank_pattern": {"q_lin": 2}, "alpha": 8}})


def test_a_number_of_coefficients_may_be_larger_than_a_side() -> None:
    """FourierFT has 1000 of them in the paper; a matrix of `tiny` has 64 x 64 entries."""
    plan("fourierft", {}, ranks=(4096,))
    with pytest.raises(ConfigError, match=r"got 4097, allowed: ranks of fourierft from 1 to 4096"):
        plan("fourierft", {}, ranks=(4097,))
    with pytest.raises(ConfigError, match=r"got 65, allowed: ranks of loha from 1 to 64 "):
        plan("loha", {}, ranks=(65,))


def test_a_type_without_a_rank_stands_once_in_a_grid() -> None:
    cells: list[Cell] = plan("ln_tuning", {}, ranks=(2, 4)).cells("train")
    assert [cell.rank for cell in cells] == [0]


def test_all_targets_are_the_roles_of_the_model() -> None:
    found = plan("lora_all", {})
    (cell,) = found.cells("train")
    roles = ["query", "key", "value", "output", "up", "down"]
    assert found.method("train", cell)["options"]["targets"] == roles


def test_planning_imports_neither_peft_nor_torch() -> None:
    code = (
        "import sys; from rankwise.study.peft_settings import config_fields as fields; "
        "assert 'alpha' in fields('LOHA'); assert not {'peft', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
