"""Only the layer norms train, and a new head.

Put this file into the folder `methods` of your own project, beside the studies.
"""

from dataclasses import dataclass

from torch import nn

from rankwise.methods.parts.base import Method, train_only


@dataclass(frozen=True)
class NormsOnly(Method):
    """The fields are the options that an entry of config/methods.yaml may set."""

    QUANTIZED = True  # works on a base in 4 or 8 bits: its matrices stay as they are

    biases: bool = True

    def prepare(self, model: nn.Module, names: dict) -> nn.Module:
        """Adapt the model, and say by `requires_grad` which parameters train."""
        train_only(model, tuple(names["new_head"]))
        for module in model.modules():
            if "Norm" in type(module).__name__:  # LayerNorm in BERT, LlamaRMSNorm in Llama
                for name, param in module.named_parameters(recurse=False):
                    param.requires_grad = self.biases or name != "bias"
        return model
