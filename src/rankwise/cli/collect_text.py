"""What `rankwise.audit.merge_clones` found, for a terminal."""

from collections import Counter

MOST_SHOWN = 5  # reasons that are told one by one


def text(found: dict) -> str:
    """What the study has now, then a paragraph for each place, then notes."""
    here, *others = found["places"]
    lines = [_head(found, here, others), *_place(here, is_here=True)]
    for place in others:
        lines += _place(place, is_here=False)
    if found["timed"]:
        lines.append(
            f"timings that lie in several places: {len(found['timed'])}; "
            "times never agree, so the first place's count"
        )
    lines += [f"note: {note}" for note in found["notes"]]
    return "\n".join(lines)


def _head(found: dict, here: dict, others: list[dict]) -> str:
    copied = sum(len(place["taken"]) for place in others)
    missing = len(found["missing"])
    existing = found["planned"] - missing
    are, were = ("would be", "would be ") if found["dry_run"] else ("are", "")
    return (
        f"{found['study']}: {existing} of {found['planned']} results {are} there, "
        f"{missing} are to be made; {copied} files {were}copied, {len(here['taken'])} were here"
    )


def _place(place: dict, is_here: bool) -> list[str]:
    """What became of a place's results, with the reasons why some are stale."""
    taken = len(place["taken"])
    same, stale, unlike = len(place["same"]), len(place["stale"]), len(place["unlike"])
    if is_here:
        counts = {
            "the same as what is taken": same,
            "stale": stale,
            "made from other inputs than those taken, or replaced": unlike,
        }
    else:
        counts = {
            "copied": taken,
            "the same as what is taken": same,
            "stale": stale,
            "not what is taken": unlike,
            "that the study does not plan, left alone": place["unplanned"],
        }
    words = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if is_here and not words:
        return []
    return [f"  {place['name']}: {words or 'nothing'}", *_reasons(place["stale"])]


def _reasons(stale: dict[str, list[str]]) -> list[str]:
    """A line for each reason, with how many results it makes stale."""
    counts: Counter = Counter()
    for reasons in stale.values():
        counts.update(reasons)
    ordered = counts.most_common()
    lines = [f"    {count} stale: {reason}" for reason, count in ordered[:MOST_SHOWN]]
    if len(ordered) > MOST_SHOWN:
        lines.append(f"    and {len(ordered) - MOST_SHOWN} reasons more")
    return lines
