"""A batch without values and a loss of it, for models on the meta device."""

from torch import Tensor, nn, zeros, zeros_like

from rankwise.core import tasks

# Families whose code reads the mask for more than attention, and wants it as (batch, length): OPT
# counts positions in it, DeBERTa multiplies embeddings by it.
READ_THE_MASK = ("opt", "deberta", "deberta-v2")


def inputs(ids: Tensor, task: str) -> dict[str, Tensor]:
    """The inputs of a forward pass without labels; a decoder reads as many tokens as its encoder.

    Args:
        ids: Token ids, (batch, length).
        task: The name of a task.
    """
    if tasks.facts(task).labels == tasks.TEXT:
        return {"input_ids": ids, "decoder_input_ids": ids}
    return {"input_ids": ids}


def tokens_a_sample(shapes: dict) -> int:
    """The tokens that a model reads of a sample, those of its decoder included.

    Args:
        shapes: With `task` and `sequence_length_tokens`.
    """
    length = shapes["sequence_length_tokens"]
    return 2 * length if tasks.facts(shapes["task"]).labels == tasks.TEXT else length


def meta_batch(shapes: dict, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Token ids (batch, length) and an attention mask, (batch, 1, length, length) in most families.

    The mask has the four dimensions that attention adds to its scores. transformers uses such a
    mask as it is; it would inspect the values of a two-dimensional one, which a meta tensor lacks.

    Args:
        shapes: With `task`, `batch_size` and `sequence_length_tokens`.
        model: Takes the batch; if not given, it is of no family of `READ_THE_MASK`.
    """
    batch, length = shapes["batch_size"], shapes["sequence_length_tokens"]
    texts = inputs(zeros(batch, length, dtype=int, device="meta"), shapes["task"])
    if model is not None and model.config.model_type in READ_THE_MASK:
        return {**texts, "attention_mask": zeros_like(texts["input_ids"])}
    mask = zeros(batch, 1, length, length, device="meta")
    return {**texts, "attention_mask": mask}


def meta_loss(model: nn.Module, batch: dict[str, Tensor], task: str) -> Tensor:
    """A loss whose gradients have the shapes of the real one.

    Token ids stand in for labels. The loss itself has no matrix product, so for FLOPs only the
    shape of the logits matters: (batch, classes), or (batch, length, classes or vocabulary).

    Args:
        model: On the meta device, with the head of the task.
        batch: From `meta_batch`.
        task: the name of a task.

    Returns:
        The mean cross-entropy, or the mean squared error for labels that are numbers; a scalar on
        the meta device.
    """
    ids, kind = batch["input_ids"], tasks.facts(task).labels
    logits = model(**batch).logits
    if kind in (tasks.NUMBER, tasks.CLASSES):
        return nn.functional.mse_loss(logits, zeros_like(logits))
    labels = ids[:, 0] if kind == tasks.CLASS else ids
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
