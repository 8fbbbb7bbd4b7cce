"""The image: its last stage is built by buildah, and the service is used in it.

`cargo xtask test packages` sets KEYTALLY_TEST_STATIC, the path of a static program. It stands for
what the first stage of the Dockerfile builds, which needs an image of a registry.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from support import free_port, run

PROGRAM = os.environ["KEYTALLY_TEST_STATIC"]
DOCKERFILE = Path(__file__).resolve().parents[1] / "image/Dockerfile"
FIRST_STAGE = "FROM scratch AS build\nCOPY out /out\nCOPY volumes /volumes\n"
PEPPER = "/run/secrets/pepper"
PATIENCE_S = 30


def as_root(*command):
    """Returns a command of the user namespace in which buildah runs."""
    return list(command) if os.geteuid() == 0 else ["buildah", "unshare", *command]


class TestImage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp())
        cls.addClassCleanup(lambda: run(as_root("rm", "-r", cls.folder)))
        cls.folder.chmod(0o755)
        context = cls.folder / "context"
        (context / "out").mkdir(parents=True)
        (context / "volumes/data").mkdir(parents=True, mode=0o700)
        shutil.copy(PROGRAM, context / "out/keytally")
        run(["strip", context / "out/keytally"])
        _, last_stage = DOCKERFILE.read_text().split("\nFROM scratch\n")
        (context / "Dockerfile").write_text(f"{FIRST_STAGE}\nFROM scratch\n{last_stage}")
        options = ["--isolation=chroot", "--format=docker", "--tag=keytally"]
        run(cls.buildah("build", *options, context))
        inspected = json.loads(run(cls.buildah("inspect", "--type=image", "keytally")))
        cls.config = inspected["Docker"]["config"]

    @classmethod
    def buildah(cls, *arguments):
        """Returns a command of buildah, with its files in the folder of the tests."""
        folders = ["--root", cls.folder / "store", "--runroot", cls.folder / "run"]
        return ["buildah", "--storage-driver=vfs", *folders, *arguments]

    def container(self):
        """Returns the name of a new container."""
        return run(self.buildah("from", "--pull-never", "keytally"))

    def within(self, container, *command, secret=None, listen=None):
        """Returns a command that runs in a container, as the image's user."""
        data = self.folder / f"data-{container}"
        if not data.exists():
            data.mkdir()
            run(as_root("chown", "65532:65532", data))
        options = [f"--volume={data}:/data"]
        if secret is not None:
            options.append(f"--volume={secret}:{PEPPER}:ro")
        if listen is not None:
            options.append(f"--env=KEYTALLY_LISTEN={listen}")
        return self.buildah("run", "--isolation=chroot", *options, container, "--", *command)

    @contextlib.contextmanager
    def service(self, container):
        """Starts the service by the command of the image. Yields its address."""
        address = f"127.0.0.1:{free_port()}"
        self.assertIn("KEYTALLY_LISTEN=0.0.0.0:8080", self.config["Env"])
        command = self.within(container, *self.command(), listen=address)
        with tempfile.TemporaryFile("w+") as log:
            service = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                end = time.monotonic() + PATIENCE_S
                while subprocess.run(self.health(container, address), capture_output=True).returncode:
                    log.seek(0)
                    text = log.read()
                    self.assertIsNone(service.poll(), text)
                    self.assertLess(time.monotonic(), end, text)
                yield address
            finally:
                os.killpg(service.pid, signal.SIGTERM)
                service.wait(PATIENCE_S)

    def health(self, container, address):
        """Returns the health check of the image, for a service at another address."""
        kind, *command = self.config["Healthcheck"]["Test"]
        self.assertEqual(kind, "CMD")
        return self.within(container, *command, listen=address)

    def command(self):
        """Returns the command of the image."""
        return [*self.config["Entrypoint"], *self.config["Cmd"]]

    def test_image_has_the_program_alone(self):
        mount = " ".join(map(str, self.buildah("mount", self.container())))
        script = f'cd "$({mount})" && find . -type f && stat --format=%u:%a data'
        self.assertEqual(run(as_root("sh", "-ec", script)), "./keytally\n65532:700")
        self.assertIn("statically linked", run(["file", PROGRAM]))
        self.assertEqual(self.config["User"], "65532:65532")
        self.assertEqual(self.config["Volumes"], {"/data": {}})

    def administer(self, container, *words):
        """Runs a command of the program in a container, with the pepper of its volume."""
        command = ["/keytally", *words, "--pepper-file", "/data/pepper"]
        return run(self.within(container, *command), stderr=subprocess.DEVNULL)

    def status(self, address, key):
        """Returns the status that a key gets from the service."""
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        connection.request("GET", "/api/v1/contacts", headers={"X-API-Key": key})
        status = connection.getresponse().status
        connection.close()
        return status

    def test_service_checks_keys_and_reports_its_health(self):
        container = self.container()
        self.administer(container, "create", "/data/api.gate", "--new-pepper")
        with self.service(container) as address:
            key = self.administer(container, "issue", "/data/api.gate", "--account", "42")
            for value, status in ((key, 200), ("wrong", 401)):
                self.assertEqual(self.status(address, value), status)
        stopped = subprocess.run(self.health(container, address), capture_output=True)
        self.assertEqual(stopped.returncode, 3)

    def test_service_does_not_start_without_a_gate(self):
        container = self.container()
        # A gate that the first start had made would be found by the second one.
        for _ in range(2):
            started = subprocess.run(
                self.within(container, *self.command()), text=True, capture_output=True
            )
            self.assertIn("there is no gate /data/api.gate", started.stderr)
            self.assertEqual(started.returncode, 3)

    def test_gate_in_use_is_copied_and_restored_without_a_shell(self):
        container, gate, backup = self.container(), "/data/api.gate", "/data/backup.gate"
        self.administer(container, "create", gate, "--new-pepper")
        with self.service(container) as address:
            key = self.administer(container, "issue", gate, "--account", "42")
            self.administer(container, "copy", gate, backup, "--replace")
            self.administer(container, "verify", backup)
            self.administer(container, "revoke", gate, key.split("_")[2][:11])
            self.assertEqual(self.status(address, key), 401)
            self.administer(container, "copy", backup, gate, "--replace", "--discard-newer")
            # The key was valid when the copy was made. The service opens the file within a second.
            end = time.monotonic() + PATIENCE_S
            while (status := self.status(address, key)) != 200:
                self.assertLess(time.monotonic(), end, status)

    def secret(self, owner, group, mode):
        """Returns a file with a pepper."""
        path = self.folder / f"pepper-{owner}-{group}-{mode:o}"
        path.write_text("5a" * 32)
        run(as_root("chown", f"{owner}:{group}", path))
        run(as_root("chmod", f"{mode:o}", path))
        return path

    def create(self, secret):
        """Creates a gate with the pepper of a secret. Returns the exit status and the output."""
        create = ["/keytally", "create", "/data/new.gate", "--keys=1", "--pepper-file", PEPPER]
        command = self.within(self.container(), *create, secret=secret)
        done = subprocess.run(command, text=True, capture_output=True)
        return done.returncode, done.stderr

    def test_secrets_of_docker_and_kubernetes_are_accepted(self):
        docker, kubernetes, own = (0, 0, 0o444), (0, 65532, 0o440), (65532, 65532, 0o400)
        for secret in (docker, kubernetes, own):
            self.assertEqual(self.create(self.secret(*secret))[0], 0, secret)

    def test_secret_of_another_user_is_refused(self):
        # Root would be permitted to use the second one.
        for secret in ((4321, 4321, 0o444), (4321, 4321, 0o400)):
            status, error = self.create(self.secret(*secret))
            self.assertIn(PEPPER, error)
            self.assertNotIn("5a5a", error)
            self.assertEqual(status, 3)


if __name__ == "__main__":
    unittest.main()
