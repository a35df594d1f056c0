"""Small models, and cases of the methods that peft implements: built, adapted, trained a few steps."""

import copy

import torch
import yaml
from torch import nn

from helpers.repository import ROOT
from rankwise.methods.parts.base import adapt
from rankwise.models import build as models

LIBRARY = yaml.safe_load((ROOT / "config/models.yaml").read_text())
SMALL_BERT = {
    "num_hidden_layers": 2,
    "vocab_size": 96,
    "hidden_size": 48,
    "intermediate_size": 96,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SMALL_GPT2 = {"vocab_size": 96, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
              "attn_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}  # fmt: skip
FEED_FORWARD = {
    "minilm": {
        "output": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    "stories260k": {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
    "gpt2": {"output": "attn.c_proj", "down": "mlp.c_proj"},
    "tiny": {},
}
QV, QKV = ("query", "value"), ("query", "key", "value")
CASES = {
    "lora": ("lora", {"rank": 4, "targets": QV, "alpha": 8.0}),
    "rslora": ("lora", {"rank": 4, "targets": QV, "rslora": True}),
    "dora": ("lora", {"rank": 4, "targets": QV, "dora": True}),
    "gaussian": ("lora", {"rank": 4, "targets": QV, "init": "gaussian"}),
    "pissa": ("lora", {"rank": 4, "targets": QV, "init": "pissa"}),
    "pissa_niter_4": ("lora", {"rank": 4, "targets": QV, "init": "pissa_niter_4"}),
    "olora": ("lora", {"rank": 4, "targets": QV, "init": "olora"}),
    "hira": ("hira", {"rank": 4, "targets": QKV}),
    "shira": ("shira", {"rank": 4, "targets": QV}),
    "ia3": ("ia3", {}),
    "vera": ("vera", {"rank": 8, "targets": QV}),
    "oft": ("oft", {"rank": 8, "targets": QV}),
    "oft_neumann": ("oft", {"rank": 8, "targets": QV, "neumann_terms": 5, "share": True}),
    "miss": ("miss", {"rank": 4, "targets": QV}),
    "bat": ("miss", {"rank": 4, "targets": QV, "variant": "bat"}),
    "mini": ("miss", {"rank": 4, "targets": QV, "variant": "mini", "mini_rank": 8}),
    "bitfit": ("bitfit", {}),
    "prompt_tuning": ("prompt_tuning", {"rank": 3}),
    "prompt_tuning_random": ("prompt_tuning", {"rank": 3, "init": "random"}),
    "prefix_tuning": ("prefix_tuning", {"rank": 3}),
    "p_tuning": ("p_tuning", {"rank": 3, "hidden": 16}),
    "p_tuning_mlp": ("p_tuning", {"rank": 3, "hidden": 16, "encoder": "mlp"}),
}
PROMPTS = ("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_mlp")
# What the entries of config/methods.yaml on `tiny` do not show (test_conformance.py): options that no
# entry sets; BERT's names, biases and sizes; Llama's.
NO_ENTRY = ("gaussian", "pissa_niter_4", "oft_neumann", "mini", "prompt_tuning_random", "p_tuning")
PAIRS = [
    *(("tiny", "classification", case) for case in NO_ENTRY),
    *(("minilm", "classification", case) for case in ("lora", "ia3", "bitfit", *PROMPTS)),
    *(("stories260k", "language_modelling", case) for case in ("lora", "ia3", *PROMPTS)),
]


def entry(name: str) -> dict:
    """A small model's entry with a name for every role."""
    found = copy.deepcopy(LIBRARY[name])
    found["architecture"] |= {
        "minilm": SMALL_BERT,
        "gpt2": SMALL_GPT2,
        "stories260k": {"num_hidden_layers": 2},
    }.get(name, {})
    width = found["architecture"].get("n_embd") or found["architecture"].get("hidden_size")
    found["hidden_size"] = width or found["hidden_size"]
    found["modules"] |= {
        role: {"name": module} for role, module in FEED_FORWARD.get(name, {}).items()
    }
    return found


def build(
    name: str, task: str, device: str = "cpu", attention: str = "sdpa"
) -> tuple[nn.Module, dict]:
    torch.manual_seed(0)
    model = models.from_shapes(
        entry(name), task, 2 if task == "classification" else 0, device, attention
    )
    return model.eval(), models.names(entry(name), task)


def prepare(case: str, name: str, task: str, device: str = "cpu", seed: int = 1, **changes: object):
    """(method, adapted model, names), the base from seed 0 and the method from `seed`."""
    model, names = build(name, task, device, "eager" if device == "meta" else "sdpa")
    module, options = CASES[case]
    torch.manual_seed(seed)
    with torch.device(device):
        method, adapted = adapt({"module": module, "options": {**options, **changes}}, model, names)
    return method, adapted.eval(), names


def batch(task: str) -> dict[str, torch.Tensor]:
    """Four texts of ten tokens; the last two are padded after six (with the token that pads Llama and GPT-2)."""
    ids = torch.randint(3, 96, (4, 10), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[2:, 6:], mask[2:, 6:] = 2, 0
    labels = (
        torch.tensor([0, 1, 1, 0]) if task == "classification" else ids.masked_fill(mask == 0, -100)
    )
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train(model: nn.Module, task: str, steps: int = 3) -> None:
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch(task)).loss.backward()
        optimizer.step()


@torch.no_grad()
def logits(model: nn.Module, task: str) -> torch.Tensor:
    return model(**batch(task)).logits


def trainable(model: nn.Module) -> dict[str, torch.Size]:
    return {name: param.shape for name, param in model.named_parameters() if param.requires_grad}
