"""Maximum likelihood on text: the trainer against torch, and the recipe through the command line."""

import copy
import json
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

import advrl
from advrl.agents import LikelihoodTrainer, fit
from advrl.cli import main
from advrl.nn import GRUPolicy, LSTMPolicy

WHO, DOES = ("a man", "a dog", "two cats", "the old woman", "one bird"), ("sees", "likes", "has", "paints")
WHAT = ("red hats", "a boat", "music", "rain", "a chair")
LINES = [f"{who} {does} {what}" for who in WHO for does in DOES for what in WHAT]
SMALL = ["--width", "16", "--batch-size", "16", "--dropout", "0", "--lr", "0.02", "--ema", "0.9", "--device", "cpu",
         "--picture-every", "20", "--log-every", "10", "--checkpoint-every", "20"]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "text"
    assert (
        main(["train", "text", "--corpus", str(corpus), "--steps", "60", "--out", str(folder), "--quiet", *SMALL]) == 0
    )
    return folder


def test_a_step_is_that_of_cross_entropy(device):
    torch.manual_seed(0)
    policy = GRUPolicy(5, 6, 8, eos=True).to(device)
    x = policy.sample(32)
    twin = copy.deepcopy(policy)
    told = LikelihoodTrainer(policy, lr=1e-2, max_norm=1e9).step(x)
    loss = cross_entropy(twin.logits(x).flatten(0, 1), x.flatten(), ignore_index=6)
    optimiser = torch.optim.Adam(twin.parameters(), lr=1e-2)
    loss.backward()
    optimiser.step()
    torch.testing.assert_close(told["nll"], loss.detach())
    for mine, theirs in zip(policy.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


def test_it_learns_the_probabilities_of_a_known_source():
    """Three coins with their own bias: the likelihood comes down to the entropy, and no further."""
    torch.manual_seed(0)
    probs = torch.tensor([0.9, 0.5, 0.2])
    data = (torch.rand(4000, 3) < probs).long()
    policy = LSTMPolicy(2, 3, 8)
    fit(LikelihoodTrainer(policy, lr=2e-2), data, 150, batch_size=256, progress=False)
    entropy = -(probs * probs.log() + (1 - probs) * (1 - probs).log()).mean()
    fresh = (torch.rand(20_000, 3) < probs).long()
    assert abs(-policy.log_probs(fresh).mean().item() - entropy.item()) < 0.01


def test_a_run_leaves_text_and_a_vocabulary_and_is_judged(run, capsys):
    report = json.loads((run / "evaluation.json").read_text())
    generated, real = report["rows"]["generated"], report["rows"]["real"]
    assert generated["nll"]["mean"] < math.log(20) / 2 and "nll" not in real
    assert 0 < generated["BLEU-2"]["mean"] <= 1 and 0 < real["self-BLEU-2"]["mean"] <= 1
    assert (run / "samples" / "step-000060.txt").read_text().count("\n") == 20
    assert (run / "vocabulary.json").exists()
    assert main(["evaluate", str(run), "--splits", "2", "--device", "cpu"]) == 0
    assert "self-BLEU-5" in capsys.readouterr().out


def test_a_run_writes_lines(run, capsys, tmp_path):
    assert main(["sample", str(run), "-n", "5", "--prompt", "a man", "--seed", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.startswith("a man") for line in lines)
    assert (
        main(["sample", str(run), "-n", "5", "--prompt", "a man", "--seed", "3", "--out", str(tmp_path / "x.txt")]) == 0
    )
    assert (tmp_path / "x.txt").read_text().splitlines() == lines
    loaded = advrl.load(run, device="cpu")
    assert loaded.sample(7).shape == (7, loaded.policy.length)
    most = loaded.policy.length
    with pytest.raises(ValueError, match=f"the prompt has {most} tokens, and a line has at most {most}"):
        loaded.config.lines(loaded, 1, prompt=" ".join(["man"] * most))
    cold = loaded.config.lines(loaded, 50, temperature=0.01)
    assert len(set(cold)) < len(set(loaded.config.lines(loaded, 50))) and set(cold) <= set(LINES)


def test_a_prompt_changes_nothing_behind_it():
    """The law of what follows is the policy's own: here, of the last of three tokens, by its log-probabilities."""
    torch.manual_seed(1)
    policy = GRUPolicy(3, 3, 8)
    begun = torch.tensor([[2, 0]])
    drawn = policy.continued(begun.expand(20_000, 2))
    assert (drawn[:, :2] == begun).all()
    whole = torch.cat([begun.expand(3, 2), torch.arange(3)[:, None]], 1)
    exact = policy.log_probs(whole)[:, 2].exp().detach()
    found = torch.bincount(drawn[:, 2], minlength=3) / len(drawn)
    assert ((found - exact).abs() < 5 * (exact * (1 - exact) / len(drawn)).sqrt()).all()
    torch.manual_seed(2)
    drawn = policy.continued(begun[:, :0].expand(50, 0), 0.7)
    torch.manual_seed(2)
    assert torch.equal(drawn, policy.sample(50, temperature=0.7))


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    data = torch.randint(5, (64, 6), generator=torch.Generator().manual_seed(0))
    weights = []
    for stops in ((10,), (4, 10)):
        for stop in stops:
            torch.manual_seed(0)
            trainer = LikelihoodTrainer(GRUPolicy(5, 6, 8, dropout=0.5), ema=0.9)  # dropout draws on the way
            fit(trainer, data, stop, batch_size=16, out=tmp_path / str(len(stops)), resume=stop == 10 != stops[0],
                progress=False)  # fmt: skip
        weights.append([*trainer.generator.parameters(), *trainer.average.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    with pytest.raises(ValueError, match="the state has parts"):
        LikelihoodTrainer(GRUPolicy(5, 6, 8)).load_state_dict(trainer.state_dict())


def test_a_run_goes_on_by_the_command(corpus, tmp_path):
    folder = tmp_path / "half"
    arguments = ["train", "text", "--corpus", str(corpus), "--out", str(folder), "--quiet", *SMALL]
    assert main([*arguments, "--steps", "20"]) == 0
    assert main(["train", "text", "--resume", str(folder), "--steps", "40", "--quiet"]) == 0
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 40


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--corpus is missing: give a file with a sentence a line"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--corpus", "CORPUS", "--batch-size", "500"], "--batch-size of at most"),
        (["--corpus", "CORPUS", "--tokeniser", "wrod"], "did you mean 'word'"),
        (["--corpus", "CORPUS", "--dropout", "2"], "dropout"),
    ],
)
def test_bad_input_is_one_sentence(arguments, sentence, corpus, capsys, tmp_path):
    given = [str(corpus) if word == "CORPUS" else word for word in arguments]
    assert main(["train", "text", *given, "--out", str(tmp_path / "never"), "--device", "cpu"]) == 2
    assert sentence in capsys.readouterr().err


def test_what_is_not_text_takes_no_prompt(run, capsys):
    assert main(["sample", str(run), "--prompt", "a zebra"]) == 2
    assert "zebra" in capsys.readouterr().err
