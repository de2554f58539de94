"""Each family's golden model, in every variant, against the logits of the original (docs/golden-models.md)."""
import functools

import numpy as np
import pytest

from support import gguf_file, program

FAMILIES = ("qwen3moe", "qwen2moe", "olmoe", "mixtral")
PROMPTS = (0, 1, 2)

# Relative to a row of the reference: max |difference| / max |reference|, and the same in the Euclidean norm.
EXACT_BUDGET = 1e-4       # correct float32 implementations differ by at most 1.5e-5
KV_F16_BUDGET = 1e-2      # keys and values in F16 cost at most 4e-3
KV_Q8_0_WORST_BUDGET = 0.12  # and in Q8_0 at most 0.08,
KV_Q8_0_MEDIAN_BUDGET = 0.04  # and 0.024 in the middle row
INT8_WORST_BUDGET = 0.06  # the same int8 activations: at most 0.024, where one fell on the other side of a rounding border,
INT8_MEDIAN_BUDGET = {0: 1e-4, 1: 1e-3, 2: 1e-2}  # and 2e-7, 2e-7, 2e-5 in the middle row of each prompt
Q8_0_WORST_BUDGET = 0.35  # int8 activations against float ones: at most 0.21,
Q8_0_MEDIAN_BUDGET = 0.08  # and 0.042 in the middle row

CLAMP = 1.25  # of the stored logits


@functools.cache
def stored(family):
    return np.load(program.GOLDEN / f"{family}.npz")


@pytest.fixture(scope="session")
def variants(tmp_path_factory):
    """(family, variant) -> path, derived from the stored F32 file at first use."""
    folder = tmp_path_factory.mktemp("models")

    @functools.cache
    def path_of(family, variant):
        original = program.GOLDEN / f"{family}.gguf"
        if variant == "f32":
            return original
        file, path = gguf_file.read(original), folder / f"{family}.{variant}.gguf"
        if variant == "parts":
            return gguf_file.write_parts(file, str(folder / family), 3)[0]
        derived = {"f16": lambda: gguf_file.with_type(file, gguf_file.F16),
                   "q8_0": lambda: gguf_file.with_type(file, gguf_file.Q8_0),
                   "split": lambda: gguf_file.with_split_experts(file),
                   "clamped": lambda: gguf_file.with_key(file, "olmoe.attention.clamp_kqv", 6, CLAMP)}[variant]()
        gguf_file.write(derived, path)
        return path

    return path_of


def logits(path, family, prompt, folder, *options):
    """The engine's logits at the stored positions of a prompt, and the object it prints."""
    data, out = stored(family), folder / "logits.npy"
    tokens = data[f"tokens_{prompt}"]
    said = program.run_json("logits", "-m", path, "--tokens", ",".join(map(str, tokens)), "--out", out, *options)
    rows = np.load(out)
    assert rows.dtype == np.float32 and rows.shape[0] == len(tokens)
    return rows[data[f"positions_{prompt}"]], said


def row_errors(found, expected):
    """Per row: the larger of the two relative errors."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    assert found.shape == expected.shape
    difference = found - expected
    return np.maximum(np.abs(difference).max(axis=1) / np.abs(expected).max(axis=1),
                      np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1))


EXACT = [(f, "f32") for f in FAMILIES] + [(f, "f16") for f in FAMILIES] + [(f, "parts") for f in FAMILIES] + [
    ("mixtral", "split"), ("olmoe", "clamped")]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("family,variant", EXACT)
def test_float_weights_give_the_logits_of_the_original(variants, tmp_path, family, variant, prompt):
    expected = stored(family)[f"{variant if variant in ('f16', 'clamped') else 'f32'}_{prompt}"]
    found, _ = logits(variants(family, variant), family, prompt, tmp_path, "--kv", "f32")
    errors = row_errors(found, expected)
    assert errors.max() < EXACT_BUDGET
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_half_precision_cache_costs_little(variants, tmp_path, family, prompt):
    found, _ = logits(variants(family, "f32"), family, prompt, tmp_path, "--kv", "f16")
    errors = row_errors(found, stored(family)[f"f32_{prompt}"])
    assert errors.max() < KV_F16_BUDGET


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_cache_of_q8_0_costs_little(variants, tmp_path, prompt):
    found, _ = logits(variants("qwen2moe", "f32"), "qwen2moe", prompt, tmp_path, "--kv", "q8_0")
    errors = row_errors(found, stored("qwen2moe")[f"f32_{prompt}"])
    assert 0 < np.median(errors) < KV_Q8_0_MEDIAN_BUDGET
    assert errors.max() < KV_Q8_0_WORST_BUDGET


def test_a_cache_of_q8_0_needs_whole_blocks():
    said = program.run("logits", "-m", program.GOLDEN / "qwen3moe.gguf", "--tokens", "1,2", "--kv", "q8_0", code=1)
    assert "32 elements" in said.err and "keys have 16" in said.err


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_q8_0_weights_with_int8_activations_give_the_logits_of_the_reference(variants, tmp_path, family, prompt):
    found, _ = logits(variants(family, "q8_0"), family, prompt, tmp_path, "--kv", "f32")
    errors = row_errors(found, stored(family)[f"q8_0_int8_{prompt}"])
    assert np.median(errors) < INT8_MEDIAN_BUDGET[prompt]
    assert errors.max() < INT8_WORST_BUDGET


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_q8_0_weights_come_near_the_original(variants, tmp_path, family, prompt):
    found, _ = logits(variants(family, "q8_0"), family, prompt, tmp_path, "--kv", "f32")
    errors = row_errors(found, stored(family)[f"q8_0_{prompt}"])
    assert np.median(errors) < Q8_0_MEDIAN_BUDGET
    assert errors.max() < Q8_0_WORST_BUDGET


@pytest.mark.parametrize("kv", ("f16", "f32"))
@pytest.mark.parametrize("variant", ("f32", "f16", "q8_0"))
@pytest.mark.parametrize("family", FAMILIES)
def test_token_by_token_gives_the_bits_of_prefill(variants, tmp_path, family, variant, kv):
    path = variants(family, variant)
    prefill, said = logits(path, family, 2, tmp_path, "--kv", kv)
    decode, said_decode = logits(path, family, 2, tmp_path, "--kv", kv, "--decode")
    assert said_decode["logits_hash"] == said["logits_hash"]
    np.testing.assert_array_equal(decode.view(np.uint32), prefill.view(np.uint32))


@pytest.mark.parametrize("mask", program.MASKS)
@pytest.mark.parametrize("variant", ("f32", "f16", "q8_0"))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_instruction_set_gives_the_same_bits(variants, tmp_path, family, variant, mask):
    program.need_mask(mask)
    path = variants(family, variant)
    _, said = logits(path, family, 2, tmp_path)
    _, masked = logits(path, family, 2, tmp_path, "--cpu-mask", mask)
    assert masked["isa"] == mask
    assert masked["logits_hash"] == said["logits_hash"]
