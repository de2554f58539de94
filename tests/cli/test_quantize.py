"""The quantised file against an encoder that shares no code with the program's."""
import os

import numpy as np
import pytest

from support import gguf_file, program

FAMILIES = ("qwen3moe", "qwen2moe", "olmoe", "mixtral")
# Half a step, and what the largest element loses when the F16 scale is rounded down: 127 steps of 2^-11 each.
Q8_0_LARGEST_ERROR = 0.5 + 127 / 2048
MAY_CHANGE = {"general.file_type", "general.quantization_version", "general.quantized_by"}


@pytest.fixture(params=FAMILIES)
def original(request):
    return program.GOLDEN / f"{request.param}.gguf"


def matrices(file):
    return {name: t for name, t in file.tensors.items() if gguf_file.is_converted(name, t)}


def test_f16_rounds_to_nearest_even(original, tmp_path):
    out = tmp_path / "out.gguf"
    program.run("quantize", original, out, "F16")
    written, expected = gguf_file.read(out), gguf_file.with_type(gguf_file.read(original), gguf_file.F16)
    assert written.tensors == expected.tensors


def test_q8_0_is_at_least_as_near_as_a_plain_encoder(original, tmp_path):
    out = tmp_path / "out.gguf"
    program.run("quantize", original, out, "Q8_0")
    exact, written = gguf_file.read(original), gguf_file.read(out)
    assert list(written.tensors) == list(exact.tensors)
    compared = 0
    for name, source in exact.tensors.items():
        have = written.tensors[name]
        assert have.ne == source.ne
        if not gguf_file.is_converted(name, source):
            assert have == source, name
        elif source.ne[0] % 32 == 0:
            compared += 1
            assert have.type == gguf_file.Q8_0
            x = np.frombuffer(source.data, "<f4").astype(np.float64)
            steps, error = gguf_file.q8_0_scales(have.data), np.abs(gguf_file.decode_q8_0(have.data) - x)
            assert (error.reshape(-1, 32) <= steps[:, None] * Q8_0_LARGEST_ERROR).all(), name
            plain = np.abs(gguf_file.decode_q8_0(gguf_file.encode_q8_0(x)) - x)
            assert np.square(error).sum() <= np.square(plain).sum() * (1 + 1e-6), name
    assert compared > 0


def test_rows_of_no_whole_block_take_a_type_that_fits(tmp_path):
    """qwen2moe has rows of 24 and 48."""
    out = tmp_path / "out.gguf"
    program.run("quantize", program.GOLDEN / "qwen2moe.gguf", out, "Q8_0")
    odd = [t for t in matrices(gguf_file.read(out)).values() if t.ne[0] % 32 != 0]
    assert odd and {t.type for t in odd} <= {gguf_file.F32, gguf_file.F16, gguf_file.BF16}


def test_it_keeps_the_metadata(original, tmp_path):
    out = tmp_path / "out.gguf"
    program.run("quantize", original, out, "Q8_0")
    before, after = gguf_file.read(original).metadata, gguf_file.read(out).metadata
    assert {key for key in before if before[key] != after.get(key)} <= MAY_CHANGE
    assert set(after) - set(before) <= MAY_CHANGE


def test_a_quantised_file_can_be_quantised_again(original, tmp_path):
    once, twice, again = (tmp_path / f"{n}.gguf" for n in ("once", "twice", "again"))
    program.run("quantize", original, once, "Q8_0")
    program.run("quantize", once, twice, "F32")
    program.run("quantize", twice, again, "Q8_0")
    assert gguf_file.read(again).tensors == gguf_file.read(once).tensors


def test_a_quantised_model_runs_as_the_derived_one(tmp_path):
    """F16 has one right answer, so both files give the same logits."""
    original, ours, theirs = program.GOLDEN / "olmoe.gguf", tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    program.run("quantize", original, theirs, "F16")
    gguf_file.write(gguf_file.with_type(gguf_file.read(original), gguf_file.F16), ours)
    said = [program.run_json("logits", "-m", path, "--tokens", "1,2,3,250,7")["logits_hash"] for path in (ours, theirs)]
    assert said[0] == said[1]


def test_an_unknown_type_is_bad_usage_and_leaves_nothing(tmp_path):
    out = tmp_path / "out.gguf"
    ended = program.run("quantize", program.GOLDEN / "olmoe.gguf", out, "Q9_9", code=None)
    assert ended.code in (1, 2) and "Q9_9" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_its_own_input_is_not_overwritten(tmp_path):
    model, link = tmp_path / "model.gguf", tmp_path / "link.gguf"
    model.write_bytes((program.GOLDEN / "olmoe.gguf").read_bytes())
    link.symlink_to(model)
    for source, target in ((model, model), (model, link), (link, model)):
        ended = program.run("quantize", source, target, "Q8_0", code=1)
        assert "the output would replace the file it is made from" in ended.err
    assert model.read_bytes() == (program.GOLDEN / "olmoe.gguf").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.gguf", "model.gguf"]


def test_a_pipe_is_not_replaced_by_a_model(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = program.run("quantize", program.GOLDEN / "olmoe.gguf", pipe, "Q8_0", code=1)
    assert "expected a regular file or a free name to write to, found a device, pipe or socket" in ended.err
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]
