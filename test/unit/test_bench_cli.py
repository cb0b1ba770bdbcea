# SPDX-License-Identifier: BSD-3-Clause
# Copyright(c) 2026 the vfn authors

"""
vfn-bench from outside: what it measures, prints and writes, what it refuses, and that a wrong
result ends it. Arguments: the program, and its negative control, which breaks on demand.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import unittest

BENCH, BROKEN = sys.argv[1:3]
FORMATS = ['split', 'packed', 'split-in-order', 'packed-in-order']
MEMORIES = ['direct', 'region', 'iotlb', 'iomem']
SHAPES = ['direct1', 'direct4', 'indirect1', 'indirect4', 'pull64']
COPIES = ['inline', 'pointer']
ONE = ['vring', '--quick', '--format', 'split', '--memory', 'direct', '--variant', 'inline']


def run(*args, program=BENCH, breaks=None):
    env = dict(os.environ)
    if breaks:
        env['VFN_BENCH_BREAK'] = breaks
    return subprocess.run([program, *args], capture_output=True, text=True, env=env, timeout=60)


def listed(*args):
    done = run('vring', '--list', *args)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split()) for line in done.stdout.splitlines()]


class Usage(unittest.TestCase):
    def refused(self, args, *words):
        done = run(*args)
        self.assertEqual(done.returncode, 2, args)
        self.assertEqual(done.stdout, '')
        for word in words:
            self.assertIn(word, done.stderr)

    def test_help(self):
        for args in [['--help'], ['vring', '--help'], ['ringtest', '--help'],
                     ['limits', '--help']]:
            done = run(*args)
            self.assertEqual((done.returncode, done.stderr), (0, ''))
            self.assertIn('Usage: vfn-bench', done.stdout)
        for option in ['format', 'memory', 'shape', 'complete', 'variant', 'log', 'list', 'json',
                       'ring-size', 'batch', 'windows', 'laps', 'quick', 'cpu']:
            self.assertIn('--' + option, run('vring', '--help').stdout)

    def test_arguments_are_named(self):
        self.refused([], 'vring', 'ringtest', 'limits')
        self.refused(['vrings'], 'vrings')
        self.refused(['vring', '--speed'], '--speed')
        self.refused(['vring', '--cpu'], '--cpu')
        self.refused(['vring', 'now'], 'now')
        for option, value in [('format', 'spilt'), ('memory', 'direct,'), ('shape', ''),
                              ('complete', 'all'), ('variant', 'inlin'), ('log', '1'),
                              ('ring-size', '100'), ('ring-size', '2'), ('ring-size', '65536'),
                              ('batch', '0'), ('batch', '-1'), ('batch', '4x'), ('windows', ''),
                              ('laps', '0'), ('cpu', '1000'), ('cpu', '0,0'), ('cpu', 'a')]:
            self.refused(['vring', '--' + option, value], '--' + option, value)
        for option, value in [('format', 'x'), ('count', '0'), ('batch', '257'), ('cpu', '0'),
                              ('cpu', '0,0,0'), ('timeout', '0')]:
            self.refused(['ringtest', '--' + option, value], '--' + option, value)
        for option, value in [('cpu', '0'), ('windows', '0'), ('windows', '1001')]:
            self.refused(['limits', '--' + option, value], '--' + option, value)
        self.refused(['limits', 'now'], 'now')
        self.refused(['vring', '--variant', 'handwritten', '--format', 'packed'], '--list')

    def test_file_that_cannot_be_written(self):
        with tempfile.TemporaryDirectory() as path:
            done = run(*ONE, '--json', path)
            self.assertEqual(done.returncode, 1)
            self.assertIn(path, done.stderr)
            done = run('limits', '--windows', '1', '--json', path)
            self.assertEqual(done.returncode, 1)
            self.assertIn(path, done.stderr)


class Rows(unittest.TestCase):
    def test_all_rows_exist(self):
        rows = listed()
        self.assertEqual(len(rows), len(set(rows)))
        for row in itertools.product(FORMATS, MEMORIES, SHAPES, ['each', 'batch'], COPIES):
            self.assertIn((*row, 'off'), rows)
        for row in itertools.product(SHAPES, ['each', 'batch']):
            self.assertIn(('split', 'direct', *row, 'handwritten', 'off'), rows)
        for row in itertools.product(['split', 'packed'], ['push64', 'push1500'], ['off', 'on']):
            self.assertIn((row[0], 'direct', row[1], 'batch', 'inline', row[2]), rows)
        variants = {row[4] for row in rows}
        each = len(FORMATS) * len(MEMORIES) * len(SHAPES) * 2
        retpolines = 'inline-retpoline' in variants
        self.assertEqual(len(rows), (1 + retpolines) * (2 * each + len(SHAPES) * 2) + 8)

    def test_filters(self):
        rows = listed('--format', 'packed,split', '--memory', 'iotlb', '--shape', 'direct4,pull64',
                      '--complete', 'batch', '--variant', 'pointer')
        self.assertEqual(rows, [(f, 'iotlb', s, 'batch', 'pointer', 'off')
                                for f in ['split', 'packed'] for s in ['direct4', 'pull64']])
        self.assertEqual(len(listed('--log', 'on')), 4)

    def measured(self, *args):
        with tempfile.TemporaryDirectory() as path:
            name = os.path.join(path, 'rows.json')
            done = run('vring', *args, '--json', name)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(name, encoding='ascii') as file:
                return done.stdout, json.load(file)

    def test_everything_once(self):
        out, result = self.measured('--quick')
        rows = listed()
        table = [tuple(line.split()[:6]) for line in out.splitlines()[1:1 + len(rows)]]
        self.assertEqual(table, rows)
        keys = ['format', 'memory', 'shape', 'complete', 'variant']
        self.assertEqual([tuple(row[k] for k in keys) for row in result['rows']],
                         [row[:5] for row in rows if not row[2].startswith('push')])
        self.assertEqual([(*(row[k] for k in keys), 'on' if row['log'] else 'off')
                          for row in result['dirty_log']],
                         [row for row in rows if row[2].startswith('push')])
        for row in result['rows'] + result['dirty_log']:
            self.assertGreater(row['min'], 0)
            self.assertLessEqual(row['min'], row['ns_per_chain'])
            self.assertLessEqual(row['ns_per_chain'], row['max'])
        for row in result['dirty_log']:
            self.assertEqual(row['shape'], 'push%u' % row['bytes'])
        self.assertEqual([result[k] for k in ['ring_size', 'batch', 'windows', 'laps', 'cpu']],
                         [256, 32, 3, 15, -1])
        for fact in ['library_version', 'cpu_model', 'compiler']:
            self.assertTrue(result[fact])
        self.assertIn('-O', result['flags'])
        self.assertEqual(set(result['variant_flags']), {row[4] for row in rows})
        targets = out[out.index('\nTargets'):]
        self.assertNotIn('not measured', targets.replace('retpoline', '') if 'inline-retpoline'
                         in result['variant_flags'] else targets.split('pointer')[0])
        self.assertEqual(targets.count(' met') + targets.count('MISSED'), 14)

    def test_sizes(self):
        cpu = min(os.sched_getaffinity(0))
        for size, batch in [(4, 32), (64, 1), (1024, 1024)]:
            _, result = self.measured(
                '--ring-size', str(size), '--batch', str(batch), '--windows', '2', '--laps', '3',
                '--memory', 'direct,iotlb', '--variant', 'inline,handwritten', '--cpu', str(cpu))
            self.assertEqual([result[k] for k in ['ring_size', 'batch', 'windows', 'laps', 'cpu']],
                             [size, batch, 2, 3, cpu])

    def test_what_was_not_measured_is_no_target_met(self):
        out = run(*ONE, '--shape', 'direct1').stdout
        targets = out[out.index('\nTargets'):]
        self.assertEqual(targets.count(' met') + targets.count('MISSED'), 2)

    def test_a_target_missed_is_no_failure(self):
        # a ring of 4 entries and chains one by one reach nothing, and nothing at all is slow
        args = [*ONE, '--shape', 'direct1', '--ring-size', '4', '--batch', '1', '--laps', '3']
        for program in (BENCH, BROKEN):
            done = run(*args, program=program)
            self.assertEqual(done.returncode, 0, done.stderr)
            missed = done.stdout.count('MISSED')
            told = run(*args, '--targets', program=program)
            self.assertEqual(told.returncode, 3 if 'MISSED' in told.stdout else 0)
            self.assertEqual('no failure' in done.stdout, missed > 0)
        args = [*ONE, '--shape', 'direct1', '--laps', '500', '--targets']
        self.assertEqual(run(*args, program=BROKEN, breaks='stall').returncode, 1)


class Ringtest(unittest.TestCase):
    def test_all_formats(self):
        for args in itertools.product([[], ['--notify']], [[], ['--write']]):
            done = run('ringtest', '--count', '20000', *args[0], *args[1])
            self.assertEqual(done.returncode, 0, done.stderr)
            lines = [line.split() for line in done.stdout.splitlines()[1:]]
            self.assertEqual([line[0] for line in lines], FORMATS)
            for line in lines:
                self.assertEqual(line[1], 'notify' if args[0] else 'poll')
                self.assertGreater(float(line[2]), 0)
                if args[0]:
                    self.assertGreater(int(line[3]), 0)
                else:
                    self.assertEqual(line[3:], ['0', '0'])


class Limits(unittest.TestCase):
    def test_all_of_them(self):
        done = run('limits', '--windows', '3', '--json', '-')
        self.assertEqual(done.returncode, 0, done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual([result[k] for k in ['windows', 'burst', 'in_flight']], [3, 32, 256])
        found = {(one['name'], one['size']): one for one in result['limits']}
        frames = itertools.product(['copy', 'copy, touched', 'write'], [64, 256, 1518, 9000])
        others = ['line, there and back', 'line, read', 'rte_ring, one way',
                  'rte_ring, there and back']
        self.assertEqual(set(found), {*frames, *((name, 0) for name in others)})
        for one in found.values():
            self.assertGreater(one['min'], 0)
            self.assertLessEqual(one['min'], one['ns'])
            self.assertLessEqual(one['ns'], one['max'])
        # 140 times as many bytes
        self.assertGreater(found['copy', 9000]['min'], 4 * found['copy', 64]['min'])


class Broken(unittest.TestCase):
    """What the program does not notice it would measure."""

    def test_unbroken(self):
        self.assertEqual(run(*ONE, program=BROKEN).returncode, 0)
        self.assertEqual(run('ringtest', '--count', '20000', program=BROKEN).returncode, 0)

    def test_vring(self):
        for breaks, shape, words in [
                ('stall', 'direct1', 'not fetched'), ('segment', 'direct4', 'not what was posted'),
                ('length', 'indirect1', 'driver'), ('order', 'direct1', 'came back wrong'),
                ('lost', 'indirect4', 'chains that came back'), ('bytes', 'pull64', 'wrong bytes'),
                ('bytes', 'push1500', 'wrong bytes'), ('log', 'push64', 'dirty log')]:
            args = [*ONE, '--shape', shape, '--laps', '500']
            done = run(*args, program=BROKEN, breaks=breaks)
            self.assertEqual(done.returncode, 1, breaks)
            self.assertIn(words, done.stderr)
            self.assertIn('split direct ' + shape, done.stderr)
            self.assertNotIn('Targets', done.stdout)

    def test_ringtest(self):
        for breaks, words in [('segment', 'device: chain'), ('length', 'driver'),
                              ('order', 'came back as'), ('lost', 'came back as')]:
            done = run('ringtest', '--count', '20000', '--timeout', '1', '--format', 'split',
                       program=BROKEN, breaks=breaks)
            self.assertEqual(done.returncode, 1, breaks)
            self.assertIn(words, done.stderr)

    def test_peer_that_stops(self):
        for notify in [], ['--notify']:
            done = run('ringtest', '--timeout', '1', *notify, program=BROKEN, breaks='stall')
            self.assertEqual(done.returncode, 1, notify)
            self.assertIn('chains came back', done.stderr)


if __name__ == '__main__':
    unittest.main(argv=sys.argv[:1], verbosity=2)
