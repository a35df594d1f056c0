"""Perplexities of tokens, of words and bits per byte equal an independent computation."""

import itertools
import math
import os
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.decoders import characters, decoder
from rankwise.data.prepared import Data
from rankwise.models import build
from rankwise.models.tasks import language_modelling as task
from rankwise.training import evaluation

TEXTS = ["a bee: 12 + 7\n", "\n", " the café is =\n", "old - 45 =  x\n", "the end\n"]
STORIES = os.environ.get("RANKWISE_STORIES260K")
DATA = os.environ.get("RANKWISE_DATA")


def windows(tokenizer: PreTrainedTokenizerBase, texts: list[str], length: int, stride: int | None):
    """The windows of a text whose rows come in three batches, of which one is empty."""
    rows = [{"text": text} for text in texts]
    dataset = {"max_length_tokens": length}
    if stride is not None:
        dataset["stride_tokens"] = stride
    batches = task.encode_scored_batches([rows[:2], [], rows[2:]], tokenizer, dataset)
    return list(itertools.chain.from_iterable(batches))


def metrics(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    length: int,
    stride: int | None,
) -> dict[str, float]:
    examples = windows(tokenizer, texts, length, stride)
    data = Data(task, tokenizer, task.Collate(tokenizer, 0), [], examples, examples)
    scores = evaluation.evaluate(model, data, examples, 8, torch.device("cpu"))
    return evaluation.metrics(scores, task.METRICS)


@torch.no_grad()
def sum_of_losses(
    model: PreTrainedModel, stream: list[int], length: int, stride: int
) -> tuple[float, int]:
    """Losses of a stream in nats and how many they are, one window at a time.

    Hugging Face's documentation, "Perplexity of fixed-length models", with sums in place of the
    mean of the windows' means.
    """
    model.eval()
    total, count, scored = 0.0, 0, 0
    for begin in range(0, len(stream), stride):
        end = min(begin + length, len(stream))
        window = torch.tensor([stream[begin:end]])
        logits = model(window).logits[0].double()
        targets = window[0, 1:]
        losses = torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="none")
        losses = losses[max(scored - begin - 1, 0) :]
        total, count, scored = total + losses.sum().item(), count + len(losses), end
        if end == len(stream):
            break
    return total, count


@pytest.mark.parametrize(("length", "stride"), [(16, None), (16, 5), (16, 15), (64, 64), (7, 1)])
def test_scores_equal_a_loop_over_windows(length, stride):
    tokenizer, model = characters(), decoder()
    stream = tokenizer("".join(TEXTS), add_special_tokens=False)["input_ids"]
    total, count = sum_of_losses(model, stream, length, stride or length)
    found = metrics(model, tokenizer, TEXTS, length, stride)
    assert found["eval_loss_nats"] == pytest.approx(total / count, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-6)
    if stride is not None and stride < length:
        # All but the first token are scored. It is one byte, and the whole word "a".
        assert count == len(stream) - 1
        words = len("".join(TEXTS).split()) - 1
        size = len("".join(TEXTS).encode()) - 1
        assert found["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-6)
        assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-6)


def test_windows_without_overlap_score_all_but_their_first_tokens():
    tokenizer = characters()
    stream = tokenizer("".join(TEXTS), add_special_tokens=False)["input_ids"]
    found = windows(tokenizer, TEXTS, 16, None)
    assert [len(window["input_ids"]) for window in found] == [16, 16, 16, len(stream) - 48]
    assert {window["first_scored"] for window in found} == {1}
    text = "".join(TEXTS)  # a token a character
    for number, window in enumerate(found):
        part = text[16 * number + 1 : 16 * (number + 1)]
        assert window["text_bytes"] == len(part.encode())
    ends = [i for i in range(len(text)) if not text[i].isspace() and text[i + 1].isspace()]
    expected = [sum(16 * n < end < 16 * (n + 1) for end in ends) for n in range(4)]
    assert [window["words"] for window in found] == expected


def test_a_last_token_without_context_is_no_window():
    tokenizer = characters()
    assert len(windows(tokenizer, ["abcdefghi"], 4, None)) == 2
    assert len(windows(tokenizer, ["abcdefghi"], 4, 3)) == 3
    assert windows(tokenizer, ["a"], 4, None) == []


def test_a_text_without_white_space_reports_no_word_perplexity():
    """It is one word, and no float holds its perplexity; the run has not diverged."""
    scores = {
        "loss_nats": [4.0] * 3, "predictions": [100] * 3, "words": [0, 0, 1],
        "text_bytes": [200] * 3,
    }  # fmt: skip
    found = evaluation.metrics(scores, task.METRICS)
    assert set(found) == {"eval_loss_nats", "perplexity", "bits_per_byte"}
    assert found["bits_per_byte"] == pytest.approx(2 / math.log(2))
    said = evaluation.left_out(found, task.METRICS)["left_out"]
    assert said.startswith("word_perplexity is left out: no float holds a number so large")
    assert evaluation.left_out(dict.fromkeys(task.METRICS, 2.0), task.METRICS) == {}


@pytest.mark.slow
@pytest.mark.skipif(not (STORIES and DATA), reason="needs RANKWISE_STORIES260K and RANKWISE_DATA")
@pytest.mark.parametrize("stride", [128, 64])
def test_a_real_model_on_wikitext(stride):
    folder = Path(STORIES)
    tokenizer = build.tokenizer(folder)
    model = build.from_snapshot(folder, "language_modelling", 0)
    with (Path(DATA) / "wikitext2/valid.txt").open(encoding="utf-8", newline="") as file:
        texts = list(itertools.islice(file, 40))
    stream = [
        token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]
    ]
    total, count = sum_of_losses(model, stream, 128, stride)
    found = metrics(model, tokenizer, texts, 128, stride)
    assert found["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-6)
    examples = windows(tokenizer, texts, 128, 64)
    assert sum(window["words"] for window in examples) == len("".join(texts).split())
    first = tokenizer.decode(stream[:1])
    assert sum(window["text_bytes"] for window in examples) >= len("".join(texts).encode()) - len(
        first
    )
