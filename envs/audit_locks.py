"""What `make audit` does: known vulnerabilities, licences and a bill of materials of the locks.

    python envs/audit_locks.py TOOLS [all|vulnerabilities|licences|sbom]

TOOLS is the `bin` folder of an environment with envs/audit.lock (pip-audit, cyclonedx-bom, pip).
Licences are read from what is installed beside this interpreter, and for packages that are not
installed, such as CUDA's, from the package index.

It ends with 0 if nothing is wrong, 1 if a package has a known vulnerability, 2 if a licence is not
known, and 3 if the service of vulnerabilities did not answer for every package. Standard library
only.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LICENCES, SBOM = ROOT / "envs/licences.md", ROOT / "docker/sbom.json"
IMAGE_LOCK = "gpu"  # of the packages in the image
FINE, VULNERABLE, UNLICENSED, UNANSWERED = 0, 1, 2, 3
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", flags=re.MULTILINE)
LONGEST = 60  # characters of a licence's name; a longer one is the licence's text
# Packages whose authors state no licence, and why that is no question.
UNSTATED = {"cuda-toolkit": "none stated: it has no files, and only names packages of NVIDIA's"}


class Pin(NamedTuple):
    """A package of a lock."""

    name: str
    version: str


def pins(folder: Path = ROOT / "envs") -> dict[Pin, list[str]]:
    """Every package of every lock -> the names of the locks that have it."""
    locks: dict[Pin, list[str]] = {}
    for file in sorted(folder.glob("*.lock")):
        for found in PIN.findall(file.read_text(encoding="utf-8")):
            locks.setdefault(Pin(*found), []).append(file.stem)
    return dict(sorted(locks.items()))


# Licences -----------------------------------------------------------------------------------------


def licences(wanted: list[Pin], tools: Path) -> dict[Pin, str]:
    """The licence of each package; what is not known is left out.

    A licence in the table stays for as long as the package has that version.
    """
    known = read_table(LICENCES)
    found = {pin: known[pin] for pin in wanted if pin in known}
    for pin in wanted:
        if pin not in found and (licence := installed_licence(pin)):
            found[pin] = licence
    rest = [pin for pin in wanted if pin not in found]
    return {**found, **(indexed_licences(rest, tools) if rest else {})}


def read_table(file: Path) -> dict[Pin, str]:
    """The licences in a table that `table` wrote."""
    if not file.is_file():
        return {}
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \| .* \|$", file.read_text("utf-8"), re.M)
    return {Pin(*row[:2]): row[2] for row in rows if row[0] not in ("package", "---")}


def table(licences_by_pin: dict[Pin, str], locks: dict[Pin, list[str]]) -> str:
    """The page of licences."""
    lines = [
        "# Licences of the locked packages\n",
        "Written by `make audit` from what the packages' authors state. Nothing of them is in this "
        "repository; pip installs them. `lock`: the files `envs/NAME.lock` that have the package; "
        f"the image has those of `{IMAGE_LOCK}`, and the tests alone need those of `dev`.\n",
        "| package | version | licence | lock |",
        "| --- | --- | --- | --- |",
    ]
    for pin, licence in licences_by_pin.items():
        lines.append(f"| {pin.name} | {pin.version} | {licence} | {', '.join(locks[pin])} |")
    return "\n".join(lines) + "\n"


def installed_licence(pin: Pin) -> str:
    """What an installed package states, or the title of its licence's file; empty if unknown."""
    if pin.name in UNSTATED:
        return UNSTATED[pin.name]
    try:
        package = metadata.distribution(pin.name)
    except metadata.PackageNotFoundError:
        return ""
    if package.version.split("+")[0] != pin.version:
        return ""
    fields = package.metadata
    stated = stated_licence(
        fields.get("License-Expression"), fields.get("License"), fields.get_all("Classifier") or []
    )
    return stated or _title_of_file(package)


def stated_licence(expression: str | None, text: str | None, classifiers: list[str]) -> str:
    """The licence that metadata name: the expression, the classifiers, or a short free text."""
    if expression:
        return expression
    named = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    named = [name for name in named if name not in ("OSI Approved", "Other/Proprietary License")]
    if named:
        return "; ".join(named)
    text = (text or "").strip()
    is_name = text and text.upper() != "UNKNOWN" and len(text) <= LONGEST and "\n" not in text
    return text.replace("|", "/") if is_name else ""


def _title_of_file(package: metadata.Distribution) -> str:
    """The first line of the licence's file, as long as it is a title."""
    for file in package.files or []:
        if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING")):
            lines = Path(package.locate_file(file)).read_text("utf-8", "replace").splitlines()
            title = next((line.strip() for line in lines if line.strip()), "")
            if "licen" in title.lower() and len(title) <= LONGEST:
                return title
    return ""


def indexed_licences(wanted: list[Pin], tools: Path) -> dict[Pin, str]:
    """What the package index states of packages that are not installed."""
    with tempfile.TemporaryDirectory() as folder:
        names, report = Path(folder, "names.txt"), Path(folder, "report.json")
        names.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in wanted), "utf-8")
        options = ["--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", report]
        command = [tools / "pip", "install", *options, "-r", names]
        done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        answers = json.loads(report.read_text("utf-8"))["install"] if not done.returncode else []
    found = {}
    for answer in answers:
        fields = answer["metadata"]
        stated = stated_licence(
            fields.get("license_expression"), fields.get("license"), fields.get("classifier", [])
        )
        name = re.sub(r"[-_.]+", "-", fields["name"]).lower()  # as in the locks
        found[Pin(name, fields["version"])] = stated
    return {pin: licence for pin, licence in found.items() if licence}


# Bill of materials --------------------------------------------------------------------------------


def sbom(tools: Path, licences_by_pin: dict[Pin, str]) -> str:
    """The packages of the image as CycloneDX JSON, the same for the same lock."""
    lock = (ROOT / f"envs/{IMAGE_LOCK}.lock").read_text("utf-8")
    # Hashes are in the lock, of every platform's file; the tool would repeat them in texts.
    names = "".join(f"{name}=={version}\n" for name, version in PIN.findall(lock))
    options = ["requirements", "--output-format", "JSON", "--output-reproducible", "-"]
    done = subprocess.run(
        [tools / "cyclonedx-py", *options], input=names, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    references = {}
    for component in found["components"]:
        pin = Pin(component["name"], component["version"])
        references[component["bom-ref"]] = component["bom-ref"] = component["purl"]
        component["licenses"] = [{"license": {"name": licences_by_pin[pin]}}]
        del component["description"], component["externalReferences"]  # the line of the lock
    for dependency in found.get("dependencies", []):
        dependency["ref"] = references.get(dependency["ref"], dependency["ref"])
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


# Vulnerabilities ----------------------------------------------------------------------------------


def vulnerabilities(wanted: list[Pin], tools: Path) -> tuple[int, list[str]]:
    """Ask pip-audit for known vulnerabilities.

    Returns:
        FINE, VULNERABLE or UNANSWERED, and a line for each finding.
    """
    statuses, lines = [], []
    for some in rounds(wanted):
        done = _ask(some, tools)
        status, found = judge(done.stdout, done.stderr, len(some))
        statuses.append(status)
        lines += found
    # A vulnerability that is known matters more than packages that were not looked up.
    return next(status for status in (VULNERABLE, UNANSWERED, FINE) if status in statuses), lines


def rounds(wanted: list[Pin]) -> list[list[Pin]]:
    """The packages in as few lists as have no name twice, because pip-audit refuses that."""
    lists: list[dict[str, Pin]] = []
    for pin in wanted:
        chosen = next((pins for pins in lists if pin.name not in pins), None)
        if chosen is None:
            lists.append(chosen := {})
        chosen[pin.name] = pin
    return [list(pins.values()) for pins in lists]


def _ask(wanted: list[Pin], tools: Path) -> subprocess.CompletedProcess:
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "names.txt")
        names.write_text("".join(f"{pin.name}=={pin.version}\n" for pin in wanted), "utf-8")
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        command = [tools / "pip-audit", *options, "-r", names]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def judge(printed: str, errors: str, asked: int) -> tuple[int, list[str]]:
    """What pip-audit's answer means. Its own exit status is 0 also for packages it did not look up.

    Args:
        printed: Its JSON; something else if it failed.
        errors: What it said beside that.
        asked: The number of packages.
    """
    try:
        answers = json.loads(printed)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = errors.strip().splitlines()[-1] if errors.strip() else "no answer"
        return UNANSWERED, [f"vulnerabilities: not known, the service did not answer: {reason}"]
    lines = []
    for answer in answers:
        for found in answer.get("vulns", []):
            fixed = ", ".join(found["fix_versions"]) or "no version yet"
            package = f"{answer['name']} {answer['version']}"
            lines.append(f"{package}: {found['id']}, fixed in: {fixed}")
    looked_up = [answer for answer in answers if "vulns" in answer]
    missing = asked - len(looked_up)
    if missing:
        reasons = [answer["skip_reason"] for answer in answers if "skip_reason" in answer]
        first = reasons[0] if reasons else "no answer"
        lines.append(f"vulnerabilities: not known of {missing} of {asked} packages: {first}")
    if len(lines) > bool(missing):
        return VULNERABLE, lines
    if missing:
        return UNANSWERED, lines
    return FINE, [f"vulnerabilities: none known of {asked} packages"]


# The command --------------------------------------------------------------------------------------


def main() -> int:
    """Run what is asked for; the exit status is the first thing that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tools", type=Path, help="the bin folder with pip-audit and cyclonedx-py")
    parts = ("all", "vulnerabilities", "licences", "sbom")
    parser.add_argument("part", nargs="?", default="all", choices=parts)
    given = parser.parse_args()
    locks = pins()
    statuses = []
    if given.part != "vulnerabilities":
        found = licences(list(locks), given.tools)
        unknown = [f"{pin.name} {pin.version}" for pin in locks if pin not in found]
        if unknown:
            print(f"licences: not known of {', '.join(unknown)}; allowed: one for each package")
            return UNLICENSED
        if given.part in ("all", "licences"):
            LICENCES.write_text(table({pin: found[pin] for pin in locks}, locks), "utf-8")
            print(f"{LICENCES.relative_to(ROOT)}: licences of {len(locks)} packages")
        if given.part in ("all", "sbom"):
            SBOM.write_text(sbom(given.tools, found), "utf-8")
            print(f"{SBOM.relative_to(ROOT)}: the packages of envs/{IMAGE_LOCK}.lock")
    if given.part in ("all", "vulnerabilities"):
        status, lines = vulnerabilities(list(locks), given.tools)
        print(*lines, sep="\n")
        statuses.append(status)
    return max(statuses, default=FINE)


if __name__ == "__main__":
    sys.exit(main())
