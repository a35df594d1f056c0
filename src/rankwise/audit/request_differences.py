"""Why a result is outdated: what differs between the request that it answers and the planned one.

Standard library only.
"""

from rankwise.core import compare, config, provenance


def differences(stored: dict, planned: dict) -> list[str]:
    """The differences of two requests, in words.

    Args:
        stored: The request that a result answers.
        planned: The request that the study plans now.

    Returns:
        Changed source files first, then the lock, then inputs that were prepared again, then
        settings with both values.
    """
    reasons = _changed_sources(stored, planned)
    if stored.get("environment") != planned["environment"]:
        reasons.append(f"{planned['environment']['lock']} changed")
    reasons += _changed_inputs(stored, planned)
    parts_named_above = ("code", "environment", "inputs")
    stored_settings = config.without(stored, parts_named_above)
    planned_settings = config.without(planned, parts_named_above)
    for difference in compare.differences(stored_settings, planned_settings, into_lists=False):
        values = f"{_shown(difference.first)} -> {_shown(difference.second)}"
        reasons.append(f"{difference.key}: {values}")
    return reasons


def _changed_sources(stored: dict, planned: dict) -> list[str]:
    """Source files that have another digest, or that only one of the requests names."""
    changed = set(stored.get("code", {}).items()) ^ set(planned.get("code", {}).items())
    files = {provenance.source_file(name) for name, _ in changed}
    return [f"{file} changed" for file in sorted(files)]


def _changed_inputs(stored: dict, planned: dict) -> list[str]:
    before, now = stored.get("inputs", {}), planned.get("inputs", {})
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return [f"{name} prepared anew" for name in changed]


def _shown(value: object) -> str:
    return "nothing" if value is compare.ABSENT else str(value)
