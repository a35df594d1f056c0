"""Put the workflow's files into the wheel, where `rankwise.core.paths` looks for them.

An editable install finds them in the clone instead.
"""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILES = (
    "Snakefile",
    "rules",
    "workflow_scripts",
    "config",
    "profiles",
    "envs",
    "docker/image",
    "pyproject.toml",
)


class WorkflowFiles(BuildHookInterface):
    """Adds `rankwise/workflow/` to a wheel."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Called by hatchling before it builds; `version` is `standard` or `editable`."""
        if version == "standard":
            files = {name: f"rankwise/workflow/{name}" for name in FILES}
            build_data["force_include"].update(files)
