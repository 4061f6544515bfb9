"""Writes ../recipes/<model>.json: the type that llama-quantize gives every tensor, for every recipe.

usage: LLAMA_CPP=<llama.cpp source tree> LLAMA_QUANTIZE=<llama-quantize binary> python recipes.py [SCRATCH [MODEL...]]
Made with llama-cpp-python 0.3.36's tree. Needs numpy and pyyaml (for gguf-py).

Models are headers in front of sparse files: `llama-quantize --dry-run` prints types without reading weights.

A file holds: `metadata` (hyper-parameters the choices depend on), `tensors` ([name, source type, dimensions outermost
first] in the order llama-quantize visits them), `types` (a palette), `plans` (run-length coded lists of types, one
per tensor in that order: a letter for the place in the palette, then a count unless one) and `runs` ([recipe, imatrix
given, options, index into plans or the error]).
`edits.json` holds the metadata and tensor order of real runs, before and after; `bytes.json` the hashes of the tensors
that real runs make of a small model whose weights are a formula (`weights` below), or the error.
"""
import hashlib, json, os, pathlib, re, string, struct, subprocess, sys, tempfile, zlib

LLAMA_CPP = pathlib.Path(os.environ["LLAMA_CPP"])
BINARY = os.environ["LLAMA_QUANTIZE"]
sys.path.insert(0, str(LLAMA_CPP / "gguf-py"))
import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent.parent / "recipes"
SCRATCH = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
RECIPES = """F32 F16 BF16 Q8_0 Q6_K Q5_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K Q4_K_M Q4_K_S Q4_1 Q4_0 Q3_K Q3_K_L Q3_K_M
Q3_K_S Q2_K Q2_K_S IQ4_NL IQ4_XS IQ3_M IQ3_S IQ3_XS IQ3_XXS IQ2_M IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S TQ2_0 TQ1_0
MXFP4_MOE Q2_0 Q1_0""".split()


def llama(layers, d, ff, heads, kv, vocab, arch="llama", experts=0, moe_ff=0, tied=False, qk_norm=False, post=False,
          head_dim=0, bias=False, extra=()):
    hd = head_dim or d // heads
    md = {
        "general.architecture": arch,
        f"{arch}.context_length": 4096, f"{arch}.embedding_length": d, f"{arch}.block_count": layers,
        f"{arch}.feed_forward_length": ff, f"{arch}.attention.head_count": heads,
        f"{arch}.attention.head_count_kv": kv, f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.attention.key_length": hd, f"{arch}.attention.value_length": hd, **dict(extra),
    }
    if experts:
        md |= {f"{arch}.expert_count": experts, f"{arch}.expert_used_count": 2}
        md |= {f"{arch}.expert_feed_forward_length": moe_ff} if moe_ff else {}
    t = [("token_embd.weight", [vocab, d]), ("output_norm.weight", [d])]
    t += [] if tied else [("output.weight", [vocab, d])]
    for i in range(layers):
        b = f"blk.{i}."
        t += [(b + "attn_norm.weight", [d]), (b + "ffn_norm.weight", [d])]
        t += [(b + "attn_q.weight", [heads * hd, d]), (b + "attn_k.weight", [kv * hd, d])]
        t += [(b + "attn_v.weight", [kv * hd, d]), (b + "attn_output.weight", [d, heads * hd])]
        if bias:
            t += [(b + f"attn_{x}.bias", [n * hd]) for x, n in (("q", heads), ("k", kv), ("v", kv))]
        if qk_norm:
            t += [(b + "attn_q_norm.weight", [hd]), (b + "attn_k_norm.weight", [hd])]
        if post:
            t += [(b + "post_attention_norm.weight", [d]), (b + "post_ffw_norm.weight", [d])]
        if experts:
            f = moe_ff or ff
            t += [(b + "ffn_gate_inp.weight", [experts, d])]
            t += [(b + "ffn_gate_exps.weight", [experts, f, d]), (b + "ffn_up_exps.weight", [experts, f, d])]
            t += [(b + "ffn_down_exps.weight", [experts, d, f])]
        else:
            t += [(b + "ffn_gate.weight", [ff, d]), (b + "ffn_up.weight", [ff, d]), (b + "ffn_down.weight", [d, ff])]
    return md, t


def falcon(layers, d, heads, kv, vocab):
    md = {
        "general.architecture": "falcon", "falcon.context_length": 2048, "falcon.embedding_length": d,
        "falcon.block_count": layers, "falcon.feed_forward_length": 4 * d, "falcon.attention.head_count": heads,
        "falcon.attention.head_count_kv": kv, "falcon.attention.layer_norm_epsilon": 1e-5,
    }
    t = [("token_embd.weight", [vocab, d]), ("output_norm.weight", [d]), ("output_norm.bias", [d]),
         ("output.weight", [vocab, d])]
    for i in range(layers):
        b = f"blk.{i}."
        t += [(b + "attn_norm.weight", [d]), (b + "attn_norm.bias", [d])]
        t += [(b + "attn_qkv.weight", [d + 2 * kv * d // heads, d]), (b + "attn_output.weight", [d, d])]
        t += [(b + "ffn_up.weight", [4 * d, d]), (b + "ffn_down.weight", [d, 4 * d])]
    return md, t


def phi3():
    md, t = llama(32, 3072, 8192, 32, 32, 32064, arch="phi3",
                  extra={"phi3.rope.dimension_count": 96, "phi3.attention.sliding_window": 2047}.items())
    t = [x for x in t if not re.search(r"attn_[qkv]\.|ffn_gate|ffn_up", x[0])]
    for i in range(32):
        t += [(f"blk.{i}.attn_qkv.weight", [9216, 3072]), (f"blk.{i}.ffn_up.weight", [16384, 3072])]
    return md, t


def bert(layers, d, ff, heads, vocab):
    md = {
        "general.architecture": "bert", "bert.context_length": 512, "bert.embedding_length": d,
        "bert.block_count": layers, "bert.feed_forward_length": ff, "bert.attention.head_count": heads,
        "bert.attention.layer_norm_epsilon": 1e-12, "bert.attention.causal": False,
    }
    t = [("token_embd.weight", [vocab, d]), ("position_embd.weight", [512, d]), ("token_types.weight", [2, d]),
         ("token_embd_norm.weight", [d]), ("token_embd_norm.bias", [d])]
    for i in range(layers):
        b = f"blk.{i}."
        t += [(b + f"attn_{x}.weight", [d, d]) for x in ("q", "k", "v", "output")]
        t += [(b + f"attn_{x}.bias", [d]) for x in ("q", "k", "v", "output")]
        t += [(b + f"{n}_norm.{s}", [d]) for n in ("attn_output", "layer_output") for s in ("weight", "bias")]
        t += [(b + "ffn_up.weight", [ff, d]), (b + "ffn_down.weight", [d, ff]), (b + "ffn_up.bias", [ff]),
              (b + "ffn_down.bias", [d])]
    return md, t


def qwen2moe():
    md, t = llama(4, 512, 1024, 8, 8, 1000, arch="qwen2moe", experts=16, moe_ff=256, bias=True)
    md["qwen2moe.expert_shared_feed_forward_length"] = 1024
    for i in range(4):
        b = f"blk.{i}."
        t += [(b + "ffn_gate_inp_shexp.weight", [1, 512]), (b + "ffn_gate_shexp.weight", [1024, 512]),
              (b + "ffn_up_shexp.weight", [1024, 512]), (b + "ffn_down_shexp.weight", [512, 1024])]
    return md, t


def every_kind(arch="llama", layers=16, experts=0, extra=()):
    """Every weight that gguf-py can spell: which are kept, and which count as what."""
    md, _ = llama(layers, 256, 256, 8, 2, 256, arch=arch, experts=experts, extra=extra)
    t = {}
    for name in gguf.TENSOR_NAMES.values():
        t[name.format(bid=2, xid=1) + ".weight"] = [256, 256]
    t["blk.2.attn_v.bias"] = [256]
    t["blk.3.ffn_up.weight"] = [1, 256]
    t["blk.4.ffn_up.weight"] = [1, 2, 256]
    t["blk.4.attn_k.weight"] = [3, 1, 256]
    t["blk.6.attn_v.scale"] = [4, 256]
    t["something.new.weight"] = [4, 256]
    return md, list(t.items())


MODELS = {
    "llama-3-8b": llama(32, 4096, 14336, 32, 8, 128256),
    "llama-3-70b": llama(80, 8192, 28672, 64, 8, 128256),
    "llama-2-7b": llama(32, 4096, 11008, 32, 32, 32000),
    "llama-3.2-1b": llama(16, 2048, 8192, 32, 8, 128256, tied=True),
    "mixtral-8x7b": llama(32, 4096, 14336, 32, 8, 32000, experts=8),
    "qwen3-30b-a3b": llama(48, 2048, 6144, 32, 4, 151936, arch="qwen3moe", experts=128, moe_ff=768, qk_norm=True,
                           head_dim=128),
    "qwen2-0.5b": llama(24, 896, 4864, 14, 2, 151936, arch="qwen2", tied=True, bias=True),
    "qwen2-72b": llama(80, 8192, 29568, 64, 8, 152064, arch="qwen2", bias=True),
    "qwen2-moe-tiny": qwen2moe(),
    "gemma-2-9b": llama(42, 3584, 14336, 16, 8, 256000, arch="gemma2", tied=True, post=True, head_dim=256,
                        extra={"gemma2.attention.sliding_window": 4096, "gemma2.attn_logit_softcapping": 50.0,
                               "gemma2.final_logit_softcapping": 30.0}.items()),
    "falcon-7b": falcon(32, 4544, 71, 1, 65024),
    "falcon-40b": falcon(60, 8192, 128, 8, 65024),
    "phi-3-mini": phi3(),
    "minilm-l6": bert(6, 384, 1536, 12, 30522),
    "odd-rows": llama(5, 320, 336, 3, 1, 500, head_dim=48),
}
GLM5 = {"glm5-next." + k: v for k, v in {
    "attention.key_length_mla": 64, "attention.value_length_mla": 64, "attention.q_lora_rank": 64,
    "attention.kv_lora_rank": 64, "ssm.conv_kernel": 4, "kda.head_dim": 64, "expert_feed_forward_length": 256,
    "expert_shared_count": 1, "attention.indexer.head_count": 4, "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 64, "attention.indexer.kpool": 4, "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 4, "hyper_connection.epsilon": 1e-5,
}.items()}
MODELS["every-kind"] = every_kind()
MODELS["every-kind-tied"] = (every_kind()[0], [t for t in every_kind()[1] if t[0] != "output.weight"])
MODELS["every-kind-glm5-next"] = every_kind("glm5-next", extra=GLM5.items())
# Options are tried on some models only.
OPTIONS = {
    "llama-3-8b": [
        ["--pure"], ["--leave-output-tensor"], ["--output-tensor-type", "q8_0"], ["--token-embedding-type", "f16"],
        ["--tensor-type", "attn_v=q8_0"],
        ["--tensor-type", r"BLK\.[0-3]\.ffn_(up|gate)=IQ4_NL", "--tensor-type", "ffn=q5_K"],
        ["--tensor-type", r"blk\.\D\.attn_q=f16", "--output-tensor-type", "f32"],
    ],
    "llama-3.2-1b": [
        ["--pure"], ["--output-tensor-type", "q5_0"], ["--token-embedding-type", "q4_1"],
        ["--token-embedding-type", "q4_1", "--output-tensor-type", "q5_0"], ["--tensor-type", "token_embd=q3_k"],
    ],
    "every-kind": [["--leave-output-tensor"], ["--token-embedding-type", "q4_1"],
                   ["--token-embedding-type", "q4_1", "--tensor-type", "^per_layer=q5_1"]],
    "odd-rows": [["--pure"], ["--tensor-type", "attn_q=q6_k"], ["--output-tensor-type", "f16"]],
    "mixtral-8x7b": [["--pure"], ["--tensor-type", "ffn_down_exps=q8_0"]],
}
OPTION_RECIPES = "F16 Q8_0 Q4_0 Q4_K_M Q2_K Q3_K_M IQ3_XXS".split()


def source_type(name, dims):
    small = len(dims) == 1 or re.search(r"_norm|ffn_gate_inp|^position_embd|^token_types|scale$", name)
    return "F32" if small else "BF16"


def write_header(path, md, tensors, order=None, data=False):
    w = gguf.GGUFWriter(path, md["general.architecture"])
    for k, v in md.items():
        if k == "general.architecture":
            continue
        if isinstance(v, bool):
            w.add_bool(k, v)
        elif isinstance(v, int):
            w.add_uint32(k, v)
        elif isinstance(v, float):
            w.add_float32(k, v)
        elif isinstance(v, list):
            w.add_array(k, v)
        else:
            w.add_string(k, v)
    total = 0
    rng = np.random.default_rng(1)
    for name, dims in tensors:
        kind = source_type(name, dims)
        size = (4 if kind == "F32" else 2) * int(np.prod(dims))
        if data:
            assert kind == "F32" or all(d % 2 == 0 for d in dims)
            x = rng.standard_normal(dims).astype(np.float32)
            w.add_tensor(name, x)
        else:
            raw = gguf.GGMLQuantizationType[kind]
            dt = np.dtype(np.float32) if kind == "F32" else np.dtype(np.uint8)
            shape = dims if kind == "F32" else dims[:-1] + [dims[-1] * 2]
            w.add_tensor_info(name, shape, dt, size, raw_dtype=raw)
        total += (size + 31) // 32 * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    if data:
        w.write_tensors_to_file()
    else:
        w.write_ti_data_to_file()
    w.close()
    if not data:
        with open(path, "r+b") as f:
            f.seek(0, 2)
            f.truncate((f.tell() + 31) // 32 * 32 + total)


def write_imatrix(path, entries):
    """The legacy form: {name: (calls, values)}."""
    with open(path, "wb") as f:
        f.write(struct.pack("<i", len(entries)))
        for name, (calls, values) in entries.items():
            f.write(struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, len(values)))
            f.write(np.asarray(values, dtype="<f4").tobytes())
        f.write(struct.pack("<ii", 17, 9) + b"words.txt")


LINE = re.compile(r"^\[ *\d+/ *\d+\] +(\S+) +- \[.*\], type = +(\S+), size = .*? MiB(?: -> .*\((\S+)\))?$", re.M)


def run(args):
    p = subprocess.run([BINARY, *args], cwd=SCRATCH, capture_output=True, text=True)
    return p.returncode, p.stdout + p.stderr


def rle(types, palette):
    """One letter per type (its place in the palette), then how often it repeats where that is not once."""
    out = []
    for t in types:
        if t not in palette:
            palette.append(t)
        letter = string.ascii_letters[palette.index(t)]
        if out and out[-1][0] == letter:
            out[-1][1] += 1
        else:
            out.append([letter, 1])
    return "".join(t if n == 1 else f"{t}{n}" for t, n in out)


def flat(x):
    return json.dumps(x, separators=(",", ":"))


def lines(xs):
    return "[\n" + ",\n".join(map(flat, xs)) + "]"


def table(name, md, tensors):
    path = SCRATCH / "model.gguf"
    # Shuffled, so that the order seen is llama-quantize's own.
    rng = np.random.default_rng(7)
    write_header(path, md, [tensors[i] for i in rng.permutation(len(tensors))])
    types, plans, runs, order = [], [], [], None
    cases = [(r, im, []) for r in RECIPES for im in (False, True)]
    cases += [(r, im, o) for o in OPTIONS.get(name, []) for r in OPTION_RECIPES for im in (False, True)]
    for recipe, im, options in cases:
        code, text = run([*(["--imatrix", "im.dat"] if im else []), *options, "--dry-run", "model.gguf", recipe])
        found = LINE.findall(text)
        if code != 0 or len(found) != len(tensors):
            error = re.search(r"failed to quantize: (.*)", text)
            assert error, f"{name} {recipe} {options}: {code} {len(found)}\n{text[-2000:]}"
            runs.append([recipe, im, options, error.group(1)])
            continue
        names = [n for n, _, _ in found]
        assert order in (None, names)
        order = names
        plan = rle(((new or old).upper() for _, old, new in found), types)
        if plan not in plans:
            plans.append(plan)
        runs.append([recipe, im, options, plans.index(plan)])
    path.unlink()
    dims = dict(tensors)
    doc = {"metadata": md, "tensors": [[n, source_type(n, dims[n]), dims[n]] for n in order], "types": types,
           "plans": plans, "runs": runs}
    # One record per line keeps differences readable.
    text = ",\n".join(f'"{k}":' + (flat(v) if k in ("metadata", "types") else lines(v)) for k, v in doc.items())
    text = "{" + text + "}"
    (OUT / f"{name}.json").write_text(text + "\n")
    print(name, len(tensors), "tensors", len(plans), "plans", len(text), "bytes", flush=True)


def typed(reader):
    out = []
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        out.append([key, "/".join(t.name.lower() for t in field.types), field.contents()])
    return out


def edits():
    """One real run each with and without importance: metadata and tensor order."""
    md, tensors = llama(2, 256, 512, 4, 2, 64)
    md |= {
        "general.alignment": 32, "general.file_type": 0, "general.name": "tiny", "tokenizer.ggml.model": "none",
        "tokenizer.ggml.tokens": ["a", "b\0c", "d"], "general.quantization_version": 2, "split.no": 0, "split.count": 1,
        "general.tags": ["x", "y"], "split.tensors.count": len(tensors), "quantize.imatrix.file": "old.dat",
        "general.description": "before\0after", "zeta": 1,
    }
    rng = np.random.default_rng(3)
    path = SCRATCH / "model.gguf"
    for k in ("split.no", "split.count", "split.tensors.count"):
        md.pop(k)  # a split set needs its other files; removal is checked by the peer's source only
    write_header(path, md, [tensors[i] for i in rng.permutation(len(tensors))], data=True)
    before = gguf.GGUFReader(path)
    dims = dict(tensors)
    doc = {"before": typed(before), "before_tensors": [[t.name, "F32", dims[t.name]] for t in before.tensors], "after": []}
    long = "a" * 120 + "\u00e9" * 10 + ".dat"
    for im in (None, "im.dat", long):
        if im:
            write_imatrix(SCRATCH / im, {"blk.0.attn_q.weight": (2, np.ones(256)), "blk.1.attn_v.weight": (1, np.ones(256))})
        code, text = run([*(["--imatrix", im] if im else []), "model.gguf", "out.gguf", "Q4_0", "1"])
        assert code == 0, text
        # GGUFReader decodes as UTF-8; the long name is cut inside a character, so its bytes are kept as hex.
        after = gguf.GGUFReader(SCRATCH / "out.gguf")
        kv = []
        for key, field in after.fields.items():
            if key.startswith("GGUF."):
                continue
            kind = "/".join(t.name.lower() for t in field.types)
            try:
                kv.append([key, kind, field.contents()])
            except UnicodeDecodeError:
                kv.append([key, "hex", bytes(field.parts[field.data[0]]).hex()])
        doc["after"].append({"imatrix": im, "metadata": kv, "tensors": [[t.name, t.tensor_type.name] for t in after.tensors]})
        (SCRATCH / "out.gguf").unlink()
        if im:
            (SCRATCH / im).unlink()
    path.unlink()
    text = ",\n".join(f'"{k}":{lines(v)}' for k, v in doc.items())
    (OUT / "edits.json").write_text("{" + text + "}\n")


def weights(name, n):
    """n floats in [-0.1, 0.1) from a hash of their index and the tensor's name: exact in any language."""
    i = np.arange(n, dtype=np.uint32)
    x = i * np.uint32(2654435761) + np.uint32(zlib.crc32(name.encode()))
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    return ((x >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24) - np.float32(0.5)) * np.float32(0.2)


def importance(name, n):
    """n non-negative floats, some of them zero."""
    w = weights("importance of " + name, n)
    return np.where(w < -0.08, np.float32(0), (w + np.float32(0.1)) * np.float32(50))


BYTES_RECIPES = "F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 Q3_K_L Q3_K_M Q3_K_S Q2_K".split()
# Run with importance for every matrix of the blocks as well, since the lowest ones need it.
LOW_RECIPES = [r for r in RECIPES if r not in BYTES_RECIPES and r not in ("F32", "Q5_K", "Q4_K", "Q3_K")]


def bytes_of_runs():
    md, tensors = llama(2, 256, 512, 4, 2, 64, experts=2)
    md["llama.expert_used_count"] = 1
    w = gguf.GGUFWriter(SCRATCH / "model.gguf", "llama")
    for k, v in md.items():
        if k != "general.architecture":
            (w.add_uint32 if isinstance(v, int) else w.add_float32)(k, v)
    for name, dims in tensors:
        w.add_tensor(name, weights(name, int(np.prod(dims))).reshape(dims))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    # Entries for some tensors, one of the wrong size for embeddings (which the peer ignores); the second expert
    # of the GGUF form was never reached.
    entries, full = {"token_embd.weight": 64}, {}
    for name, dims in tensors:
        if name.startswith("blk") and len(dims) > 1 and "gate_inp" not in name:
            full[name] = dims[-1] * (dims[0] if len(dims) == 3 else 1)
    entries |= {n: k for n, k in full.items() if "attn_k" not in n}
    write_imatrix(SCRATCH / "im.dat", {n: (3, importance(n, k)) for n, k in entries.items()})
    write_imatrix(SCRATCH / "full.dat", {n: (3, importance(n, k)) for n, k in full.items()})
    w = gguf.GGUFWriter(SCRATCH / "im.gguf", "none")
    w.add_string("general.type", "imatrix")
    w.add_array("imatrix.datasets", ["words.txt"])
    w.add_uint32("imatrix.chunk_count", 17)
    w.add_uint32("imatrix.chunk_size", 512)
    for n, k in entries.items():
        matrices = 2 if "exps" in n else 1
        w.add_tensor(n + ".in_sum2", importance(n, k).reshape(matrices, -1))
        w.add_tensor(n + ".counts", np.array([[7.0], [0.0]][:matrices], dtype=np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    doc = {"metadata": md, "tensors": [[n, "F32", d] for n, d in tensors], "entries": list(entries.items()),
           "full": list(full.items()), "runs": []}
    for recipe in BYTES_RECIPES + LOW_RECIPES:
        for im in (None, "im.dat", "full.dat" if recipe in LOW_RECIPES else "im.gguf"):
            code, text = run([*(["--imatrix", im] if im else []), "model.gguf", "out.gguf", recipe, "2"])
            if code != 0:
                doc["runs"].append([recipe, im, re.search(r"failed to quantize: (.*)", text).group(1)])
                continue
            out = gguf.GGUFReader(SCRATCH / "out.gguf")
            hashes = [[t.name, t.tensor_type.name, hashlib.sha256(t.data.tobytes()).hexdigest()[:16]] for t in out.tensors]
            doc["runs"].append([recipe, im, hashes])
    for f in ("model.gguf", "out.gguf", "im.dat", "im.gguf", "full.dat"):
        (SCRATCH / f).unlink()
    text = ",\n".join(f'"{k}":' + (flat(v) if k == "metadata" else lines(v)) for k, v in doc.items())
    (OUT / "bytes.json").write_text("{" + text + "}\n")
    print("bytes", len(text))


def main():
    OUT.mkdir(exist_ok=True)
    SCRATCH.mkdir(exist_ok=True)
    edits()
    bytes_of_runs()
    write_imatrix(SCRATCH / "im.dat", {"nothing": (1, [1.0])})
    only = sys.argv[2:]
    for name, (md, tensors) in MODELS.items():
        if not only or name in only:
            table(name, md, tensors)
    (SCRATCH / "im.dat").unlink()


main()
