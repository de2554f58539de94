"""The same bits at every budget, chunk size, thread count and instruction set. Backends are in test_io.py."""
import subprocess
import sys

import pytest

from support import program

TEXT = """There was once a miller who had three sons, a mill, a donkey and a cat. The sons had to grind, the donkey had to
fetch the corn and carry the flour away, and the cat had to catch the mice. When the miller died the three sons divided what
he left: the eldest took the mill, the second the donkey, and for the third nothing was left but the cat. Then he was sad,
and said to himself: 'I have come off the worst of all. My eldest brother can grind, my second can ride upon his donkey, but
what can I do with a cat? If I have a pair of gloves made of her skin, then it is over.' 'Listen,' said the cat, who had
understood every word, 'you need not kill me to get a pair of poor gloves; only have a pair of boots made for me, that I may
go out and be seen among the people, and you shall soon be helped.'"""
CONTEXT = ("--ctx", 256)


def logits(*options):
    return program.run_json("logits", "-m", program.DEMO, "-p", TEXT, *CONTEXT, *options)


@pytest.fixture(scope="module")
def plain():
    said = logits()
    assert int(said["logits_hash"], 16) != 0
    return said


@pytest.fixture(scope="module")
def floor():
    """The smallest budget for these options, a byte count the program states itself."""
    return program.floor_bytes("logits", "-m", program.DEMO, "-p", TEXT, *CONTEXT)


BUDGETS = ("floor", "floor and a tenth", "floor and a third", "floor and two thirds", "floor and all", "plenty")


def budget_bytes(name, floor):
    model = program.DEMO.stat().st_size
    return floor + {"floor": 0, "floor and a tenth": model // 10, "floor and a third": model // 3,
                    "floor and two thirds": 2 * model // 3, "floor and all": model, "plenty": 16 * model}[name]


def test_another_input_has_another_hash(plain):
    other = program.run_json("logits", "-m", program.DEMO, "-p", TEXT[:-1], *CONTEXT)
    assert other["logits_hash"] != plain["logits_hash"]


def test_token_by_token(plain):
    assert logits("--decode")["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("chunk", (1, 7, 64, 512))
def test_prefill_chunk(plain, chunk):
    assert logits("--chunk", chunk)["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("threads", (1, 2, 3))
@pytest.mark.parametrize("chunk", (1, 5, 7, 64, 128, 512))
def test_what_the_page_cache_has(plain, chunk, threads):
    """Who copies from there and what is kept of it depends on the chunk and on whether a core is left."""
    program.DEMO.read_bytes()
    assert logits("--chunk", chunk, "-t", threads)["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("chunk", (7, 128))
def test_what_the_page_cache_lacks(plain, chunk):
    program.forget_cached(program.DEMO)
    assert logits("--chunk", chunk)["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("kv", ("f32", "q8_0"))
def test_cache_types(plain, kv):
    """A cache of another type has other bits, and those too do not depend on how they are computed."""
    expected = logits("--kv", kv)["logits_hash"]
    assert expected != plain["logits_hash"]
    for options in (("--decode",), ("--chunk", 7), ("-t", 1, "--chunk", 33), ("-t", 3)):
        assert logits("--kv", kv, *options)["logits_hash"] == expected
    for mask, flags in program.MASK_FLAGS.items():
        if program.cpu_has(*flags):
            assert logits("--kv", kv, "--cpu-mask", mask)["logits_hash"] == expected


@pytest.mark.parametrize("threads", (1, 2, 3, 8))
def test_threads(plain, threads):
    said = logits("-t", threads)
    assert said["threads"] == threads
    assert said["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("name", BUDGETS)
def test_budget(plain, floor, name):
    budget = budget_bytes(name, floor)
    said = logits("--mem", budget)
    assert said["mem_budget_bytes"] == budget
    assert said["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("name", BUDGETS)
def test_budget_token_by_token(plain, floor, name):
    assert logits("--mem", budget_bytes(name, floor), "--decode")["logits_hash"] == plain["logits_hash"]


def test_the_budgets_differ_in_what_they_read(floor):
    """Else the tests above would compare a run with itself. Without reading ahead, because what that turns into hits is the disk's to say."""
    misses = [logits("--mem", budget_bytes(name, floor), "--decode", "--prefetch", "none")["expert_misses"] for name in BUDGETS]
    assert misses == sorted(misses, reverse=True)
    assert misses[0] > 2 * misses[-1] > 0


@pytest.mark.parametrize("mask", program.MASKS)
def test_instruction_set(plain, mask):
    program.need_mask(mask)
    said = logits("--cpu-mask", mask)
    assert said["isa"] == mask
    assert said["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("mask", ("avx2", "avx512", "amx"))
@pytest.mark.parametrize("kind", ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"))
def test_instruction_set_with_experts_from_a_grid(tmp_path, kind, mask):
    """Several tokens at once and one after the other take different kernels."""
    program.need_mask(mask)
    model = tmp_path / "model.gguf"
    subprocess.run([sys.executable, program.ROOT / "tools" / "make_model.py", model, "--expert-type", kind, "--width", "512"],
                   check=True, stdout=subprocess.DEVNULL)
    command = ("logits", "-m", model, "-p", TEXT[:200], *CONTEXT)
    plain_hash = program.run_json(*command, "--cpu-mask", "generic")["logits_hash"]
    for options in ((), ("--decode",)):
        said = program.run_json(*command, "--cpu-mask", mask, *options)
        assert said["isa"] == mask
        assert said["logits_hash"] == plain_hash


PREDICTORS = ("none", "previous", "router", "auto")


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("name", BUDGETS)
def test_prefetch(plain, floor, predictor, name):
    options = ("--mem", budget_bytes(name, floor), "--prefetch", predictor)
    assert logits(*options)["logits_hash"] == plain["logits_hash"]
    assert logits(*options, "--decode")["logits_hash"] == plain["logits_hash"]
    if name != "floor":
        assert logits(*options, "--chunk", 5)["logits_hash"] == plain["logits_hash"]


POLICIES = ("lru", "lfru", "placement", "reuse", "pinned")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "tale.routing"
    logits("--decode", "--record-routing", path)
    return path


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ("floor", "floor and a tenth", "floor and two thirds"))
def test_policy(plain, floor, recording, policy, name):
    options = ("--mem", budget_bytes(name, floor), "--policy", policy, *(("--policy-trace", recording) if policy == "pinned" else ()))
    assert logits(*options)["logits_hash"] == plain["logits_hash"]
    assert logits(*options, "--decode", "--prefetch", "none")["logits_hash"] == plain["logits_hash"]
    assert logits(*options, "--decode", "--prefetch", "router")["logits_hash"] == plain["logits_hash"]


def test_the_policies_differ_in_what_they_read(floor, recording):
    """Else the test above would compare a run with itself."""
    options = ("--mem", budget_bytes("floor and a third", floor), "--decode", "--prefetch", "none")
    misses = {policy: logits(*options, "--policy", policy, *(("--policy-trace", recording) if policy == "pinned" else ()))
              ["expert_misses"] for policy in POLICIES}
    assert len(set(misses.values())) == len(POLICIES)
    assert misses["reuse"] < misses["lru"]


def test_the_predictors_read_ahead_of_need(floor):
    """Else the tests above would compare a run with itself."""
    issued = {p: logits("--mem", budget_bytes("floor and a tenth", floor), "--prefetch", p, "--decode")["prefetch_issued"]
              for p in PREDICTORS}
    assert issued["none"] == 0 and issued["previous"] > 50 and issued["router"] > 50


def test_everything_at_once(plain):
    options = ("--chunk", 7, "-t", 3, "--cpu-mask", "generic", "--io", "pread")
    floor = program.floor_bytes("logits", "-m", program.DEMO, "-p", TEXT, *CONTEXT, *options)
    said = logits("--mem", budget_bytes("floor and a tenth", floor), *options)
    assert said["logits_hash"] == plain["logits_hash"]


@pytest.mark.parametrize("seed", (1, 2))
def test_sampled_text_depends_on_the_seed_alone(seed):
    command = ("run", "-m", program.DEMO, "-p", "Once upon a time", "-n", 80, "--ignore-eos", *CONTEXT, "--seed", seed)
    one = program.run(*command, "-t", 1).out
    tight = (*command, "-t", 2, "--chunk", 3)
    assert program.run(*tight, "--mem", program.floor_bytes(*tight)).out == one
    assert program.run(*command[:-1], seed + 2).out != one
