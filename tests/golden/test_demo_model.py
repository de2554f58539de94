"""The demo model against what PyTorch says of it (../shared/data/demo-model/reference.txt)."""
import json
import os
import re

import numpy as np
import pytest

from support import program

ALWAYS = ("grimm", "shakespeare")
SLOW = ("kjv", "speeches")
SLOW_SWITCH = "SLUICE_TEST_SLOW"

F16_BUDGET = 0.002       # nats per token, against the same file in PyTorch
QUANTISED_BUDGET = 0.03  # nats per token, the committed model against the F16 file
LOGIT_BUDGET = 1e-3
PROMPT = "Once upon a time there was a king who"


@pytest.fixture(scope="module")
def reference():
    lines = program.shared("demo-model/reference.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if m := re.match(r"ref_nll_(\w+) ([\d.]+) tokens (\d+) windows (\d+) bytes (\d+) first_ids (.*)", line):
            found[m[1]] = {"nll": float(m[2]), "tokens": int(m[3]), "bytes": int(m[5]), "first_ids": json.loads(m[6])}
        elif m := re.match(r"last_position_top5 (.*)", line):
            found["top5"] = [(int(i), float(v)) for i, v in (pair.split(":") for pair in m[1].split())]
        elif m := re.match(r"greedy_60 (.*)", line):
            found["greedy"] = m[1][1:-1]
        elif m := re.match(r"greedy_ids (.*)", line):
            found["greedy_ids"] = json.loads(m[1])
    assert set(found) == {*ALWAYS, *SLOW, "top5", "greedy", "greedy_ids"}
    return found


@pytest.fixture(scope="module")
def f16_model():
    return program.shared("demo-model/tales-moe-f16.gguf")


def need(text):
    if text in SLOW and not os.environ.get(SLOW_SWITCH):
        pytest.skip(f"slow: set {SLOW_SWITCH}=1 to run it")
    return program.shared(f"corpus/{text}.valid.txt")


@pytest.mark.parametrize("text", ALWAYS + SLOW)
def test_the_first_tokens_of_a_text_are_those_of_the_reference(reference, f16_model, text):
    path = program.shared(f"corpus/{text}.valid.txt")
    ids = [int(i) for i in program.run("tokenize", "-m", f16_model, "-f", path, "--ids").out.split(",")]
    assert ids[:12] == reference[text]["first_ids"]
    assert len(ids) == reference[text]["tokens"]


@pytest.mark.parametrize("text", ALWAYS + SLOW)
def test_f16_perplexity_is_that_of_the_reference(reference, f16_model, text):
    path = need(text)
    said = program.run_json("perplexity", "-m", f16_model, "-f", path, "--ctx", 256)
    assert said["nll_per_token"] == pytest.approx(reference[text]["nll"], abs=F16_BUDGET)
    assert said["perplexity"] == pytest.approx(np.exp(said["nll_per_token"]), rel=1e-4)


@pytest.mark.parametrize("text", ALWAYS + SLOW)
def test_the_committed_model_stays_near_the_f16_file(reference, text):
    path = need(text)
    said = program.run_json("perplexity", "-m", program.DEMO, "-f", path, "--ctx", 256)
    assert said["nll_per_token"] == pytest.approx(reference[text]["nll"], abs=QUANTISED_BUDGET)


def test_f16_top_five_logits_are_those_of_the_reference(reference, f16_model, tmp_path):
    out = tmp_path / "logits.npy"
    program.run("logits", "-m", f16_model, "-p", PROMPT, "--kv", "f32", "--out", out)
    row = np.load(out)[-1]
    best = np.argsort(-row, kind="stable")[:5]
    assert list(best) == [i for i, _ in reference["top5"]]
    np.testing.assert_allclose(row[best], [v for _, v in reference["top5"]], atol=LOGIT_BUDGET, rtol=0)


def test_f16_greedy_text_is_that_of_the_reference(reference, f16_model):
    said = program.run("run", "-m", f16_model, "-p", PROMPT, "-n", 60, "--temp", 0)
    assert PROMPT + said.out.removeprefix(PROMPT).rstrip("\n") == reference["greedy"]


def test_f16_logits_choose_the_greedy_tokens(reference, f16_model, tmp_path):
    """Every greedy token is the likeliest one, all sixty in one prefill."""
    ids, out = reference["greedy_ids"], tmp_path / "logits.npy"
    program.run("logits", "-m", f16_model, "--tokens", ",".join(map(str, ids)), "--out", out)
    rows = np.load(out)
    assert list(rows[len(ids) - 61:-1].argmax(axis=1)) == ids[-60:]
