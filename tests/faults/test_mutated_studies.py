"""A mutated study or library is a valid plan, or is refused in sentences with file and key.

No mutation raises anything else, and none takes over 10 s. The studies and the mutations are those
of helpers/mutated_studies.py.
"""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from helpers import mutated_studies
from helpers.mutated_studies import STUDIES, mutated, mutations, said

STUDY = "config/first.yaml"
EXAMPLES = 2000
LONGEST_SENTENCE = 3000  # a list of 30 names of 64 characters, with what stands around it
# File, key, what was got and what is allowed. A folder of a model stands there with its own path.
SENTENCE = re.compile(r"^(config|methods|tasks|models|data)[\w./-]*: [^\n]+: got .+, allowed: .+$")
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def small_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = mutated_studies.write_clone(tmp_path_factory.mktemp("mutated"))
    for study in STUDIES:  # the first planning reads every source
        with mutated_studies.without_limit():
            assert said(folder, study) == []
    return folder


def check(clone: Path, file: str, content: bytes) -> int:
    """How many sentences a mutation is refused with; each one must be a sentence."""
    with mutated(clone, file, content):
        sentences = said(clone, file if file in STUDIES else STUDY)
    for sentence in sentences:
        assert SENTENCE.match(sentence), sentence
        assert len(sentence) < LONGEST_SENTENCE, sentence
        assert sentence.isprintable(), sentence
    return len(sentences)


def mutation_test(examples: int, files: list[str], clone: Path) -> set[bool]:
    """Plan so many mutations; returns whether some were refused, and some were not."""
    outcomes = set()

    @settings(SETTINGS, max_examples=examples)
    @given(mutations(mutated_studies.contents(clone), files))
    def run(mutation: tuple[str, bytes]) -> None:
        outcomes.add(check(clone, *mutation) > 0)

    run()
    return outcomes


def test_sixty_mutations_are_plans_or_sentences(small_clone: Path) -> None:
    files = list(mutated_studies.contents(small_clone))
    assert mutation_test(60, files, small_clone) == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["studies", "libraries"])
def test_mutations_are_plans_or_sentences(kind: str, small_clone: Path) -> None:
    files = [
        file
        for file in mutated_studies.contents(small_clone)
        if (file in STUDIES) == (kind == "studies")
    ]
    assert mutation_test(EXAMPLES // 2, files, small_clone) == {True, False}
