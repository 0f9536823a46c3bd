"""Anyone's lines of text as a corpus: tokens, ids, splits without leaks, and what is refused."""

import json
import random

import pytest
import torch
from nltk.tokenize import NLTKWordTokenizer

from advrl.data import TOKENISERS, UNKNOWN, Batches, Vocabulary, make_corpus, read_lines

LINES = ["a man rides a horse.", "a man's dog", "two dogs don't bark!", "a man rides a horse.", "", "one (small) cat"]


def numbered(count: int) -> list[str]:
    return [f"line {i % 60} of {i % 7}" for i in range(count)]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ("a man's dog doesn't bark, does it?",
         ["a", "man", "'s", "dog", "does", "n't", "bark", ",", "does", "it", "?"]),
        ("they're 1,000.5 well-known (old) cats...", ["they", "'re", "1,000.5", "well-known", "(", "old", ")", "cats",
                                                      "..."]),
        ("a u.s. flag at 10:30.", ["a", "u.s.", "flag", "at", "10:30", "."]),
        ("naïve Ünicode 猫", ["naïve", "Ünicode", "猫"]),
        ("the <unk> & “quotes”", ["the", "<unk>", "&", "“", "quotes", "”"]),
        ("   ", []),
    ],
)  # fmt: skip
def test_words(line, tokens):
    assert TOKENISERS["word"].split(line) == tokens


def test_words_are_those_of_the_penn_treebank_on_plain_sentences():
    lines = ["a man's dog sits, and looks at the u-turn.", "there are 3 cats; 2 don't move!", "it's (not) an ox"]
    for line in lines:
        assert TOKENISERS["word"].split(line) == NLTKWordTokenizer().tokenize(line)


@pytest.mark.parametrize("name", TOKENISERS)
def test_joined_tokens_are_split_alike(name):
    tokeniser = TOKENISERS[name]
    for line in LINES:
        assert tokeniser.split(tokeniser.join(tokeniser.split(line))) == tokeniser.split(line)
        if name == "character" or line != "one (small) cat":
            assert tokeniser.join(tokeniser.split(line)) == line


def test_a_vocabulary_is_ordered_by_frequency_and_then_by_letters():
    vocabulary = Vocabulary.build([["b", "a", "c"], ["c", "a"], ["c"]])
    assert vocabulary.tokens == ("c", "a", "b")
    assert (len(vocabulary), vocabulary.eos, vocabulary.padding, vocabulary.unknown) == (3, 3, 4, None)
    assert Vocabulary.build([["b", "a", "c"], ["c", "a"]], min_count=2).tokens == ("a", "c", UNKNOWN)
    assert Vocabulary.build([["b", "a", "c"], ["c", "a"], ["c"]], max_size=2).tokens == ("c", UNKNOWN)
    assert Vocabulary.build([["<unk>", "a", "<unk>", "b"]], max_size=2).tokens == (UNKNOWN, "a")


def test_encoding_ends_and_pads():
    vocabulary = Vocabulary(("a", "b"), "space")
    assert vocabulary.encode(["a b", "b", ""]).tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert vocabulary.encode(["a b a", "b"], length=2).tolist() == [[0, 1], [1, 2]]  # no end that is not known
    assert vocabulary.encode(["a b", "b"], length=2, too_long="refuse").tolist() == [[0, 1], [1, 2]]
    assert vocabulary.decode(torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 3], [0, 0, 0]])) == ["a b", "b", "", "a a a"]


@pytest.mark.parametrize("name", TOKENISERS)
def test_decoding_inverts_encoding(name):
    lines = [line for line in LINES if line]
    vocabulary = Vocabulary.build(map(TOKENISERS[name].split, lines), name)
    ids = vocabulary.encode(lines)
    assert torch.equal(vocabulary.encode(vocabulary.decode(ids)), ids)
    assert vocabulary.decode_tokens(ids) == [vocabulary.split(line) for line in lines]


def test_a_saved_vocabulary_is_the_same(tmp_path):
    vocabulary = Vocabulary(("naïve", "<unk>", "猫", '"'), "word")
    again = Vocabulary.load(vocabulary.save(tmp_path / "run" / "vocabulary.json"))
    assert again == vocabulary
    assert again.unknown == 1
    again.require(vocabulary)
    assert again.encode(["猫 sat"]).tolist() == [[2, 1, 4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "does not say"),
        ('{"format": "advrl vocabulary 1", "tokens": 3, "tokeniser": "word"}', "damaged"),
        ('{"format": "advrl vocabulary 1", "tokens": ["a", "a"], "tokeniser": "word"}', "occurs twice"),
        ('{"format": "advrl vocabulary 1", "tokens": ["a"], "tokeniser": "wrod"}', "did you mean 'word'"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(content, message, tmp_path):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Vocabulary(("a", "c")), "token 1 is 'b', there 'c'"),
        (Vocabulary(("a", "b", "c")), "2 tokens against 3"),
        (Vocabulary(("a", "b"), "character"), "tokeniser 'character', this is 'word'"),
    ],
)
def test_a_vocabulary_that_does_not_match_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(("a", "b")).require(other)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[0, 4]], ValueError, "id 4 is out of range.*tokens 0 to 1, end 2 and padding 3"),
        ([[0, -1]], ValueError, "id -1 is out of range"),
        ([0, 1], ValueError, "must have shape"),
        ([[0.0, 1.0]], TypeError, "must be integers"),
    ],
)
def test_ids_that_are_none_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(("a", "b")).decode(torch.tensor(ids))


def test_unknown_tokens_are_refused_or_replaced():
    with pytest.raises(ValueError, match=r"line 2 has 'zebra'.*no <unk>"):
        Vocabulary(("a", "b")).encode(["a b", "a zebra"])
    assert Vocabulary(("a", UNKNOWN)).encode(["a zebra"]).tolist() == [[0, 1, 2]]


def test_a_corpus_keeps_every_line_in_one_part():
    lines = numbered(2000)
    corpus = make_corpus(lines, seed=3)
    parts = [set(corpus.vocabulary.decode(part)) for part in (corpus.train, corpus.validation, corpus.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    distinct = len(set(lines))
    assert corpus.statistics.distinct == distinct == sum(map(len, parts)) == 420
    assert [len(part) for part in parts] == [336, 42, 42]
    everything = [line for part in (corpus.train, corpus.validation, corpus.test)
                  for line in corpus.vocabulary.decode(part)]  # fmt: skip
    assert sorted(everything) == sorted(lines)  # copies stay: what is frequent stays frequent
    assert next(iter(Batches(corpus.train, 5))).shape == (5, corpus.length)


def test_the_split_depends_on_the_seed_alone():
    lines = numbered(500)
    state = torch.get_rng_state()
    one, same, other = make_corpus(lines, seed=1), make_corpus(lines, seed=1), make_corpus(lines, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.train, same.train)
    assert not torch.equal(one.test, other.test)
    shuffled = random.Random(0).sample(lines, len(lines))
    assert set(make_corpus(shuffled, seed=1).vocabulary.decode(same.test)) == set(same.vocabulary.decode(same.test))


def test_lines_that_truncation_makes_equal_do_not_leak():
    lines = [f"{first} {second} {i}" for first in "abcd" for second in "efgh" for i in range(9)]
    corpus = make_corpus(lines, length=2)
    parts = [set(map(tuple, part.tolist())) for part in (corpus.train, corpus.validation, corpus.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 16
    assert corpus.statistics.truncated == len(lines)


def test_statistics_count():
    corpus = make_corpus(LINES, "space", validation_share=0.0, test_share=0.0, min_count=2)
    told = corpus.statistics
    assert (told.lines, told.blank, told.distinct, told.tokens, told.types) == (5, 1, 4, 20, 13)
    assert (told.shortest, told.longest, told.mean, told.median, told.truncated) == (3, 5, 4.0, 4.0, 0)
    frequent = {"a": 5, "man": 2, "rides": 2, "horse.": 2}
    assert set(corpus.vocabulary.tokens) == {*frequent, UNKNOWN}
    assert told.unknown == 20 - sum(frequent.values())
    assert len(corpus.validation) == len(corpus.test) == 0
    assert "5 lines (4 distinct, 1 blank ones left out)" in str(told)
    assert json.loads(json.dumps(told.as_dict()))["tokens"] == 20


def test_a_test_file_of_one_s_own_is_kept_and_compared():
    corpus = make_corpus(LINES, test=["two dogs don't bark!", "a blue whale"], validation_share=0.0)
    assert corpus.vocabulary.decode(corpus.test) == ["two dogs don't bark!", "a blue whale"]
    assert len(corpus.train) == 5
    assert corpus.statistics.shared == 1


def test_ids_are_found_out():
    corpus = make_corpus(["3 1 2", "0 07", "5"], validation_share=0.0, test_share=0.0)
    assert corpus.train.tolist() == [[3, 1, 2, 8], [0, 7, 8, 9], [5, 8, 9, 9]]
    assert len(corpus.vocabulary) == 8
    assert make_corpus(["1 2", "3 x"], test_share=0.0, validation_share=0.0).vocabulary.tokeniser == "word"
    assert len(make_corpus(["3 1 2", "0 4"], vocab=5000, test_share=0.0).vocabulary) == 5000
    words = make_corpus(["3 1 2", "0 4"], "word", test_share=0.0)
    assert len(words.vocabulary) == 5


def test_a_trained_model_s_vocabulary_is_used():
    vocabulary = Vocabulary.build([["a", "man"], ["a"]], min_count=2)
    corpus = make_corpus(["a man", "a dog"], vocabulary=vocabulary, validation_share=0.0, test_share=0.0)
    assert corpus.vocabulary is vocabulary
    assert corpus.train.tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        ([], {}, "the corpus is empty"),
        (["", "  "], {}, "the corpus is empty"),
        (["a b"], {"test": [""]}, "the test corpus is empty"),
        (["a b"], {}, "leave nothing to train on"),
        (["a b", "a b c d"], {"length": 3, "too_long": "refuse", "test_share": 0.0}, "line 2 has 4 tokens.*length=3"),
        (["a b", "b"], {"too_long": "cut"}, "unknown too_long 'cut'"),
        (["1 2", "3"], {"vocab": 3}, "id 3 is out of range.*0 to 2"),
        (["1 2", "three"], {"tokeniser": "ids"}, "line 2 has 'three', which is no token id"),
        (["1 99999999999"], {}, "are these lines of ids"),
        (["a b", "c"], {"vocab": 3}, "vocab=3 is for lines of ids"),
        (["a b", "c"], {"tokeniser": "words"}, "did you mean 'word'"),
        (
            ["a b", "c"],
            {"vocabulary": Vocabulary(("a",), "space"), "tokeniser": "word"},
            "tokeniser 'space', not 'word",
        ),
        (["a b", "c"], {"vocabulary": Vocabulary(("a", "b"))}, "'c', which the vocabulary does not know"),
        (["a b", "c"], {"min_count": 5}, "no token occurs 5 times"),
        (["a b", "c"], {"test_share": 1.5}, "test_share must be"),
    ],
)
def test_a_corpus_that_cannot_be_made_says_why(lines, options, message):
    with pytest.raises(ValueError, match=message):
        make_corpus(lines, **options)


def test_one_text_is_no_list_of_lines():
    with pytest.raises(TypeError, match="must be a list of texts"):
        make_corpus("a man rides")
    with pytest.raises(TypeError, match="must be a list of texts"):
        Vocabulary(("a",)).encode("a")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ("a cat\na café".encode("latin1"), "line 2 has the byte 0xe9"),
        ("a cat".encode("utf-16-le"), "null bytes"),
    ],
)
def test_a_file_that_is_no_text_is_refused(data, message, tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_lines(path)


def test_lines_of_any_system_are_read(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_bytes("a cat \r\n\r\n  naïve dog\n".encode("utf-8-sig"))
    assert read_lines(path) == ["a cat", "", "naïve dog"]


def test_real_captions(data_dir):
    path = data_dir / "image_coco_train.txt"
    if not path.is_file():
        pytest.skip(f"no {path.name} in the folder of real data")
    lines = read_lines(path)
    corpus = make_corpus(lines, validation_share=0.0, test=read_lines(data_dir / "image_coco_test.txt"))
    assert corpus.train.shape == (10_000, corpus.length)
    assert corpus.statistics.shared == 15
    assert corpus.vocabulary.decode(corpus.train[:40]) == lines[:40]
    treebank = NLTKWordTokenizer()
    assert sum(corpus.vocabulary.split(line) == treebank.tokenize(line) for line in lines[:1000]) >= 990
