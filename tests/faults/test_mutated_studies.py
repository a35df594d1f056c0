"""A mutated study or library is a valid plan, or is refused in sentences with file and key.

No mutation raises anything else, and none takes over 10 s. The studies and the mutations are those
of helpers/mutated_studies.py.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from helpers import mutated_studies
from helpers.mutated_studies import STUDIES, mutated, mutations, said
from helpers.repository import CLEAN

STUDY = "config/first.yaml"
EXAMPLES = 2000
BY_COMMAND = 60
COMMAND_LIMIT_S = 120  # of the clock, on a busy machine
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


@pytest.mark.slow
def test_snakemake_and_the_doctor_say_the_same_of_sixty_mutations(small_clone: Path) -> None:
    """Each command plans, or ends with the sentence; it never shows a traceback."""
    texts = mutated_studies.contents(small_clone)
    refused = []

    # Without shrinking, which would start the commands a thousand times.
    @settings(SETTINGS, max_examples=BY_COMMAND, phases=[Phase.explicit, Phase.generate])
    @given(mutations(texts, list(texts)))
    def run(mutation: tuple[str, bytes]) -> None:
        file, content = mutation
        study = file if file in STUDIES else STUDY
        with mutated(small_clone, file, content):
            sentences = said(small_clone, study)
            refused.append(bool(sentences))
            planning = command(small_clone, "snakemake", "-n", "--configfile", study)
            examining = command(small_clone, "rankwise", "doctor", "--study", study)
        for done in (planning, examining):
            assert "Traceback" not in done.stdout + done.stderr
        if sentences:
            assert planning.returncode != 0
            assert " ".join(sentences[0].split()) in " ".join(planning.stderr.split())
            assert examining.returncode != 0
        else:
            assert planning.returncode == 0, planning.stderr

    run()
    assert set(refused) == {True, False}


def command(clone: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    """One of the installed commands, in the clone."""
    return subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=clone,
        env={**CLEAN, "PYTHONPATH": str(clone / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_LIMIT_S,
        check=False,
    )
