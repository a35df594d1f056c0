"""Generated data for demos without a download: labelled reviews, text to pre-train on, and sums.

The sentiment of a review is that of its last clause, and a negation reverses a clause. Single words
therefore do not decide the label.

The unlabelled text is plainer and opens with its verdict in one word. A model that has learnt to
fill in this word knows words and their sentiment before it sees a label, as a real pretrained model
does. Fine-tuning is left to learn negation and contrast.

The sums are a corpus for a tiny decoder that reads characters: one sum a line. Values follow words
only (`7 and 5 make 12`), and signs stand in other lines (`7+5 is 7 and 5`). A decoder that has read
them knows the sums and the signs. Fine-tuning is left to learn that a prompt in signs asks for the
value.
"""

import random
from collections.abc import Iterator

NOUNS = [
    "film",
    "story",
    "music",
    "ending",
    "food",
    "service",
    "wine",
    "hotel",
    "room",
    "view",
    "book",
    "author",
]
GOOD_ADJECTIVES = ["good", "great", "lovely", "superb", "fine", "charming", "brilliant"]
BAD_ADJECTIVES = ["bad", "awful", "dull", "poor", "nasty", "boring", "terrible"]
ADVERBS = ["very", "really", "quite", "rather"]
LIKED = ["loved", "liked", "enjoyed"]
LIKE = ["love", "like", "enjoy"]
HATED = ["hated", "disliked", "loathed"]
HATE = ["hate", "dislike", "loathe"]
GOOD_VERDICT = "recommended"
BAD_VERDICT = "avoid"
OPENERS = ["yesterday", "last week", "to be honest", "again"]

TERMS_BELOW = 100  # of arithmetic, where an entry does not say it

# The order of the draws below is part of the data: another order generates other rows.


def rows(settings: dict, split: str) -> Iterator[dict]:
    """Generate one split: the same rows on every machine, and other rows for every other split.

    Args:
        settings: `kind` ("reviews", "text", "sums" or "arithmetic"), `seed`, `rows`, which has the
            number of rows of each split, and perhaps `terms_below`, which the terms of arithmetic
            are.
        split: The name of the split.

    Returns:
        `{"text": ..., "label": 0 or 1}` for reviews, `{"text": ...}` for text and sums,
        `{"prompt": "12+7=", "answer": "19"}` for arithmetic.
    """
    if settings["kind"] == "arithmetic":
        yield from _arithmetic(settings, split)
        return
    # Seeded by a text, whose use by `random` does not depend on the machine or on PYTHONHASHSEED.
    draw = random.Random(f"{settings['seed']} {split}")
    make_row = MAKE_ROW[settings["kind"]]
    for _ in range(settings["rows"][split]):
        yield make_row(draw)


def _arithmetic(settings: dict, split: str) -> Iterator[dict]:
    """Sums and differences of two numbers as prompts; no split has a prompt of another one.

    All prompts are put into one random order, and each split takes its part of it.

    Raises:
        ValueError: The splits together have more rows than there are prompts.
    """
    terms = range(settings.get("terms_below", TERMS_BELOW))
    prompts = [
        (f"{left}{sign}{right}=", str(left + right if sign == "+" else left - right))
        for left in terms
        for right in terms
        for sign in "+-"
        if sign == "+" or left >= right  # no answer has a sign
    ]
    random.Random(f"{settings['seed']}").shuffle(prompts)
    start, rows_by_split = 0, settings["rows"]
    if sum(rows_by_split.values()) > len(prompts):
        raise ValueError(
            f"generated.rows: got {sum(rows_by_split.values()):,} rows of arithmetic in all splits "
            f"together, allowed: at most {len(prompts):,}"
        )
    for other, rows_ in rows_by_split.items():
        if other == split:
            for prompt, answer in prompts[start : start + rows_]:
                yield {"prompt": prompt, "answer": answer}
        start += rows_


def _clause(draw: random.Random, positive: bool, negated_share: float = 0.25) -> str:
    """A clause of the given sentiment; a share of the clauses says it with a negation."""
    noun = draw.choice(NOUNS)
    is_negated = draw.random() < negated_share
    word_is_good = positive != is_negated  # "not bad" is positive, but "bad" is not a good word
    if draw.random() < 0.6:
        adjective = draw.choice(GOOD_ADJECTIVES if word_is_good else BAD_ADJECTIVES)
        adverb = "not" if is_negated else draw.choice(ADVERBS)
        return f"the {noun} was {adverb} {adjective}"
    if is_negated:
        verb = draw.choice(LIKE if word_is_good else HATE)
        return f"i did not {verb} the {noun}"
    verb = draw.choice(LIKED if word_is_good else HATED)
    return f"i {verb} the {noun}"


def _review(draw: random.Random) -> dict:
    """One review: 40 % agree in two clauses, 20 % contradict their first clause, 40 % have one."""
    positive = draw.random() < 0.5
    body = _clause(draw, positive)
    kind = draw.random()
    if kind < 0.4:
        body = f"{_clause(draw, positive)} and {body}"
    elif kind < 0.6:
        body = f"{_clause(draw, not positive)} but {body}"
    opener = ""
    if draw.random() < 0.5:
        opener = f"{draw.choice(OPENERS)} , "
    return {"text": f"{opener}{body} .", "label": int(positive)}


def _text(draw: random.Random) -> dict:
    """One unlabelled text: the verdict, then one clause (two thirds) or two clauses (one third)."""
    positive = draw.random() < 0.5
    count = draw.choice((1, 1, 2))
    clauses = [_clause(draw, positive, negated_share=0.1) for _ in range(count)]
    verdict = GOOD_VERDICT if positive else BAD_VERDICT
    return {"text": f"{verdict} {' and '.join(clauses)} ."}


LARGEST_ADDEND = 20  # of the corpus of sums


def _sum(draw: random.Random) -> dict:
    """One line of the corpus of sums, with its end, such as `7 and 5 make 12`.

    Seven of ten lines are sums and differences in words, because these share their facts. The
    others have the signs, and never a sum in signs with its value.
    """
    first, second = draw.randint(0, LARGEST_ADDEND), draw.randint(0, LARGEST_ADDEND)
    total = first + second
    forms = {
        f"{first} and {second} make {total}": 0.4,
        f"{total} without {first} leaves {second}": 0.3,
        f"{first}+{second}={second}+{first}": 0.1,
        f"{first}+{second} is {first} and {second}": 0.1,
        f"{total}-{first} is {total} without {first}": 0.1,
    }
    [line] = draw.choices(list(forms), list(forms.values()))
    return {"text": f"{line}\n"}


MAKE_ROW = {"reviews": _review, "text": _text, "sums": _sum}
