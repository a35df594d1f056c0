"""The step FLOPs that system A published, as claims by name."""

from helpers.repository import ROOT
from rankwise.core import config
from rankwise.study.claims import expand

STEPS = {
    name: claim
    for name, claim in expand(config.library(ROOT)["claims"]).items()
    if name.startswith("a_step_flops") and "mislabelled" not in name
}
