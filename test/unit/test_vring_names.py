# SPDX-License-Identifier: BSD-3-Clause
# Copyright(c) 2026 the vfn authors
"""What lib/vring shows: the names of its headers, in both libraries, and no field of a queue.

test_vring_names.py NM SHARED STATIC LEAKY_SHARED LEAKY_STATIC TOP HEADER...
"""

import pathlib
import re
import subprocess
import sys
import unittest

NM, SHARED, STATIC, LEAKY_SHARED, LEAKY_STATIC, TOP, *HEADERS = sys.argv[1:]


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


def fields():
    """Of struct vringh, all of them private."""
    header = next(header for header in HEADERS if header.endswith('vringh.h'))
    with open(header, encoding='ascii') as file:
        text = re.sub(r'/\*.*?\*/', '', file.read(), flags=re.S)
    body = re.search(r'^struct vringh \{\n(.*?)^\}', text, re.M | re.S).group(1)
    return re.findall(r'(\w+)(?:\[\w+\])?;', body)


def looked_at(text):
    """Fields of queues, as queues are called in this project, that a source looks at."""
    return re.findall(r'(?:\bvr(?:\.|->)|->guest\.)(' + '|'.join(fields()) + r')\b', text)


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

    def test_nobody_looks_into_a_queue(self):
        self.assertEqual(looked_at('q->vr.size + vr->nb_errors[1] + s->guest.dirty_log.desc'),
                         ['size', 'nb_errors', 'dirty_log'])
        for top in 'app', 'drivers', 'examples', 'lib/function', 'test':
            for path in pathlib.Path(TOP, top).rglob('*.[ch]*'):
                with self.subTest(path=path):
                    self.assertEqual(looked_at(path.read_text(encoding='utf-8')), [])


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1])
