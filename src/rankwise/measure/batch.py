"""A batch without values and a loss of it, for models on the meta device."""

from torch import Tensor, arange, nn, zeros


def meta_batch(shapes: dict) -> dict[str, Tensor]:
    """Token ids (batch, length) and an attention mask (batch, 1, length, length).

    The mask has the four dimensions that attention adds to its scores. transformers uses such a
    mask as it is; it would inspect the values of a two-dimensional one, which a meta tensor lacks.
    """
    batch, length = shapes["batch_size"], shapes["sequence_length_tokens"]
    ids = zeros(batch, length, dtype=int, device="meta")
    mask = zeros(batch, 1, length, length, device="meta")
    return {"input_ids": ids, "attention_mask": mask}


def meta_loss(model: nn.Module, batch: dict[str, Tensor], task: str) -> Tensor:
    """A loss whose gradients have the shapes of the real one.

    Token ids stand in for labels. The loss itself has no matrix product, so for FLOPs only the
    shape of the logits matters: (batch, classes), or (batch, length, vocabulary).

    Args:
        model: On the meta device, with the head of the task.
        batch: From `meta_batch`.
        task: `classification`, or a task that predicts a token at every position.

    Returns:
        The mean cross-entropy, a scalar on the meta device.
    """
    ids = batch["input_ids"]
    labels = ids[:, 0] if task == "classification" else ids
    logits = model(**batch, **_positions(model, ids)).logits.flatten(0, -2)
    return nn.functional.cross_entropy(logits, labels.flatten())


def _positions(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """Positions for OPT, which else counts them in the mask, and that has four dimensions here."""
    if model.config.model_type != "opt":
        return {}
    return {"position_ids": arange(ids.shape[1], device="meta").expand(ids.shape)}
