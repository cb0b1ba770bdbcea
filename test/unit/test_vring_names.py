# SPDX-License-Identifier: BSD-3-Clause
# Copyright(c) 2026 the vfn authors
"""The names that lib/vring shows to whom links it: those of its headers, in both libraries.

test_vring_names.py NM SHARED STATIC LEAKY_SHARED LEAKY_STATIC HEADER...
"""

import re
import subprocess
import sys
import unittest

NM, SHARED, STATIC, LEAKY_SHARED, LEAKY_STATIC, *HEADERS = sys.argv[1:]


def declared():
    """What the headers declare, but do not define."""
    names = set()
    for header in HEADERS:
        with open(header, encoding='ascii') as file:
            text = re.sub(r'/\*.*?\*/', '', file.read(), flags=re.S)
        names.update(re.findall(r'^[a-z][\w ]* \*?(vringh_\w+)\([^{;]*\);', text, re.M))
    return names


def shown(library):
    dynamic = ['-D'] if '.so' in library else []
    lines = subprocess.run([NM, *dynamic, '--extern-only', '--defined-only', library], check=True,
                           capture_output=True, text=True).stdout.splitlines()
    names = {line.split()[-1].split('@')[0] for line in lines if len(line.split()) == 3}
    # sanitizers and coverage have names of their own in every object
    return {name for name in names if not name.startswith('__')}


class Names(unittest.TestCase):
    def test_headers_are_read(self):
        self.assertLessEqual({'vringh_init', 'vringh_strerror', 'vringh_iotlb_map', 'vringh_copy',
                              'vringh_set_inflight', 'vringh_pull_pieces'}, declared())
        self.assertFalse({'vringh_pending', 'vringh_pull'} & declared(), 'those are inline')

    def test_shared_library_shows_what_the_headers_declare(self):
        self.assertEqual(shown(SHARED), declared())

    def test_static_library_shows_what_the_headers_declare(self):
        self.assertEqual(shown(STATIC), declared())

    def test_a_name_that_leaks_is_seen(self):
        self.assertEqual(shown(LEAKY_SHARED) - declared(), {'vringh_leaks'})
        self.assertLessEqual({'vringh_mem_find', 'vringh_split_ops'},
                             shown(LEAKY_STATIC) - declared())


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
