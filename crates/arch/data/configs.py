"""Writes configs.json: what transformers adds to a config.json when AutoConfig reads it.

usage: python configs.py MODEL_TYPE...      (made with transformers 5.23.0; the peer's converter reads configs through
it, so absent keys take these defaults)

Per model type: fields in declaration order as [name, default, type], attribute_map, default_theta.
"""
import dataclasses, json, pathlib, sys, typing
import transformers
from transformers import GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SCALARS = {int: "int", float: "float", bool: "bool", str: "str", type(None): "none"}


def spec(t):
    """Scalar types joined by '|', or 'any' where a member is no plain scalar."""
    args = typing.get_args(t) if typing.get_origin(t) is not None else (t,)
    if typing.get_origin(t) in (list, dict, typing.Literal):
        return "any"
    names = [SCALARS.get(a) for a in args]
    return "any" if None in names else "|".join(names)


models = {}
for model_type in sys.argv[1:]:
    cls = CONFIG_MAPPING[model_type]
    fields = []
    for f in dataclasses.fields(cls):
        if f.name in ("text_config", "vision_config"):
            continue
        default = None if f.default is dataclasses.MISSING else f.default
        fields.append([f.name, default, "any" if isinstance(f.type, str) else spec(f.type)])
    models[model_type] = {
        "attribute_map": dict(cls.attribute_map),
        "default_theta": cls.default_theta,
        "rope": "rope_parameters" in {f[0] for f in fields},
        "fields": fields,
    }
data = {
    "transformers": transformers.__version__,
    "generation": list(GenerationConfig._get_default_generation_params()),
    "models": models,
}
lines = json.dumps(data, indent=None, separators=(",", ":"))
lines = lines.replace('"models":{', '"models":{\n').replace('"fields":[[', '"fields":[\n[').replace("],[", "],\n[").replace("]]},", "]]},\n")
assert json.loads(lines) == data
pathlib.Path(__file__).with_name("configs.json").write_text(lines + "\n")
print(len(models), "model types")
