"""The command line: help, mistakes, where results go, and what each command prints."""
import json
import os
import pty
import re
import subprocess

import numpy as np
import pytest

from support import gguf_file, program

COMMANDS = ("run", "bench", "inspect", "tokenize", "logits", "perplexity", "quantize")
PROMPT = "Once upon a time there was a king who"
GREEDY = ("--temp", 0, "--ctx", 256)
STATISTICS = {"model", "prompt_tokens", "generated_tokens", "prefill_tok_s", "decode_tok_s", "ttft_ms", "mem_budget_bytes",
              "mem_peak_bytes", "mem_by_tag", "expert_requests", "expert_hits", "expert_misses", "hit_rate", "bytes_read",
              "read_gb_s", "io_wait_ms", "prefetch_issued", "prefetch_used", "prefetch_late",
              "prefetch_useless", "logits_hash", "isa", "io_backend", "threads"}
TAGS = {"weights", "experts", "kv", "activations", "io", "text", "other"}
TEXTS = ("Hello world", "  two  blanks ", "line\nbreak\ttab", "Grüße, 世界 🎉", "nul\u0001\u001b[31m", "'quoted' \"twice\" \\")


def start(*arguments, variables=None, **options):
    """The program with variables of its own, to be looked at as it ends."""
    environment = program.environment() | (variables or {})
    return subprocess.run([program.binary(), *map(str, arguments)], env=environment, check=False,
                          encoding="utf-8", **({"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE} | options))


def sentences(ended):
    return [line for line in ended.err.splitlines() if line.startswith("sluice: ") and "warning" not in line]


def in_terminal(*arguments):
    """What the program writes to a terminal that is its standard output."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([program.binary(), *map(str, arguments)], env=program.environment(), stdin=subprocess.DEVNULL,
                          stdout=theirs, stderr=subprocess.DEVNULL) as child:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert child.returncode == 0
    return written


# ---- Help and mistakes ------------------------------------------------------------------------------------------------

def test_alone_it_says_what_it_is_and_what_to_type():
    ended = program.run()
    assert ended.out.startswith("Sluice runs Mixture-of-Experts language models that are bigger than memory.")
    assert "sluice run -m " in ended.out and "sluice inspect -m " in ended.out
    assert ended.out == program.run("--help").out == program.run("-h").out
    assert ended.err == ""


def test_the_overview_lists_the_commands_that_there_are():
    listed = re.findall(r"^  (\w+) +\w", program.run().out.split("Commands:")[1], re.MULTILINE)
    assert tuple(listed) == COMMANDS


def test_the_version_is_that_of_the_build():
    stated = re.search(r"version: '([\d.]+)'", (program.ROOT / "meson.build").read_text())[1]
    assert program.run("--version").out == f"sluice {stated}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command):
    ended = program.run(command, "--help")
    assert ended.out.startswith(f"sluice {command}: ") and f"usage: sluice {command} " in ended.out
    assert "--json" in ended.out and "example:" in ended.out
    assert ended.err == ""
    assert program.run(command, "--nonsense", "-h").out == ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_shows_the_help_as_it_is(command):
    text = (program.ROOT / "docs" / "cli.md").read_text()
    assert f"```\n{program.run(command, '--help').out}```\n" in text, "run tools/update_cli_docs.py"


@pytest.mark.parametrize("arguments,said", [
    (("chat",), "the commands are run, bench, inspect"),
    (("inspekt",), "did you mean inspect?"),
    (("--mem", "3G", "run"), "write the command first"),
    (("run",), "--model FILE is missing"),
    (("run", "-m", "x", "-p", "x", "--theads", "3"), "did you mean --threads?"),
    (("run", "-m", "x", "-p", "x", "-t", "0"), "from 1 to 1024"),
    (("run", "-m", "x", "-p", "x", "--mem", "much"), "expected a size"),
    (("run", "-m", "x", "-p", "x", "-f", "y"), "exclude each other"),
    (("run", "-m", "x", "-p", "x", "-p", "y"), "given twice"),
    (("run", "-m", "x", "two words"), "unexpected argument"),
    (("inspect", "-m", "x", "--temp", "1"), "an option of run, not of inspect"),
    (("logits", "-m", "x"), "give -p TEXT or --tokens IDS"),
    (("quantize", "a", "b"), "TYPE is missing"),
])
def test_bad_usage_is_exit_status_2_with_a_hint(arguments, said):
    ended = program.run(*arguments, code=2)
    assert said in ended.err
    assert ended.out == ""


def test_a_variable_that_sets_no_option_is_a_mistake():
    ended = start("inspect", "-m", program.DEMO, variables={"SLUICE_THRADS": "1"}, stdout=subprocess.PIPE)
    assert ended.returncode == 2
    assert "did you mean SLUICE_THREADS?" in ended.stderr


def test_a_variable_sets_its_option(tmp_path):
    stats = tmp_path / "stats.json"
    ended = start("run", "-p", "x", "-n", 1, "--stats", stats, stdout=subprocess.PIPE,
                  variables={"SLUICE_MODEL": str(program.DEMO), "SLUICE_THREADS": "1", "SLUICE_MEM": "64M"})
    assert ended.returncode == 0, ended.stderr
    said = json.loads(stats.read_text())
    assert (said["threads"], said["mem_budget_bytes"]) == (1, 64 << 20)


@pytest.mark.parametrize("command", ["run", "bench", "inspect", "tokenize", "logits", "perplexity", "quantize"])
@pytest.mark.parametrize("kind", ["missing", "directory", "text", "empty"])
def test_what_is_no_model_is_one_sentence(tmp_path, command, kind):
    path = tmp_path / "model.gguf"
    if kind == "directory":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "This is no model, but a letter of some length.\n" * 40)
    text = tmp_path / "text.txt"
    text.write_text(PROMPT)
    rest = {"run": ("-p", "x"), "tokenize": ("-p", "x"), "logits": ("-p", "x"), "perplexity": ("-f", text)}
    arguments = (path, tmp_path / "out.gguf", "Q8_0") if command == "quantize" else ("-m", path, *rest.get(command, ()))
    ended = program.run(command, *arguments, code=1)
    assert ended.out == ""
    assert len(sentences(ended)) == 1 and str(path) in ended.err
    assert not (tmp_path / "out.gguf").exists()


# ---- Where results go ---------------------------------------------------------------------------------------------------

def test_standard_output_carries_the_text_and_nothing_else():
    ended = program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 20, *GREEDY)
    assert ended.out and "sluice" not in ended.out
    assert "experts:" in ended.err and "memory: peak" in ended.err


def test_the_prompt_may_come_from_three_places(tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text(PROMPT)
    command = ("run", "-m", program.DEMO, "-n", 12, *GREEDY)
    told = program.run(*command, "-p", PROMPT).out
    assert program.run(*command, "-f", path).out == told
    assert program.run(*command, text=PROMPT).out == told
    assert program.run(*command, "-f", "-", text=PROMPT).out == told


def test_a_long_line_of_input_is_read_whole(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("king " * 100000)
    said = program.run("tokenize", "-m", program.DEMO, "-f", path, "--ids").out
    assert len(said.split(",")) >= 100000


def test_no_prompt_at_all_is_a_mistake_on_a_terminal():
    ours, theirs = pty.openpty()
    ended = start("run", "-m", program.DEMO, stdin=theirs, stdout=subprocess.PIPE)
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 2
    assert "there is no text: give -p TEXT or -f FILE" in ended.stderr


def test_an_empty_prompt_is_one_sentence():
    ended = program.run("run", "-m", program.DEMO, text="", code=1)
    assert "the text is empty" in ended.err


def test_what_is_refused_before_it_ran_has_no_statistics():
    for prompt in ("", "word " * 300):
        ended = program.run("run", "-m", program.DEMO, "-p", prompt, *GREEDY, code=1)
        assert len(ended.err.splitlines()) == 1, ended.err


def test_a_full_disk_behind_standard_output_is_a_failure():
    for arguments in (("--help",), ("inspect", "-m", program.DEMO), ("tokenize", "-m", program.DEMO, "-p", "x", "--ids"),
                      ("run", "-m", program.DEMO, "-p", PROMPT, "-n", 4)):
        with open("/dev/full", "w", encoding="utf-8") as full:
            ended = start(*arguments, stdout=full)
        assert ended.returncode == 1, arguments
        assert "standard output: cannot write: No space left on device" in ended.stderr


def test_a_closed_pipe_ends_the_run_with_a_sentence():
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        ended = start("run", "-m", program.DEMO, "-p", PROMPT, "--ignore-eos", "--ctx", 256, stdout=pipe)
    assert ended.returncode == 1
    assert "standard output: the reader closed the pipe" in ended.stderr


def test_a_closed_standard_output_is_not_taken_by_a_result_file(tmp_path):
    out = tmp_path / "logits.npy"
    ended = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', program.binary(), "logits", "-m", str(program.DEMO), "-p", "x",
                            "--out", str(out)], env=program.environment(), stdin=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, check=False)
    assert ended.returncode == 1
    assert np.load(out).dtype == np.float32


def test_result_files_are_tried_before_the_work(tmp_path):
    for option in ("--stats", "--out"):
        ended = program.run("logits", "-m", tmp_path / "no.gguf", "-p", "x", option, tmp_path / "no" / "file", code=1)
        assert str(tmp_path / "no" / "file") in ended.err
    ended = program.run("run", "-m", program.DEMO, "-p", "x", "--stats", tmp_path, code=1)
    assert "it is a directory" in ended.err


def test_a_device_named_for_results_is_written_in_place():
    ended = program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 2, "--stats", "/dev/stderr")
    assert json.loads(ended.err[ended.err.index("{"):])["generated_tokens"] == 2
    program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 2, "--stats", "/dev/full", code=1)


def test_a_link_named_for_results_stays_a_link(tmp_path):
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 2, "--stats", link)
    assert link.is_symlink() and json.loads(target.read_text())["generated_tokens"] == 2


def test_standard_error_in_a_file_is_added_to(tmp_path):
    with open(tmp_path / "errors", "w", encoding="utf-8") as errors:
        ended = start("run", "-m", program.DEMO, "-p", PROMPT, "-n", 2, "--stats", "/dev/stderr", stdout=subprocess.DEVNULL,
                      stderr=errors)
    assert ended.returncode == 0 and os.path.islink("/dev/stderr")
    written = (tmp_path / "errors").read_text()
    assert "memory: peak" in written and '"generated_tokens": 2' in written


def test_a_failed_run_leaves_no_result_file(tmp_path):
    out = tmp_path / "logits.npy"
    program.run("logits", "-m", program.DEMO, "--tokens", "1,2,999999", "--out", out, code=1)
    assert list(tmp_path.iterdir()) == []


# ---- The statistics object ------------------------------------------------------------------------------------------------

def test_run_writes_the_statistics_object(tmp_path):
    stats = tmp_path / "stats.json"
    text = program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 16, *GREEDY, "--stats", stats).out
    said = json.loads(stats.read_text())
    assert set(said) == STATISTICS and set(said["mem_by_tag"]) == TAGS
    assert said["generated_tokens"] == 16 and said["prompt_tokens"] == 10
    assert said["expert_hits"] + said["expert_misses"] == said["expert_requests"] > 0
    assert said["hit_rate"] == pytest.approx(said["expert_hits"] / said["expert_requests"])
    assert re.fullmatch(r"[0-9a-f]{16}", said["logits_hash"])
    printed = json.loads(program.run("run", "-m", program.DEMO, "-p", PROMPT, "-n", 16, *GREEDY, "--json").out)
    assert set(printed) == STATISTICS | {"text"}
    assert printed["text"] == text and printed["logits_hash"] == said["logits_hash"]


def test_bench_adds_the_spread_of_each_figure():
    said = program.run_json("bench", "-m", program.DEMO, "-p", 24, "-n", 8, "-r", 3)
    assert STATISTICS <= set(said) and said["repetitions"] == 3
    assert (said["prompt_tokens"], said["generated_tokens"]) == (24, 8)
    spread = {key.removesuffix("_min") for key in said if key.endswith("_min")}
    assert {"prefill_tok_s", "decode_tok_s", "ttft_ms", "hit_rate", "bytes_read", "read_gb_s", "io_wait_ms"} <= spread
    for key in spread:
        assert said[f"{key}_min"] <= said[key] <= said[f"{key}_max"], key
    assert said["decode_tok_s"] > 0 and said["prefill_tok_s"] > 0


def test_bench_takes_its_prompt_from_a_text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(PROMPT * 4)
    command = ("bench", "-m", program.DEMO, "-f", path, "-n", 4, "-r", 1, "-p")
    random = program.run_json("bench", "-m", program.DEMO, "-n", 4, "-r", 1, "-p", 10)
    assert program.run_json(*command, 10)["logits_hash"] != random["logits_hash"]
    assert "fewer than the 200 of the prompt" in program.run(*command, 200, code=1).err
    assert "need a context of" in program.run(*command, 2000, code=1).err


# ---- tokenize -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", TEXTS)
def test_a_text_survives_the_way_to_ids_and_back(text):
    ids = program.run("tokenize", "-m", program.DEMO, "--ids", text=text).out.strip()
    assert re.fullmatch(r"\d+(,\d+)*", ids)
    assert program.run("tokenize", "-m", program.DEMO, "--decode", ids).out == text
    said = program.run_json("tokenize", "-m", program.DEMO, "-p", text)
    assert ",".join(map(str, said["tokens"])) == ids and said["text"] == text


def test_control_tokens_are_text_when_asked():
    special = "<|endoftext|>"
    as_token = program.run("tokenize", "-m", program.DEMO, "-p", special, "--ids").out.strip()
    as_text = program.run("tokenize", "-m", program.DEMO, "-p", special, "--ids", "--no-special").out.strip()
    assert "," not in as_token and "," in as_text
    assert program.run("tokenize", "-m", program.DEMO, "--decode", as_text).out == special


def test_the_listing_shows_ids_and_escaped_texts():
    lines = program.run("tokenize", "-m", program.DEMO, "-p", "king\n\u001b").out.splitlines()
    ids = program.run("tokenize", "-m", program.DEMO, "-p", "king\n\u001b", "--ids").out.strip().split(",")
    assert [line.split()[0] for line in lines] == ids
    assert "\\n" in "".join(lines) and "\\x1b" in "".join(lines)


def test_ids_outside_the_vocabulary_are_refused():
    assert "4096" in program.run("tokenize", "-m", program.DEMO, "--decode", "1,4096", code=1).err


def test_a_terminal_never_gets_control_characters():
    text = "red \u001b[31m \u009b\u0007 end\n"
    ids = program.run("tokenize", "-m", program.DEMO, "-p", text, "--ids").out.strip()
    written = in_terminal("tokenize", "-m", program.DEMO, "--decode", ids)
    assert b"\x1b" not in written and b"\x07" not in written and b"\xc2\x9b" not in written
    assert b"\\x1b[31m \\x9b\\x07 end\r\n" in written


# ---- inspect ------------------------------------------------------------------------------------------------------------

def test_inspect_shows_where_everything_lies():
    said = program.run_json("inspect", "-m", program.DEMO)
    file = gguf_file.read(program.DEMO)
    assert said["file_bytes"] == program.DEMO.stat().st_size
    assert said["architecture"] == "qwen3moe" and said["supported"] is True
    assert [tensor["name"] for tensor in said["tensors"]] == list(file.tensors)
    by_name = {tensor["name"]: tensor for tensor in said["tensors"]}
    for layer in said["experts"]:
        for matrix in ("gate", "up", "down"):
            tensor = by_name[f"blk.{layer['layer']}.ffn_{matrix}_exps.weight"]
            assert layer[matrix]["first_offset"] == tensor["offset"]
            assert layer[matrix]["stride"] * layer["n_experts"] == tensor["bytes"]
    assert {entry["key"] for entry in said["metadata"]} == set(file.metadata)
    data = program.DEMO.read_bytes()
    for name, tensor in file.tensors.items():
        assert data[by_name[name]["offset"]:][:by_name[name]["bytes"]] == tensor.data


def test_inspect_lists_the_same_for_people():
    listing = program.run("inspect", "-m", program.DEMO).out
    for text in ("qwen3moe: 4 layers", "smallest budget", "general.architecture", "blk.3.ffn_down_exps.weight", "layer 3:"):
        assert text in listing


def test_inspect_plans_for_the_options_given():
    small = program.run_json("inspect", "-m", program.DEMO, "--ctx", 64)["memory_plan"]
    large = program.run_json("inspect", "-m", program.DEMO, "--ctx", 64, "--kv", "f32", "--mem", "1G")["memory_plan"]
    assert large["kv_bytes"] > small["kv_bytes"] and large["budget_bytes"] == 1 << 30
    tight = program.run_json("inspect", "-m", program.DEMO, "--ctx", 64, "--mem", small["floor_bytes"] - 1)["memory_plan"]
    assert small["fits"] is True and tight["fits"] is False


def test_a_family_that_cannot_run_can_be_inspected(tmp_path):
    path = tmp_path / "other.gguf"
    gguf_file.write(gguf_file.with_key(gguf_file.read(program.DEMO), "general.architecture", 8, b"some\x1bother"), path)
    said = program.run_json("inspect", "-m", path)
    assert said["supported"] is False and said["unsupported"] and said["memory_plan"] is None
    listing = program.run("inspect", "-m", path).out
    assert "cannot be run" in listing and "\u001b" not in listing
    ended = program.run("run", "-m", path, "-p", "x", code=1)
    assert len(sentences(ended)) == 1 and "\u001b" not in ended.err


# ---- logits and perplexity ------------------------------------------------------------------------------------------------

def test_logits_are_written_for_every_position(tmp_path):
    out = tmp_path / "logits.npy"
    said = program.run("logits", "-m", program.DEMO, "-p", PROMPT, "--out", out).out
    ids = program.run("tokenize", "-m", program.DEMO, "-p", PROMPT, "--ids").out.strip()
    rows = np.load(out)
    assert rows.shape == (len(ids.split(",")), 4096) and rows.dtype == np.dtype("<f4") and np.isfinite(rows).all()
    printed = re.search(r"logits hash +([0-9a-f]{16})\n", said)[1]
    for options in (("--tokens", ids), ("-p", PROMPT, "--decode"), ("-p", PROMPT, "--chunk", 3)):
        other = program.run_json("logits", "-m", program.DEMO, *options, "--out", out)
        assert other["logits_hash"] == printed
        np.testing.assert_array_equal(np.load(out).view(np.uint32), rows.view(np.uint32))


def test_perplexity_is_what_the_logits_say(tmp_path):
    """Windows of 16 tokens, each from an empty context, the first token of each not predicted, the rest dropped."""
    text, out, window = tmp_path / "text.txt", tmp_path / "logits.npy", 16
    text.write_text(PROMPT + " had a daughter, and she was so beautiful that the sun itself was astonished whenever it shone "
                    "in her face. Close by the castle lay a great dark forest.")
    ids = list(map(int, program.run("tokenize", "-m", program.DEMO, "-f", text, "--ids", "--no-bos").out.split(",")))
    n_windows = len(ids) // window
    assert n_windows >= 2 and len(ids) % window != 0
    losses, predicted = [], []
    for start_at in range(0, n_windows * window, window):
        part = ids[start_at:start_at + window]
        program.run("logits", "-m", program.DEMO, "--tokens", ",".join(map(str, part)), "--out", out)
        rows = np.load(out).astype(np.float64)[:-1]
        top = rows.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(rows - top).sum(axis=1)) + top[:, 0]
        losses += list(log_sum - rows[np.arange(window - 1), part[1:]])
        predicted += part[1:]
    said = program.run_json("perplexity", "-m", program.DEMO, "-f", text, "--ctx", window)
    assert said["tokens"] == len(losses) and said["windows"] == n_windows
    assert said["nll_per_token"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert said["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-12)
    n_bytes = sum(len(program.run("tokenize", "-m", program.DEMO, "--decode", token).out.encode()) for token in predicted)
    assert said["bits_per_byte"] == pytest.approx(np.sum(losses) / np.log(2) / n_bytes, rel=1e-12)
    token_by_token = program.run_json("perplexity", "-m", program.DEMO, "-f", text, "--ctx", window, "--decode")
    assert token_by_token["nll_per_token"] == said["nll_per_token"]
    assert token_by_token["logits_hash"] == said["logits_hash"]


def test_a_text_shorter_than_a_window_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text(PROMPT)
    ended = program.run("perplexity", "-m", program.DEMO, "-f", path, "--ctx", 200, code=1)
    assert "a window takes 200" in ended.err


def test_the_graph_can_be_looked_at():
    listing = program.run("run", "-m", program.DEMO, "--dump-graph", 1, "--ctx", 64).out
    assert "matmul" in listing and "rms_norm" in listing
    program.run("run", "-m", program.DEMO, "--dump-graph", 1, "-p", "x", code=2)


def test_the_log_level_decides_what_is_said():
    quiet = program.run("run", "-m", program.DEMO, "-p", "x", "-n", 1, "--log-level", "error").err
    chatty = program.run("run", "-m", program.DEMO, "-p", "x", "-n", 1, "--log-level", "debug").err
    assert len(chatty.splitlines()) > len(quiet.splitlines())
