"""Finite games: equilibria, gaps, and learners within their theorems' bounds."""

import math

import pytest
import torch

from advrl.games import (
    duality_gap,
    equilibrium,
    exploitability,
    fictitious_play,
    hedge,
    matching_pennies,
    nash_gap,
    random_game,
    regret_matching,
    rock_paper_scissors,
)

KIND = {"dtype": torch.float64}
NAMED = {"pennies": matching_pennies, "rock-paper-scissors": rock_paper_scissors}


@pytest.mark.parametrize("name", NAMED)
def test_named_games_are_won_by_chance_alone(name):
    cost = NAMED[name](**KIND)
    x, y, value = equilibrium(cost)
    n = len(cost)
    for strategy in (x, y):
        torch.testing.assert_close(strategy, torch.full((n,), 1 / n, **KIND))
    assert abs(value) < 1e-12 and duality_gap(cost, x, y) < 1e-12
    assert cost.sum() == 0 and (n == 2 or torch.equal(cost, -cost.mT))
    pure = torch.eye(n, **KIND)
    assert duality_gap(cost, pure[0], pure[0]) == 2 and exploitability(cost, pure[0], pure[0]) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (2, 2), (5, 3), (8, 8), (3, 20)])
def test_equilibria_of_random_games_have_no_gap(shape):
    torch.manual_seed(0)
    for scale in (1e-3, 1.0, 1e3):
        cost = scale * random_game(*shape).double() + scale
        x, y, value = equilibrium(cost)
        assert x.shape == shape[:1] and y.shape == shape[1:]
        assert duality_gap(cost, x, y).abs() < 1e-9 * scale
        assert value == pytest.approx(float((cost.mT @ x).max()), abs=1e-9 * scale)
        for strategy in (x, y):
            assert strategy.min() >= 0 and strategy.sum() == pytest.approx(1)


def test_two_by_two_in_closed_form():
    """Without a saddle in pure actions, x_1 = (d - c) / (a - b - c + d) and the value is the determinant over that."""
    cost = torch.tensor([[3.0, -1.0], [-2.0, 1.0]], **KIND)
    x, y, value = equilibrium(cost)
    torch.testing.assert_close(x, torch.tensor([3 / 7, 4 / 7], **KIND))
    torch.testing.assert_close(y, torch.tensor([2 / 7, 5 / 7], **KIND))
    assert value == pytest.approx(1 / 7)


def test_a_constant_game_and_a_saddle():
    assert equilibrium(torch.full((2, 3), 5.0))[2] == pytest.approx(5)
    x, y, value = equilibrium(torch.tensor([[1.0, 2.0], [3.0, 4.0]], **KIND))
    assert (x.tolist(), y.tolist(), value) == ([1, 0], [0, 1], 2)


def test_gaps(device):
    torch.manual_seed(1)
    a, b = (random_game(3, 4, (2,), device=device) for _ in range(2))
    x, y = torch.rand(2, 3, device=device).softmax(-1), torch.rand(2, 4, device=device).softmax(-1)
    torch.testing.assert_close(nash_gap(a, -a, x, y), duality_gap(a, x, y))
    for k in range(2):  # one by one, by hand
        paid_x, paid_y = x[k] @ a[k] @ y[k], x[k] @ b[k] @ y[k]
        saved = paid_x - min(row @ y[k] for row in a[k]) + paid_y - min(x[k] @ column for column in b[k].mT)
        torch.testing.assert_close(nash_gap(a, b, x, y)[k], saved)
    dilemma = torch.tensor([[1.0, 3.0], [0.0, 2.0]], device=device)  # years in prison; row and column 1: to tell
    pure = torch.eye(2, device=device)
    assert nash_gap(dilemma, dilemma.mT, pure[1], pure[1]) == 0
    assert nash_gap(dilemma, dilemma.mT, pure[0], pure[0]) == 2


@pytest.mark.parametrize(
    ("name", "gaps"), [("pennies", [0.0440, 0.0140, 0.0045]), ("rock-paper-scissors", [0.0420, 0.0134, 0.0042])]
)
def test_fictitious_play_within_its_rate(name, gaps):
    play = fictitious_play(NAMED[name](**KIND), [10**3, 10**4, 10**5])
    assert [round(gap, 4) for gap in play.gap.tolist()] == gaps
    # With pennies, r = t gap only grows, by at most 2, when one player's count of heads passes that of its tails, and
    # such a quarter turn takes r steps: r^2 <= 4 t. The same holds of what is seen of rock, paper, scissors.
    assert (play.gap * torch.tensor(play.times, **KIND).sqrt() < 2).all()
    torch.testing.assert_close(play.x.sum(-1), torch.ones(3, **KIND))


def test_fictitious_play_batched_is_one_by_one():
    torch.manual_seed(2)
    games = random_game(3, 5, (2, 2)).double()
    together = fictitious_play(games, [50, 200])
    assert together.x.shape == (2, 2, 2, 3) and together.y.shape == (2, 2, 2, 5) and together.gap.shape == (2, 2, 2)
    for i in range(2):
        for j in range(2):
            owed, won = [0.0] * 3, [0.0] * 5
            counts = [0] * 3, [0] * 5
            for _ in range(200):
                a, b = owed.index(min(owed)), won.index(max(won))
                counts[0][a] += 1
                counts[1][b] += 1
                owed = [v + float(games[i, j, k, b]) for k, v in enumerate(owed)]
                won = [v + float(games[i, j, a, k]) for k, v in enumerate(won)]
            torch.testing.assert_close(together.x[1, i, j], torch.tensor(counts[0], **KIND) / 200)
            torch.testing.assert_close(together.y[1, i, j], torch.tensor(counts[1], **KIND) / 200)


def starts(count, n, m):
    torch.manual_seed(3)
    return torch.randn(count, n, **KIND).softmax(-1), torch.randn(count, m, **KIND).softmax(-1)


TIMES = [10, 100, 1000, 3000]


@pytest.mark.parametrize("seed", range(3))
def test_hedge_within_its_bound(seed, device):
    torch.manual_seed(seed)
    n, m = 3, 6
    games = random_game(n, m, (20,), device=device)
    play = hedge(games, TIMES)
    spread = games.amax((-2, -1)) - games.amin((-2, -1))
    eta = math.sqrt(8 * math.log(m) / TIMES[-1])
    for gap, t in zip(play.gap, TIMES, strict=True):
        bound = (math.log(n) + math.log(m)) / (eta * t) + eta / 4
        assert (gap <= bound * spread).all() and (gap >= -1e-6).all()


@pytest.mark.parametrize("plus", [False, True])
def test_regret_matching_within_its_bound(plus):
    torch.manual_seed(0)
    n, m = 3, 6
    games = random_game(n, m, (20,)).double()
    play = regret_matching(games, TIMES, plus)
    spread = games.amax((-2, -1)) - games.amin((-2, -1))
    for gap, t in zip(play.gap, TIMES, strict=True):
        assert (gap <= spread * (math.sqrt(n) + math.sqrt(m)) / math.sqrt(t)).all() and (gap >= -1e-12).all()


@pytest.mark.parametrize("name", NAMED)
def test_averages_converge_and_strategies_do_not(name):
    cost = NAMED[name](**KIND)
    n = len(cost)
    start = starts(10, n, n)
    games = cost.expand(10, n, n)
    for learner in (hedge, regret_matching):
        play = learner(games, [2999, 3000], start=start)
        assert play.gap[-1].max() < 0.1
        last = 3000 * play.x[1] - 2999 * play.x[0]  # what x did at step 3000
        assert duality_gap(games, last, last).max() > 0.5
        single = learner(cost, [100], start=(start[0][4], start[1][4])).x
        torch.testing.assert_close(learner(games, [100], start=start).x[:, 4], single)
    uniform = hedge(cost, [10]).x[0]
    torch.testing.assert_close(uniform, torch.full((n,), 1 / n, **KIND))


def test_wrong_use_says_so():
    whole = torch.tensor([[1, -1], [-1, 1]], device="cpu")
    for solve in (equilibrium, lambda a: fictitious_play(a, [2]), lambda a: regret_matching(a, [2])):
        for cost in (whole, whole.tolist()):
            with pytest.raises(TypeError, match="floating-point payments"):
                solve(cost)
    for start in (
        (torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])),
        (torch.tensor([0.5, 0.5]), torch.tensor([2.0, -1.0])),
    ):
        for learn in (hedge, regret_matching):
            with pytest.raises(ValueError, match="adding up to 1"):
                learn(whole.double(), [2], start=tuple(s.double() for s in start))
    with pytest.raises(ValueError, match="one game"):
        equilibrium(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="finite"):
        equilibrium(torch.tensor([[math.nan]]))
    with pytest.raises(ValueError, match="rows and columns"):
        duality_gap(torch.zeros(2, 3), torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="cost"):
        fictitious_play(torch.zeros(3), [1])
    for times in ([], [3, 2], [1, 1]):
        with pytest.raises(ValueError, match="increasing"):
            regret_matching(torch.zeros(2, 2), times)
    with pytest.raises(ValueError, match="eta"):
        hedge(torch.zeros(2, 2), [1], eta=0.0)
    with pytest.raises(ValueError, match="rows"):
        random_game(0, 2)
