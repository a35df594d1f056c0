"""The settings that a training run was trained with, as columns of the table of runs."""

import json

from rankwise.study import search_choice

STORAGE = (
    "weights",
    "compute",
    "adapter_dtype",
    "dense",
)  # settings of a method that are no options of its modules


def run_settings(stored: dict) -> dict:
    """Every option of a run's method and optimizer, its storage and its schedule.

    Args:
        stored: A result. Only training runs have these columns: a trial of a search has those that
            it tried, and a profile depends on shapes.

    Returns:
        Column -> value, such as `options_alpha`, `optimizer_beta1` and `schedule_epochs`. A setting
        that is none, or an empty list, is left out.
    """
    request = stored["request"]
    if "schedule" not in request or "trial" in request:
        return {}
    method = search_choice.method(stored)
    columns = {name: method[name] for name in STORAGE if name in method}
    for part in search_choice.PARTS:
        columns |= {f"{part}_{name}": value for name, value in method[part].items()}
    columns |= {f"schedule_{name}": value for name, value in request["schedule"].items()}
    return {name: _plain(value) for name, value in columns.items() if value not in (None, [])}


def _plain(value: object) -> object:
    """A setting as one field of a table: a list as `query, value`, a mapping as JSON."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value
