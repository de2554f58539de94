"""The quantised file against an encoder that shares no code with the program's."""
import pytest

from support import gguf_file, program

FAMILIES = ("qwen3moe", "qwen2moe", "olmoe", "mixtral")


@pytest.mark.parametrize("name,kind", (("F16", gguf_file.F16), ("Q8_0", gguf_file.Q8_0)))
@pytest.mark.parametrize("family", FAMILIES)
def test_it_writes_the_bytes_of_an_independent_encoder(tmp_path, family, name, kind):
    original, out = program.GOLDEN / f"{family}.gguf", tmp_path / "out.gguf"
    program.run("quantize", original, out, name)
    written, expected = gguf_file.read(out), gguf_file.with_type(gguf_file.read(original), kind)
    assert set(written.tensors) == set(expected.tensors)
    compared = 0
    for tensor, want in expected.tensors.items():
        have = written.tensors[tensor]
        assert have.ne == want.ne
        # A row that is no whole number of blocks: which finer type it takes is the program's choice.
        if kind == gguf_file.F16 or want.ne[0] % 32 == 0:
            assert (have.type, have.data) == (want.type, want.data), tensor
            compared += want.type == kind
    assert compared > 0


def test_it_keeps_the_metadata(tmp_path):
    original, out = program.GOLDEN / "qwen3moe.gguf", tmp_path / "out.gguf"
    program.run("quantize", original, out, "Q8_0")
    before, after = gguf_file.read(original).metadata, gguf_file.read(out).metadata
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed <= {"general.file_type", "general.quantization_version"}
    assert set(after) - set(before) <= {"general.file_type", "general.quantization_version"}
