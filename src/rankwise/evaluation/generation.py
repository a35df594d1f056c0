"""Generate the answers to a prepared dataset of prompts, and compare them with the right ones.

An answer is right if it is the dataset's, both without spaces at their ends. The prompt is encoded
as training encoded it, so a model sees what it was trained on.
"""

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rankwise.core import tasks
from rankwise.data.prepared import read_split
from rankwise.evaluation import files
from rankwise.evaluation.generating import generate
from rankwise.evaluation.scored import Scored


def score(request: dict, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scored:
    """The examples whose generated answer is the right one.

    Args:
        request: The cell's `evaluate` request.
        model: In evaluation mode.
        tokenizer: That of the model.
    """
    entry, dataset = request["evaluation"], request["dataset"]
    task = tasks.load(dataset["task"])
    rows = read_split(request, entry["dataset"], entry["split"])[: entry.get("limit")]
    prompts = [list(task.prompt_ids(row["text"], tokenizer, dataset)) for row in rows]
    generated, truncated = generate(model, tokenizer, prompts, entry)
    wanted = [str(row["label"]).strip() for row in rows]
    right = [float(text.strip() == label) for text, label in zip(generated, wanted, strict=True)]
    return Scored(
        documents=[files.digest(row["text"]) for row in rows],
        scores={"exact_match_fraction": right},
        details={"generated": generated, "wanted": wanted},
        truncated=truncated,
    )
