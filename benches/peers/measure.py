"""Measures kwscale exec beside its peers: the same script on the same sshd endpoints, in turn.

    measure.py --kwscale PATH --scratch DIR --hosts 1,16,64 --repeat 7 [--only WORD,…] [--json FILE]

Of each run: wall time of the program; CPU time (user and system) of its whole process tree, daemons that it leaves
included; CPU time of the sshds. Medians. Memory is the largest sum of PSS over the tree, sampled in a run of its own.
"""

import argparse
import ctypes
import hashlib
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from fleet import Fleet

HERE = os.path.dirname(os.path.abspath(__file__))
PR_SET_CHILD_SUBREAPER = 36
ROUNDS = 11
PATIENCE = 300


def children(pid):
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, open(f"/proc/{pid}/task/{task}/children").read().split())
    except OSError:
        pass
    return found


def tree(pid):
    pids = [pid]
    for p in pids:
        pids += children(p)
    return pids[1:]


def pss(pid):
    try:
        for line in open(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def run(argv, env, sample):
    """Runs argv in a process that inherits whatever it leaves; gives wall, cpu, memory, exit code and output."""
    read, write = os.pipe()
    output = tempfile.TemporaryFile()
    middle = os.fork()
    if middle == 0:
        status = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            begun = time.monotonic()
            child = subprocess.Popen(
                argv, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
            peak, over = [0], threading.Event()

            def watch():
                while not over.wait(0.01):
                    peak[0] = max(peak[0], sum(map(pss, tree(os.getpid()))))

            watcher = threading.Thread(target=watch)
            if sample:
                watcher.start()
            cpu, wall, code = 0.0, None, None
            while True:
                try:
                    pid, how, usage = os.wait4(-1, 0)
                except ChildProcessError:
                    break
                cpu += usage.ru_utime + usage.ru_stime
                if pid == child.pid:
                    wall, code = time.monotonic() - begun, os.waitstatus_to_exitcode(how)
                    # Masters that were left to serve later calls.
                    for rest in tree(os.getpid()):
                        os.kill(rest, signal.SIGTERM)
            over.set()
            if sample:
                watcher.join()
            os.write(write, json.dumps([wall, cpu, peak[0] / 1024, code]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(middle, 0)
    wall, cpu, memory, code = json.loads(text)
    output.seek(0)
    return wall, cpu, memory, code, output.read().decode(errors="replace")


class Bench:
    def __init__(self, args, fleet, count):
        self.fleet, self.count = fleet, count
        self.root = os.path.join(args.scratch, "root")
        self.venv = os.path.join(args.scratch, "venv", "bin")
        self.kwscale = args.kwscale
        self.script = os.path.join(HERE, "probe.sh")
        self.up = tempfile.mkdtemp(dir="/dev/shm")
        self.file = fleet.at("upload")
        with open(self.file, "wb") as file:
            file.write(os.urandom(1 << 20))
        self.description = fleet.write(
            "fleet.json",
            json.dumps({
                "ports": fleet.ports, "user": fleet.user, "key": fleet.key, "known_hosts": fleet.known_hosts,
                "script": self.script,
            }),
        )
        probe = open(self.script).read()
        play = "- hosts: all\n  gather_facts: no\n  tasks:\n"
        raw = "    - raw: |\n" + "".join(f"        {line}\n" for line in probe.splitlines())
        fleet.write("probe.yml", f"{play}{raw}")
        fleet.write("rounds.yml", f"{play}{raw}      loop: \"{{{{ range({ROUNDS}) | list }}}}\"\n")
        fleet.write("upload.yml", f"{play}    - copy: src={self.file} dest={self.up}/{{{{ inventory_hostname }}}}\n")
        # The same environment for all, without an agent.
        self.env = {k: v for k, v in os.environ.items() if k != "SSH_AUTH_SOCK"}
        libraries = f"{self.root}/usr/lib/{os.uname().machine}-linux-gnu"
        self.env.update({
            "LD_LIBRARY_PATH": libraries,
            "PYTHONPATH": f"{self.root}/usr/lib/python3/dist-packages",
            "PDSH_MODULE_DIR": f"{libraries}/pdsh",
        })

    def mine(self, *more):
        f = self.fleet
        return [
            self.kwscale, "exec", "--hosts-file", f.hosts_file, "--key", f.key, "--known-hosts", f.known_hosts,
            "--user", f.user, *more,
        ]

    def xargs(self, *argv):
        return ["xargs", "-a", self.fleet.names_file, "-P", str(self.count), "-I{}", *argv]

    def ansible(self, play):
        return [
            f"{self.venv}/ansible-playbook", "-v", "-i", self.fleet.inventory, "-f", str(self.count),
            self.fleet.at(play),
        ]

    def tools(self, what):
        """Name, argv and environment of each tool for a measure."""
        f, n, probe = self.fleet, str(self.count), open(self.script).read()
        names = ",".join(f.names)
        python = f"{self.venv}/python"
        clush = ["/usr/bin/python3", f"{self.root}/usr/bin/clush", "-f", n, "-w", names]
        ansible = {"ANSIBLE_SSH_ARGS": f"-F {f.config['mux']}", "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOME": f.at("ansible"),
                   "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3", "PYTHONPATH": "", "LD_LIBRARY_PATH": ""}
        clean = {"PYTHONPATH": "", "LD_LIBRARY_PATH": ""}
        curve, default, mux = (["ssh", "-F", f.config[c]] for c in ("curve25519", "default", "mux"))
        if what == "cold":
            return [
                ("kwscale", self.mine("--script", self.script), clean),
                ("ssh, curve25519", self.xargs(*curve, "{}", probe), clean),
                ("ssh, default kex", self.xargs(*default, "{}", probe), clean),
                ("ssh, multiplexed", self.xargs(*mux, "{}", probe), clean),
                ("pdsh", [f"{self.root}/usr/bin/pdsh", "-R", "ssh", "-f", n, "-w", names, probe],
                 {"PDSH_SSH_ARGS_APPEND": f"-F {f.config['curve25519']}"}),
                ("clush", [*clush, "-o", f"-F {f.config['curve25519']}", probe], {}),
                ("parallel-ssh", [python, f"{HERE}/peer_parallel_ssh.py", self.description, "1"], clean),
                ("asyncssh", [python, f"{HERE}/peer_asyncssh.py", self.description, "1"], clean),
                ("Ansible", self.ansible("probe.yml"), ansible),
            ]
        if what == "rounds":
            line = shlex.join(self.xargs(*mux, "{}", probe))
            return [
                ("kwscale", self.mine("--script", self.script, "--rounds", str(ROUNDS)), clean),
                ("ssh, multiplexed", ["sh", "-c", f"for r in $(seq {ROUNDS}); do {line}; done"], clean),
                ("parallel-ssh", [python, f"{HERE}/peer_parallel_ssh.py", self.description, str(ROUNDS)], clean),
                ("asyncssh", [python, f"{HERE}/peer_asyncssh.py", self.description, str(ROUNDS)], clean),
                ("Ansible", self.ansible("rounds.yml"), ansible),
            ]
        target = f"{self.up}/{{port}}"
        # What `kwscale exec --put` promises, by a shell on the host.
        sum = hashlib.sha256(open(self.file, "rb").read()).hexdigest()
        careful = (f"cat >{self.up}/{{}}.part && sync {self.up}/{{}}.part && echo {sum} {self.up}/{{}}.part | sha256sum -c --quiet && "
                   f"mv {self.up}/{{}}.part {self.up}/{{}}")
        fed = ["sh", "-c", f"exec {shlex.join(curve)} \"$1\" \"$2\" <{shlex.quote(self.file)}", "sh"]
        return [
            ("kwscale", self.mine("--put", self.file, "--to", f"{self.up}/file"), clean),
            ("scp, curve25519", self.xargs("scp", "-q", "-F", f.config["curve25519"], self.file, f"{{}}:{self.up}/{{}}"), clean),
            ("ssh, curve25519, compared and synced", self.xargs(*fed, "{}", careful), clean),
            ("scp, default kex", self.xargs("scp", "-q", "-F", f.config["default"], self.file, f"{{}}:{self.up}/{{}}"), clean),
            ("clush", [*clush, "-o", f"-F {f.config['curve25519']}", "--copy", self.file, "--dest", f"{self.up}/clush"], {}),
            ("parallel-ssh", [python, f"{HERE}/peer_parallel_ssh.py", self.description, "1", self.file, target], clean),
            ("asyncssh", [python, f"{HERE}/peer_asyncssh.py", self.description, "1", self.file, target], clean),
            ("Ansible", self.ansible("upload.yml"), ansible),
        ]

    def once(self, what, name, argv, env, sample=False):
        before = self.fleet.cpu()
        wall, cpu, memory, code, output = run(argv, {**self.env, **env}, sample)
        time.sleep(0.1)
        server = self.fleet.cpu() - before
        expected = self.count * (ROUNDS if what == "rounds" else 1)
        if code != 0 or (what != "upload" and output.count("Linux") < expected):
            raise SystemExit(f"{name} did not do its work ({what}, exit {code}):\n{output[-2000:]}")
        return {"wall": wall, "cpu": cpu, "server": server, "memory": memory}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kwscale", required=True)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--hosts", default="1,16,64")
    parser.add_argument("--measures", default="cold,rounds,upload")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--only", default="", help="words of tool names")
    parser.add_argument("--json", help="every single run")
    args = parser.parse_args()
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    words = [word for word in args.only.split(",") if word]
    everything = []
    for count in map(int, args.hosts.split(",")):
        fleet = Fleet(count, os.path.join(args.scratch, f"fleet-{count}"), sshd)
        bench = Bench(args, fleet, count)
        try:
            for what in args.measures.split(","):
                tools = [t for t in bench.tools(what) if not words or t[0] == "kwscale" or any(w in t[0] for w in words)]
                runs = {name: [] for name, *_ in tools}
                memory = {}
                for name, argv, env in tools:
                    memory[name] = bench.once(what, name, argv, env, sample=True)["memory"]
                for repeat in range(args.repeat):
                    # In turn, and each time another one first.
                    for name, argv, env in tools[repeat % len(tools):] + tools[:repeat % len(tools)]:
                        # What takes ten times as long need not be repeated as often.
                        if name == "Ansible" and repeat >= 3:
                            continue
                        runs[name].append(bench.once(what, name, argv, env))
                report(count, what, runs, memory)
                everything.append({"hosts": count, "measure": what, "runs": runs, "memory": memory})
        finally:
            fleet.stop()
            shutil.rmtree(bench.up, ignore_errors=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(everything, file)


def report(count, what, runs, memory):
    titles = {"cold": "one probe, cold", "rounds": f"one probe, cold, and {ROUNDS - 1} more", "upload": "1 MiB to each"}
    print(f"\n### {count} host{'s' * (count > 1)}: {titles[what]}\n")
    print("| | wall s | ratio | client CPU s | ratio | sshd CPU s | memory MiB |\n|---|---|---|---|---|---|---|")
    middle = {n: {k: statistics.median(r[k] for r in rs) for k in ("wall", "cpu", "server")} for n, rs in runs.items()}
    mine = middle["kwscale"]
    for name, m in sorted(middle.items(), key=lambda item: item[1]["wall"]):
        # How much of a peer's time and work ours takes.
        print(f"| {name} | {m['wall']:.3f} | {mine['wall'] / m['wall']:.2f} | {m['cpu']:.3f} | {mine['cpu'] / m['cpu']:.2f} "
              f"| {m['server']:.2f} | {memory[name]:.0f} |")
    sys.stdout.flush()


main()
