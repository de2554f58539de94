#!/usr/bin/env python3
"""Train the small vocabularies of tests/golden/text and write the ids that the reference libraries give.

    tools/make_vocabularies.py BIBLE_TEXT OUTPUT_FOLDER

Needs the packages tokenizers, sentencepiece and gguf. Writes

    bible-bpe.gguf              one byte-level vocabulary, used with every pre-tokenizer
    bible-spm.gguf              a SentencePiece vocabulary whose pieces never span words
    bible-spm-phrases.gguf      one whose pieces may
    texts.txt                   the texts, one a line; \\xNN is a byte, \\\\ a backslash
    <vocabulary or pre-tokenizer>.ids    the ids of each text, a line each, in the same order

The byte-level vocabulary is trained on lines without any cutting, so it has tokens that span words, digits, line ends
and scripts: a pre-tokenizer that cuts at a wrong place shows in the ids.
"""
import json
import pathlib
import random
import sys
import tempfile

import gguf
import sentencepiece
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

BPE_ENTRIES = 1800
SPM_ENTRIES = 1200
PHRASE_ENTRIES = 800
BIBLE_BYTES = 150_000
RANDOM_TEXTS = 20

ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def cl100k(digits):
    return ENGLISH + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL


def o200k(capitals, small, after_marks):
    start = r"[^\r\n\p{L}\p{N}]?"
    return (start + capitals + "*" + small + "+" + ENGLISH + "?|" + start + capitals + "+" + small + "*" + ENGLISH
            + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+" + after_marks + "*" + TAIL)


CAPITALS = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
SMALL = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
CASED_LETTERS = (
    r"A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7d"
    "ᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ"
    "ﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃")


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


# As the published tokenizer.json files have them; the byte mapping comes last in each.
PRE_TOKENIZERS = {
    "gpt-2": [split(GPT2)],
    "llama-bpe": [split(cl100k(r"\p{N}{1,3}"))],
    "glm4": [split(cl100k(r"\p{N}{1,3}"))],
    "qwen2": [split(cl100k(r"\p{N}"))],
    "qwen35": [split(ENGLISH + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL)],
    "gpt-4o": [split(o200k(f"[{CAPITALS}]", f"[{SMALL}]", r"[\r\n/]"))],
    "kimi-k2": [split(r"[\p{Han}]+|" + o200k(f"[{CAPITALS}&&[^\\p{{Han}}]]", f"[{SMALL}&&[^\\p{{Han}}]]", r"[\r\n]"))],
    "deepseek-llm": [split(r"[\r\n]"), split(r"\s?[" + CASED_LETTERS + "]+"), split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
                     split(r"\s+$"), split("[一-龥ࠀ-一가-\ud7ff]+"), pre_tokenizers.Digits(True)],
    "deepseek-coder": [split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-\ud7ff]+"),
                       pre_tokenizers.Digits(True)],
    "deepseek-v3": [split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"),
                    split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                          r"| ?[\p{P}\p{S}]+[\r\n]*" + TAIL)],
    "falcon": [pre_tokenizers.Punctuation("contiguous"), split(GPT2), split("[0-9][0-9][0-9]")],
    "starcoder": [pre_tokenizers.Digits(True), split(GPT2)],
}
# Written differently, cutting alike: checked, not stored.
SAME_AS = {
    "bailingmoe2": ("qwen2", [split(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
                                    r"|\s*[\r\n]|\s+(?!\S)|\s+")]),
}
TAKES_WHOLE_PIECES = {"llama-bpe", "kimi-k2"}

TEXTS = [
    "", " ", "  ", "   ", "\t", "\n", "\n\n", "\n\n\n", "\t\n", "\r\n", " \n", "\n ", "  \n\n  ", "a \n", "a  \n  b",
    "In the beginning God created the heaven and the earth.", "And God said, Let there be light: and there was light.",
    "Hello world", " Hello world", "Hello  World!!", "HELLO hello HeLLo hELLO McDonald iPhone XMLHttpRequest",
    "I've said they're here; he'll, she'd, I'm, it's, don't.", "I'VE THEY'RE HE'LL SHE'D I'M IT'S DON'T 'Tis 'sup",
    "it'\u017f \u017f 'S's'\u00df d'\u00e9t\u00e9 l\u2019homme", "we''ve '''ll 's 't's",
    "0 1 12 123 1234 12345 123456 1234567 12345678 123456789", "3.14 -2.5e-10 1,000,000 0x1F 50% $9.99 #1",
    "a1b22c333d4444 x86_64 v1.2.3", "\u0663\u0664\u0665 \u00bd\u00b2 \u2167 \u2460\u2461 \uff11\uff12\uff13 \u0967\u0968",
    "for (int i = 0; i < n; i++) {\n\t\tsum += a[i] * 2;\n\t}\n\n\treturn sum;\n}\n",
    "def f(x, y=None):\n    \"\"\"Doc.\"\"\"\n    return {'a': [x, 2.5], \"b\": y}  # done\n",
    "<html><body class=\"x\">&amp;</body></html>\r\n\r\n// comment\r\n", "path/to/file.c:12: error: `x' /* y */ //\n/\n",
    "!!!??? ... --- === *** ((([[[{{{ }}}]]])))", "a.b,c;d:e!f?g (h) [i] {j} <k> \"l\" 'm' `n`", "+=<=>=|$^~`", " .a _b -c",
    "\u6211\u60f3\u5728apple\u5de5\u4f5c1314151\u5929\uff5e", "\u592a\u521d\uff0c\u795e\u521b\u9020\u5929\u5730\u3002 \u5730\u662f\u7a7a\u865a\u6df7\u6c8c\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u30ab\u30bf\u30ab\u30ca\u3068\u6f22\u5b57 \uff76\uff85", "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8\uc785\ub2c8\ub2e4. 123\uac1c",
    "\u0641\u064a \u0627\u0644\u0628\u062f\u0621 \u062e\u0644\u0642 \u0627\u0644\u0644\u0647\u060c \u0627\u0644\u0633\u0645\u0627\u0648\u0627\u062a \u0661\u0662\u0663 \u0648\u064e\u0627\u0644\u0623\u064e\u0631\u0652\u0636\u064e", "\u05d1\u05e8\u05d0\u05e9\u05d9\u05ea \u05d1\u05b8\u05bc\u05e8\u05b8\u05d0",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u1780\u17b6\u1793\u17cb\u178f\u17c2",
    "\u043d\u0435\u0449\u043e \u043d\u0430 \u0411\u044a\u043b\u0433\u0430\u0440\u0441\u043a\u0438 \u041f\u0440\u0438\u0432\u0435\u0442", "\u0395\u03bd \u03b1\u03c1\u03c7\u03ae \u1f26\u03bd \u1f41 \u03bb\u03cc\u03b3\u03bf\u03c2 \u1fbc",
    "C\u1eeda Vi\u1ec7t F\u00fchrer na\u00efve \u00c5ngstr\u00f6m \u0132 \u01c4 \ufb01 e\u0301e\u0323 \u02bc\u02b0 \u2c80",
    "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f \u2705 \U0001f999\U0001f999 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea",
    "\u20ac100 \u00a35 \u00a9\u00ae\u2122 \u221e\u2260\u2264 \u2192\u2190 \u2500\u2502 \u00ab\u00bb \u201e\u201c \u2026",
    "a\u00a0b\u00a0\u00a0c\u3000d \u3000e\u2003f", "a\u0085b\u2028c\u2029d\u200be\u180e f\u180e\u180eg\ufeffh", "a\x0bb\x0cc\x1cd\x7fe\x01\x02f",
    "      six\t\ttabs \t mixed   \n   end   ", "x = 1;      // six\n\n\n\n  y", "\u2581a \u2581 b\u2581\u2581", "<s> </s> <unk> <0x41> [INST]",
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n\U0001f680 (normal) 3 33 333 3333 ------======= ''''''```````\"\"\"\"......!!!!!! I've "
    "been 'told he's there, 'RE you sure? We'Ve a'lL",
]

# Assigned in every Unicode version that the libraries may carry.
BLOCKS = [(0x20, 0x7E), (0x20, 0x7E), (0x09, 0x0D), (0x30, 0x39), (0xA0, 0xFF), (0x100, 0x24F), (0x391, 0x3A1),
          (0x3B1, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x660, 0x669), (0x905, 0x939), (0x93E, 0x94D),
          (0x1E00, 0x1EFF), (0x2010, 0x2027), (0x2190, 0x21FF), (0x2460, 0x2473), (0x3041, 0x3096), (0x30A1, 0x30FA),
          (0x4E00, 0x4EFF), (0xAC00, 0xAC60), (0xFF01, 0xFF5E), (0x10400, 0x1044F), (0x1F600, 0x1F64F), (0x20000, 0x200FF)]


def random_text(generator):
    """A few runs, each of one block, with spaces between some of them."""
    pieces = []
    for _ in range(generator.randint(4, 10)):
        first, last = generator.choice(BLOCKS)
        pieces.append("".join(chr(generator.randint(first, last)) for _ in range(generator.randint(1, 6))))
        pieces.append(generator.choice(["", "", " ", "  ", "\n"]))
    return "".join(pieces)


def training_lines(bible):
    generator = random.Random(1)
    lines = bible[:BIBLE_BYTES].splitlines()
    lines += [text for text in TEXTS if text] * 3
    # Few characters, so that pairs across kinds of text are frequent enough to become tokens.
    for _ in range(1500):
        lines.append("".join(generator.choice([" ", "  ", "\n", "\t", "\r\n", "1", "23", "a", "Bc", ".", "...", "'s", "'S",
                                               "\u00e9", "\u4e00", "\u4e2d\u6587", "\u3042", "\u0627\u0644", "e\u0301", "\u00a0",
                                               "\u00bd", "/", "$", "\U0001f600"]) for _ in range(12)))
    return lines


def train_bpe(lines):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=BPE_ENTRIES - 1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False, max_token_length=12)
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], without_some_words([tuple(merge) for merge in model["merges"]])


def without_some_words(merges):
    """Leave out every second merge that makes a word of TEXTS and that no other merge builds on: the token of such a
    word comes only from taking a piece whole."""
    cut = pre_tokenizers.Sequence([*PRE_TOKENIZERS["llama-bpe"],
                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    words = {word for text in TEXTS for word, _ in cut.pre_tokenize_str(text)}
    parts = {part for merge in merges for part in merge}
    ends = [merge for merge in merges if "".join(merge) in words and "".join(merge) not in parts]
    left_out = set(ends[::2])
    return [merge for merge in merges if merge not in left_out]


def bpe_with(vocabulary, merges, steps, takes_whole_pieces):
    """The trained vocabulary behind one pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=takes_whole_pieces))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    return tokenizer


def write_bpe(path, vocabulary, merges):
    tokens = [*sorted(vocabulary, key=vocabulary.get), "<|endoftext|>"]
    writer = gguf.GGUFWriter(path, "test")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * (len(tokens) - 1) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(len(tokens) - 1)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def train_spm(lines, entries, spans_words):
    with tempfile.TemporaryDirectory() as folder:
        prefix = str(pathlib.Path(folder) / "model")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=prefix, model_type="bpe", vocab_size=entries, byte_fallback=True,
            character_coverage=0.999, normalization_rule_name="identity", remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True, split_by_whitespace=not spans_words, num_threads=1, minloglevel=2)
        return sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")


def write_spm(path, processor):
    def token_type(index):
        if processor.is_byte(index):
            return gguf.TokenType.BYTE
        if processor.is_unknown(index):
            return gguf.TokenType.UNKNOWN
        return gguf.TokenType.CONTROL if processor.is_control(index) else gguf.TokenType.NORMAL

    indices = range(processor.vocab_size())
    writer = gguf.GGUFWriter(path, "test")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([processor.id_to_piece(index) for index in indices])
    writer.add_token_scores([processor.get_score(index) for index in indices])
    writer.add_token_types([token_type(index) for index in indices])
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    finish(writer)


def escape(text):
    return "".join(character if character != "\\" and character != " " and character.isprintable()
                   else " " if character == " " and 0 < index < len(text) - 1
                   else "\\\\" if character == "\\"
                   else "".join(f"\\x{byte:02x}" for byte in character.encode())
                   for index, character in enumerate(text))


def write_ids(path, rows):
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))


def main():
    bible = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(2)
    texts = TEXTS + [random_text(generator) for _ in range(RANDOM_TEXTS)]
    (folder / "texts.txt").write_text("".join(escape(text) + "\n" for text in texts), encoding="utf-8")
    lines = training_lines(bible)
    vocabulary, merges = train_bpe(lines)
    write_bpe(folder / "bible-bpe.gguf", vocabulary, merges)
    ids = {}
    for name, steps in PRE_TOKENIZERS.items():
        tokenizer = bpe_with(vocabulary, merges, steps, name in TAKES_WHOLE_PIECES)
        ids[name] = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        write_ids(folder / f"{name}.ids", ids[name])
    if ids["llama-bpe"] == ids["glm4"]:
        sys.exit("no text shows whether pieces are taken whole")
    for name, (same, steps) in SAME_AS.items():
        tokenizer = bpe_with(vocabulary, merges, steps, False)
        if [tokenizer.encode(text, add_special_tokens=False).ids for text in texts] != ids[same]:
            sys.exit(f"{name} does not cut like {same}")
    for name, entries, spans_words in (("bible-spm", SPM_ENTRIES, False), ("bible-spm-phrases", PHRASE_ENTRIES, True)):
        processor = train_spm(lines, entries, spans_words)
        write_spm(folder / f"{name}.gguf", processor)
        write_ids(folder / f"{name}.ids", [processor.encode(text) for text in texts])


if __name__ == "__main__":
    main()
