# SPDX-License-Identifier: BSD-3-Clause
"""The blocks of the documentation, as test/topology/test_recipes.py runs them.

Before each block a comment says how it is run: `<!-- run: KIND WORD... -->` in Markdown, `.. run:` in
reStructuredText, `; run:` in scdoc. A block without it is a fault. KIND is

  shell        to its end, which has to be a success
  background   goes on while the next blocks run, and has to live at the end
  prompt       what is typed at the prompt of the background block `of=NAME`, prompts and all
  env          what the other blocks of the file begin with
  output       what the block before has printed; `...` stands for anything
  c            C that compiles with DPDK's headers
  excerpt      lines of the file `from=FILE`, in their order; `...` stands for others
  figure       nothing that can be run: a diagram, a synopsis, a layout
  skip         `why=REASON`

and WORDs are

  fresh          a session begins: nothing of the blocks before is there
  expect=REGEX   in what is printed; `again`: what is typed is typed again until then
  ready=REGEX    of background: printed when the next block may begin
  then=NAME:REGEX  what the background block NAME prints after that, before the next block begins
  name=NAME      of background; `ends`: it ends by itself, with success
  stop=NAME      ends a background block first, as Ctrl-C does; `kill=NAME`: by SIGKILL
  needs=FILE     skipped where that is missing: the session, if it is the first block
  seconds=N      that it may take
  s/OLD/NEW/     only for the test, with a comment that says why; also s|OLD|NEW|
"""

import dataclasses
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pmd

RUN = ("env", "shell", "background", "prompt", "output", "c")
KINDS = (*RUN, "excerpt", "figure", "skip")
MARKER = re.compile(r"^\s*(?:<!-- |\.\. |; )run: (.*?)(?: -->)?\s*$")
SECONDS = 120


@dataclasses.dataclass
class Block:
    """A block, where it is, and what its comment says."""
    path: str
    line: int
    text: str
    kind: str
    words: list

    def word(self, key, default=None):
        return next((w.partition("=")[2] for w in self.words if w.startswith(key + "=")), default)

    @property
    def fresh(self):
        return "fresh" in self.words

    def script(self):
        """The text as it is run."""
        text = self.text
        for word in self.words:
            match = re.fullmatch(r"s([/|])(.*?)\1(.*?)\1", word)
            if word.startswith(("s/", "s|")) and (match is None or match[2] not in text):
                raise pmd.PmdError(f"{self}: {word!r} has no effect")
            if match:
                text = text.replace(match[2], match[3])
        return text

    def __str__(self):
        return f"{self.path}:{self.line}"


def _literal(lines, number, indent="    "):
    """(end, text) of the indented lines that begin there."""
    end = number
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(indent)):
        end += 1
    while not lines[end - 1].strip():
        end -= 1
    body = lines[number:end]
    margin = min(len(line) - len(line.lstrip()) for line in body if line.strip())
    return end, "\n".join(line[margin:] for line in body)


def _blocks(path, lines):
    """(line, text, words of the marker or None) of every block."""
    markdown, marker, number = path.endswith(".md"), None, 0
    while number < len(lines):
        line = lines[number]
        if match := MARKER.match(line):
            marker = shlex.split(match[1])
        elif line.startswith("```"):
            end = number + 1
            while lines[end] != "```":
                end += 1
            yield number + 2, "\n".join(lines[number + 1:end]), marker
            number, marker = end, None
        elif markdown and line.startswith("    ") and not lines[number - 1].strip():
            end, text = _literal(lines, number)
            yield number + 1, text, marker
            number, marker = end - 1, None
        elif path.endswith(".rst") and (line.startswith(".. code-block::") or (
                line.rstrip().endswith("::") and not line.startswith(".."))):
            end, text = _literal(lines, number + 2, "  ")
            yield number + 3, text, marker
            number, marker = end - 1, None
        elif line.strip() and not line.startswith(("<!--", "..", ";")):
            marker = None
        number += 1


def documents():
    """Paths of everything that has blocks, from the top of the tree."""
    found = ["README.md"]
    for folder, _, names in os.walk(os.path.join(pmd.ROOT, "doc")):
        found += [os.path.relpath(os.path.join(folder, name), pmd.ROOT) for name in names
                  if name.endswith((".md", ".rst", ".scd"))]
    return sorted(found)


def blocks(path):
    """Every block of a file. PmdError if one has no marker, or a wrong one."""
    with open(os.path.join(pmd.ROOT, path), encoding="utf-8") as file:
        lines = file.read().splitlines()
    found = []
    for line, text, words in _blocks(path, lines):
        kind = words[0] if words else None
        if kind not in KINDS or (kind == "skip" and not words[1:]):
            raise pmd.PmdError(f"{path}:{line}: no comment says how this block is run\n{text}")
        found.append(Block(path, line, text, kind, words[1:]))
    return found


def sessions(path):
    """[[block]] of what is run one after the other; env blocks are in all of them."""
    env, found = [], []
    for block in blocks(path):
        if block.kind == "env":
            env.append(block)
        elif block.kind in RUN:
            if not found or block.fresh:
                found.append([])
            found[-1].append(block)
    return [env + session for session in found]


# --- one session ------------------------------------------------------------------------------

class Missing(Exception):
    """What a session needs is not here."""


class Session:
    """Runs blocks. Its processes are expected to be alone in namespaces, which end with them."""

    def __init__(self):
        self._env, self._running, self._ends, self._printed = "", {}, set(), ""

    def run(self, block, first):
        needs = block.word("needs")
        if needs and not os.path.exists(needs):
            if first:
                raise Missing(f"{block}: no {needs} here")
            print(f"skipped: {block}: no {needs} here")
            return
        for word in block.words:
            key, _, name = word.partition("=")
            if key == "stop":
                self._stop(name)
            elif key == "kill":
                os.killpg(self._running[name].pid, signal.SIGKILL)
                self._running.pop(name).kill()
        {"env": self._set, "shell": self._shell, "background": self._background,
         "prompt": self._prompt, "output": self._output, "c": self._c}[block.kind](block)
        if then := block.word("then"):
            name, _, regex = then.partition(":")
            self._running[name].expect(regex, SECONDS)

    def _bash(self, block):
        return ["bash", "-e", "-u", "-o", "pipefail", "-c", f"{self._env}\n{block.script()}"]

    def _set(self, block):
        self._env += block.script() + "\n"

    def _shell(self, block):
        seconds = float(block.word("seconds", SECONDS))
        done = subprocess.run(self._bash(block), cwd=pmd.ROOT, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=seconds)
        self._printed = done.stdout
        print(f"--- {block} ended with {done.returncode}\n{done.stdout}", flush=True)
        expect = block.word("expect")
        if done.returncode != 0 or (expect and not re.search(expect, done.stdout, re.MULTILINE)):
            raise pmd.PmdError(f"{block} ended with {done.returncode}"
                               + (f", expected {expect!r}" if expect else ""))

    def _background(self, block):
        name = block.word("name", f"line {block.line}")
        process = pmd.Process(self._bash(block), name=name, cwd=pmd.ROOT)
        self._running[name] = process
        if "ends" in block.words:
            self._ends.add(name)
        process.expect(block.word("ready", ""), float(block.word("seconds", SECONDS)))

    def _prompt(self, block):
        process = self._running[block.word("of")]
        since, end = process.mark(), time.monotonic() + float(block.word("seconds", SECONDS))
        while True:
            for line in block.script().splitlines():
                process.send(re.sub(r"^\w+[>#] ", "", line))
            try:
                process.expect(block.word("expect", ""), 2 if "again" in block.words else
                               end - time.monotonic(), since)
                return
            except pmd.PmdError:
                if not process.alive() or time.monotonic() > end:
                    raise

    def _c(self, block):
        flags = subprocess.run(["pkg-config", "--cflags", "libdpdk"], capture_output=True,
                               text=True, check=True).stdout.split()
        subprocess.run(["cc", "-x", "c", "-Wall", "-Wno-unused-function", "-Werror", "-fsyntax-only",
                        "-DALLOW_EXPERIMENTAL_API", *flags, "-"], input=block.text, text=True,
                       check=True)

    def _output(self, block):
        parts = [re.escape(part) for part in block.text.strip().split("...")]
        if not re.search(".*?".join(parts), self._printed, re.DOTALL):
            raise pmd.PmdError(f"{block}: printed was\n{self._printed}")

    def _stop(self, name):
        process = self._running.pop(name)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(20)
        print(f"--- {name} was stopped\n{process.log()[-3000:]}", flush=True)

    def end(self):
        """Nothing may have ended by itself, unless it is said to."""
        wrong = []
        for name, process in self._running.items():
            try:
                if name in self._ends:
                    if process.wait(20) != 0:
                        wrong.append(f"{name} ended with {process.popen.returncode}")
                elif not process.alive():
                    wrong.append(f"{name} has ended")
                else:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait(20)
            except pmd.PmdError:
                wrong.append(f"{name} does not end")
            print(f"--- {name}\n{process.log()[-6000:]}", flush=True)
        if wrong:
            raise pmd.PmdError("; ".join(wrong))


def main(argv):
    """recipes.py FILE NUMBER [--installed]: run that session of a file, or only without env blocks.
    77: something is missing."""
    session, code = Session(), 0
    chosen = [block for block in sessions(argv[0])[int(argv[1])]
              if block.kind != "env" or argv[2:] != ["--installed"]]
    try:
        first = True
        for block in chosen:
            session.run(block, first)
            first = first and block.kind == "env"
    except Missing as error:
        print(f"skipped: {error}")
        return 77
    except (pmd.PmdError, subprocess.SubprocessError, KeyError) as error:
        print(f"FAILED: {error!r}\n{error}")
        code = 1
    try:
        session.end()
    except pmd.PmdError as error:
        print(f"FAILED: {error}")
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
