"""What ``prepare`` costs on a long video: time per frame that is looked at, and memory, beside a tenth of its length.

    python benchmarks/prepare.py [--seconds 600] [--frames 300]

Draws two videos of a person who does not exist (320x240, 25 frames a second, H.264): one of ``--seconds`` and one of a
tenth of that, which is the baseline. ``python -m clstudy.identities prepare`` runs on each in a process of its own. As
many frames are looked at in both, so that the ratio shows what length costs: every frame is decoded, and none is kept.
Needs PyAV (``clstudy[video]``).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image

from clstudy.identities.people import FaceTools, draw_person

WIDTH, HEIGHT, SIDE, RATE, LOOKS = 320, 240, 112, 25, 200
MB = 1024  # ru_maxrss counts kilobytes on Linux


def pictures() -> list[np.ndarray]:
    """Frames with one face each, in other expressions and places."""
    tools = FaceTools.load()
    person = draw_person(tools, 1, 7)
    rng = np.random.default_rng(0)
    faces = tools.source.draw(person.latent + 0.3 * rng.standard_normal((LOOKS, len(person.latent))))
    ground = np.clip(120 + 20 * rng.standard_normal((HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
    frames = []
    for number, face in enumerate(faces):
        frame = ground.copy()
        x, y = 60 + number % 60, 50 + number % 40
        frame[y : y + SIDE, x : x + SIDE] = np.asarray(Image.fromarray(face).resize((SIDE, SIDE)))
        frames.append(frame)
    return frames


def write_video(path: Path, looks: list[np.ndarray], seconds: int) -> None:
    """Every look is held for a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for second in range(seconds):
            for _ in range(RATE):
                picture = av.VideoFrame.from_ndarray(looks[second % len(looks)], format="rgb24")
                container.mux(stream.encode(picture))
        container.mux(stream.encode())


def measure(video: Path, out: Path, frames: int) -> tuple[float, float, int]:
    """Seconds by the clock, peak memory in MB, and the exit code of one run."""
    command = [sys.executable, "-m", "clstudy.identities", "prepare", str(video), str(out), "--identity", "anna"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--frames", str(frames), "--allow-fewer"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - began, usage.ru_maxrss / MB, os.waitstatus_to_exitcode(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--frames", type=int, default=300)
    args = parser.parse_args()
    looks = pictures()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for seconds in (args.seconds // 10, args.seconds):
            video = Path(folder) / f"{seconds}.mp4"
            write_video(video, looks, seconds)
            took, memory, code = measure(video, Path(folder) / f"photos-{seconds}", args.frames)
            found[seconds] = took, memory
            said = f"{took:.1f} s, {took / args.frames:.3f} s a frame, at most {memory:.0f} MB (exit code {code})"
            print(f"{seconds} s, {seconds * RATE} frames, {args.frames} looked at: {said}", flush=True)
    (short, long) = found.values()
    print(f"ten times the length: {long[0] / short[0]:.2f} times the time, {long[1] / short[1]:.2f} times the memory")


if __name__ == "__main__":
    main()
