"""P-tuning: prompt tuning with embeddings out of a small trained encoder (Liu et al. 2021, arXiv 2103.10385); by peft.

`rank` is the number of virtual tokens, all before the text; the paper also puts them inside a template. The encoder is the
paper's bidirectional LSTM of two layers with an MLP of two, or peft's default, an MLP of three layers. It runs in
evaluation, too. Positions, classification and loss are those of prompt tuning.
"""

from dataclasses import dataclass
from typing import Literal

from peft import PromptEncoderConfig

from rankwise.methods.parts.peft_base import PromptMethod

LSTM = "8 * hidden * (d + 4 * hidden + 4) + 2 * hidden * (2 * hidden + 1) + (2 * hidden + 1) * d"
MLP = "(d + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * d"


@dataclass(frozen=True)
class PTuning(PromptMethod):
    """Options; `hidden` is the encoder's width, of one direction of the LSTM (the authors': half the model's width)."""

    MODEL = f"r * d + ({LSTM} if encoder == 'lstm' else {MLP})"
    QUANTIZED = True
    PROMPT = True

    rank: int
    hidden: int
    encoder: Literal["lstm", "mlp"] = "lstm"

    def config(self, names: dict) -> PromptEncoderConfig:
        kind = {
            "encoder_reparameterization_type": self.encoder.upper(),
            "encoder_hidden_size": self.hidden,
        }
        return PromptEncoderConfig(num_virtual_tokens=self.rank, **kind)
