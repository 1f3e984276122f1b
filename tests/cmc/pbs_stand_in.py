"""A small qsub, qstat and qdel that answer as a PBS Pro server does, and run jobs here.

Exit codes, states, ids and JSON are those that a real server gave. Called as

    python pbs_stand_in.py FOLDER qsub|qstat|qdel ARGUMENTS...

FOLDER holds the state of the server: ``settings.json``, ``calls.jsonl`` and a file per job.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

FINISHED, UNKNOWN, HISTORY_OFF = 35, 153, 36
WALLTIME_KILL, DELETED = -29, 271
HOST = "pbs.test"
ENVIRONMENT = ("PATH", "HOME", "JAX_", "XLA_", "OMP_", "OPENBLAS_")


def fail(code, text):
    print(text, file=sys.stderr)
    sys.exit(code)


class Server:
    def __init__(self, folder):
        self.folder = folder

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def read(self, name, default):
        try:
            with open(self.path(name)) as stream:
                return json.load(stream)
        except FileNotFoundError:
            return default

    def write(self, name, value):
        partial = self.path(f".{os.getpid()}.{name}")
        with open(partial, "w") as stream:
            json.dump(value, stream)
        os.replace(partial, self.path(name))

    def jobs(self):
        """Every job and element of an array by the part of its id before the host."""
        found = {}
        for name in os.listdir(self.folder):
            if re.fullmatch(r"job_.*\.json", name):
                job = self.read(name, None)
                found[job["id"].partition(".")[0]] = job
        return found

    def save(self, job):
        self.write(f"job_{job['id'].partition('.')[0]}.json", job)

    def settings(self):
        return self.read("settings.json", {})


def directives(text):
    """Options of the script as (letter, value), where PBS looks for them."""
    found = []
    for line in text.splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#PBS "):
            found += re.findall(r"-(\w) ?(\S*)", line[5:])
    return found


def qsub(server, arguments):
    (name,) = arguments
    with open(name) as stream:
        text = stream.read()
    options = directives(text)
    resources = [r for letter, value in options if letter == "l" for r in value.split(",")]
    names = [r.partition("=")[0] for r in resources]
    if "nodes" in names and {"select", "place"} & set(names):
        fail(6, "qsub: select and place cannot be used with nodes")
    known = {"nodes", "mem", "walltime", "select", "place", *server.settings().get("known", [])}
    for unknown in sorted(set(names) - known):
        fail(187, f"qsub: Unknown resource Resource_List.{unknown}")
    if any(letter == "t" for letter, _ in options):
        fail(2, "qsub: invalid option -- 't'")
    array = next((value for letter, value in options if letter == "J"), None)
    number = server.read("number.json", 11) + 1
    server.write("number.json", number)
    ids, most = [f"{number}.{HOST}"], 1
    if array is not None:
        first, last, limit = re.fullmatch(r"(\d+)-(\d+)(?:%(\d+))?", array).groups()
        if int(first) >= int(last):
            fail(2, "qsub: illegal -J value")
        ids = [f"{number}[{k}].{HOST}" for k in range(int(first), int(last) + 1)]
        most = int(limit or len(ids))
    walltime = next(r.partition("=")[2] for r in resources if r.startswith("walltime="))
    hours, minutes, seconds = (int(x) for x in walltime.split(":"))
    for k, job_id in enumerate(ids):
        server.save({
            "id": job_id, "index": k if array else None, "state": "Q", "text": text,
            "cwd": os.getcwd(), "seconds": hours * 3600 + minutes * 60 + seconds,
        })  # fmt: skip
    if not server.settings().get("never_start"):
        subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, server.folder, "serve", str(most), *ids],
            start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    print(f"{number}[].{HOST}" if array else ids[0])


def serve(server, arguments):
    """Run the elements of one submission, a limited number at a time."""
    most, waiting, running = int(arguments[0]), list(arguments[1:]), {}
    while waiting or running:
        for job_id, process in list(running.items()):
            job = server.jobs()[job_id.partition(".")[0]]
            over = time.monotonic() - job["started"] > job["seconds"]
            if process.poll() is None and over:
                end(job, signal.SIGTERM)
                end(job, signal.SIGKILL)
                process.wait()
                job["status"] = WALLTIME_KILL
            if process.poll() is not None:
                status = job.get("status", process.returncode)
                deliver(server, job)
                server.save({**job, "state": "X" if job["index"] is not None else "F",
                             "status": status})  # fmt: skip
                del running[job_id]
        while waiting and len(running) < most:
            job_id = waiting.pop(0)
            job = server.jobs()[job_id.partition(".")[0]]
            if job["state"] == "Q":
                running[job_id] = started(server, job)
        time.sleep(0.01)


def started(server, job):
    environment = {k: v for k, v in os.environ.items() if k.startswith(ENVIRONMENT)}
    environment["PBS_JOBID"] = job["id"]
    if job["index"] is not None:
        environment["PBS_ARRAY_INDEX"] = str(job["index"])
    script = server.path(f"script_{job['id']}")
    with open(script, "w") as stream:
        stream.write(job["text"])
    with open(server.path(f"output_{job['id']}"), "w") as stream:
        process = subprocess.Popen(
            ["/bin/sh", script], cwd=server.folder, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server.save({**job, "state": "R", "pid": process.pid, "started": time.monotonic()})
    return process


def deliver(server, job):
    """Put what a job printed where it was submitted; a folder that is gone is complained of."""
    sequence = job["id"].partition(".")[0].replace("[", ".").rstrip("]")
    with open(server.path(f"output_{job['id']}")) as stream:
        printed = stream.read()
    try:
        with open(os.path.join(job["cwd"], f"heterodyne.o{sequence}"), "w") as stream:
            stream.write(printed)
    except OSError:
        server.write(f"undelivered_{job['id']}", printed)


def end(job, number):
    try:
        os.killpg(job["pid"], number)
    except (KeyError, ProcessLookupError):
        return


def qstat(server, arguments):
    settings = server.settings()
    if settings.get("failing", 0) > 0:
        server.write("settings.json", {**settings, "failing": settings["failing"] - 1})
        fail(111, "qstat: Connection refused; cannot connect to server pbs.test (errno=111)")
    history = "-x" in arguments
    if history and settings.get("no_history"):
        fail(HISTORY_OFF, "qstat: PBS is not configured to maintain job history")
    ids = [a for a in arguments if a != "-x"]
    assert ids[:3] == ["-f", "-F", "json"], ids
    jobs, shown, code = server.jobs(), {}, 0
    for job_id in ids[3:]:
        job = jobs.get(job_id.partition(".")[0])
        over = job is not None and job["state"] in "FX"
        if job is None or job.get("purged") or (over and settings.get("no_history")):
            code = UNKNOWN
            print(f"qstat: Unknown Job Id {job_id}", file=sys.stderr)
        elif over and not history:
            code = FINISHED
            print(f"qstat: {job_id} Job has finished, use -x", file=sys.stderr)
        else:
            shown[job["id"]] = {"Job_Name": "heterodyne", "job_state": job["state"]}
            if over:
                shown[job["id"]]["Exit_status"] = job["status"]
    if shown:
        print(json.dumps({"timestamp": 0, "pbs_version": "22.05", "Jobs": shown}))
    sys.exit(code)


def qdel(server, arguments):
    jobs, code = server.jobs(), 0
    for job_id in arguments:
        key = job_id.partition(".")[0]
        of_array = key[:-1] if key.endswith("[]") else None
        mine = [j for k, j in jobs.items() if k == key or (of_array and k.startswith(of_array))]
        if not mine:
            code = UNKNOWN
        for job in mine:
            if job["state"] in "FX":
                code = FINISHED
            elif job["state"] == "Q":
                server.save({**job, "state": "F", "status": DELETED})
            else:
                server.save({**job, "status": DELETED})
                end(job, signal.SIGTERM)
    sys.exit(code)


if __name__ == "__main__":
    _, folder, program, *rest = sys.argv
    if program != "serve":
        with open(os.path.join(folder, "calls.jsonl"), "a") as calls:
            calls.write(json.dumps([program, *rest]) + "\n")
    {"qsub": qsub, "qstat": qstat, "qdel": qdel, "serve": serve}[program](Server(folder), rest)
