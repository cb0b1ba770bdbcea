/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * A client of a vhost-user-blk socket with libblkio:
 *
 *   blkio run SOCKET DEPTH SEED SECONDS RECORD   random requests, see guest/blocks.h
 *   blkio bench SOCKET CPU                       windows, one for each line of input:
 *                                                read|write|copy SIZE DEPTH MILLISECONDS
 *
 * A window's answer is a line of JSON: requests, nanoseconds, and percentiles of latency. Requests
 * of a window are at random places, and the client spins. "copy" is without the disk.
 */

#define _GNU_SOURCE

#include <sched.h>
#include <time.h>

#include <blkio.h>

#include "guest/blocks.h"

#define SAMPLES	  (1u << 20)
#define COPY_FROM (256u << 20)

static struct blkio *b;
static struct blkioq *q;
static uint8_t *memory;
static struct blkio_completion completions[MAX_SLOTS];
static uint32_t *samples;

static void
must(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "blkio: %s: %s\n", what, blkio_get_error_msg());
	exit(2);
}

/* The disk's size in sectors. */
static uint64_t
connect_to(const char *path, size_t bytes)
{
	struct blkio_mem_region region;
	uint64_t size;
	int block;

	must(blkio_create("virtio-blk-vhost-user", &b), "create");
	must(blkio_set_str(b, "path", path), "path");
	must(blkio_connect(b), "connect");
	must(blkio_start(b), "start");
	must(blkio_get_uint64(b, "capacity", &size), "capacity");
	must(blkio_get_int(b, "request-alignment", &block), "alignment");
	usleep(100000); /* the device runs when it learns of this memory */
	must(blkio_alloc_mem_region(b, &region, bytes), "memory");
	must(blkio_map_mem_region(b, &region), "map");
	unit = block > SECTOR ? block / SECTOR : 1;
	memory = region.addr;
	q = blkio_get_queue(b, 0);
	return size / SECTOR;
}

static int
io_submit_slot(struct slot *s)
{
	if (s->kind == READ)
		blkioq_read(q, s->sector * SECTOR, s->buf, (size_t)s->nb * SECTOR, s, 0);
	else if (s->kind == WRITE)
		blkioq_write(q, s->sector * SECTOR, s->buf, (size_t)s->nb * SECTOR, s, 0);
	else
		blkioq_flush(q, s, 0);
	return 0;
}

static int
io_wait(void)
{
	struct timespec limit = {.tv_nsec = 100000000};
	int n = blkioq_do_io(q, completions, 1, MAX_SLOTS, &limit), i;

	if (n == -ETIME || n == -EINTR)
		return 0;
	for (i = 0; i < n; i++)
		io_ended(completions[i].user_data, completions[i].ret);
	return n;
}

/* ---- windows ---- */

static uint64_t
now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int
compare(const void *a, const void *b_)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b_;

	return (x > y) - (x < y);
}

static void
tell(uint64_t done, uint64_t ns)
{
	uint64_t n = done < SAMPLES ? done : SAMPLES;

	qsort(samples, n, sizeof(*samples), compare);
	printf("{\"requests\": %llu, \"ns\": %llu, \"p50\": %u, \"p99\": %u, \"p99.9\": %u}\n",
		(unsigned long long)done, (unsigned long long)ns, n ? samples[n / 2] : 0,
		n ? samples[n * 99 / 100] : 0, n ? samples[n * 999 / 1000] : 0);
	fflush(stdout);
}

static void
tell_copied(uint64_t done, uint64_t ns)
{
	printf("{\"requests\": %llu, \"ns\": %llu}\n", (unsigned long long)done,
		(unsigned long long)ns);
	fflush(stdout);
}

static void
begin(unsigned int i, bool write, size_t size, uint64_t places)
{
	uint8_t *buf = memory + i * size;
	uint64_t at = choose(places) * size;

	if (write)
		blkioq_write(q, at, buf, size, (void *)(uintptr_t)i, 0);
	else
		blkioq_read(q, at, buf, size, (void *)(uintptr_t)i, 0);
}

static void
window(bool write, size_t size, unsigned int depth, uint64_t ms, uint64_t capacity)
{
	uint64_t born[MAX_SLOTS], start = now_ns(), now = start, end = start + ms * 1000000,
				  done = 0;
	const uint64_t places = capacity / size;
	unsigned int out = 0, i;

	for (i = 0; i < depth; i++, out++) {
		born[i] = start;
		begin(i, write, size, places);
	}
	while (out > 0) {
		int n = blkioq_do_io(q, completions, 0, MAX_SLOTS, NULL), k;

		must(n, "do_io");
		if (n == 0)
			continue;
		now = now_ns();
		for (k = 0; k < n; k++) {
			i = (uintptr_t)completions[k].user_data;
			must(completions[k].ret, "a request");
			samples[done++ % SAMPLES] = now - born[i];
			if (now >= end) {
				out--;
				continue;
			}
			born[i] = now;
			begin(i, write, size, places);
		}
	}
	tell(done, now - start);
}

/* What this CPU could move to so many buffers, if copying were all. */
static void
copy(size_t size, unsigned int depth, uint64_t ms)
{
	static uint8_t *from;
	uint64_t start, now, done = 0;

	if (from == NULL) {
		from = mmap(NULL, COPY_FROM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
		madvise(from, COPY_FROM, MADV_HUGEPAGE);
		memset(from, 1, COPY_FROM);
	}
	start = now = now_ns();
	for (; now < start + ms * 1000000; now = now_ns()) {
		memcpy(memory + done % depth * size, from + choose(COPY_FROM / size) * size, size);
		done++;
	}
	tell_copied(done, now - start);
}

static void
bench(uint64_t capacity)
{
	unsigned int depth;
	char line[128], what[8];
	unsigned long size, ms;

	samples = malloc(SAMPLES * sizeof(*samples));
	blkioq_set_completion_fd_enabled(q, false);
	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		if (sscanf(line, "%7s %lu %u %lu", what, &size, &depth, &ms) != 4 || depth == 0 ||
			depth > MAX_SLOTS || size * depth > MAX_SLOTS * MOST * SECTOR) {
			fprintf(stderr, "blkio: not understood: %s", line);
			exit(2);
		}
		if (what[0] == 'c')
			copy(size, depth, ms);
		else
			window(what[0] == 'w', size, depth, ms, capacity);
	}
}

int
main(int argc, char **argv)
{
	uint64_t nb_sectors;
	cpu_set_t cpus;

	if (argc == 4 && strcmp(argv[1], "bench") == 0) {
		CPU_ZERO(&cpus);
		CPU_SET(atoi(argv[3]), &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus);
		bench(SECTOR * connect_to(argv[2], MAX_SLOTS * MOST * SECTOR));
		blkio_destroy(&b);
		return 0;
	}
	if (argc != 7 || strcmp(argv[1], "run") != 0) {
		fprintf(stderr,
			"usage: blkio run SOCKET DEPTH SEED SECONDS RECORD, "
			"blkio bench SOCKET CPU\n");
		return 2;
	}
	nb_sectors = connect_to(argv[2], MAX_SLOTS * MOST * SECTOR);
	slots_init(MAX_SLOTS, memory);
	record_open(argv[6], nb_sectors);
	run(strtoul(argv[3], NULL, 0), strtoull(argv[4], NULL, 0), strtoul(argv[5], NULL, 0));
	blkio_destroy(&b);
	return result();
}
