"""Gradient release: the same steps as without it, at most one gradient alive, one process or two."""

import inspect
import io
import math
import socket
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

import rankwise.optim
from rankwise.optim import AdamW, Lomo, ProjectedAdam, ProjFactor, projectors

F64 = torch.float64
RELEASING = [name for name in dir(rankwise.optim) if "release" in inspect.signature(getattr(rankwise.optim, name)).parameters]
FUSED = [name for name in RELEASING if getattr(rankwise.optim, name).RELEASE == "fused"]
GATHERED = [name for name in RELEASING if getattr(rankwise.optim, name).RELEASE == "gathered"]
DRAWN = [
    ("ProjectedAdam", {"projector": "normal"}),
    ("ProjectedAdam", {"projector": "rademacher", "scheme": "original"}),
    ("ProjectedAdam", {"projector": "orthonormal", "transport": "project"}),
    ("ProjectedAdam", {"projector": "normal", "rule": "sgd", "granularity": 2.0, "transport": "reset"}),
    ("ProjFactor", {}),
    ("ProjFactor", {"granularity": 2.0, "transport": "project"}),
]
FOUND = [
    ("ProjectedAdam", {}),
    ("ProjectedAdam", {"projector": "rsvd", "drift": 0.9}),
    ("ProjectedAdam", {"projector": "dct", "transport": "project"}),
    ("ProjectedAdam", {"side": "both", "rank_rule": "energy"}),
    ("ProjFactor", {"projector": "svd"}),
]
KINDS = [(name, {}) for name in FUSED] + DRAWN + FOUND
every_kind = pytest.mark.parametrize(("name", "options"), KINDS, ids=str)
every_fused = pytest.mark.parametrize("name", FUSED)
every_drawn = pytest.mark.parametrize(("name", "options"), DRAWN, ids=str)


class Net(nn.Module):
    """An embedding tied to the output, two matrices of one shape, a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 8)
        self.one, self.two, self.norm, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 12)
        self.out.weight = self.embedding.weight
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.two(torch.tanh(self.one(self.embedding(x))))))

    @property
    def matrices(self) -> list[Tensor]:
        return [p for p in self.parameters() if p.ndim == 2]


def batch(step: int, count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, 12, (count,), generator=generator), torch.randint(0, 12, (count,), generator=generator)


def loss_of(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(data[0]), data[1])


def make(name: str, model: nn.Module, options: dict, *, release: bool, lr: float = 0.05) -> torch.optim.Optimizer:
    cls = getattr(rankwise.optim, name)
    arguments = inspect.signature(cls).parameters
    fixed = {"rank": 2, "interval_steps": 2, "weight_decay": 0.1}
    return cls(model.parameters(), lr, **{k: v for k, v in fixed.items() if k in arguments}, **options, release=release)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, start: int = 0, stop: int = 5) -> nn.Module:
    for step in range(start, stop):
        loss_of(model, batch(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def equal(one: nn.Module, other: nn.Module, atol: float = 0.0) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=atol, atol=atol) for a, b in pairs)


# Without accumulation -------------------------------------------------------------------------------------------------


def test_all_but_bitsandbytes_release() -> None:
    assert set(dir(rankwise.optim)) - set(RELEASING) <= {"AdamW8bit", "PagedAdamW"}
    assert GATHERED == ["ProjFactor", "ProjectedAdam"]


@every_kind
def test_release_is_the_same_optimizer(name: str, options: dict) -> None:
    """To the last bit: the order of operations is the same. Tied weights count once, with their whole gradient."""
    released, plain = Net(), Net()
    before = Net()
    train(released, make(name, released, options, release=True))
    train(plain, make(name, plain, options, release=False))
    assert not equal(plain, before, 1e-3)
    assert equal(released, plain)


@every_kind
def test_gradients_are_gone_after_backward(name: str, options: dict) -> None:
    """All of them where steps are fused, else those of projected matrices."""
    model = Net()
    optimizer = make(name, model, options, release=True)
    for step in range(3):
        loss_of(model, batch(step)).backward()
        assert all(p.grad is None for p in (model.parameters() if name in FUSED else model.matrices))
        assert all(p.grad is not None for p in model.parameters() if name in GATHERED and p.ndim == 1)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("release", [True, False])
@every_kind
def test_one_gradient_is_alive_at_a_time(name: str, options: dict, release: bool) -> None:
    model, alive = Net(), []
    for param in model.parameters():  # before the optimizer's own hook
        param.register_post_accumulate_grad_hook(lambda _: alive.append(sum(p.grad is not None for p in model.matrices)))
    train(model, make(name, model, options, release=release), 0, 2)
    assert max(alive) == (1 if release else len(model.matrices))


@every_kind
def test_release_resumes(name: str, options: dict) -> None:
    """Bit by bit, from within an interval."""
    straight, first, second = Net(), Net(), Net()
    train(straight, make(name, straight, options, release=True))
    stopped = make(name, first, options, release=True)
    train(first, stopped, 0, 3)
    saved = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": stopped.state_dict()}, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed = make(name, second, options, release=True)
    resumed.load_state_dict(loaded["optimizer"])
    train(second, resumed, 3, 5)
    assert equal(straight, second)


@every_kind
def test_a_scheduler_sets_the_rate_of_released_steps(name: str, options: dict) -> None:
    models = [Net(), Net(), Net()]
    for model, release, scheduled in zip(models, (True, False, False), (True, True, False), strict=True):
        optimizer = make(name, model, options, release=release)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step) if scheduled else 1.0)  # noqa: B023
        for step in range(3):
            train(model, optimizer, step, step + 1)
            scheduler.step()
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2], 1e-4)


@pytest.mark.parametrize("name", ["AdamW", "Fira", "ProjFactor"])
def test_groups_added_later_are_released_too(name: str) -> None:
    models = [Net(), Net()]
    for model, release in zip(models, (True, False), strict=True):
        cls = getattr(rankwise.optim, name)
        optimizer = cls([*model.one.parameters()], 0.05, release=release, **({} if name == "AdamW" else {"rank": 2}))
        model.two.requires_grad_(False)
        train(model, optimizer, 0, 2)
        model.zero_grad()
        optimizer.add_param_group({"params": [*model.two.requires_grad_(True).parameters()], "lr": 0.1})
        train(model, optimizer, 2, 4)
    assert equal(*models)
    loss_of(models[0], batch(0)).backward()
    assert models[0].one.weight.grad is models[0].two.weight.grad is None


# Fused ----------------------------------------------------------------------------------------------------------------


@every_fused
def test_fused_release_refuses_accumulation(name: str) -> None:
    model = Net()
    optimizer = make(name, model, {}, release=True)
    loss_of(model, batch(0)).backward()
    with pytest.raises(RuntimeError, match=r"before optimizer\.step"):
        loss_of(model, batch(1)).backward()
    other = Net()
    optimizer = make(name, other, {}, release=True)
    train(other, optimizer, 0, 2)  # step() opens the next backward
    with pytest.raises(ValueError, match="closure"):
        optimizer.step(lambda: loss_of(other, batch(2)))


@every_fused
def test_fused_release_knows_the_norm_of_what_it_used(name: str) -> None:
    model, same = Net(), Net()
    optimizer = make(name, model, {}, release=True)
    for step in range(2):
        same.load_state_dict(model.state_dict())
        same.zero_grad()
        loss_of(same, batch(step)).backward()
        loss_of(model, batch(step)).backward()
        expected = math.sqrt(sum(p.grad.square().sum().item() for p in same.parameters()))
        assert optimizer.gradient_norm().item() == pytest.approx(expected, rel=1e-12)
        optimizer.step()


def test_lomo_releases_unless_told() -> None:
    model, by_hand = Net(), Net()
    optimizer = Lomo(model.parameters(), 0.05)
    train(model, optimizer, 0, 3)
    train(by_hand, torch.optim.SGD(by_hand.parameters(), 0.05), 0, 3)
    assert equal(model, by_hand, 1e-15)


def test_released_adamw_is_torchs_bitwise() -> None:
    model, theirs = Net().float(), Net().float()
    train(model, AdamW(model.parameters(), 0.05, release=True))
    train(theirs, torch.optim.AdamW(theirs.parameters(), 0.05))
    assert equal(model, theirs)


# Gathered -------------------------------------------------------------------------------------------------------------


def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 3, start: int = 0, stop: int = 4) -> nn.Module:
    for step in range(start, stop):
        for micro in range(count):
            (loss_of(model, batch(10 * step + micro)) / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@every_drawn
def test_gathered_projections_are_the_projection_of_the_sum(name: str, options: dict) -> None:
    released, plain = Net(), Net()
    accumulate(released, make(name, released, options, release=True))
    accumulate(plain, make(name, plain, options, release=False))
    assert equal(released, plain, 1e-12)


@every_drawn
def test_a_draw_holds_for_a_window(name: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the micro-batch, and until the next interval: the published code draws again at each."""
    drawn, draw = [], projectors.draw
    monkeypatch.setattr(projectors, "draw", lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1])
    model = nn.Linear(8, 4, bias=False, dtype=F64)
    optimizer = make(name, model, options, release=True)
    windows = []
    for step in range(4):
        for micro in range(3):
            drawn.clear()
            model(torch.randn(5, 8, dtype=F64)).square().sum().backward()
            windows.append((step, micro, drawn[-1]))
        optimizer.step()
        windows.append((step, "step", drawn[-1]))
    for step, micro, basis in windows:
        assert torch.equal(basis, windows[0][2]) == (step < 2), (step, micro)
        assert torch.equal(basis, windows[-1][2]) == (step >= 2), (step, micro)


@pytest.mark.parametrize("projector", ["svd", "rsvd"])
def test_a_found_basis_is_the_first_micro_batchs(projector: str) -> None:
    """W <- W - lr P Adam(P'(G1 + G2 + G3)), P the leading left singular vectors of G1: Adam does not see their signs."""
    weight = nn.Parameter(torch.zeros(6, 10, dtype=F64))
    optimizer = ProjectedAdam([weight], 0.1, rank=2, scale=1.0, eps=0.0, projector=projector, oversample=8, release=True)
    grads = [torch.randn(6, 10, dtype=F64, generator=torch.Generator().manual_seed(s)) for s in range(3)]
    for grad in grads:
        (weight * grad).sum().backward()
    optimizer.step()
    basis = torch.linalg.svd(grads[0]).U[:, :2]
    assert torch.allclose(weight, -0.1 * basis @ (basis.mT @ sum(grads)).sign(), atol=1e-9)


@pytest.mark.parametrize("limit", [1e-3, 1e9])
@pytest.mark.parametrize(("projector", "release"), [("svd", True), ("normal", True), ("svd", False)])
def test_clipping_acts_on_projections(projector: str, release: bool, limit: float) -> None:
    """The norm is that of projections and of the gradients that are not projected; SGD then moves by what is left."""
    options = {"rule": "sgd", "scale": 1.0, "projector": projector, "weight_decay": 0.0}
    models, norm = [Net(), Net()], None
    for model, clipped in zip(models, (True, False), strict=True):
        optimizer = ProjectedAdam(model.parameters(), 1.0, rank=2, release=release, **options)
        loss_of(model, batch(0)).backward()
        if clipped:
            norm = optimizer.clip_grad_norm_(limit)
        optimizer.step()
    start, same = Net(), Net()
    loss_of(same, batch(0)).backward()
    moved = [[a.detach() - b.detach() for a, b in zip(start.parameters(), m.parameters(), strict=True)] for m in models]
    squares = [p.grad.square().sum().item() for p in same.parameters()]
    if release and projector == "svd":
        squares = [
            torch.linalg.svdvals(p.grad)[:2].square().sum().item() if p.ndim == 2 else q
            for p, q in zip(same.parameters(), squares, strict=True)
        ]
    expected = math.sqrt(sum(squares))
    if projector == "svd":
        assert norm.item() == pytest.approx(expected, rel=1e-9)
    else:
        assert norm.item() != pytest.approx(expected, rel=1e-6)
    factor = min(1.0, limit / (norm.item() + 1e-6))
    assert all(torch.allclose(a, factor * b, rtol=1e-9, atol=1e-15) for a, b in zip(*moved, strict=True))


@pytest.mark.parametrize(("name", "options"), DRAWN + FOUND, ids=str)
def test_zero_grad_drops_what_is_gathered(name: str, options: dict) -> None:
    """As if it had never been; only a basis that was found in it, and that moments were carried over to, is kept."""
    kept = (name, options) in FOUND and "transport" in options
    model, same = Net(), Net()
    optimizer, plain = make(name, model, options, release=True), make(name, same, options, release=True)
    for step in range(3):
        loss_of(model, batch(step if kept else 100 + step)).backward()
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        train(model, optimizer, step, step + 1)
        train(same, plain, step, step + 1)
    assert equal(model, same)
    still = [p.detach().clone() for p in model.parameters()]
    loss_of(model, batch(9)).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), still, strict=True))


def test_dense_groups_gather_nothing() -> None:
    model = Net()
    groups = [{"params": [model.embedding.weight], "dense": True}, {"params": [model.one.weight]}]
    optimizer = ProjectedAdam(groups, 0.05, rank=2, release=True)
    for _ in range(2):
        loss_of(model, batch(0)).backward()
    assert model.embedding.weight.grad is not None
    assert model.one.weight.grad is None
    same = Net()
    for _ in range(2):
        loss_of(same, batch(0)).backward()
    assert torch.equal(model.embedding.weight.grad, same.embedding.weight.grad)
    optimizer.step()


def test_a_closure_gathers_too() -> None:
    model, same = Net(), Net()
    optimizer = make("ProjFactor", model, {}, release=True)
    train(same, make("ProjFactor", same, {}, release=True), 0, 3)

    def closure(step: int) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch(step))
        loss.backward()
        return loss

    for step in range(3):
        assert optimizer.step(lambda step=step: closure(step)).item() > 0
    assert equal(model, same)


@pytest.mark.parametrize("cls", [ProjectedAdam, ProjFactor])
def test_a_parameter_that_got_nothing_stays(cls: type) -> None:
    """Of two matrices of one shape one is used; the other neither moves nor counts a step."""
    model = Net()
    optimizer = cls(model.parameters(), 0.05, rank=2, projector="normal", release=True)
    before = model.two.weight.detach().clone()
    torch.tanh(model.one(torch.ones(3, 8, dtype=F64))).sum().backward()
    optimizer.step()
    assert torch.equal(model.two.weight, before)
    assert (optimizer.state[model.one.weight]["step"], optimizer.state[model.two.weight]["step"]) == (1, 0)


# Two processes --------------------------------------------------------------------------------------------------------

SETTINGS = {"fused": [(name, {}) for name in FUSED], "drawn": DRAWN, "found": FOUND}
ACCUMULATED = [(name, options, i % 2 == 0) for i, (name, options) in enumerate(DRAWN)]  # every other one clipped


def spread(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, ranks: int, micro: int, clip: bool) -> nn.Module:
    """Train on this process's share of each batch; the whole of it for one process of one."""
    for step in range(3):
        for part in range(micro):
            x, y = batch(10 * step + part)
            mine = slice(rank * len(x) // ranks, (rank + 1) * len(x) // ranks)
            (loss_of(model, (x[mine], y[mine])) / micro).backward()
        if clip:
            optimizer.clip_grad_norm_(0.1)
        optimizer.step()
        optimizer.zero_grad()
    return model


def runs(rank: int, ranks: int) -> dict[str, list[Tensor]]:
    found = {}
    for kind, settings in SETTINGS.items():
        for index, (name, options) in enumerate(settings):
            model = Net()
            spread(model, make(name, model, options, release=True), rank, ranks, 1, False)
            found[f"{kind}{index}"] = [p.detach() for p in model.parameters()]
    for index, (name, options, clip) in enumerate(ACCUMULATED):
        model = Net()
        spread(model, make(name, model, options, release=True), rank, ranks, 2, clip)
        found[f"accumulated{index}"] = [p.detach() for p in model.parameters()]
    return found


def work(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save(runs(rank, 2), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[Tensor]]]:
    """The parameters of both processes, and of one that sees the joined batches."""
    folder = tmp_path_factory.mktemp("gloo")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = multiprocessing.spawn(work, (port, str(folder)), nprocs=2, join=False)
    try:
        until = time.monotonic() + 60
        while not started.join(timeout=1):
            assert time.monotonic() < until, "the processes wait for each other"
    finally:
        for process in started.processes:
            process.kill()
    return [*(torch.load(folder / f"{rank}.pt") for rank in (0, 1)), runs(0, 1)]


@pytest.mark.parametrize("case", [f"{kind}{i}" for kind, settings in SETTINGS.items() for i in range(len(settings))])
def test_processes_stay_in_lockstep(shared, case: str) -> None:
    first, second, _ = shared
    assert all(torch.equal(a, b) for a, b in zip(first[case], second[case], strict=True))


@pytest.mark.parametrize(
    "case",
    [f"{kind}{i}" for kind in ("fused", "drawn") for i in range(len(SETTINGS[kind]))]
    + [f"accumulated{i}" for i in range(len(ACCUMULATED))],
)
def test_two_processes_are_one_on_the_joined_batch(shared, case: str) -> None:
    """Where the basis is drawn; one that is looked for is the first process's, of its share."""
    first, second, one = shared
    assert all(torch.equal(a, b) for a, b in zip(first[case], second[case], strict=True))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(first[case], one[case], strict=True))
