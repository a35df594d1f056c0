"""Prompt tuning: p trained embeddings before the text, in a frozen model; by peft.

Source: Lester et al. 2021, arXiv 2104.08691. `rank` is p. The embeddings start as those of random
tokens of the vocabulary (in the paper, of its 5000 commonest), or as standard normal numbers, which
are far from any token's. The text may be p tokens shorter than the model's limit.

An encoder classifies by its first position, which is now a virtual token. A decoder classifies by
the last token of the text, as it does without a prompt; peft by itself would take the last
position, padding or not. A language model's loss leaves out the text's first token, which the
prompt could predict but no other method is asked for.
"""

from dataclasses import dataclass
from typing import Literal

from peft import PromptTuningConfig

from rankwise.methods.parts.prompt_base import PromptMethod


@dataclass(frozen=True)
class PromptTuning(PromptMethod):
    """Trains the embeddings of the virtual tokens."""

    MODEL = "r * d"

    rank: int
    init: Literal["sample_vocab", "random"] = "sample_vocab"

    def config(self, names: dict) -> PromptTuningConfig:
        return PromptTuningConfig(
            num_virtual_tokens=self.rank, prompt_tuning_init=self.init.upper()
        )
