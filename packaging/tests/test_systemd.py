"""The package for Debian under systemd: its scripts start nothing, restart what runs, and stop it.

systemd is the first process of a PID namespace, on a copy of the files of this machine that ends
with it. That needs root and the rights to mount file systems and to make control groups.

`cargo xtask test packages` sets KEYTALLY_TEST_DEB, the path of the package.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

DEB = os.environ["KEYTALLY_TEST_DEB"]
PATIENCE_S = 120
ROOT = Path(__file__).resolve().parents[2]

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

# The steps of docs/how-to/run.md, an upgrade, a lost gate, and the removal.
STEPS = """
echo begun
units="keytally.socket keytally.service"
gate=/var/lib/private/keytally/api.gate
state() { echo "$1:" $(systemctl is-active $units) $(systemctl is-enabled $units); }
get() {
    curl -sS -m 60 -o /dev/null -w '%{http_code}\\n' --unix-socket /run/keytally/api.socket \\
        http://localhost"$@"
}
process() { systemctl show --property MainPID --value keytally.service; }
socket() { stat --format %i /run/keytally/api.socket; }

# No journal runs here.
for unit in keytally.service keytally-agent@.service; do
    mkdir -p /run/systemd/system/$unit.d
    printf '[Service]\\nStandardError=append:/run/test/journal\\n' > /run/systemd/system/$unit.d/log.conf
done

dpkg --install /run/test/keytally.deb >&2
state installed

. /run/test/guide.sh >&2
stat --format '%a %U %n' /etc/keytally/pepper
state enabled
echo "answer: $(get /healthz)"
echo "wrong keys:" $(for _ in $(seq 50); do
    get /auth -H 'X-API-Key: wrong' -H 'X-Forwarded-For: 203.0.113.1'
done | sort -u)

before="$(process) $(socket)"
dpkg --install /run/test/keytally.deb >&2
state upgraded
echo "answer: $(get /healthz)"
[ "$(process)" = "${before% *}" ] || echo "the process is another one"
[ "$(socket)" = "${before#* }" ] && echo "the socket is the same"

systemctl stop $units >&2
mv $gate /var/lib/private/keytally/kept
mv /etc/keytally/pepper /etc/keytally/kept
systemctl enable --now $units >&2 || echo "no start without a gate"
ls /var/lib/private/keytally
. /run/test/guide.sh >&2
systemctl start $units >&2
echo "answer after another guide: $(get /healthz)"

systemctl stop $units >&2
chown root $gate
systemctl start $units >&2 || echo "no start with a gate of root"
systemctl stop $units >&2
fix=$(sed -n 's/.*fix it with: //p' /run/test/journal | tail -n 1)
echo "$fix"
$fix
systemctl start $units >&2
echo "answer after the fix: $(get /healthz)"
"""

REMOVAL = """
dpkg --remove keytally >&2
echo "removed:" $(systemctl is-active $units)
dpkg --purge keytally >&2
find /etc/systemd/system -name 'keytally.so*' -o -name keytally.service
ls /etc/keytally/pepper $gate
"""

EXPECTED = """
begun
installed: inactive inactive disabled disabled
600 root /etc/keytally/pepper
enabled: active active enabled enabled
answer: 200
wrong keys: 401 429
upgraded: active active enabled enabled
answer: 200
the process is another one
the socket is the same
no start without a gate
kept
answer after another guide: 200
no start with a gate of root
chown --reference=/var/lib/keytally /var/lib/keytally/api.gate
answer after the fix: 200
"""

EXPECTED_OF_REMOVAL = """
removed: inactive inactive
/etc/keytally/pepper
/var/lib/private/keytally/api.gate
"""

# The steps of docs/how-to/share-limits.md, with two agents and a store.
FLEET = """
redis-server --save '' --maxmemory-policy noeviction --daemonize yes >&2
cd /usr/lib/systemd/system
sed 's,redis://keytally@store.example,redis://127.0.0.1,' keytally-agent@.service \\
    > /etc/systemd/system/keytally-agent@.service
systemctl daemon-reload
systemctl enable --now keytally-agent@1 keytally-agent@2 >&2
install -D keytally-fleet.conf /etc/systemd/system/keytally.service.d/fleet.conf
systemctl daemon-reload
systemctl restart keytally >&2
export KEYTALLY_PEPPER_FILE=/etc/keytally/pepper
fleet="/var/lib/keytally/api.gate --file /run/keytally-fleet/api.gate.fleet"
until keytally fleet status $fleet >&2; do sleep 0.1; done
keytally fleet join $fleet >&2
echo "in a fleet: $(get /auth -H "X-API-Key: $(keytally issue $gate --account 42)")"
systemctl disable --now keytally-agent@1 keytally-agent@2 >&2
rm -r /etc/systemd/system/keytally*
redis-cli shutdown >&2
"""

EXPECTED_OF_FLEET = """
in a fleet: 200
"""


def command(unit):
    """Returns the words of the last ExecStart in a text of a unit."""
    lines = re.findall(r"^ExecStart=(.+)", unit.replace("\\\n", ""), re.MULTILINE)
    return lines[-1].split()


def guide():
    """Returns the commands of the guide that create the gate and start the service."""
    page = (ROOT / "docs/how-to/run.md").read_text()
    [block] = [it for it in page.split("```")[1::2] if "--new-pepper" in it]
    return block.partition("\n")[2]


class TestSystemd(unittest.TestCase):
    def test_other_commands_have_every_option_of_the_unit(self):
        folder = ROOT / "packaging/systemd"
        options = command((folder / "keytally.service").read_text())
        fleet = command((folder / "keytally-fleet.conf").read_text())
        self.assertEqual(fleet, [*options, "--fleet", "/run/keytally-fleet/api.gate.fleet"])
        of_guide = command((ROOT / "docs/how-to/run.md").read_text())
        self.assertEqual(of_guide[: len(options)], options)

    def test_scripts_of_the_package_follow_the_state_of_its_units(self):
        if os.geteuid() != 0:
            self.skipTest("only root can start systemd in a namespace")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        files = Path(folder.name) / "files"
        files.mkdir()
        (Path(folder.name) / "mounts").mkdir()
        shutil.copy(DEB, files / "keytally.deb")
        (files / "guide.sh").write_text(guide())
        steps, expected = [STEPS], [EXPECTED]
        if shutil.which("redis-server"):
            steps.append(FLEET)
            expected.append(EXPECTED_OF_FLEET)
        expected = "".join(text.lstrip("\n") for text in [*expected, EXPECTED_OF_REMOVAL])
        (files / "steps.sh").write_text("".join([*steps, REMOVAL]))
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
        result, logs = files / "result", [files / "log", files / "journal"]
        if not result.exists():
            self.skipTest(f"systemd does not start in a namespace of this machine: {output}")
        log = "".join(log.read_text() for log in logs if log.exists()) + output
        self.assertEqual(result.read_text(), expected, log)
        self.assertEqual(systemd.returncode, 0, output)


if __name__ == "__main__":
    unittest.main()
