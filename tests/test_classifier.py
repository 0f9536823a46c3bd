"""The judge: accurate, the same for everyone, leaving no trace but its cache, which nothing in it can spoil."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor

from advrl import seeding
from advrl.agents import classifier as module
from advrl.agents.classifier import Classifier, PixelComponents, cache_folder, cached_classifier, train_classifier
from advrl.data import ImageData, digits, load_images


def signed(images: Tensor) -> Tensor:
    return 2 * images - 1


@pytest.fixture
def toy() -> ImageData:
    """Two easy classes: ink above or below."""
    labels = torch.arange(60) % 2
    images = 0.1 * torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[labels == 0, :, :2] += 0.8
    images[labels == 1, :, 2:] += 0.8
    return ImageData.split(images, labels)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("ADVRL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(a: Classifier, b: Classifier) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def accuracy(classifier: Classifier, data: ImageData) -> float:
    return float((classifier(signed(data.held_out)).argmax(1) == data.held_out_labels).double().mean())


def test_digits_are_told_apart():
    data = digits()
    classifier = train_classifier(data, signed, steps=200)
    assert accuracy(classifier, data) >= 0.96  # what an evaluation asks of its judge; the default trains for longer
    assert not classifier.training and not any(p.requires_grad for p in classifier.parameters())


def test_mnist_is_told_apart(data_dir: Path):
    data = load_images(data_dir / "mnist_5k.npz")
    assert (
        accuracy(train_classifier(data, signed, steps=40), data) > 0.7
    )  # ten classes; the default 600 steps reach 97 %


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 28, 28), (3, 64, 64), (1, 1, 1)])
def test_any_size_fits(shape):
    classifier = Classifier(shape, 7)
    images = torch.zeros(2, *shape)
    assert classifier.features(images).shape == (2, 64) and classifier(images).shape == (2, 7)
    assert module._shifted(images).shape == images.shape


def test_shifting_moves_whole_images_by_a_little():
    torch.manual_seed(0)
    image = torch.arange(64.0).view(1, 1, 8, 8)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    allowed = {padded[:, :, i : i + 8, j : j + 8].contiguous().numpy().tobytes() for i in range(3) for j in range(3)}
    seen = {row.contiguous().numpy().tobytes() for row in module._shifted(image.expand(500, -1, -1, -1)).unsqueeze(1)}
    assert seen == allowed


def test_training_depends_on_its_own_seed_alone(toy, cache):
    torch.manual_seed(1)
    before = seeding.rng_state()
    first = train_classifier(toy, signed, steps=5)
    cached_classifier(toy, signed, steps=5)  # trains
    cached_classifier(toy, signed, steps=5)  # reads
    after = seeding.rng_state()
    assert torch.equal(before["torch"], after["torch"]) and before["python"] == after["python"]
    assert torch.equal(before["numpy"]["keys"], after["numpy"]["keys"])
    torch.manual_seed(2)
    assert same(first, train_classifier(toy, signed, steps=5))
    assert not same(first, train_classifier(toy, signed, seed=1, steps=5))


def test_a_random_preparation_is_as_good(toy, cache):
    def binarised(images: Tensor) -> Tensor:
        return 2 * torch.bernoulli(images) - 1

    torch.manual_seed(5)
    first = cached_classifier(toy, binarised, steps=5)
    assert same(first, cached_classifier(toy, binarised, steps=5)) and len(list(cache.iterdir())) == 1
    assert same(first, train_classifier(toy, binarised, steps=5))


def test_the_cache_is_used_and_keyed_by_what_matters(toy, cache, monkeypatch):
    first = cached_classifier(toy, signed, steps=5)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(module, "_train", lambda *_: pytest.fail("trained again"))
        again = cached_classifier(toy, signed, steps=5)
    assert same(first, again) and not again.training and not any(p.requires_grad for p in again.parameters())
    relabelled = ImageData("x", toy.train, toy.held_out, 1 - toy.train_labels, 1 - toy.held_out_labels)
    cached_classifier(toy, signed, seed=1, steps=5)
    cached_classifier(toy, signed, steps=6)
    cached_classifier(toy, lambda images: images, steps=5)
    cached_classifier(relabelled, signed, steps=5)
    assert len(list(cache.iterdir())) == 5


def stored(content: object) -> bytes:
    """A cache file's bytes, digest and all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def test_a_spoilt_cache_file_is_trained_over(toy, cache):
    good = cached_classifier(toy, signed, steps=2)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    key = torch.load(io.BytesIO(whole[32:]), weights_only=True)["key"]
    assert stored({"key": key, "state": good.state_dict()}) == whole
    spoilt = [b"", b"not a checkpoint", b"PK\x03\x04", whole[32:], whole[:100], whole[: len(whole) // 2], whole[:-9]]
    spoilt += [hashlib.sha256(b"foreign").digest() + b"foreign", hashlib.sha256(b"").digest()]
    spoilt += [
        stored(content)
        for content in (
            {"key": "another", "state": good.state_dict()},
            {"key": key, "state": Classifier((3, 9, 9), 4).state_dict()},
            {"key": key, "state": 3},
            {"key": key, "state": toy},  # an object: weights_only refuses it
            [1, 2],
        )
    ]
    for content in spoilt:
        path.write_bytes(content)
        assert same(good, cached_classifier(toy, signed, steps=2))
        assert path.read_bytes() == whole
    assert list(cache.iterdir()) == [path]  # no temporary file is left


def test_a_changed_byte_anywhere_is_noticed(toy, cache):
    cached_classifier(toy, signed, steps=2)
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    key = torch.load(io.BytesIO(whole[32:]), weights_only=True)["key"]
    assert module._read(path, key) is not None
    for place in range(0, len(whole), len(whole) // 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert module._read(path, key) is None


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(toy, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ADVRL_CACHE", str(tmp_path / "file" / "cache"))
    assert same(cached_classifier(toy, signed, steps=2), train_classifier(toy, signed, steps=2))

    monkeypatch.setenv("ADVRL_CACHE", str(tmp_path / "full"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    assert same(cached_classifier(toy, signed, steps=2), train_classifier(toy, signed, steps=2))
    assert not list((tmp_path / "full").iterdir())


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVRL_CACHE", "a")
    monkeypatch.setenv("XDG_CACHE_HOME", "b")
    assert cache_folder() == Path("a")
    monkeypatch.delenv("ADVRL_CACHE")
    assert cache_folder() == Path("b/advrl")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache/advrl"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None


def test_labels_and_steps_are_needed(toy, cache):
    unlabelled = ImageData("bare", toy.train, toy.held_out)
    for train in (train_classifier, cached_classifier):
        with pytest.raises(ValueError, match="needs labels, and the data set 'bare' has none"):
            train(unlabelled, signed)
        with pytest.raises(ValueError, match="steps must be at least 1"):
            train(toy, signed, steps=0)


@pytest.mark.parametrize("number", [30, 300])
def test_components_are_the_leading_ones(number):
    """Of fewer images than pixels, and of more: the variances are the largest eigenvalues, uncorrelated."""
    images = torch.rand(number, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    components = PixelComponents(images)
    features = components.features(images)
    assert features.shape == (number, min(64, number - 1))
    exact = torch.linalg.eigvalsh(torch.cov(images.flatten(1).T.double()))[-features.shape[1] :]
    torch.testing.assert_close(torch.cov(features.T.double()), torch.diag(exact), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features.mean(0), torch.zeros(features.shape[1]), atol=1e-5, rtol=0)


def test_a_default_device_is_not_used_for_anything(toy, cache):
    torch.set_default_device("meta")
    try:
        classifier = cached_classifier(toy, signed, steps=3)
        assert classifier(signed(toy.held_out)).isfinite().all()
        assert PixelComponents(toy.train).features(toy.held_out).isfinite().all()
    finally:
        torch.set_default_device(None)
