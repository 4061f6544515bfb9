"""Whether huggingface_hub and tensormill share one cache: what one fetched the other opens offline, in both directions, and both at
once. Everything is asked of a local server; nothing outside this machine is.

usage: check_hub_cache.py TENSORMILL HUB_SERVER      (the two programs: target/debug/tensormill, target/debug/hub-server)
Checked with huggingface_hub 2.4.0.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent
REPO = "org/tiny"

# Runs in a process of its own: huggingface_hub reads the environment when it is imported.
OPEN_OFFLINE = """
import sys, json
from pathlib import Path
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache, get_cached_repo_tree
repo, cache, source = sys.argv[1], sys.argv[2], Path(sys.argv[3])
folder = Path(snapshot_download(repo, cache_dir=cache))
names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())
for name in names:
    assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert Path(hf_hub_download(repo, name, cache_dir=cache)) == folder / name
    assert Path(try_to_load_from_cache(repo, name, cache_dir=cache)) == folder / name
assert sorted(f.path for f in get_cached_repo_tree(repo, cache_dir=cache)) == names
info = scan_cache_dir(cache)
assert not info.warnings, info.warnings
(found,) = info.repos
(revision,) = found.revisions
assert revision.refs == frozenset(["main"]) and revision.nb_files == len(names), revision
print(json.dumps({"commit": revision.commit_hash, "files": len(names)}))
"""

FETCH = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], cache_dir=sys.argv[2]))
"""

VERIFY = """
import sys
from huggingface_hub import HfApi
v = HfApi().verify_repo_checksums(sys.argv[1], local_dir=sys.argv[2])
assert not v.mismatches and not v.missing_paths and not v.extra_paths, v
"""


def main():
    mill, hub_server = (str(Path(p).resolve()) for p in sys.argv[1:3])
    work = Path(tempfile.mkdtemp(prefix="hub-cache-"))
    source = work / "root" / REPO
    shutil.copytree(GOLDEN / "models/tiny-llama", source, ignore=shutil.ignore_patterns("expected*", "MANIFEST*"))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text("{}")
    (source / "with space and ü.txt").write_text("x")
    (source / "empty.txt").write_text("")
    count = sum(p.is_file() for p in source.rglob("*"))

    server = subprocess.Popen([hub_server, "--root", work / "root"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = server.stdout.readline().strip()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()}
        env = clean | {"HF_ENDPOINT": url, "HF_HOME": str(work / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        offline = env | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}

        def python(code, *args, env):
            out = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True)
            assert out.returncode == 0, out.stderr
            return out.stdout

        def pull(*args, cache, env=env):
            out = subprocess.run([mill, "pull", REPO, "--json", *args], env=env | {"HF_HUB_CACHE": str(cache)}, capture_output=True, text=True)
            assert out.returncode == 0, out.stdout + out.stderr
            return json.loads(out.stdout)

        ours = pull("--all", cache=work / "a")
        assert ours["fetched_files"] == count, ours
        seen = json.loads(python(OPEN_OFFLINE, REPO, work / "a", source, env=offline))
        assert seen == {"commit": ours["commit"], "files": count}, seen
        print(f"tensormill fetched {count} files, huggingface_hub opened them offline")

        python(FETCH, REPO, work / "b", env=env)
        theirs = pull("--all", "--offline", cache=work / "b", env=offline)
        assert (theirs["commit"], theirs["fetched_files"], len(theirs["files"])) == (ours["commit"], 0, count), theirs
        assert pull("--all", cache=work / "b")["received_bytes"] == 0
        print("huggingface_hub fetched them, tensormill opened them offline and fetched nothing more")

        pull("--config-only", cache=work / "c")
        python(FETCH, REPO, work / "c", env=env)
        assert pull("--all", "--offline", cache=work / "c", env=offline)["fetched_files"] == 0
        python(OPEN_OFFLINE, REPO, work / "c", source, env=offline)
        print("each completed what the other had begun")

        both = env | {"HF_HUB_CACHE": str(work / "d")}
        running = [subprocess.Popen([mill, "pull", REPO, "--all"], env=both, stdout=subprocess.DEVNULL) for _ in range(3)]
        running += [subprocess.Popen([sys.executable, "-c", FETCH, REPO, work / "d"], env=both, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        assert [p.wait() for p in running] == [0] * 5
        python(OPEN_OFFLINE, REPO, work / "d", source, env=offline)
        blobs = list((work / "d/models--org--tiny/blobs").iterdir())
        assert not [b for b in blobs if "." in b.name], blobs
        print("five processes at once left one complete cache")

        pull("--all", "-o", str(work / "folder"), cache=work / "a")
        python(VERIFY, REPO, work / "folder", env=env)
        print("huggingface_hub verified a folder that tensormill made")
    finally:
        server.kill()
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
