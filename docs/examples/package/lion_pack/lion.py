"""Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2), as any torch project would write it."""

import torch

from .mixing import mix


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(mix(state["momentum"], p.grad, beta1).sign(), alpha=-group["lr"])
                state["momentum"].copy_(mix(state["momentum"], p.grad, beta2))
