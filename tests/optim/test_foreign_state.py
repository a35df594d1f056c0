"""The state of another optimizer is refused in one sentence, and nothing of it is loaded."""

import copy
import itertools

import pytest
import torch
from torch import nn

import rankwise.optim

RANKED = ("Apollo", "Fira", "Flora", "LDAdam", "MLorc", "ProjFactor", "ProjectedAdam")
NAMES = (
    "AdaLomo",
    "Adafactor",
    "AdamW",
    "BAdam",
    "Frugal",
    "Lisa",
    "Lomo",
    "Muon",
    "Sgd",
    "TopR",
    *RANKED,
)


def stepped(name: str) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    """Two parameters and an optimizer that has taken one step."""
    generator = torch.Generator().manual_seed(3)
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 8), (5,))]
    options = {"rank": 2} if name in RANKED else {}
    optimizer = getattr(rankwise.optim, name)(params, lr=1e-3, **options)
    step(params, optimizer)
    return params, optimizer


def step(params: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    for param in params:
        param.grad = param.detach() * 2
    optimizer.step()


@pytest.mark.parametrize(("saved", "loading"), itertools.permutations(NAMES, 2))
def test_another_optimizers_state_is_refused(saved: str, loading: str) -> None:
    state = stepped(saved)[1].state_dict()
    _, optimizer = stepped(loading)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(
        ValueError, match=rf"^{loading}\.load_state_dict: param_groups\[0\]: got "
    ) as caught:
        optimizer.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert str(optimizer.state_dict()) == str(before)


@pytest.mark.parametrize("name", NAMES)
def test_its_own_state_is_loaded_also_with_a_schedulers_keys(name: str) -> None:
    params, optimizer = stepped(name)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 9, cycle_momentum=False)
    others, resumed = stepped(name)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(params, optimizer)
    step(others, resumed)
    for param, other in zip(params, others, strict=True):
        assert torch.equal(param, other)


def test_the_sentence_names_what_is_lacking_and_what_is_foreign() -> None:
    with pytest.raises(
        ValueError, match="got a state without momentum and a state with betas, eps"
    ):
        stepped("Sgd")[1].load_state_dict(stepped("AdamW")[1].state_dict())
