"""The batched solvers against textbook ones, and attention matching as a whole, on the CPU."""

from __future__ import annotations

import math

import pytest
import torch
from perdure.errors import BadInput
from perdure.kernels.compaction_solvers import Compacted, compact_kv, nnls, omp_select, ridge_values
from perdure.kernels.compaction_solvers.reference import nnls_reference, omp_reference, ridge_reference
from torch import Tensor


def clustered(heads: int, queries: int, keys: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys around common centres, as those of real heads are."""
    centres = torch.randn(heads, 24, dim) * 1.5
    which_k, which_q = torch.randint(24, (heads, keys)), torch.randint(24, (heads, queries))
    k = centres.gather(1, which_k[..., None].expand(-1, -1, dim)) + torch.randn(heads, keys, dim) * 0.5
    q = centres.gather(1, which_q[..., None].expand(-1, -1, dim)) * 1.2 + torch.randn(heads, queries, dim)
    return q, k, torch.randn(heads, keys, dim)


def masses(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    scores = q @ k.mT * q.shape[-1] ** -0.5
    phi = (scores - scores.amax(-1, keepdim=True)).exp()
    return phi, phi.sum(-1)


def gram(phi: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return phi.mT @ phi, (target[:, None] @ phi)[:, 0]


def errors(ours: Compacted, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> tuple[list[float], Tensor]:
    """(relative output error of every head, mean error of the log mass of every head) for these queries."""
    outputs, mass = [], []
    for head, (a, b) in enumerate(zip(ours.cu_len[:-1].tolist(), ours.cu_len[1:].tolist(), strict=True)):
        full = q[head] @ k[head].T * k.shape[-1] ** -0.5 + (0 if bias is None else bias[head])
        few = q[head] @ ours.k_ND[a:b].T * k.shape[-1] ** -0.5 + ours.bias_N[a:b]
        exact, got = full.softmax(-1) @ v[head], few.softmax(-1) @ ours.v_ND[a:b]
        outputs.append(float((exact - got).norm() / exact.norm()))
        mass.append((full.logsumexp(-1) - few.logsumexp(-1)).abs().mean())
    return outputs, torch.stack(mass)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_batched_pursuit_picks_what_the_plain_one_picks(dtype: torch.dtype) -> None:
    q, k, _ = clustered(3, 512, 200, 32)
    phi, target = masses(q, k)
    picks, weights = omp_select(*gram(phi.to(dtype), target.to(dtype)), 25)
    for head in range(3):
        expected, w = omp_reference(phi[head], target[head], 25)
        assert torch.equal(picks[head], expected)
        torch.testing.assert_close(weights[head], w, rtol=1e-2 if dtype == torch.float32 else 1e-6, atol=1e-3)


def test_the_pursuit_leaves_dead_columns_and_twins_alone() -> None:
    q, k, _ = clustered(2, 256, 60, 16)
    k[:, 30:] = k[:, :30]
    phi, target = masses(q, k)
    live = torch.ones(2, 60, dtype=torch.bool)
    live[1, 10:30] = live[1, 40:] = False
    picks, weights = omp_select(*gram(phi, target), 20, live_HC=live)
    assert live[1][picks[1]].all()
    assert len(set((picks[0] % 30).tolist())) == 20
    assert weights.isfinite().all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weights_are_the_best_that_are_not_negative(sign: float) -> None:
    phi = torch.randn(4, 80, 30).double()
    target = (phi @ torch.randn(4, 30, 1).double())[:, :, 0] * sign + torch.randn(4, 80)
    w = nnls(*gram(phi, target))
    assert (w == 0).any()
    for head in range(4):
        torch.testing.assert_close(w[head], nnls_reference(phi[head], target[head]), rtol=1e-6, atol=1e-8)


def test_weights_of_dead_columns_are_zero_and_singular_systems_are_solved() -> None:
    phi = torch.rand(2, 50, 12).double()
    phi[:, :, 6:] = phi[:, :, :6]
    target = phi.sum(2)
    live = torch.ones(2, 12, dtype=torch.bool)
    live[1, 3] = live[1, 9] = False
    w = nnls(*gram(phi, target), live_HT=live)
    assert (w[1, [3, 9]] == 0).all()
    torch.testing.assert_close((phi[0] @ w[0]), target[0], rtol=1e-5, atol=1e-5)


def test_values_are_the_ridge_solution() -> None:
    x, y = torch.rand(3, 90, 20), torch.randn(3, 90, 8)
    for ridge in (1e-8, 1e-2):
        ours = ridge_values(x, y, ridge=ridge)
        for head in range(3):
            torch.testing.assert_close(ours[head], ridge_reference(x[head], y[head], ridge))


def test_values_of_twin_keys_are_finite() -> None:
    x = torch.rand(1, 50, 1).expand(1, 50, 4).contiguous()
    assert ridge_values(x, torch.randn(1, 50, 3)).isfinite().all()


@pytest.mark.parametrize("method", ["omp", "highest"])
def test_a_compacted_cache_attends_like_the_whole_one(method: str) -> None:
    q, k, v = clustered(4, 2048, 512, 32)
    q, unseen = q[:, ::2].contiguous(), q[:, 1::2].contiguous()
    ours = compact_kv(q, k, v, 64, method=method)  # type: ignore[arg-type]
    fitted, mass = errors(ours, unseen, k, v)
    old_values = torch.cat([v[head, ours.index_N[head * 64 : head * 64 + 64]] for head in range(4)])
    untouched, _ = errors(ours._replace(v_ND=old_values, bias_N=torch.zeros(256)), unseen, k, v)
    assert max(fitted) < 0.6 * min(untouched)
    assert mass.max() < 0.5 if method == "omp" else True


def test_a_budget_for_each_head_gives_a_ragged_cache() -> None:
    q, k, v = clustered(4, 256, 128, 16)
    budgets = [5, 40, 128, 17]
    ours = compact_kv(q, k, v, budgets)
    assert ours.cu_len.diff().tolist() == budgets
    for head, (a, b) in enumerate(zip(ours.cu_len[:-1].tolist(), ours.cu_len[1:].tolist(), strict=True)):
        kept = ours.index_N[a:b]
        assert (kept.diff() > 0).all()
        assert torch.equal(ours.k_ND[a:b], k[head, kept])
    assert errors(ours, q, k, v)[0][2] < 1e-2  # a head that keeps everything keeps its output


def test_what_was_compacted_is_compacted_again() -> None:
    q, k, v = clustered(2, 512, 256, 16)
    bias = torch.randn(2, 256)
    bias[1, 100:] = -math.inf
    ours = compact_kv(q, k, v, 50, bias_HT=bias)
    assert (ours.index_N[50:] < 100).all()
    assert ours.bias_N.isfinite().all()
    fitted, mass = errors(ours, q, k, v, bias)
    assert max(fitted) < 0.5
    assert mass.max() < 0.3


def test_queries_that_look_elsewhere_do_not_count() -> None:
    q, k, v = clustered(2, 512, 128, 16)
    share = torch.zeros(2, 512)
    share[:, :128] = torch.rand(2, 128) + 0.1
    ours = compact_kv(q, k, v, 20, share_HN=share)
    alone = compact_kv(q[:, :128].contiguous(), k, v, 20, share_HN=share[:, :128].contiguous())
    assert torch.equal(ours.index_N, alone.index_N)
    torch.testing.assert_close(ours.v_ND, alone.v_ND, rtol=1e-3, atol=1e-3)
    plain = compact_kv(q, k, v, 20)
    assert max(errors(ours, q[:, :128], k, v)[0]) < min(errors(plain, q[:, :128], k, v)[0])


def test_a_key_that_no_query_determines_keeps_its_value() -> None:
    _, k, v = clustered(1, 8, 64, 16)
    ours = compact_kv(torch.zeros(1, 1, 16), k, v, 12, ridge=1e-4)  # one query, alike for all keys
    change = ours.v_ND - v[0, ours.index_N]
    assert torch.linalg.matrix_rank(change, atol=1e-3) <= 1
    assert change.norm() < v.norm()


def test_half_precision_goes_in_and_out() -> None:
    q, k, v = (x.bfloat16() for x in clustered(2, 128, 64, 16))
    ours = compact_kv(q, k, v, 16)
    assert ours.k_ND.dtype == ours.v_ND.dtype == torch.bfloat16
    assert ours.bias_N.dtype == torch.float32
    assert ours.v_ND.isfinite().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": torch.zeros(2, 9, 8)}, "expected q"),
        ({"v": torch.zeros(2, 20, 8)}, "expected q"),
        ({"q": torch.zeros(2, 0, 16)}, "empty"),
        ({"keep": 21}, "keys to keep"),
        ({"keep": 0}, "keys to keep"),
        ({"keep": [3]}, "keys to keep"),
        ({"bias": torch.zeros(2, 19)}, "bias"),
        ({"bias": torch.full((2, 20), -math.inf)}, "keys to keep"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], says: str) -> None:
    q, k, v = torch.zeros(2, 9, 16), torch.zeros(2, 20, 16), torch.zeros(2, 20, 16)
    with pytest.raises(BadInput, match=says):
        compact_kv(
            change.get("q", q),
            k,
            change.get("v", v),
            change.get("keep", 5),
            bias_HT=change.get("bias"),
        )


def test_gram_matrices_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="Gram"):
        omp_select(torch.zeros(2, 5, 4), torch.zeros(2, 5), 3)
    with pytest.raises(BadInput, match="count"):
        omp_select(torch.zeros(2, 5, 5), torch.zeros(2, 5), 6)
    with pytest.raises(BadInput, match="Gram"):
        nnls(torch.zeros(2, 4, 4), torch.zeros(2, 5))
    with pytest.raises(BadInput, match="outputs"):
        ridge_values(torch.zeros(2, 9, 4), torch.zeros(2, 8, 4))
