"""The terminal text of `rankwise trace`."""

from rankwise.study.grids import Cell

DEVICE_FACTS = ("device", "device_name", "driver")


def text(found: dict) -> str:
    """The target and how to build it, then each run behind it, then the sources of all runs."""
    lines = [found["target"], f"study    {found['study']}", f"rebuild  {found['command']}"]
    lines += [f"note     {note}" for note in found["notes"]]
    environments = [
        _environment(run["environment"]) for run in found["runs"] if "environment" in run
    ]
    has_one_environment = len(set(environments)) == 1
    if has_one_environment:
        lines.append(f"ran in   {environments[0]}")
    for run in found["runs"]:
        lines += ["", *_run(run, has_one_environment)]
    return "\n".join([*lines, *_sources(found)])


def _run(run: dict, has_one_environment: bool) -> list[str]:
    """One run, a line for each fact; the environment only if runs differ in it."""
    cell = run["cell"]
    name = Cell(**cell).folder if "method" in cell else "/".join(cell.values())
    status = f"{run['status']}: {run['reason']}" if run.get("reason") else run["status"]
    inputs = [f"{kind} {digest}" for kind, digest in run.get("inputs", {}).items()]
    facts = {
        "result": run["result"],
        "stale": run.get("stale"),
        "sources": run.get("sources"),
        "inputs": ", ".join(inputs),
    }
    if "environment" in run:
        facts["device"] = _device(run["environment"])
        if not has_one_environment:
            facts["ran in"] = _environment(run["environment"])
    facts["rebuild"] = run["command"]
    head = f"{run['run']}  {run['measurement']} of {name}: {status}"
    return [head, *(f"  {fact:8} {value}" for fact, value in facts.items() if value)]


def _environment(environment: dict) -> str:
    """Lock, interpreter, packages (torch first), platform, and what differs from the lock."""
    parts = [f"{environment['lock']} {environment['lock_digest']}"]
    if "python" in environment:
        parts.append(f"Python {environment['python']}")
    packages = environment.get("packages", {})
    names = sorted(packages, key=lambda name: name != "torch")
    parts += [f"{name} {packages[name]}" for name in names]
    if "platform" in environment:
        parts.append(environment["platform"])
    for name, how in environment.get("differs_from_lock", {}).items():
        parts.append(f"not as locked: {name} {how}")
    return ", ".join(parts)


def _device(environment: dict) -> str:
    return ", ".join(environment[fact] for fact in DEVICE_FACTS if fact in environment)


def _sources(found: dict) -> list[str]:
    """Source files with digests: first the files that all runs share, then the rest of each set."""
    sets = {name: set(code.items()) for name, code in found["sources"].items()}
    if not sets:
        return []
    if len(sets) == 1:
        ((name, code),) = sets.items()
        return _section(f"sources {name}", code, found["changed"])
    shared = set.intersection(*sets.values())
    lines = _section("sources of every run", shared, found["changed"])
    for name, code in sets.items():
        lines += _section(f"sources of {name}, besides", code - shared, found["changed"])
    return lines


def _section(title: str, code: set[tuple[str, str]], changed: list[str]) -> list[str]:
    """A title and a line for each source file; nothing if there is none."""
    if not code:
        return []
    lines = ["", title]
    for file, digest in sorted(code):
        mark = "  (changed since)" if file in changed else ""
        lines.append(f"  {digest}  {file}{mark}")
    return lines
