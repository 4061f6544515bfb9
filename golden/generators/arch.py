"""Writes golden/arch/*.json: what the peer's converter makes of a config and a list of tensors.

usage: LLAMA_CPP=<llama.cpp source tree> python arch.py [NAME...]
Made with llama-cpp-python 0.3.36's tree, transformers 5.23.0, torch 2.15.0.

Each file: `config` and `assets` (side files), `tensors` (source names, `{}` standing for every number below the
counts given, with dims and dtype), and what the peer's own classes gave: `expected.tensors` as [GGUF name, dims,
kept in f32, hash], `expected.early` and `expected.hyper` as [key, type, value], and the vocabulary's attempts and keys.

Small models also carry FNV-1a hashes of every output tensor as f32, for sources filled by `values()` below; large ones
are headers only.
"""
import itertools, json, os, pathlib, re, sys, tempfile

LLAMA = os.environ["LLAMA_CPP"]
sys.path.insert(0, LLAMA)
import numpy as np
import torch
import transformers
from safetensors import safe_open
import conversion
from conversion.base import LazyTorchTensor, ModelBase, ModelType, TextModel, get_model_architecture
from conversion import get_model_class
import gguf

OUT = pathlib.Path(__file__).resolve().parent.parent / "arch"
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def values(index, n):
    """The elements of source tensor number `index`: small dyadic numbers, exact in every float type."""
    i = np.arange(n, dtype=np.uint64) + np.uint64(index * 7919)
    x = (i * np.uint64(2654435761)) % np.uint64(1 << 32)
    return ((x >> np.uint64(24)).astype(np.float32) - 128.0) / 256.0


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def expand(tensors):
    out = {}
    for pattern, counts, dims, dtype in tensors:
        for numbers in itertools.product(*(range(c) for c in counts)):
            out[pattern.format(*numbers)] = (dims, dtype)
    return dict(sorted(out.items()))


def fold(shapes):
    """Names that differ in numbers only, folded where every number below the count is there."""
    groups = {}
    for name, (dims, dtype) in shapes.items():
        numbers = tuple(int(n) for n in re.findall(r"(?<=\.)\d+(?=\.)", name))
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "{}", name)
        groups.setdefault((pattern, tuple(dims), dtype), []).append(numbers)
    out = []
    for (pattern, dims, dtype), numbers in groups.items():
        counts = [max(c) + 1 for c in zip(*numbers)]
        if np.prod(counts, dtype=int) == len(numbers):
            out.append([pattern, counts, list(dims), dtype])
        else:
            out += [[pattern.format(*n), [], list(dims), dtype] for n in numbers]
    return out


def run_peer(folder, tensors, ftype, with_values, attempts_fail=None):
    hparams = ModelBase.load_hparams(folder, False)
    cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    tried = []

    def index(self, remote_hf_model_id=None):
        found = {}
        for i, (name, (dims, dtype)) in enumerate(tensors.items()):
            if with_values:
                t = torch.from_numpy(values(i, int(np.prod(dims)))).reshape(dims).to(DTYPES[dtype])
                gen = lambda t=t: LazyTorchTensor.from_eager(t)
            else:
                gen = lambda dims=dims, dtype=dtype: LazyTorchTensor(
                    meta=LazyTorchTensor.meta_with_dtype_and_shape(DTYPES[dtype], tuple(dims)), args=(), func=lambda: None)
            if item := self.filter_tensors((name, gen)):
                found[item[0]] = item[1]
        return found

    def form(name):
        def set_vocab(self, *a, **k):
            tried.append(name)
            if attempts_fail:
                raise FileNotFoundError(name)
            self.gguf_writer.add_string("vocab", name)
        return set_vocab

    saved = {n: getattr(TextModel, n) for n in ("_set_vocab_sentencepiece", "_set_vocab_llama_hf", "_set_vocab_gpt2")}
    saved_index = ModelBase.index_tensors
    ModelBase.index_tensors = index
    for n, f in zip(saved, ("SentencePiece", "LlamaHf", "Gpt2")):
        setattr(TextModel, n, form(f))
    own = cls.set_vocab
    foreign = "phi" in cls.__module__ or "bert" in cls.__module__
    if foreign:
        cls.set_vocab = lambda self: None
    try:
        with torch.inference_mode():
            m = cls(folder, ftype, folder / "out.gguf", model_name="x")
            m.prepare_tensors()
            try:
                m.prepare_metadata(vocab_only=False)
            except FileNotFoundError:
                pass
    finally:
        ModelBase.index_tensors = saved_index
        cls.set_vocab = own
        for n, f in saved.items():
            setattr(TextModel, n, f)
    return m, tried, foreign


def kv(m):
    def show(v):
        if v.type == gguf.GGUFValueType.ARRAY:
            kinds = {gguf.GGUFValueType.get_type(x).name for x in v.value}
            return ["ARRAY " + kinds.pop(), list(v.value)]
        if v.type == gguf.GGUFValueType.FLOAT32:
            return [v.type.name, int(np.float32(v.value).view(np.uint32))]
        return [v.type.name, v.value]
    return [[k, *show(v)] for k, v in m.gguf_writer.kv_data[0].items()]


def make(name, config, shapes, assets=None, with_values=True):
    assets = assets or {}
    with tempfile.TemporaryDirectory() as tmp:
        folder = pathlib.Path(tmp) / "model"
        folder.mkdir()
        for file, text in {"config.json": json.dumps(config), **assets}.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text(text)
        tensors = dict(sorted(shapes.items()))
        folded = fold(tensors)
        assert expand(folded) == {k: (list(d), t) for k, (d, t) in tensors.items()}
        m, _, foreign = run_peer(folder, tensors, gguf.LlamaFileType.MOSTLY_F16, False)
        _, tried, _ = run_peer(folder, tensors, gguf.LlamaFileType.MOSTLY_F16, False, attempts_fail=True)
        rows = [[n, list(t.shape), t.dtype == gguf.GGMLQuantizationType.F32] for n, t in m.gguf_writer.tensors[0].items()]
        if with_values:
            v, _, _ = run_peer(folder, tensors, gguf.LlamaFileType.ALL_F32, True)
            for row, t in zip(rows, v.gguf_writer.tensors[0].values()):
                data = LazyTorchTensor.to_eager(t.tensor)
                row.append(fnv(np.ascontiguousarray(data, dtype="<f4").tobytes()))
        pairs = kv(m)
        keys = [p[0] for p in pairs]
        assert keys[0] == "general.architecture"
        start = keys.index("general.type")
        end = keys.index("general.quantization_version")
        vocab = pairs[end + 1:]
        at = [p[0] for p in vocab].index("vocab") if not foreign else None
        body = [p for p in pairs[start:end] if not p[0].startswith("general.") or p[0] == "general.file_type"]
        expected = {
            "architecture": pairs[0][2],
            "early": pairs[1:start],
            "hyper": body,
            "vocab": None if foreign else {"attempts": tried, "before": vocab[:at], "after": vocab[at + 1:]},
            "tensors": rows,
        }
    data = {"config": config, "assets": assets, "tensors": folded, "expected": expected}

    def lines(rows):
        return "[\n" + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "]"

    text = "{\n" + ",\n".join([
        f'"config":{json.dumps(config, separators=(",", ":"))}',
        f'"assets":{json.dumps(assets, separators=(",", ":"))}',
        f'"tensors":{lines(folded)}',
        '"expected":{' + ",\n".join(
            f'"{k}":{lines(v) if k in ("tensors", "hyper") else json.dumps(v, separators=(",", ":"))}'
            for k, v in expected.items()) + "}"]) + "}\n"
    assert json.loads(text) == data
    (OUT / f"{name}.json").write_text(text)
    print(name, len(rows), "tensors", len(text), "bytes")


def saved(cls, config, dtype):
    """Names and shapes as save_pretrained writes them."""
    torch.manual_seed(0)
    model = cls(config).to(DTYPES[dtype])
    with tempfile.TemporaryDirectory() as tmp:
        model.save_pretrained(tmp)
        text = json.loads((pathlib.Path(tmp) / "config.json").read_text())
        with safe_open(pathlib.Path(tmp) / "model.safetensors", "pt") as f:
            return text, {n: (f.get_slice(n).get_shape(), dtype) for n in f.keys()}


def meta(cls, config, dtype):
    """Names and shapes of a model too large to make, from a small one's names and the meta device's shapes."""
    with torch.device("meta"):
        state = cls(config).state_dict()
    out = {}
    for n, t in state.items():
        dims = list(t.shape)
        if n.endswith("mlp.experts.gate_up_proj") or n.endswith("mlp.experts.down_proj"):
            e, stem = dims[0], n.rsplit(".", 1)[0]
            moe = config.model_type == "mixtral"
            stem = stem.replace(".mlp.", ".block_sparse_moe.") if moe else stem
            parts = (("w1", "w3") if moe else ("gate_proj", "up_proj")) if "gate_up" in n else (("w2",) if moe else ("down_proj",))
            rows = dims[1] // len(parts)
            for x in range(e):
                for p in parts:
                    out[f"{stem}.{x}.{p}.weight"] = ([rows, dims[2]], dtype)
        else:
            if config.model_type == "mixtral":
                n = n.replace(".mlp.gate.", ".block_sparse_moe.gate.")
            out[n] = (dims, dtype)
    if config.tie_word_embeddings:
        out.pop("lm_head.weight", None)
    return out


SMALL = dict(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
T = transformers


def old(config, **more):
    """The form that configs had before rope_parameters."""
    c = {k: v for k, v in config.items() if k not in ("rope_parameters", "dtype")}
    c["rope_theta"] = config["rope_parameters"]["rope_theta"]
    c["torch_dtype"] = config["dtype"]
    return {**c, **more}


def small():
    def go(name, cls, config, dtype="BF16", change=None, assets=None):
        text, shapes = saved(cls, config, dtype)
        if change:
            text, shapes = change(text, shapes) or (text, shapes)
        make(name, text, shapes, assets)

    cfg = lambda c, **k: c(**{**SMALL, **k})
    go("llama", T.LlamaForCausalLM, cfg(T.LlamaConfig))
    go("llama-tied-scaled", T.LlamaForCausalLM, cfg(T.LlamaConfig, tie_word_embeddings=True, head_dim=128,
       rope_parameters={**LLAMA3, "rope_theta": 500000.0}), "F32")
    go("llama-old-scaled", T.LlamaForCausalLM, cfg(T.LlamaConfig, head_dim=64), "F16", lambda c, s: (
        old(c, rope_theta=500000.0, rope_scaling={**LLAMA3, "factor": 32.0}), s))
    go("llama-bias", T.LlamaForCausalLM, cfg(T.LlamaConfig, attention_bias=True, mlp_bias=True), "F32")
    go("llama-buffers", T.LlamaForCausalLM, cfg(T.LlamaConfig), "F16", lambda c, s: (
        {**old(c), "rope_scaling": {"type": "linear", "factor": 2.0}},
        {**s, "model.layers.0.self_attn.rotary_emb.inv_freq": ([4], "F32")}),
       {"tokenizer_config.json": json.dumps({"add_prefix_space": True})})
    go("llama-base", T.LlamaModel, cfg(T.LlamaConfig, vocab_size=49152))
    go("llama-no-type", T.LlamaForCausalLM, cfg(T.LlamaConfig, vocab_size=32016), "F32", lambda c, s: (
        {k: v for k, v in old(c).items() if k not in ("model_type", "head_dim")}, s))
    go("llama-odd-types", T.LlamaForCausalLM, cfg(T.LlamaConfig), "F32", lambda c, s: (
        {**old(c), "rms_norm_eps": 1, "rope_theta": 10000}, s))
    go("mistral", T.MistralForCausalLM, cfg(T.MistralConfig, head_dim=16), "F16")
    go("mixtral", T.MixtralForCausalLM, cfg(T.MixtralConfig, num_local_experts=3))
    go("qwen2", T.Qwen2ForCausalLM, cfg(T.Qwen2Config, tie_word_embeddings=True))
    go("qwen2-yarn", T.Qwen2ForCausalLM, cfg(T.Qwen2Config), "F16", lambda c, s: (
        old(c, rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32.0}), s))
    go("qwen2-base", T.Qwen2Model, cfg(T.Qwen2Config), "F32", None, {
        "modules.json": json.dumps([{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]),
        "1_Pooling/config.json": json.dumps({"pooling_mode_lasttoken": True})})
    go("qwen3", T.Qwen3ForCausalLM, cfg(T.Qwen3Config, head_dim=16))
    moe = dict(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=24, head_dim=16)
    go("qwen3moe", T.Qwen3MoeForCausalLM, cfg(T.Qwen3MoeConfig, **moe))

    def fused(c, s):
        s = {n: v for n, v in s.items() if ".experts." not in n}
        for i in range(2):
            s[f"model.layers.{i}.mlp.experts.gate_up_proj"] = ([3, 48, 32], "BF16")
            s[f"model.layers.{i}.mlp.experts.down_proj"] = ([3, 32, 24], "BF16")
        return c, s
    go("qwen3moe-fused", T.Qwen3MoeForCausalLM, cfg(T.Qwen3MoeConfig, **moe), "BF16", fused)
    yarn = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 4096, "rope_theta": 150000.0}
    go("gpt-oss", T.GptOssForCausalLM, cfg(T.GptOssConfig, num_local_experts=3, num_experts_per_tok=2, head_dim=16,
       sliding_window=16, max_position_embeddings=131072, rope_parameters=yarn))
    go("gemma2", T.Gemma2ForCausalLM, cfg(T.Gemma2Config, head_dim=16, sliding_window=16), "F16",
       lambda c, s: (c, {**s, "lm_head.weight": ([40, 32], "F16")}))
    tok = {"tokenizer.json": json.dumps({"added_tokens": [{"id": 0}, {"id": 1}],
                                         "model": {"vocab": {f"t{i}": i for i in range(35)}}})}
    go("gemma3", T.Gemma3ForCausalLM, cfg(T.Gemma3TextConfig, head_dim=16, sliding_window=16), "BF16", None, tok)
    go("gemma3-old", T.Gemma3ForCausalLM, cfg(T.Gemma3TextConfig, head_dim=16, sliding_window=16), "F32", lambda c, s: (
        {**{k: v for k, v in c.items() if k != "rope_parameters"}, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
         "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "final_logit_softcapping": 30.0}, s), tok)

    def multimodal(c, s):
        s = {n.replace("model.", "language_model.model."): v for n, v in s.items()}
        s["vision_tower.vision_model.embeddings.patch_embedding.weight"] = ([8, 3, 2, 2], "BF16")
        s["multi_modal_projector.mm_input_projection_weight"] = ([8, 32], "BF16")
        keep = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "head_dim", "vocab_size", "sliding_window")
        return {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
                "text_config": {**{k: c[k] for k in keep if k in c}, "model_type": "gemma3_text",
                                "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
                "vision_config": {"hidden_size": 8, "model_type": "siglip_vision_model"}}, s
    go("gemma3-multimodal", T.Gemma3ForCausalLM, cfg(T.Gemma3TextConfig, head_dim=16, sliding_window=16), "BF16",
       multimodal, tok)
    go("phi3", T.Phi3ForCausalLM, cfg(T.Phi3Config, pad_token_id=0))
    factors = dict(short_factor=[1.0, 1.1, 1.25, 1.3], long_factor=[1.0, 2.2, 12.7, 64.1])
    go("phi3-longrope", T.Phi3ForCausalLM, cfg(T.Phi3Config, pad_token_id=0, max_position_embeddings=131072,
       original_max_position_embeddings=4096, sliding_window=262144,
       rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "factor": 32.0, **factors}), "F16")
    go("phi3-su", T.Phi3ForCausalLM, cfg(T.Phi3Config, pad_token_id=0, max_position_embeddings=131072), "F32",
       lambda c, s: (old(c, original_max_position_embeddings=4096, num_key_value_heads=2, num_hidden_layers=2,
                         rope_scaling={"type": "su", **factors}), s))
    bert = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    pool = lambda c: {"modules.json": json.dumps([{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]),
                      "1_Pooling/config.json": json.dumps(c)}
    go("bert", T.BertModel, T.BertConfig(**bert), "F32", None, pool({"pooling_mode_mean_tokens": True}))
    go("bert-mlm-gamma", T.BertForMaskedLM, T.BertConfig(**bert), "F16", lambda c, s: (c, {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for n, v in {**s, "bert.embeddings.position_ids": ([1, 64], "F32")}.items()}), pool({"pooling_mode": "cls"}))
    go("bert-labels", T.BertForSequenceClassification, T.BertConfig(**bert, num_labels=3), "F32")


def large():
    llama3 = dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                  num_key_value_heads=8, max_position_embeddings=8192, rms_norm_eps=1e-05, rope_theta=500000.0, torch_dtype="bfloat16",
                  tie_word_embeddings=False)
    gemma_tok = {"tokenizer.model": "present"}
    for name, cls, ccls, arch, c, assets in [
        ("llama-3-8b", T.LlamaForCausalLM, T.LlamaConfig, "LlamaForCausalLM", llama3, {}),
        ("llama-3.1-70b", T.LlamaForCausalLM, T.LlamaConfig, "LlamaForCausalLM",
         {**llama3, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
          "max_position_embeddings": 131072, "rope_scaling": LLAMA3}, {}),
        ("mixtral-8x7b", T.MixtralForCausalLM, T.MixtralConfig, "MixtralForCausalLM",
         dict(vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
              num_key_value_heads=8, max_position_embeddings=32768, rms_norm_eps=1e-05, rope_theta=1000000.0,
              num_local_experts=8, num_experts_per_tok=2, sliding_window=None, tie_word_embeddings=False, torch_dtype="bfloat16"), {}),
        ("qwen3-30b-a3b", T.Qwen3MoeForCausalLM, T.Qwen3MoeConfig, "Qwen3MoeForCausalLM",
         dict(vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=48, num_attention_heads=32,
              num_key_value_heads=4, head_dim=128, max_position_embeddings=40960, rms_norm_eps=1e-06, rope_theta=1000000.0,
              num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, norm_topk_prob=True, rope_scaling=None,
              sliding_window=None, use_sliding_window=False, tie_word_embeddings=False, torch_dtype="bfloat16"), {}),
        ("gemma-2-9b", T.Gemma2ForCausalLM, T.Gemma2Config, "Gemma2ForCausalLM",
         dict(vocab_size=256000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16,
              num_key_value_heads=8, head_dim=256, max_position_embeddings=8192, rms_norm_eps=1e-06, rope_theta=10000.0,
              attn_logit_softcapping=50.0, final_logit_softcapping=30.0, query_pre_attn_scalar=256, sliding_window=4096,
              sliding_window_size=4096, torch_dtype="float32"), gemma_tok),
        ("qwen2.5-7b", T.Qwen2ForCausalLM, T.Qwen2Config, "Qwen2ForCausalLM",
         dict(vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
              num_key_value_heads=4, max_position_embeddings=131072, rms_norm_eps=1e-06, rope_theta=1000000.0,
              sliding_window=131072, use_sliding_window=False, max_window_layers=28, tie_word_embeddings=False,
              torch_dtype="bfloat16"), {}),
    ]:
        dtype = "F32" if c["torch_dtype"] == "float32" else "BF16"
        shapes = meta(cls, ccls(**json.loads(json.dumps(c))), dtype)
        make(name, {"architectures": [arch], "model_type": ccls.model_type, **c}, shapes, assets, with_values=False)


def configs():
    """Configs that exercise the defaults and rules of transformers; one tensor each."""
    base = dict(SMALL, tie_word_embeddings=True)
    llama = dict(base, architectures=["LlamaForCausalLM"], model_type="llama")
    tok = {"tokenizer.json": json.dumps({"added_tokens": [], "model": {"vocab": [["a", 0.0]] * 40}})}
    gemma3 = dict(base, architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", head_dim=16)
    phi3 = dict(base, architectures=["Phi3ForCausalLM"], model_type="phi3")
    for name, config, assets in [
        ("llama-defaults", dict(architectures=["LlamaForCausalLM"], model_type="llama"), {}),
        ("llama-indivisible", dict(llama, hidden_size=30, head_dim=8, rope_theta=7.5), {}),
        ("llama-no-kv", {k: v for k, v in llama.items() if k != "num_key_value_heads"}, {}),
        ("llama-yarn", dict(llama, rope_parameters={"rope_type": "yarn", "rope_theta": 5e5, "factor": 4.0, "attention_factor": 1.5,
                                                  "beta_fast": 32, "beta_slow": 1.0}), {}),
        ("llama-scaling-wins", dict(llama, rope_scaling={"rope_type": "linear", "factor": 3.0}, rope_theta=123.0,
                                  rope_parameters={"rope_type": "default", "rope_theta": 9.0}), {}),
        ("llama-dynamic", dict(llama, rope_scaling={"type": "dynamic", "factor": 3.0}), {}),
        ("mistral-null-kv", dict(llama, architectures=["MistralForCausalLM"], model_type="mistral", num_key_value_heads=None,
                               head_dim=16), {}),
        ("mistral-sparse", dict(architectures=["MistralForCausalLM"], model_type="mistral", hidden_size=64), {}),
        ("mixtral-alias", dict(base, architectures=["MixtralForCausalLM"], model_type="mixtral", num_experts=5, head_dim=None), {}),
        ("qwen2-nested", dict(base, architectures=["Qwen2ForCausalLM"], model_type="qwen2", layer_types=["full_attention"] * 2,
                            rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0}}, rope_theta=77.0), {}),
        ("qwen2-wrong-layers", dict(base, architectures=["Qwen2ForCausalLM"], model_type="qwen2", layer_types=["full_attention"]), {}),
        ("qwen3-defaults", dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3"), {}),
        ("qwen3moe-alias", dict(base, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_local_experts=6), {}),
        ("gemma2-defaults", dict(architectures=["Gemma2ForCausalLM"], model_type="gemma2"), {}),
        ("gemma3-both-ways", dict(gemma3, use_bidirectional_attention=True, sliding_window=511), tok),
        ("gemma3-rope", dict(gemma3, rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 3.0},
                                                    "full_attention": {"rope_type": "linear", "factor": 4.0}}), tok),
        ("gemma3-pattern", dict(gemma3, sliding_window_pattern=1, final_logit_softcapping=12.5), tok),
        ("phi3-partial", dict(phi3, partial_rotary_factor=0.75, rope_theta=250000.0, sliding_window=None), {}),
        ("phi3-yarn", dict(phi3, max_position_embeddings=8192, original_max_position_embeddings=2048, rope_scaling={
            "type": "yarn", "short_factor": [1.0] * 4, "long_factor": [1.5] * 4}), {}),
        ("bert-defaults", dict(architectures=["BertModel"], model_type="bert"), {}),
        ("bert-two-labels", dict(architectures=["BertForSequenceClassification"], model_type="bert",
                               id2label={"1": "yes", "0": "no"}, hidden_size=32), {}),
        ("bert-num-labels", dict(architectures=["BertForSequenceClassification"], model_type="bert", num_labels=3,
                               id2label={"0": "x", "1": "y"}, hidden_size=32), {}),
    ]:
        bert = config["model_type"] == "bert"
        tensor = "embeddings.word_embeddings.weight" if bert else "model.embed_tokens.weight"
        make("config-" + name, config, {tensor: ([40, 32], "BF16")}, assets, with_values=False)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    wanted = set(sys.argv[1:])
    if wanted:
        whole = make
        make = lambda name, *a, **k: whole(name, *a, **k) if name in wanted else None
    small()
    configs()
    large()
