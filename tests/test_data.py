"""Data: halves that no seed of a run moves, files that say what is wrong with them, batches that resume exactly."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from advrl.data import Batches, ImageData, cycle, digits, load_images

FALSE_ALARM = 1e-6


def test_digits_are_sixteenths_in_stratified_halves():
    data = digits()
    assert data.name == "digits" and data.shape == (1, 8, 8) and data.classes == 10
    assert data.train.shape == (899, 1, 8, 8) and data.held_out.shape == (898, 1, 8, 8)
    assert data.train.dtype == torch.float32 and torch.equal(data.train * 16, (data.train * 16).round())
    counts = torch.bincount(data.train_labels) - torch.bincount(data.held_out_labels)
    assert counts.abs().max() <= 1
    assert len(data.train_labels[:20].unique()) > 1  # shuffled, so the first rows are a fair picture


def test_the_halves_share_no_image_and_miss_none():
    images = torch.arange(101.0).div(101).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    for labels in (None, torch.arange(101) % 7):
        data = ImageData.split(images, labels)
        both = torch.cat([data.train, data.held_out])[:, 0, 0, 0].sort().values
        assert torch.equal(both, images[:, 0, 0, 0])
        assert len(data.train) == 51 and len(data.held_out) == 50
        if labels is not None:
            assert torch.equal((data.train[:, 0, 0, 0] * 101).round().long() % 7, data.train_labels)


def test_no_global_generator_decides_the_halves():
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    first = digits()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(first.train, digits().train)
    images = torch.cat([first.train, first.held_out])
    assert not torch.equal(ImageData.split(images, seed=0).train, ImageData.split(images, seed=1).train)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train": torch.zeros(4, 8, 8)}, r"train must be floats of shape .*\(4, 8, 8\)"),
        ({"train": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)}, "torch.uint8"),
        ({"held_out": torch.full((4, 1, 8, 8), math.nan)}, r"held_out must be finite.*\(0, 0, 0, 0\)"),
        ({"held_out": torch.full((4, 1, 8, 8), 1.5)}, r"\[0, 1\], got values from 1.5"),
        ({"held_out": torch.zeros(4, 1, 8, 9)}, "one shape"),
        ({"train_labels": None}, "both halves or for neither"),
        ({"train_labels": torch.zeros(3, dtype=torch.int64)}, r"shape \(4,\), one per image"),
        ({"held_out_labels": -torch.ones(4, dtype=torch.int64)}, "count from 0"),
    ],
)
def test_image_data_refuses(change, match):
    labels = torch.zeros(4, dtype=torch.int64)
    images = torch.zeros(4, 1, 8, 8)
    good = {"train": images, "held_out": images, "train_labels": labels, "held_out_labels": labels}
    with pytest.raises(ValueError, match=match):
        ImageData("x", **{**good, **change})


def pictures(number: int = 24, shape: tuple[int, ...] = (5, 6), high: int = 256) -> np.ndarray:
    return np.random.RandomState(0).randint(0, high, (number, *shape)).astype(np.uint8)


def everything(data: ImageData) -> torch.Tensor:
    """Pixels of both halves in order, whatever the division."""
    return torch.cat([data.train, data.held_out]).flatten().sort().values


@pytest.mark.parametrize(
    ("array", "scale", "shape"),
    [
        (pictures(), 255, (1, 5, 6)),
        (pictures(shape=(5, 6, 3)), 255, (3, 5, 6)),
        (pictures(shape=(5, 6, 1)), 255, (1, 5, 6)),
        (pictures(shape=(3, 5, 6)), 255, (3, 5, 6)),
        (pictures(shape=(1, 5, 3)), 255, (1, 5, 3)),  # channels first, where both would fit
        (pictures(high=17).astype(np.int64), 16, (1, 5, 6)),
        (pictures(high=2), 1, (1, 5, 6)),
        (pictures(high=2).astype(bool), 1, (1, 5, 6)),
        (pictures() / 255, 1, (1, 5, 6)),
        ((pictures() / 255).astype(np.float16), 1, (1, 5, 6)),
        ((pictures() / 255).astype(">f4"), 1, (1, 5, 6)),
        (np.asfortranarray(pictures()), 255, (1, 5, 6)),
    ],
)
def test_arrays_of_every_accepted_kind(tmp_path: Path, array, scale, shape):
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "b.npz", images=array, other=np.zeros(3))
    np.savez(tmp_path / "c.npz", anything=array)
    expected = torch.from_numpy(array.astype(np.float32) / scale).flatten().sort().values
    for name in ("a.npy", "b.npz", "c.npz"):
        data = load_images(tmp_path / name)
        assert data.shape == shape and data.name == name[0] and data.classes is None
        assert data.train.dtype == torch.float32
        torch.testing.assert_close(everything(data), expected)


def test_channels_last_is_read_as_it_looks(tmp_path: Path):
    array = pictures(shape=(5, 6, 3))
    np.save(tmp_path / "a.npy", array)
    data = load_images(str(tmp_path / "a.npy"))
    rows = {image.tobytes() for image in array}
    for image in torch.cat([data.train, data.held_out]):
        assert (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy().tobytes() in rows


@pytest.mark.parametrize("key", ["labels", "y"])
def test_labels_are_renumbered_and_stay_with_their_images(tmp_path, key):
    labels = np.array([3, 7, 40] * 8)
    np.savez(tmp_path / "a.npz", images=np.broadcast_to((labels / 40)[:, None, None], (24, 4, 4)), **{key: labels})
    data = load_images(tmp_path / "a.npz")
    assert data.classes == 3
    for images, numbers in ((data.train, data.train_labels), (data.held_out, data.held_out_labels)):
        torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([3 / 40, 7 / 40, 1.0])[numbers])
        assert torch.bincount(numbers).tolist() == [4, 4, 4]


def _nan() -> np.ndarray:
    array = pictures() / 255
    array[3, 1, 2] = np.nan
    return array


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"images": np.zeros((0, 8, 8))}, "is empty.*(0, 8, 8)"),
        ({"images": pictures().reshape(24, 30)}, r"\(N, H, W\).*got \(24, 30\) of uint8"),
        ({"images": pictures(shape=(5, 6, 4))}, r"1 or 3 channels, got \(24, 5, 6, 4\)"),
        ({"images": pictures(19)}, "holds 19 images.*at least 20"),
        ({"images": _nan()}, r"entry \(3, 0, 1, 2\).*is nan \(1 entries"),
        ({"images": np.full((24, 4, 4), np.inf)}, "must be finite"),
        ({"images": pictures() / 100}, r"in \[0, 1\], got values from .* to 2.55; scale"),
        ({"images": pictures() / 127.5 - 1}, r"\(x \+ 1\) / 2"),
        ({"images": pictures().astype(np.int16) - 3}, r"in 0..255, got values from -3"),
        ({"images": pictures().astype(np.uint16) * 256}, r"in 0..255"),
        ({"images": pictures().astype(complex)}, "complex128.*are not numbers"),
        ({"images": pictures().astype(str)}, "are not numbers"),
        ({"images": np.full((24, 4, 4), 0.5)}, "the same image"),
        ({"images": pictures(), "labels": np.arange(23)}, r"24 integers, one per image, got int64 of shape \(23,\)"),
        ({"images": pictures(), "y": np.zeros(24)}, "float64"),
        ({"images": pictures(), "y": np.eye(24, dtype=int)}, r"shape \(24, 24\)"),
        ({"images": pictures(), "labels": np.array([0] * 23 + [5])}, "label 5 has a single image"),
        ({"a": pictures(), "b": pictures()}, "'images' or a single array, got 'a', 'b'"),
        ({"labels": np.arange(24)}, "'images' or a single array, got none"),
        ({"images": np.array([None] * 24)}, "cannot read.*allow_pickle"),
    ],
)
def test_bad_contents_are_named(tmp_path: Path, arrays, match):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=match) as raised:
        load_images(path)
    assert str(path) in str(raised.value)


def test_bad_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no data file .*missing\.npz"):
        load_images(tmp_path / "missing.npz")
    with pytest.raises(ValueError, match="is not a file"):
        load_images(tmp_path)
    np.savez_compressed(tmp_path / "good.npz", images=pictures(200), labels=np.arange(200) % 5)
    np.save(tmp_path / "good.npy", pictures(200))
    broken = {
        "empty": b"",
        "text": b"5,3\n1,2\n",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "pickle": b"\x80\x04K\x01.",
    }
    for name in ("good.npz", "good.npy"):
        whole = (tmp_path / name).read_bytes()
        for share in (0.01, 0.1, 0.5, 0.9, 0.99):
            broken[f"{name}-{share}"] = whole[: int(share * len(whole))]
    for name, content in broken.items():
        path = tmp_path / f"{name}.bad"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"cannot read {re.escape(str(path))}"):
            load_images(path)


def test_a_damaged_archive_is_refused_wherever_the_damage_is(tmp_path: Path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=pictures(40))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            data = load_images(path)
        except ValueError:
            continue
        assert len(data.train) + len(data.held_out) == 40  # damage to what is not read, a date for one


def test_mnist(data_dir):
    data = load_images(data_dir / "mnist_5k.npz")
    assert data.shape == (1, 28, 28) and data.classes == 10
    assert torch.bincount(data.train_labels).tolist() == [250] * 10 == torch.bincount(data.held_out_labels).tolist()
    assert data.train.max() == 1 and data.train.min() == 0


def test_batches_draw_every_row_alike():
    rows, size, rounds = 10, 50, 400
    batches = Batches(torch.arange(rows), size, seed=0)
    assert next(batches).shape == (size,)
    counts = torch.bincount(torch.cat([next(batches) for _ in range(rounds)]), minlength=rows)
    number = size * rounds
    z = (counts - number / rows) / math.sqrt(number * (1 / rows) * (1 - 1 / rows))
    assert z.abs().max() < NormalDist().inv_cdf(1 - FALSE_ALARM / (2 * rows))


def test_batches_resume_exactly_and_leave_the_global_generator_alone(tmp_path: Path):
    images = torch.rand(30, 1, 4, 4)
    before = torch.get_rng_state()
    batches = Batches(images, 8, seed=3)
    for _ in range(5):
        next(batches)
    torch.save(batches.state_dict(), tmp_path / "state.pt")
    ahead = [next(batches) for _ in range(5)]
    resumed = Batches(images, 8, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(torch.equal(batch, next(resumed)) for batch in ahead)
    assert resumed.state_dict()["drawn"] == 10
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_go_on_where_the_device_is_of_another_kind():
    batches = Batches(torch.arange(30), 8, seed=3)
    start = [next(batches) for _ in range(5)]
    state = {**batches.state_dict(), "device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    first, second = Batches(torch.arange(30), 8), Batches(torch.arange(30), 8)
    first.load_state_dict(state)
    second.load_state_dict(state)
    batch = next(first)
    assert torch.equal(batch, next(second)) and not any(torch.equal(batch, old) for old in start)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((torch.zeros(0, 2), 4), ValueError),
        ((torch.tensor(1.0), 4), ValueError),
        ((torch.zeros(3, 2), 0), ValueError),
        ((torch.zeros(3, 2), 2.0), TypeError),
    ],
)
def test_batches_refuse(arguments, error):
    with pytest.raises(error):
        Batches(*arguments)


def test_cycle_goes_round_and_takes_the_images():
    images = torch.arange(5.0)
    loader = DataLoader(TensorDataset(images, torch.zeros(5)), batch_size=2)
    rounds = cycle(loader)
    assert torch.equal(torch.cat([next(rounds) for _ in range(6)]), images.repeat(2))
    assert torch.equal(next(cycle([images])), images)
    with pytest.raises(ValueError, match="list gave no batch"):
        next(cycle([]))
    once = cycle(iter([images]))
    next(once)
    with pytest.raises(ValueError, match="gone through repeatedly"):
        next(once)
