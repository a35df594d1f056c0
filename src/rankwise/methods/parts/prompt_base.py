"""The base of methods that train virtual tokens before the text of a frozen model; by peft.

Virtual tokens take positions, so a text may be `rank` tokens shorter than the model's limit. The
adapted model answers like any other: logits for each token of the text, a loss over the text's
labels.
"""

import inspect

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.utils import ModelOutput

from rankwise.methods.parts.peft_base import IGNORED, PeftMethod

# peft's names.
TASK_TYPES = {
    "classification": "SEQ_CLS",
    "language_modelling": "CAUSAL_LM",
    "instruction_tuning": "CAUSAL_LM",
}


class PromptMethod(PeftMethod):
    """A method with `rank` virtual tokens and a frozen model; nothing merges.

    Attributes:
        IN_TEXT: the virtual tokens are embeddings before the text. If false, they are keys and
            values in every layer.
    """

    QUANTIZED = True
    PROMPT = True
    MERGES = False
    IDENTITY = False
    IN_TEXT = True

    def resolved(self, model: nn.Module, names: dict) -> PeftConfig:
        """`config` with the model's sizes; peft does not find all of them in DistilBERT's."""
        config = self.config(names)
        config.task_type = TASK_TYPES[names["task"]]
        config.modules_to_save = list(names["new_head"]) or None
        config.token_dim = names["hidden_size"]
        config.num_layers = model.config.num_hidden_layers
        config.num_attention_heads = model.config.num_attention_heads
        return config

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Add the virtual tokens by peft; logits and loss stay those of the text's tokens."""
        prompted = get_peft_model(model, self.resolved(model, names))
        self.opened(prompted, names)
        return prompted

    def opened(self, prompted: PeftModel, names: dict) -> None:
        """Let logits and loss be those of the text's tokens."""
        model = prompted.get_base_model()
        is_decoder = "past_key_values" in inspect.signature(model.forward).parameters
        call = _PromptedCall(is_decoder)
        prompted.register_forward_pre_hook(call.attend_everywhere, with_kwargs=True)
        if self.IN_TEXT and TASK_TYPES[names["task"]] == "CAUSAL_LM":
            prompted.register_forward_pre_hook(call.ignore_first_label, with_kwargs=True)
            prompted.register_forward_hook(call.keep_logits_of_text)
        elif self.IN_TEXT and is_decoder:
            head = model.get_submodule(names["head"][-1])
            head.register_forward_hook(call.keep_logits_of_last_token)

    def unsupported(self, model: nn.Module, names: dict) -> str | None:
        """Refuse tasks for which peft has no prompts."""
        if names["task"] not in TASK_TYPES:
            return f"peft prompts models for {' and '.join(TASK_TYPES)}, not for {names['task']}"
        return None

    def merge(self, model: nn.Module) -> nn.Module | None:
        """Return None: no model without virtual tokens gives the same answers."""
        return None


class _PromptedCall:
    """Hooks around one call of a prompted model; keeps the call's token ids, (batch, tokens)."""

    def __init__(self, is_decoder: bool):
        self.is_decoder, self.ids, self.pad = is_decoder, None, None

    def attend_everywhere(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Replace a ready 4-D attention mask by one that hides nothing.

        A profile on the meta device passes a 4-D mask, and peft would join it to its own 2-D one.
        """
        self.ids, self.pad = kwargs["input_ids"], model.config.pad_token_id
        if getattr(kwargs.get("attention_mask"), "ndim", 2) == 4:
            kwargs["attention_mask"] = torch.ones_like(self.ids) if self.is_decoder else None
        return args, kwargs

    def ignore_first_label(
        self, _model: nn.Module, args: tuple, kwargs: dict
    ) -> tuple[tuple, dict]:
        """Leave out the first label, which the last virtual token would predict.

        No other method is asked for it, so that losses stay comparable.
        """
        labels = kwargs.get("labels")
        if labels is not None:
            first_column = torch.zeros_like(self.ids[0, :1])
            kwargs["labels"] = labels.index_fill(1, first_column, IGNORED)
        return args, kwargs

    def keep_logits_of_text(
        self, _model: nn.Module, _args: tuple, output: ModelOutput
    ) -> ModelOutput:
        """Drop the logits of the virtual tokens."""
        output.logits = output.logits[:, -self.ids.shape[1] :]
        return output

    def keep_logits_of_last_token(
        self,
        _head: nn.Module,
        _args: tuple,
        logits: Tensor,  # (batch, tokens, classes)
    ) -> Tensor:  # (batch, 1, classes)
        """Keep the logits at the last token of each text.

        Given embeddings instead of ids, transformers classifies by the last position, even if that
        is padding. With one position left, there is only the right one to take.
        """
        of_text = logits[:, -self.ids.shape[1] :]
        positions = torch.arange(of_text.shape[1], device=of_text.device)
        last = (positions * (self.ids != self.pad)).argmax(-1)
        rows = torch.arange(len(of_text), device=of_text.device)
        return of_text[rows, last].unsqueeze(1)
