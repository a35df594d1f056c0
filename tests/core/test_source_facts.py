"""What was read of a source is kept by its content, and never outlives it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.repository import CLEAN, ROOT
from rankwise.core import source_facts

SOURCE = "import os\nfrom . import parts\nfrom ..core import a, b\n\ndef f():\n    import json\n"
OTHER = SOURCE.replace("import json", "import html")  # as long as the first
ASK = """
import ast, sys
from pathlib import Path
from rankwise.core import provenance
parsed = []
parse = ast.parse
ast.parse = lambda *args, **kwargs: parsed.append(1) or parse(*args, **kwargs)
digest = provenance.code_digest_now(Path(sys.argv[1]))
print(digest, provenance._imports(Path(sys.argv[1]), "rankwise.optim"), len(parsed), sep="\\n")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "source.py").write_text(SOURCE)
    return tmp_path


def ask(project: Path) -> tuple[str, str, int]:
    """A new process's answer: digest, imports, and how many files it had to parse."""
    environment = {**CLEAN, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", ASK, "source.py"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    digest, imports, parsed = done.stdout.splitlines()
    return digest, imports, int(parsed)


def test_a_second_process_parses_nothing_and_says_the_same(project: Path) -> None:
    first, second = ask(project), ask(project)
    assert first[2] == 1
    assert second == (*first[:2], 0)
    assert "'os'" in first[1] and "'json'" in first[1]
    assert "'rankwise.optim.parts'" in first[1] and "'rankwise.core.b'" in first[1]


def test_an_edit_of_the_same_length_and_time_is_seen(project: Path) -> None:
    first, source = ask(project), project / "source.py"
    times = source.stat()
    source.write_text(OTHER)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    edited = ask(project)
    assert edited[0] != first[0] and "'html'" in edited[1]
    source.write_text(SOURCE)
    assert ask(project) == (*first[:2], 0)  # both contents are kept


@pytest.mark.parametrize("harm", ["cut", "other digest", "other reader", "no JSON", "a list"])
def test_a_kept_file_that_does_not_fit_is_written_anew(harm: str, project: Path) -> None:
    first, kept = ask(project), project / source_facts.KEPT
    whole = json.loads(kept.read_text())
    key = next(iter(whole["files"]))
    texts = {
        "cut": kept.read_text()[:100],
        "other digest": json.dumps({**whole, "files": {key: ["0" * 16, whole["files"][key][1]]}}),
        "other reader": json.dumps({**whole, "by": "3.9.0 abc"}),
        "no JSON": "\0\0",
        "a list": "[]",
    }
    kept.write_text(texts[harm])
    assert ask(project) == first
    assert ask(project) == (*first[:2], 0)


def test_a_folder_without_results_gets_none(project: Path) -> None:
    (project / "results").rmdir()
    ask(project)
    assert [path.name for path in project.iterdir()] == ["source.py"]
