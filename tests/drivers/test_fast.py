"""The folded ResNet is the ResNet."""

import pytest
import torch
from torchvision.models import resnet18, resnet50

from i4d_bench.drivers.fast import Folded


def trained():
    """Batch norms that have seen something."""
    torch.manual_seed(0)
    network = resnet18(num_classes=7)
    with torch.no_grad():
        for _ in range(2):
            network(torch.rand(4, 3, 64, 64))
    return network.eval()


def test_folding_changes_nothing_and_leaves_the_network_alone():
    network, images = trained(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        true = network(images)
        torch.testing.assert_close(Folded(network)(images), true, rtol=1e-4, atol=1e-4)
        Folded(network).half()
        torch.testing.assert_close(network(images), true)


def test_other_blocks_are_refused():
    with pytest.raises(TypeError, match="basic blocks"):
        Folded(resnet50())


@pytest.mark.gpu
def test_it_is_the_same_on_a_gpu_in_half_precision():
    network, images = trained().cuda(), torch.rand(1, 3, 224, 224, device="cuda")
    with torch.no_grad():
        fast = Folded(network).half()(images.half())
        torch.testing.assert_close(fast.float(), network(images), rtol=2e-2, atol=2e-2)
