"""The papers' formulas of methods that change weights, in float64, and the plain model's weights by them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from helpers.lockstep import Answer, Pair, by_weights, plain_name

# The formulas ---------------------------------------------------------------------------------------------------------
# Each takes W (m, n), the bias or None, the parameters of one matrix by the last parts of their names, and the options.
# It returns the weight and the bias that the paper's model computes with.

Formula = Callable[[Tensor, Tensor | None, dict[str, Tensor], dict], tuple[Tensor, Tensor | None]]


def lora(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Hu et al. 2021, eq. 3; Kalajdzievski 2023, theorem 3.2; Liu et al. 2024 (DoRA), eq. 5 and section 4.3."""
    gamma = o["alpha"] / (math.sqrt(o["rank"]) if o.get("rslora") else o["rank"])
    a, b = p["lora_A.default.weight"], p["lora_B.default.weight"]
    if o.get("init", "default") in ("pissa", "olora"):
        w = p["residual"]
    changed = w + gamma * b @ a
    if o.get("dora"):
        lengths = changed.detach().square().sum(1, keepdim=True).sqrt()
        changed = p["lora_magnitude_vector.default.weight"][:, None] * changed / lengths
    return changed, bias


def hira(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Huang et al. 2025, eq. 6."""
    return w * (1 + p["hira_B.default"] @ p["hira_A.default"]), bias


def shira(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Bhardwaj et al. 2024: some entries of W train."""
    rows, columns = p["places"].long()
    return w.index_put((rows, columns), p["shira_weight.default"], accumulate=True), bias


def ia3(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Liu et al. 2022: l scales keys and values, and the feed-forward block's inner activation."""
    scale = p["ia3_l.default"]
    if scale.shape[0] == 1:
        return w * scale, bias
    return scale * w, None if bias is None else scale[:, 0] * bias


def vera(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Kopiczko et al. 2023, eq. 2; smaller matrices use a corner of the shared ones."""
    a, b = p["shared A"][:, : w.shape[1]], p["shared B"][: w.shape[0]]
    left, middle = p["vera_lambda_b.default"].diag(), p["vera_lambda_d.default"].diag()
    return w + left @ b @ middle @ a, bias


def oft(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Qiu et al. 2023: W R, R = (I - Q)(I + Q)^-1 by blocks; Qiu et al. 2025: (I + Q)(I + Q + ... + Q^(k-2))."""
    size, blocks = o["rank"], []
    eye = torch.eye(size, dtype=w.dtype)
    for entries_of_block in p["oft_R.default.weight"]:
        skew, place = torch.zeros_like(eye), 0
        for i in range(size):
            for j in range(i + 1, size):
                unit = torch.zeros_like(eye)
                unit[j, i], unit[i, j] = 1, -1
                skew = skew + entries_of_block[place] * unit
                place += 1
        if o["neumann_terms"] is None:
            blocks.append((eye - skew) @ torch.linalg.inv(eye + skew))
        else:
            series = [torch.linalg.matrix_power(skew, k) for k in range(o["neumann_terms"] - 1)]
            blocks.append((eye + skew) @ sum(series))
    return w @ torch.block_diag(*blocks), bias


def miss(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Kang and Yin 2024: one block repeated along the columns; bat: T + T D_i + D_i for every tile T of W."""
    m, n = w.shape
    d, r = p["miss_block.default"], o["rank"]
    if o["variant"] == "balance":
        return w + d.mT.repeat(1, n // r), bias
    rows = []
    for i in range(m // r):
        tiles = [w[i * r : (i + 1) * r, j * r : (j + 1) * r] for j in range(n // r)]
        rows.append(torch.cat([tile + tile @ d[i] + d[i] for tile in tiles], 1))
    return torch.cat(rows), bias


def weight_reduction(w: Tensor, bias: Tensor | None, p: dict, o: dict) -> tuple:
    """Published system A: (A diag C) B, and with the residual what these lacked at the start."""
    product = p["a"] @ p["c"].diag() @ p["b"]
    return product + p["residual"] if o["residual"] == "kept" else product, bias


FORMULAS: dict[str, Formula] = {
    "lora": lora,
    "sparse_lora": lora,
    "hira": hira,
    "shira": shira,
    "ia3": ia3,
    "vera": vera,
    "oft": oft,
    "miss": miss,
    "weight_reduction": weight_reduction,
}


def formula_of(found: Pair) -> Answer:
    """The plain model's answer with the weights that the formula of the entry's method gives."""
    formula, options = FORMULAS[found.entry["module"]], found.entry["options"]
    plain = {name: value.detach() for name, value in found.plain.named_parameters()}
    constants = constants_of(found)

    def weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        by_matrix, changed = {}, {}
        for name, value in theirs.items():
            path = next((path for path in constants if f"{path}." in name), None)
            if path is None:
                changed[plain_name(name)] = value
            else:
                by_matrix.setdefault(path, {})[name.split(f"{path}.")[1]] = value
        assert set(by_matrix) == set(constants)
        for path, params in by_matrix.items():
            bias = plain.get(f"{path}.bias")
            known = {**params, **constants[path]}
            w, b = formula(plain[f"{path}.weight"], bias, known, options)
            changed[f"{path}.weight"] = w
            if b is not None:
                changed[f"{path}.bias"] = b
        return changed

    return by_weights(found, weights)


def constants_of(found: Pair) -> dict[str, dict[str, Tensor]]:
    """What the formula takes as given, by matrix: places and shared matrices that were drawn, residuals."""
    targets = found.entry["options"]["targets"]
    endings = [found.names["modules"][role]["name"] for role in targets]
    prefix = "base_model.model." if hasattr(found.ours, "peft_config") else ""
    constants = {}
    for path, module in found.plain.named_modules():
        if not any(f".{path}".endswith(f".{ending}") for ending in endings):
            continue
        constants[path] = {}
        layer = found.ours.get_submodule(prefix + path)
        if found.entry["module"] == "shira":
            constants[path]["places"] = layer.shira_indices["default"]
        elif found.entry["module"] == "vera":
            constants[path]["shared A"] = layer.vera_A["default"]
            constants[path]["shared B"] = layer.vera_B["default"]
        elif found.entry["options"].get("init", "default") != "default":
            a, b = (layer.get_submodule(f"lora_{factor}.default").weight for factor in "AB")
            constants[path]["residual"] = layer.base_layer.weight.detach()
            constants[path]["start"] = (b @ a).detach()
        elif found.entry["options"].get("residual") == "kept":
            constants[path]["residual"] = layer.residual.detach()
            constants[path]["start"] = ((layer.a * layer.c) @ layer.b).detach()
        if found.entry["options"].get("freeze_a"):
            constants[path]["lora_A.default.weight"] = layer.lora_A["default"].weight.detach()
        if "residual" in constants[path]:  # it was computed in fp32
            lacking = module.weight.detach() - constants[path]["start"]
            torch.testing.assert_close(constants[path]["residual"], lacking, atol=1e-6, rtol=0)
    return constants
