"""The recipe ``images``: a file becomes the images it holds, a streamed folder shows each once, bad input says so."""

from __future__ import annotations

import gzip
import json
import signal
import struct
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import advrl
from advrl.agents import classifier, evaluation
from advrl.agents.checkpoint import load_checkpoint
from advrl.agents.classifier import PixelComponents
from advrl.cli import main
from advrl.data import ImageData, PictureBatches, PictureError, Streamed, find_pictures, open_images, sources
from advrl.data.sizes import check_size, fitting_size, square
from advrl.data.stream import rounds
from advrl.plots import read_metrics

TINY = ["--steps", "12", "--log-every", "4", "--picture-every", "6", "--checkpoint-every", "5", "--batch-size", "8",
        "--width", "2", "--latent", "4", "--quiet"]  # fmt: skip


def run(*argv: object) -> int:
    return main([str(a) for a in argv])


def numbered(number: int = 40, size: int = 8, channels: int = 1) -> np.ndarray:
    """(number, size, size, channels) random bytes whose first pixel is the image's number."""
    images = np.random.RandomState(0).randint(0, 256, (number, size, size, channels), np.uint8)
    images[:, 0, 0, 0] = np.arange(number)
    return images


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def write_folder(folder: Path, images: np.ndarray, classes: int = 0, kind: str = "png") -> Path:
    """Pictures 000.png, 001.png, ... in the folder, or in sub-folders c0, c1, ..."""
    for i, image in enumerate(images):
        place = folder / f"c{i % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(place / f"{i:03d}.{kind}")
    return folder


def idx(values: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape) + values.tobytes()


def both(data: ImageData) -> torch.Tensor:
    """All images in the order of their numbers."""
    images = torch.cat([data.train, data.held_out])
    return images[torch.tensor(numbers(images)).argsort()]


def expected(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) / 255


@pytest.fixture
def quick(monkeypatch):
    """A judge who looks at less."""
    monkeypatch.setattr(evaluation, "SHARES_FROM", 200)
    monkeypatch.setattr(evaluation, "FAST_FROM", 100)
    monkeypatch.setattr(evaluation.Evaluator.__init__, "__defaults__", ("cpu", 0, 20))  # the classifier's steps last
    monkeypatch.setattr(evaluation.Evaluator.evaluate, "__defaults__", (1,))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "train-images.idx3-ubyte"])
def test_idx_files_are_read_with_the_labels_beside_them(name, packed, tmp_path):
    images = numbered()
    pack = gzip.compress if packed else bytes
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(pack(idx(images[..., 0])))
    alone = open_images(path)
    assert isinstance(alone, ImageData) and alone.classes is None
    assert torch.equal(both(alone), expected(images))
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz"))
    labels.write_bytes(idx(np.arange(40, dtype=np.uint8) % 4))
    data = open_images(path)
    assert isinstance(data, ImageData) and data.train_labels is not None and data.classes == 4
    assert [n % 4 for n in numbers(data.train)] == data.train_labels.tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_are_read(channels, kind, tmp_path):
    images = numbered(channels=channels)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, images)
    else:
        np.savez(path, images=images, labels=np.arange(40) % 3)
    data = open_images(path)
    assert isinstance(data, ImageData) and torch.equal(both(data), expected(images))
    assert data.classes == (3 if kind == "npz" else None)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("classes", [0, 2])
def test_a_folder_is_decoded_and_its_sub_folders_are_classes(channels, classes, tmp_path):
    images = numbered(channels=channels)
    write_folder(tmp_path / "faces", images, classes)
    (tmp_path / "faces" / "notes.txt").write_text("not a picture")
    (tmp_path / "faces" / ".hidden.png").write_text("nor this")
    data = open_images(tmp_path / "faces")
    assert isinstance(data, ImageData) and data.name == "faces" and torch.equal(both(data), expected(images))
    assert data.classes == (classes or None)
    if data.train_labels is not None:
        assert [n % 2 for n in numbers(data.train)] == data.train_labels.tolist()


def test_one_sub_folder_is_no_class(tmp_path):
    write_folder(tmp_path, numbered(), 1)
    data = open_images(tmp_path)
    assert isinstance(data, ImageData) and data.classes is None and len(data.train) == 20


def test_every_kind_of_pixel_becomes_bytes(tmp_path):
    """Sixteen bits, black and white, palettes, transparency on white, photographs that lie on their side."""
    grey = np.full((8, 8), 100, np.uint8)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(grey > 0).save(tmp_path / "b.png")
    pictures = find_pictures(tmp_path)
    assert pictures.channels == 1
    assert [int(x) for x in pictures.read([0, 1])[:, 0, 3, 3]] == [100, 255]
    red = Image.fromarray(np.full((8, 8, 3), (204, 0, 0), np.uint8))
    red.convert("P").save(tmp_path / "c.png")
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "d.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4] = 250
    Image.fromarray(half).save(tmp_path / "e.png", exif=exif)
    pictures = find_pictures(tmp_path)
    assert pictures.channels == 3
    values = pictures.read(range(5))[:, :, 6, 6].tolist()
    assert values == [[100] * 3, [255] * 3, [204, 0, 0], [255] * 3, [250] * 3]


def test_sizes():
    assert [fitting_size(*hw) for hw in [(28, 28), (30, 30), (8, 9), (3, 3), (480, 640), (64, 64), (33, 50)]] == [
        28, 30, 8, 8, 64, 64, 33]  # fmt: skip
    assert check_size(128) == 128
    for size in (7, 0, -8):
        with pytest.raises(ValueError, match="--size must be at least 8"):
            check_size(size)
    images = torch.rand(2, 3, 12, 20)
    assert square(images[..., :12], 12).data_ptr() == images.data_ptr()
    torch.testing.assert_close(square(images, 12), images[..., 4:16])
    small = torch.nn.functional.avg_pool2d(images[..., 4:16], 2)
    assert (square(images, 6) - small).abs().mean() < 0.06  # a triangle filter is near the mean of the four
    torch.testing.assert_close(square(torch.full((2, 1, 10, 10), 0.3), 8), torch.full((2, 1, 8, 8), 0.3))


def test_the_size_option_reaches_arrays_and_pictures_of_any_size(tmp_path):
    np.save(tmp_path / "x.npy", numbered(size=30))
    for size, got in ((None, 30), (12, 12)):
        data = open_images(tmp_path / "x.npy", size)
        assert isinstance(data, ImageData) and data.shape == (1, got, got)
    mixed = tmp_path / "mixed"
    write_folder(mixed, numbered(channels=3))
    Image.new("RGB", (33, 21)).save(mixed / "z.jpg")
    with pytest.raises(ValueError, match=r"one size, but .*000\.png is 8 x 8 and .*z\.jpg is 33 x 21; give --size"):
        open_images(mixed)
    data = open_images(mixed, 16)
    assert isinstance(data, ImageData) and data.shape == (3, 16, 16) and len(data.train) + len(data.held_out) == 41


@pytest.mark.parametrize(("number", "batch"), [(20, 8), (7, 7), (5, 16)])
def test_rounds_show_everything_once(number, batch):
    stream = rounds(number, batch, seed=3)
    shown = np.concatenate([next(stream) for _ in range(3 * number)])
    turns = shown[: len(shown) // number * number].reshape(-1, number)
    assert (np.sort(turns) == np.arange(number)).all()
    assert len({tuple(turn) for turn in turns}) > 1, "every round has an order of its own"
    for start in (1, 2, 5):
        late = rounds(number, batch, seed=3, start=start)
        np.testing.assert_array_equal(
            np.concatenate([next(late) for _ in range(3)]), shown[start * batch :][: 3 * batch]
        )
    other = rounds(number, batch, seed=4)
    assert any((next(other) != shown[i * batch : (i + 1) * batch]).any() for i in range(3))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_folder_gives_every_picture_once_and_resumes_exactly(workers, tmp_path, device):
    images = numbered()
    write_folder(tmp_path, images, classes=2)
    source = open_images(tmp_path, stream=True)
    assert isinstance(source, Streamed)
    assert sorted([*source.train.tolist(), *source.held_out.tolist()]) == list(range(40))

    def batches() -> PictureBatches:
        return PictureBatches(source.pictures, source.train, lambda x: x, 8, seed=5, device=device, workers=workers)

    before = torch.get_rng_state()
    stream = batches()
    first = [next(stream) for _ in range(7)]
    assert torch.equal(torch.get_rng_state(), before), "the global generator is the model's"
    assert first[0].device.type == device.type and first[0].shape == (8, 1, 8, 8)
    shown = torch.cat(first).cpu()[:40]
    halves = [sorted(numbers(part)) for part in shown.split(20)]
    assert halves[0] == halves[1] == sorted(numbers(source.sample.train)), "the training half, once each round"
    torch.testing.assert_close(shown, expected(images)[numbers(shown)])
    state = stream.state_dict()
    assert state["drawn"] == 7, "what workers read ahead is not counted"
    rest = [next(stream) for _ in range(3)]
    again = batches()
    again.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(rest, [next(again) for _ in range(3)], strict=True))
    with pytest.raises(ValueError, match="pictures = 20, there are 19 now"):
        PictureBatches(source.pictures, source.train[:19], lambda x: x, 8).load_state_dict(state)


def test_a_folder_larger_than_memory_is_streamed(tmp_path, monkeypatch):
    write_folder(tmp_path, numbered())
    assert isinstance(open_images(tmp_path), ImageData)
    monkeypatch.setattr(sources, "IN_MEMORY", 4 * 8 * 8 * 39)
    monkeypatch.setattr(sources, "JUDGED", 5)
    monkeypatch.setattr(sources, "MINIMUM", 6)
    source = open_images(tmp_path)
    assert isinstance(source, Streamed)
    assert len(source.train) == len(source.held_out) == 20
    assert len(source.sample.train) == len(source.sample.held_out) == 6
    whole = open_images(tmp_path, stream=True)
    assert isinstance(whole, Streamed) and torch.equal(whole.train, source.train)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_breaks_on_the_way_is_named(workers, tmp_path):
    write_folder(tmp_path, numbered())
    source = open_images(tmp_path, stream=True)
    assert isinstance(source, Streamed)
    name = source.pictures.paths[int(source.train[3])]
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:50])
    stream = PictureBatches(source.pictures, source.train, lambda x: x, 10, workers=workers)
    with pytest.raises(PictureError, match=name) as error:
        next(islice(stream, 2, None))
    assert "\n" not in str(error.value)


def test_principal_components_of_large_images_take_few_of_them(monkeypatch):
    monkeypatch.setattr(classifier, "FITTED", 20)
    torch.manual_seed(0)
    images = torch.rand(60, 3, 16, 16)
    features = PixelComponents(images).features(images)
    assert features.shape == (60, 19)
    torch.testing.assert_close(torch.pdist(features[:20]), torch.pdist(images[:20].flatten(1)))


def test_train_sample_evaluate_and_plot_an_array(tmp_path, capsys, quick):
    np.savez(tmp_path / "x.npz", images=numbered(60, 12, 3), y=np.arange(60) % 3)
    argv = ["train", "images", "--data", tmp_path / "x.npz", *TINY[:-1]]
    assert run(*argv, "--out", tmp_path / "r") == 0
    out = capsys.readouterr().out
    for word in ("images: 30 training images of shape (3, 12, 12), 30 held out", "Path(n=1)", "confident", "Next:"):
        assert word in out
    assert run("sample", tmp_path / "r", "-n", 5, "--out", tmp_path / "s.png") == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 3, 12, 12)
    assert run("evaluate", tmp_path / "r", "--splits", 1) == 0
    assert run("plot", tmp_path / "r") == 0
    assert advrl.load(tmp_path / "r").sample(64).shape == (64, 3, 12, 12)
    report = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert len(report["class_shares"]["generated"]) == 3


@pytest.mark.parametrize(
    ("policy", "estimator"), [("binomial", "st"), ("bernoulli", "loo"), ("categorical", "gumbel"), ("gaussian", "path")]
)
def test_the_other_policies_are_a_flag_away(policy, estimator, tmp_path, quick):
    write_folder(tmp_path / "p", numbered(channels=3))
    argv = ["train", "images", "--data", tmp_path / "p", *TINY, "--steps", 3, "--policy", policy]
    assert run(*argv, "--estimator", estimator, "--out", tmp_path / "r") == 0
    assert advrl.load(tmp_path / "r").sample(3).shape == (3, 3, 8, 8)
    report = json.loads((tmp_path / "r" / "evaluation.json").read_text())
    assert report["class_shares"] == {} and "confident" not in report["rows"]["generated"]
    assert "principal components" in report["features"]


def test_a_streamed_run_resumes_as_the_one_that_was_never_interrupted(tmp_path, quick):
    """Killed from outside in mid-round, with two batches a step: state and metrics agree bit for bit."""
    write_folder(tmp_path / "p", numbered(channels=3))
    command = ["train", "images", "--data", str(tmp_path / "p"), *TINY, "--discriminator-steps", "2", "--workers", "0"]
    assert run(*command, "--out", tmp_path / "a") == 0
    code = (
        "import os, signal, sys\nfrom advrl.agents.adversarial import AdversarialTrainer as T\nstep = T.step\n"
        "def dying(self, batch, z=None):\n    if self.steps == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, batch, z)\nT.step = dying\nimport torch\ntorch.set_num_threads(1)\n"
        "from advrl.agents import evaluation\nevaluation.FAST_FROM = 100\n"
        "from advrl.cli import main\nmain(sys.argv[1:])"
    )
    call = [sys.executable, "-c", code, *command, "--out", str(tmp_path / "b")]
    assert subprocess.run(call, cwd=Path(__file__).parents[1], check=False).returncode == -signal.SIGKILL
    assert load_checkpoint(tmp_path / "b" / "checkpoint.pt")["step"] == 5
    assert run("train", "images", "--resume", tmp_path / "b", "--quiet") == 0
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in "ab")
    assert a["data"] == b["data"] and a["data"]["drawn"] == 12
    for part in ("generator", "discriminator", "average"):
        assert all(torch.equal(x, b["trainer"][part][k]) for k, x in a["trainer"][part].items())
    one, other = (read_metrics(tmp_path / name / "metrics.csv") for name in "ab")
    for name in one.keys() - {"seconds"}:
        np.testing.assert_array_equal(one[name], other[name])


def test_bad_input_ends_with_one_sentence_and_code_2(tmp_path, capsys):
    good = numbered()
    np.save(tmp_path / "good.npy", good)
    folders = {name: write_folder(tmp_path / name, good) for name in ("mixed", "corrupt", "truncated", "both")}
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "few", good[:5])
    write_folder(tmp_path / "lonely", good[:30], 2)
    write_folder(tmp_path / "lonely" / "c9", good[:1])
    write_folder(folders["both"] / "more", good[:3])
    Image.new("L", (9, 8)).save(folders["mixed"] / "zz.png")
    (folders["corrupt"] / "zz.png").write_bytes(b"no picture at all")
    content = (folders["truncated"] / "007.png").read_bytes()
    (folders["truncated"] / "007.png").write_bytes(content[: len(content) // 2])
    arrays = {
        "nan": np.where(np.arange(40)[:, None, None] == 7, np.nan, good[..., 0] / 255.0),
        "range": good[..., 0] / 100.0,
        "signed": good[..., 0] / 127.5 - 1,
        "flat": good.reshape(40, 64),
        "channels": np.repeat(good, 2, 3),
        "tiny": good[:3],
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    files = {
        "magic-images-idx3-ubyte": b"\x12\x34\x56\x78" + bytes(64),
        "float-images-idx3-ubyte": idx(np.zeros((40, 8, 8), ">f4"), 13),
        "short-images-idx3-ubyte": idx(good[..., 0])[:-10],
        "nothing-images-idx3-ubyte": b"",
        "broken-images-idx3-ubyte.gz": gzip.compress(idx(good[..., 0]))[:-30],
        "labels-idx1-ubyte": idx(np.zeros(40, np.uint8)),
        "wrong-images-idx3-ubyte": idx(good[..., 0]),
        "wrong-labels-idx1-ubyte": idx(np.zeros(39, np.uint8)),
        "words.txt": b"these are no images",
    }
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    cases = {
        "nowhere.npz": "no data file", "empty": "holds no pictures", "mixed": "zz.png is 9 x 8; give --size",
        "corrupt": "zz.png cannot be read as a picture", "truncated": "007.png cannot be read as a picture",
        "both": "both in itself", "few": "holds 5 pictures; at least 20", "lonely": "c9 holds a single picture",
        "nan.npy": "must be finite", "range.npy": "must be in [0, 1]", "signed.npy": "(x + 1) / 2",
        "flat.npy": "must have shape", "channels.npy": "must have shape", "tiny.npy": "holds 3 images",
        "magic-images-idx3-ubyte": "begins with 12 34 56 78", "float-images-idx3-ubyte": "type 0x0d",
        "short-images-idx3-ubyte": "may be truncated", "nothing-images-idx3-ubyte": "begins with nothing",
        "broken-images-idx3-ubyte.gz": "cannot read", "labels-idx1-ubyte": "must have shape",
        "wrong-images-idx3-ubyte": "wrong-labels-idx1-ubyte: labels must be 40 integers", "words.txt": "cannot read",
    }  # fmt: skip
    calls = [(["--data", tmp_path / name], words) for name, words in cases.items()]
    calls += [
        ([], "--data is missing: give a .npz or .npy array, an IDX file, or a folder of pictures"),
        (["--data", tmp_path / "good.npy", "--size", 7], "--size must be at least 8, got 7"),
        (["--data", tmp_path / "good.npy", "--batch-size", 21], "--batch-size 21 is more than the 20 images"),
        (["--data", tmp_path / "good.npy", "--workers", 2], "--workers is for a folder"),
        (["--data", tmp_path / "good.npy", "--workers", -1], "--workers must be at least 0"),
        (["--data", tmp_path / "good.npy", "--batch-size", 8, "--estimator", "loo"], "use path"),
    ]
    for argv, words in calls:
        code = run("train", "images", *argv, "--out", tmp_path / "fresh")
        captured = capsys.readouterr()
        assert code == 2, argv
        assert words in captured.err, (argv, captured.err)
        assert "Traceback" not in captured.err and captured.err.count("\n") == 1, captured.err
        if "--data" in argv and len(argv) == 2:
            assert str(argv[1]).removesuffix("wrong-images-idx3-ubyte") in captured.err
    assert not (tmp_path / "fresh").exists()


def test_a_picture_that_breaks_in_mid_run_ends_it_with_one_sentence(tmp_path, capsys, quick, monkeypatch):
    folder = write_folder(tmp_path / "p", numbered())
    source = open_images(folder, stream=True)
    assert isinstance(source, Streamed)
    name = source.pictures.paths[int(source.train[15])]
    (folder / name).write_bytes((folder / name).read_bytes()[:50])  # trained on, but not among the eight judged by
    monkeypatch.setattr(sources, "JUDGED", 8)
    monkeypatch.setattr(sources, "MINIMUM", 8)
    code = run("train", "images", "--data", folder, *TINY, "--workers", 0, "--out", tmp_path / "r")
    err = capsys.readouterr().err
    assert code == 2 and f"{name} cannot be read as a picture" in err and "Traceback" not in err


def test_ctrl_c_saves_though_it_reaches_the_workers_too(tmp_path):
    write_folder(tmp_path / "p", numbered())
    argv = ["train", "images", "--data", str(tmp_path / "p"), *TINY, "--steps", "1000000", "--picture-every", "1000000",
            "--workers", "1", "--out", str(tmp_path / "r")]  # fmt: skip
    code = (
        "import os, signal, sys, time, torch\ntorch.set_num_threads(1)\n"
        "from advrl.data import PictureBatches as B\nnext_batch = B.__next__\n"
        "def stopped(self):\n    if self.drawn == 7: os.killpg(0, signal.SIGINT); time.sleep(0.5)\n"
        "    return next_batch(self)\nB.__next__ = stopped\n"
        "from advrl.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=Path(__file__).parents[1], check=False,
                          capture_output=True, text=True, timeout=120, start_new_session=True)  # fmt: skip
    assert done.returncode == 130 and "interrupted at step 8" in done.stderr and "Traceback" not in done.stderr
    assert load_checkpoint(tmp_path / "r" / "checkpoint.pt")["data"]["drawn"] == 8


def test_mnist(data_dir):
    data = open_images(data_dir / "mnist_5k.npz")
    assert isinstance(data, ImageData) and data.shape == (1, 28, 28) and data.classes == 10
    assert len(data.train) == len(data.held_out) == 2500 and data.held_out_labels is not None
    assert torch.bincount(data.held_out_labels).tolist() == [250] * 10


def test_a_run_tells_whether_its_discriminator_knows_its_images_by_heart(tmp_path, quick):
    path, out = tmp_path / "images.npy", tmp_path / "run"
    np.save(path, numbered(64))
    small = ("--width", 4, "--batch-size", 16, "--steps", 6, "--picture-every", 3, "--log-every", 3, "--device", "cpu")
    assert run("train", "images", "--data", path, *small, "--quiet", "--out", out) == 0
    logged, data = read_metrics(out / "metrics.csv"), open_images(path)
    trainer = advrl.load(out, device="cpu").config.build(torch.device("cpu")).trainer
    trainer.load_state_dict(load_checkpoint(out / "checkpoint.pt", torch.device("cpu"))["trainer"])
    judge = trainer.discriminator.eval()
    for name, half in (("logit_seen", data.train), ("logit_held_out", data.held_out)):
        assert logged[name][-1] == pytest.approx(float(judge(half * 2 - 1).detach().mean()), abs=1e-6)
