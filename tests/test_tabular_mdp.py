"""The MDP itself: its forms, the ways in and out, and what bad input is told."""

import math
import warnings

import gymnasium as gym
import pytest
import scipy.sparse as sp
import torch

from advrl.tabular import (
    MDP,
    LayeredTree,
    Successors,
    assert_policy_optimal,
    backward_induction,
    discriminator_loss,
    from_dense,
    from_function,
    from_gymnasium,
    from_sparse,
    from_trajectories,
    generator_gradient,
    hitting_probability,
    hitting_times,
    linear_program,
    lookahead,
    model_intervals,
    modified_policy_iteration,
    occupancy,
    optimal_logit,
    policy_evaluation,
    policy_gradient,
    policy_iteration,
    render_solution,
    soft_value_iteration,
    solve,
    stationary_distribution,
    steps_to_end,
    success_probability,
    successor_representation,
    to_table,
    value_iteration,
)
from advrl.tabular.problems import PROBLEMS, cliff, gambler, garnet, gridworld, random_mdp, student

SMALL = {name: make for name, make in PROBLEMS.items() if name != "car-rental"}


def close(actual, expected, atol=1e-10):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def parts(mdp):
    return mdp.dense().P, mdp.R


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_three_forms_hold_one_mdp(make):
    mdp = make()
    for other in (mdp.dense(), mdp.sparse(), mdp.dense().sparse(), mdp.sparse().dense()):
        for found, expected in zip(parts(other), parts(mdp), strict=True):
            close(found, expected)
        V = torch.arange(mdp.num_states, dtype=torch.float64)
        close(other.expectation(V), mdp.expectation(V))
        close(solve(other).V, solve(mdp).V)


def test_rewards_per_transition_are_averaged():
    generator = torch.Generator().manual_seed(0)
    dense = random_mdp()
    r = torch.rand(dense.P.shape, generator=generator, dtype=torch.float64)
    close(MDP(dense.P, r, 0.9).R, (dense.P * r).sum(-1))
    lists = garnet()
    r = torch.rand(lists.P.prob.shape, generator=generator, dtype=torch.float64)
    close(MDP(lists.P, r, 0.9).R, (lists.P.prob * r).sum(-1))


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
def test_tables_there_and_back(make):
    mdp = make()
    back = from_gymnasium(to_table(mdp), mdp.gamma)
    over = torch.zeros(mdp.num_states, dtype=torch.bool) if mdp.terminal is None else mdp.terminal
    allowed = torch.ones_like(mdp.R, dtype=torch.bool) if mdp.mask is None else mdp.mask & ~over[:, None]
    close(back.R[allowed], mdp.R[allowed])
    close(solve(back).V, solve(mdp).V, 1e-9)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    ("name", "states", "actions", "shape"),
    [("FrozenLake-v1", 16, 4, (4, 4)), ("CliffWalking-v1", 48, 4, (4, 12)), ("Taxi-v4", 500, 6, None)],
)
def test_toy_text(name, states, actions, shape, wrapped):
    env = gym.make(name)
    mdp = from_gymnasium(env if wrapped else env.unwrapped, 0.9)
    assert (mdp.num_states, mdp.num_actions, mdp.shape) == (states, actions, shape)
    assert mdp.action_labels is not None
    table = to_table(mdp)
    for s, row in env.unwrapped.P.items():
        for a, outcomes in row.items():
            listed = {}
            for p, to, _, done in outcomes:
                key = "end" if done else int(to)
                listed[key] = listed.get(key, 0.0) + p
            found = {"end" if done else to: p for p, to, _, done in table[s][a]}
            assert found == pytest.approx(listed)
            assert float(mdp.R[s, a]) == pytest.approx(sum(p * r for p, _, r, _ in outcomes))


def test_environments_without_a_table_are_named():
    with pytest.raises(ValueError, match=r"BlackjackEnv has no table P\[s\]\[a\]"):
        from_gymnasium(gym.make("Blackjack-v1"))


def test_a_batched_function():
    """A walk on a ring: left or right, slipping with probability 1/4."""

    def step(state, action):
        move = 2 * action - 1
        following = torch.stack([(state + move) % 7, (state - move) % 7], -1)
        prob = torch.tensor([0.75, 0.25], dtype=torch.float64).expand(len(state), 2)
        return following, prob, (state == 3).double()

    mdp = from_function(step, 7, 2, 0.9, action_labels=("left", "right"))
    P = torch.zeros(7, 2, 7, dtype=torch.float64)
    for s in range(7):
        for a, move in ((0, -1), (1, 1)):
            P[s, a, (s + move) % 7] += 0.75
            P[s, a, (s - move) % 7] += 0.25
    close(mdp.dense().P, P)
    assert mdp.R[3].tolist() == [1, 1] and float(mdp.R.sum()) == 2
    with pytest.raises(ValueError, match=r"shape \(14, B\), got \(14,\)"):
        from_function(lambda s, a: (s, a, s), 7, 2)


def test_sparse_matrices():
    mdp = random_mdp(6, 3)
    P = mdp.P.numpy()
    for matrix in (
        sp.csr_matrix(P.reshape(18, 6)),
        [sp.csr_matrix(P[:, a]) for a in range(3)],
        sp.coo_matrix(P.reshape(18, 6)),
    ):
        found = from_sparse(matrix, mdp.R, mdp.gamma)
        close(found.dense().P, mdp.P)
        close(solve(found).V, solve(mdp).V)


def test_a_model_of_data_is_the_frequencies():
    s, a, r, to = (torch.tensor(x) for x in ([0, 0, 0, 1], [0, 0, 0, 1], [1.0, 2.0, 3.0, 5.0], [1, 1, 0, 0]))
    done = torch.tensor([False, False, False, True])
    mdp, count = from_trajectories(s, a, r, to, 3, 2, 0.9, done=done)
    assert count.tolist() == [[3, 0], [0, 1], [0, 0]]
    close(mdp.P[0, 0], torch.tensor([1 / 3, 2 / 3, 0], dtype=torch.float64))
    assert float(mdp.R[0, 0]) == 2 and float(mdp.R[1, 1]) == 5 and float(mdp.stop[1, 1]) == 1
    assert mdp.P[0, 1].tolist() == [1, 0, 0] and mdp.P[2, 0].tolist() == [0, 0, 1]  # never tried: stays, unpaid
    smooth, _ = from_trajectories(s, a, r, to, 3, 2, 0.9, done=done, prior=0.5)
    close(smooth.P[0, 0], torch.tensor([1.5, 2.5, 0.5], dtype=torch.float64) / 4.5)
    close(smooth.P[2, 0], torch.full((3,), 1 / 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"states must be in 0\.\.1, they are in 1\.\.2"):
        from_trajectories(s + 1, a, r, to, 2, 2)
    with pytest.raises(ValueError, match=r"actions must have shape \(4,\), got \(3,\)"):
        from_trajectories(s, a[:3], r, to, 3, 2)


def test_a_model_of_much_data_is_the_mdp_within_its_intervals():
    """Hoeffding's intervals at 1 - 1e-6 / 120 hold all 120 probabilities at once but for a chance of 1e-6."""
    mdp = random_mdp(6, 3, 0.9)
    generator = torch.Generator().manual_seed(0)
    n = 60_000
    s, a = torch.randint(6, (n,), generator=generator), torch.randint(3, (n,), generator=generator)
    to = torch.multinomial(mdp.P[s, a], 1, generator=generator).squeeze(1)
    model, count = from_trajectories(s, a, mdp.R[s, a], to, 6, 3, 0.9)
    half = model_intervals(count, 1 - 1e-6 / 120)
    assert ((model.P - mdp.P).abs() <= half[..., None]).all()
    close(model.R, mdp.R)
    assert (half < 0.06).all() and float(model_intervals(torch.tensor([0.0]))[0]) == 1.0
    assert float(model_intervals(torch.tensor([200.0]), 0.95)[0]) == pytest.approx(math.sqrt(math.log(40) / 400))


def grid(**changes):
    """Two states in a row, two actions: a valid problem with one thing changed."""
    P = torch.tensor([[[0.5, 0.5], [1, 0]], [[0, 1], [0, 1]]], dtype=torch.float64)
    fields = {
        "P": P, "R": torch.zeros(2, 2, dtype=torch.float64), "gamma": 0.9, "shape": (1, 2),
        "action_labels": ("stay", "go"),
    }  # fmt: skip
    return fields | changes


def row(*numbers):
    fields = grid()
    fields["P"][1, 1] = torch.tensor(numbers, dtype=torch.float64)
    return fields


def lists(to):
    following, prob = torch.zeros(2, 2, 1, dtype=torch.int32), torch.ones(2, 2, 1, dtype=torch.float64)
    following[0, 1] = to
    return Successors(following, prob)


def csr(to: int) -> torch.Tensor:
    """Four rows of one entry; state 1, action 0 leads to ``to``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        column = torch.tensor([0, 1, to, 1], dtype=torch.int32)
        return torch.sparse_csr_tensor(torch.arange(5, dtype=torch.int32), column, torch.ones(4).double(), (4, 2),
                                       check_invariants=False)  # fmt: skip


BAD = {
    "sum": (lambda: row(0.6, 0.3), r"sum to 1: state 1 \(0, 1\), action 1 \(go\) has 0\.9 \(1 rows are wrong"),
    "excess": (lambda: row(0.6, 0.6), r"sum to 1: .* has 1\.2"),
    "negative": (lambda: row(1.2, -0.2), r"negative or NaN: state 1 \(0, 1\), action 1 \(go\) has -0\.2"),
    "nan": (lambda: row(float("nan"), 1.0), r"negative or NaN: state 1 \(0, 1\), action 1 \(go\) has nan"),
    "reward": (lambda: grid(R=torch.tensor([[0, 0], [math.nan, 0]]).double()), r"R must be finite.* \(1, 0\) is nan"),
    "infinite reward": (lambda: grid(R=torch.tensor([[0, math.inf], [0, 0]]).double()), r"entry \(0, 1\) is inf"),
    "gamma": (lambda: grid(gamma=1.5), r"gamma must be in \[0, 1\], got 1\.5"),
    "gamma below": (lambda: grid(gamma=-0.1), r"gamma must be in \[0, 1\], got -0\.1"),
    "gamma nan": (lambda: grid(gamma=math.nan), r"gamma must be in \[0, 1\], got nan"),
    "index": (lambda: grid(P=lists(7)), r"must be in 0\.\.1: state 0 \(0, 0\), action 1 \(go\) leads to 7"),
    "csr index": (lambda: grid(P=csr(7)), r"must be in 0\.\.1: state 1 \(0, 1\), action 0 \(stay\) leads to 7"),
    "csr index below": (lambda: grid(P=csr(-1)), r"action 0 \(stay\) leads to -1"),
    "index below": (lambda: grid(P=lists(-1)), r"action 1 \(go\) leads to -1"),
    "stuck": (lambda: grid(mask=torch.tensor([[1, 1], [0, 0]]) > 0), r"state 1 \(0, 1\) has no feasible action"),
    "p0": (lambda: grid(p0=torch.tensor([0.5, 0.6]).double()), r"p0 must hold probabilities that sum to 1"),
    "stop": (lambda: grid(stop=torch.full((2, 2), -0.1).double()), r"stop must hold probabilities"),
    "shape of R": (lambda: grid(R=torch.zeros(2).double()), r"R must have shape \(2, 2\), or that of P"),
    "shape of P": (lambda: grid(P=torch.ones(2, 2, 1).double()), r"dense P must have shape"),
    "flat P": (lambda: grid(P=torch.ones(2, 2).double()), r"P must have shape \(\*b, S, A, S\)"),
    "mask": (lambda: grid(mask=torch.ones(3, 2, dtype=torch.bool)), r"mask must have shape \(2, 2\), got \(3, 2\)"),
    "labels": (lambda: grid(action_labels=("go",)), r"action_labels must name all 2, got 1"),
    "grid": (lambda: grid(shape=(2, 2)), r"a grid of shape \(2, 2\) has 4 states, the MDP has 2"),
    "dtypes": (lambda: grid(R=torch.zeros(2, 2)), r"share dtype and device, got torch\.float64 .* torch\.float32"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_input_names_state_action_and_value(make, message):
    MDP(**grid())
    with pytest.raises(ValueError, match=message):
        MDP(**make())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (lambda: grid(P=torch.zeros(2, 2, 2, dtype=torch.int64)), "P must be a floating-point tensor, got torch.int64"),
        (lambda: grid(R=[[0, 0], [0, 0]]), "R must be a floating-point tensor, got list"),
        (lambda: grid(terminal=torch.tensor([0, 1])), "terminal must be a bool tensor, got torch.int64"),
    ],
)
def test_wrong_kinds(fields, message):
    with pytest.raises(TypeError, match=message):
        MDP(**fields())


def test_mixed_devices():
    with pytest.raises(ValueError, match="share dtype and device"):
        MDP(**grid(R=torch.zeros(2, 2, dtype=torch.float64, device="meta")))


def test_bad_rows_are_found_in_every_form():
    good, size = garnet(5, 2, 2), (10, 5)
    prob = good.P.prob.clone()
    prob[3, 1] *= 0.5
    with pytest.raises(ValueError, match=r"state 3, action 1 has 0\.5"):
        MDP(Successors(good.P.next, prob), good.R, 0.9)
    matrix = sp.csr_matrix(good.dense().P.reshape(size).numpy())
    matrix.data[matrix.indptr[7] : matrix.indptr[8]] *= 0.5
    with pytest.raises(ValueError, match=r"state 3, action 1 has 0\.5"):
        from_sparse(matrix, good.R, 0.9)
    matrix.data[matrix.indptr[7]] = -1
    with pytest.raises(ValueError, match="state 3, action 1 has -1"):
        from_sparse(matrix, good.R, 0.9)
    together = torch.stack([random_mdp(4, 2).P, random_mdp(4, 2, seed=1).P])
    together[1, 2, 0] *= 0.9
    with pytest.raises(ValueError, match=r"state 2, action 0 has 0\.9"):
        MDP(together, torch.zeros(2, 4, 2, dtype=torch.float64), 0.9)


def test_terminal_rows_need_not_be_given():
    P = torch.zeros(2, 1, 2, dtype=torch.float64)
    P[0, 0, 1] = 1
    mdp = MDP(P, torch.ones(2, 1, dtype=torch.float64), terminal=torch.tensor([False, True]))
    close(solve(mdp).V, torch.tensor([1.0, 0.0], dtype=torch.float64))


def test_stacking():
    with pytest.raises(ValueError, match="nothing to stack"):
        MDP.stack([])
    with pytest.raises(ValueError, match="of one size"):
        MDP.stack([random_mdp(3), random_mdp(4)])
    with pytest.raises(ValueError, match="holds one MDP"):
        MDP.stack([random_mdp(3), random_mdp(3)]).sparse()
    with pytest.raises(ValueError, match="holds one MDP"):
        to_table(MDP.stack([random_mdp(3), random_mdp(3)]))
    close(MDP.stack([gambler(0.3), gambler(0.4)]).dense().P[1], gambler(0.4).dense().P)


def test_float32_stays_float32(device):
    mdp = garnet().to(device, torch.float32)
    found = solve(mdp)
    assert found.V.dtype == torch.float32 and found.V.device.type == device.type
    close(found.V.cpu().double(), solve(garnet()).V, 1e-3)


@pytest.mark.usefixtures("meta")
def test_nothing_is_made_on_the_default_device():
    table = to_table(student())
    assert from_gymnasium(table).R.device.type == "cpu"
    for mdp in (
        garnet(12, 2, 3, 0.9),
        gridworld("S.\n.G", 0.9),
        random_mdp(5, 2, 0.9),
        cliff(),
        garnet(9).sparse(),
        student(),
    ):
        for plan in (solve, policy_iteration, value_iteration, modified_policy_iteration, linear_program):
            assert plan(mdp).V.device.type == "cpu"
        found = solve(mdp)
        for method in ("lu", "krylov", "iterative", "inplace"):
            assert policy_evaluation(mdp, found.policy, method).V.device.type == "cpu"
        logits = torch.zeros(mdp.num_states, mdp.num_actions, device="cpu")
        start = torch.full((mdp.num_states,), 1 / mdp.num_states, device="cpu")
        target = torch.eye(mdp.num_states, device="cpu")[-1] > 0
        ends = mdp.terminal is not None
        for value in (
            backward_induction(mdp, 2).V,
            lookahead(mdp, found.V, 2),
            soft_value_iteration(mdp).V if mdp.num_actions < 9 and float(mdp.discount) < 1 else found.V,
            occupancy(mdp, found.policy, start),
            successor_representation(mdp, found.policy),
            hitting_probability(mdp, found.policy, target),
            hitting_times(mdp, found.policy, target),
            success_probability(mdp, found.policy, target, p0=start, horizon=3),
            policy_gradient(mdp, logits, start) if float(mdp.discount) < 1 or ends else found.V,
            steps_to_end(mdp, found.policy) if ends else stationary_distribution(mdp, found.policy),
            mdp.to(dtype=torch.float32).R,
            mdp.dense().R,
        ):
            assert value.device.type == "cpu"
        render_solution(mdp, found)
        assert_policy_optimal(mdp, found.policy)


@pytest.mark.parametrize(("options"), [{}, {"eos": 1}, {"merge": lambda x: x.sum(1)}, {"chunk": 4}])
@pytest.mark.usefixtures("meta")
def test_trees_make_nothing_on_the_default_device(options):
    tree = LayeredTree(2, 3, lambda x: x.double().sum(1), **options)
    assert tree.optimal().best().device.type == "cpu"
    logits = torch.zeros(2, dtype=torch.float64, device="cpu", requires_grad=True)
    policy = lambda x: logits.expand(len(x), 2)  # noqa: E731
    for value in (tree.soft().value, tree.expected_reward(policy), *tree.gradient(policy, [logits])):
        assert value.device.type == "cpu"
    if "chunk" not in options:
        assert tree.to_mdp().R.device.type == "cpu"
    p, q = torch.tensor([0.5, 0.5], device="cpu"), torch.tensor([0.9, 0.1], device="cpu")
    assert generator_gradient(p, q.log()).device.type == "cpu"
    assert discriminator_loss(p, q, optimal_logit(p, q)).device.type == "cpu"


def test_names():
    mdp = student()
    assert mdp.state(1) == "1 (Class 1)" and gridworld("S.\n.G").state(2) == "2 (1, 0)"
    assert gridworld("SG").action(3) == "3 (up)"


def test_arrays_and_lists_make_the_mdp_of_their_tensors():
    mdp = random_mdp(4, 3, 0.9, seed=5)
    found = from_dense(mdp.P.numpy(), mdp.R.tolist(), 0.9, state_labels=tuple("abcd"))
    assert (found.P == mdp.P).all() and (found.R == mdp.R).all() and found.state_labels == tuple("abcd")
    counts = (mdp.P * 7).numpy()
    with pytest.raises(ValueError, match="sum to 1"):
        from_dense(counts, mdp.R, 0.9)
    torch.testing.assert_close(from_dense(counts, mdp.R, 0.9, normalise=True).P, mdp.P)
    assert from_dense(mdp.P.numpy(), mdp.R, dtype=torch.float32).dtype == torch.float32


def test_kinds_that_will_not_do_are_named():
    one = torch.ones(1, 1, 1)
    with pytest.raises(TypeError, match=r"next states must be int32 or int64, got torch\.float32"):
        MDP(Successors(torch.zeros(1, 1, 1), one), torch.zeros(1, 1), 0.9)
    for gamma in ("0.9", True):
        with pytest.raises(TypeError, match="gamma must be a number or a tensor, got"):
            MDP(one, torch.zeros(1, 1), gamma)
