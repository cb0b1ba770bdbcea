/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The gate's thread, and the calls that other threads make to it.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "gate_private.h"

#define MAX_PORTS 1024
#define EVENTS	  64

struct gate_call {
	void (*run)(struct gate *gate, struct gate_call *call);
	struct gate_socket *sock;
	int number;
	bool force;
	int ret;
	bool done;
};

struct later {
	struct later *next;
};

/* One list suffices: every gate frees before it returns to epoll_wait(), on its own thread. */
static __thread struct later *garbage;

static unsigned int
fds_of(const struct gate_socket *sock)
{
	return GATE_FDS + GATE_FDS_PER_RING * sock->offer.rings;
}

/* Descriptors are shared out before they are scarce, so that no socket can take another's. */
unsigned int
gate_connections(const struct gate *gate)
{
	unsigned int n = gate->conf.connections;

	if (gate->conf.fds_max > 0 && gate->fds > 0 && gate->conf.fds_max / gate->fds < n)
		n = gate->conf.fds_max / gate->fds;
	return n > 0 ? n : 1;
}

int
gate_watch(struct gate *gate, struct gate_source *s, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = s};
	int op = s->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (s->fd < 0 || events == s->events)
		return 0;
	/* Not with nothing to wait for: a peer that has hung up would be reported all the time. */
	if (events == 0)
		op = EPOLL_CTL_DEL;
	if (epoll_ctl(gate->epoll_fd, op, s->fd, &ev) != 0)
		return -1;
	s->events = events;
	return 0;
}

void
gate_unwatch(struct gate *gate, struct gate_source *s)
{
	if (s->fd < 0)
		return;
	gate_watch(gate, s, 0);
	close(s->fd);
	s->fd = -1;
}

void
gate_free_later(struct gate *gate, void *memory)
{
	struct later *l = memory;

	(void)gate;
	l->next = garbage;
	garbage = l;
}

static int64_t
clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static void
dispatch(struct gate *gate, struct gate_source *s)
{
	eventfd_t count;

	if (s->fd < 0) /* closed in this round */
		return;
	switch (s->kind) {
	case GATE_SOURCE_WAKE:
		eventfd_read(gate->wake.fd, &count);
		break;
	case GATE_SOURCE_LISTEN:
		gate_socket_event(s->owner);
		break;
	case GATE_SOURCE_LIB:
		((struct gate_conn *)s->owner)->look = true;
		/* fall through */
	case GATE_SOURCE_FRONT:
		gate_conn_run(s->owner);
		break;
	case GATE_SOURCE_BACK_FRONT:
	case GATE_SOURCE_BACK_LIB:
		gate_back_event(s->owner);
		break;
	}
}

static void
free_removed(struct gate *gate)
{
	unsigned int i;

	for (i = 0; i < gate->max_sockets; i++) {
		struct gate_socket *sock = gate->sockets[i];

		if (sock == NULL || !sock->removed || !LIST_EMPTY(&sock->conns))
			continue;
		pthread_mutex_lock(&gate->lock);
		gate->sockets[i] = NULL;
		gate->nb_sockets--;
		gate->fds -= fds_of(sock);
		pthread_cond_broadcast(&gate->done);
		pthread_mutex_unlock(&gate->lock);
		gate_socket_free(sock);
	}
}

static bool
run_calls(struct gate *gate)
{
	struct gate_call *call;
	bool end;

	pthread_mutex_lock(&gate->lock);
	call = gate->call;
	gate->call = NULL;
	end = gate->end;
	pthread_mutex_unlock(&gate->lock);
	if (call != NULL) {
		call->run(gate, call);
		pthread_mutex_lock(&gate->lock);
		call->done = true;
		pthread_cond_broadcast(&gate->done);
		pthread_mutex_unlock(&gate->lock);
	}
	return !end;
}

static int
timeout_ms(const struct gate *gate)
{
	int64_t left;

	if (gate->deadline == GATE_NEVER_NS)
		return -1;
	left = gate->deadline - clock_ns();
	return left <= 0 ? 0 : left / 1000000 + 1;
}

static void
expire(struct gate *gate)
{
	unsigned int i;

	if (gate->now < gate->deadline)
		return;
	/* Whoever still waits for a time says so again. */
	gate->deadline = GATE_NEVER_NS;
	for (i = 0; i < gate->max_sockets; i++)
		if (gate->sockets[i] != NULL)
			gate_socket_expire(gate->sockets[i], gate->now);
}

static void *
run(void *arg)
{
	struct epoll_event events[EVENTS];
	struct gate *gate = arg;
	struct later *l;
	int i, n;

	pthread_setname_np(pthread_self(), "vfn-gate");
	do {
		n = epoll_wait(gate->epoll_fd, events, EVENTS, timeout_ms(gate));
		gate->now = clock_ns();
		for (i = 0; i < n; i++)
			dispatch(gate, events[i].data.ptr);
		expire(gate);
		free_removed(gate);
		while ((l = garbage) != NULL) {
			garbage = l->next;
			free(l);
		}
	} while (run_calls(gate));
	return NULL;
}

/* ---- the calls ---- */

static void
wake(struct gate *gate)
{
	eventfd_write(gate->wake.fd, 1);
}

static int
ask(struct gate *gate, struct gate_call *call)
{
	pthread_mutex_lock(&gate->lock);
	gate->call = call;
	pthread_mutex_unlock(&gate->lock);
	wake(gate);
	pthread_mutex_lock(&gate->lock);
	while (!call->done)
		pthread_cond_wait(&gate->done, &gate->lock);
	pthread_mutex_unlock(&gate->lock);
	return call->ret;
}

struct gate *
gate_open(const struct gate_conf *conf)
{
	struct gate *gate = calloc(1, sizeof(*gate));
	pthread_condattr_t attr;
	sigset_t all, old;
	int err;

	if (gate == NULL)
		return NULL;
	gate->conf = *conf;
	if (gate->conf.connections == 0)
		gate->conf.connections = GATE_CONNECTIONS;
	if (gate->conf.space_max == 0)
		gate->conf.space_max = GATE_SPACE_MAX;
	gate->deadline = GATE_NEVER_NS;
	gate->sockets = calloc(MAX_PORTS, sizeof(*gate->sockets));
	gate->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	gate->wake = (struct gate_source){
		GATE_SOURCE_WAKE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), 0, gate};
	err = errno;
	if (gate->sockets == NULL || gate->epoll_fd < 0 || gate->wake.fd < 0 ||
		gate_watch(gate, &gate->wake, EPOLLIN) != 0)
		goto fail;
	pthread_mutex_init(&gate->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&gate->done, &attr);
	pthread_condattr_destroy(&attr);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	err = pthread_create(&gate->thread, NULL, run, gate);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err == 0)
		return gate;
fail:
	if (gate->wake.fd >= 0)
		close(gate->wake.fd);
	if (gate->epoll_fd >= 0)
		close(gate->epoll_fd);
	free(gate->sockets);
	free(gate);
	errno = err;
	return NULL;
}

static void
remove_all(struct gate *gate, struct gate_call *call)
{
	struct gate_socket *sock = gate->sockets[call->number];
	struct gate_conn *c, *next;

	if (sock == NULL) /* it was slow, and is gone by now */
		return;
	sock->removed = true;
	gate_unwatch(gate, &sock->listen);
	for (c = LIST_FIRST(&sock->conns); c != NULL; c = next) {
		next = LIST_NEXT(c, next);
		if (call->force)
			gate_conn_free(c);
		else
			gate_conn_end(c);
	}
	gate_at(gate, gate->now); /* free_removed() has its turn */
}

/* Wait until a socket is gone. False: it is still there. */
static bool
wait_removed(struct gate *gate, int number, int ms)
{
	struct timespec until;
	bool gone;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&gate->lock);
	while (!(gone = gate->sockets[number] == NULL))
		if (pthread_cond_timedwait(&gate->done, &gate->lock, &until) != 0)
			break;
	pthread_mutex_unlock(&gate->lock);
	return gone;
}

static bool
is_socket(struct gate *gate, int number)
{
	bool there;

	if (number < 0 || number >= MAX_PORTS)
		return false;
	pthread_mutex_lock(&gate->lock);
	there = gate->sockets[number] != NULL;
	pthread_mutex_unlock(&gate->lock);
	return there;
}

int
gate_remove_socket(struct gate *gate, int number, int patience_ms)
{
	struct gate_call call = {.run = remove_all, .number = number};

	if (!is_socket(gate, number))
		return -ENOENT;
	ask(gate, &call);
	if (wait_removed(gate, number, patience_ms))
		return 0;
	call = (struct gate_call){.run = remove_all, .number = number, .force = true};
	ask(gate, &call);
	wait_removed(gate, number, 1000);
	return -ETIMEDOUT;
}

void
gate_close(struct gate *gate)
{
	int i;

	if (gate == NULL)
		return;
	for (i = 0; i < MAX_PORTS; i++)
		gate_remove_socket(gate, i, 0);
	pthread_mutex_lock(&gate->lock);
	gate->end = true;
	pthread_mutex_unlock(&gate->lock);
	wake(gate);
	pthread_join(gate->thread, NULL);
	close(gate->wake.fd);
	close(gate->epoll_fd);
	pthread_cond_destroy(&gate->done);
	pthread_mutex_destroy(&gate->lock);
	free(gate->sockets);
	free(gate);
}

static void
add_one(struct gate *gate, struct gate_call *call)
{
	unsigned int i;

	for (i = 0; i < gate->max_sockets && gate->sockets[i] != NULL; i++)
		;
	if (i == MAX_PORTS) {
		call->ret = -ENOSPC;
		return;
	}
	if (gate_watch(gate, &call->sock->listen, call->sock->client ? 0 : EPOLLIN) != 0) {
		call->ret = -errno;
		return;
	}
	pthread_mutex_lock(&gate->lock);
	gate->sockets[i] = call->sock;
	if (i == gate->max_sockets)
		gate->max_sockets++;
	gate->nb_sockets++;
	gate->fds += fds_of(call->sock);
	pthread_mutex_unlock(&gate->lock);
	call->ret = i;
	gate_socket_begin(call->sock);
}

int
gate_add_socket(struct gate *gate, const struct gate_socket_conf *conf)
{
	struct gate_socket *sock = calloc(1, sizeof(*sock));
	struct gate_call call = {.run = add_one, .sock = sock};
	int ret = -ENOMEM;

	if (sock == NULL)
		return -ENOMEM;
	sock->gate = gate;
	sock->name = strdup(conf->name);
	sock->path = strdup(conf->path);
	sock->private_path = strdup(conf->private_path);
	sock->closer = vfn_closer_new();
	sock->client = conf->listen_fd < 0;
	sock->listen = (struct gate_source){GATE_SOURCE_LISTEN, conf->listen_fd, 0, sock};
	sock->offer = (struct gate_offer){
		.features = conf->features,
		.protocol_features = conf->protocol_features | UINT64_C(1) << GATE_PF_REPLY_ACK |
			(uint64_t)conf->slots << GATE_PF_CONFIGURE_MEM_SLOTS,
		.rings = conf->rings,
		.queues = conf->queues,
		.log_max = GATE_LOG_MAX,
		.inflight_max = GATE_INFLIGHT_MAX,
	};
	LIST_INIT(&sock->conns);
	if (sock->name != NULL && sock->path != NULL && sock->private_path != NULL &&
		sock->closer != NULL)
		ret = ask(gate, &call);
	if (ret >= 0)
		return ret;
	vfn_closer_free(sock->closer);
	free(sock->name);
	free(sock->path);
	free(sock->private_path);
	free(sock);
	return ret;
}

int
gate_get_stats(struct gate *gate, int number, struct gate_stats *stats)
{
	struct gate_socket *sock;
	int ret = -ENOENT;

	if (number < 0 || number >= MAX_PORTS)
		return -ENOENT;
	pthread_mutex_lock(&gate->lock);
	sock = gate->sockets[number];
	if (sock != NULL) {
		*stats = sock->stats;
		stats->waiting = vfn_closer_waiting(sock->closer);
		ret = 0;
	}
	pthread_mutex_unlock(&gate->lock);
	return ret;
}
