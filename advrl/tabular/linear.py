"""The optimal values as a linear program: d'Epenoux (1963); Puterman (1994), section 6.9."""

from __future__ import annotations

import time

import numpy as np
import torch

from advrl.checks import number
from advrl.tabular.mdp import MDP
from advrl.tabular.ordered import arrays
from advrl.tabular.planning import prepare_undiscounted
from advrl.tabular.solution import Solution, finish


def linear_program(mdp: MDP, *, tol: float = 1e-8) -> Solution:
    """Least V with V(s) >= R(s, a) + gamma E[V(s')] for every feasible action, by SciPy's HiGHS. One MDP.

    Raises:
        ValueError: for a batch, values without a bound, or, where gamma is 1, states from which no policy ends.
    """
    import scipy.sparse as sp
    from scipy.optimize import linprog

    started = time.perf_counter()
    number("tol", tol, 0.0)
    if mdp.batch_shape:
        raise ValueError(f"the linear program treats one MDP, this is a batch of shape {mdp.batch_shape}")
    steps = prepare_undiscounted(mdp)
    start, column, prob, reward, allowed = arrays(mdp)
    S, A = reward.shape
    P = sp.csr_matrix((prob, column, start), shape=(S * A, S))
    here = sp.csr_matrix((np.ones(S * A), (np.arange(S * A), np.repeat(np.arange(S), A))), shape=(S * A, S))
    keep = np.flatnonzero(allowed.ravel())
    found = linprog(
        np.ones(S), A_ub=(float(mdp.discount) * P - here)[keep], b_ub=-reward.ravel()[keep],
        bounds=(None, None), method="highs",
    )  # fmt: skip
    if not found.success:
        raise ValueError(f"the linear program has no solution, so the values are unbounded: {found.message}")
    V = torch.as_tensor(found.x, dtype=mdp.dtype, device=mdp.device)
    return finish(mdp, V, tol=tol, residuals=[], iterations=int(found.nit), started=started, steps=steps)
