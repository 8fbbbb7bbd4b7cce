"""Runs the tests that the project limits has for its storages with the storages of Keytally.

The source distribution of limits contains the tests. It is downloaded into a temporary folder, and
its checksum is compared.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "5.8.0"
SHA256 = "c9e0d74aed837e8f6f50d1fcebcf5fd8130957287206bc3799adaee5092655da"
HERE = Path(__file__).parent

# The tests whose parameters are storages.
TESTS = [
    "tests/test_storage.py::TestConcreteStorages",
    "tests/test_strategy.py",
    "tests/integration/test_concurrency.py",
    "tests/aio/test_storage.py::TestConcreteStorages",
    "tests/aio/test_strategy.py",
]


def main(options):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "--no-deps", "--no-binary", ":all:", f"limits=={VERSION}", "--dest", name],
            check=True,
        )
        [archive] = folder.glob("limits-*.tar.gz")
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256:
            sys.exit(f"{archive.name} has the checksum {found} instead of {SHA256}")
        with tarfile.open(archive) as opened:
            members = [one for one in opened if "/tests/" in one.name and one.isfile()]
            opened.extractall(folder, members)
        source = folder / f"limits-{VERSION}"
        # The fixtures of the project start servers in containers. Its configuration needs plugins.
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "storages", "--noconftest"]
        pytest += [
            "-c",
            str(HERE / "pytest.ini"),
            "--rootdir",
            str(source),
            "--force-flaky",
            "--no-flaky-report",
        ]
        paths = os.pathsep.join([str(source), str(HERE)])
        return subprocess.run(
            [*pytest, *options, *TESTS],
            check=False,
            cwd=source,
            env={**os.environ, "PYTHONPATH": paths},
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
