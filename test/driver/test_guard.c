/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shared memory that is cut off (vfn_guard.h): what is watched becomes zeroes and tells, what is
 * not goes to whoever handled the signal before, and a function asks for a reset.
 */

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fn_harness.h"
#include "vfn_guard.h"

#define PAGE 4096u
#define SIZE (64 * PAGE)

struct shared {
	int fd;
	uint8_t *map;
};

static struct shared
shared_new(void)
{
	struct shared s = {.fd = memfd_create("shared", MFD_CLOEXEC)};

	assert_true(s.fd >= 0);
	assert_int_equal(ftruncate(s.fd, SIZE), 0);
	s.map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0);
	assert_true(s.map != MAP_FAILED);
	memset(s.map, 0x5a, SIZE);
	return s;
}

static void
shared_cut(struct shared *s)
{
	assert_int_equal(ftruncate(s->fd, 0), 0);
}

static void
shared_free(struct shared *s)
{
	munmap(s->map, SIZE);
	close(s->fd);
}

static void
touch(const uint8_t *at)
{
	*(const volatile uint8_t *)at;
}

static bool lost, lost_too;

/* cmocka takes the signal for itself before every test. */
static struct sigaction ours;

static void
handler_back(void)
{
	sigaction(SIGBUS, &ours, NULL);
}

/* Set by a handler, which the compiler does not know of. */
static bool
is(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static void
watched_memory_becomes_zeroes(void **state)
{
	struct shared s = shared_new(), whole = shared_new();
	unsigned int i;

	(void)state;
	handler_back();
	lost = lost_too = false;
	assert_int_equal(vfn_guard_add(s.map, SIZE, &lost), 0);
	assert_int_equal(vfn_guard_add(whole.map, SIZE, &lost_too), 0);
	shared_cut(&s);
	assert_false(is(&lost));
	s.map[SIZE / 2] = 1;
	assert_true(is(&lost));
	assert_false(is(&lost_too));
	for (i = 0; i < SIZE; i++)
		assert_int_equal(s.map[i], i == SIZE / 2);
	assert_int_equal(whole.map[SIZE - 1], 0x5a);
	vfn_guard_remove(s.map, &lost);
	vfn_guard_remove(whole.map, &lost_too);
	shared_free(&s);
	shared_free(&whole);
}

static void
everyone_who_watches_is_told(void **state)
{
	struct shared s = shared_new();

	(void)state;
	handler_back();
	lost = lost_too = false;
	assert_int_equal(vfn_guard_add(s.map, SIZE, &lost), 0);
	assert_int_equal(vfn_guard_add(s.map, SIZE, &lost_too), 0);
	shared_cut(&s);
	touch(s.map);
	assert_true(is(&lost) && is(&lost_too));
	vfn_guard_remove(s.map, &lost);
	vfn_guard_remove(s.map, &lost_too);
	shared_free(&s);
}

static void
any_number_can_be_watched(void **state)
{
	static bool flag[1000];
	struct shared s[4];
	unsigned int i, round;

	(void)state;
	handler_back();
	for (i = 0; i < DIM(s); i++)
		s[i] = shared_new();
	for (round = 0; round < 3; round++) {
		memset(flag, 0, sizeof(flag));
		for (i = 0; i < DIM(flag); i++)
			assert_int_equal(
				vfn_guard_add(s[0].map + i % 64 * PAGE, PAGE, &flag[i]), 0);
		for (i = 0; i < DIM(flag) - round; i++)
			vfn_guard_remove(s[0].map + i % 64 * PAGE, &flag[i]);
		assert_int_equal(vfn_guard_add(s[round + 1].map, SIZE, &lost), 0);
		lost = false;
		shared_cut(&s[round + 1]);
		touch(s[round + 1].map + SIZE - 1);
		assert_true(is(&lost));
		vfn_guard_remove(s[round + 1].map, &lost);
		for (; i < DIM(flag); i++) {
			assert_false(is(&flag[i]));
			vfn_guard_remove(s[0].map + i % 64 * PAGE, &flag[i]);
		}
	}
	for (i = 0; i < DIM(s); i++)
		shared_free(&s[i]);
}

static void
thread_on_its_guard_loses_a_page(void **state)
{
	struct shared s = shared_new();

	(void)state;
	handler_back();
	lost = false;
	vfn_guard(&lost);
	assert_int_equal(ftruncate(s.fd, SIZE / 2), 0);
	touch(s.map + SIZE / 2 + 100);
	assert_true(is(&lost));
	vfn_guard(NULL);
	assert_int_equal(s.map[SIZE / 2], 0);
	assert_int_equal(s.map[SIZE / 2 - 1], 0x5a);
	shared_free(&s);
}

struct guarded {
	pthread_t thread;
	struct shared s;
	bool lost, on, go, done;
};

static void *
guarded_thread(void *arg)
{
	struct guarded *g = arg;

	vfn_guard(&g->lost);
	__atomic_store_n(&g->on, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&g->go, __ATOMIC_ACQUIRE))
		nap_us(100);
	touch(g->s.map);
	vfn_guard(NULL);
	__atomic_store_n(&g->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* One leaves, ends or is told of its loss, and the others are as before. */
static void
threads_are_on_guard_each_for_itself(void **state)
{
	struct guarded g[4];
	unsigned int i, k;

	(void)state;
	handler_back();
	for (i = 0; i < DIM(g); i++) {
		g[i] = (struct guarded){.s = shared_new()};
		assert_int_equal(pthread_create(&g[i].thread, NULL, guarded_thread, &g[i]), 0);
		while (!__atomic_load_n(&g[i].on, __ATOMIC_ACQUIRE))
			nap_us(100);
		shared_cut(&g[i].s);
	}
	/* this one has never been, and says that it is no more */
	vfn_guard(NULL);
	for (i = 0; i < DIM(g); i++) {
		__atomic_store_n(&g[i].go, true, __ATOMIC_RELEASE);
		pthread_join(g[i].thread, NULL);
		for (k = 0; k < DIM(g); k++)
			assert_int_equal(is(&g[k].lost), k <= i);
	}
	for (i = 0; i < DIM(g); i++)
		shared_free(&g[i].s);
}

struct watcher {
	pthread_t thread;
	unsigned int rounds;
};

static void *
watch_and_lose(void *arg)
{
	struct watcher *w = arg;
	bool gone[8];
	unsigned int i, round;

	for (round = 0; round < w->rounds; round++) {
		struct shared s[8];

		for (i = 0; i < DIM(s); i++) {
			s[i] = shared_new();
			gone[i] = false;
			if (vfn_guard_add(s[i].map, SIZE, &gone[i]) < 0)
				return w;
		}
		shared_cut(&s[round % DIM(s)]);
		for (i = 0; i < DIM(s); i++) {
			touch(s[i].map + SIZE - 1);
			if (is(&gone[i]) != (i == round % DIM(s)))
				return w;
			vfn_guard_remove(s[i].map, &gone[i]);
			shared_free(&s[i]);
		}
	}
	return NULL;
}

static void
any_thread_watches_at_any_time(void **state)
{
	struct watcher w[4];
	unsigned int i;
	void *failed;

	(void)state;
	handler_back();
	for (i = 0; i < DIM(w); i++) {
		w[i].rounds = 40;
		assert_int_equal(pthread_create(&w[i].thread, NULL, watch_and_lose, &w[i]), 0);
	}
	for (i = 0; i < DIM(w); i++) {
		pthread_join(w[i].thread, &failed);
		assert_null(failed);
	}
}

/* Status of a child that runs fn. */
static int
child(void (*fn)(struct shared *s))
{
	struct shared s = shared_new();
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		fn(&s);
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	shared_free(&s);
	return status;
}

static void
touch_after_unwatch(struct shared *s)
{
	vfn_guard_add(s->map, SIZE, &lost);
	vfn_guard_remove(s->map, &lost);
	shared_cut(s);
	touch(s->map);
}

static void *
touch_start(void *map)
{
	touch(map);
	return NULL;
}

static void
touch_beside_the_guard(struct shared *s)
{
	pthread_t thread;

	vfn_guard(&lost);
	shared_cut(s);
	pthread_create(&thread, NULL, touch_start, s->map);
	pthread_join(thread, NULL);
}

static void
touch_after_the_guard(struct shared *s)
{
	vfn_guard(&lost);
	vfn_guard(NULL);
	shared_cut(s);
	touch(s->map);
}

static void
signalled(struct shared *s)
{
	vfn_guard_add(s->map, SIZE, &lost);
	raise(SIGBUS);
}

static void
others_are_as_deadly_as_before(void **state)
{
	void (*const deadly[])(struct shared *) = {
		touch_after_unwatch, touch_beside_the_guard, touch_after_the_guard, signalled};
	unsigned int i;

	(void)state;
	handler_back();
	for (i = 0; i < DIM(deadly); i++) {
		int status = child(deadly[i]);

		/* a sanitizer's handler, which was there before, reports and exits */
		assert_int_not_equal(status, 0);
		if (WIFSIGNALED(status))
			assert_int_equal(WTERMSIG(status), SIGBUS);
	}
}

/* What was installed before: run in a new process, where ours is not installed yet. */
static void
old_handler(int signum)
{
	_exit(signum == SIGBUS ? 42 : 1);
}

static void
old_action(int signum, siginfo_t *info, void *context)
{
	_exit(signum == SIGBUS && info->si_code == BUS_ADRERR && context != NULL ? 43 : 1);
}

static int
chained(const char *how)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	struct shared s = shared_new();

	if (how[0] == 'h')
		action.sa_handler = old_handler;
	if (how[0] == 'i')
		action.sa_handler = SIG_IGN;
	if (how[0] == 'a') {
		action.sa_sigaction = old_action;
		action.sa_flags = SA_SIGINFO;
	}
	sigaction(SIGBUS, &action, NULL);
	vfn_guard_add(s.map, SIZE, &lost);
	if (how[0] == 'i') {
		raise(SIGBUS);
		return 44;
	}
	vfn_guard_remove(s.map, &lost);
	shared_cut(&s);
	touch(s.map);
	return 1;
}

static void
handler_of_before_is_asked(void **state)
{
	static const struct {
		const char *how;
		int code;
	} cases[] = {{"handler", 42}, {"action", 43}, {"ignored", 44}};
	unsigned int i;

	(void)state;
	handler_back();
	for (i = 0; i < DIM(cases); i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			execl("/proc/self/exe", "test_guard", cases[i].how, NULL);
			_exit(1);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), cases[i].code);
	}
}

static void
status_wait(struct guest *g, uint8_t bit)
{
	uint64_t end = now_ms() + PATIENCE_MS;

	while (!(CGET(g, device_status) & bit)) {
		assert_true(now_ms() < end);
		nap_us(100);
	}
}

static struct frame f, got;

static void
function_asks_for_a_reset(void **state)
{
	struct guest *g = guest_open(&(struct guest_conf){.sleep = true});
	struct guest *other = guest_open(&(struct guest_conf){.name = "other", .sleep = true});
	struct shared s = shared_new();
	struct vfn_dma_map map = {.iova = FREE_AT,
		.len = SIZE,
		.host = s.map,
		.fd = s.fd,
		.readable = true,
		.writable = true};
	struct mock_buf seg = {.len = 100, .fixed = true, .iova = FREE_AT + PAGE};
	int irq = eventfd(0, EFD_NONBLOCK);
	eventfd_t count;

	(void)state;
	handler_back();
	assert_int_equal(g->link->ops->dma_map(g->link, &map), 0);
	assert_int_equal(g->link->ops->set_irq(g->link, 0, irq), 0);
	CSET(g, config_msix_vector, 0);
	frame_make(&f, 1, 200);
	rx_post(g, RXQ(0), 4, 2048, 1);
	frame_passes(g, TXQ(0), g, RXQ(0), &f);
	shared_cut(&s);
	assert_true(mock_post(&g->q[TXQ(0)].drv, &seg, 1, 0, 0) >= 0);
	mock_publish(&g->q[TXQ(0)].drv);
	queue_kick_always(g, TXQ(0));
	status_wait(g, VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(eventfd_read(irq, &count), 0);
	/* nothing moves, even on memory that is whole; elsewhere it does */
	frame_make(&f, 2, 200);
	tx_send(g, TXQ(0), &f);
	assert_false(rx_try(g, RXQ(0), &got, 20) && got.len == 200);
	rx_post(other, RXQ(0), 1, 2048, 1);
	frame_passes(other, TXQ(0), other, RXQ(0), &f);

	/* a reset is no help while that memory is mapped, but it works again without */
	guest_reset(g);
	assert_int_equal(CGET(g, device_status), 0);
	assert_int_equal(guest_negotiate(g, BIT(VIRTIO_F_VERSION_1)), 0);
	CSET(g, device_status, STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK);
	status_wait(g, VIRTIO_CONFIG_S_NEEDS_RESET);
	assert_int_equal(g->link->ops->dma_unmap(g->link, VFN_DMA_GUEST, FREE_AT, SIZE), 0);
	shared_free(&s);
	close(irq);
	guest_close(g);
	g = guest_open(&(struct guest_conf){.sleep = true});
	rx_post(g, RXQ(0), 1, 2048, 1);
	frame_passes(g, TXQ(0), g, RXQ(0), &f);
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		PLAIN(watched_memory_becomes_zeroes),
		PLAIN(everyone_who_watches_is_told),
		PLAIN(any_number_can_be_watched),
		PLAIN(thread_on_its_guard_loses_a_page),
		PLAIN(threads_are_on_guard_each_for_itself),
		PLAIN(any_thread_watches_at_any_time),
		PLAIN(others_are_as_deadly_as_before),
		PLAIN(handler_of_before_is_asked),
		PLAIN(function_asks_for_a_reset),
	};

	if (argc > 1)
		return chained(argv[1]);
	if (fn_eal_init(NULL) < 0 || vfn_guard_add(&f, 1, &lost) < 0)
		return 1;
	vfn_guard_remove(&f, &lost);
	sigaction(SIGBUS, NULL, &ours);
	return run_list("guard", tests, DIM(tests), NULL, 0);
}
