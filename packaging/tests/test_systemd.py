"""The package for Debian under systemd: its scripts start nothing, restart what runs, and stop it.

systemd is the first process of a PID namespace, on a copy of the files of this machine that ends
with it. That needs root and the rights to mount file systems and to make control groups.

`cargo xtask test packages` sets KEYTALLY_TEST_DEB, the path of the package.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

DEB = os.environ["KEYTALLY_TEST_DEB"]
PATIENCE_S = 120

# Runs in a mount namespace of its own. Its argument is an empty folder in which mounts are made.
ENTER = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1/mounts"
cd "$1/mounts"
mkdir groups up work root
mount -t cgroup2 cgroup2 groups
mkdir groups/keytally-$$
echo 0 > groups/keytally-$$/cgroup.procs
status=0
own="--mount --cgroup --pid --ipc --uts --net"
unshare $own --fork --kill-child sh -ec "$BOOT" sh "$1" || status=$?
echo 0 > groups/cgroup.procs
find groups/keytally-$$ -depth -type d -exec rmdir {} \\;
exit $status
"""

# Starts systemd on an overlay of the files of this machine, with one unit of its own to start.
BOOT = """
mount -t overlay -o lowerdir=/,upperdir=up,workdir=work overlay root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mkdir run/test
mount --bind "$1/files" run/test
# The policy of an image that no service starts does not hold here.
rm -f usr/sbin/policy-rc.d
rm -rf etc/systemd/system/*.wants lib/systemd/system/*.target.wants
cp "$1/files/steps.service" etc/systemd/system/
pivot_root . mnt
umount --lazy mnt
# systemd mounts credentials in a namespace of its own, from which the mount must reach all others.
mount --make-rshared /
exec env -i container=other PATH="$PATH" /lib/systemd/systemd --system --unit=steps.service
"""

UNIT = """
[Unit]
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
ExecStart=/bin/sh -e /run/test/steps.sh
StandardOutput=append:/run/test/result
StandardError=append:/run/test/log
"""

# The steps of docs/how-to/run.md, an upgrade, and the removal.
STEPS = """
echo begun
units="keytally.socket keytally.service"
state() { echo "$1:" $(systemctl is-active $units) $(systemctl is-enabled $units); }
answers() {
    curl -sS -m 60 -o /dev/null -w '%{http_code}' --unix-socket /run/keytally/api.socket \\
        http://localhost/healthz
}
process() { systemctl show --property MainPID --value keytally.service; }
socket() { stat --format %i /run/keytally/api.socket; }

dpkg --install /run/test/keytally.deb >&2
state installed

mkdir -p /etc/keytally /var/lib/keytally
keytally create /var/lib/keytally/api.gate --new-pepper --pepper-file /etc/keytally/pepper >&2
stat --format '%a %U %n' /etc/keytally/pepper
systemctl enable --now $units >&2
state enabled
echo "answer: $(answers)"

before="$(process) $(socket)"
dpkg --install /run/test/keytally.deb >&2
state upgraded
echo "answer: $(answers)"
[ "$(process)" = "${before% *}" ] || echo "the process is another one"
[ "$(socket)" = "${before#* }" ] && echo "the socket is the same"

systemctl stop $units >&2
mv /var/lib/private/keytally/api.gate /var/lib/private/keytally/kept
systemctl start keytally.service >&2 || echo "no start without a gate"
systemctl stop $units >&2
ls /var/lib/private/keytally
mv /var/lib/private/keytally/kept /var/lib/private/keytally/api.gate
systemctl start $units >&2
echo "answer: $(answers)"

dpkg --remove keytally >&2
echo "removed:" $(systemctl is-active $units)
dpkg --purge keytally >&2
find /etc/systemd/system -name 'keytally.so*' -o -name keytally.service
ls /etc/keytally/pepper /var/lib/private/keytally/api.gate
"""

EXPECTED = """
begun
installed: inactive inactive disabled disabled
600 root /etc/keytally/pepper
enabled: active active enabled enabled
answer: 200
upgraded: active active enabled enabled
answer: 200
the process is another one
the socket is the same
no start without a gate
kept
answer: 200
removed: inactive inactive
/etc/keytally/pepper
/var/lib/private/keytally/api.gate
"""


class TestSystemd(unittest.TestCase):
    def test_scripts_of_the_package_follow_the_state_of_its_units(self):
        if os.geteuid() != 0:
            self.skipTest("only root can start systemd in a namespace")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = Path(folder.name) / "files"
        files.mkdir()
        (Path(folder.name) / "mounts").mkdir()
        shutil.copy(DEB, files / "keytally.deb")
        (files / "steps.sh").write_text(STEPS)
        (files / "steps.service").write_text(UNIT)
        command = ["unshare", "--mount", "sh", "-ec", ENTER, "sh", folder.name]
        systemd = subprocess.Popen(
            command,
            env={**os.environ, "BOOT": BOOT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = systemd.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(systemd.pid, signal.SIGKILL)
            output = f"systemd did not end; {systemd.communicate()[0]}"
        result, log = files / "result", files / "log"
        if not result.exists():
            self.skipTest(f"systemd does not start in a namespace of this machine: {output}")
        self.assertEqual(result.read_text(), EXPECTED.lstrip("\n"), log.read_text() + output)
        self.assertEqual(systemd.returncode, 0, output)


if __name__ == "__main__":
    unittest.main()
