"""Layers that normalise by a reference batch, and layers through which a discriminator compares samples."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from advrl.metrics import intra_batch_correlation
from advrl.nn import (
    MLP,
    DCGANDiscriminator,
    DCGANGenerator,
    MinibatchDiscrimination,
    MinibatchStdDev,
    Packing,
    ReferenceBatchNorm,
    Referenced,
    ResidualDiscriminator,
    ResidualGenerator,
    VirtualBatchNorm,
    before_output,
    coupled_samples,
    spectrally_normalised,
    with_reference,
)

KINDS = [ReferenceBatchNorm, VirtualBatchNorm]


def two_layers(kind: type[ReferenceBatchNorm], n: int = 7) -> Referenced:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), kind(5), nn.Tanh(), nn.Linear(5, 4), kind(4)).double()
    return Referenced(net, torch.randn(n, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 5)])
def test_virtual_batch_norm_is_batch_norm_of_the_reference_and_the_sample(shape, device):
    torch.manual_seed(0)
    reference, x = torch.randn(6, *shape, device=device), torch.randn(4, *shape, device=device) * 2 + 1
    layer = Referenced(VirtualBatchNorm(3), reference).to(device)
    for sample, out in zip(x, layer(x), strict=True):
        exact = nn.functional.batch_norm(torch.cat([reference, sample[None]]), None, None, training=True)[-1]
        torch.testing.assert_close(out, exact, rtol=1e-4, atol=1e-5)


def test_reference_batch_norm_is_that_of_the_reference_alone():
    torch.manual_seed(0)
    reference, x = torch.randn(6, 3).double(), torch.randn(4, 3).double()
    exact = (x - reference.mean(0)) / (reference.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(Referenced(ReferenceBatchNorm(3).double(), reference)(x), exact)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_other_samples_of_the_batch_change_nothing(kind, training):
    """torchgan's "virtual" batch norm takes every second batch for its reference: 1.85 apart, here exactly 0."""
    net = two_layers(kind).train(training)
    x = torch.randn(3, 3, dtype=torch.float64)
    mates = [torch.randn(5, 3, dtype=torch.float64) * scale for scale in (1, 100)]
    one, other, again = (net(torch.cat([x, m]))[:3] for m in (*mates, mates[0]))
    assert torch.equal(one, other) and torch.equal(one, again)
    plain = nn.BatchNorm1d(3, dtype=torch.float64)
    assert (plain(torch.cat([x, mates[0]])) - plain(torch.cat([x, mates[1]])))[:3].abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_goes_through_the_reference_batch(kind):
    net = two_layers(kind)
    x = torch.randn(4, 3, dtype=torch.float64)
    weight = net.net[0].weight
    (gradient,) = torch.autograd.grad(net(x).square().sum() + net(x).sum(), weight)
    step = torch.zeros_like(weight)
    step[1, 2] = 1e-6
    with torch.no_grad():
        values = []
        for sign in (1, -1):
            weight += sign * step
            values.append(net(x).square().sum() + net(x).sum())
            weight -= sign * step
    assert gradient[1, 2].item() == pytest.approx((values[0] - values[1]).item() / 2e-6, rel=1e-5)


def test_virtual_becomes_reference_batch_norm_as_the_reference_grows():
    gaps = []
    x = torch.randn(5, 3, dtype=torch.float64)
    for n in (10, 100, 1000, 10_000):
        virtual, reference = two_layers(VirtualBatchNorm, n), two_layers(ReferenceBatchNorm, n)
        gaps.append((virtual(x) - reference(x)).abs().max().item())
    assert all(later < earlier / 3 for earlier, later in itertools.pairwise(gaps)), gaps  # as 1 / n
    assert gaps[-1] < 1e-2


@pytest.mark.parametrize("virtual", [True, False])
def test_a_dcgan_takes_a_reference_and_is_copied_with_it(virtual):
    torch.manual_seed(0)
    net = with_reference(DCGANGenerator(4, 1, 8, 2), torch.randn(16, 4), virtual)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    z = torch.randn(3, 4)
    out = net(z)
    assert torch.equal(copy.deepcopy(net)(z), out)
    assert "reference" in net.state_dict()
    assert all(m._found is None for m in net.modules() if isinstance(m, ReferenceBatchNorm))
    assert coupled_samples(net) == 1
    assert coupled_samples(DCGANGenerator(4, 1, 8, 2)) is None


def test_norms_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="seen no reference batch"):
        VirtualBatchNorm(3)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="see with_reference"):
        Referenced(nn.Linear(2, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="at least 2 samples"):
        Referenced(VirtualBatchNorm(3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"need \(batch, 3, ...\), got a batch of shape \(2, 4\)"):
        VirtualBatchNorm(3)(torch.zeros(2, 4))


def test_batch_norm_correlates_the_samples_of_a_batch_and_reference_norms_do_not():
    torch.manual_seed(0)
    z, mates = torch.randn(8, 4), torch.randn(64, 8, 4)

    def correlation(net: nn.Module) -> float:
        with torch.no_grad():
            return intra_batch_correlation(torch.stack([net(torch.cat([z, m]))[:8] for m in mates])).item()

    generator = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16))
    generator[1].bias.data.normal_()
    assert correlation(generator) > 0.01
    for virtual in (True, False):
        assert correlation(with_reference(copy.deepcopy(generator), torch.randn(32, 4), virtual)) == 0


def test_the_correlation_is_that_of_a_common_tint():
    """y = a_i + b_r has correlation var b / (var a + var b)."""
    torch.manual_seed(0)
    a, b = torch.randn(1, 400), 0.5 * torch.randn(400, 1)
    exact = b.var() / (a + b).var()
    assert intra_batch_correlation(a + b).item() == pytest.approx(exact.item(), rel=0.01)
    with pytest.raises(ValueError, match="batches >= 2"):
        intra_batch_correlation(torch.zeros(1, 3))


@pytest.mark.parametrize("group", [None, 2, 3])
def test_minibatch_features_are_those_of_a_loop(group, device):
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(5, kernels=4, dimension=3, group=group).to(device)
    x = torch.randn(6, 5, device=device)
    out = layer(x)
    rows = layer.project(x).view(6, 4, 3)
    for i in range(6):
        size = group or 6
        near = range(i // size * size, (i // size + 1) * size)
        for k in range(4):
            o = sum((-(rows[i, k] - rows[j, k]).abs().sum()).exp() for j in near)
            torch.testing.assert_close(out[i, 5 + k], o)
    assert torch.equal(out[:, :5], x)


def test_a_collapsed_batch_has_the_group_s_size_as_its_features():
    out = MinibatchDiscrimination(5, kernels=4, group=3)(torch.ones(6, 5))
    torch.testing.assert_close(out[:, 5:], torch.full((6, 4), 3.0))  # the sample itself is counted


def test_standard_deviation_of_a_group(device):
    x = torch.randn(8, 3, 2, 2, device=device)
    out = MinibatchStdDev(4)(x)
    assert out.shape == (8, 4, 2, 2)
    for g in (0, 4):
        exact = x[g : g + 4].std(0, unbiased=False).mean()
        torch.testing.assert_close(out[g : g + 4, 3], exact.expand(4, 2, 2))
    flat = torch.ones(4, 3, requires_grad=True)
    MinibatchStdDev()(flat).sum().backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())


def test_packing_puts_neighbours_side_by_side():
    x = torch.arange(12.0).view(4, 3)
    seen: list[Tensor] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x.sum(1)

    assert Packing(Look(), 2)(x).shape == (2,)
    assert torch.equal(seen[0], torch.tensor([[0.0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]))
    with pytest.raises(ValueError, match="a batch of 4 does not divide into packs of 3"):
        Packing(Look(), 3)(x)
    images = torch.randn(4, 3, 8, 8)
    assert Packing(DCGANDiscriminator(6, 8, 2), 2)(images).shape == (2,)


@pytest.mark.parametrize("net", [MLP((1, 8, 8), ()), DCGANDiscriminator(1, 8, 2, batch_norm=False)])
def test_layers_go_in_front_of_the_output(net):
    one = before_output(copy.deepcopy(net), lambda f: MinibatchDiscrimination(f, 3, group=2))
    both = before_output(copy.deepcopy(one), lambda f: MinibatchStdDev(3))
    x = torch.randn(6, 1, 8, 8)
    assert one(x).shape == both(x).shape == (6,)
    assert (coupled_samples(net), coupled_samples(one), coupled_samples(both)) == (1, 2, 6)
    assert coupled_samples(Packing(one, 2)) == 4
    assert coupled_samples(MinibatchStdDev()) is None
    with pytest.raises(ValueError, match=r"no nn\.Linear"):
        before_output(nn.ReLU(), lambda f: MinibatchStdDev())


def test_groups_see_nothing_of_other_groups():
    net = before_output(MLP(3, ()), lambda f: MinibatchDiscrimination(f, 3, group=2))
    x = torch.randn(6, 3)
    changed = x.clone()
    changed[2:] += 1
    torch.testing.assert_close(net(x)[:2], net(changed)[:2])
    changed[1] += 1
    assert (net(x)[0] - net(changed)[0]).abs() > 1e-6


@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_residual_pair(size, device):
    torch.manual_seed(0)
    g, d = ResidualGenerator(5, 3, size, 4).to(device), ResidualDiscriminator(3, size, 4).to(device)
    images = g(torch.randn(2, 5, device=device))
    assert images.shape == (2, 3, size, size)
    assert d(images).shape == (2,)
    for _ in range(30):  # power iteration
        d(images)
    weights = [m.weight.flatten(1) for m in d.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.cpu(), 2).item() == pytest.approx(1, abs=0.05)
    assert not any(isinstance(m, (nn.MaxPool2d, nn.BatchNorm2d)) for m in d.modules())


def test_spectral_norm_is_put_on_once():
    net = spectrally_normalised(spectrally_normalised(MLP(2, ())))
    assert sum("original0" in name or name.endswith("original") for name in net.state_dict()) == 3


def test_sizes_are_checked():
    for wrong in (lambda: ResidualGenerator(5, 3, 7), lambda: MinibatchStdDev(0), lambda: Packing(nn.ReLU(), 0)):
        with pytest.raises(ValueError, match="at least"):
            wrong()
    with pytest.raises(ValueError, match="does not divide into groups of 4"):
        MinibatchDiscrimination(2, group=4)(torch.zeros(6, 2))
    with pytest.raises(ValueError, match="flatten them first"):
        MinibatchDiscrimination(2)(torch.zeros(6, 2, 2))
