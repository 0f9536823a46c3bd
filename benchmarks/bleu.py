"""BLEU-1 to BLEU-5 and self-BLEU of many sentences against NLTK in the same process, one thread.

    python benchmarks/bleu.py --text test.txt --references train.txt
    python benchmarks/bleu.py --sentences 2000

Ours scores every sentence; NLTK, which counts all references anew for each, is timed on a few of them, and its time is
given per sentence. Most of that ratio is the repeated counting, so BLEU has a second alternative: Counters with the
references' greatest counts taken once. Before anything is timed, all must agree to 1e-12. Without files, sentences
are drawn from a Zipf law. Rounds are interleaved; one JSON line for each metric: medians, and the ratios of the rounds
with their range.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_sentence_bleu
from timing import seconds
from torch import Tensor

from advrl.data import make_corpus, read_lines
from advrl.metrics import self_bleu, sentence_bleu

N = 5
WEIGHTS = [tuple([1 / k] * k) for k in range(1, N + 1)]
SMOOTH = SmoothingFunction().method1


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


def by_counters(rows: list[list[str]], references: list[list[str]]) -> Tensor:
    """Smoothed sentence BLEU with Counters, each reference counted once."""
    greatest: list[Counter[tuple[str, ...]]] = []
    for k in range(1, N + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for row in references:
            for gram, times in Counter(zip(*[row[i:] for i in range(k)], strict=False)).items():
                most[gram] = max(most[gram], times)
        greatest.append(most)
    lengths = sorted({len(row) for row in references})
    scores = []
    for row in rows:
        closest = min(lengths, key=lambda length: (abs(length - len(row)), length))
        logs, told = [], []
        for k, most in enumerate(greatest, 1):
            own = Counter(zip(*[row[i:] for i in range(k)], strict=False))
            matched = sum(min(times, most[gram]) for gram, times in own.items())
            logs.append(math.log((matched or 0.1) / max(len(row) - k + 1, 1)))
            told.append(min(1.0, math.exp(1 - closest / max(len(row), 1))) * math.exp(sum(logs) / k))
            told[-1] *= logs[0] > math.log(0.1 / max(len(row), 1))
        scores.append(told)
    return torch.tensor(scores, dtype=torch.float64)


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
    gap = float((pairs["bleu"][0]() - by_counters(rows, known)).abs().max())
    assert gap < 1e-12, f"ours and the Counters' differ by {gap}"
    for name, (ours, theirs) in pairs.items():
        gap = float((ours()[: len(few)] - theirs()).abs().max())
        assert gap < 1e-12, f"{name}: ours and NLTK's differ by {gap}"
        once = (lambda: by_counters(rows, known)) if name == "bleu" else None
        times = [
            (seconds(ours), seconds(theirs) / len(few), math.nan if once is None else seconds(once))
            for _ in range(options.rounds)
        ]
        ours_s, nltk_s, counters_s = (statistics.median(column) for column in zip(*times, strict=True))
        ratios = sorted(slow * len(ids) / fast for fast, slow, _ in times)
        line = {
            "bench": name, "sentences": len(ids), "references": len(others) if name == "bleu" else len(ids) - 1,
            "ours_s": round(ours_s, 3), "nltk_s_per_sentence": round(nltk_s, 3),
            "speedup": round(statistics.median(ratios)), "low": round(ratios[0]), "high": round(ratios[-1]),
            "gap": gap, "threads": torch.get_num_threads(), "torch": torch.__version__,
        }  # fmt: skip
        if once is not None:
            ratios = sorted(slow / fast for fast, _, slow in times)
            line |= {"counters_s": round(counters_s, 2), "to_counters": round(statistics.median(ratios), 1),
                     "to_counters_low": round(ratios[0], 1), "to_counters_high": round(ratios[-1], 1)}  # fmt: skip
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
