"""Environments written out as tabular MDPs, against the tree of prefixes, sums over all sequences, and roll-outs."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from advrl.envs import SequenceEnv, SequenceGeneration, SequenceVectorEnv, to_mdp
from advrl.tabular import LayeredTree, backward_induction, policy_evaluation, solve
from tests.statistics import assert_unbiased

V, L = 3, 4


def paid(tokens):
    """Any number for each sequence, the same however it is padded."""
    written = tokens.masked_fill(tokens > V, V).double()
    return torch.sin(1.7 * written + torch.arange(L, dtype=torch.float64)).mul(written + 1).sum(1)


def tables(seed, states, actions):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(states, actions, dtype=torch.float64, generator=generator)


def enumerated(task, observe_policy):
    """Expected return of a policy, by a sum over all that can be written, without the environment's dynamics."""
    total = 0.0
    stack = [((), 1.0)]
    while stack:
        prefix, chance = stack.pop()
        padded = torch.tensor([[*prefix, *[task.padding] * (L - len(prefix))]])
        ended = len(prefix) == L or (task.eos is not None and task.eos in prefix)
        if prefix and (ended or task.dense):
            total += chance * float(paid(padded))
        if not ended:
            p = observe_policy(padded).softmax(-1)[0]
            stack += [((*prefix, a), chance * float(p[a])) for a in range(task.num_actions)]
    return total


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_returns_of_every_policy_are_the_enumerated_ones(eos, dense):
    task = SequenceGeneration(V, L, paid, eos=eos, dense=dense)
    mdp, states = to_mdp(task)
    assert mdp.num_states == sum(V**t for t in range(L)) and mdp.num_actions == V + eos
    for seed in range(3):
        weights = tables(seed, L * (V + 2), V + eos).view(L, V + 2, V + eos)

        def policy(tokens, weights=weights):
            return weights[torch.arange(L), tokens].sum(1)

        value = policy_evaluation(mdp, policy(task.observe(states)).softmax(-1)).V[0]
        assert float(value) == pytest.approx(enumerated(task, policy), abs=1e-9)


@pytest.mark.parametrize("eos", [False, True])
def test_the_optimum_is_the_tree_s(eos):
    tree = LayeredTree(V + eos, L, lambda x: paid(padded(x) if eos else x), eos=V if eos else None)

    def padded(x):  # the tree fills the tail with the end
        after = (x == V).cumsum(1) > 1
        return x.masked_fill(after, V + 1)

    mdp, _ = to_mdp(gym.make("advrl/Sequence-v0", vocab=V, length=L, reward=paid, eos=eos))
    torch.testing.assert_close(backward_induction(mdp, L).V[0][0], tree.optimal().value)


def test_early_at_once_and_never():
    """Lengths decide the reward alone, so the best policy ends exactly where that is best."""
    for best in range(L + 1):
        task = SequenceGeneration(2, L, lambda x, best=best: -((x < 2).sum(1) - best).abs().float(), eos=True)
        mdp, states = to_mdp(task)
        plan = backward_induction(mdp, L)
        assert float(plan.V[0][0]) == 0
        state = 0
        for t in range(min(best + 1, L)):
            ends = plan.Q[t][state].argmax() == task.eos
            assert bool(ends) == (t == best)
            following = states["tokens"][:, : t + 1].eq(torch.tensor([0] * (t + 1))).all(1) & (states["steps"] == t + 1)
            state = int(following.nonzero()[0]) if following.any() else -1


def test_masked_actions_are_not_feasible():
    task = SequenceGeneration(3, 3, eos=True, min_length=1, allowed=lambda x: ~(x[..., None] == torch.arange(4)).any(1))
    mdp, states = to_mdp(task)
    assert mdp.num_states == 1 + 3 + 6
    assert torch.equal(mdp.mask, task.mask(states))
    assert mdp.mask[0].tolist() == [True, True, True, False]


def test_one_context_at_a_time():
    def reward(tokens, context):
        return (tokens.float().mean(1) - context[:, 0]) ** 2

    env = SequenceEnv(vocab=2, length=2, context=1, reward=reward)
    for c in (0.0, 1.0):
        mdp, states = to_mdp(env, context=[c])
        assert float(backward_induction(mdp, 2).V[0][0]) == 1.0
        assert (env.dynamics.observe(states)["context"] == c).all()
    with pytest.raises(ValueError, match="give context="):
        to_mdp(env)


def test_the_canvas_too():
    """Dots on two by two pixels, two of them; the best of all pairs."""
    env = gym.make("advrl/Canvas-v0", size=2, strokes=2, brush="pixel", reward=lambda x: x[:, 0, 0, 0] - x[:, 0, 1, 1])
    mdp, states = to_mdp(env)
    assert mdp.num_states == 1 + 4 and states["canvas"].shape == (5, 4)
    task = env.unwrapped.dynamics
    found = []
    for a in range(4):
        for b in range(4):
            state, _, _ = task.step(task.init(1), torch.tensor([a]))
            found.append(float(task.step(state, torch.tensor([b]))[1]))
    assert float(backward_induction(mdp, 2).V[0][0]) == pytest.approx(max(found))


def test_sampled_returns_have_the_exact_mean():
    """2,048 episodes of the vector environment under a random policy, against the value of the start."""
    n = 2048
    env = SequenceVectorEnv(n, vocab=V, length=L, reward=paid, eos=True)
    mdp, _ = to_mdp(env)
    logits = torch.tensor([0.3, -0.2, 0.5, -1.0], dtype=torch.float64)
    exact = policy_evaluation(mdp, logits.softmax(-1).expand(mdp.num_states, -1)).V[:1]
    generator = np.random.default_rng(0)
    env.reset(seed=0)
    first, live = np.zeros(n), np.ones(n, bool)
    for _ in range(L):
        actions = generator.choice(V + 1, n, p=logits.softmax(-1).numpy())
        _, reward, over, _, _ = env.step(actions)
        first += reward * live
        live &= ~over
    assert not live.any()
    assert_unbiased(torch.from_numpy(first)[:, None], exact)


def test_what_has_no_table_is_refused():
    with pytest.raises(TypeError, match="numbered actions"):
        to_mdp(gym.make("advrl/OneShot-v0"))
    with pytest.raises(TypeError, match="only generation environments"):
        to_mdp(gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="more than 1,000 states after"):
        to_mdp(gym.make("advrl/Sequence-v0"), limit=1000)


def test_every_value_of_the_environment_is_the_tree_s():
    """V of every prefix and the optimal tokens, from the export, from the tree, and from the tree written out."""
    tree = LayeredTree(V, L, paid)
    optimal, (mdp, states) = tree.optimal(), to_mdp(SequenceEnv(vocab=V, length=L, reward=paid))
    from_env, from_tree = solve(mdp), solve(tree.to_mdp())
    assert mdp.num_states == tree.to_mdp().num_states
    torch.testing.assert_close(from_env.V[0], from_tree.V[0])
    for t in range(L):
        layer = states["steps"] == t
        weights = V ** torch.arange(t - 1, -1, -1)
        number = (states["tokens"][layer, :t] * weights).sum(1).long()
        assert number.sort()[0].tolist() == list(range(V**t))
        torch.testing.assert_close(from_env.V[layer], optimal.V[t][number])
        torch.testing.assert_close(from_env.Q[layer], optimal.Q(t)[number])
        assert torch.equal(from_env.optimal_set[layer], optimal.optimal_set(t)[number])
