"""What `rankwise.audit.trace` found, for a terminal."""

from rankwise.study.plan import Cell

NAMED = ("device", "device_name", "driver")


def text(found: dict) -> str:
    """The target and how to build it, then each run behind it, then the sources of all of them, each named once."""
    head = [found["target"], f"study    {found['study']}", f"rebuild  {found['command']}"]
    head += [f"note     {note}" for note in found["notes"]]
    places = list(
        dict.fromkeys(
            _environment(run["environment"]) for run in found["runs"] if "environment" in run
        )
    )
    if len(places) == 1:
        head += [f"ran in   {places[0]}"]
    runs = [line for run in found["runs"] for line in ["", *_run(run, len(places) > 1)]]
    return "\n".join([*head, *runs, *_sources(found)])


def _run(run: dict, placed: bool) -> list[str]:
    """One run, a line a fact."""
    cell = Cell(**run["cell"]).folder if "method" in run["cell"] else "/".join(run["cell"].values())
    status = f"{run['status']}: {run['reason']}" if run.get("reason") else run["status"]
    inputs = ", ".join(f"{kind} {digest}" for kind, digest in run.get("inputs", {}).items())
    facts = {
        "result": run["result"],
        "stale": run.get("stale"),
        "sources": run.get("sources"),
        "inputs": inputs,
        "device": _device(run["environment"]) if "environment" in run else None,
        "ran in": _environment(run["environment"]) if placed and "environment" in run else None,
        "rebuild": run["command"],
    }
    return [
        f"{run['run']}  {run['measurement']} of {cell}: {status}",
        *(f"  {k:8} {v}" for k, v in facts.items() if v),
    ]


def _environment(found: dict) -> str:
    packages = [
        f"{name} {version}"
        for name, version in sorted(
            found.get("packages", {}).items(), key=lambda one: one[0] != "torch"
        )
    ]
    differs = [
        f"not as locked: {name} {how}" for name, how in found.get("differs_from_lock", {}).items()
    ]
    lock = f"{found['lock']} {found['lock_digest']}"
    python = [f"Python {found['python']}"] if "python" in found else []
    return ", ".join(
        [lock, *python, *packages, *([found["platform"]] if "platform" in found else []), *differs]
    )


def _device(found: dict) -> str:
    return ", ".join(found[name] for name in NAMED if name in found)


def _sources(found: dict) -> list[str]:
    """Files and digests: first those of all runs, then what each set has besides."""
    sets = {name: set(code.items()) for name, code in found["sources"].items()}
    shared = set.intersection(*sets.values()) if sets else set()
    lines = []
    for name, code in {"all": shared, **sets}.items():
        own = sorted(code if name == "all" else code - shared)
        if own:
            lines += [
                "",
                f"sources of {'every run' if name == 'all' else name + ', besides'}"
                if len(sets) > 1
                else f"sources {next(iter(sets))}",
            ]
            lines += [
                f"  {digest}  {file}{'  (changed since)' * (file in found['changed'])}"
                for file, digest in own
            ]
    return lines
