"""What `rankwise.audit.merge_clones` found, for a terminal."""

from collections import Counter

MOST = 5  # reasons that are told one by one


def text(found: dict) -> str:
    """What the study has now, then a paragraph a place, then what to know and to do next."""
    here, *others = found["places"]
    copied = sum(len(place["taken"]) for place in others)
    would = "would be " if found["dry_run"] else ""
    there = found["planned"] - len(found["missing"])
    lines = [
        f"{found['study']}: {there} of {found['planned']} results {'would be' if found['dry_run'] else 'are'} there, "
        f"{len(found['missing'])} are to be made; {copied} files {would}copied, {len(here['taken'])} were here"
    ]
    for place in found["places"]:
        lines += _place(place, place is here)
    if found["timed"]:
        lines.append(
            f"timings that lie in several places: {len(found['timed'])}; times never agree, so the first place's count"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _place(place: dict, here: bool) -> list[str]:
    counts = {
        "copied": 0 if here else len(place["taken"]),
        "the same as what is taken": len(place["same"]),
        "stale": len(place["stale"]),
        "made from other inputs than those taken, or replaced"
        if here
        else "not what is taken": len(place["unlike"]),
        "that the study does not plan, left alone": 0 if here else place["unplanned"],
    }
    said = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    if here and not said:
        return []
    return [f"  {place['name']}: {said or 'nothing'}", *_reasons(place["stale"])]


def _reasons(stale: dict[str, list[str]]) -> list[str]:
    """A line a reason, with how many results it makes stale."""
    counts = Counter(why for reasons in stale.values() for why in reasons).most_common()
    more = [f"    and {len(counts) - MOST} reasons more"] if counts[MOST:] else []
    return [*(f"    {number} stale: {why}" for why, number in counts[:MOST]), *more]
