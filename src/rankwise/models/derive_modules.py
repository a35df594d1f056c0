"""The part `modules` of a models entry: for each role a name that finds its matrices, and a shape.

A name is the end of the modules' full names, in whole components. Where the names of two roles fit
a module, the longer one decides, as in `methods.parts.peft_base.modules_of`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from torch import nn

from rankwise.models.derive_roles import LINEAR, ROLES

FREE = "a name of letters, digits and _, such as query"


class Matrices(NamedTuple):
    """Matrices of one kind: the same place in every layer.

    Attributes:
        module: full name with `*` for numbers.
        shape: of the weight, as stored: (out, in), for Conv1D (in, out).
        count: how many there are.
    """

    module: str
    shape: list[int]
    count: int


class Modules(NamedTuple):
    """The known facts of all matrices.

    Attributes:
        entry: role -> name and shape.
        matrices: role -> where its matrices are.
        others: matrices without a role.
        notes: sentences on roles that an entry cannot hold.
    """

    entry: dict[str, dict]
    matrices: dict[str, Matrices]
    others: list[Matrices]
    notes: list[str]


def chosen_roles(given: Iterable[str]) -> dict[str, str]:
    """Role -> name, of `ROLE=NAME` texts from the command line.

    Raises:
        ValueError: a text has another form, or a role stands twice.
    """
    roles: dict[str, str] = {}
    for text in given:
        role, _, name = text.partition("=")
        if not re.fullmatch(r"[A-Za-z_]\w*", role) or not name:
            raise ValueError(f"--role: got {text!r}, allowed: ROLE=NAME; ROLE is {FREE}")
        if role in roles:
            raise ValueError(f"--role: got {role} twice, allowed: each role once")
        roles[role] = name
    return roles


def modules(
    base: nn.Module,
    trees: list[nn.Module],
    told: dict[str, list[str]],
    chosen: dict[str, str],
) -> Modules:
    """Name the matrices of each role.

    Args:
        base: the model without a head.
        trees: models with heads, which the names must fit, too.
        told: role -> full names in `base`, from the flow of data.
        chosen: role -> end of a name, from the user; it takes its matrices from other roles.

    Raises:
        ValueError: a chosen name fits no matrix, or matrices of several shapes; or no names tell
            the roles apart.
    """
    shapes = {name: list(m.weight.shape) for name, m in base.named_modules() if _is_linear(m)}
    roles, notes = _with_chosen(told, chosen, shapes), []
    for role in list(roles):
        stacks = 2 if base.config.is_encoder_decoder else 1
        reason = None if role in chosen else _reason_against(roles[role], shapes, stacks)
        if reason:
            notes.append(f"{role}: {', '.join(_patterns(roles.pop(role)))} {reason}")
    all_names = _all_names([base, *trees])
    targets = {role: _in_all(names, [base, *trees]) for role, names in roles.items()}
    names = {role: chosen.get(role) or _ending(role, targets, all_names) for role in roles}
    _check_apart(names, targets, all_names)
    order = [role for role in ROLES if role in roles] + [r for r in roles if r not in ROLES]
    entry = {role: {"name": names[role], "shape": shapes[roles[role][0]]} for role in order}
    matrices = {role: _one(_summary(roles[role], shapes)) for role in order}
    others = [name for name in shapes if not any(name in of_role for of_role in roles.values())]
    return Modules(entry, matrices, _summary(others, shapes), notes)


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, LINEAR)


def _with_chosen(
    told: dict[str, list[str]], chosen: dict[str, str], shapes: dict[str, list[int]]
) -> dict[str, list[str]]:
    """Roles with those that the user names; a chosen matrix leaves the role that it was told."""
    picked = {}
    for role, ending in chosen.items():
        picked[role] = [name for name in shapes if _fits(name, ending)]
        if not picked[role]:
            listed = "; ".join(described(_summary(list(shapes), shapes)))
            raise ValueError(f"--role {role}={ending}: fits no matrix, allowed: {listed}")
        found = {tuple(shapes[name]) for name in picked[role]}
        if len(found) > 1:
            several = " and ".join(f"{m} x {n}" for m, n in sorted(found))
            allowed = "matrices of one shape; give more of the name"
            raise ValueError(f"--role {role}={ending}: got shapes {several}, allowed: {allowed}")
    taken = {name for names in picked.values() for name in names}
    kept = {}
    for role, names in told.items():
        rest = [name for name in names if name not in taken]
        if role not in picked and rest:
            kept[role] = rest
    return kept | picked


def _reason_against(names: list[str], shapes: dict[str, list[int]], stacks: int) -> str | None:
    """Why an entry cannot hold a role that the flow of data tells.

    The matrices of an encoder and a decoder have one role, if their names end alike.
    """
    places = _patterns(names) if stacks == 1 else {name.rpartition(".")[2] for name in names}
    if len(places) > 1:
        return "stand in several places; an entry names one of them: --role"
    if len({tuple(shapes[name]) for name in names}) > 1:
        return "has several shapes, and an entry gives a role one"
    return None


def _patterns(names: list[str]) -> list[str]:
    """Names with `*` for numbers, each once, in order."""
    return list(Counter(re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", name) for name in names))


def _summary(names: list[str], shapes: dict[str, list[int]]) -> list[Matrices]:
    """Matrices by place and shape."""
    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for name in names:
        counts[_patterns([name])[0], tuple(shapes[name])] += 1
    return [Matrices(module, list(shape), count) for (module, shape), count in counts.items()]


def _one(places: list[Matrices]) -> Matrices:
    """Matrices of one role, which stand in several places of an encoder-decoder."""
    modules = ", ".join(place.module for place in places)
    return Matrices(modules, places[0].shape, sum(place.count for place in places))


def described(matrices: list[Matrices]) -> list[str]:
    """Each kind of matrices in words: `layers.*.q_proj 64 x 32 (2)`."""
    return [f"{m.module} {m.shape[0]} x {m.shape[1]} ({m.count})" for m in matrices]


# Names --------------------------------------------------------------------------------------------


def _fits(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")


def _all_names(trees: list[nn.Module]) -> set[str]:
    return {name for tree in trees for name, _ in tree.named_modules() if name}


def _in_all(names: list[str], trees: list[nn.Module]) -> set[str]:
    """Full names of the same modules in every tree; a head's model holds the base as one part."""
    full = set(names)
    for tree in trees:
        if tree.base_model is not tree:
            full |= {f"{tree.base_model_prefix}.{name}" for name in names}
    return full


def _ending(role: str, targets: dict[str, set[str]], all_names: set[str]) -> str:
    """The shortest name that fits the matrices of a role and nothing else.

    If there is none, as for BERT's `output.dense` beside its `attention.output.dense`, the shortest
    that else fits matrices of other roles only: their longer names decide.
    """
    endings = _common_endings(targets[role])
    others = set().union(*(names for other, names in targets.items() if other != role))
    for allowed in (targets[role], targets[role] | others):
        for ending in endings:
            if {name for name in all_names if _fits(name, ending)} <= allowed:
                return ending
    return endings[-1]  # `_check_apart` says that it is not enough


def _common_endings(names: set[str]) -> list[str]:
    """Ends that all names have, the shortest first."""
    split = [name.split(".")[::-1] for name in names]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return [".".join(common[:length][::-1]) for length in range(1, len(common) + 1)]


def _check_apart(names: dict[str, str], targets: dict[str, set[str]], all_names: set[str]) -> None:
    """Check that each name finds exactly the matrices of its role."""
    role_by_name = {name: role for role, name in names.items()}
    found: dict[str, set[str]] = {role: set() for role in names}
    for full in all_names:
        fitting = [name for name in role_by_name if _fits(full, name)]
        if fitting:
            found[role_by_name[max(fitting, key=len)]].add(full)
    for role, name in names.items():
        wrong = found[role] ^ targets[role]
        if wrong:
            place = min(wrong)
            verb = "also fits" if place in found[role] else "does not decide for"
            allowed = f"a longer name; give one by --role {role}=NAME"
            raise ValueError(f"{role}: the name {name} {verb} {place}, allowed: {allowed}")
