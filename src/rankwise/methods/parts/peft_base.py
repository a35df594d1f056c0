"""What the methods that peft implements share: a configuration goes in, an adapted model comes out.

The head of a classifier trains in full beside the adaptation; a language model's head stays frozen.
"""

import inspect

import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import ModelOutput

from rankwise.methods.parts.base import Method
from rankwise.methods.parts.effective_rank import effective_rank
from rankwise.models.storage import dequantize

TASK_TYPES = {"classification": "SEQ_CLS", "language_modelling": "CAUSAL_LM"}
IGNORED = -100


def modules_of(model: nn.Module, roles: tuple[str, ...], names: dict) -> dict[str, nn.Module]:
    """{full name: module} of the modules with one of `roles`.

    A role's name is the end of a module's, in whole components; where two fit, the longer decides, so that BERT's
    `attention.output.dense` is not taken for its `output.dense`.
    """
    role_of = {entry["name"]: role for role, entry in names["modules"].items()}
    found = {}
    for name, module in model.named_modules():
        fitting = [end for end in role_of if f".{name}".endswith(f".{end}")]
        if fitting and role_of[max(fitting, key=len)] in roles:
            found[name] = module
    return found


def pairs(model: nn.Module) -> list[tuple[nn.Linear, nn.Linear]]:
    """LoRA's A and B of every adapted layer."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    return [(layer.lora_A[name], layer.lora_B[name]) for layer in layers for name in layer.lora_A]


@torch.no_grad()
def product_rank(model: nn.Module) -> dict[str, float]:
    """The effective rank of B A, the mean over adapted layers."""
    ranks = [effective_rank(b.weight, a.weight) for a, b in pairs(model)]
    return {"product_effective_rank": sum(ranks) / len(ranks)} if ranks else {}


class PeftMethod(Method):
    """A method whose `config` is peft's; a subclass has `targets`."""

    LINEAR_ONLY = False  # peft has the method for nn.Linear, not for GPT-2's Conv1D

    def config(self, names: dict) -> PeftConfig:
        """The configuration for peft, with the modules to adapt and the head to train left open."""
        raise NotImplementedError

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """`config` with this model's modules filled in."""
        config = self.config(names)
        config.target_modules = set(modules_of(model, self.targets, names))
        config.modules_to_save = list(names["new_head"]) or None
        if hasattr(config, "fan_in_fan_out"):
            config.fan_in_fan_out = self.has_conv1d(model, names)
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        return get_peft_model(model, self.resolved(model, names))

    def has_conv1d(self, model: nn.Module, names: dict) -> bool:
        """Whether a target is one of GPT-2's matrices, which are kept as (in, out)."""
        return any(
            isinstance(module, Conv1D) for module in modules_of(model, self.targets, names).values()
        )

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        if self.LINEAR_ONLY and self.has_conv1d(model, names):
            return "peft has this method for nn.Linear; the targets of this model are Conv1D"
        return None

    def merge(self, model: nn.Module) -> nn.Module | None:
        return dequantize(model).merge_and_unload()


class PromptMethod(PeftMethod):
    """A method with `rank` virtual tokens and a frozen model; nothing merges.

    The virtual tokens take positions, so a text may be `rank` tokens shorter than the model's limit. The adapted model
    answers like any other: a row of logits for each token of the text, a loss over the labels of the text.
    """

    IDENTITY = False
    IN_TEXT = True  # the virtual tokens are embeddings before the text, not keys and values in every layer

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """`config` with the model's sizes, some of which peft does not find in DistilBERT's configuration."""
        config = self.config(names)
        config.task_type = TASK_TYPES[names["task"]]
        config.modules_to_save = list(names["new_head"]) or None
        config.token_dim = names["hidden_size"]
        config.num_layers, config.num_attention_heads = (
            model.config.num_hidden_layers,
            model.config.num_attention_heads,
        )
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        call = _Call("past_key_values" in inspect.signature(model.forward).parameters)
        prompted = get_peft_model(model, self.resolved(model, names))
        prompted.register_forward_pre_hook(call.attend_everywhere, with_kwargs=True)
        if self.IN_TEXT and names["task"] == "language_modelling":
            prompted.register_forward_pre_hook(call.ignore_first_label, with_kwargs=True)
            prompted.register_forward_hook(call.logits_of_text)
        elif self.IN_TEXT and call.decoder:
            model.get_submodule(names["head"][-1]).register_forward_hook(call.logits_of_last_token)
        return prompted

    def unsupported(self, model: nn.Module, names: dict) -> str | None:  # noqa: ARG002 - one signature for all
        if names["task"] not in TASK_TYPES:
            return f"peft prompts models for {' and '.join(TASK_TYPES)}, not for {names['task']}"
        return None

    def merge(self, model: nn.Module) -> nn.Module | None:  # noqa: ARG002
        return None


class _Call:
    """Hooks around one call of a prompted model, and the token ids of the call."""

    def __init__(self, decoder: bool):
        self.decoder, self.ids, self.pad = decoder, None, None

    def attend_everywhere(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """A ready 4-D mask, as a profile on the meta device passes, hides nothing; peft would join it to a 2-D one."""
        self.ids, self.pad = kwargs["input_ids"], model.config.pad_token_id
        if getattr(kwargs.get("attention_mask"), "ndim", 2) == 4:
            kwargs["attention_mask"] = torch.ones_like(self.ids) if self.decoder else None
        return args, kwargs

    def ignore_first_label(
        self, _model: nn.Module, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict]:
        """The last virtual token would predict the first label, which no other method is asked for."""
        if kwargs.get("labels") is not None:
            kwargs["labels"] = kwargs["labels"].index_fill(
                1, torch.zeros_like(self.ids[0, :1]), IGNORED
            )
        return args, kwargs

    def logits_of_text(self, _model: nn.Module, _args: tuple, output: ModelOutput) -> ModelOutput:
        """Without the rows of the virtual tokens."""
        output.logits = output.logits[:, -self.ids.shape[1] :]
        return output

    def logits_of_last_token(
        self, _head: nn.Module, _args: tuple, logits: Tensor
    ) -> Tensor:  # (batch, tokens, classes)
        """Given embeddings, transformers classifies by the last position, padding or not: let it have one only."""
        text = logits[:, -self.ids.shape[1] :]
        last = (torch.arange(text.shape[1], device=text.device) * (self.ids != self.pad)).argmax(-1)
        return text[torch.arange(len(text), device=text.device), last].unsqueeze(1)
