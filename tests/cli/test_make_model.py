"""tools/make_model.py: the same arguments give the same bytes, and the program runs them."""
import hashlib
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from support import gguf_file, program

TOOLS = program.ROOT / "tools"
sys.path.insert(0, str(TOOLS))
import make_model  # noqa: E402
import random_blocks  # noqa: E402

TINY_SHA256 = "43348e1bc685dfe8932a40711d1ff4f290af5941e681d5a7a6305e045a504001"
STRUCTURED_SHA256 = "db5d9d529853699e46b69629e06353474637417e7f0a6fb00a0483c0d0972bef"
STRUCTURED = ("--layers", 2, "--width", 1024, "--heads", 8, "--head-dim", 128, "--skew", 0.5, "--locality", 0.6)
TOKENS = "300,17,404,9,31,404,255,598,120,77,5,6"


def make(path, *arguments):
    assert make_model.main([str(path), *map(str, arguments)]) == 0
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def logits(model, *options):
    return program.run_json("logits", "-m", model, "--tokens", TOKENS, "--ctx", 32, *options)


def check_runs(model, folder):
    """Finite logits of a sane size that differ between positions, the same in prefill and token by token."""
    said = logits(model, "--out", folder / "logits.npy")
    rows = np.load(folder / "logits.npy")
    assert np.isfinite(rows).all()
    deviation = rows.std(axis=1)
    assert (deviation > 1.5).all() and (deviation < 6).all(), deviation
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).mean() < 0.7
    assert logits(model, "--decode")["logits_hash"] == said["logits_hash"]


def test_tiny_has_the_pinned_bytes(tmp_path):
    assert sha256(make(tmp_path / "tiny.gguf", "--preset", "tiny")) == TINY_SHA256


def test_a_structured_model_has_the_pinned_bytes(tmp_path):
    assert sha256(make(tmp_path / "tiny.gguf", "--preset", "tiny", *STRUCTURED)) == STRUCTURED_SHA256


def test_another_seed_gives_other_weights(tmp_path):
    one, two = (gguf_file.read(make(tmp_path / f"{seed}.gguf", "--seed", seed)) for seed in (1, 2))
    assert all(one.tensors[name].data != two.tensors[name].data for name in one.tensors)


def test_no_two_tensors_share_their_bytes(tmp_path):
    tensors = gguf_file.read(make(tmp_path / "tiny.gguf")).tensors
    assert len({tensor.data[:256] for tensor in tensors.values()}) == len(tensors)


@pytest.mark.parametrize("kind", random_blocks.TYPES)
def test_chunks_do_not_show(kind):
    zones = (random_blocks.Zone(slice(0, 256), 3.0, np.arange(24) % 3 == 1),)
    matrix = random_blocks.Matrix((7,), random_blocks.TYPES[kind], 24, 512, 0.1, 3, zones)
    whole = b"".join(chunk.tobytes() for chunk in matrix.chunks())
    assert len(whole) == matrix.bytes
    assert b"".join(chunk.tobytes() for chunk in matrix.chunks(chunk_bytes=1)) == whole


@pytest.mark.parametrize("kind", random_blocks.TYPES)
def test_every_type_has_the_wished_deviation_and_runs(tmp_path, kind):
    model = make(tmp_path / "model.gguf", "--type", kind, "--head-type", kind)
    check_runs(model, tmp_path)
    program.run("quantize", model, tmp_path / "f32.gguf", "F32")
    n_checked = 0
    for name, tensor in gguf_file.read(tmp_path / "f32.gguf").tensors.items():
        if len(tensor.ne) < 2 or not name.endswith(("attn_q.weight", "gate_exps.weight", "up_exps.weight")):
            continue
        weights = np.frombuffer(tensor.data, "<f4") * math.sqrt(tensor.ne[0])
        assert abs(weights.std() - 1) < 0.03, name  # 256 blocks, whose headers alone differ by a fifth
        assert abs(weights.mean()) < 0.02, name
        n_checked += 1
    assert n_checked == 6


@pytest.mark.parametrize("kind", ("F16", "Q8_0", "Q4_K", "MXFP4"))
@pytest.mark.parametrize("arch", make_model.ARCHITECTURES)
def test_every_architecture_runs(tmp_path, arch, kind):
    check_runs(make(tmp_path / "model.gguf", "--arch", arch, "--type", kind, "--layers", 5), tmp_path)


@pytest.mark.parametrize("arch", make_model.ARCHITECTURES)
def test_structured_routing_runs(tmp_path, arch):
    check_runs(make(tmp_path / "model.gguf", "--arch", arch, "--type", "Q8_0", *STRUCTURED), tmp_path)


def hit_rate(model):
    """Of a least-recently-used cache that holds a tenth of the experts, token by token, over tokens without any order."""
    tokens = ",".join(map(str, np.random.Generator(np.random.SFC64(3)).integers(0, 590, 120)))
    command = ("logits", "-m", model, "--tokens", tokens, "--ctx", 128, "--decode", "--prefetch", "none")
    experts = sum(len(tensor.data) for name, tensor in gguf_file.read(model).tensors.items() if "_exps" in name)
    return program.run_json(*command, "--mem", program.floor_bytes(*command) + experts // 10)["hit_rate"]


def test_skew_and_locality_show_in_the_hit_rate(tmp_path):
    shape = ("--layers", 4, "--width", 1024, "--heads", 8, "--head-dim", 128, "--experts", 64, "--experts-used", 4,
             "--expert-width", 64, "--type", "Q8_0")
    plain, local, skewed = (hit_rate(make(tmp_path / f"{number}.gguf", *shape, "--skew", skew, "--locality", locality))
                            for number, (skew, locality) in enumerate(((0, 0), (0, 0.9), (1, 0))))
    assert plain < 0.2
    assert local > plain + 0.2
    assert skewed > plain + 0.2


def test_a_split_set_gives_the_same_logits(tmp_path):
    whole = make(tmp_path / "model.gguf")
    make(tmp_path / "model.gguf", "--split", 3)
    parts = [tmp_path / f"model-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in (whole, *parts))
    joined = {name: tensor for part in parts for name, tensor in gguf_file.read(part).tensors.items()}
    assert joined == gguf_file.read(whole).tensors
    assert all(gguf_file.read(part).tensors for part in parts)
    assert logits(parts[0])["logits_hash"] == logits(whole)["logits_hash"]


def test_text_survives_the_vocabulary(tmp_path):
    model = make(tmp_path / "model.gguf", "--vocabulary", 30000)
    text = "The quick brown fox, 42 of them: naïve 狐狸\n\tand so on"
    ids = program.run("tokenize", "-m", model, "-p", text + "<|im_end|>", "--ids").out.strip().split(",")
    assert len(ids) < len(text.encode()) * 0.7
    assert ids[-1] == "29999"
    assert program.run("tokenize", "-m", model, "--decode", ",".join(ids)).out.rstrip("\n") == text
    program.run("run", "-m", model, "-p", text, "-n", 4, "--ctx", 128)


def test_a_killed_run_leaves_no_model_and_the_next_one_succeeds(tmp_path):
    out = tmp_path / "model.gguf"
    command = (sys.executable, TOOLS / "make_model.py", out, "--layers", "40")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not list(tmp_path.glob("*.partial")):
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL, "the run ended before it was killed"
    assert not out.exists()
    make(out, "--layers", 40)
    assert os.listdir(tmp_path) == [out.name]
    assert sha256(out) == sha256(make(tmp_path / "again.gguf", "--layers", 40))


@pytest.mark.parametrize("wrong", (("--vocabulary", 100), ("--heads", 3), ("--experts-used", 9), ("--locality", 0.5),
                                   ("--layers", 0), ("--head-dim", 33)))
def test_what_no_model_can_have_is_refused(tmp_path, wrong):
    with pytest.raises(SystemExit) as ended:
        make_model.main([str(tmp_path / "model.gguf"), *map(str, wrong)])
    assert ended.value.code == 2
    assert os.listdir(tmp_path) == []


def test_rows_that_are_no_whole_blocks_are_refused(tmp_path, capsys):
    assert make_model.main([str(tmp_path / "model.gguf"), "--expert-width", "96"]) == 1
    assert "whole blocks of 256" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
