#!/usr/bin/env python3
"""Put and get of one large file: Doldam, bare copies of the same bytes, and the peers that are installed, in one run.

    integration-tests/benches/compare.py [--doldam BINARY] [--peers DIR] [--runs 5] [--bytes 1073741824] [--work DIR]

--peers names a folder with `hdfs/{up,cli,down}` and `seaweedfs/{up,put,get,down}` scripts that start a cluster of
three data servers on loopback; without it only Doldam and the limits are measured. Everything listens on loopback,
runs one after the other in turn (round by round, so that a drift of the machine meets all alike), ends by itself and
is stopped by the process ids it was started with. Prints a Markdown table: MB are 10^6 bytes, medians over the runs.
"""
import argparse, json, os, re, resource, shutil, signal, statistics, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def peak_mib(pids):
    found = [re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read()) for pid in pids if os.path.exists(f"/proc/{pid}")]
    return max((int(match[1]) // 1024 for match in found if match), default=0)


def settle():
    """Writes back what is dirty and waits, at most 20 s, until the machine is nearly idle for half a second."""
    os.sync()
    busy = lambda: (lambda found: sum(int(found[i]) for i in (1, 2, 3, 6, 7, 8)))(open("/proc/stat").readline().split())
    for _ in range(40):
        before = busy()
        time.sleep(0.5)
        if busy() - before < 0.1 * 0.5 * os.cpu_count() * TICK:
            return


class Figures:
    def __init__(self):
        self.rows = {}

    def add(self, name, unit, value):
        self.rows.setdefault((name, unit), []).append(value)

    def median(self, name, unit):
        return statistics.median(self.rows.get((name, unit), [float("nan")]))

    def table(self):
        yield "| what | unit | median | all runs |"
        yield "|---|---|---:|---|"
        for (name, unit), values in self.rows.items():
            digits = 0 if unit == "MB/s" else 2
            runs = " ".join(f"{value:.{digits}f}" for value in values)
            yield f"| {name} | {unit} | {statistics.median(values):.{digits}f} | {runs} |"


class Bench:
    def __init__(self, options):
        self.options, self.figures, self.servers = options, Figures(), []
        self.work = tempfile.mkdtemp(prefix="compare-", dir=options.work)
        self.source = os.path.join(self.work, "source")
        with open(self.source, "wb") as out:
            for _ in range(options.bytes >> 20):
                out.write(os.urandom(1 << 20))

    def timed(self, name, command, pids=(), env=None, stdout=subprocess.DEVNULL, record=True):
        settle()
        servers, children = cpu_seconds(pids), resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.monotonic()
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=300)
        wall = time.monotonic() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{command} failed: {done.stderr.decode(errors='replace')[-2000:]}")
        if record:
            self.figures.add(name, "MB/s", self.options.bytes / 1e6 / wall)
            client = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
            cpu = cpu_seconds(pids) - servers + client
            self.figures.add(name, "CPU s/GiB", cpu * (1 << 30) / self.options.bytes)

    def limits(self, record):
        copy = os.path.join(self.work, "copy")
        self.timed("limit: cp", ["cp", self.source, copy], record=record)
        self.timed("limit: write + fsync, once", ["dd", f"if={self.source}", f"of={copy}", "bs=1M", "conv=fsync,notrunc", "status=none"], record=record)
        # What three replicas of everything cost in writing to memory alone, on a machine that may have to get the
        # memory from its host first.
        three = [f"{copy}{i}" for i in (1, 2, 3)]
        self.timed("limit: three new copies", ["sh", "-c", 'for to; do cp "$0" "$to"; done', self.source, *three], record=record)
        for path in [copy, *three]:
            os.remove(path)

    # Doldam: one namenode and three datanodes, each a process of its own.
    def start_doldam(self):
        binary, listen = self.options.doldam, "127.0.0.1:18020"
        home = os.path.join(self.work, "doldam")
        self.doldam_env = dict(os.environ, DOLDAM_NAMENODE=listen, HOME=self.work)
        roles = [["namenode", "--dir", f"{home}/nn", "--listen", listen]]
        roles += [["datanode", "--dir", f"{home}/dn{i}", "--listen", f"127.0.0.1:{18030 + i}", "--namenode", listen] for i in (1, 2, 3)]
        for role in roles:
            log = open(os.path.join(self.work, "servers.log"), "a")
            server = subprocess.Popen([binary, *role], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.doldam_env)
            self.servers.append(server)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            report = subprocess.run([binary, "admin", "report", "--json"], env=self.doldam_env, capture_output=True)
            if report.returncode == 0 and report.stdout.count(b'"live"') >= 3:
                return
            time.sleep(0.2)
        sys.exit("the cluster did not start; see " + os.path.join(self.work, "servers.log"))

    def doldam(self, record):
        pids, env = [server.pid for server in self.servers], self.doldam_env
        run = lambda *arguments: [self.options.doldam, "--quiet", *arguments]
        put = lambda replicas, durability: run("put", "--overwrite", "--replication", replicas, "--durability", durability, self.source, "/compare")
        for replicas, durability in (("3", "memory"), ("3", "all"), ("1", "memory")):
            self.timed(f"doldam put, {replicas} replicas, durability {durability}", put(replicas, durability), pids, env, record=record)
        out = os.path.join(self.work, "out")
        self.timed("doldam put, 3 replicas, durability memory", put("3", "memory"), pids, env, record=False)
        self.timed("doldam get to a file", run("get", "--overwrite", "/compare", out), pids, env, record=record)
        self.timed("doldam cat, discarded", run("cat", "/compare"), pids, env, record=record)
        if subprocess.run(["cmp", self.source, out]).returncode:
            sys.exit("doldam returned other bytes")
        os.remove(out)

    def hdfs(self, label, record):
        here = os.path.join(self.options.peers, "hdfs")
        env = dict(os.environ, SHIM="1") if label.endswith("shim") else dict(os.environ)
        data = os.environ.get("PEERS_DATA", "/tmp/peers-data") + "/hdfs/pids"
        pids = [int(open(os.path.join(data, name)).read()) for name in os.listdir(data)]
        cli = lambda *arguments: [os.path.join(here, "cli"), *arguments]
        out = os.path.join(self.work, "out")
        for replicas in (3, 1):
            subprocess.run(cli("-rm", "-f", "-skipTrash", "/compare"), env=env, capture_output=True)
            time.sleep(4)  # Datanodes drop the old blocks on a heartbeat.
            self.timed(f"{label} CLI put, {replicas} replicas", cli("-D", f"dfs.replication={replicas}", "-put", self.source, "/compare"), pids, env, record=record)
        self.timed(f"{label} CLI get to a file", cli("-get", "/compare", out), pids, env, record=record)
        os.remove(out)

    def seaweedfs(self, record):
        here = os.path.join(self.options.peers, "seaweedfs")
        run = os.environ.get("PEERS_CACHE", "/tmp/peers") + "/seaweedfs/run"
        pids = [int(open(os.path.join(run, name)).read()) for name in os.listdir(run) if name.endswith(".pid")]
        out = os.path.join(self.work, "out")
        for replicas, code in ((1, "000"), (3, "002")):
            env = dict(os.environ, REPL=code)
            self.timed(f"seaweedfs filer.copy put, {replicas} replicas", [os.path.join(here, "put"), self.source, f"/bench{replicas}/source"], pids, env, record=record)
        self.timed("seaweedfs filer.cat get to a file", [os.path.join(here, "get"), "/bench3/source", out], pids, dict(os.environ, VIA="cat"), record=record)
        os.remove(out)

    def close(self):
        for server in self.servers:
            server.send_signal(signal.SIGTERM)
        for server in self.servers:
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
        shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--doldam", default="target/release/doldam")
    parser.add_argument("--peers")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--work", default=None, help="folder for all data (default: the system's temporary folder)")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    bench = Bench(options)
    peers = []
    try:
        bench.start_doldam()
        steps = [bench.limits, bench.doldam]
        if options.peers:
            for name in ("hdfs", "seaweedfs"):
                env = dict(os.environ, SHIM="1") if name == "hdfs" else None
                subprocess.run([os.path.join(options.peers, name, "up"), "3"], check=True, env=env)
                peers.append(name)
            steps += [lambda record: bench.hdfs("hdfs with shim", record), bench.seaweedfs]
        for run in range(options.runs + 1):
            for step in steps:
                step(run > 0)  # The first round warms caches and is not counted.
            print(f"round {run} of {options.runs} done", file=sys.stderr)
        print(f"doldam datanode peak resident MiB: {peak_mib([server.pid for server in bench.servers[1:]])}, namenode: {peak_mib([bench.servers[0].pid])}")
        print("\n".join(bench.figures.table()))
        if options.json:
            rows = [dict(name=name, unit=unit, runs=values) for (name, unit), values in bench.figures.rows.items()]
            json.dump(rows, open(options.json, "w"), indent=1)
    finally:
        for name in peers:
            subprocess.run([os.path.join(options.peers, name, "down")])
        bench.close()


if __name__ == "__main__":
    main()
