"""The corpus of sums: every line holds, and no line gives a prompt in signs its value."""

import re

from rankwise.data import synthetic

FORMS = (
    (r"(\d+) and (\d+) make (\d+)", lambda a, b, c: a + b == c),
    (r"(\d+) without (\d+) leaves (\d+)", lambda a, b, c: a - b == c),
    (r"(\d+)\+(\d+)=(\d+)\+(\d+)", lambda a, b, c, d: (a, b) == (d, c)),
    (r"(\d+)\+(\d+) is (\d+) and (\d+)", lambda a, b, c, d: (a, b) == (c, d)),
    (r"(\d+)-(\d+) is (\d+) without (\d+)", lambda a, b, c, d: (a, b) == (c, d)),
)


def test_every_line_of_the_corpus_of_sums_holds_and_every_form_occurs():
    rows = synthetic.rows({"kind": "sums", "seed": 2, "rows": {"train": 500}}, "train")
    seen = set()
    for text in (row["text"] for row in rows):
        [(form, numbers)] = [
            (form, [int(number) for number in match.groups()])
            for form, (pattern, _) in enumerate(FORMS)
            if (match := re.fullmatch(pattern + r"\n", text))
        ]
        assert FORMS[form][1](*numbers), text
        seen.add(form)
    assert len(seen) == len(FORMS)
