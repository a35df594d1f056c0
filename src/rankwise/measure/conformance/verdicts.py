"""`rankwise test method NAME`: the promises of one entry, and whether it keeps them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankwise.measure.conformance import promises
from rankwise.measure.conformance.cases import Case, plan_of, request_of
from rankwise.measure.flops.count import flops
from rankwise.methods.parts.base import optimizer_class

KEPT, BROKEN, NOT_MADE = "yes", "no", "not promised"
NOTHING_TRAINS = "nothing trains"


@dataclass(frozen=True)
class Verdict:
    """Whether an entry keeps one promise.

    Attributes:
        promise: in words: `starts as its base`.
        verdict: yes, no, or not promised.
        detail: what was found, or why nothing is promised; empty where all is well.
    """

    promise: str
    verdict: str
    detail: str = ""


class NotPromised(Exception):
    """An entry makes no such promise; the message says why."""


def verdicts(name: str, model: str, project: Path) -> list[Verdict]:
    """Check every promise of an entry on a small model with random weights.

    Args:
        name: the entry's name in config/methods.yaml.
        model: a name in config/models.yaml.
        project: the folder whose entries are read.

    Raises:
        ConfigError: there is no such model or entry, or the entry is wrong.
        BrokenModule: a file or package cannot be imported.
        Unsupported: the entry cannot train this model; the message is the reason.
    """
    plan_of(project, model, name)
    entry = Entry(name, model, project)
    return [_verdict(promise, check) for promise, check in entry.checks().items()]


def _verdict(promise: str, check: Callable[[], None]) -> Verdict:
    try:
        check()
    except NotPromised as reason:
        return Verdict(promise, NOT_MADE, str(reason))
    except promises.PromiseBroken as broken:
        return Verdict(promise, BROKEN, str(broken))
    except Exception as error:  # a user's method may raise anything, and the other promises remain
        return Verdict(promise, BROKEN, f"{type(error).__name__}: {error}")
    return Verdict(promise, KEPT)


class Entry:
    """One entry; every check builds its own case of it.

    Args:
        name: the entry's name in config/methods.yaml.
        model: a name in config/models.yaml.
        project: the folder whose entries are read.

    Raises:
        Unsupported: the entry cannot train this model; the message is the reason.
    """

    def __init__(self, name: str, model: str, project: Path):
        self.name, self.model, self.project = name, model, project
        self.first = self.case()
        self.trains = bool(self.first.trainable())

    def case(self, **settings: object) -> Case:
        """A case of the entry."""
        return Case(self.request(), **settings)

    def request(self, measurement: str = "memory") -> dict:
        """The request of a profile of the entry."""
        return request_of(self.name, self.model, measurement, project=self.project)

    def trained_case(self, **settings: object) -> Case:
        """A case in which something trains."""
        if not self.trains:
            raise NotPromised(NOTHING_TRAINS)
        return self.case(**settings)

    def checks(self) -> dict[str, Callable[[], None]]:
        """The check of each promise, by the promise in words."""
        return {
            "starts as its base": self.start,
            "trains the numbers that it declares": self.declared,
            "training lowers the loss and moves only what trains": lambda: promises.check_training(
                self.trained_case()
            ),
            "a step leaves the gradients": lambda: promises.check_gradients_survive_a_step(
                self.trained_case(release=False)
            ),
            "two runs are equal to the bit": lambda: promises.check_equal(
                self.trained_case(), self.trained_case()
            ),
            "a resumed run is the uninterrupted one to the bit": lambda: promises.check_resumed(
                self.trained_case(), self.trained_case(), self.trained_case()
            ),
            "merges into the base's own modules": self.merged,
            "weights and state are predicted to the byte": self.predicted,
            "the same in bf16": self.predicted_in_bf16,
            "the optimizer keeps the numbers of its formula": self.formula,
            "FLOPs are counted from shapes": self.flops,
        }

    def start(self) -> None:
        """Starts as its base."""
        if not self.first.method.IDENTITY:
            raise NotPromised("the method says IDENTITY = False")
        promises.check_start(self.first)

    def declared(self) -> None:
        """Trains what TRAINABLE and MODEL count."""
        method = type(self.first.method)
        if (method.TRAINABLE, method.MODEL) == ("0", "0"):
            raise NotPromised("the method declares no TRAINABLE and no MODEL")
        promises.check_declared(self.first)

    def merged(self) -> None:
        """The merged model answers as the unmerged one."""
        if not self.trains:
            raise NotPromised(NOTHING_TRAINS)
        found = self.case()
        if found.method.merge(found.model) is None:
            raise NotPromised("the method has no merged form")
        promises.check_merged(self.case())

    def predicted(self) -> None:
        """Bytes are predicted from shapes."""
        promises.check_prediction(self.request())

    def predicted_in_bf16(self) -> None:
        """Bytes are predicted for a base in bf16."""
        request = self.request()
        if request["method"]["weights"] != "fp32":
            raise NotPromised(f"the entry stores its base in {request['method']['weights']}")
        request["method"]["weights"] = "bf16"
        promises.check_prediction(request)

    def formula(self) -> None:
        """State is what the optimizer's formula counts."""
        options = self.first.entry["optimizer"]
        if not hasattr(optimizer_class(options["module"]), "formula"):
            raise NotPromised("the optimizer has no formula; its state is counted")
        if "rank" in options or "granularity" in options:
            raise NotPromised("the formula is in sides of a projection that only its tests know")
        promises.check_state_formula(self.trained_case(release=False))

    def flops(self) -> None:
        """FLOPs are counted."""
        result = flops(self.request("flops"))
        if result.get("status") == "unsupported":
            raise NotPromised(result["reason"])
        if (result["metrics"]["backward_flops"] > 0) != self.trains:
            raise promises.PromiseBroken(f"backward: {result['metrics']['backward_flops']} FLOPs")
