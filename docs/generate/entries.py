"""The reference of entries: those of each file in config/, and the cluster's names."""

from pathlib import Path

from generate import schemas

HEAD = """# Entry keys

Generated from the JSON schemas in `{folder}`. An entry is one name in a file of `config/`; `NAME`
stands for it. [Extend](../extend/method.md) shows whole entries.

"""
FILES = {
    "methods": "config/methods.yaml",
    "models": "config/models.yaml",
    "datasets": "config/datasets.yaml",
    "evaluations": "config/evaluations.yaml",
    "claims": "config/claims.yaml",
    "cluster": "profiles/cluster.yaml",
}


def page(root: Path) -> str:
    """One table a file."""
    parts = [HEAD.format(folder=schemas.folder(root).relative_to(root))]
    for name, file in FILES.items():
        schema = schemas.read(root, name)
        found = [key for key in schemas.keys(schema, schema) if ".schedule." not in key.path]
        parts.append(f"## {file}\n\n{schemas.table(found)}\n")
    return "".join(parts)
