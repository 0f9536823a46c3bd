"""Walks in the space of noise: what is kept on the way, sums of classes, and the noise of an image."""

import math

import pytest
import torch
from torch import nn

from advrl.agents import evaluation
from advrl.cli import main
from advrl.nn import arithmetic, class_means, lerp, project, slerp, truncated_normal
from advrl.recipes import load
from advrl.recipes.walks import edit, interpolate, read_image, sum_of_classes, truncate
from tests.statistics import assert_unbiased

T = torch.linspace(0, 1, 5, dtype=torch.float64)


def test_a_great_circle_keeps_the_norm_and_a_straight_way_does_not():
    torch.manual_seed(0)
    start, end = torch.randn(2, 6, 9, dtype=torch.float64)
    end = end / end.norm(dim=1, keepdim=True) * start.norm(dim=1, keepdim=True)
    way = slerp(start, end, T)
    assert way.shape == (5, 6, 9)
    torch.testing.assert_close(way.norm(dim=2), start.norm(dim=1).expand(5, 6))
    torch.testing.assert_close(way[0], start), torch.testing.assert_close(way[-1], end)
    assert (lerp(start, end, T)[2].norm(dim=1) < 0.99 * start.norm(dim=1)).all()
    cosine = nn.functional.cosine_similarity(way[1:], way[:-1], dim=-1)
    torch.testing.assert_close(cosine, cosine[:1].expand(4, 6))  # equal angles


def test_a_quarter_circle_by_hand():
    way = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([0.5]))
    torch.testing.assert_close(way, torch.tensor([[3 / math.sqrt(2), 3 / math.sqrt(2)]]))


def test_same_and_opposite_directions_go_straight():
    x = torch.tensor([1.0, 2.0, 2.0])
    torch.testing.assert_close(slerp(x, 2 * x, torch.tensor([0.5])), 1.5 * x[None])
    torch.testing.assert_close(slerp(x, x, torch.tensor([0.3])), x[None])
    assert slerp(x, -x, torch.tensor([0.5])).isfinite().all()
    assert slerp(torch.zeros(3), x, torch.tensor([0.5])).isfinite().all()


def test_truncated_noise_has_the_variance_of_a_truncated_normal():
    torch.manual_seed(0)
    z = truncated_normal((40_000, 1), 1.5, torch.zeros(1, dtype=torch.float64))
    density = math.exp(-1.125) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * 1.5 * density / math.erf(1.5 / math.sqrt(2))
    assert z.abs().max() <= 1.5
    assert_unbiased(torch.cat([z, z.square()], 1), torch.tensor([0.0, variance], dtype=torch.float64))
    assert truncated_normal((3,), 50.0, torch.zeros(1)).isfinite().all()


def test_sums_of_classes():
    means = torch.eye(4)
    assert arithmetic("3-1+2", means).tolist() == [0, -1, 1, 1]
    assert arithmetic(" -0 + 0 + 3", means).tolist() == [0, 0, 0, 1]
    for wrong in ("", "4", "3-", "a-b", "3*2", "1.5"):
        with pytest.raises(ValueError, match="sum of classes 0 to 3"):
            arithmetic(wrong, means)


def test_class_means_are_means():
    z, labels = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 2, 0, 1])
    means = class_means(z, labels, 3)
    for label in range(3):
        torch.testing.assert_close(means[label], z[labels == label].mean(0))
    with pytest.raises(ValueError, match="class 3 is not among the 6 samples"):
        class_means(z, labels, 4)


def test_moving_by_a_difference_of_means_moves_the_class():
    """Where classes are linear in z, a sample of b plus mean_a - mean_b is of class a more often than chance."""
    torch.manual_seed(0)
    linear = torch.randn(5, 16)
    z = torch.randn(4000, 16)
    labels = (z @ linear.T).argmax(1)
    means = class_means(z, labels, 5)
    for a, b in ((0, 3), (4, 1)):
        moved = z[labels == b] + arithmetic(f"{a}-{b}+{a}", means)
        assert ((moved @ linear.T).argmax(1) == a).double().mean() > 0.8
        assert int((linear @ arithmetic(f"{a}-{b}+{b}", means)).argmax()) == a


def test_projection_finds_the_noise_of_a_linear_image():
    torch.manual_seed(0)
    linear = torch.randn(20, 3)
    truth = torch.tensor([0.5, -1.0, 1.5])
    z, error = project(lambda z: z @ linear.T, linear @ truth, torch.randn(4, 3), steps=600, prior=0.0)
    torch.testing.assert_close(z, truth, atol=1e-2, rtol=0)
    assert error < 1e-3
    pulled, _ = project(lambda z: z @ linear.T, linear @ truth, torch.randn(4, 3), steps=600, prior=1e3)
    assert pulled.norm() < 0.2 * truth.norm()
    with pytest.raises(ValueError, match="the target"):
        project(lambda z: z @ linear.T, torch.zeros(3), torch.randn(4, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on the digits: enough for ten classes among its samples."""
    folder = tmp_path_factory.mktemp("latent") / "digits"
    small = ["--steps", "400", "--policy", "implicit", "--latent", "16", "--width", "64", "--batch-size", "64"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "SHARES_FROM", 500)
        patch.setattr(evaluation.Evaluator.evaluate, "__defaults__", (1,))
        assert main(["train", "digits", *small, "--picture-every", "400", "--quiet", "--out", str(folder)]) == 0
    return load(folder, checkpoint="last")


def test_a_run_s_walk_keeps_its_ends_and_leaves_a_picture(run, tmp_path):
    way = interpolate(run, tmp_path / "walk.png", rows=3)
    assert way.shape == (3, 10, 1, 8, 8) and (tmp_path / "walk.png").exists()
    assert torch.equal(way, interpolate(run, tmp_path / "again.png", rows=3))


def test_truncated_samples_are_less_various(run):
    spread = [truncate(run, limit, 200).std(0).mean() for limit in (0.1, 4.0)]
    assert spread[0] < 0.5 * spread[1]


def test_a_sum_of_classes_is_of_the_class_that_it_should_be(run, tmp_path):
    for target, other in ((0, 1), (6, 7), (3, 0)):
        told = sum_of_classes(run, f"{target}-{other}+{target}", tmp_path / "sum.png", n=50)
        assert told["shares"][target] > 0.5, (target, told["shares"])
        assert told["shares"].sum() == pytest.approx(1.0)


def test_a_sample_of_the_run_is_found_again_and_moved(run, tmp_path):
    image = run.sample(1, seed=3)[0].clamp(-1, 1)
    found = edit(run, image, "", tmp_path / "edit.png")
    assert found["error"] < 0.02 and found["images"].shape == (10, 1, 8, 8)
    moved = edit(run, image, "0-1", tmp_path / "moved.png", strength=2.0)
    assert (moved["images"][-1] - moved["images"][0]).abs().max() > 0.1


def test_the_command_line_walks(run, tmp_path, capsys):
    folder = str(run.folder)
    assert main(["sample", folder, "-n", "3", "--interpolate"]) == 0
    assert main(["sample", folder, "-n", "8", "--arithmetic", "6-1+0"]) == 0
    assert "of 8 samples around 6-1+0" in capsys.readouterr().out
    assert main(["sample", folder, "-n", "8", "--truncation", "0.5", "--out", str(tmp_path / "one.png")]) == 0
    assert main(["sample", folder, "--interpolate", "--truncation", "1"]) == 2
    assert main(["sample", folder, "--arithmetic", "6-x"]) == 2
    assert main(["sample", folder, "--truncation", "0"]) == 2
    assert main(["edit", folder, "--image", str(tmp_path / "one.png"), "--change", "6-1"]) == 0
    assert main(["edit", folder, "--image", str(tmp_path / "none.png")]) == 2
    (tmp_path / "text.png").write_text("no picture")
    assert main(["edit", folder, "--image", str(tmp_path / "text.png")]) == 2
    assert (run.folder / "samples" / "edit-1.png").exists()


def test_a_picture_is_read_as_it_is_drawn(tmp_path):
    from advrl.plots import image_grid, save_png

    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_png(image_grid(image, gap=0, scale=4), tmp_path / "it.png")
    torch.testing.assert_close(read_image(tmp_path / "it.png", (1, 8, 8)), image[0], atol=1 / 127, rtol=0)
    torch.testing.assert_close(
        read_image(tmp_path / "it.png", (1, 8, 8), light_ink=True), -image[0], atol=1 / 127, rtol=0
    )
