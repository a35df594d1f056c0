"""The papers' formulas of the types of peft, as the answer y (k, m) of one matrix to inputs x (k, n).

Each takes x, W (m, n), the bias (m), the parameters and frozen constants of the matrix by peft's names, and
the options of the entry. Nothing here calls peft or Rankwise.
"""

import cmath
import math
from collections.abc import Callable

import torch
from torch import Tensor

Formula = Callable[[Tensor, Tensor, Tensor, dict[str, Tensor], dict], Tensor]


def adalora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Zhang et al. 2023, eq. 3: W + (alpha / r0) P diag(lambda) Q."""
    q, values, left = p["lora_A"], p["lora_E"][:, 0], p["lora_B"]
    gamma = o["alpha"] / len(values)
    return x @ (w + gamma * left @ values.diag() @ q).mT + bias


def beft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Huang et al. 2025: a trained bias beside the frozen one."""
    return x @ w.mT + bias + p["beft_bias"]


def boft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Liu et al. 2023, with one factor: rotated blocks of columns, and a scale of every row."""
    blocks = []
    for free in p["boft_R"][0]:
        skew, eye = (free - free.mT) / 2, torch.eye(len(free), dtype=w.dtype)
        blocks.append((eye - skew) @ torch.linalg.inv(eye + skew))
    return x @ (p["boft_s"] * (w @ torch.block_diag(*blocks).mT)).mT + bias


def c3a(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Chen et al. 2024: W + blocks that are circulant, over n."""
    rows = []
    for kernels in p["c3a_kernel"]:
        rows.append(torch.cat([circulant(kernel) for kernel in kernels], 1))
    return x @ (w + torch.cat(rows) / w.shape[1]).mT + bias


def circulant(kernel: Tensor) -> Tensor:
    """The matrix whose row k is the kernel, moved k places to the right."""
    return torch.stack([kernel.roll(places) for places in range(len(kernel))])


def deft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """DEFT 2025: (I - P relu(P)') W + P R."""
    left = p["deft_P"]
    return x @ (w - left @ left.relu().mT @ w + left @ p["deft_R"]).mT + bias


def delora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Bini et al. 2025: W + (lambda / r) times the normed b_i a_i', columns scaled as those of W."""
    a, b = p["delora_A"], p["delora_B"]
    update = (b / b.norm(dim=0)) @ (a / a.norm(dim=1, keepdim=True)) * w.norm(dim=0)
    return x @ (w + p["delora_lambda"] / len(a) * update).mT + bias


def fourierft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Gao et al. 2024, eq. 2-4: W + 150 times the real part of the inverse transform of few coefficients."""
    m, n = w.shape
    update = torch.zeros_like(w)
    for value, row, column in zip(p["fourierft_spectrum"], *p["indices"].tolist(), strict=True):
        wave = [
            [cmath.exp(2j * math.pi * (row * i / m + column * k / n)).real for k in range(n)]
            for i in range(m)
        ]
        update = update + value * torch.tensor(wave, dtype=w.dtype) / (m * n)
    return x @ (w + 150 * update).mT + bias


def glora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Chavan et al. 2023, eq. 2: W + W A + B for the weight, b + b D + E + W C for the bias."""
    a, b, c = (p[f"glora_{key}.Xd"] @ p[f"glora_{key}.Xu"] for key in "ABC")
    return x @ (w + w * a + b).mT + bias + bias * p["glora_D.X"] + p["glora_E.X"] + (w @ c)[:, 0]


def gralora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Jung et al. 2025: a LoRA of rank r / 2 in each of 2 x 2 blocks, with gamma = 64 / r."""
    a, b, r = p["gralora_A"], p["gralora_B"], o["rank"]
    half = r // 2
    rows = []
    for i in range(2):  # block of outputs
        blocks = []
        for j in range(2):  # block of inputs
            blocks.append((a[j][:, i * half : (i + 1) * half] @ b[i][j * half : (j + 1) * half]).mT)
        rows.append(torch.cat(blocks, 1))
    return x @ (w + 64 / r * torch.cat(rows)).mT + bias


def hra(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Yuan et al. 2024, eq. 1: W times Householder reflections."""
    for u in p["hra_u"].mT:
        w = w - 2 * torch.outer(w @ u, u) / (u @ u)
    return x @ w.mT + bias


def lily(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Zhong et al. 2024: W x + the factors B, mixed by a router, of A x; peft mixes once a batch."""
    hidden = x @ p["lily_A.weight"].mT
    shares = (hidden @ p["lily_router.weight"].mT).softmax(-1).mean(0)
    first, second = p["lily_B.weight"].split(o["rank"])
    return x @ w.mT + bias + hidden @ (shares[0] * first + shares[1] * second)


def loha(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Hyeon-Woo et al. 2021: W + (B1 A1) * (B2 A2), elementwise; alpha is the rank."""
    first, second = (p[f"hada_w{key}_a"] @ p[f"hada_w{key}_b"] for key in "12")
    return x @ (w + first * second).mT + bias


def lokr(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Yeh et al. 2023: W + a Kronecker product; alpha is the rank."""
    first, second = p["lokr_w1"], p["lokr_w2"]
    blocks = [torch.cat([value * second for value in row], 1) for row in first]
    return x @ (w + torch.cat(blocks)).mT + bias


def osf(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Nayak et al. 2025, eq. 1: the first singular triplets of W stay, the others train."""
    u, s, vh = torch.linalg.svd(w)
    kept = o["rank"]
    high = u[:, :kept] @ s[:kept].diag() @ vh[:kept]
    low = p["osf_svd_params.U_low"] @ p["osf_svd_params.S_low"].diag() @ p["osf_svd_params.V_low"]
    return x @ (high + low).mT + bias


def peanut(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Zhong et al. 2024, eq. 4: W + B relu(A W)."""
    update = p["peanut_B.weight"] @ (p["peanut_A.weight"] @ w).relu()
    return x @ (w + update).mT + bias


def psoft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Wu et al. 2025: U_r S_r diag(b) R diag(a) V_r' in place of the first r triplets; R by Cayley."""
    r = o["rank"]
    u, s, vh = torch.linalg.svd(w)
    skew = torch.zeros(r, r, dtype=w.dtype)
    rows, columns = torch.triu_indices(r, r, 1)
    skew = skew.index_put((rows, columns), p["psoft_R.weight"])
    skew = skew - skew.mT
    eye = torch.eye(r, dtype=w.dtype)
    rotation = (eye + skew) @ torch.linalg.inv(eye - skew)
    rotation = p["psoft_R.vector_b"].diag() @ rotation @ p["psoft_R.vector_a"].diag()
    return x @ (w + u[:, :r] @ s[:r].diag() @ (rotation - eye) @ vh[:r]).mT + bias


def pvera(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Fillioux et al. 2025, in evaluation: VeRA with the mean, the first half of diag(d) A x."""
    a, b = p["pvera_A"][: o["rank"], : w.shape[1]], p["pvera_B"][: w.shape[0]]
    mean = p["pvera_lambda_d"][: o["rank"]].diag() @ a
    return x @ (w + p["pvera_lambda_b"].diag() @ b @ mean).mT + bias


def randlora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Albert et al. 2025, eq. 3: W + (alpha / r) sum B_i diag(l_i) A diag(g_i), or its transpose.

    peft takes the columns of the B_i in turns from one random matrix.
    """
    m, n = w.shape
    bases = len(p["randlora_gamma"])
    columns = p["randlora_B"][: max(m, n), :bases].flatten(1)
    a, update = p["randlora_A"][:, 0, : min(m, n)], 0
    for i, (left, right) in enumerate(
        zip(p["randlora_lambda"].mT, p["randlora_gamma"], strict=True)
    ):
        update = update + columns[:, i::bases] @ left.diag() @ a @ right.diag()
    update = update.mT if n > m else update
    return x @ (w + 640 / o["rank"] * update).mT + bias


def road(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Liao and Monz 2024, eq. 4: pairs of outputs are rotated and scaled."""
    y = x @ w.mT + bias
    size = o["settings"]["group_size"]
    half, out = size // 2, torch.zeros_like(y)
    for pair, (angle, scale) in enumerate(zip(p["road_theta"], p["road_alpha"], strict=True)):
        one = pair // half * size + pair % half
        other = one + half
        out[:, one] = scale * (angle.cos() * y[:, one] - angle.sin() * y[:, other])
        out[:, other] = scale * (angle.sin() * y[:, one] + angle.cos() * y[:, other])
    return out


def supertuning(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Super-Tuning 2026: the largest entries of W train."""
    count = len(p["supertuning_values"])
    order = w.abs().flatten().argsort(descending=True)[:count]
    update = torch.zeros(w.numel(), dtype=w.dtype).index_put((order,), p["supertuning_values"])
    return x @ (w + update.view(w.shape)).mT + bias


def tinylora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Morris et al. 2026: W + U S^(1/2) (sum v_i P_i) S^(1/2) V' of the first two triplets."""
    u, s, vh = torch.linalg.svd(w)
    middle = sum(v * matrix for v, matrix in zip(p["tinylora_v"], p["tinylora_P"], strict=True))
    root = s[:2].sqrt().diag()
    return x @ (w + u[:, :2] @ root @ middle @ root @ vh[:2]).mT + bias


def unilora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Li et al. 2025: W + B A, whose entries are those of one vector, over the root of how often each occurs."""
    a, b = (
        p["unilora_theta_d"][p[f"unilora_indices_{key}"].long()] / p["counts"][p[f"unilora_indices_{key}"].long()].sqrt()
        for key in "AB"
    )  # fmt: skip
    return x @ (w + b @ a).mT + bias


def vblora(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Li et al. 2024, eq. 2-3: pieces of A and B are mixtures of the two best vectors of a bank."""
    a = torch.stack([mixed(row, p["vblora_vector_bank"]) for row in p["vblora_logits_A"]])
    columns = [
        mixed(piece, p["vblora_vector_bank"]) for piece in p["vblora_logits_B"].transpose(0, 1)
    ]
    return x @ (w + torch.stack(columns, 1) @ a).mT + bias


def mixed(logits: Tensor, bank: Tensor) -> Tensor:
    """Pieces one after another, each a mixture of the two vectors with the largest logits."""
    pieces = []
    for choice in logits:
        best = choice.argsort(descending=True)[:2]
        pieces.append(choice[best].softmax(0) @ bank[best])
    return torch.cat(pieces)


def waveft(x: Tensor, w: Tensor, bias: Tensor, p: dict, o: dict) -> Tensor:
    """Bilican et al. 2025: W + 25 times the inverse Haar transform of few coefficients."""
    m, n = w.shape
    rows, columns = p["waveft_indices"]
    c = torch.zeros_like(w).index_put((rows, columns), p["waveft_spectrum"])
    mean, across, down, both = c[: m // 2, : n // 2], c[: m // 2, n // 2 :], c[m // 2 :, : n // 2], c[m // 2 :, n // 2 :]  # fmt: skip
    update = torch.zeros_like(w)
    for i, sign_of_row in enumerate((1, -1)):
        for k, sign_of_column in enumerate((1, -1)):
            update[i::2, k::2] = (
                mean
                + sign_of_row * across
                + sign_of_column * down
                + sign_of_row * sign_of_column * both
            ) / 2
    return x @ (w + 25 * update).mT + bias


FORMULAS: dict[str, Formula] = {
    name: function
    for name, function in globals().items()
    if callable(function) and getattr(function, "__annotations__", {}).get("o") is dict
}
