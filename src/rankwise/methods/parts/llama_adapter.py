"""LLaMA-Adapter's attention to its prompts, without a product that peft computes and drops.

Source: Zhang et al. 2023, arXiv 2303.16199, eq. 6-9; by peft, which also multiplies the hidden
states by the value matrix while it computes the queries once more.
"""

from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG
from peft.tuners.adaption_prompt.layer import AdaptedAttention
from peft.tuners.adaption_prompt.utils import llama_rotate_half
from torch import Tensor, nn

SUFFIX = "_queries_only"


def compute_queries_only(model: nn.Module) -> None:
    """Let every adapted attention of `model` compute its queries, and no values.

    Args:
        model: adapted by peft; changed in place.
    """
    for layer in model.modules():
        if isinstance(layer, AdaptedAttention):
            theirs = TRANSFORMERS_MODEL_CONFIG[layer.model_type]
            ours = theirs._replace(compute_query_states=_queries)
            layer.model_type += SUFFIX
            TRANSFORMERS_MODEL_CONFIG[layer.model_type] = ours


def _queries(
    model: nn.Module,
    hidden_states: Tensor,  # (batch, length, width)
    position_embeddings: tuple[Tensor, Tensor],  # cosines and sines, (batch, length, head width)
    **_: object,
) -> Tensor:  # (batch, heads, length, head width)
    """The rotated queries of an attention of Llama or Mistral."""
    shape = (*hidden_states.shape[:-1], model.config.num_attention_heads, model.head_dim)
    queries = model.q_proj(hidden_states).view(shape).transpose(1, 2)
    cosines, sines = (part.unsqueeze(1) for part in position_embeddings)
    return queries * cosines + llama_rotate_half(queries) * sines
