"""Write the data tables of this crate from the sources they mirror.

  LLAMA_CPP     llama.cpp's source tree  -> pre_tokenizers.tsv (sha256 of the check ids, name), check_text.txt
  TRANSFORMERS  the transformers package -> tokenizer_classes.tsv (model_type, class, "override" where the
                repository's own tokenizer_class is not believed)

usage: LLAMA_CPP=... TRANSFORMERS=... python extract.py
Last run against llama.cpp as vendored in llama_cpp_python 0.3.36, and transformers 5.23.0.
"""
import ast
import os
import pathlib
import re

HERE = pathlib.Path(__file__).parent


def pre_tokenizers(root):
    source = (pathlib.Path(root) / "conversion" / "base.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    fn = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "get_vocab_base_pre")
    rows, text = [], None
    for node in fn.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "chktxt":
            text = ast.literal_eval(node.value)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            digest = node.test.comparators[0]
            if isinstance(digest, ast.Constant) and isinstance(digest.value, str) and len(digest.value) == 64:
                rows.append((digest.value, ast.literal_eval(node.body[0].value)))
    # A later `if` overwrites an earlier one there: the last row of a digest wins.
    last = dict(rows)
    (HERE / "pre_tokenizers.tsv").write_text("".join(f"{d}\t{n}\n" for d, n in last.items()), encoding="utf-8")
    (HERE / "check_text.txt").write_bytes(text.encode("utf-8"))
    print(len(last), "digests,", len(set(last.values())), "names")


def tokenizer_classes(root):
    source = (pathlib.Path(root) / "models" / "auto" / "tokenization_auto.py").read_text(encoding="utf-8")
    body = source.split("TOKENIZER_MAPPING_NAMES = OrderedDict", 1)[1]
    mapping, rest = body.split("MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", 1)
    wrong = set(re.findall(r'"([^"]+)"', rest.split("}", 1)[0]))
    table = {}
    for model_type, classes in re.findall(r'\(\s*"([^"]+)",\s*((?:"[^"]+"|[^()"]|\((?:[^()]|\([^()]*\))*\))+)\)', mapping):
        # Where a class needs an optional package, the last name is what a plain installation uses.
        names = re.findall(r'"([^"]+)"', classes)
        table[model_type] = names[-1]
    for model_type in wrong:
        table.setdefault(model_type, "TokenizersBackend")
    with open(HERE / "tokenizer_classes.tsv", "w", encoding="utf-8") as f:
        for model_type, name in sorted(table.items()):
            f.write(f"{model_type}\t{name}\t{'override' if model_type in wrong else '-'}\n")
    print(len(table), "model types,", len(wrong), "overrides")


if __name__ == "__main__":
    pre_tokenizers(os.environ["LLAMA_CPP"])
    tokenizer_classes(os.environ["TRANSFORMERS"])
