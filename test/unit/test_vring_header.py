# SPDX-License-Identifier: BSD-3-Clause
# Copyright(c) 2026 the vfn authors
"""Each of lib/vring's headers compiles by itself, without a warning, as C and as C++.

test_vring_header.py HEADER...
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HEADERS = sys.argv[1:]
WARNINGS = ['-Wall', '-Wextra', '-Wpedantic', '-Wundef', '-Werror']
COMPILERS = [(compiler, standard)
             for compilers, standards in ((('gcc', 'clang'), ('c11', 'c17')),
                                          (('g++', 'clang++'), ('c++11', 'c++17', 'c++20')))
             for compiler in compilers for standard in standards]
PROGRAM = '#include <{0}>\n#include <{0}>\nint main(void);\nint main(void) {{ return 0; }}\n'
# What each of the compilers has to complain about, in a header as elsewhere.
FAULTY = 'static inline int vringh_faulty(unsigned int a) { int b = 1; return a < b; }\n'


def compile_header(compiler, standard, directory, name):
    """Its complaints: '' if there are none."""
    source = os.path.join(directory, 'includes.cc' if '+' in compiler else 'includes.c')
    with open(source, 'w', encoding='ascii') as file:
        file.write(PROGRAM.format(name))
    done = subprocess.run([compiler, f'-std={standard}', *WARNINGS, '-O1', '-I', directory, '-c',
                           '-o', os.path.join(directory, 'out.o'), source],
                          capture_output=True, text=True, check=False)
    return done.stderr if done.returncode != 0 else ''


class Header(unittest.TestCase):
    def setUp(self):
        self.missing = {compiler for compiler, _ in COMPILERS if shutil.which(compiler) is None}
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        for header in HEADERS:
            shutil.copy(header, self.directory.name)

    def each(self):
        for compiler, standard in COMPILERS:
            for header in HEADERS:
                if compiler not in self.missing:
                    yield compiler, standard, os.path.basename(header)

    def test_compilers_are_there(self):
        self.assertFalse(self.missing)

    def test_compiles_without_a_warning(self):
        for compiler, standard, name in self.each():
            with self.subTest(compiler=compiler, standard=standard, header=name):
                self.assertEqual(
                    compile_header(compiler, standard, self.directory.name, name), '')

    def test_warning_is_seen(self):
        # all of them include this one
        common = os.path.join(self.directory.name, 'vringh_error.h')
        with open(common, encoding='ascii') as file:
            text = file.read()
        end = text.rindex('#endif')
        with open(common, 'w', encoding='ascii') as file:
            file.write(text[:end] + FAULTY + text[end:])
        for compiler, standard, name in self.each():
            with self.subTest(compiler=compiler, standard=standard, header=name):
                self.assertIn('sign', compile_header(compiler, standard, self.directory.name, name))


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
