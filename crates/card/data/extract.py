"""Writes the tables that `card --check` knows names from: licenses.tsv, pipelines.txt, libraries.txt, languages.txt.

usage: extract.py LICENSES.md TASKS LANGUAGES

LICENSES.md   the Hub's own page of licences: docs/hub/repositories-licenses.md of huggingface/hub-docs
              (https://huggingface.co/docs/hub/repositories-licenses.md), as of openmdw-1.0 and llama4
TASKS         the unpacked npm package @huggingface/tasks 0.21.54 (MIT): src/pipelines.ts, src/model-libraries.ts
LANGUAGES     the unpacked npm package @huggingface/languages 1.0.0 (MIT): dist/index.mjs
"""
import os
import re
import subprocess
import sys
import textwrap

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return f.read()


def write(name, lines):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def licenses(page):
    rows = re.findall(r"^\|\s*(.+?)\s*\|\s*`([^`]+)`\s*\|", page, re.M)
    assert len(rows) > 60
    write("licenses.tsv", [f"{id}\t{name}".replace("\\", "") for name, id in rows])


def keys(source, table):
    """Keys of an object literal's first level."""
    body = source.split(f"export const {table} = {{\n", 1)[1].split("\n}", 1)[0]
    return re.findall(r'^\t"?([\w.+-]+)"?: \{', body, re.M)


def main():
    page, tasks, languages = sys.argv[1:]
    licenses(read(page))
    pipelines = keys(read(tasks, "src", "pipelines.ts"), "PIPELINE_DATA")
    libraries = keys(read(tasks, "src", "model-libraries.ts"), "MODEL_LIBRARIES_UI_ELEMENTS")
    assert len(pipelines) > 40 and len(libraries) > 100
    write("pipelines.txt", pipelines)
    write("libraries.txt", libraries)
    script = "import(process.argv[1]).then(m => console.log(" \
             "Object.keys(m.LANGUAGES_ISO_639_1).concat(Object.keys(m.LANGUAGES_ISO_639_3)).join(' ')))"
    module = os.path.abspath(os.path.join(languages, "dist", "index.mjs"))
    codes = subprocess.run(["node", "-e", script, module], check=True, capture_output=True, text=True).stdout.split()
    assert len(codes) > 5000
    write("languages.txt", textwrap.wrap(" ".join(sorted(set(codes), key=lambda c: (len(c), c))), 119))


if __name__ == "__main__":
    main()
