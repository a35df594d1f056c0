"""Wrong options, in a constructor or a parameter group, are refused with a sentence that says what is allowed."""

import inspect
import math
import re
import typing

import pytest
import torch
from torch import nn

import rankwise.optim
from rankwise.optim import AdamW, Fira, Flora, ProjectedAdam, TopR

NAMES = dir(rankwise.optim)
# By option: values that no optimizer takes, and values at the edge that it takes.
WRONG = {
    "lr": [-1e-3, math.nan, math.inf, "0.1", None, True],
    "weight_decay": [-0.1, math.nan, math.inf],
    "betas": [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9,), (0.9, 0.9, 0.9), 0.9, (0.9, math.nan)],
    "momentum": [1.0, -0.1, math.nan],
    "eps": [-1e-8, math.nan, math.inf],
    "scale": [0.0, -1.0, math.nan],
    "granularity": [0.0, -2.0, math.inf],
    "limit": [0.0, -1.0, math.nan],
    "clip": [0.0, -1.0, math.nan],
    "smallest": [-1.0, math.nan],
    "damping": [0.0, -1.0, math.nan],
    "beta2_decay": [0.1, math.nan],
    "energy": [0.0, 1.1, math.nan],
    "fraction": [0.0, -0.1, 1.1, math.nan],
    "threshold": [-0.1, 1.1],
    "drift": [-0.1, 1.1],
    "rho": [-0.1, 1.1],
    "rank": [0, -1, 2.0, 1.5, "2", True, None],
    "interval_steps": [0, -1, 2.0],
    "reference_width": [0, 1.5],
    "sketch_factor": [0],
    "random_from_step": [0, 1.5],
    "oversample": [-1, 1.5],
    "power_iterations": [-1],
    "least": [-1, 0.5],
    "min_8bit_size": [-1, 0.5],
    "newton_schulz_steps": [0, 1.5],
    "active_layers": [0, 1.5],
    "perturbation": [0.0, -1e-3, math.nan],
    "density": [0.0, 1.1, math.nan],
    "free_scale": [-1.0, math.nan],
    "adamw_scale": [0.0, -1.0, math.nan],
    "nesterov": [1, "yes"],
    "seed": [1.5, "1"],
    "release": [1, "yes", None],
    "error_feedback": [1, "yes"],
    "foreach": [1, "yes"],
    "fused": [1, "yes"],
    "lazy": [0, None],
    "scale_parameter": [1, "yes"],
}
EDGES = {
    "lr": [0.0, 1, torch.tensor(0.1)],
    "weight_decay": [0.0],
    "betas": [(0.0, 0.0), [0.9, 0.999]],
    "momentum": [0.0],
    "eps": [0.0],
    "limit": [math.inf],
    "clip": [math.inf],
    "beta2_decay": [0.0],
    "energy": [1.0],
    "fraction": [1.0],
    "threshold": [0.0, 1.0],
    "rho": [0.0, 1.0],
    "rank": [1, 1000],
    "interval_steps": [1],
    "oversample": [0],
    "power_iterations": [0],
    "least": [0],
    "random_from_step": [None, 1],
}
# Options that an optimizer takes in its constructor only.
NOT_BY_GROUP = {"release", "bits", "min_8bit_size"}


def params() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(6, 4)), nn.Parameter(torch.zeros(4))]


def signature(name: str) -> dict[str, inspect.Parameter]:
    arguments = dict(inspect.signature(getattr(rankwise.optim, name)).parameters)
    del arguments["params"]
    arguments.pop("pairs", None)  # its own test is in test_factor_pairs.py
    return arguments


def build(name: str, given: object = None, **options) -> torch.optim.Optimizer:
    required = {"rank": 2} if "rank" in signature(name) else {}
    cls = getattr(rankwise.optim, name)
    return cls(params() if given is None else given, **{**required, **options})


def choices(name: str) -> dict[str, tuple]:
    """The options with a fixed list of values, and these."""
    found = {}
    for option, argument in signature(name).items():
        if typing.get_origin(argument.annotation) is typing.Literal:
            found[option] = typing.get_args(argument.annotation)
    return found


OPTIONS = [(name, option) for name in NAMES for option in signature(name)]
CHOICES = [(name, option) for name in NAMES for option in choices(name)]


def test_every_option_is_in_a_table_or_a_choice() -> None:
    """So that an option that is added gets its wrong values here."""
    unknown = {option for name, option in OPTIONS if option not in WRONG} - {
        option for _, option in CHOICES
    }
    assert not unknown


@pytest.mark.parametrize(
    ("name", "option"), [case for case in OPTIONS if case[1] in WRONG], ids=str
)
def test_wrong_values_are_refused(name: str, option: str) -> None:
    """In the constructor, in one of its groups, and in a group that is added."""
    for value in WRONG[option]:
        expected = f"^{name}: {option}: got {re.escape(repr(value))}, allowed: "
        with pytest.raises(ValueError, match=expected):
            build(name, **{option: value})
        if option in NOT_BY_GROUP:
            continue
        groups = [{"params": params()}, {"params": params(), option: value}]
        expected = f"^{name}: param_groups\\[1\\].{option}: got {re.escape(repr(value))}, allowed: "
        with pytest.raises(ValueError, match=expected):
            build(name, groups)
        optimizer = build(name)
        with pytest.raises(ValueError, match=expected):
            optimizer.add_param_group(groups[1])
        assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "option"), [case for case in OPTIONS if case[1] in EDGES], ids=str
)
def test_values_at_the_edge_are_taken(name: str, option: str) -> None:
    for value in EDGES[option]:
        assert build(name, **{option: value}).param_groups
        if option not in NOT_BY_GROUP:
            build(name, [{"params": params(), option: value}])


@pytest.mark.parametrize(("name", "option"), CHOICES, ids=str)
def test_a_misspelt_choice_is_refused(name: str, option: str) -> None:
    allowed = choices(name)[option]
    listed = ", ".join(sorted(map(str, allowed)))
    for value in (str(allowed[0]).title() + "x", None, True, 0):
        with pytest.raises(ValueError, match=re.escape(listed)):
            build(name, **{option: value})
        with pytest.raises(ValueError, match=r"param_groups\[0\]|bits"):
            build(name, [{"params": params(), option: value}])
    for value in allowed:
        assert build(name, **{option: value}).param_groups


def test_the_sentence_names_the_nearest_choice() -> None:
    with pytest.raises(ValueError) as error:
        ProjectedAdam(params(), rank=2, projector="SVD")
    assert str(error.value) == (
        "ProjectedAdam: projector: got 'SVD', allowed: dct, normal, orthonormal, rademacher, rsvd, "
        "svd (nearest: 'svd')"
    )
    with pytest.raises(ValueError, match=r"side: got 'Right', .* \(nearest: 'right'\)"):
        ProjectedAdam(params(), rank=2, side="Right")
    with pytest.raises(ValueError, match=r"betas: got .*, allowed: 2 values, each a number in \["):
        AdamW(params(), betas=(0.9, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_of_a_group_is_refused(name: str) -> None:
    expected = rf"^{name}: param_groups\[0\]\.densee: got True, allowed: .*\(nearest: 'dense'\)"
    with pytest.raises(ValueError, match=expected):
        build(name, [{"params": params(), "densee": True}])
    with pytest.raises(ValueError, match=r"param_groups\[1\]\.learning_rate"):
        build(name).add_param_group({"params": params(), "learning_rate": 0.1})
    with pytest.raises(
        ValueError, match=r"param_groups\[0\]\.dense: got 1, allowed: True or False"
    ):
        build(name, [{"params": params(), "dense": 1}])
    for option in NOT_BY_GROUP & signature(name).keys():
        with pytest.raises(ValueError, match=rf"param_groups\[0\]\.{option}"):
            build(name, [{"params": params(), option: signature(name)[option].default}])


@pytest.mark.parametrize("name", NAMES)
def test_known_keys_of_a_group_are_taken(name: str) -> None:
    """Torch's, a scheduler's, a label, and those of a group of such an optimizer itself."""
    groups = [{"params": params(), "name": "decay", "initial_lr": 0.1, "dense": True, "lr": 0.2}]
    optimizer = build(name, groups)
    assert optimizer.param_groups[0]["lr"] == 0.2
    again = [{**group, "params": params()} for group in optimizer.param_groups]
    assert build(name, again).param_groups[0]["name"] == "decay"
    named = [("matrix", params()[0]), ("vector", params()[1])]
    assert build(name, named).param_groups[0]["param_names"] == ["matrix", "vector"]


def test_an_adafactor_group_has_its_own_clip() -> None:
    """Torch calls it d; a step of Adafactor from ones is lr RMS(W) times the clipped update."""
    loose, tight = (nn.Parameter(torch.ones(4)) for _ in range(2))
    groups = [{"params": [loose]}, {"params": [tight], "clip": 0.5}]
    optimizer = rankwise.optim.Adafactor(groups, lr=0.1)
    loose.grad = tight.grad = torch.ones(4)
    optimizer.step()
    assert torch.allclose(loose, torch.full((4,), 0.9))
    assert torch.allclose(tight, torch.full((4,), 0.95))


def test_a_group_that_does_not_name_an_option_gets_the_constructors() -> None:
    groups = [{"params": params(), "fraction": 0.5}, {"params": params()}]
    optimizer = TopR(groups, fraction=0.2)
    assert [group["fraction"] for group in optimizer.param_groups] == [0.5, 0.2]


def test_a_subclass_is_checked_too() -> None:
    class Shy(Fira):
        def __init__(
            self, params, lr: float = 1e-3, *, modesty: float = 0.5, label: str = "", **more
        ):
            super().__init__(params, lr, **more)

    with pytest.raises(ValueError, match="Shy: projector: got 'SVD'"):
        Shy(params(), rank=2, projector="SVD")
    with pytest.raises(ValueError, match=r"Shy: param_groups\[0\]\.modesty: got nan, allowed"):
        Shy([{"params": params(), "modesty": math.nan}], rank=2)
    assert Shy([{"params": params(), "modesty": 0.1, "label": "x"}], rank=2).param_groups


def test_an_option_that_the_optimizer_sets_itself_is_no_key() -> None:
    with pytest.raises(ValueError, match=r"param_groups\[0\]\.transport"):
        Flora([{"params": params(), "transport": "none"}], rank=2)
