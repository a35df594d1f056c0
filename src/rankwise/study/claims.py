"""The registry of published numbers: each family of config/claims.yaml becomes one claim a number.

Standard library only.
"""

import re

from rankwise.core.config import ConfigError, merge, pick

FILE = "config/claims.yaml"
COMMAND = "snakemake claims --cores all --configfile"  # `claims` is a rule
DECIDING = ("table", "column", "cell")  # keys of a family that say which number of ours decides it


# Families become claims ---------------------------------------------------------------------------


def expand(families: dict[str, dict]) -> dict[str, dict]:
    """The claims of all families.

    Args:
        families: Entries of the registry by name. A rank may be text, as keys of JSON are.

    Returns:
        Claims by name, in the order of the families and then of their keys, numbers ascending. A
        family with one number gives `family`; one with values by rank gives `family_r4`; another
        gives `family_key`.
    """
    claims = {}
    for family, entry in families.items():
        claims |= _claims_of(family, entry)
    return claims


def _claims_of(family: str, entry: dict) -> dict[str, dict]:
    if "values" not in entry:
        return {family: _claim(entry, {})}
    shared = {key: value for key, value in entry.items() if key != "values"}
    values = {str(key): value for key, value in entry["values"].items()}
    claims = {}
    for key in sorted(values, key=_natural_order):
        own = values[key] if isinstance(values[key], dict) else {"published": values[key]}
        if key.isdigit():
            own = {**own, "cell": {"rank": int(key), **own.get("cell", {})}}
            claims[f"{family}_r{key}"] = _claim(shared, own)
        else:
            claims[f"{family}_{key}"] = _claim(shared, own)
    return claims


def _natural_order(key: str) -> list[str | int]:
    """A sort key that puts r8 before r16."""
    parts = re.split(r"(\d+)", key)
    return [int(part) if part.isdigit() else part for part in parts]


def _claim(shared: dict, own: dict) -> dict:
    """One claim: its family's entry and its own, with everything that follows filled in."""
    claim = merge(shared, own)
    tolerance = claim.pop("tolerance", {})
    claim["tolerance"] = _absolute(tolerance, claim["published"])
    notes = [claim.pop("note", ""), f"tolerance: {tolerance['reason']}" if tolerance else ""]
    claim["note"] = "; ".join(note for note in notes if note)
    if "table" in claim:
        claim["cell"] = {"rank": 0, **claim["cell"]}
        if not isinstance(claim["column"], list):
            claim["column"] = [claim["column"]]
    is_decided = "table" in claim and "not_comparable" not in claim
    claim["needs"] = needs(claim["needs"])
    claim["command"] = f"{COMMAND} {claim['study']}" if is_decided else ""
    return claim


def _absolute(tolerance: dict, published: float) -> float:
    """A tolerance in the claim's unit, given so or as a fraction of the published number."""
    share = abs(published) * tolerance.get("fraction", 0)
    return tolerance.get("value", share)


def needs(wanted: dict) -> str:
    """The needs of deciding a claim: `GPU (any), hub, 0.4 h`; empty where shapes are enough."""
    parts = []
    if "gpu" in wanted:
        parts.append(f"GPU ({wanted['gpu']})")
    if wanted.get("hub"):
        parts.append("hub")
    if "hours" in wanted:
        parts.append(f"{wanted['hours']:g} h")
    return ", ".join(parts)


# Checks -------------------------------------------------------------------------------------------


def check(library: dict[str, dict]) -> None:
    """Check rules between the keys of a family that its schema cannot express in one sentence.

    Args:
        library: The checked entries of config/, by kind.

    Raises:
        ConfigError: A family has no number, or nothing that decides it; a corrected number lacks
            its reading; or a cell names an entry that does not exist.
    """
    for family, entry in library["claims"].items():
        if ("values" in entry) == ("published" in entry):
            got = "both" if "values" in entry else "neither"
            raise ConfigError(FILE, family, got, "exactly one of published and values")
        _check_decision(family, entry)
        for name, claim in _claims_of(family, entry).items():
            _check_reading(name, claim)
            _check_cells(name, claim, library)


def _check_decision(family: str, entry: dict) -> None:
    """Check that something decides a family, or that it says why nothing does."""
    given = [key for key in DECIDING if key in entry]
    if given and len(given) < len(DECIDING):
        allowed = "table, column and cell together, or none of them"
        raise ConfigError(FILE, family, ", ".join(given), allowed)
    if not given and "not_comparable" not in entry and "lacks" not in entry:
        allowed = "table, column and cell; or why there is none: not_comparable or lacks"
        raise ConfigError(FILE, family, "no table", allowed)
    if ("against" in entry) != ("compare" in entry):
        got = "against" if "against" in entry else "compare"
        raise ConfigError(FILE, family, got, "against and compare together")


def _check_reading(name: str, claim: dict) -> None:
    """Check that a corrected number or cell says what it means."""
    for key in ("corrected", "corrected_cell"):
        if key in claim and "reading" not in claim:
            allowed = f"what the number of {key} means"
            raise ConfigError(FILE, f"{name}.reading", "nothing", allowed)


def _check_cells(name: str, claim: dict, library: dict[str, dict]) -> None:
    """Check that the cells of a claim name models, datasets and methods that exist.

    The method of a cell may be a variant, such as `lora@short`.
    """
    if "table" not in claim:
        return
    cells = {"cell": claim["cell"]}
    if "corrected_cell" in claim:
        cells["corrected_cell"] = {**claim["cell"], **claim["corrected_cell"]}
    if "against" in claim:
        cells["against"] = {**claim["cell"], **claim["against"].get("cell", {})}
    for key, cell in cells.items():
        for kind in ("model", "dataset", "method"):
            named = cell.get(kind, "nothing").partition("@")[0]
            pick(library[f"{kind}s"], named, FILE, f"{name}.{key}.{kind}")
