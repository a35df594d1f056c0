"""AdaLoRA takes away the triplets that peft's own allocator takes away, and learns by the authors' loss."""

from types import SimpleNamespace

import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn

from rankwise.methods.parts.base import adapt

BEGIN, FINAL, EVERY, STEPS = 2, 10, 2, 14
RANK, START = 4, 6
NAMES = {
    "task": "classification",
    "hidden_size": 12,
    "modules": {role: {"name": role} for role in ("query", "value")},
    "head": [],
    "new_head": [],
}


class Regression(nn.Module):
    """Two matrices, and the loss of a fixed target."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(12, 8), nn.Linear(12, 16)

    def forward(self, x: Tensor, target: Tensor) -> SimpleNamespace:
        answer = torch.cat([self.query(x), self.value(x)], 1)
        return SimpleNamespace(loss=(answer - target).square().mean(), logits=answer)


def test_triplets_are_those_of_pefts_allocator() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 12, generator=generator)
    target = torch.randn(20, 24, generator=generator)
    torch.manual_seed(0)
    base, same = Regression(), Regression()
    same.load_state_dict(base.state_dict())
    options = {"rank": RANK, "targets": ["query", "value"], "alpha": 4.0, "begin_step": BEGIN,
               "final_step": FINAL, "every_steps": EVERY}  # fmt: skip
    torch.manual_seed(1)
    method, ours = adapt({"module": "adalora", "options": options}, base, NAMES)
    torch.manual_seed(1)
    config = AdaLoraConfig(
        init_r=START, target_r=RANK, lora_alpha=4, tinit=BEGIN, tfinal=STEPS - FINAL, deltaT=EVERY, total_step=STEPS,
        orth_reg_weight=0.5, target_modules=["query", "value"],
    )  # fmt: skip
    theirs = get_peft_model(
        same, config
    ).base_model  # the wrapper around it leaves out the regularizer
    optimizers = [
        torch.optim.Adam([param for param in model.parameters() if param.requires_grad], lr=0.05)
        for model in (ours, theirs)
    ]
    counts = []
    for step in range(1, STEPS + 1):
        found, expected = ours(x, target), theirs(x, target)
        assert found.loss < expected.loss  # the reported loss has no regularizer
        found.loss.backward()
        expected.loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        theirs.update_and_allocate(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        method.after_step(ours, optimizers[0], step)
        parameters = dict(theirs.model.named_parameters())
        for name, param in ours.base_model.model.named_parameters():
            torch.testing.assert_close(param, parameters[name], atol=1e-5, rtol=1e-4)
        counts.append(sum((p != 0).sum().item() for n, p in parameters.items() if "lora_E" in n))
    assert counts[0] == 2 * START
    assert counts[FINAL - 1 :] == [2 * RANK] * (STEPS - FINAL + 1)
