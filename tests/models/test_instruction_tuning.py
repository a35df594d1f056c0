"""Prompts and answers: which tokens are trained on, what is cut, and that packs keep examples apart."""

import copy
import json

import pytest
import torch
from accelerate import Accelerator

from helpers.decoders import characters, decoder, ids
from helpers.prepared import reset_accelerate
from rankwise.measure.step_batch import batch as profile_batch
from rankwise.models.tasks import instruction_tuning as task
from rankwise.study.packing import FAMILIES
from rankwise.training.batches import tokens_of
from rankwise.training.distribution import Distributed
from rankwise.training.divergence import Watch
from rankwise.training.updates import Updater

BEGIN, END, IGNORED = 0, 1, -100
ROWS = [
    {"text": "12+7=", "label": "19"},
    {"text": "1+1=", "label": "2"},
    {"text": "90-45=", "label": "45"},
    {"text": "say a word: ", "label": "abracadabra"},
    {"text": "0+0=", "label": "0"},
]
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}:{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def encode(rows: list[dict], **dataset: object) -> list[dict]:
    return task.encode(rows, characters(), {"max_length_tokens": 32, **dataset})


def test_the_loss_is_on_the_answer_and_its_end():
    (example,) = encode(ROWS[:1])
    prompt, answer = [BEGIN, *ids("12+7=")], [*ids("19"), END]
    assert example["input_ids"] == prompt + answer
    assert example["labels"] == [IGNORED] * 6 + answer
    assert (example["cut_prompts"], example["cut_answers"]) == (0, 0)
    dataset = {"max_length_tokens": 32}
    assert task.prompt_ids("12+7=", characters(), dataset) == prompt


@pytest.mark.parametrize(
    ("length", "shown", "answer", "cut"),
    [
        (9, "12+7=", "19", (0, 0)),
        (8, "2+7=", "19", (1, 0)),
        (6, "7=", "19", (1, 0)),
        (4, "", "19", (1, 0)),  # of the prompt, what the tokenizer adds to every text alone
    ],
)
def test_a_prompt_loses_its_beginning_first(length, shown, answer, cut):
    (example,) = encode(ROWS[:1], max_length_tokens=length)
    if shown:
        assert example["input_ids"] == [BEGIN, *ids(shown), *ids(answer), END]
    else:
        assert example["input_ids"] == [ids("=")[0], *ids(answer), END]
    assert (example["cut_prompts"], example["cut_answers"]) == cut


def test_an_answer_keeps_a_token_however_long_it_is():
    (example,) = encode([{"text": "a", "label": "b" * 40}], max_length_tokens=2)
    assert example["input_ids"] == [ids("a")[0], ids("b")[0]]
    assert example["labels"] == [IGNORED, ids("b")[0]]
    assert (example["cut_prompts"], example["cut_answers"]) == (1, 1)


def test_a_chat_template_writes_prompt_and_answer():
    tokenizer = characters(chat_template=CHAT)
    dataset = {"max_length_tokens": 64, "chat": True}
    (example,) = task.encode([{"text": "1+1=", "label": "2"}], tokenizer, dataset)
    prompt = [BEGIN, *ids("user:1+1="), END, *ids("\n"), BEGIN, *ids("assistant:")]
    answer = [*ids("2"), END]  # the line end behind the end of the text is not written
    assert example["input_ids"] == prompt + answer
    assert example["labels"] == [IGNORED] * len(prompt) + answer
    assert task.prompt_ids("1+1=", tokenizer, dataset) == prompt
    earlier = [
        {"role": "system", "content": "sum"},
        {"role": "user", "content": "1+1="},
    ]
    dataset["messages"] = "messages"
    text = json.dumps(earlier)
    (example,) = task.encode([{"text": text, "label": "2"}], tokenizer, dataset)
    system = [BEGIN, *ids("system:sum"), END, *ids("\n")]
    assert example["input_ids"] == system + prompt + answer


@pytest.mark.parametrize(
    ("special", "dataset", "sentence"),
    [
        ({"eos_token": None}, {}, "no end-of-sequence token, allowed: one, which ends each answer"),
        ({}, {"chat": True}, "no chat template, allowed with `chat: true`: a model with one"),
    ],
)
def test_a_tokenizer_that_lacks_a_token_or_template_is_one_sentence(special, dataset, sentence):
    with pytest.raises(ValueError, match=sentence):
        task.encode(ROWS, characters(**special), {"max_length_tokens": 16, **dataset})


@pytest.mark.parametrize("begins", [False, True])
def test_a_prompt_without_a_token_of_its_own_is_one_sentence(begins: bool):
    """Also where the tokenizer adds <s> to every text: of an empty text nothing else is there."""
    tokenizer, rows = characters(begins), [ROWS[0], {"text": "", "label": "19"}]
    dataset = {"max_length_tokens": 16}
    allowed = r"the prompt '' has no token of its own, allowed: at least 1; drop this row"
    with pytest.raises(ValueError, match=allowed):
        task.encode(rows, tokenizer, dataset)
    with pytest.raises(ValueError, match=allowed):
        task.prompt_ids("", tokenizer, dataset)
    (example,) = task.encode(rows[:1], tokenizer, dataset)
    assert example["input_ids"] == [BEGIN] * begins + [*ids("12+7="), *ids("19"), END]


def test_a_tokenizer_without_padding_pads_with_the_end_and_without_both_is_refused():
    assert task.Collate(characters(), 0).pad == END
    assert task.Collate(characters(pad_token="<s>"), 0).pad == BEGIN
    with pytest.raises(ValueError, match="neither a padding nor an end-of-sequence token"):
        task.Collate(characters(eos_token=None), 0)


# Scores -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_scores_are_those_of_each_answer_alone():
    """Batched with padding, against one row at a time and the definition of the loss."""
    model, examples = decoder(), encode(ROWS)
    scores = task.scores(model, task.Collate(characters(), 0)(examples))
    for number, row in enumerate(ROWS):
        prompt, answer = [BEGIN, *ids(row["text"])], [*ids(row["label"]), END]
        logits = model(torch.tensor([prompt + answer])).logits[0]
        logarithms = logits[len(prompt) - 1 : -1].log_softmax(-1)
        losses = [-logarithms[place, token].item() for place, token in enumerate(answer)]
        right = [logarithms[place].argmax().item() == token for place, token in enumerate(answer)]
        assert scores["loss_nats"][number].item() == pytest.approx(sum(losses) / len(answer), 1e-5)
        assert scores["correct_fraction"][number].item() == pytest.approx(sum(right) / len(answer))
        assert scores["predictions"][number] == len(answer)


# Updates ------------------------------------------------------------------------------------------


def weights_after_an_update(windows: list[list[dict]]) -> torch.Tensor:
    """One step of gradient descent over a window of micro-batches."""
    reset_accelerate()
    model = copy.deepcopy(decoder()).train()
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer = accelerator.prepare(optimizer)
    distributed = Distributed(model, accelerator)
    updater = Updater(
        accelerator, distributed, optimizer, task.predictions, None, Watch(model, False)
    )
    collate = task.Collate(characters(), 0)
    updater.make([collate(examples) for examples in windows], 1)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_an_update_is_the_mean_over_its_answers_tokens_however_it_is_split():
    """Answers of 2 to 12 tokens: a mean of the micro-batches' means would be another one."""
    examples = encode(ROWS)
    whole = weights_after_an_update([examples])
    apart = weights_after_an_update([examples[:1], examples[1:3], examples[3:]])
    torch.testing.assert_close(apart, whole, rtol=0, atol=1e-6)
    packs = list(
        task.encode_batches([ROWS], characters(), {"max_length_tokens": 40, "packing": True})
    )
    packed = weights_after_an_update([[pack] for batch in packs for pack in batch])
    torch.testing.assert_close(packed, whole, rtol=0, atol=1e-5)


# Packing ------------------------------------------------------------------------------------------


def packs_of(length: int) -> list[dict]:
    """The rows as two batches, packed; a pack may have examples of both."""
    dataset = {"max_length_tokens": length, "packing": True}
    encoded = task.encode_batches([ROWS[:2], [], ROWS[2:]], characters(), dataset)
    return [pack for batch in encoded for pack in batch]


def test_packs_hold_whole_examples_in_their_order():
    packs = packs_of(24)
    # 9 + 7 tokens; 10 + ... the third does not fit beside the fourth, which has 25 and is cut to 24.
    assert [len(pack["input_ids"]) for pack in packs] == [16, 10, 24, 7]
    assert packs[0]["starts"] == [0, 9]
    assert packs[2]["cut_prompts"] == 1
    joined = [
        token for example in encode(ROWS, max_length_tokens=24) for token in example["labels"]
    ]
    assert [token for pack in packs for token in pack["labels"]] == joined


def test_a_profiles_batch_has_what_a_batch_of_packs_has():
    """Names, shapes and dtypes, so that the ledger counts the mask of all pairs of tokens."""
    real = task.Collate(characters(), 0)(packs_of(24)[:2])
    rows, length = real["input_ids"].shape
    shapes = {
        "task": "instruction_tuning",
        "classes": 0,
        "batch_size": rows,
        "sequence_length_tokens": length,
    }
    request = {"shapes": shapes, "packed": True, "padded": True}
    profiled = profile_batch({**request, "model": {"architecture": {"vocab_size": 9}}}, "cpu")
    assert {name: (part.shape, part.dtype) for name, part in profiled.items()} == {
        name: (part.shape, part.dtype) for name, part in real.items()
    }
    alone = task.Collate(characters(), 0)([{**pack, "starts": [0]} for pack in packs_of(24)[2:3]])
    request["shapes"] = {**shapes, "batch_size": 1, "sequence_length_tokens": 24}
    mask = profile_batch({**request, "model": {"architecture": {"vocab_size": 9}}}, "cpu")
    assert torch.equal(mask["attention_mask"], alone["attention_mask"])
    assert torch.equal(mask["position_ids"], alone["position_ids"])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_a_pack_are_those_of_its_examples(family, attention):
    model = decoder(family)
    model.set_attn_implementation(attention)
    examples, packs = encode(ROWS), packs_of(40)
    assert max(len(pack["starts"]) for pack in packs) > 1
    batch = task.Collate(characters(), 0)(packs)
    assert tokens_of(batch) == sum(len(example["input_ids"]) for example in examples)
    assert task.predictions(batch) == sum(len(row["label"]) + 1 for row in ROWS)
    batch.pop("labels")
    packed = model(**batch).logits
    number = 0
    for row, pack in enumerate(packs):
        for start in pack["starts"]:
            alone = torch.tensor([examples[number]["input_ids"]])
            found = packed[row, start : start + alone.shape[1]]
            torch.testing.assert_close(found, model(alone).logits[0], rtol=0, atol=1e-5)
            number += 1
    assert number == len(ROWS)
