/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Threads and descriptors that the driver does not get, and reasons that are told while the log has
 * troubles of its own.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "play_traffic.h"
#include "vfn_shadow.h"

#define DOORBELLS \
	(BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) | BIT(VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD) | \
		BIT(VHOST_USER_PROTOCOL_F_HOST_NOTIFIER))

static bool no_thread, no_epoll;
static int conds;

int __wrap_pthread_create(
	pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __real_pthread_create(
	pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __real_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_destroy(pthread_cond_t *cond);
int __real_pthread_cond_destroy(pthread_cond_t *cond);
int __wrap_epoll_create1(int flags);
int __real_epoll_create1(int flags);

int
__wrap_pthread_create(pthread_t *id, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	return no_thread ? EAGAIN : __real_pthread_create(id, attr, fn, arg);
}

int
__wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr)
{
	conds++;
	return __real_pthread_cond_init(cond, attr);
}

int
__wrap_pthread_cond_destroy(pthread_cond_t *cond)
{
	conds--;
	return __real_pthread_cond_destroy(cond);
}

int
__wrap_epoll_create1(int flags)
{
	if (!no_epoll)
		return __real_epoll_create1(flags);
	errno = EMFILE;
	return -1;
}

/* What is logged from log_begin() on. errno is another one after each line. */
static char text[65536];
static FILE *stream;

static ssize_t
log_line(void *cookie, const char *buf, size_t len)
{
	(void)cookie;
	strncat(text, buf, len < sizeof(text) - 1 - strlen(text) ? len : 0);
	errno = EUCLEAN;
	return len;
}

static void
log_begin(void)
{
	text[0] = '\0';
	stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = log_line});
	assert_non_null(stream);
	setbuf(stream, NULL);
	rte_openlog_stream(stream);
}

static void
logged(const char *what)
{
	if (strstr(text, what) == NULL)
		fail_msg("not in the log: \"%s\"", what);
}

static void
log_end(void)
{
	if (stream == NULL)
		return;
	rte_openlog_stream(NULL);
	fclose(stream);
	stream = NULL;
}

static int
teardown(void **state)
{
	no_thread = no_epoll = false;
	log_end();
	return plays_close(state);
}

static void
no_thread_for_doorbells(void **state)
{
	struct play *p = play_open(0, &(struct play_conf){.doorbell = true, .size = 64});
	int before = conds, round;

	(void)state;
	p->protocol = DOORBELLS;
	for (round = 0; round < 3; round++) {
		no_thread = true;
		log_begin();
		play_start(p);
		logged("no doorbells: cannot start a thread");
		/* the queues have their eventfds, and nothing is left of the attempt */
		assert_int_equal(p->dev->doorbells.fd, -1);
		assert_int_equal(p->dev->doorbells.vid, -1);
		assert_int_equal(conds, before);
		play_stop(p);
		log_end();
	}
}

static struct play *
shadowed(void)
{
	struct play *p = play_open(0,
		&(struct play_conf){
			.lm = VFN_LM_SHADOW, .thread = true, .sleep = true, .size = 64});

	play_log(p, play_log_len(p));
	play_start(p);
	log_begin();
	return p;
}

static void
relays_again(struct play *p)
{
	struct traffic t;

	no_thread = no_epoll = false;
	/* whatever changes next has them go on */
	vfn_dev_lock(p->dev);
	vfn_life_vring(p->dev, 0, 0, true);
	vfn_dev_unlock(p->dev);
	assert_true(p->dev->shadow_thread.runs);
	t = traffic_start(p, 1, p, 0);
	while (t.sent < 100)
		traffic_round(&t);
	traffic_finish(&t);
	play_stop(p);
}

static void
no_thread_for_shadow_rings(void **state)
{
	struct play *p = shadowed();

	(void)state;
	no_thread = true;
	play_log_all(p, true);
	logged("no thread for the shadow rings, they stand still: ");
	assert_false(p->dev->shadow_thread.runs);
	relays_again(p);
}

/* One without anything to wait on would spin. */
static void
no_epoll_for_shadow_rings(void **state)
{
	struct play *p = shadowed();

	(void)state;
	no_epoll = true;
	play_log_all(p, true);
	logged("no thread for the shadow rings, they stand still: Too many open files");
	assert_false(p->dev->shadow_thread.runs);
	relays_again(p);
}

static void
reason_survives_the_log(void **state)
{
	struct play *p = play_open(0, &(struct play_conf){.size = 64});
	int fd = memfd_create("inflight", MFD_CLOEXEC), other;
	char path[64];

	(void)state;
	/* another process has it */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDWR | O_CLOEXEC);
	assert_true(other >= 0);
	assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
	p->dev->inflight.fd = fd;
	log_begin();
	play_start(p);
	logged("the in-flight file is in use by another process");
	logged("queue 0: in-flight region Resource temporarily unavailable, nothing is tracked");
	play_stop(p);
	p->dev->inflight.fd = -1;
	close(other);
	close(fd);
}

#define PLAY(test) cmocka_unit_test_teardown(test, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAY(no_thread_for_doorbells),
		PLAY(no_thread_for_shadow_rings),
		PLAY(no_epoll_for_shadow_rings),
		PLAY(reason_survives_the_log),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("troubles", tests, DIM(tests), NULL, 0);
}
