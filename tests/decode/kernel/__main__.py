"""Fuzz the scanner: `python -m tests.decode.kernel -runs=100000`, libFuzzer's options.

AddressSanitizer and UndefinedBehaviorSanitizer watch it. The seeds are the texts of
tests/decode/test_shapes.py, each also cut at every byte. Needs clang.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.decode.test_file import NOT_ROWS
from tests.decode.test_shapes import ARRAYS, LAYOUTS, MIXED, PITFALLS, SCANNED

HERE = Path(__file__).parent
SCANNER = HERE.parents[2] / "etl/decode/kernel/scan.c"
SANITIZERS = "fuzzer,address,undefined"
SEED_MAX_BYTES = 1500
# Pieces, rows, bytes, flags: see fuzz.c. A batch is full after 8 rows, a buffer after 90 bytes.
HOW = (bytes([6, 0, 90, 0]), bytes([255, 3, 255, 2]))


def write_seeds(folder: Path) -> None:
    """Write each text as an input of the target."""
    texts = [*SCANNED.values(), *MIXED.values(), *LAYOUTS.values(), *ARRAYS.values()]
    texts += [*PITFALLS.values(), *NOT_ROWS]
    for number, text in enumerate(texts):
        seed = text.encode("utf-8", "surrogatepass")[:SEED_MAX_BYTES]
        for how, header in enumerate(HOW):
            Path(folder, f"{number:03d}-{how}").write_bytes(header + seed)


def main() -> int:
    """Build the target and run it; a crash leaves a file of the bytes and a non-zero exit code."""
    with tempfile.TemporaryDirectory() as folder:
        target, corpus = Path(folder, "fuzz"), Path(folder, "corpus")
        corpus.mkdir()
        flags = ["-std=c11", "-g", "-O1", f"-fsanitize={SANITIZERS}"]
        flags += ["-fno-sanitize-recover=all", "-o", str(target)]
        subprocess.run(["clang", *flags, HERE / "fuzz.c", SCANNER], check=True)
        write_seeds(corpus)
        options = ["-len_control=0", f"-max_len={SEED_MAX_BYTES}", "-timeout=60", *sys.argv[1:]]
        environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
        done = subprocess.run([target, *options, corpus], check=False, env=environment)
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
