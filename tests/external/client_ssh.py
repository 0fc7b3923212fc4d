"""OpenSSH through `adit nc` as its ProxyCommand, to an sshd of this run's own."""

import getpass
import hashlib
import os
import pathlib
import shlex

from support import ADIT, Failed, case, check, equal, free_port, listening, run, tool, wait_for

TRANSFER_BYTES = 32 << 20
# Where Debian's sshd, run by root, keeps its unprivileged half; the init system makes it, a container has none.
SEPARATION = pathlib.Path("/run/sshd")

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {dir}/host
PidFile none
AuthorizedKeysFile {dir}/client.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM {pam}
PrintMotd no
PrintLastLog no
"""


class Sshd:
    """sshd with a scratch host key that lets only this run's client key in, as the user who runs the tests."""

    def __init__(self, world):
        self.server = tool("sshd", package="openssh-server")
        self.dir = world.scratch / "ssh"
        self.dir.mkdir(exist_ok=True)
        for key in ("host", "client"):
            if not (self.dir / key).exists():
                run([tool("ssh-keygen", package="openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", self.dir / key])
        self.port = free_port()
        self.made = os.geteuid() == 0 and not SEPARATION.exists()
        if self.made:
            SEPARATION.mkdir(0o755)
        config = self.dir / "sshd_config"
        # A root account without a password counts as locked unless PAM says otherwise.
        config.write_text(SSHD.format(port=self.port, dir=self.dir, pam="yes" if os.geteuid() == 0 else "no"))
        self.daemon = world.start([self.server, "-D", "-e", "-f", config])
        wait_for("sshd to listen", lambda: self.daemon.alive() and listening(self.port))

    def close(self):
        self.daemon.stop()
        if self.made:
            SEPARATION.rmdir()

    def client(self, world, host):
        """The command line of ssh to `host` by way of `adit nc`, without anything of the user's own settings."""
        (self.dir / "known_hosts").write_text(f"{host} {(self.dir / 'host.pub').read_text()}")
        options = [
            f"ProxyCommand={shlex.quote(ADIT)} nc rstrm://%h",
            f"IdentityFile={self.dir / 'client'}",
            f"UserKnownHostsFile={self.dir / 'known_hosts'}",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            "BatchMode=yes",
            "ConnectTimeout=15",
        ]
        words = [tool("ssh", package="openssh-client"), "-F", "/dev/null", "-l", getpass.getuser()]
        for option in options:
            words += ["-o", option]
        return [*words, host]


def session(world, sshd, host):
    """A command, its exit code, and a transfer in both directions that arrives whole."""
    ssh, env = sshd.client(world, host), world.agent_environment()
    done = run([*ssh, "echo through; exit 7"], env=env, ok=(7,), seconds=30)
    equal("output", done.stdout, b"through\n")
    data = hashlib.shake_256(b"adit").digest(TRANSFER_BYTES)
    done = run([*ssh, "cat"], env=env, stdin=data, seconds=60)
    check(done.stdout == data, f"{len(done.stdout)} of {len(data)} bytes came back, or others than were sent")


@case("ssh-forward", 120)
def by_forward(world):
    """`adit forward PORT --bytestream --no-publish --name H` and `ssh -o ProxyCommand='adit nc rstrm://%h'`."""
    sshd = Sshd(world)
    try:
        world.forward(sshd.port, "--bytestream", "--no-publish", "--name", "external-ssh")
        session(world, sshd, "external-ssh")
    finally:
        sshd.close()


@case("ssh-nc", 120)
def by_netcat(world):
    """The same with `adit nc -L rstrm://H -R HOST:PORT` at the server's end."""
    sshd = Sshd(world)
    try:
        listener = world.start([ADIT, "nc", "-L", "rstrm://external-nc", "-R", f"127.0.0.1:{sshd.port}"])

        def listed():
            if not listener.alive():
                raise Failed(f"adit nc -L ended: {listener.log()}")
            done = run([ADIT, "tunnel", "list", "-o", "json"], env=world.agent_environment())
            return b"external-nc" in done.stdout

        wait_for("the listening end in the list of tunnels", listed)
        session(world, sshd, "external-nc")
    finally:
        sshd.close()
