"""Writes golden/quantized/fp8-*, fbgemm-fp8, bitnet and gpt-oss-mxfp4: what transformers itself reads and writes.

fp8-block, fp8-block-ue8m0: transformers' Fp8Quantize and Fp8Dequantize.
fp8-block-partial: blocks that the shape does not fill, as DeepSeek's 576 and 1536 rows have them. transformers writes none, so
    the scales are amax/448 of each block (inference/kernel.py of DeepSeek-V3, `weight_dequant`, is what reads them).
fp8-cast: plain casts without scales, e4m3 in attention and e5m2 in the feed-forward network.
fbgemm-fp8: rows as fbgemm_gpu's quantize_fp8_row scales them (its torch fallback; the package needs a GPU): 448/max(amax, 1e-12)
    in float32, codes are weight * scale, and the reciprocal is stored.
bitnet: ternary, by transformers' WeightQuant rule and pack_weights; the stored scale is the reciprocal.
gpt-oss-mxfp4: every code and scales from tiny to large, at random; values are transformers' convert_moe_packed_tensors, which
    transposes: blocks are [expert, out, in/32, 16] and values [expert, in, out]. Its tokenizer is byte-level, as the real one's.

usage: quantized_floats.py [NAME ...]     needs transformers 5.23.0
"""
import sys
import types

import torch
from transformers import BitNetQuantConfig, FbgemmFp8Config, FineGrainedFP8Config, Mxfp4Config
from transformers.integrations import bitnet as bits
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import tiny_tokenizers as tk
from quantized_common import HIDDEN, LAYER, LINEARS, linears, random, rest, write_folder

FP8 = torch.float8_e4m3fn


def block(name, **settings):
    config = FineGrainedFP8Config(weight_block_size=(32, 32), modules_to_not_convert=["lm_head"], **settings)
    quantizer = types.SimpleNamespace(quantization_config=config)
    tensors, expected = rest(), {}
    for n, w in linears().items():
        parts = Fp8Quantize(quantizer).convert({n + ".weight": w})
        tensors |= parts
        expected[n] = Fp8Dequantize(quantizer)._dequantize_one(*parts.values(), output_dtype=torch.float32)
    write_folder(name, tensors, config.to_dict(), expected)


def partial(name, high=64, wide=64):
    tensors, expected = rest(), {}
    for n, w in linears().items():
        rows, columns = w.shape
        x = torch.nn.functional.pad(w.float(), (0, -columns % wide, 0, -rows % high))
        x = x.unflatten(0, (-1, high)).unflatten(2, (-1, wide))
        scale = x.abs().amax((1, 3)) / 448
        spread = scale.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :columns]
        codes = (w.float() / spread).to(FP8)
        tensors |= {n + ".weight": codes, n + ".weight_scale_inv": scale}
        expected[n] = codes.float() * spread
    config = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [high, wide]}
    write_folder(name, tensors, config, expected)


def cast(name):
    codes = {n: w.to(torch.float8_e5m2 if ".mlp." in n else FP8) for n, w in linears().items()}
    write_folder(name, rest() | {n + ".weight": c for n, c in codes.items()}, None, {n: c.bfloat16() for n, c in codes.items()})


def fbgemm(name):
    tensors, expected = rest(), {}
    for n, w in linears().items():
        scale = 448 / w.float().abs().amax(1).clamp(min=1e-12)
        codes = (w.float() * scale[:, None]).clamp(-448, 448).to(FP8)
        inverse = (1 / scale).view(-1, 1)
        tensors |= {n + ".weight": codes, n + ".weight_scale": inverse}
        expected[n] = codes.float() * inverse
    config = FbgemmFp8Config(modules_to_not_convert=["lm_head"]).to_dict()
    write_folder(name, tensors, config, expected)


def bitnet(name):
    tensors, expected = rest(), {}
    for n, w in linears().items():
        scale = 1.0 / w.float().abs().mean().clamp_(min=1e-5)
        codes = (w.float() * scale).round().clamp(-1, 1)
        packed = bits.pack_weights(codes.clone())
        tensors |= {n + ".weight": packed, n + ".weight_scale": scale.bfloat16().reshape(1)}
        unpacked = bits.unpack_weights.__wrapped__ if hasattr(bits.unpack_weights, "__wrapped__") else bits.unpack_weights
        again = unpacked(packed, torch.float32)
        assert torch.equal(again, codes)
        expected[n] = again / scale.bfloat16().float()
    config = BitNetQuantConfig(modules_to_not_convert=["lm_head"]).to_dict()
    write_folder(name, tensors, config, expected)


def gpt_oss(name, experts=2, intermediate=64):
    rng = torch.Generator().manual_seed(9)
    pre = LAYER + "mlp.experts."
    tensors, expected = {}, {}
    for proj, rows, columns in (("gate_up_proj", 2 * intermediate, HIDDEN), ("down_proj", HIDDEN, intermediate)):
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8, generator=rng)
        scales = torch.randint(112, 130, (experts, rows, columns // 32), dtype=torch.uint8, generator=rng)
        scales[0, 0, 0] = 0  # 2^-127
        tensors |= {f"{pre}{proj}_blocks": blocks, f"{pre}{proj}_scales": scales,
                    f"{pre}{proj}_bias": random(proj, (experts, rows))}
        expected[pre + proj] = convert_moe_packed_tensors(blocks, scales)
    heads, width, vocab = 2, 16, 328
    tensors[LAYER + "mlp.router.weight"] = random("router", (experts, HIDDEN))
    tensors[LAYER + "mlp.router.bias"] = random("router.bias", (1, experts))[0]
    for proj in "qkvo":
        tensors[f"{LAYER}self_attn.{proj}_proj.weight"] = random(proj, (heads * width, HIDDEN))
        tensors[f"{LAYER}self_attn.{proj}_proj.bias"] = random(proj + ".bias", (1, HIDDEN))[0]
    tensors[LAYER + "self_attn.sinks"] = random("sinks", (1, heads))[0]
    for norm in ("model.norm", LAYER + "input_layernorm", LAYER + "post_attention_layernorm"):
        tensors[norm + ".weight"] = random(norm, (HIDDEN,))
    tensors["model.embed_tokens.weight"] = random("embed", (vocab, HIDDEN))
    tensors["lm_head.weight"] = random("head", (vocab, HIDDEN))
    method = Mxfp4Config(modules_to_not_convert=[
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]).to_dict()
    rope = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096, "rope_type": "yarn",
            "truncate": False}
    folder = write_folder(
        name, tensors, {"modules_to_not_convert": method["modules_to_not_convert"], "quant_method": "mxfp4"}, {}, more=expected,
        architectures=["GptOssForCausalLM"], model_type="gpt_oss", attention_bias=True, experts_per_token=1, num_experts_per_tok=1,
        num_local_experts=experts, intermediate_size=intermediate, layer_types=["sliding_attention"], sliding_window=128,
        rope_scaling=rope, rope_theta=150000, swiglu_limit=7.0, tie_word_embeddings=False, initial_context_length=4096,
        router_aux_loss_coef=0.9, output_router_logits=False, max_position_embeddings=131072, mlp_bias=..., pretraining_tp=..., vocab_size=vocab,
        bos_token_id=320, eos_token_id=322)
    tk.byte_bpe(folder, 320, "qwen2")


def main():
    makers = {
        "fp8-block": block,
        "fp8-block-ue8m0": lambda name: block(name, scale_fmt="ue8m0"),
        "fp8-block-partial": partial,
        "fp8-cast": cast,
        "fbgemm-fp8": fbgemm,
        "bitnet": bitnet,
        "gpt-oss-mxfp4": gpt_oss,
    }
    for name in sys.argv[1:] or makers:
        makers[name](name)


if __name__ == "__main__":
    main()
