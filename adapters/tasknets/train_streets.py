"""Trains StreetsNet on the synthetic street scenes: `python -m tasknets.train_streets`.

Writes the weights that the package carries, in half precision. Seeds below `_HELD_OUT` are trained on, those from there
on are for scoring.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tasknets import registry
from tasknets.scenes import SceneGenerator
from tasknets.scores import mean_iou
from tasknets.streets import StreetsNet

_HELD_OUT = 1_000_000
_CROP = (192, 256)  # height, width
_LIVE = 12  # generators that a batch is drawn from
_RENEWED = 3  # steps after which one of them is replaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "weights" / "streets.pt")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    model = train(StreetsNet(), arguments.seed, arguments.steps, arguments.batch, arguments.rate)
    save(model, arguments.output)
    network = registry.load("streets", arguments.output)
    print(
        f"held-out mIoU {evaluate(network):.4f}, {arguments.output.stat().st_size / 1e6:.2f} MB at {arguments.output}"
    )


def train(model: nn.Module, seed: int, steps: int, batch: int, rate: float) -> nn.Module:
    """`model` after `steps` of AdamW with a one-cycle rate on random crops; prints the loss as it goes."""
    rng = np.random.default_rng(seed)
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    # Preprocessing is the deployed one, so that training and use cannot drift apart.
    preprocess = registry.untrained("streets").preprocess
    live = [_generator(rng) for _ in range(_LIVE)]
    begun, losses = time.perf_counter(), []
    for step in range(steps):
        if step % _RENEWED == 0:
            live[step // _RENEWED % _LIVE] = _generator(rng)
        pairs = [_crop(rng, live[rng.integers(_LIVE)]) for _ in range(batch)]
        x = torch.cat([preprocess(frame) for frame, _ in pairs]).contiguous(memory_format=torch.channels_last)
        target = torch.stack([labels for _, labels in pairs]).long()
        logits = F.interpolate(model(x), target.shape[-2:], mode="bilinear", align_corners=False)
        loss = F.cross_entropy(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            elapsed = time.perf_counter() - begun
            print(f"step {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} {elapsed:.0f} s", flush=True)
    return model.eval()


def evaluate(network: registry.TaskNetwork, scenes: int = 8, height: int = 384, width: int = 768) -> float:
    """Mean IoU on frames of generators never trained on, fixed and panning in turn."""
    predictions, targets = [], []
    for number in range(scenes):
        camera = ("fixed", "pan")[number % 2]
        scene = SceneGenerator(_HELD_OUT + number, height, width, camera)[97 * number]
        with torch.inference_mode():
            output = network.model(network.preprocess(scene.frame))
        predictions.append(network.predict(output, (height, width)))
        targets.append(scene.labels)
    return mean_iou(torch.stack(predictions), torch.stack(targets), len(network.class_names))


def save(model: nn.Module, path: Path) -> None:
    """The state_dict in half precision; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        key: value.detach().half().contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _generator(rng: np.random.Generator) -> SceneGenerator:
    height = int(rng.integers(10, 19)) * 32
    camera = ("fixed", "pan")[rng.integers(2)]
    noise = float(rng.uniform(0, 6))
    return SceneGenerator(int(rng.integers(_HELD_OUT)), height, 2 * height, camera, noise)


def _crop(rng: np.random.Generator, generator: SceneGenerator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random window of a random frame, at times mirrored, in another light."""
    scene = generator[int(rng.integers(5000))]
    y = int(rng.integers(generator.height - _CROP[0] + 1))
    x = int(rng.integers(generator.width - _CROP[1] + 1))
    frame = scene.frame[y : y + _CROP[0], x : x + _CROP[1]]
    labels = scene.labels[y : y + _CROP[0], x : x + _CROP[1]]
    if rng.random() < 0.5:
        frame, labels = frame.flip(1), labels.flip(1)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3)).float()
    return (frame.float() * gain + 0.5).clamp(0, 255).to(torch.uint8), labels


if __name__ == "__main__":
    main()
