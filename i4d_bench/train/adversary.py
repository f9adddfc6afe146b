"""The adversarial term (PAPER §1): a discriminator that sees pictures together with the motion code they should show.

A projection discriminator (Miyato & Koyama 2018) with the non-saturating loss and a penalty on the gradient at true pictures (R1,
Mescheder et al. 2018), as in EG3D, on which the paper's encoder is built.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.train import distributed
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS

WIDTHS = (32, 64, 128, 256)
SIDE = 4
LR, PENALTY, EVERY = 1e-4, 1.0, 16
"""Of its Adam; weight of R1; the penalty is taken in every so many steps, and weighs so many times as much there."""


class Discriminator(nn.Module):
    """Pictures of any size of at least 16² → one logit each: is this the truth, and of this motion?"""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(SIDE), nn.Flatten(), nn.LeakyReLU(0.2))
        self.read = nn.Linear(channels * SIDE**2, channels)
        self.real = nn.Linear(channels, 1)
        self.motion = nn.Linear(MOTION_TOKENS * MOTION_DIM, channels, bias=False)

    def forward(self, images: Float[Tensor, "B H W 3"], motion: Float[Tensor, "B 512"]) -> Float[Tensor, " B"]:
        seen = F.leaky_relu(self.read(self.trunk(2 * images.movedim(-1, 1) - 1)), 0.2)
        return self.real(seen)[:, 0] + (seen * self.motion(motion)).sum(-1) / seen.shape[-1] ** 0.5


class Adversary:
    """A discriminator with its optimiser: judges the student, and learns beside it."""

    def __init__(self, device: torch.device):
        self.discriminator = Discriminator().to(device)
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=LR, betas=(0.0, 0.99))
        self.steps = 0

    def deceived(self, pred: Float[Tensor, "B H W 3"], motion: Float[Tensor, "B 512"]) -> Tensor:
        """The student's loss: low where its pictures pass for true ones."""
        self.discriminator.requires_grad_(False)
        return F.softplus(-self.discriminator(pred, motion)).mean()

    def study(
        self, pred: Float[Tensor, "B H W 3"], truth: Float[Tensor, "B H W 3"], motion: Tensor, share: float = 1.0
    ) -> None:
        """Gradients of what the student made and what it should have made, this share of a step's pictures."""
        self.discriminator.requires_grad_(True)
        penalised = self.steps % EVERY == 0
        truth, motion = truth.detach().requires_grad_(penalised), motion.detach()
        real = self.discriminator(truth, motion)
        loss = F.softplus(self.discriminator(pred.detach(), motion)).mean() + F.softplus(-real).mean()
        if penalised:
            slope = torch.autograd.grad(real.sum(), truth, create_graph=True)[0]
            loss = loss + EVERY * PENALTY / 2 * slope.square().sum((1, 2, 3)).mean()
        with torch.autograd.set_multithreading_enabled(False):
            (share * loss).backward()  # as `Trainer.step`

    def learn(self) -> None:
        """One step of the discriminator, from what was studied since the last."""
        distributed.average(self.discriminator.parameters())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
