/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * vfn-bench limits: what two CPUs can do at best that pass packets, whatever the software. The
 * device is the main thread, on the second CPU, and is timed; the front-end is a thread on the
 * first CPU.
 *
 * - A cache line, there and back; lines that the front-end wrote, read one after the other.
 * - rte_ring: pointers in bursts, one way, or there and back with 256 on their way.
 * - Frames: buffers go round as a guest's do that sends what it received. The device copies a frame
 *   into the buffer that waits longest; the front-end leaves frames alone, as a forwarder does,
 *   or reads and rewrites them. A generator copies from memory of its own.
 */

#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <rte_ring.h>

#include "bench.h"
#include "clock.h"

#define HEADER	    12	/* of virtio-net, before each frame */
#define FCS	    4	/* counted in a frame's size, not copied */
#define BURST	    32	/* pointers */
#define IN_FLIGHT   256 /* frames, pointers */
#define RING_SIZE   1024
#define STRIDE	    2304 /* of buffers, as in a pool of mbufs */
#define LINE	    64
#define NB_LINES    4096
#define SPINS	    4096 /* until somebody else may need the CPU */
#define LAPS	    2000 /* of a line */
#define NB_OBJS	    100000
#define NB_BUFS	    (5 * IN_FLIGHT) /* as with a ring of 1,024 */
#define POOL_SIZE   (12u << 20)	    /* for so many of any size */
#define OWN_SIZE    (2u << 20)
#define MAX_WINDOWS 1000

static const char usage[] =
	"Usage: vfn-bench limits [options]\n"
	"What two CPUs can do at best that pass packets: lines, copies, rte_ring.\n"
	"\n"
	"  --cpu A,B       front-end on CPU A, device on CPU B\n"
	"  --windows N     of each measurement (default 21)\n"
	"  --json FILE     write the results there, - for standard output\n"
	"  -h, --help      this text\n"
	"\n"
	"Nanoseconds per line, frame or pointer; median, minimum, maximum of the windows.\n"
	"Exit status: 0 measured, 1 failure, 2 wrong usage\n";

struct limits;

/** One side's part of a measurement. */
typedef void (*part)(struct limits *l);

struct limits {
	/* Passed between the two; each on a line of its own. */
	struct {
		uint32_t turn __attribute__((aligned(2 * LINE)));
		part front; /* what the front-end is to do; NULL: to end */
	} request;
	uint32_t done __attribute__((aligned(2 * LINE)));
	uint32_t ball __attribute__((aligned(2 * LINE)));

	uint8_t *pool __attribute__((aligned(2 * LINE))); /* buffers, or lines */
	uint8_t *own;					  /* the device's */
	uint32_t first;					  /* buffer that the front-end has */
	uint32_t len;
	uint32_t stride;
	uint64_t sum; /* so that reads are not optimized away */
	struct rte_ring *ring[2];
	int cpu[2];
	bool pinned;
};

struct measurement {
	const char *name;
	uint32_t size; /* of a frame; 0: none */
	part prepare;  /* front-end, before */
	part front;    /* front-end, at the same time */
	part device;   /* timed */
	uint32_t nb;   /* lines, frames, pointers */
};

static void
wait_for(const uint32_t *value, uint32_t wanted)
{
	uint32_t spins = 0;

	while (__atomic_load_n(value, __ATOMIC_ACQUIRE) != wanted)
		if (++spins % SPINS == 0)
			sched_yield();
}

static void *
front_end(void *arg)
{
	struct limits *l = arg;
	uint32_t turn = 0;

	l->pinned = l->cpu[0] < 0 || pin(l->cpu[0]);
	for (;;) {
		__atomic_store_n(&l->done, turn, __ATOMIC_RELEASE);
		wait_for(&l->request.turn, ++turn);
		if (l->request.front == NULL)
			return NULL;
		l->request.front(l);
	}
}

static void
begin(struct limits *l, part front)
{
	l->request.front = front;
	__atomic_store_n(&l->request.turn, l->request.turn + 1, __ATOMIC_RELEASE);
}

static void
bounce(struct limits *l, uint32_t first)
{
	uint32_t i;

	for (i = first; i < 2 * LAPS; i += 2) {
		wait_for(&l->ball, i);
		__atomic_store_n(&l->ball, i + 1, __ATOMIC_RELEASE);
	}
}

static void
line_front(struct limits *l)
{
	bounce(l, 1);
}

static void
line_device(struct limits *l)
{
	bounce(l, 0);
	wait_for(&l->ball, 2 * LAPS);
	l->ball = 0;
}

static void
lines_write(struct limits *l)
{
	uint32_t i;

	for (i = 0; i < NB_LINES; i++)
		l->pool[i * LINE]++;
}

static void
lines_read(struct limits *l)
{
	uint32_t i;

	for (i = 0; i < NB_LINES; i++)
		l->sum += l->pool[i * LINE];
}

static uint8_t *
buffer(const struct limits *l, uint32_t i)
{
	return l->pool + (l->first + i) % NB_BUFS * l->stride;
}

static void
frames_touch(struct limits *l)
{
	uint32_t i, j;

	for (i = 0; i < IN_FLIGHT; i++) {
		for (j = 0; j < l->len; j += LINE)
			l->sum += buffer(l, i)[j];
		memset(buffer(l, i), l->sum, l->len);
	}
}

static void
frames_copy(struct limits *l)
{
	uint32_t i;

	for (i = 0; i < IN_FLIGHT; i++)
		memcpy(buffer(l, IN_FLIGHT + i), buffer(l, i), l->len);
	l->first = (l->first + IN_FLIGHT) % NB_BUFS;
}

static void
frames_write(struct limits *l)
{
	uint32_t i;

	for (i = 0; i < IN_FLIGHT; i++)
		memcpy(buffer(l, IN_FLIGHT + i), l->own, l->len);
	l->first = (l->first + IN_FLIGHT) % NB_BUFS;
}

/* Take pointers from one ring, if there is one, and put them into another. */
static void
pass(struct limits *l, struct rte_ring *from, struct rte_ring *to, uint32_t nb)
{
	void *objs[BURST] = {l};
	uint32_t seen = 0, spins = 0, n, put;

	while (seen < nb) {
		n = BURST;
		if (from != NULL)
			n = rte_ring_sc_dequeue_burst(from, objs, BURST, NULL);
		if (n == 0 && ++spins % SPINS == 0)
			sched_yield();
		seen += n;
		for (put = 0; to != NULL && put < n;) {
			put += rte_ring_sp_enqueue_burst(to, objs + put, n - put, NULL);
			if (put < n && ++spins % SPINS == 0)
				sched_yield();
		}
	}
}

static void
one_way_front(struct limits *l)
{
	pass(l, NULL, l->ring[0], NB_OBJS);
}

static void
one_way_device(struct limits *l)
{
	pass(l, l->ring[0], NULL, NB_OBJS);
}

static void
circle_front(struct limits *l)
{
	pass(l, NULL, l->ring[0], IN_FLIGHT);
	pass(l, l->ring[1], l->ring[0], NB_OBJS - IN_FLIGHT);
	pass(l, l->ring[1], NULL, IN_FLIGHT);
}

static void
circle_device(struct limits *l)
{
	pass(l, l->ring[0], l->ring[1], NB_OBJS);
}

static double
window(struct limits *l, const struct measurement *m, const struct clock *clock)
{
	uint64_t start, ticks;

	l->len = m->size + HEADER - FCS;
	l->stride = l->len > STRIDE ? (l->len / LINE + 2) * LINE : STRIDE;
	if (m->prepare != NULL) {
		begin(l, m->prepare);
		wait_for(&l->done, l->request.turn);
	}
	if (m->front != NULL)
		begin(l, m->front);
	start = clock_start();
	m->device(l);
	/* Until what was written is there. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	ticks = clock_stop() - start;
	wait_for(&l->done, l->request.turn);
	return (ticks - clock->empty) / clock->per_ns / m->nb;
}

static const struct measurement measurements[] = {
	{"line, there and back", 0, NULL, line_front, line_device, LAPS},
	{"line, read", 0, lines_write, NULL, lines_read, NB_LINES},
	{"rte_ring, one way", 0, NULL, one_way_front, one_way_device, NB_OBJS},
	{"rte_ring, there and back", 0, NULL, circle_front, circle_device, NB_OBJS},
	{"copy", 64, NULL, NULL, frames_copy, IN_FLIGHT},
	{"copy", 256, NULL, NULL, frames_copy, IN_FLIGHT},
	{"copy", 1518, NULL, NULL, frames_copy, IN_FLIGHT},
	{"copy", 9000, NULL, NULL, frames_copy, IN_FLIGHT},
	{"copy, touched", 64, frames_touch, NULL, frames_copy, IN_FLIGHT},
	{"copy, touched", 256, frames_touch, NULL, frames_copy, IN_FLIGHT},
	{"copy, touched", 1518, frames_touch, NULL, frames_copy, IN_FLIGHT},
	{"copy, touched", 9000, frames_touch, NULL, frames_copy, IN_FLIGHT},
	{"write", 64, NULL, NULL, frames_write, IN_FLIGHT},
	{"write", 256, NULL, NULL, frames_write, IN_FLIGHT},
	{"write", 1518, NULL, NULL, frames_write, IN_FLIGHT},
	{"write", 9000, NULL, NULL, frames_write, IN_FLIGHT},
};

static void *
area(size_t size)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	void *p;

	/* As a guest's memory is; without hugepages address translation is part of the limit. */
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
	if (p == MAP_FAILED)
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	memset(p, 1, size);
	return p;
}

static bool
limits_open(struct limits *l)
{
	unsigned int i;

	l->pool = area(POOL_SIZE);
	l->own = area(OWN_SIZE);
	for (i = 0; i < DIM(l->ring); i++) {
		l->ring[i] = aligned_alloc(2 * LINE, rte_ring_get_memsize(RING_SIZE));
		if (l->ring[i] == NULL ||
			rte_ring_init(l->ring[i], "limits", RING_SIZE,
				RING_F_SP_ENQ | RING_F_SC_DEQ) != 0)
			return false;
	}
	return l->pool != NULL && l->own != NULL;
}

static bool
measure(struct limits *l, uint32_t windows, FILE *text, FILE *json)
{
	struct clock clock = clock_calibrate();
	double ns[MAX_WINDOWS], middle;
	const char *before = "";
	uint32_t i, w;

	if (json != NULL)
		fprintf(json,
			"{\"cpu\": [%d, %d], \"clock_per_ns\": %.4f, \"windows\": %u, "
			"\"burst\": %u, \"in_flight\": %u, \"limits\": [",
			l->cpu[0], l->cpu[1], clock.per_ns, windows, BURST, IN_FLIGHT);
	for (i = 0; i < DIM(measurements); i++) {
		const struct measurement *m = &measurements[i];

		for (w = 0; w < NB_BUFS / IN_FLIGHT; w++) /* caches, branches */
			window(l, m, &clock);
		for (w = 0; w < windows; w++)
			ns[w] = window(l, m, &clock);
		middle = median(ns, windows);
		fprintf(text, "%-25s", m->name);
		if (m->size != 0)
			fprintf(text, " %5u B", m->size);
		else
			fprintf(text, "        ");
		fprintf(text, " %9.2f %9.2f %9.2f\n", middle, ns[0], ns[windows - 1]);
		if (json == NULL)
			continue;
		fprintf(json,
			"%s\n  {\"name\": \"%s\", \"size\": %u, \"ns\": %.3f, \"min\": %.3f, "
			"\"max\": %.3f}",
			before, m->name, m->size, middle, ns[0], ns[windows - 1]);
		before = ",";
	}
	if (json != NULL)
		fputs("\n]}\n", json);
	return json == NULL || (fflush(json) == 0 && !ferror(json));
}

static int
run(int *cpu, uint32_t windows, const char *path)
{
	bool to_stdout = path != NULL && strcmp(path, "-") == 0;
	FILE *json = to_stdout ? stdout : NULL, *text = to_stdout ? stderr : stdout;
	static struct limits l;
	pthread_t thread;
	bool ok = false;

	if (path != NULL && !to_stdout && (json = fopen(path, "w")) == NULL) {
		report("--json: cannot write %s: %m", path);
		return EXIT_RUNTIME;
	}
	memcpy(l.cpu, cpu, sizeof(l.cpu));
	if (!limits_open(&l) || pthread_create(&thread, NULL, front_end, &l) != 0) {
		report("no memory or no thread: %m");
	} else {
		ok = cpu[1] < 0 || pin(cpu[1]);
		begin(&l, line_front);
		line_device(&l);
		if (ok && l.pinned) {
			fprintf(text, "%-33s %9s %9s %9s\n", "ns", "median", "min", "max");
			ok = measure(&l, windows, text, json);
			if (!ok)
				report("--json: cannot write %s: %m", path);
		}
		wait_for(&l.done, l.request.turn);
		begin(&l, NULL);
		pthread_join(thread, NULL);
		ok = ok && l.pinned;
	}
	if (json != NULL && !to_stdout)
		fclose(json);
	return ok ? EXIT_OK : EXIT_RUNTIME;
}

int
limits_main(int argc, char **argv)
{
	enum { CPU, WINDOWS, JSON };
	static const struct option names[] = {
		{"cpu", required_argument, NULL, CPU},
		{"windows", required_argument, NULL, WINDOWS},
		{"json", required_argument, NULL, JSON},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int cpu[] = {-1, -1}, opt;
	const char *path = NULL;
	uint32_t windows = 21;
	bool ok = true;

	while (ok && (opt = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		switch (opt) {
		case CPU:
			ok = arg_cpus("cpu", optarg, 2, cpu);
			break;
		case WINDOWS:
			ok = arg_number("windows", optarg, 1, MAX_WINDOWS, &windows);
			break;
		case JSON:
			path = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_OK;
		default:
			return EXIT_USAGE;
		}
	}
	if (ok && optind < argc) {
		report("unexpected argument %s", argv[optind]);
		ok = false;
	}
	return ok ? run(cpu, windows, path) : EXIT_USAGE;
}
