"""The files for OSS-Fuzz: the script builds every fuzz target, with its corpus.

A program that stands for cargo writes empty files for the targets that the manifest lists. The
command that the script calls is that of `cargo xtask fuzz`, without its time limit.
"""

import os
import re
import tempfile
import unittest
import zipfile
from pathlib import Path

from support import run

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = REPOSITORY / "packaging/oss-fuzz"
FUZZ = REPOSITORY / "tools/fuzz"
# Fails unless it is called to build the targets of a folder that has a manifest.
CARGO = """#!/bin/sh
set -eu
echo "$@" >>calls
[ "$1 $2" = "fuzz build" ]
while [ "$1" != --fuzz-dir ]; do shift; done
built=target/oss-fuzz/x86_64-unknown-linux-gnu/release
mkdir -p "$built"
for name in $(grep -A 1 '^\\[\\[bin\\]\\]' "$2/Cargo.toml" | sed -n 's/name = "\\(.*\\)"/\\1/p'); do
    touch "$built/$name"
done
"""


class TestOssFuzz(unittest.TestCase):
    def test_script_builds_every_target_with_its_corpus(self):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (work / "tools").symlink_to(REPOSITORY / "tools")
            for name in ("bin", "out"):
                (work / name).mkdir()
            (work / "bin/cargo").write_text(CARGO)
            (work / "bin/cargo").chmod(0o755)
            path = f"{work / 'bin'}:{os.environ['PATH']}"
            env = {**os.environ, "PATH": path, "OUT": str(work / "out")}
            run(["bash", FILES / "build.sh"], cwd=work, env=env)
            call = (work / "calls").read_text()
            self.assertIn("--target-dir target/oss-fuzz --release", call)

            manifest = (FUZZ / "Cargo.toml").read_text()
            targets = set(re.findall(r'^\[\[bin\]\]\nname = "(\w+)"', manifest, re.MULTILINE))
            self.assertGreater(len(targets), 8)
            ends = ("", ".options", "_seed_corpus.zip")
            expected = {target + end for target in targets for end in ends}
            self.assertEqual({path.name for path in (work / "out").iterdir()}, expected)
            for target in targets:
                inputs = {path.name for path in (FUZZ / "corpus" / target).iterdir()}
                with zipfile.ZipFile(work / "out" / f"{target}_seed_corpus.zip") as archive:
                    self.assertEqual(set(archive.namelist()), inputs)

    def test_options_are_those_of_the_projects_own_fuzzing(self):
        own = (REPOSITORY / "tools/xtask/src/fuzz.rs").read_text()
        script = (FILES / "build.sh").read_text()
        for name in ("max_len", "timeout"):
            value = re.search(rf"-{name}=(\d+)", own)[1]
            self.assertIn(f"{name} = {value}\\n", script)

    def test_image_clones_the_repository_of_the_project(self):
        project = (FILES / "project.yaml").read_text()
        repository = re.search(r'main_repo: "(.*)"', project)[1]
        self.assertIn(f"git clone --depth 1 {repository} ", (FILES / "Dockerfile").read_text())
        self.assertIn(repository.removesuffix(".git"), (REPOSITORY / "Cargo.toml").read_text())


if __name__ == "__main__":
    unittest.main()
