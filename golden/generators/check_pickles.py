#!/usr/bin/env python3
"""Opens checkpoints that tensormill wrote with torch and zipfile, and compares tensors with what was meant to be written.

    cargo run --package tensormill-pickle --example samples -- FOLDER [--large]
    python check_pickles.py FOLDER

Checks: torch.load(weights_only=True, mmap=True), also with offsets calculated as torch's own writer places them; names, dtypes,
shapes, bytes; ties share one storage and nothing else does; data of every storage is aligned to 64 bytes; zipfile's checksums;
the index names every tensor's file. Made with torch 2.15.0.
"""
import hashlib
import json
import sys
import zipfile
from pathlib import Path

import torch
from torch.utils.serialization import config

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pickles import NAMES, raw  # noqa: E402


def main():
    folder = Path(sys.argv[1])
    count = 0
    for sample in json.loads((folder / "manifest.json").read_text()):
        index = [f for f in sample["files"] if f.endswith(".json")]
        found, where = {}, {}
        for name in sample["files"]:
            if name in index:
                continue
            for calculated in (False, True):
                config.load.calculate_storage_offsets = calculated
                shard = torch.load(folder / name, weights_only=True, mmap=True)
            assert not set(shard) & set(found), name
            found |= shard
            where |= dict.fromkeys(shard, name)
            with zipfile.ZipFile(folder / name) as z:
                assert z.testzip() is None, name
                for i in z.infolist():
                    with open(folder / name, "rb") as f:
                        f.seek(i.header_offset + 26)
                        n, e = (int.from_bytes(f.read(2), "little") for _ in range(2))
                    assert (i.header_offset + 30 + n + e) % 64 == 0, (name, i.filename)
        assert set(found) == {t[0] for t in sample["tensors"]}
        for name, dtype, shape, digest in sample["tensors"]:
            t = found[name]
            size = list(t.shape)
            if t.dtype is torch.float4_e2m1fn_x2:
                size[-1] *= 2
            assert (NAMES[t.dtype], size) == (dtype, shape), (name, t.dtype, size)
            assert t.is_contiguous(), name
            data = t.numpy() if t.numel() > 1 << 30 else raw(t)
            assert hashlib.sha256(data).hexdigest() == digest, name
            count += 1
        places = [(where[n], t.untyped_storage().data_ptr()) for n, t in found.items() if t.numel()]
        assert len(places) - len(set(places)) == sample["tied"], sample["files"]
        for name in index:
            listed = json.loads((folder / name).read_text())
            assert listed["weight_map"] == where
            unique = {(where[n], t.untyped_storage().data_ptr()): t.untyped_storage().nbytes() for n, t in found.items()}
            total = sum(unique.values())
            assert listed["metadata"]["total_size"] == total, (listed["metadata"], total)
        print(f"{sample['files'][0]}: {len(sample['files'])} files, {len(found)} tensors, {sample['tied']} tied: as written")
    print(f"{count} tensors compared")


if __name__ == "__main__":
    main()
