"""Real sshd endpoints on loopback ports, each with keys and a configuration of its own; ended by pid."""

import getpass
import os
import shutil
import socket
import subprocess
import time


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Fleet:
    """`count` endpoints whose files are in `directory`."""

    def __init__(self, count, directory, sshd):
        self.directory, self.user = directory, getpass.getuser()
        self.ports, self.servers = free_ports(count), []
        if self.user == "root":
            os.makedirs("/run/sshd", exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        self.key = self.keygen("id")
        shutil.copy(self.key + ".pub", self.at("authorized_keys"))
        known = []
        for port in self.ports:
            host_key = self.keygen(f"host-{port}")
            known.append(f"[127.0.0.1]:{port} {open(host_key + '.pub').read()}")
            self.write(
                f"sshd-{port}",
                f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\n"
                f"AuthorizedKeysFile {self.at('authorized_keys')}\nPidFile none\nUsePAM no\nPermitRootLogin yes\n"
                "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                f"Subsystem sftp internal-sftp\nSetEnv HOME={directory}\n",
            )
            self.servers.append(
                subprocess.Popen(
                    [sshd, "-D", "-e", "-f", self.at(f"sshd-{port}")],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.at(f"log-{port}"), "w"),
                )
            )
        self.known_hosts = self.write("known_hosts", "".join(known))
        self.hosts_file = self.write("hosts", "".join(f"127.0.0.1:{p}\n" for p in self.ports))
        self.names = [f"h{n}" for n in range(1, count + 1)]
        self.names_file = self.write("names", "".join(f"{n}\n" for n in self.names))
        hosts = "".join(f"Host {n}\n  Port {p}\n" for n, p in zip(self.names, self.ports))
        common = (
            f"Host *\n  HostName 127.0.0.1\n  User {self.user}\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n  LogLevel ERROR\n"
        )
        mux = f"  ControlMaster auto\n  ControlPath {self.at('m-%p')}\n  ControlPersist 600\n"
        self.config = {
            "curve25519": self.write("config-curve", f"{hosts}{common}  KexAlgorithms curve25519-sha256\n"),
            "default": self.write("config-default", hosts + common),
            "mux": self.write("config-mux", hosts + common + mux),
        }
        self.inventory = self.write("inventory", "".join(f"{n}\n" for n in self.names))
        for port in self.ports:
            self.wait_for(port)

    def at(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.at(name), "w") as file:
            file.write(text)
        return self.at(name)

    def keygen(self, name):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.at(name)], check=True)
        return self.at(name)

    def wait_for(self, port):
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise SystemExit(f"sshd does not listen at port {port}: {open(self.at(f'log-{port}')).read()}")
                time.sleep(0.05)

    def cpu(self):
        """CPU seconds of the servers and of their children that ended."""
        total = 0
        for server in self.servers:
            fields = open(f"/proc/{server.pid}/stat").read().rsplit(")", 1)[1].split()
            total += sum(map(int, fields[11:15]))
        return total / os.sysconf("SC_CLK_TCK")

    def stop(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait()
