"""A small English of reviews, so that the demo needs no data: reviews with a label, and unlabelled text to pre-train on.

A review's sentiment is that of its last clause, and negation flips a clause, so single words do not decide it. The unlabelled
text is plainer, and opens with a verdict in one word: a model that has learnt to fill it in knows words and their sentiment
before it sees a label, as a real pretrained model does, and adapting it is left with negation and contrast.
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
GOOD = ["good", "great", "lovely", "superb", "fine", "charming", "brilliant"]
BAD = ["bad", "awful", "dull", "poor", "nasty", "boring", "terrible"]
ADVERBS = ["very", "really", "quite", "rather"]
LIKED, LIKE = ["loved", "liked", "enjoyed"], ["love", "like", "enjoy"]
HATED, HATE = ["hated", "disliked", "loathed"], ["hate", "dislike", "loathe"]
WORTH, AVOID = "recommended", "avoid"
OPENERS = ["yesterday", "last week", "to be honest", "again"]


def _clause(draw: random.Random, positive: bool, negations: float = 0.25) -> str:
    """One clause with the sentiment asked for, negated in this share of cases."""
    noun, negated = draw.choice(NOUNS), draw.random() < negations
    words = positive != negated
    if draw.random() < 0.6:
        adjective = draw.choice(GOOD if words else BAD)
        return f"the {noun} was {'not' if negated else draw.choice(ADVERBS)} {adjective}"
    if negated:
        return f"i did not {draw.choice(LIKE if words else HATE)} the {noun}"
    return f"i {draw.choice(LIKED if words else HATED)} the {noun}"


def _review(draw: random.Random) -> dict:
    positive = draw.random() < 0.5
    last = _clause(draw, positive)
    kind = draw.random()
    if kind < 0.4:
        last = f"{_clause(draw, positive)} and {last}"
    elif kind < 0.6:
        last = f"{_clause(draw, not positive)} but {last}"
    opener = f"{draw.choice(OPENERS)} , " if draw.random() < 0.5 else ""
    return {"text": f"{opener}{last} .", "label": int(positive)}


def _text(draw: random.Random) -> dict:
    positive = draw.random() < 0.5
    clauses = [_clause(draw, positive, negations=0.1) for _ in range(draw.choice((1, 1, 2)))]
    return {"text": f"{WORTH if positive else AVOID} {' and '.join(clauses)} ."}


def rows(settings: dict, split: str) -> Iterator[dict]:
    """`settings["rows"][split]` reviews or texts; the splits of one seed differ, and are the same on every machine."""
    draw = random.Random(f"{settings['seed']} {split}")
    make = _review if settings["kind"] == "reviews" else _text
    return (make(draw) for _ in range(settings["rows"][split]))
