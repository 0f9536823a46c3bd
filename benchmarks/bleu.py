"""BLEU-1 to BLEU-5 and self-BLEU of many sentences against NLTK in the same process, one thread.

    python benchmarks/bleu.py --text test.txt --references train.txt
    python benchmarks/bleu.py --sentences 2000

Ours scores every sentence; NLTK, which counts all references anew for each, is timed on a few of them, and its time is
given per sentence. Before anything is timed, the two must agree on those sentences to 1e-12. Without files, sentences
are drawn from a Zipf law. Rounds are interleaved; one JSON line for each metric: medians, and the ratio of the rounds
with its range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_sentence_bleu
from torch import Tensor

from advrl.data import make_corpus, read_lines
from advrl.metrics import self_bleu, sentence_bleu

N = 5
WEIGHTS = [tuple([1 / k] * k) for k in range(1, N + 1)]
SMOOTH = SmoothingFunction().method1


def seconds(function: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    function()
    return time.process_time() - start


def zipf(sentences: int) -> list[str]:
    """Lines of ids as long as captions are, rank r as likely as 1 / r."""
    torch.manual_seed(0)
    weights = 1 / torch.arange(1.0, 5001)
    lengths = torch.randint(7, 17, (sentences,)).tolist()
    return [" ".join(map(str, torch.multinomial(weights, n, replacement=True).tolist())) for n in lengths]


def by_nltk(rows: list[list[str]], references: list[list[str]]) -> Tensor:
    return torch.tensor(
        [nltk_sentence_bleu(references, row, WEIGHTS, smoothing_function=SMOOTH) for row in rows], dtype=torch.float64
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="sentences to score, one a line")
    parser.add_argument("--references", type=Path, help="sentences to score them by")
    parser.add_argument("--sentences", type=int, default=10_000, help="at most so many of each")
    parser.add_argument("--nltk", type=int, default=2, help="sentences that NLTK scores in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = options.sentences
    text = read_lines(options.text)[:count] if options.text else zipf(count)
    references = read_lines(options.references)[:count] if options.references else zipf(2 * count)[count:]
    corpus = make_corpus(references, test=text, validation_share=0.0)
    ids, others, vocab = corpus.test, corpus.train, len(corpus.vocabulary)
    rows, known = corpus.vocabulary.decode_tokens(ids), corpus.vocabulary.decode_tokens(others)
    few = range(options.nltk)
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "bleu": (lambda: sentence_bleu(ids, others, vocab, N), lambda: by_nltk([rows[i] for i in few], known)),
        "self-bleu": (
            lambda: self_bleu(ids, vocab, N),
            lambda: torch.cat([by_nltk([rows[i]], rows[:i] + rows[i + 1 :]) for i in few]),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        gap = float((ours()[: len(few)] - theirs()).abs().max())
        assert gap < 1e-12, f"{name}: ours and NLTK's differ by {gap}"
        rounds = [(seconds(ours) / len(ids), seconds(theirs) / len(few)) for _ in range(options.rounds)]
        ratios = sorted(slow / fast for fast, slow in rounds)
        print(
            json.dumps(
                {
                    "bench": name, "sentences": len(ids), "references": len(others) if name == "bleu" else len(ids) - 1,
                    "ours_s": round(statistics.median(fast for fast, _ in rounds) * len(ids), 3),
                    "nltk_s_per_sentence": round(statistics.median(slow for _, slow in rounds), 3),
                    "speedup": round(statistics.median(ratios)), "low": round(ratios[0]), "high": round(ratios[-1]),
                    "gap": gap, "threads": torch.get_num_threads(), "torch": torch.__version__,
                }
            ),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
