"""Shapes, guidelines and refusals of the networks."""

import pytest
import torch
from torch import nn

from advrl.nn import FAMILIES, MLP, DCGANDiscriminator, DCGANGenerator, Policy


@pytest.mark.parametrize("size", [8, 9, 28, 30, 32, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_dcgan_shapes_and_guidelines(size, channels, device):
    g = DCGANGenerator(10, channels, size, width=4).to(device)
    d = DCGANDiscriminator(channels, size, width=4).to(device)
    x = g(torch.randn(3, 10, device=device))
    assert x.shape == (3, channels, size, size)
    assert d(x).shape == (3,)
    for net in (g, d):
        kinds = {type(m) for m in net.modules()}
        assert nn.BatchNorm2d in kinds
        assert not kinds & {nn.Linear, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in list(d.net)[:3])
    assert not isinstance(g.net[-1], (nn.BatchNorm2d, nn.Tanh))
    plain = DCGANDiscriminator(channels, size, 4, batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())


def test_dcgan_initial_weights_are_n_0_002():
    torch.manual_seed(0)
    weights = torch.cat([p.flatten() for n, p in DCGANGenerator(100, 1, 32, 32).named_parameters() if p.dim() == 4])
    n = len(weights)
    assert abs(weights.mean()) < 5 * 0.02 / n**0.5  # five standard errors
    assert abs(weights.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5


def test_convolutions_and_their_maps_have_channels_last():
    g, d = DCGANGenerator(5, 3, 16, 4), DCGANDiscriminator(3, 16, 4)
    maps = d.net[:2](g(torch.randn(2, 5)))
    assert maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    trunk = d.eval().trunk()
    features = trunk(torch.randn(2, 3, 16, 16))
    assert features.shape == (2, d.features)


def test_a_discriminator_without_batch_norm_judges_each_sample_alone():
    torch.manual_seed(0)
    d = DCGANDiscriminator(1, 8, 4, batch_norm=False)
    x = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(d(x)[:2], d(x[:2]))


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "silu", "tanh"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_shapes(activation, layer_norm, device):
    g = MLP(5, (2, 3, 3), (8, 7), activation, layer_norm, dropout=0.1).to(device)
    d = MLP((2, 3, 3), (), (8,)).to(device)
    x = g(torch.randn(4, 5, device=device))
    assert x.shape == (4, 2, 3, 3)
    assert d(x).shape == (4,)
    assert sum(isinstance(m, nn.LayerNorm) for m in g.modules()) == 2 * layer_norm
    assert MLP(3, 2, ())(torch.zeros(1, 3)).shape == (1, 2)


def test_networks_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="size must be at least 8, got 7"):
        DCGANGenerator(10, 1, 7)
    with pytest.raises(ValueError, match="width must be at least 1"):
        DCGANDiscriminator(1, 8, 0)
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        MLP(2, 2, activation="rellu")
    with pytest.raises(ValueError, match="hidden"):
        MLP(2, 2, (-1,))
    with pytest.raises(TypeError, match="in_shape must be an integer"):
        MLP(2.5, 1)
    with pytest.raises(TypeError, match="size must be an integer"):
        DCGANGenerator(10, 1, [8])
    with pytest.raises(ValueError, match=r"shape \(3,\), got a batch of shape \(2, 4\)"):
        MLP(3, 1)(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"shape \(3,\), got a batch of shape \(2, 4\)"):
        DCGANGenerator(3, 1, 8, 2)(torch.zeros(2, 4))
    for wrong in ((2, 1, 16, 16), (2, 3, 8, 8), (1, 8, 8)):  # 16 x 16 would give nine logits each
        with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), got a batch of shape"):
            DCGANDiscriminator(1, 8, 2)(torch.zeros(wrong))


@pytest.mark.parametrize("size", [8, 9, 28, 30, 32, 64])
def test_networks_can_be_built_and_run_on_meta(size):
    with torch.device("meta"):
        players = [
            (DCGANGenerator(5, 3, size, 2), DCGANDiscriminator(3, size, 2)),
            (MLP(5, (3, size, size), layer_norm=True, dropout=0.1), MLP((3, size, size), ())),
        ]
    for g, d in players:
        assert {p.device.type for net in (g, d) for p in net.parameters()} == {"meta"}
        x = g(torch.zeros(2, 5, device="meta"))
        assert x.shape == (2, 3, size, size)
        assert d(x).shape == (2,)


@pytest.mark.parametrize("name", FAMILIES)
def test_policies_draw_images_that_their_family_prepares(name, device):
    """What a policy draws lies where real images prepared for it lie: same values, or same range."""
    torch.manual_seed(0)
    family = FAMILIES[name]
    policy = Policy(MLP(4, (family.numbers, 5, 3), (8,)), family, 4).to(device)
    images = policy.sample(64)
    assert images.shape == (64, 1, 5, 3)
    assert policy.mean(policy.noise(2)).shape == (2, 1, 5, 3)
    real = family.prepare(torch.rand(64, 1, 5, 3, device=device))
    assert real.min() >= -1
    assert real.max() <= 1
    possible = {"binomial": 17, "categorical": 17, "bernoulli": 2}.get(name)
    if possible:
        levels = torch.linspace(-1, 1, possible, device=device)
        for values in (images, real):
            assert (values.flatten()[:, None] - levels).abs().min(1).values.max() < 1e-6
    distribution = policy.distribution(policy.noise(6))
    assert distribution.batch_shape == (6,)
    draw = distribution.sample((2,))
    assert policy.decode(draw).shape == (2, 6, 1, 5, 3)


def test_binomial_and_categorical_are_prepared_exactly():
    counts = torch.arange(17).float().view(1, 1, 1, 17)
    for name in ("binomial", "categorical"):
        assert torch.equal(FAMILIES[name].prepare(counts / 16), counts / 8 - 1)
    assert FAMILIES["bernoulli"].prepare(torch.tensor([0.0, 0.49, 0.5, 1.0])).tolist() == [-1, -1, 1, 1]
