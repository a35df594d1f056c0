"""Which test holds what to an independent reference: every optimizer, every method, and every entry.

A line names a test by its file below tests/, and the function. `test_registry.py` fails if an optimizer of
`rankwise.optim`, a module of `rankwise.methods` or an entry of config/methods.yaml has no line, or if a line
names no test.
"""

WEIGHTS = "references/test_weights.py::test_gradients_and_steps_are_those_of_the_formula"
STORED = "references/test_stored_bases.py::test_gradients_are_those_of_the_dequantised_base"
TOPR = "references/test_lora_training.py::test_topr_trains_on_the_largest_entries"
SPARSE = "references/test_lora_training.py::test_sparse_lora_zeroes_what_its_rule_says"
TRUNCATION = (
    "references/test_truncation.py::test_training_goes_through_truncations_as_its_rule_says"
)
CONTEXTUAL = "references/test_contextual.py::test_it_trains_as_lora_on_the_channels_that_matter"
TOKENS = "references/test_prompts.py::test_virtual_tokens_stand_before_the_text"
PREFIX = "references/test_prompts.py::test_a_prefix_is_keys_and_values_of_every_layer"
ADAPTERS = "references/test_adapters.py::test_an_adapter_stands_where_its_paper_puts_it"
PARTS = "references/test_parts.py::test_the_parts_that_train_are_the_papers"
PEFT = "references/test_peft_types.py::test_a_matrix_answers_and_learns_as_its_formula"
NORMS = "references/test_peft_types.py::test_norms_train_and_nothing_else"
EMBEDDING = "references/test_peft_types.py::test_the_first_rows_of_the_embedding_train"
LLAMA_ADAPTER = "references/test_peft_types.py::test_llama_adapter_attends_to_its_prompts"
ADALORA = "references/test_adalora.py::test_triplets_are_those_of_pefts_allocator"
REFUSED = "methods/test_conformance.py::test_a_refusal_is_the_methods_own_sentence"
FROZEN = "references/test_parts.py::test_the_frozen_model_is_the_base"
BF16 = "references/test_parts.py::test_in_bf16_steps_are_torchs"
WRITTEN_OUT = "references/test_plain_optimizers.py::test_steps_are_the_equations_of_the_entry"
BADAM = "optim/test_blocks.py::test_badam_is_its_algorithm"
BITSANDBYTES = "references/test_plain_optimizers.py::test_the_entry_is_bitsandbytes_own_optimizer"
PROJECTED = "references/test_projected_entries.py::test_steps_are_the_equations_of_the_entry"
STARTS = "references/test_lora_starts.py::test_a_start_is_the_papers"
PAIRS = "references/test_lora_pairs.py::test_steps_are_the_equations_of_the_paper"
TORCHS = "optim/test_unprojected.py::test_torchs_are_torchs_bitwise"
ADALOMO = "optim/test_adalomo.py::test_it_steps_as_the_authors"
APOLLO = "optim/test_apollo.py::test_random_gradients_step_as_the_authors"
FIRA = "optim/test_fira.py::test_the_published_residual_steps_as_the_authors"
FIRA_PAPER = "optim/test_fira.py::test_the_papers_residual_is_its_equations"
FLORA = "optim/test_flora.py::test_matrices_step_as_the_authors"
FRUGAL = "optim/test_frugal.py::test_columns_step_by_adamw_or_by_their_signs"
FRUGAL_SVD = "optim/test_frugal.py::test_singular_vectors_step_by_adamw_and_the_rest_by_its_signs"
LDADAM = "optim/test_ldadam.py::test_it_is_its_equations"
LISA = "optim/test_blocks.py::test_lisa_is_its_algorithm"
MEZO = "optim/test_mezo.py::test_steps_are_the_two_point_estimate"
MLORC = "optim/test_mlorc.py::test_it_is_its_equations"
MUON = "optim/test_muon.py::test_matrices_step_as_torchs_muon"
PROJFACTOR = "optim/test_projfactor.py::test_projfactor_is_its_equations"

# By class of rankwise.optim. Some have a second reference, in another's package.
OPTIMIZERS = {
    "AdaLomo": [ADALOMO],
    "Adafactor": [
        WRITTEN_OUT,
        "references/test_plain_optimizers.py::test_adafactor_is_transformers_with_scale_parameter",
    ],
    "AdamW": [WRITTEN_OUT, TORCHS],
    "AdamW8bit": [
        BITSANDBYTES,
        "references/test_plain_optimizers.py::test_eight_bit_moments_are_the_nearest_levels_of_their_blocks",
    ],
    "Apollo": [APOLLO],
    "BAdam": [BADAM],
    "Fira": [FIRA, FIRA_PAPER],
    "Flora": [FLORA],
    "Frugal": [FRUGAL, FRUGAL_SVD],
    "LDAdam": [LDADAM],
    "LoraFA": [PAIRS, "optim/test_factor_pairs.py::test_it_steps_as_pefts"],
    "LoraPro": [
        PAIRS,
        "optim/test_factor_pairs.py::test_the_equivalent_gradient_is_nearest_to_the_full_one",
    ],
    "LoraRiemannian": [PAIRS, "optim/test_factor_pairs.py::test_it_steps_as_pefts"],
    "Lisa": [LISA],
    "Lomo": [WRITTEN_OUT, "references/test_plain_optimizers.py::test_lomo_is_the_authors"],
    "MLorc": [MLORC],
    "MeZO": [MEZO],
    "Muon": [
        MUON,
        "optim/test_muon.py::test_vectors_and_dense_groups_step_as_torchs_adamw_at_their_own_rate",
    ],
    "PagedAdamW": [BITSANDBYTES],
    "ProjFactor": [PROJFACTOR],
    "ProjectedAdam": [PROJECTED, "optim/test_projected_step.py::test_it_is_galores"],
    "Sgd": [WRITTEN_OUT, TORCHS],
    "TopR": [
        TOPR,
        "optim/test_unprojected.py::test_topr_is_adamw_on_masked_gradients",
    ],
}

# By module of rankwise.methods.
METHODS = {
    "adalora": PEFT,
    "adapter": ADAPTERS,
    "bitfit": PARTS,
    "contextual_sparse_lora": CONTEXTUAL,
    "frozen": FROZEN,
    "full": PARTS,
    "head_only": PARTS,
    "hira": WEIGHTS,
    "ia3": WEIGHTS,
    "lora": WEIGHTS,
    "miss": WEIGHTS,
    "oft": WEIGHTS,
    "p_tuning": TOKENS,
    "peft": PEFT,
    "prefix_tuning": PREFIX,
    "prompt_tuning": TOKENS,
    "shira": WEIGHTS,
    "sparse_lora": SPARSE,
    "started_lora": STARTS,
    "vera": WEIGHTS,
    "weight_reduction": WEIGHTS,
}

# By entry of config/methods.yaml. Of an entry that trains in full it is the test of its optimizer.
ENTRIES = {
    "frozen": FROZEN,
    "full": PARTS,
    "head_only": PARTS,
    "bitfit": PARTS,
    "lora": WEIGHTS,
    "lora_qkv": WEIGHTS,
    "lora_alpha16": WEIGHTS,
    "hira_as_lora": WEIGHTS,
    "rslora": WEIGHTS,
    "lora_plus": WEIGHTS,
    "dora": WEIGHTS,
    "pissa": WEIGHTS,
    "olora": WEIGHTS,
    "hira": WEIGHTS,
    "shira": WEIGHTS,
    "ia3": WEIGHTS,
    "vera": WEIGHTS,
    "oft": WEIGHTS,
    "oft_v2": WEIGHTS,
    "miss": WEIGHTS,
    "miss_bat": WEIGHTS,
    "sparse_lora": SPARSE,
    "sparse_lora_structured": SPARSE,
    "sparse_lora_l1": SPARSE,
    "sparse_lora_published": SPARSE,
    "contextual_sparse_lora": CONTEXTUAL,
    "contextual_sparse_lora_lm": CONTEXTUAL,
    "prompt_tuning": TOKENS,
    "prefix_tuning": PREFIX,
    "p_tuning": TOKENS,
    "adapter_houlsby": ADAPTERS,
    "adapter_half_houlsby": ADAPTERS,
    "adapter_pfeiffer": ADAPTERS,
    "adapter_parallel": ADAPTERS,
    "weight_reduction": WEIGHTS,
    "weight_reduction_svt": TRUNCATION,
    "weight_reduction_factored": WEIGHTS,
    "weight_reduction_shrunk": TRUNCATION,
    "weight_reduction_residual": WEIGHTS,
    "qlora": STORED,
    "qlora_single": STORED,
    "lora_int8": STORED,
    "lora_bf16": WEIGHTS,
    "hira_nf4": STORED,
    "full_bf16": BF16,
    "full_adamw_8bit": BITSANDBYTES,
    "full_paged_adamw": BITSANDBYTES,
    "full_sgd": WRITTEN_OUT,
    "full_adafactor": WRITTEN_OUT,
    "full_released": WRITTEN_OUT,
    "lomo": WRITTEN_OUT,
    "adalomo": ADALOMO,
    "rsvd": PROJECTED,
    "rsvd_released": PROJECTED,
    "rsvd_truncated": PROJECTED,
    "rsvd_fraction": PROJECTED,
    "rsvd_svt": PROJECTED,
    "rsvd_energy": PROJECTED,
    "rsvd_transported": PROJECTED,
    "galore": PROJECTED,
    "golore": PROJECTED,
    "galore_dct": PROJECTED,
    "dct_adamw": "optim/test_dct_adamw.py::test_every_step_selects_columns_anew",
    "fira": FIRA,
    "apollo": APOLLO,
    "apollo_mini": APOLLO,
    "flora": FLORA,
    "ldadam": LDADAM,
    "vlorp": PROJFACTOR,
    "vlorp_published": PROJFACTOR,
    "vlorp_rademacher": PROJFACTOR,
    "vlorp_svd": PROJFACTOR,
    "vlorp_ss": PROJECTED,
    "vlorp_os": PROJECTED,
    "lora_topr": TOPR,
    "lora_topr_30": TOPR,
    "lora_topr_50": TOPR,
    "lora_topr_sound": TOPR,
    "lora_topr_feedback": TOPR,
    "lora_eva": STARTS,
    "lora_corda": STARTS,
    "lora_corda_kpm": STARTS,
    "lora_ga": STARTS,
    "lora_loftq": STARTS,
    "lora_fa": PAIRS,
    "lora_riemannian": PAIRS,
    "lora_pro": PAIRS,
    "muon": MUON,
    "badam": BADAM,
    "lisa": LISA,
    "frugal": FRUGAL,
    "frugal_svd": FRUGAL_SVD,
    "mlorc": MLORC,
    "mezo": MEZO,
    "lora_mezo": MEZO,
    "boft": PEFT,
    "c3a": PEFT,
    "deft": PEFT,
    "delora": PEFT,
    "fourierft": PEFT,
    "glora": PEFT,
    "gralora": PEFT,
    "hra": PEFT,
    "lily": PEFT,
    "loha": PEFT,
    "lokr": PEFT,
    "osf": PEFT,
    "peanut": PEFT,
    "psoft": PEFT,
    "pvera": PEFT,
    "randlora": PEFT,
    "tinylora": PEFT,
    "unilora": PEFT,
    "vblora": PEFT,
    "waveft": PEFT,
    "beft": PEFT,
    "road": PEFT,
    "supertuning": PEFT,
    "adalora": PEFT,
    "ln_tuning": NORMS,
    "trainable_tokens": EMBEDDING,
    "adaption_prompt": LLAMA_ADAPTER,
    "lora_all": WEIGHTS,
    "adamss": REFUSED,
    "cartridge": REFUSED,
    "cpt": REFUSED,
    "frod": REFUSED,
    "multitask_prompt_tuning": REFUSED,
    "poly": REFUSED,
    "shadow": REFUSED,
    "xlora": REFUSED,
}


def entries(test: str) -> list[str]:
    """The entries that a test of this folder holds to its reference; the test takes its cases from here."""
    return [name for name, line in ENTRIES.items() if line == f"references/{test}"]
