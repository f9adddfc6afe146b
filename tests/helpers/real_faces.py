"""Faces of the real clips named by I4D_ASSETS: three frames of each of four people, detected by MediaPipe."""

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE = 256
EVERY = 26


def clip_frames(clip: str, count: int = 3):
    """RGB uint8 [SIDE,SIDE,3] frames of one clip."""
    import av

    out = []
    with av.open(str(Path(os.environ["I4D_ASSETS"]) / "clips" / f"{clip}.mp4")) as video:
        for k, frame in enumerate(video.decode(video=0)):
            if k % EVERY == 0:
                out.append(np.asarray(frame.to_image().resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
            if len(out) == count:
                return out
    return out


def load():
    """images [N,S,S,3] in 0..1, landmarks [N,68,2], who [N]."""
    from i4d_bench.data.video.landmarker import Landmarker, to68

    images, landmarks, who = [], [], []
    with Landmarker() as find:
        for person, clip in enumerate(("d0", "d3", "d9", "d18")):
            for frame in clip_frames(clip):
                face = find(frame)
                if face is not None:
                    images.append(torch.from_numpy(frame.copy()) / 255)
                    landmarks.append(torch.from_numpy(to68(face.landmarks)[:, :2]))
                    who.append(person)
    return torch.stack(images), torch.stack(landmarks), torch.tensor(who)
