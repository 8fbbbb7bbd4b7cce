"""The package for Debian: installed in an empty root folder, used, upgraded and purged.

`cargo xtask test packages` sets KEYTALLY_TEST_DEB, the path of the package.
"""

import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path

from support import run

DEB = os.environ["KEYTALLY_TEST_DEB"]
UNITS = ("keytally.service", "keytally.socket", "keytally-agent@.service")
# Its address is added before the first release: see RELEASING.md.
WITHOUT_ADDRESS = "maintainer-address-missing,bogus-mail-host-in-debian-changelog"
# Runs a command as root of a user namespace, where no service of this machine can be seen.
ISOLATED = """
mount -t tmpfs tmpfs /run
exec "$@"
"""


class Root:
    """An empty root folder with a database of dpkg."""

    def __init__(self, test):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.path = Path(folder.name)
        (self.path / "var/lib/dpkg").mkdir(parents=True)
        (self.path / "var/lib/dpkg/status").touch()

    def dpkg(self, *arguments):
        """Runs dpkg, whose scripts read the folder from DPKG_ROOT."""
        options = ["--root", self.path, "--force-script-chrootless", "--force-depends"]
        isolated = ["unshare", "--map-root-user", "--mount", "sh", "-ec", ISOLATED, "sh"]
        return run([*isolated, "dpkg", *options, *arguments])

    def files(self):
        """Returns the files, except those of dpkg itself."""
        found = (path for path in self.path.rglob("*") if not path.is_dir() or path.is_symlink())
        relative = {str(path.relative_to(self.path)) for path in found}
        return {path for path in relative if not path.startswith("var/lib/dpkg/")}


class TestDeb(unittest.TestCase):
    def setUp(self):
        self.root = Root(self)
        self.root.dpkg("--install", DEB)

    def test_installed_program_runs(self):
        program = self.root.path / "usr/bin/keytally"
        version = run(["dpkg-deb", "--field", DEB, "Version"])
        self.assertEqual(run([program, "--version"]), f"keytally {version}")
        self.assertIn("--listen", run([program, "serve", "--help"]))

    def test_manual_page_of_each_command_is_found(self):
        pages = str(self.root.path / "usr/share/man")
        text = run([self.root.path / "usr/bin/keytally", "--help"])
        listed = text.split("Commands:\n")[1].split("\n\n")[0]
        commands = set(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)) - {"help"}
        self.assertGreaterEqual(commands, {"issue", "serve", "keys", "agent"})
        for command in commands:
            found = run(["man", "-M", pages, "--where", f"keytally-{command}"])
            self.assertEqual(found, f"{pages}/man1/keytally-{command}.1.gz")
        text = run(["man", "-M", pages, "keytally-serve"], env={**os.environ, "MANWIDTH": "80"})
        self.assertIn("--trusted-proxy", text)

    def test_bash_completes_commands(self):
        script = self.root.path / "usr/share/bash-completion/completions/keytally"
        lines = (
            'source "$0"',
            "COMP_WORDS=(keytally revo) COMP_CWORD=1",
            "_keytally keytally revo keytally",
            'echo "${COMPREPLY[@]}"',
        )
        self.assertEqual(run(["bash", "-c", "\n".join(lines), script]), "revoke")

    def test_zsh_and_fish_get_completions(self):
        for file in ("zsh/vendor-completions/_keytally", "fish/vendor_completions.d/keytally.fish"):
            self.assertIn("trusted-proxy", (self.root.path / "usr/share" / file).read_text())

    def test_alert_rules_and_dashboard_are_examples(self):
        examples = self.root.path / "usr/share/doc/keytally/examples"
        names = {"keytally.rules.yml", "keytally-fleet.rules.yml", "keytally.json"}
        self.assertEqual(set(os.listdir(examples)), names)

    def test_systemd_accepts_the_installed_units(self):
        # systemd looks only in the root folder for the units and programs that they refer to.
        units = self.root.path / "usr/lib/systemd/system"
        shutil.copytree("/lib/systemd/system", units, symlinks=True, dirs_exist_ok=True)
        (self.root.path / "bin").mkdir()
        shutil.copy("/bin/kill", self.root.path / "bin/kill")
        verify = ["systemd-analyze", "verify", "--man=no", f"--root={self.root.path}"]
        self.assertEqual(run([*verify, *(str(units / unit) for unit in UNITS)]), "")

    def test_installation_enables_and_starts_nothing(self):
        self.assertEqual([file for file in self.root.files() if file.startswith("etc/systemd")], [])

    def test_purge_removes_every_file(self):
        self.assertIn("usr/bin/keytally", self.root.files())
        # What `systemctl enable` creates.
        wants = self.root.path / "etc/systemd/system/sockets.target.wants/keytally.socket"
        wants.parent.mkdir(parents=True)
        wants.symlink_to("/usr/lib/systemd/system/keytally.socket")
        self.root.dpkg("--install", DEB)
        self.assertTrue(wants.is_symlink())
        self.root.dpkg("--remove", "keytally")
        self.root.dpkg("--purge", "keytally")
        self.assertEqual(self.root.files(), set())

    def test_purge_keeps_gate_and_pepper(self):
        kept = {"etc/keytally/pepper", "var/lib/keytally/api.gate"}
        for file in kept:
            (self.root.path / file).parent.mkdir(parents=True)
            (self.root.path / file).touch()
        self.root.dpkg("--purge", "keytally")
        self.assertEqual(self.root.files(), kept)

    def test_lintian_finds_no_fault(self):
        lintian = ["lintian", "--allow-root", "--fail-on", "error,warning", "--suppress-tags"]
        self.assertEqual(run([*lintian, WITHOUT_ADDRESS, DEB]), "")

    def test_package_needs_the_c_library_alone(self):
        self.assertRegex(run(["dpkg-deb", "--field", DEB, "Depends"]), r"^libc6 \(>= [\d.]+\)$")


if __name__ == "__main__":
    unittest.main()
