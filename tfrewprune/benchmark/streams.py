# SPDX-License-Identifier: Apache-2.0
"""How long a frame takes in a stream: median and 99th percentile.

    python -m tfrewprune.benchmark.streams packed.tflite --streams 4 --workers 2

Every stream is pushed frame by frame, by as many Python threads as there are workers.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tfrewprune.runtime import Streamer


def frame_latencies(
    streamer: Streamer, streams: int, frames: int, workers: int
) -> np.ndarray:
    """Returns the seconds that each frame of each stream took.

    Args:
        streamer: The model.
        streams: Number of streams.
        frames: Frames of each.
        workers: Threads that push them; every one has its own streams.
    """
    data = [streamer.random_frames(1, seed) for seed in range(64)]

    def follow(worker: int) -> list[float]:
        mine = [streamer.stream() for _ in range(worker, streams, workers)]
        seconds = []
        for number in range(frames):
            for stream in mine:
                begin = time.perf_counter()
                stream.push(data[number % 64])
                seconds.append(time.perf_counter() - begin)
        return seconds

    with ThreadPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(follow, range(workers))))


def main(words: list[str] | None = None) -> int:
    """Measures the model of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tfrewprune.benchmark.streams",
        description="Latency of a frame in streams of a packed model.",
    )
    parser.add_argument("packed", type=Path, help="packed .tflite file")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--frames", type=int, default=10_000, help="of each stream")
    given = parser.parse_args(words)
    streamer = Streamer(given.packed, workers=given.workers)
    frame_latencies(streamer, given.streams, min(100, given.frames), given.workers)
    seconds = frame_latencies(streamer, given.streams, given.frames, given.workers)
    low, high, most = np.percentile(seconds, [50, 99, 100]) * 1e6
    print(
        f"{given.streams} streams, {given.workers} workers, {len(seconds)} frames: "
        f"median {low:.1f} us, 99th percentile {high:.1f} us, longest {most:.1f} us"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
