"""The optimizers for type checkers and editors; at run time they are imported when first used."""

from rankwise.optim.adafactor import Adafactor as Adafactor
from rankwise.optim.adalomo import AdaLomo as AdaLomo
from rankwise.optim.adamw import AdamW as AdamW
from rankwise.optim.adamw_8bit import AdamW8bit as AdamW8bit
from rankwise.optim.apollo import Apollo as Apollo
from rankwise.optim.badam import BAdam as BAdam
from rankwise.optim.fira import Fira as Fira
from rankwise.optim.flora import Flora as Flora
from rankwise.optim.frugal import Frugal as Frugal
from rankwise.optim.ldadam import LDAdam as LDAdam
from rankwise.optim.lisa import Lisa as Lisa
from rankwise.optim.lomo import Lomo as Lomo
from rankwise.optim.lora_fa import LoraFA as LoraFA
from rankwise.optim.lora_pro import LoraPro as LoraPro
from rankwise.optim.lora_riemannian import LoraRiemannian as LoraRiemannian
from rankwise.optim.mezo import MeZO as MeZO
from rankwise.optim.mlorc import MLorc as MLorc
from rankwise.optim.muon import Muon as Muon
from rankwise.optim.paged_adamw import PagedAdamW as PagedAdamW
from rankwise.optim.projected_adam import ProjectedAdam as ProjectedAdam
from rankwise.optim.projfactor import ProjFactor as ProjFactor
from rankwise.optim.sgd import Sgd as Sgd
from rankwise.optim.topr import TopR as TopR
