"""Flame graphs of fzgw during one TCP stream in each direction.

    python benches/gateway/flames.py --harness HARNESS --bin BIN --output FOLDER

Needs perf, and inferno-collapse-perf and inferno-flamegraph (cargo install inferno) on the PATH. Writes
FOLDER/bench-gateway-up.svg and bench-gateway-down.svg, and beside each the folded stacks it was drawn from.
Stacks are unwound by the debugging information, since release builds have no frame pointers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from laboratory import DIRECTIONS, Laboratory, LaboratoryError, Spec, main, measuring, options

FREQUENCY = 499
"""Samples a second: not in step with anything that happens every millisecond."""
MARGIN = 30
"""Seconds that the stream lasts longer than the recording; it is ended with it."""

FZGW = Spec("fzgw", str(Path(__file__).with_name("start.sh")) + " {ifname}", str(Path(__file__).with_name("setup.sh")))


def record(laboratory: Laboratory, pid: int, direction: str, seconds: float, data: Path) -> None:
    """Samples the gateway during one stream."""
    with measuring():
        stream = laboratory.stream(direction, seconds + MARGIN)
        sampled = ("--pid", str(pid), "--freq", str(FREQUENCY), "--call-graph", "dwarf", "--output", str(data))
        finished(["perf", "record", "--quiet", *sampled, "--", "sleep", str(seconds)], seconds + MARGIN)
        laboratory.end(stream)


def draw(data: Path, title: str, folded: Path, picture: Path) -> None:
    """From samples to a picture."""
    # What was inlined into a frame would be asked of addr2line frame by frame, which takes hours.
    tell = ["perf", "script", "--no-inline", "--input", str(data)]
    with (
        folded.open("wb") as stacks,
        subprocess.Popen(tell, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as script,
    ):
        finished(["inferno-collapse-perf"], 600, stdin=script.stdout, stdout=stacks)
    if script.returncode or not folded.stat().st_size:
        raise LaboratoryError(f"perf script found no stacks in what was recorded for {picture.name}")
    with picture.open("wb") as drawn:
        finished(["inferno-flamegraph", "--title", title, str(folded)], 600, stdout=drawn)


def finished(
    argv: Sequence[str], timeout: float, *, stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> None:
    """Runs a program to its end; LaboratoryError where it fails."""
    try:
        done = subprocess.run(argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LaboratoryError(f"{' '.join(argv)}: no end within {timeout:g} s") from error
    if done.returncode:
        raise LaboratoryError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr.decode(errors='replace')}")


def run(arguments: Sequence[str] | None) -> int:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--secs", type=float, default=8, help="seconds of each recording")
    given = parser.parse_args(arguments)

    with (
        tempfile.TemporaryDirectory(prefix="fzgw-flames-") as name,
        Laboratory(given.harness, given.bin, Path(name)) as laboratory,
    ):
        gateway = laboratory.start_gateway(FZGW)
        laboratory.connect()
        for direction in DIRECTIONS:
            data = Path(name, f"{direction}.perf")
            record(laboratory, gateway.pid, direction, given.secs, data)
            picture = given.output / f"bench-gateway-{direction}.svg"
            draw(data, f"fzgw, one TCP stream {direction}", picture.with_suffix(".folded"), picture)
            print(picture, file=sys.stderr)
    return 0


if __name__ == "__main__":
    main(run)
