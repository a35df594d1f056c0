"""What every method adds to the FLOPs of a forward pass, in plain arithmetic.

T tokens, rank r, matrices (m, n), width d of the model `tiny`. What counts: matrix_forms.py. A form
takes the options of an entry of config/methods.yaml. Nothing here calls the code under test.
"""

from collections.abc import Callable

from helpers.conformance import LENGTH, PROFILE_BATCH, RANK
from helpers.matrix_forms import PEFT, TOKENS, dense, formed, pair
from helpers.profiling import TinyEncoder

BASE = TinyEncoder.forward_flops(PROFILE_BATCH, LENGTH)


def forward_flops(entry: dict) -> int:
    """FLOPs of one forward pass with an entry of config/methods.yaml."""
    return BASE + METHODS[entry["module"]](entry.get("options", {}))


def waiting_backward_flops(method: str) -> int:
    """Products of backward that an entry leaves out, because their parameters wait for their turn.

    Of two equal layers the first is active, and the second has no gradient of its weights. BAdam's
    head waits too, and so do the embeddings: below the first query, key and value nothing needs a
    gradient. LISA's embeddings and head train.
    """
    layer = sum(dense(m, n) for m, n in TinyEncoder.MATRICES.values())
    if method == "badam":
        first_inputs = 3 * dense(TinyEncoder.WIDTH, TinyEncoder.WIDTH)
        head = 2 * PROFILE_BATCH * (TinyEncoder.WIDTH**2 + TinyEncoder.CLASSES * TinyEncoder.WIDTH)
        return layer + first_inputs + head
    return layer if method == "lisa" else 0


def over_targets(options: dict, cost: Callable[[int, int], int]) -> int:
    """The sum of cost(m, n) over the matrices that the method adapts."""
    roles = options.get("targets", ())
    if roles == "all":
        roles = TinyEncoder.MATRICES
    return TinyEncoder.LAYERS * sum(cost(*TinyEncoder.MATRICES[role]) for role in roles)


def no_product(_options: dict) -> int:
    """What trains is in the model already, scales it, or adds to its matrices by element."""
    return 0


def peft_type(options: dict) -> int:
    """The form of the entry's type, over its targets."""
    return over_targets(options, PEFT[options["type"]])


def factors(options: dict) -> int:
    """B (A x); where B and A start changes no shape."""
    rank = options.get("rank", RANK)
    return over_targets(options, lambda m, n: pair(m, n, rank))


def lora(options: dict) -> int:
    """Hu et al. 2021, eq. 3; DoRA needs norms.

    For the norms of W + B A peft forms B (A I). It computes W x again, for dropout is on.
    """
    if not options.get("dora"):
        return factors(options)
    norms = over_targets(options, lambda m, n: 2 * n * RANK * (m + n))
    return factors(options) + norms + over_targets(options, dense)


def adalora(options: dict) -> int:
    """Zhang et al. 2023, eq. 3: P (lambda (Q x)) of one and a half times the rank at the start."""
    return over_targets(options, lambda m, n: pair(m, n, RANK * 3 // 2))


def hira(options: dict) -> int:
    """(W * B A) x beside W x."""
    return over_targets(options, formed) + over_targets(options, dense)


def oft(options: dict) -> int:
    """x times blocks (r, r); a Neumann series of k terms has k - 2 products of blocks."""
    rotation = over_targets(options, lambda _m, n: 2 * TOKENS * n * RANK)
    powers = max(0, options.get("neumann_terms", 0) - 2)
    return rotation + over_targets(options, lambda _m, n: powers * (n // RANK) * 2 * RANK**3)


def miss(options: dict) -> int:
    """Sums of the input's groups times (r, m); in the variant bat, blocks of W times (r, r)."""
    if options.get("variant") == "bat":
        return over_targets(options, formed)
    return over_targets(options, lambda m, _n: 2 * TOKENS * RANK * m)


def prompt_tuning(_options: dict) -> int:
    """Sequences are longer by r virtual tokens."""
    return TinyEncoder.forward_flops(PROFILE_BATCH, LENGTH + RANK) - BASE


def p_tuning(options: dict) -> int:
    """Virtual tokens, which an encoder of three square layers computes once a batch."""
    return prompt_tuning(options) + 3 * 2 * RANK * TinyEncoder.WIDTH**2


def adapter(options: dict) -> int:
    """Down to r and up again, after each block (Houlsby) or once a layer."""
    adapters_per_layer = 2 if options["placement"] == "houlsby" else 1
    number = TinyEncoder.LAYERS * adapters_per_layer
    return number * 2 * TOKENS * RANK * 2 * TinyEncoder.WIDTH


def weight_reduction(options: dict) -> int:
    """B A in place of W: formed, or kept as factors, of which a truncation keeps a share."""
    if options.get("forward") != "factored":
        return over_targets(options, formed)
    if options.get("residual") == "kept":
        return factors(options)
    kept = options["svt_keep"] if options.get("svt") == "shrink" else 1
    return int(kept * factors(options)) - over_targets(options, dense)


def contextual_sparse_lora(options: dict) -> int:
    """Khaki et al. 2025, section 3: cut matrices fall to (1 - s); estimates of rank 8 choose.

    One of the two layers is sparse, for the last one stays dense.
    """
    matrices = TinyEncoder.MATRICES
    attention = [matrices[role] for role in ("query", "key", "value", "output")]
    saved = options["attention_sparsity"] * sum(dense(m, n) for m, n in attention)
    left_out = TinyEncoder.INNER - 13  # of 128 channels a tenth is kept, rounded up
    saved += 2 * (2 * TOKENS * TinyEncoder.WIDTH * left_out)
    estimated = [matrices[role] for role in ("query", "key", "value", "up")]
    estimates = sum(pair(m, n, 8) for m, n in estimated)
    return factors(options) + estimates - int(saved)


METHODS = {
    **dict.fromkeys(("frozen", "full", "head_only", "bitfit", "ia3", "shira"), no_product),
    **dict.fromkeys(("sparse_lora", "started_lora", "vera"), factors),
    "adalora": adalora,
    "lora": lora,
    "peft": peft_type,
    "hira": hira,
    "oft": oft,
    "miss": miss,
    "prompt_tuning": prompt_tuning,
    "p_tuning": p_tuning,
    "adapter": adapter,
    "weight_reduction": weight_reduction,
    "contextual_sparse_lora": contextual_sparse_lora,
}
