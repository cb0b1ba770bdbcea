/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * vfn-bench ringtest: chains between a driver's and a device's thread that share a ring in direct
 * memory and nothing else, as in the kernel's tools/virtio/ringtest. Both poll, or sleep until the
 * other one notifies. Neither waits for a peer that makes no progress.
 *
 * Which chain is the next one shows in its length, so that no line but the ring's own has to
 * travel between the CPUs.
 */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "queue.h"

#define MAX_LEN	  1024 /* bytes of the longest chain */
#define SPINS	  1024 /* between two looks at the clock */
#define MAX_BURST 256

static const char usage[] =
	"Usage: vfn-bench ringtest [options]\n"
	"Move chains between a driver on one CPU and a device on another.\n"
	"\n"
	"  --format LIST     split, packed, split-in-order, packed-in-order (default: all)\n"
	"  --notify          sleep and notify instead of polling\n"
	"  --write           the device writes the chains instead of reading them\n"
	"  --count N         chains (default 1000000)\n"
	"  --ring-size N     ring entries, a power of two (default 256)\n"
	"  --batch N         most chains posted or fetched at a time (default 32)\n"
	"  --cpu A,B         driver on CPU A, device on CPU B\n"
	"  --timeout N       seconds without progress that end the test (default 5)\n"
	"  -h, --help        this text\n"
	"\n"
	"Exit status: 0 measured, 1 failure or a wrong result, 2 wrong usage\n";

struct settings {
	uint32_t formats;
	uint32_t count;
	uint32_t ring_size;
	uint32_t burst;
	uint32_t timeout; /* seconds */
	int cpu[2];	  /* driver's, device's; -1: any */
	bool notify;
	bool write;
};

struct test {
	const struct settings *set;
	struct queue *q;
	pthread_barrier_t start;
	int kick, call;
	bool failed; /* one side gave up, atomic */
	char driver_fault[192];
	char device_fault[192];
	uint64_t nb_kicks, nb_calls;
	uint64_t ns;
};

/* How long a side has been waiting. */
struct wait {
	uint32_t spins;
	uint64_t since;
};

static uint32_t
len_of(uint32_t token)
{
	return 1 + token % MAX_LEN;
}

static bool
notify(int fd)
{
	uint64_t one = 1;

	return write(fd, &one, sizeof(one)) == sizeof(one);
}

/* False when the other side has given up, or made no progress for too long. */
static bool
wait_polling(struct test *t, struct wait *w)
{
	if (++w->spins % SPINS != 0) {
#ifdef __x86_64__
		_mm_pause();
#endif
		return true;
	}
	if (__atomic_load_n(&t->failed, __ATOMIC_RELAXED))
		return false;
	/* Where there are fewer CPUs than threads. */
	sched_yield();
	if (w->since == 0)
		w->since = clock_now_ns();
	return clock_now_ns() - w->since < (uint64_t)t->set->timeout * 1000000000;
}

static bool
wait_sleeping(struct test *t, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;

	return poll(&p, 1, t->set->timeout * 1000) == 1 &&
		read(fd, &count, sizeof(count)) == sizeof(count) &&
		!__atomic_load_n(&t->failed, __ATOMIC_RELAXED);
}

/* Wait for used chains, or available ones. That there are some does not mean that they come. */
static bool
driver_wait(struct test *t, struct wait *w)
{
	bool ok;

	if (!t->set->notify || mock_events_enable(&t->q->drv, 0))
		ok = wait_polling(t, w);
	else
		ok = wait_sleeping(t, t->call);
	if (t->set->notify)
		mock_events_disable(&t->q->drv);
	return ok;
}

static bool
device_wait(struct test *t, struct vringh *vr, struct wait *w)
{
	bool ok;

	if (!t->set->notify || vringh_notify_enable(vr))
		ok = wait_polling(t, w);
	else
		ok = wait_sleeping(t, t->kick);
	if (t->set->notify)
		vringh_notify_disable(vr);
	return ok;
}

/* Tell the other side not to wait any more. */
static void
give_up(struct test *t)
{
	__atomic_store_n(&t->failed, true, __ATOMIC_RELAXED);
	notify(t->kick);
	notify(t->call);
}

static void
device_run(struct test *t, struct vringh *vr)
{
	const struct settings *set = t->set;
	struct vringh_batch batch = t->q->dev.batch;
	struct wait w = {0};
	uint32_t seen = 0;
	int i, n;

	while (seen < set->count) {
		batch.nb_chains = batch.nb_segs = 0;
		n = vringh_fetch(vr, &batch, set->burst);
		if (n < 0) {
			snprintf(
				t->device_fault, sizeof(t->device_fault), "%s", vringh_strerror(n));
			return;
		}
		if (n == 0) {
			if (device_wait(t, vr, &w))
				continue;
			snprintf(t->device_fault, sizeof(t->device_fault),
				"nothing came after %u chains", seen);
			return;
		}
		w = (struct wait){0};
		for (i = 0; i < n; i++, seen++) {
			struct vringh_chain *chain = &batch.chain[i];
			uint32_t len = len_of(seen);

			if (chain->error != VRINGH_OK || chain->nb_read + chain->nb_write != 1 ||
				chain->seg->len != len ||
				(set->write ? chain->write_len : chain->read_len) != len) {
				snprintf(t->device_fault, sizeof(t->device_fault),
					"chain %u: '%s', %u bytes to read, %u to write", seen,
					vringh_strerror(chain->error), chain->read_len,
					chain->write_len);
				return;
			}
			chain->written = chain->write_len;
		}
		vringh_complete(vr, batch.chain, n);
		if (set->notify && vringh_need_notify(vr)) {
			notify(t->call);
			t->nb_calls++;
		}
	}
}

static void *
device(void *arg)
{
	struct test *t = arg;
	int error = -VRINGH_E_STATE;
	struct vringh vr;
	bool pinned = t->set->cpu[1] < 0 || pin(t->set->cpu[1]);

	if (pinned)
		error = vringh_init(&vr, &t->q->dev.cfg);
	if (error < 0)
		snprintf(t->device_fault, sizeof(t->device_fault), "%s",
			pinned ? vringh_strerror(error) : "not on its CPU");
	else
		vringh_notify_disable(&vr);
	pthread_barrier_wait(&t->start);
	if (error == 0)
		device_run(t, &vr);
	if (t->device_fault[0] != '\0')
		give_up(t);
	return NULL;
}

/* Post what there is room for; how much that was. */
static uint32_t
driver_post(struct test *t, uint32_t *posted)
{
	const struct settings *set = t->set;
	uint32_t n;

	for (n = 0; n < set->burst && *posted < set->count; n++, ++*posted) {
		struct mock_buf buf = {.len = len_of(*posted), .write = set->write};

		if (mock_post(&t->q->drv, &buf, 1, 0, *posted) < 0)
			break;
	}
	if (n == 0)
		return 0;
	mock_publish(&t->q->drv);
	if (set->notify && mock_should_kick(&t->q->drv)) {
		notify(t->kick);
		t->nb_kicks++;
	}
	return n;
}

static void
driver_run(struct test *t)
{
	const struct settings *set = t->set;
	struct mock_driver *d = &t->q->drv;
	struct mock_used used[MAX_BURST];
	uint32_t posted = 0, back = 0;
	struct wait w = {0};
	int i, n;

	while (back < set->count) {
		uint32_t more = driver_post(t, &posted);

		n = mock_collect(d, used, set->burst);
		for (i = 0; i < n; i++, back++) {
			uint32_t len = set->write ? len_of(back) : 0;

			if (used[i].token == back && used[i].len == len)
				continue;
			snprintf(t->driver_fault, sizeof(t->driver_fault),
				"chain %u came back as %ju with length %u", back,
				(uintmax_t)used[i].token, used[i].len);
			return;
		}
		if (n < 0) {
			snprintf(t->driver_fault, sizeof(t->driver_fault), "%s", d->fault);
			return;
		}
		if (n > 0 || more > 0) {
			w = (struct wait){0};
		} else if (!driver_wait(t, &w)) {
			snprintf(t->driver_fault, sizeof(t->driver_fault),
				"%u of %u chains came back", back, posted);
			return;
		}
	}
}

static void *
driver(void *arg)
{
	struct test *t = arg;
	uint64_t start;

	if (t->set->cpu[0] >= 0 && !pin(t->set->cpu[0]))
		snprintf(t->driver_fault, sizeof(t->driver_fault), "not on its CPU");
	mock_events_disable(&t->q->drv);
	pthread_barrier_wait(&t->start);
	start = clock_now_ns();
	if (t->driver_fault[0] == '\0')
		driver_run(t);
	t->ns = clock_now_ns() - start;
	if (t->driver_fault[0] != '\0')
		give_up(t);
	return NULL;
}

/* Both threads, until all chains are back or one of them gives up. */
static bool
run_threads(struct test *t)
{
	pthread_t thread;
	int ret;

	if (pthread_barrier_init(&t->start, NULL, 2) != 0)
		return false;
	ret = pthread_create(&thread, NULL, device, t);
	if (ret != 0) {
		report("cannot start a thread: %s", strerror(ret));
	} else {
		driver(t);
		pthread_join(thread, NULL);
	}
	pthread_barrier_destroy(&t->start);
	return ret == 0 && t->driver_fault[0] == '\0' && t->device_fault[0] == '\0';
}

static bool
run_format(const struct settings *set, enum format format)
{
	const struct shape shape = {.nb_bufs = 1, .len = MAX_LEN, .write = set->write};
	struct queue q;
	struct test t = {.set = set, .q = &q};
	bool ok = queue_open(&q, format, VRINGH_MEM_DIRECT, &shape, set->ring_size, set->burst);

	if (!ok)
		report("%s: %s", format_names[format], q.fault);
	q.dev.cfg.state.avail = q.dev.cfg.state.used = mock_used_position(&q.drv, 0);
	t.kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	t.call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (ok && (t.kick < 0 || t.call < 0)) {
		report("no eventfd: %s", strerror(errno));
		ok = false;
	}
	if (ok) {
		ok = run_threads(&t);
		if (t.driver_fault[0] != '\0')
			report("%s: driver: %s", format_names[format], t.driver_fault);
		if (t.device_fault[0] != '\0')
			report("%s: device: %s", format_names[format], t.device_fault);
	}
	if (ok)
		printf("%-15s %-8s %8.1f %9ju %9ju\n", format_names[format],
			set->notify ? "notify" : "poll", (double)t.ns / set->count,
			(uintmax_t)t.nb_kicks, (uintmax_t)t.nb_calls);
	if (t.kick >= 0)
		close(t.kick);
	if (t.call >= 0)
		close(t.call);
	queue_close(&q);
	return ok;
}

int
ringtest_main(int argc, char **argv)
{
	enum { FORMAT, NOTIFY, WRITE, COUNT, RING_SIZE, BURST, CPU, TIMEOUT };
	static const struct option names[] = {
		{"format", required_argument, NULL, FORMAT},
		{"notify", no_argument, NULL, NOTIFY},
		{"write", no_argument, NULL, WRITE},
		{"count", required_argument, NULL, COUNT},
		{"ring-size", required_argument, NULL, RING_SIZE},
		{"batch", required_argument, NULL, BURST},
		{"cpu", required_argument, NULL, CPU},
		{"timeout", required_argument, NULL, TIMEOUT},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct settings set = {.formats = UINT32_MAX,
		.count = 1000000,
		.ring_size = 256,
		.burst = 32,
		.timeout = 5,
		.cpu = {-1, -1}};
	enum format format;
	bool ok = true;
	int opt;

	while (ok && (opt = getopt_long(argc, argv, "h", names, NULL)) != -1) {
		switch (opt) {
		case FORMAT:
			ok = arg_names("format", optarg, format_names, &set.formats);
			break;
		case NOTIFY:
			set.notify = true;
			break;
		case WRITE:
			set.write = true;
			break;
		case COUNT:
			ok = arg_number("count", optarg, 1, UINT32_MAX, &set.count);
			break;
		case RING_SIZE:
			ok = arg_ring_size(optarg, &set.ring_size);
			break;
		case BURST:
			ok = arg_number("batch", optarg, 1, MAX_BURST, &set.burst);
			break;
		case CPU:
			ok = arg_cpus("cpu", optarg, 2, set.cpu);
			break;
		case TIMEOUT:
			ok = arg_number("timeout", optarg, 1, 1000, &set.timeout);
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
	if (!ok)
		return EXIT_USAGE;
	printf("%-15s %-8s %8s %9s %9s\n", "format", "mode", "ns/chain", "kicks", "calls");
	for (format = 0; format < NB_FORMATS && ok; format++)
		if (set.formats & 1u << format)
			ok = run_format(&set, format);
	return ok ? EXIT_OK : EXIT_RUNTIME;
}
