"""Makes cards/: front matters of many kinds, and what huggingface_hub reads in them and in the cards that we write.

usage: model_cards.py inputs ALL_MINILM_README     writes front/*.md
       cargo run -p tensormill-card --example cards   writes round/*.md and written/*.md
       model_cards.py expected                     reads them all, compares, writes cases.json

ALL_MINILM_README is the card of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); its front matter is taken and the first
line of its text. All other inputs are made here, after kinds of front matter that are found on the Hub. `expected` fails where a
card of round/ does not hold the same data as the one of front/ that it was made from. Needs huggingface_hub and PyYAML (versions:
MANIFEST.json).
"""
import dataclasses
import json
import re
import sys
from pathlib import Path

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

GOLDEN = Path(__file__).resolve().parent.parent / "cards"

INDEX = """model-index:
- name: Mill-7B
  results:
  - task:
      type: text-generation
      name: Text Generation
    dataset:
      name: AI2 Reasoning Challenge (25-Shot)
      type: ai2_arc
      config: ARC-Challenge
      split: test
      args:
        num_few_shot: 25
    metrics:
    - type: acc_norm
      value: 64.59
      name: normalized accuracy
    - type: acc
      value: 61
    source:
      url: https://huggingface.co/spaces/open-llm-leaderboard
      name: Open LLM Leaderboard
  - task: {type: text-generation}
    dataset: {name: WikiText, type: wikitext, revision: 5503434ddd753f426f4b38109466949a1217c2bb}
    metrics: [{type: perplexity, value: 5.68, verified: false}]
"""

FRONT = {
    "plain": "language: en\nlicense: mit\ntags:\n- a\n- b\n",
    "flow": "language: [en, de, 'no', \"yes\"]\nlicense: apache-2.0\ntags: [x,\n  y, z]\ndatasets: []\nwidget: {}\n",
    "comments": "# made by hand\nlicense: mit   # the usual one\n\n# languages\nlanguage:\n# the first\n- en\n- fr # too\n\n\ntags: [a] # end\n",
    "model-index": "license: apache-2.0\nlanguage: en\n" + INDEX,
    "model-index-flow": "{license: mit, model-index: [{name: m, results: [{task: {type: fill-mask}, dataset: {type: d, name: D}, "
                        "metrics: [{type: accuracy, value: 0.5}]}]}]}\n",
    "literal": "license: other\nlicense_name: own\nlicense_link: LICENSE\nextra_gated_prompt: |\n  ### TERMS\n\n  \"Agreement\" means: this.\n\n"
               "    indented # no comment\n  end\nextra_gated_fields:\n  Name: text\n  I agree: checkbox\n",
    "folded": "license: mit\ndescription: >-\n  one line\n  that goes on\n\n  and a paragraph\nother: >\n  folded\n  text\nkept: |+\n  lines\n\nlast: |\n  at the end\n",
    "anchors": "defaults: &d\n  type: text-classification\n  deep: {a: [1, 2]}\nlicense: mit\nfirst:\n  <<: *d\n  name: one\nsecond: *d\nlist: [&x a, *x]\n",
    "quotes": "license: \"apache-2.0\"\nlanguage: 'en'\nmodel_name: \"tab\\tquote \\\" slash \\\\ unicode \\u00e9 \\U0001F33E\"\n"
              "note: 'it''s'\ncolon: \"a: b\"\nhash: \"a #b\"\nempty: \"\"\nspaces: ' a '\n",
    "crlf": "license: mit\nlanguage:\n- en\n- de\ntext: |\n  one\n  two\n",
    "unicode": "language:\n- zh\nlicense: mit\nmodel_name: 通义千问\ntags:\n- 中文\n- français\n- 🌾\nnote: \"zero\\u200bwidth\"\nключ: значение\n",
    "numbers": "license: mit\nversion: 1.10\nint: 42\nneg: -7\nhex: 0x1F\noct: 017\nfloat: 6.02e+23\nword: 1e5\nsexagesimal: 1:30\n"
               "underscore: 1_000\nbig: 123456789012345678901234567890\nzip: 00123\nversion_text: '1.10'\n",
    "words": "license: mit\na: yes\nb: No\nc: on\nd: OFF\ne: ~\nf: null\ng:\nh: 'null'\ni: 'true'\nj: y\nk: n\nl: '='\nlanguage: ['no', 'on']\n",
    "dates": "license: mit\ndate: 2024-01-02\nstamp: 2024-01-02 03:04:05\ntext: '2024-01-02'\nalmost: 2024-1-2x\n",
    "keys": "license: mit\n1: one\nfalse: yes\n'quoted key': a\nkey with spaces: b\n\"no\": c\nx.y/z: d\n? explicit\n: e\n",
    "nested": "license: mit\na:\n  b:\n    c:\n    - d:\n      - e: 1\n        f: [g, {h: i}]\n      -\n        - j\n        - - k\n          - l\n      - []\n      - {}\n",
    "indented-lists": "license: mit\ntags:\n  - a\n  - b\nwidget:\n  - text: \"Hello\"\n    example_title: One\n  - source_sentence: x\n    sentences:\n      - y\n      - z\n",
    "gguf-release": "base_model: meta-llama/Llama-3.2-1B-Instruct\nbase_model_relation: quantized\nlanguage:\n- en\n- de\nlibrary_name: transformers\n"
                    "license: llama3.2\npipeline_tag: text-generation\nquantized_by: mill\ntags:\n- facebook\n- llama-3\nextra_gated_button_content: Submit\n",
    "merge": "base_model:\n- a/one\n- b/two\nlibrary_name: transformers\nlicense: cc-by-nc-4.0\ntags:\n- mergekit\n- merge\nnew_version: a/three\n",
    "emissions": "license: mit\nco2_eq_emissions:\n  emissions: 1.2345\n  source: code carbon\n  training_type: fine-tuning\n  geographical_location: Quebec, Canada\n"
                 "  hardware_used: 8 v100 GPUs\ninference:\n  parameters:\n    temperature: 0.7\n    do_sample: false\n",
    "hostile-text": "license: mit\na: \"---\"\nb: \"--- \\n---\\n\"\nc: '{{ 7 * 7 }}'\nd: '<script>alert(1)</script>'\ne: '%TAG'\nf: '@at'\ng: '`tick`'\n"
                    "h: '[x](y)'\ni: '|'\nj: '>'\nk: '&a'\nl: '*a'\nm: '!t'\nn: \"\\x07\\x1b[0m\"\no: \"\\uFEFF\"\np: \"a\\u2028b\\x85c\"\n",
}


def inputs(minilm):
    text = Path(minilm).read_text(encoding="utf-8")
    block = REGEX_YAML_BLOCK.search(text)
    cards = {name: f"---\n{front}---\n\n# {name}\n" for name, front in FRONT.items()}
    cards["crlf"] = cards["crlf"].replace("\n", "\r\n")
    cards["all-minilm-l6-v2"] = block.group(0) + "\n# all-MiniLM-L6-v2\n"
    (GOLDEN / "front").mkdir(parents=True, exist_ok=True)
    for name, card in cards.items():
        (GOLDEN / "front" / f"{name}.md").write_bytes(card.encode())
    print(len(cards), "cards")


def load(path):
    text = path.read_bytes().decode()
    return yaml.safe_load(REGEX_YAML_BLOCK.search(text).group(2)), text


def results(text):
    data = ModelCard(text).data
    found = data.eval_results or []
    return {"model_name": data.model_name, "results": [{k: v for k, v in dataclasses.asdict(r).items() if v is not None} for r in found]}


def expected():
    cases = {"front": {}, "written": {}}
    for path in sorted((GOLDEN / "front").glob("*.md")):
        data, text = load(path)
        for again in ("round", "kept"):
            other, other_text = load(GOLDEN / again / path.name)
            # repr tells 1 from 1.0 and True, and the order of keys.
            assert repr(other) == repr(data), (path.name, again, data, other)
            assert re.sub(r"\r\n?", "\n", results_text(text)) == results_text(other_text), path.name
        case = {"data": data}
        if "model-index" in data:
            case |= results(text)
        cases["front"][path.stem] = case
    for path in sorted((GOLDEN / "written").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        card = ModelCard(text)
        # Writing it by huggingface_hub and reading it again changes nothing.
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict(), path.name
        cases["written"][path.stem] = {"data": card.data.to_dict()} | results(text)
    with open(GOLDEN / "cases.json", "w", encoding="utf-8") as f:
        json.dump(cases, f, indent=1, default=str, ensure_ascii=False)
        f.write("\n")
    print(len(cases["front"]), "front matters,", len(cases["written"]), "written cards")


def results_text(text):
    """What ModelCard takes for the text after the front matter."""
    return text[REGEX_YAML_BLOCK.search(text).end():]


if __name__ == "__main__":
    inputs(*sys.argv[2:]) if sys.argv[1] == "inputs" else expected()
