"""Licences and the bill of materials are those of the locks; vulnerabilities that are not known are no pass."""

import json
import re
import sys

import pytest

from helpers.repository import ROOT

sys.path.insert(0, str(ROOT / "envs"))
import audit_locks as audit
from audit_locks import Pin


def locked(name: str) -> set[Pin]:
    """The packages of a lock, by another reading of its lines."""
    lines = (ROOT / f"envs/{name}.lock").read_text().splitlines()
    found = (line.split("\\")[0].split(";")[0].strip() for line in lines if "==" in line)
    return {Pin(*line.split("==")) for line in found}


def test_every_locked_package_has_its_licence_in_the_table() -> None:
    names = [file.stem for file in (ROOT / "envs").glob("*.lock")]
    rows = audit.read_table(ROOT / "envs/licences.md")
    assert set(rows) == set().union(*map(locked, names)), "run `make audit`"
    assert all(re.search(r"[A-Za-z0-9]{2}", licence) for licence in rows.values())


def test_the_table_says_which_locks_have_a_package() -> None:
    text = (ROOT / "envs/licences.md").read_text()
    for name in ("torch", "ruff", "pip-audit"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        version = line.split(" | ")[1]
        locks = line.rstrip(" |").rpartition(" | ")[2].split(", ")
        files = (ROOT / "envs").glob("*.lock")
        assert locks == sorted(
            file.stem for file in files if Pin(name, version) in locked(file.stem)
        )


def test_the_bill_of_materials_is_that_of_the_image() -> None:
    bill = json.loads((ROOT / "docker/sbom.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    components = bill["components"]
    assert {Pin(part["name"], part["version"]) for part in components} == locked("gpu"), (
        "run `make audit`"
    )
    licences = audit.read_table(ROOT / "envs/licences.md")
    for part in components:
        pin = Pin(part["name"], part["version"])
        assert part["purl"] == part["bom-ref"] == f"pkg:pypi/{pin.name}@{pin.version}"
        assert part["licenses"] == [{"license": {"name": licences[pin]}}]


@pytest.mark.parametrize(("stated", "licence"), [
    (("MIT OR Apache-2.0", "a text", ["License :: OSI Approved :: BSD License"]), "MIT OR Apache-2.0"),
    ((None, "BSD", ["License :: OSI Approved :: BSD License", "Topic :: Text"]), "BSD License"),
    ((None, "NVIDIA's own", ["License :: Other/Proprietary License"]), "NVIDIA's own"),
    ((None, "UNKNOWN", []), ""),
    ((None, "Copyright (c) 2020\nPermission is hereby granted", []), ""),
    ((None, None, []), ""),
])  # fmt: skip
def test_what_metadata_state(stated: tuple, licence: str) -> None:
    assert audit.stated_licence(*stated) == licence


def test_two_versions_of_a_package_are_asked_one_after_the_other() -> None:
    one, other, third = Pin("a", "1"), Pin("a", "2"), Pin("b", "1")
    assert audit.rounds([one, other, third]) == [[one, third], [other]]


# CLEAN and SKIPPED are what pip-audit 2.10.1 printed, the second with an index that has no such
# service. FOUND follows its documented format.
CLEAN = '{"dependencies": [{"name": "torch", "version": "2.13.0", "vulns": []}], "fixes": []}'
SKIPPED = (
    '{"dependencies": [{"name": "torch", "skip_reason": "Dependency not found on PyPI and could '
    'not be audited: torch (2.13.0)"}], "fixes": []}'
)
FOUND = (
    '{"dependencies": [{"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2014-8", '
    '"fix_versions": ["2.7.2"], "aliases": ["CVE-2014-0012"], "description": "..."}]}], "fixes": []}'
)
NO_CONNECTION = (
    "Traceback (most recent call last):\n  File ...\n"
    "requests.exceptions.ConnectionError: Failed to resolve 'api.osv.dev'\n"
)


@pytest.mark.parametrize(("printed", "errors", "asked", "status", "line"), [
    (CLEAN, "", 1, 0, "vulnerabilities: none known of 1 packages"),
    (FOUND, "Found 1 known vulnerability", 1, 1, "jinja2 2.4.1: PYSEC-2014-8, fixed in: 2.7.2"),
    (SKIPPED, "No known vulnerabilities found", 1, 3, "vulnerabilities: not known of 1 of 1 packages: Dependency not found"),
    (FOUND, "", 3, 1, "jinja2 2.4.1: PYSEC-2014-8, fixed in: 2.7.2"),
    (CLEAN, "", 2, 3, "vulnerabilities: not known of 1 of 2 packages: no answer"),
    ("", NO_CONNECTION, 1, 3, "vulnerabilities: not known, the service did not answer: requests.exceptions.ConnectionError: Failed"),
    ("", "", 1, 3, "vulnerabilities: not known, the service did not answer: no answer"),
])  # fmt: skip
def test_only_an_answer_for_every_package_is_a_pass(
    printed: str, errors: str, asked: int, status: int, line: str
) -> None:
    found, lines = audit.judge(printed, errors, asked)
    assert found == status
    assert lines[0].startswith(line)
