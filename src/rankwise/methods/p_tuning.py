"""P-tuning: prompt tuning with embeddings that a small trained encoder makes; by peft.

Source: Liu et al. 2021, arXiv 2103.10385. `rank` is the number of virtual tokens, all of them
before the text; the paper also puts them inside a template. The encoder is the paper's
bidirectional LSTM of two layers with an MLP of two, or peft's default, an MLP of three layers. It
runs in evaluation, too. Positions, classification and loss are those of prompt tuning.
"""

from dataclasses import dataclass
from typing import Literal

from peft import PromptEncoderConfig

from rankwise.methods.parts.prompt_base import PromptMethod

# Numbers that train in the encoder.
LSTM = "8 * hidden * (d + 4 * hidden + 4) + 2 * hidden * (2 * hidden + 1) + (2 * hidden + 1) * d"
MLP = "(d + 1) * hidden + (hidden + 1) * hidden + (hidden + 1) * d"


@dataclass(frozen=True)
class PTuning(PromptMethod):
    """Trains tokens and encoder.

    `hidden` is the encoder's width, for an LSTM that of one direction (the authors': half the
    model's width).
    """

    MODEL = f"r * d + ({LSTM} if encoder == 'lstm' else {MLP})"

    rank: int
    hidden: int
    encoder: Literal["lstm", "mlp"] = "lstm"

    def config(self, names: dict) -> PromptEncoderConfig:
        return PromptEncoderConfig(
            num_virtual_tokens=self.rank,
            encoder_reparameterization_type=self.encoder.upper(),
            encoder_hidden_size=self.hidden,
        )
