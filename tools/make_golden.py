#!/usr/bin/env python3
"""Makes the golden models: tiny randomly initialised models of each family, and the logits that the original gives them.

    make_golden.py [--out tests/golden/models] [--only NAME]     writes NAME.gguf (F32) and NAME.npz
    make_golden.py --mutations                                   shows what deliberate errors do to the logits
    make_golden.py --budgets                                     measures what int8 activations cost

The original is Hugging Face transformers, in float32 (and once in float64, to see that float32 was enough). Needs
torch, transformers and gguf from PyPI; the tests need none of them. The F16, Q8_0, split-expert and clamped files are
not stored: tests/support/ derives them from the F32 file, byte for byte as here.

NAME.npz holds, for each prompt p: tokens_p, positions_p (those whose logits are kept), and the logits [positions][vocabulary] of
 f32_p       the F32 file
 f16_p       the F16 file: the original with its weights rounded to F16
 q8_0_p      the Q8_0 file: the original with its weights rounded to Q8_0, activations untouched
 q8_0_int8_p the same by tools/reference.py, with the engine's int8 activations
 clamped_p   olmoe: the F32 file with attention.clamp_kqv

Prompts are grown so that no choice of experts and no top token is a near tie, in any of these files: a token where one
would be is redrawn.
"""
import argparse
import dataclasses
import pathlib
import sys
import tempfile

import gguf
import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]
import reference  # noqa: E402
from support import gguf_file  # noqa: E402

N_TOKENS = 300
CONTEXT = 512
CLAMP = 1.25
# Prompt lengths, and which positions are kept: the long one crosses the 256 positions of an attention chunk.
PROMPTS = ((7, range(7)), (72, range(72)), (290, [*range(251, 260), *range(280, 290)]))
LEAST_ROUTER_MARGIN = 0.03  # in router logits, between the last expert chosen and the first one left out
LEAST_TOP_MARGIN = 2e-3     # between the two largest logits, of the largest magnitude in the row

MERGES = ("Ġ t,Ġ a,h e,i n,r e,o n,Ġt he,e r,Ġ s,a t,Ġ w,Ġ o,n d,i t,o r,Ġ c,e s,i s,Ġ h,e n,Ġ f,Ġ b,o u,Ġa nd,"
          "Ġ m,in g,Ġ p,Ġt o,e d,a n,Ġ d,a l,a r,l l,Ġo f,Ġ in,Ġ I,v e,Ġ l,l e").split(",")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]


@dataclasses.dataclass
class Family:
    name: str
    arch: gguf.MODEL_ARCH
    pre: str           # pre-tokenizer
    config: type
    model: type
    seed: int
    options: dict      # of the config
    keys: dict         # further GGUF keys, under the architecture's prefix


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


FAMILIES = [
    # head_dim is not hidden/heads; 6 query heads over 2; untied.
    Family("qwen3moe", gguf.MODEL_ARCH.QWEN3MOE, "qwen2", transformers.Qwen3MoeConfig, transformers.Qwen3MoeForCausalLM, 11,
           dict(hidden_size=64, head_dim=16, num_attention_heads=6, num_key_value_heads=2, num_hidden_layers=3, num_experts=8,
                num_experts_per_tok=2, moe_intermediate_size=32, intermediate_size=64, norm_topk_prob=True,
                rms_norm_eps=1e-6, rope_parameters=rope(50000.0)),
           {"feed_forward_length": 64, "expert_feed_forward_length": 32, "attention.key_length": 16,
            "attention.value_length": 16}),
    # 3 query heads over 1; 12 experts, top 3; rows of 24 and 48, no whole blocks of 32; tied.
    Family("qwen2moe", gguf.MODEL_ARCH.QWEN2MOE, "qwen2", transformers.Qwen2MoeConfig, transformers.Qwen2MoeForCausalLM, 22,
           dict(hidden_size=96, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=2, num_experts=12,
                num_experts_per_tok=3, moe_intermediate_size=24, shared_expert_intermediate_size=48, intermediate_size=48,
                decoder_sparse_step=1, norm_topk_prob=False, rms_norm_eps=1e-6, tie_word_embeddings=True,
                rope_parameters=rope(1000000.0)),
           {"feed_forward_length": 48, "expert_feed_forward_length": 24, "expert_shared_feed_forward_length": 48}),
    # 6 query heads over 3; 6 experts.
    Family("olmoe", gguf.MODEL_ARCH.OLMOE, "olmo", transformers.OlmoeConfig, transformers.OlmoeForCausalLM, 33,
           dict(hidden_size=96, num_attention_heads=6, num_key_value_heads=3, num_hidden_layers=2, num_experts=6,
                num_experts_per_tok=2, intermediate_size=32, norm_topk_prob=False, rms_norm_eps=1e-5,
                rope_parameters=rope(20000.0)),
           {"feed_forward_length": 32}),
    Family("mixtral", gguf.MODEL_ARCH.LLAMA, "llama-bpe", transformers.MixtralConfig, transformers.MixtralForCausalLM, 44,
           dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, num_local_experts=8,
                num_experts_per_tok=2, intermediate_size=32, rms_norm_eps=1e-5, rope_parameters=rope(100000.0)),
           {"feed_forward_length": 32, "rope.dimension_count": 16}),
]


def byte_tokens():
    """The 256 bytes as byte-level BPE writes them: printable ones as they are, the rest moved above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def build(family, clip=None):
    """The original, weights drawn from the family's seed: matrices far from flat, norms around 1, every bias non-zero."""
    config = family.config(vocab_size=N_TOKENS, max_position_embeddings=CONTEXT, attn_implementation="eager",
                           bos_token_id=None, eos_token_id=None, pad_token_id=None,
                           **({"clip_qkv": clip} if clip else {}), **family.options)
    config._experts_implementation = "eager"
    model = family.model(config).eval()
    random = np.random.default_rng(family.seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            draw = random.standard_normal(tuple(p.shape))
            if name.endswith("norm.weight"):
                values = random.uniform(0.5, 1.5, tuple(p.shape))
            elif name.endswith("bias"):
                values = np.sign(draw) * (0.1 + 0.5 * np.abs(draw))
            else:
                values = 0.2 * draw
            p.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def places(family, model):
    """(GGUF name, view of the original's parameter, heads whose rows the conversion permutes or 0) for every tensor."""
    c, inner = model.config, model.model
    permute = family.arch == gguf.MODEL_ARCH.LLAMA
    yield "token_embd.weight", inner.embed_tokens.weight, 0
    for i, layer in enumerate(inner.layers):
        b, a, m = f"blk.{i}.", layer.self_attn, layer.mlp
        yield b + "attn_norm.weight", layer.input_layernorm.weight, 0
        for n, linear, heads in (("q", a.q_proj, c.num_attention_heads), ("k", a.k_proj, c.num_key_value_heads),
                                 ("v", a.v_proj, 0)):
            yield b + f"attn_{n}.weight", linear.weight, heads if permute else 0
            if linear.bias is not None:
                yield b + f"attn_{n}.bias", linear.bias, 0
        if hasattr(a, "q_norm"):
            yield b + "attn_q_norm.weight", a.q_norm.weight, 0
            yield b + "attn_k_norm.weight", a.k_norm.weight, 0
        yield b + "attn_output.weight", a.o_proj.weight, 0
        yield b + "ffn_norm.weight", layer.post_attention_layernorm.weight, 0
        yield b + "ffn_gate_inp.weight", m.gate.weight, 0
        width = m.experts.intermediate_dim
        yield b + "ffn_gate_exps.weight", m.experts.gate_up_proj[:, :width], 0
        yield b + "ffn_up_exps.weight", m.experts.gate_up_proj[:, width:], 0
        yield b + "ffn_down_exps.weight", m.experts.down_proj, 0
        if hasattr(m, "shared_expert"):
            yield b + "ffn_gate_inp_shexp.weight", m.shared_expert_gate.weight[0], 0
            for n, linear in (("gate", m.shared_expert.gate_proj), ("up", m.shared_expert.up_proj),
                              ("down", m.shared_expert.down_proj)):
                yield b + f"ffn_{n}_shexp.weight", linear.weight, 0
    yield "output_norm.weight", inner.norm.weight, 0
    if not c.tie_word_embeddings:
        yield "output.weight", model.lm_head.weight, 0


def permuted(w, heads):
    """Rotate-half order (first halves, then second halves of the pairs) to pairs side by side, per head."""
    return w.reshape(heads, 2, -1, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def unpermuted(w, heads):
    return w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(family, model, path):
    c, arch = model.config, gguf.MODEL_ARCH_NAMES[family.arch]
    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"Golden {family.name}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_expert_count(c.num_experts)
    writer.add_expert_used_count(c.num_experts_per_tok)
    for key, value in family.keys.items():
        writer.add_uint32(f"{arch}.{key}", value)
    tokens = byte_tokens() + ["".join(m.split()) for m in MERGES] + SPECIAL
    assert len(set(tokens)) == N_TOKENS
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(family.pre)
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (N_TOKENS - len(SPECIAL)) + [gguf.TokenType.CONTROL] * len(SPECIAL))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|pad|>"))
    writer.add_add_bos_token(False)
    known = {gguf.TENSOR_NAMES[t].format(bid=i) for t in gguf.MODEL_TENSORS[family.arch] for i in range(c.num_hidden_layers)}
    for name, p, heads in places(family, model):
        assert name.removesuffix(".weight").removesuffix(".bias") in known, name
        w = p.detach().numpy()
        writer.add_tensor(name, np.ascontiguousarray(permuted(w, heads) if heads else w))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def take_weights(family, model, path):
    """Give the original the weights of a GGUF file, as an independent reader decodes them."""
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
             for t in gguf.GGUFReader(path).tensors}
    with torch.no_grad():
        for name, p, heads in places(family, model):
            w = found.pop(name)
            p.copy_(torch.from_numpy(np.array(unpermuted(w, heads) if heads else w)))
    assert not found, found
    return model


def original_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()


class Case:
    """One family: its original, its files, and the reference's models of them."""

    def __init__(self, family, folder):
        self.family, self.folder = family, pathlib.Path(folder)
        self.original = build(family)
        base = self.path("f32")
        write_gguf(family, self.original, base)
        file = gguf_file.read(base)
        gguf_file.write(gguf_file.with_type(file, gguf_file.F16), self.path("f16"))
        gguf_file.write(gguf_file.with_type(file, gguf_file.Q8_0), self.path("q8_0"))
        self.originals = {"f32": self.original}
        for kind in ("f16", "q8_0"):
            self.originals[kind] = take_weights(family, build(family), self.path(kind))
        if family.name == "olmoe":
            gguf_file.write(gguf_file.with_key(file, "olmoe.attention.clamp_kqv", 6, CLAMP), self.path("clamped"))
            self.originals["clamped"] = build(family, CLAMP)
        if family.name == "mixtral":
            gguf_file.write(gguf_file.with_split_experts(file), self.path("split"))
        self.models = {kind: reference.load(self.path(kind)) for kind in self.originals}
        self.check_q8_0_encoder(file)

    def path(self, kind):
        return self.folder / f"{self.family.name}.{kind}.gguf"

    def check_q8_0_encoder(self, file):
        for name, t in file.tensors.items():
            if gguf_file.is_converted(name, t) and t.ne[0] % 32 == 0:
                x = np.frombuffer(t.data, "<f4").reshape(-1, t.ne[0])
                theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType.Q8_0).tobytes()
                assert theirs == gguf_file.encode_q8_0(x), name

    def variants(self):
        """(kind of npz key, reference model, int8 activations)"""
        for kind, model in self.models.items():
            yield kind, model, False
        yield "q8_0_int8", self.models["q8_0"], True

    def first_near_tie(self, tokens):
        first = len(tokens)
        chosen_by = []
        for kind, model, int8 in self.variants():
            routing = []
            logits = reference.forward(model, tokens, int8=int8, routing=routing)
            bad = np.min([margin for margin, _ in routing], axis=0) < LEAST_ROUTER_MARGIN
            if kind != "q8_0_int8":
                top = np.sort(logits, axis=1)
                bad |= (top[:, -1] - top[:, -2]) / np.abs(logits).max(axis=1) < LEAST_TOP_MARGIN
            if kind != "clamped":
                chosen_by.append(np.stack([np.sort(chosen, axis=1) for _, chosen in routing]))
                bad |= (chosen_by[-1] != chosen_by[0]).any(axis=(0, 2))
            first = min([first, *np.nonzero(bad)[0]])
        return first

    def prompts(self):
        """Tokens of each prompt: drawn at random, redrawn from the first near tie on until there is none."""
        random = np.random.default_rng(self.family.seed + 1000)
        for length, positions in PROMPTS:
            tokens = [int(t) for t in random.integers(0, N_TOKENS, length)]
            redrawn = 0
            while (at := self.first_near_tie(tokens)) < length:
                tokens[at] = int(random.integers(0, N_TOKENS))
                redrawn += 1
            print(f"  prompt of {length}: {redrawn} tokens redrawn", flush=True)
            yield tokens, list(positions)


def errors(found, expected):
    """Largest over the rows: max |difference| / max |expected|, and |difference| / |expected| in the Euclidean norm."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    difference = found - expected
    return (float(np.max(np.abs(difference).max(axis=1) / np.abs(expected).max(axis=1))),
            float(np.max(np.linalg.norm(difference, axis=1) / np.linalg.norm(expected, axis=1))))


def make(family, out, keep_folder):
    case = Case(family, keep_folder)
    print(family.name)
    arrays, worst = {}, {}

    def note(what, found, expected):
        e = errors(found, expected)
        worst[what] = max(worst.get(what, (0, 0)), e)

    for p, (tokens, positions) in enumerate(case.prompts()):
        arrays[f"tokens_{p}"] = np.array(tokens, np.int32)
        arrays[f"positions_{p}"] = np.array(positions, np.int32)
        for kind, original in case.originals.items():
            logits = original_logits(original, tokens)
            arrays[f"{kind}_{p}"] = logits[positions]
            note(f"{kind}: reference.py in float64", reference.forward(case.models[kind], tokens), logits)
            double = original_logits(original.double(), tokens)
            original.float()
            note(f"{kind}: original in float64", double, logits)
        int8 = reference.forward(case.models["q8_0"], tokens, int8=True).astype(np.float32)
        arrays[f"q8_0_int8_{p}"] = int8[positions]
        note("q8_0: int8 activations", int8, original_logits(case.originals["q8_0"], tokens))
        if family.name == "mixtral":
            split = reference.forward(reference.load(case.path("split")), tokens)
            note("split experts: reference.py in float64", split, original_logits(case.original, tokens))
    for what, (largest, norm) in worst.items():
        print(f"  against the original in float32, {what}: max {largest:.2e}, norm {norm:.2e}")
    np.savez_compressed(out / f"{family.name}.npz", **arrays)
    (out / f"{family.name}.gguf").write_bytes(case.path("f32").read_bytes())


def prompts_of(out, name):
    stored = np.load(out / f"{name}.npz")
    p = 0
    while f"tokens_{p}" in stored:
        yield p, stored[f"tokens_{p}"], stored[f"positions_{p}"], stored
        p += 1


def show_mutations(out):
    """Smallest over the prompts of the largest error in a prompt: what a test of any one prompt would see."""
    print("| model | " + " | ".join(reference.MUTATIONS) + " |\n|---|" + "---|" * len(reference.MUTATIONS))
    for family in FAMILIES:
        for kind in ("f32", "clamped") if family.name == "olmoe" else ("f32",):
            with tempfile.NamedTemporaryFile(suffix=".gguf") as temporary:
                path = out / f"{family.name}.gguf"
                if kind == "clamped":
                    file = gguf_file.with_key(gguf_file.read(path), "olmoe.attention.clamp_kqv", 6, CLAMP)
                    path = temporary.name
                    gguf_file.write(file, path)
                model = reference.load(path)
            cells = []
            for mutation in reference.MUTATIONS:
                seen = [errors(reference.forward(model, t, mutations=(mutation,))[at], stored[f"{kind}_{p}"])[1]
                        for p, t, at, stored in prompts_of(out, family.name)]
                cells.append("no such part" if max(seen) < 1e-5 else f"{min(seen):.3f}")
            print(f"| {family.name}{' clamped' if kind == 'clamped' else ''} | " + " | ".join(cells) + " |")


def show_budgets(out):
    """What int8 activations cost against the original, and what float32 rounding costs on top: activations near a
    rounding border fall on the other side."""
    for family in FAMILIES:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as temporary:
            gguf_file.write(gguf_file.with_type(gguf_file.read(out / f"{family.name}.gguf"), gguf_file.Q8_0), temporary.name)
            model = reference.load(temporary.name)
        single = dataclasses.replace(model, tensors={k: v.astype(np.float32) for k, v in model.tensors.items()})
        for p, tokens, at, stored in prompts_of(out, family.name):
            f32 = reference.forward(single, tokens, int8=True)[at]
            print(f"{family.name} prompt {p}: int8 activations max {{:.2e}}, norm {{:.2e}}; ".format(
                      *errors(stored[f"q8_0_int8_{p}"], stored[f"q8_0_{p}"]))
                  + "float32 against float64, both int8: max {:.2e}, norm {:.2e}".format(
                      *errors(f32, stored[f"q8_0_int8_{p}"])))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "tests" / "golden" / "models")
    parser.add_argument("--only", choices=[f.name for f in FAMILIES])
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--budgets", action="store_true")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    if arguments.mutations:
        show_mutations(arguments.out)
    elif arguments.budgets:
        show_budgets(arguments.out)
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for family in FAMILIES:
            if arguments.only in (None, family.name):
                with tempfile.TemporaryDirectory() as folder:
                    make(family, arguments.out, folder)


if __name__ == "__main__":
    main()
