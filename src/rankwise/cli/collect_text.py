"""The terminal text of `rankwise collect`."""

from rankwise.cli.store_text import size
from rankwise.core.words import counted


def text(answer: dict) -> str:
    """How much was added, and a paragraph for each folder."""
    folders = answer["folders"]
    added = sum(len(folder["added"]) for folder in folders)
    done = "would be added" if answer["dry_run"] else "added"
    lines = [f"{answer['store']}: {counted(added, 'result')} {done}, {size(answer['added_bytes'])}"]
    for folder in folders:
        counts = {
            done: len(folder["added"]),
            "the same as there": len(folder["same"]),
            "measured times, of which the first stay": len(folder["timed"]),
        }
        words = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        lines.append(f"  {folder['name']}: {words or 'nothing new'}")
        lines += [f"    {note}" for note in folder["notes"]]
    if added and not answer["dry_run"]:
        lines.append("snakemake and `rankwise plan` link those that a study plans into its folder")
    return "\n".join(lines)
