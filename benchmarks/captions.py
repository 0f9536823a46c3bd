"""What real captions, and two bad generators of them, score by the metrics of text: the reference rows of a table.

    python benchmarks/captions.py --train image_coco_train.txt --test image_coco_test.txt

Texygen's protocol: the mean over sentences of sentence BLEU-2 to 5, smoothed, and self-BLEU, tokeniser ``word``; all
sentences, and the first 500 as in its quick mode. The bad generators repeat 50 training lines, and shuffle the words of
the training file. One JSON line a row.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from advrl.data import make_corpus, read_lines
from advrl.metrics import duplicates, ngram_diversity, novelty, self_bleu, sentence_bleu


def shuffled(like: Tensor, train: Tensor, vocab: int) -> Tensor:
    """Sentences as long as those of ``like``, of words drawn alone from the training file."""
    words = train[train < vocab]
    drawn = words[torch.randint(len(words), like.shape)]
    return torch.where(like < vocab, drawn, like)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    corpus = make_corpus(read_lines(options.train), test=read_lines(options.test), validation_share=0.0)
    train, test, vocab = corpus.train, corpus.test, len(corpus.vocabulary)
    print(json.dumps(corpus.statistics.as_dict()))
    rows = [
        ("training file", train, "test file", test, train),
        ("test file", test, "training file", train, train),
        ("training file", train, "500 of the test file", test[:500], train),
        ("50 lines repeated", train[torch.randint(50, (len(train),))], "test file", test, train),
        ("shuffled words", shuffled(test, train, vocab), "training file", train, train),
    ]
    for name, ids, against, references, known in rows:
        figures = {
            "bleu": sentence_bleu(ids, references, vocab).mean(0)[1:],
            "self_bleu": self_bleu(ids, vocab).mean(0)[1:],
            "self_bleu_of_500": self_bleu(ids[:500], vocab).mean(0)[1:],
            "entropy": ngram_diversity(ids, vocab)["entropy"],
            "distinct": ngram_diversity(ids, vocab)["distinct"],
            "duplicates": duplicates(ids, vocab),
            "novel": novelty(ids, known, vocab)["sequences"],
        }
        told = {key: [round(v, 4) for v in value.flatten().tolist()] for key, value in figures.items()}
        print(json.dumps({"text": name, "sentences": len(ids), "references": against, **told}), flush=True)


if __name__ == "__main__":
    main()
