#!/usr/bin/env python3
"""What operators of ONNX take and give, version by version, and what ONNX's own inference finds in golden graphs.

    python onnx_operators.py        writes crates/graph/data/operators.txt and golden/onnx/inferred.json

`operators.txt` comes from the schemas of the `onnx` package (all versions of the standard domain) and of ONNX Runtime (its
own domain, and what it adds to the standard one and exporters use). One line per operator and version:

    OPERATOR SINCE INPUTS > OUTPUTS ; ATTRIBUTES ; TYPES

- inputs and outputs: their types in order, separated by commas: the name of a type variable, or `=MASK`; `?` behind it:
  may be left out; `*`: any number of them, of one type; `~`: any number of any types; `-` where there are none. A number
  behind `*` or `~` is how many there are at least;
- attributes: `name:kind` with the number of `AttributeProto.AttributeType`, `!` behind it where it must be there;
- types: `VARIABLE=MASK`, where bit N of the mask (hexadecimal) stands for the element type N of `TensorProto.DataType`, and bit 0
  for anything that is no tensor.

An operator that is not there any more since a version has `-` for all of it. Lines `domain NAME` begin a domain.

`inferred.json`: per graph of golden/onnx/exports the outputs of all nodes in order, as `onnx.shape_inference` finds them (with
propagation of data, without the values' types that exporters write down): ELEMENT:DIM,DIM, `?` for a dimension whose length is
unknown, `*` where the rank is unknown, `-` where nothing is known.

Made with onnx 1.23.2 and onnxruntime 1.31.1.
"""
import json
from pathlib import Path

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "crates/graph/data/operators.txt"
EXPORTS, INFERRED = ROOT / "golden/onnx/exports", ROOT / "golden/onnx/inferred.json"
# What ONNX Runtime has in the standard domain beyond the standard, as far as exporters write it.
BEYOND = {"SimplifiedLayerNormalization"}
ELEMENTS = {name.lower(): n for name, n in onnx.TensorProto.DataType.items()}


def mask(types):
    """Bits of type strings; bit 0 for what is no dense tensor."""
    bits = 0
    for t in types:
        dense = t.startswith("tensor(") and t.endswith(")")
        bits |= 1 << ELEMENTS[t[len("tensor("):-1]] if dense else 1
    return f"{bits:x}"


def attribute(obj, *names):
    return next(getattr(obj, n) for n in names if hasattr(obj, n))


def formals(parameters, least, variables):
    out = []
    for i, p in enumerate(parameters):
        kind = attribute(p, "type_str", "typeStr")
        text = kind if kind in variables else "=" + mask([kind])
        option = str(p.option).rsplit(".", 1)[-1]
        if option == "Optional":
            text += "?"
        elif option == "Variadic":
            text += ("*" if attribute(p, "is_homogeneous", "isHomogeneous") else "~") + str(max(least - i, 0))
        out.append(text)
    return ",".join(out) or "-"


def line(s):
    if s.deprecated:
        return f"{s.name} {s.since_version} -"
    variables = {t.type_param_str: mask(t.allowed_type_strs) for t in s.type_constraints}
    kinds = []
    for name, a in sorted(s.attributes.items()):
        number = onnx.defs.OpSchema.AttrType[str(a.type).rsplit(".", 1)[-1]].value
        kinds.append(f"{name}:{number}{'!' if a.required else ''}")
    return (f"{s.name} {s.since_version} {formals(s.inputs, s.min_input, variables)} > "
            f"{formals(s.outputs, s.min_output, variables)} ; {' '.join(kinds)} ; "
            f"{' '.join(f'{k}={v}' for k, v in sorted(variables.items()))}").rstrip()


def table():
    standard = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    own = runtime.get_all_operator_schema()
    standard += [s for s in own if s.domain == "" and s.name in BEYOND]
    microsoft = [s for s in own if s.domain == "com.microsoft"]
    lines = ["# Operators of onnx 1.23.2 and onnxruntime 1.31.1; see golden/generators/onnx_operators.py."]
    for domain, schemas in (("ai.onnx", standard), ("com.microsoft", microsoft)):
        lines.append(f"domain {domain}")
        lines += [line(s) for s in sorted(schemas, key=lambda s: (s.name, s.since_version))]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def described(kind):
    t = kind.tensor_type
    if not t.elem_type:
        return "-"
    if not t.HasField("shape"):
        return f"{t.elem_type}:*"
    dims = [str(d.dim_value) if d.HasField("dim_value") else "?" for d in t.shape.dim]
    return f"{t.elem_type}:{','.join(dims)}"


def inferred():
    out = {}
    for path in sorted(EXPORTS.glob("*/model.onnx")):
        model = onnx.load(path)
        del model.graph.value_info[:]
        found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        types = {v.name: described(v.type) for v in [*found.value_info, *found.output]}
        values = [o for n in found.node for o in n.output if o]
        out[path.parent.name] = " ".join(types.get(v, "-") for v in values)
    INFERRED.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    table()
    inferred()
