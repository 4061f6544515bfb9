"""Whether huggingface_hub finds what tensormill pushed, and whether the tests' server speaks the protocol that huggingface_hub speaks:
it pushes there itself, and tensormill finds that there is nothing left to send. Everything is asked of a local server; nothing outside
this machine is.

usage: check_hub_push.py TENSORMILL HUB_SERVER      (the two programs: target/debug/tensormill, target/debug/hub-server)
Checked with huggingface_hub 2.4.0, by plain LFS (HF_HUB_DISABLE_XET=1).
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent
TOKEN = "hf_tokenOfTheLocalServer"

# Each runs in a process of its own: huggingface_hub reads the environment when it is imported.
FIND = """
import sys
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
repo, source, revision = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
api = HfApi()
names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())
there = {f.path: f for f in api.list_repo_tree(repo, recursive=True, revision=revision) if hasattr(f, "size")}
assert sorted(there) == sorted([".gitattributes", *names]), sorted(there)
assert any(f.lfs for f in there.values()) and any(not f.lfs for f in there.values())
folder = Path(snapshot_download(repo, revision=revision))
for name in names:
    assert (folder / name).read_bytes() == (source / name).read_bytes(), name
    assert there[name].size == (source / name).stat().st_size, name
v = api.verify_repo_checksums(repo, local_dir=source, revision=revision)
assert not v.mismatches and v.missing_paths == [".gitattributes"] and not v.extra_paths, v
refs = api.list_repo_refs(repo)
print(api.repo_info(repo).private, {t.name: t.target_commit for t in refs.tags} , sorted(b.name for b in refs.branches))
"""

UPLOAD = """
import sys
from huggingface_hub import HfApi
repo, source = sys.argv[1:3]
api = HfApi()
assert api.whoami()["name"] == "me"
api.create_repo(repo, private=True)
api.create_repo(repo, private=True, exist_ok=True)
commit = api.upload_folder(repo_id=repo, folder_path=source, commit_message="by huggingface_hub")
api.create_tag(repo, tag="p1")
api.create_branch(repo, branch="side")
again = api.upload_folder(repo_id=repo, folder_path=source)
assert again.oid == commit.oid, "nothing to commit"
info = api.repo_info(repo)
assert info.private and info.sha == commit.oid
"""

CHANGE = """
import sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
repo, parent = sys.argv[1:3]
api = HfApi()
add = CommitOperationAdd("theirs.txt", b"theirs")
api.create_commit(repo, [add], commit_message="theirs", parent_commit=parent)
try:
    api.create_commit(repo, [CommitOperationAdd("late.txt", b"late")], commit_message="late", parent_commit=parent)
except Exception as e:
    assert e.response.status_code == 412, e
else:
    raise AssertionError("a commit on another parent was taken")
api.create_commit(repo, [CommitOperationDelete("theirs.txt")], commit_message="taken back")
"""


def main():
    mill, hub_server = (str(Path(p).resolve()) for p in sys.argv[1:3])
    work = Path(tempfile.mkdtemp(prefix="hub-push-"))
    source = work / "folder"
    shutil.copytree(GOLDEN / "models/tiny-llama", source, ignore=shutil.ignore_patterns("expected*", "MANIFEST*"))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling/config.json").write_text("{}")
    (source / "with space and ü.txt").write_text("x")
    (source / "empty.txt").write_text("")
    (source / "README.md").write_text("---\nlicense: mit\n---\n# Card\n")

    for parts in (None, 20000):
        home = work / f"home-{parts}"
        more = [] if parts is None else ["--part-bytes", str(parts)]
        server = subprocess.Popen([hub_server, "--token", f"{TOKEN}=me", *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = server.stdout.readline().strip()
            clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and "proxy" not in k.lower()}
            env = clean | {
                "HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": TOKEN,
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }

            def python(code, *args):
                out = subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True)
                assert out.returncode == 0, out.stdout + out.stderr
                return out.stdout.strip()

            def push(repo, *args):
                out = subprocess.run([mill, "push", str(source), repo, "--json", *args], env=env, capture_output=True, text=True)
                assert out.returncode == 0, out.stdout + out.stderr
                assert TOKEN not in out.stdout + out.stderr
                return json.loads(out.stdout)

            # Ours, found by theirs.
            report = push("me/ours", "--create", "--tag", "v1")
            head = report["branches"][0]["head"]
            found = python(FIND, "me/ours", source, "v1")
            assert found == f"True {{'v1': '{head}'}} ['main']", found

            # Theirs, found by ours: nothing is left to send, not even to a new branch.
            python(UPLOAD, "me/theirs", source)
            report = push("me/theirs", "--branch", "side", "--tag", "p1-again")
            assert report["bytes"] == 0 and not report["branches"][0]["commits"], report
            python(FIND, "me/theirs", source, "p1-again")

            # One after the other in one repository; storage has all bytes already.
            report = push("me/both", "--create", "--public")
            assert report["bytes_uploaded"] == 0, report
            python(CHANGE, "me/both", report["branches"][0]["head"])
            assert push("me/both")["bytes"] == 0
            assert python(FIND, "me/both", source, "main").startswith("False")
            pr = push("me/both", "--pr", "--delete", "nothing*")
            assert pr["pull_request"] is None, "nothing to propose"
            print(f"{'one PUT each' if parts is None else f'parts of {parts} bytes'}: {len(report['branches'][0]['files'])} files, both ways")
        finally:
            server.kill()
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
