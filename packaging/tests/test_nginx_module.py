"""The package of the nginx module: unpacked in an empty folder, and loaded by nginx.

`cargo xtask test packages` sets KEYTALLY_TEST_MODULE, the path of the package, and
KEYTALLY_TEST_DEB, the path of that of the program.
"""

import http.client
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from support import free_port, run

PACKAGE = os.environ["KEYTALLY_TEST_MODULE"]
PROGRAM = os.environ["KEYTALLY_TEST_DEB"]
# Its address is added before the first release: see RELEASING.md.
WITHOUT_ADDRESS = "maintainer-address-missing,bogus-mail-host-in-debian-changelog"
LOAD = "usr/share/nginx/modules-available/mod-http-keytally.conf"
CONFIGURATION = """
include {root}/{load};
daemon off;
pid {root}/pid;
error_log {root}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {root}/temp;
    proxy_temp_path {root}/temp;
    fastcgi_temp_path {root}/temp;
    uwsgi_temp_path {root}/temp;
    scgi_temp_path {root}/temp;
    keytally_gate api file={root}/api.gate pepper_file={root}/pepper;
    server {{
        listen {address};
        location / {{ keytally api; empty_gif; }}
    }}
}}
"""
PATIENCE_S = 30


class TestModule(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for package in (PROGRAM, PACKAGE):
            run(["dpkg-deb", "--extract", package, self.root])

    def test_nginx_loads_the_module_and_checks_keys(self):
        # As in the package nginx-common.
        (self.root / "usr/share/nginx/modules").symlink_to("../../lib/nginx/modules")
        pepper = self.root / "pepper"
        pepper.write_text("5a" * 32)
        pepper.chmod(0o600)
        keytally = self.root / "usr/bin/keytally"
        gate = [self.root / "api.gate", "--pepper-file", pepper]
        run([keytally, "create", *gate, "--keys=10"])
        key = run([keytally, "issue", *gate, "--account=42"], stderr=subprocess.DEVNULL)
        address = f"127.0.0.1:{free_port()}"
        configuration = self.root / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(root=self.root, load=LOAD, address=address))
        nginx = ["/usr/sbin/nginx", "-p", self.root / "usr/share/nginx", "-c", configuration]
        nginx += ["-g", "user root;"] if os.geteuid() == 0 else []
        nginx += ["-e", self.root / "error.log"]
        run([*nginx, "-t"])
        server = subprocess.Popen(nginx)
        try:
            for value, status in ((key, 200), ("wrong", 401)):
                self.assertEqual(self.request(address, value), status)
        finally:
            server.terminate()
            server.wait(PATIENCE_S)

    def request(self, address, key):
        """Returns the status of a request, as soon as nginx listens."""
        end = time.monotonic() + PATIENCE_S
        while True:
            connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
            try:
                connection.request("GET", "/", headers={"X-API-Key": key})
                return connection.getresponse().status
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end, (self.root / "error.log").read_text())
                time.sleep(0.02)
            finally:
                connection.close()

    def test_package_needs_this_version_of_nginx_and_no_libkeytally(self):
        depends = run(["dpkg-deb", "--field", PACKAGE, "Depends"])
        expected = r"nginx-abi-[\d.-]+, libc6 \(>= [\d.]+\)(, libgcc-s1 \(>= [\d.]+\))?"
        self.assertRegex(depends, f"^{expected}$")

    def test_lintian_finds_no_fault(self):
        lintian = ["lintian", "--allow-root", "--fail-on", "error,warning", "--suppress-tags"]
        self.assertEqual(run([*lintian, WITHOUT_ADDRESS, PACKAGE]), "")


if __name__ == "__main__":
    unittest.main()
