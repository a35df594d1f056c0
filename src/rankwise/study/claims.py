"""The registry of published numbers: a family of config/claims.yaml becomes one claim a number. Standard library only."""

import re

from rankwise.core.config import ConfigError, merge, pick

FILE = "config/claims.yaml"
COMMAND = "snakemake results/claims.csv --cores all --configfile"


def expand(families: dict[str, dict]) -> dict[str, dict]:
    """Claims by name: `family` where it has one number, `family_r4` where its values are by rank, else `family_key`.

    In the families' order, then by key, numbers ascending. A rank may be text, as the keys of JSON are.
    """
    return {
        name: claim for family, entry in families.items() for name, claim in _members(family, entry)
    }


def _members(family: str, entry: dict) -> list[tuple[str, dict]]:
    if "values" not in entry:
        return [(family, _claim(entry, {}))]
    shared = {key: value for key, value in entry.items() if key != "values"}
    values = {str(key): value for key, value in entry["values"].items()}
    return [_member(family, shared, key, values[key]) for key in sorted(values, key=_natural)]


def _natural(key: str) -> list[str | int]:
    """What sorts r8 before r16."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", key)]


def _member(family: str, shared: dict, key: str, value: float | dict) -> tuple[str, dict]:
    own = value if isinstance(value, dict) else {"published": value}
    if key.isdigit():
        return f"{family}_r{key}", _claim(
            shared, {**own, "cell": {"rank": int(key), **own.get("cell", {})}}
        )
    return f"{family}_{key}", _claim(shared, own)


def _claim(shared: dict, own: dict) -> dict:
    claim = merge(shared, own)
    tolerance = claim.pop("tolerance", {})
    share = abs(claim["published"]) * tolerance.get("fraction", 0)
    notes = [claim.pop("note", ""), f"tolerance: {tolerance['reason']}" if tolerance else ""]
    claim |= {"tolerance": tolerance.get("value", share), "note": "; ".join(filter(None, notes))}
    if "table" in claim:
        claim["cell"] = {"rank": 0, **claim["cell"]}
        claim["column"] = (
            claim["column"] if isinstance(claim["column"], list) else [claim["column"]]
        )
    decided = "table" in claim and "not_comparable" not in claim
    return {
        **claim,
        "needs": needs(claim["needs"]),
        "command": f"{COMMAND} {claim['study']}" if decided else "",
    }


def needs(wanted: dict) -> str:
    """What deciding a claim takes beyond its shapes: `GPU (any), hub, 0.4 h`; nothing for shapes."""
    words = [
        f"GPU ({wanted['gpu']})" if "gpu" in wanted else "",
        "hub" if wanted.get("hub") else "",
    ]
    return ", ".join(filter(None, [*words, f"{wanted['hours']:g} h" if "hours" in wanted else ""]))


def check(library: dict[str, dict]) -> None:
    """Rules between keys of a family, which a schema cannot say in one sentence.

    Raises:
        ConfigError: a family has no number, or nothing that decides it; a corrected number lacks its reading; a cell names an
            entry that is not there.
    """
    for family, entry in library["claims"].items():
        if ("values" in entry) == ("published" in entry):
            got = "both" if "values" in entry else "neither"
            raise ConfigError(FILE, family, got, "exactly one of published and values")
        _check_decision(family, entry)
        for key, claim in _members(family, entry):
            _check_claim(key, claim, library)


def _check_decision(family: str, entry: dict) -> None:
    there = [key for key in ("table", "column", "cell") if key in entry]
    if there and len(there) < 3:
        raise ConfigError(
            FILE, family, ", ".join(there), "table, column and cell together, or none of them"
        )
    if not there and not {"not_comparable", "lacks"} & set(entry):
        raise ConfigError(
            FILE,
            family,
            "no table",
            "table, column and cell; or why there is none: not_comparable or lacks",
        )
    if ("against" in entry) != ("compare" in entry):
        raise ConfigError(
            FILE,
            family,
            "against" if "against" in entry else "compare",
            "against and compare together",
        )


def _check_claim(name: str, claim: dict, library: dict[str, dict]) -> None:
    corrected = {"corrected", "corrected_cell"} & set(claim)
    if corrected and "reading" not in claim:
        raise ConfigError(
            FILE, f"{name}.reading", "nothing", f"what the number of {corrected.pop()} means"
        )
    cells = {"cell": claim.get("cell", {})}
    cells |= {key: {**cells["cell"], **claim[key]} for key in ("corrected_cell",) if key in claim}
    cells |= (
        {"against": {**cells["cell"], **claim["against"].get("cell", {})}}
        if "against" in claim
        else {}
    )
    for key, cell in cells.items() if "table" in claim else ():
        for kind in ("model", "dataset", "method"):
            pick(library[f"{kind}s"], cell.get(kind, "nothing"), FILE, f"{name}.{key}.{kind}")
