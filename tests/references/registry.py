"""Which test holds which entry"""

W = "test_weights.py::test_gradients_and_steps_are_those_of_the_formula"
ENTRIES = (
    dict.fromkeys(
        "lora lora_qkv lora_alpha16 hira_as_lora rslora lora_plus dora pissa olora hira shira ia3 vera oft oft_v2 miss miss_bat lora_bf16 weight_reduction weight_reduction_factored weight_reduction_residual".split(),
        W,
    )
    | dict.fromkeys(
        "lora_topr lora_topr_30 lora_topr_50 lora_topr_sound lora_topr_feedback".split(),
        "test_lora_training.py::test_topr_trains_on_the_largest_entries",
    )
    | dict.fromkeys(
        "sparse_lora sparse_lora_structured sparse_lora_l1 sparse_lora_published".split(),
        "test_lora_training.py::test_sparse_lora_zeroes_what_its_rule_says",
    )
)


ENTRIES |= dict.fromkeys(
    ["adapter_houlsby", "adapter_half_houlsby", "adapter_pfeiffer", "adapter_parallel"],
    "test_adapters.py::test_an_adapter_stands_where_its_paper_puts_it",
)
ENTRIES |= dict.fromkeys(
    ["prompt_tuning", "p_tuning"], "test_prompts.py::test_virtual_tokens_stand_before_the_text"
)
ENTRIES |= dict.fromkeys(
    ["prefix_tuning"], "test_prompts.py::test_a_prefix_is_keys_and_values_of_every_layer"
)


ENTRIES |= dict.fromkeys(
    ["full", "bitfit", "head_only"], "test_parts.py::test_the_parts_that_train_are_the_papers"
)
ENTRIES |= dict.fromkeys(
    ["qlora", "qlora_single", "lora_int8", "hira_nf4"],
    "test_stored_bases.py::test_gradients_are_those_of_the_dequantised_base",
)


ENTRIES |= dict.fromkeys(
    ["full_sgd", "full_adafactor", "full_released", "lomo"],
    "test_plain_optimizers.py::test_steps_are_the_equations_of_the_entry",
)
ENTRIES |= dict.fromkeys(
    ["full_adamw_8bit", "full_paged_adamw"],
    "test_plain_optimizers.py::test_the_entry_is_bitsandbytes_own_optimizer",
)


def entries(test):
    return [n for n, t in ENTRIES.items() if t == test]
