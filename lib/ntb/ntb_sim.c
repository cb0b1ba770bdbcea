/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The simulated bridge: its memory, and what goes over the link. Any thread; posted writes with a
 * latency arrive on the bridge's own.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ntb_private.h"

/* What may be on its way: who posts more waits, as for credits. */
#define POSTED_MAX (1u << 20)

static struct sim *
sim_of(struct ntb *ntb)
{
	return (struct sim *)((uint8_t *)ntb - offsetof(struct sim, ntb));
}

uint64_t
sim_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

static void
count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* ---- what goes over the link ---- */

static bool
is_lost(struct sim *s, enum ntb_sim_loss what)
{
	uint32_t n = __atomic_load_n(&s->lose[what], __ATOMIC_RELAXED);

	while (n != 0 && n != UINT32_MAX)
		if (__atomic_compare_exchange_n(
			    &s->lose[what], &n, n - 1, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			return true;
	return n != 0;
}

/* In one piece where the link would: what is aligned, up to 8 bytes. */
static void
copy(uint8_t *to, const uint8_t *from, size_t len)
{
	uint64_t v = 0;

	if (len > sizeof(v) || (len & (len - 1)) != 0 || ((uintptr_t)to & (len - 1)) != 0 ||
		((uintptr_t)from & (len - 1)) != 0) {
		memcpy(to, from, len);
		return;
	}
	switch (len) {
	case 8:
		__atomic_store_n((uint64_t *)to,
			__atomic_load_n((const uint64_t *)from, __ATOMIC_RELAXED),
			__ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((uint32_t *)to,
			__atomic_load_n((const uint32_t *)from, __ATOMIC_RELAXED),
			__ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((uint16_t *)to,
			__atomic_load_n((const uint16_t *)from, __ATOMIC_RELAXED),
			__ATOMIC_RELAXED);
		break;
	case 1:
		*to = *from;
	}
}

/* Behind a doorbell_fd. Full is as good as rung. */
static void
signal_fd(int fd)
{
	const uint8_t any = 0;

	if (send(fd, &any, sizeof(any), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

static void
arrive(struct sim *s, enum ntb_sim_loss kind, uint64_t at, uint32_t value, const uint8_t *data,
	size_t len)
{
	struct sim_registers *peer = sim_registers(s->remote);

	/* After all that came before. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	switch (kind) {
	case NTB_SIM_LOSE_FLUSH:
		copy(s->remote + SIM_WINDOW_AT + at, data, len);
		break;
	case NTB_SIM_LOSE_SCRATCHPAD:
		__atomic_store_n(&peer->scratchpad[at], value, __ATOMIC_RELAXED);
		break;
	default:
		__atomic_fetch_or(&peer->doorbells, value, __ATOMIC_SEQ_CST);
		if (value & ~__atomic_load_n(&peer->mask, __ATOMIC_SEQ_CST))
			signal_fd(s->peer_fd);
	}
}

static void
post(struct sim *s, enum ntb_sim_loss kind, uint64_t at, uint32_t value, const uint8_t *data,
	size_t len)
{
	struct sim_posted *p;
	bool first = false;

	if (is_lost(s, kind))
		return;
	if (s->latency_ns == 0) {
		arrive(s, kind, at, value, data, len);
		return;
	}
	p = malloc(sizeof(*p) + len);
	if (p == NULL)
		return;
	p->kind = kind;
	p->at = at;
	p->value = value;
	p->len = len;
	memcpy(p->data, data, len);
	pthread_mutex_lock(&s->lock);
	while (s->state == SIM_UP && s->posted_bytes > 0 && s->posted_bytes + len > POSTED_MAX)
		pthread_cond_wait(&s->changed, &s->lock);
	if (s->state == SIM_UP) {
		p->due_ns = sim_now_ns() + s->latency_ns;
		first = STAILQ_EMPTY(&s->posted);
		STAILQ_INSERT_TAIL(&s->posted, p, next);
		s->posted_bytes += len;
		p = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	free(p);
	if (first)
		eventfd_write(s->wake_fd, 1);
}

uint64_t
sim_arrive(struct sim *s)
{
	uint64_t now = sim_now_ns(), next = 0;
	struct sim_posted *p;

	pthread_mutex_lock(&s->lock);
	while ((p = STAILQ_FIRST(&s->posted)) != NULL && p->due_ns <= now) {
		arrive(s, p->kind, p->at, p->value, p->data, p->len);
		STAILQ_REMOVE_HEAD(&s->posted, next);
		s->posted_bytes -= p->len;
		free(p);
	}
	if (p != NULL)
		next = p->due_ns;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return next;
}

/* Where it is in a window of size bytes, if it is inside. */
static bool
inside(const uint8_t *host, uint64_t size, const void *addr, size_t len, uint64_t *at)
{
	*at = (uintptr_t)addr - (uintptr_t)host;
	return (uintptr_t)addr >= (uintptr_t)host && *at <= size && len <= size - *at;
}

static void
sim_flush(struct ntb *ntb, const void *addr, size_t len)
{
	struct sim *s = sim_of(ntb);
	uint64_t at;

	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (len == 0 || !inside(ntb->out.host, s->limit, addr, len, &at))
		return;
	count(&s->stats.flushes, 1);
	count(&s->stats.flushed_bytes, len);
	if (s->mapped)
		return;
	post(s, NTB_SIM_LOSE_FLUSH, at, 0, addr, len);
	memset(ntb->out.host + at, NTB_SIM_POISON, len);
}

static void
sim_invalidate(struct ntb *ntb, const void *addr, size_t len)
{
	struct sim *s = sim_of(ntb);
	uint64_t at;

	if (inside(ntb->out.host, s->limit, addr, len, &at))
		count(&s->stats.reads_across, 1);
	else if (!s->mapped && inside(ntb->in.host, ntb->in.size, addr, len, &at))
		copy(ntb->in.host + at, s->local + SIM_WINDOW_AT + at, len);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
}

static uint32_t
sim_scratchpad(struct ntb *ntb, unsigned int i)
{
	return __atomic_load_n(&sim_registers(sim_of(ntb)->local)->scratchpad[i], __ATOMIC_ACQUIRE);
}

static uint32_t
sim_peer_scratchpad(struct ntb *ntb, unsigned int i)
{
	struct sim *s = sim_of(ntb);

	count(&s->stats.reads_across, 1);
	return __atomic_load_n(&sim_registers(s->remote)->scratchpad[i], __ATOMIC_ACQUIRE);
}

static void
sim_set_peer_scratchpad(struct ntb *ntb, unsigned int i, uint32_t v)
{
	post(sim_of(ntb), NTB_SIM_LOSE_SCRATCHPAD, i, v, NULL, 0);
}

static void
sim_ring(struct ntb *ntb, uint32_t doorbells)
{
	struct sim *s = sim_of(ntb);

	count(&s->stats.doorbells, 1);
	post(s, NTB_SIM_LOSE_DOORBELL, 0, doorbells, NULL, 0);
}

static uint32_t
sim_doorbells(struct ntb *ntb)
{
	return __atomic_load_n(&sim_registers(sim_of(ntb)->local)->doorbells, __ATOMIC_SEQ_CST);
}

/* Some are rung and not masked: who sets either looks at the other after that. */
static void
remind(struct sim *s)
{
	const struct sim_registers *own = sim_registers(s->local);

	if (__atomic_load_n(&own->doorbells, __ATOMIC_SEQ_CST) &
		~__atomic_load_n(&own->mask, __ATOMIC_SEQ_CST))
		signal_fd(s->self_fd);
}

static void
sim_clear(struct ntb *ntb, uint32_t doorbells)
{
	struct sim *s = sim_of(ntb);
	uint8_t any[64];

	/* The signal first: what is rung in between is told once more. */
	while (recv(ntb->doorbell_fd, any, sizeof(any), MSG_DONTWAIT) >= 0)
		;
	__atomic_fetch_and(&sim_registers(s->local)->doorbells, ~doorbells, __ATOMIC_SEQ_CST);
	remind(s);
}

static void
sim_mask(struct ntb *ntb, uint32_t doorbells)
{
	struct sim *s = sim_of(ntb);

	__atomic_store_n(&sim_registers(s->local)->mask, doorbells, __ATOMIC_SEQ_CST);
	remind(s);
}

static void
sim_stats(struct ntb *ntb, struct ntb_stats *stats)
{
	struct sim *s = sim_of(ntb);

#define NOW(field) .field = __atomic_load_n(&s->stats.field, __ATOMIC_RELAXED)
	*stats = (struct ntb_stats){
		NOW(flushes), NOW(flushed_bytes), NOW(doorbells), NOW(reads_across), NOW(links)};
#undef NOW
}

/* ---- memory ---- */

/* Memory of nobody's, at an address that stays. */
static uint8_t *
reserve(uint8_t *at, size_t size)
{
	uint8_t *host = mmap(at, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at != NULL ? MAP_FIXED : 0), -1, 0);

	return host != MAP_FAILED ? host : NULL;
}

static size_t
local_size(const struct sim *s)
{
	return SIM_WINDOW_AT + s->ntb.in.size;
}

static size_t
remote_size(const struct sim *s)
{
	return SIM_WINDOW_AT + s->limit;
}

/* A file for one link, that its peer cannot cut off. */
static int
new_memory(struct sim *s)
{
	int fd = memfd_create(s->name, MFD_CLOEXEC | MFD_ALLOW_SEALING), ret = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, local_size(s)) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ||
		mmap(s->local, local_size(s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			0) == MAP_FAILED)
		ret = -errno;
	/* The copy of it. */
	if (ret == 0 && !s->mapped)
		madvise(s->ntb.in.host, s->ntb.in.size, MADV_DONTNEED);
	if (ret < 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

int
sim_map_peer(struct sim *s, int fd, uint64_t bus, uint64_t size)
{
	if (mmap(s->remote, SIM_WINDOW_AT + size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    fd, 0) == MAP_FAILED)
		return -errno;
	__atomic_store_n(&s->ntb.out.bus, bus, __ATOMIC_RELAXED);
	__atomic_store_n(&s->ntb.out.size, size, __ATOMIC_RELEASE);
	return 0;
}

void
sim_unmap_peer(struct sim *s)
{
	struct sim_posted *p;

	__atomic_store_n(&s->ntb.out.size, 0, __ATOMIC_RELEASE);
	/* Whoever writes still writes there. */
	if (reserve(s->remote, remote_size(s)) == NULL)
		abort();
	while ((p = STAILQ_FIRST(&s->posted)) != NULL) {
		STAILQ_REMOVE_HEAD(&s->posted, next);
		free(p);
	}
	s->posted_bytes = 0;
}

/* ---- the link ---- */

static bool
sim_link_up(struct ntb *ntb)
{
	return __atomic_load_n(&sim_of(ntb)->state, __ATOMIC_ACQUIRE) == SIM_UP;
}

static int
sim_link_enable(struct ntb *ntb)
{
	struct sim *s = sim_of(ntb);
	int ret = -EALREADY;

	pthread_mutex_lock(&s->lock);
	if (s->state == SIM_OFF || s->state == SIM_DOWN) {
		ret = new_memory(s);
		if (ret >= 0) {
			s->memory_fd = ret;
			s->state = SIM_SEEKING;
			ret = 0;
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (ret == 0) {
		sim_clear(ntb, UINT32_MAX);
		eventfd_write(s->wake_fd, 1);
	}
	return ret;
}

static void
sim_link_disable(struct ntb *ntb)
{
	struct sim *s = sim_of(ntb);

	pthread_mutex_lock(&s->lock);
	s->disable = true;
	eventfd_write(s->wake_fd, 1);
	while (s->disable)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static void
sim_free(struct sim *s)
{
	const int fds[] = {s->ntb.link_fd, s->ntb.doorbell_fd, s->peer_fd, s->self_fd, s->wake_fd};
	unsigned int i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (s->local != NULL)
		munmap(s->local, local_size(s));
	if (s->remote != NULL)
		munmap(s->remote, remote_size(s));
	if (!s->mapped && s->ntb.in.host != NULL)
		munmap(s->ntb.in.host, s->ntb.in.size);
	if (!s->mapped && s->ntb.out.host != NULL)
		munmap(s->ntb.out.host, s->limit);
	free(s);
}

static void
sim_close(struct ntb *ntb)
{
	struct sim *s = sim_of(ntb);

	sim_link_disable(ntb);
	pthread_mutex_lock(&s->lock);
	s->quit = true;
	pthread_mutex_unlock(&s->lock);
	eventfd_write(s->wake_fd, 1);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	sim_free(s);
}

static const struct ntb_ops sim_ops = {
	.link_enable = sim_link_enable,
	.link_disable = sim_link_disable,
	.link_up = sim_link_up,
	.flush = sim_flush,
	.invalidate = sim_invalidate,
	.scratchpad = sim_scratchpad,
	.peer_scratchpad = sim_peer_scratchpad,
	.set_peer_scratchpad = sim_set_peer_scratchpad,
	.ring = sim_ring,
	.doorbells = sim_doorbells,
	.clear = sim_clear,
	.mask = sim_mask,
	.stats = sim_stats,
	.close = sim_close,
};

static const char *
wrong(const struct ntb_sim_params *p)
{
	if (p->size == 0 || p->size % NTB_SIM_ALIGN != 0 || p->size > NTB_SIM_MAX)
		return "the window's size is no multiple of 4096 up to 4 GiB";
	if (p->limit % NTB_SIM_ALIGN != 0 || p->limit > NTB_SIM_MAX)
		return "the window's limit is no multiple of 4096 up to 4 GiB";
	if (p->bus % NTB_SIM_ALIGN != 0 || p->bus + (p->size - 1) < p->bus)
		return "the window's address is no multiple of 4096, or too high for its size";
	if (p->mapped && p->latency_us != 0)
		return "memory that is mapped has no latency";
	return NULL;
}

static int
make_fds(struct sim *s)
{
	int bell[2], nobody[2];

	s->ntb.link_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->ntb.link_fd < 0 || s->wake_fd < 0 ||
		socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, bell) < 0)
		return -errno;
	s->ntb.doorbell_fd = bell[0];
	s->self_fd = bell[1];
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, nobody) < 0)
		return -errno;
	close(nobody[1]);
	s->peer_fd = nobody[0];
	return 0;
}

static int
start(struct sim *s)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&s->thread, NULL, sim_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret == 0)
		pthread_setname_np(s->thread, "vfn-ntb");
	return -ret;
}

int
ntb_sim_open(const struct ntb_sim_params *params, struct ntb **ntb, char *why, size_t size)
{
	const char *text = wrong(params);
	struct sim *s;
	int ret;

	if (text != NULL || strlen(params->path) >= sizeof(s->path)) {
		snprintf(why, size, "%s", text != NULL ? text : "the socket's path is too long");
		return text != NULL ? -EINVAL : -ENAMETOOLONG;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL) {
		snprintf(why, size, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	s->ntb = (struct ntb){.ops = &sim_ops,
		.in = {.bus = params->bus, .size = params->size},
		.link_fd = -1,
		.doorbell_fd = -1};
	s->peer_fd = s->self_fd = s->wake_fd = s->listen_fd = s->conn_fd = s->memory_fd = -1;
	snprintf(s->name, sizeof(s->name), "%s", params->name);
	strcpy(s->path, params->path);
	s->limit = params->limit != 0 ? params->limit : NTB_SIM_MAX / 4;
	s->latency_ns = params->latency_us * UINT64_C(1000);
	s->mapped = params->mapped;
	s->log = params->log;
	s->log_arg = params->log_arg;
	STAILQ_INIT(&s->posted);
	s->local = reserve(NULL, local_size(s));
	s->remote = reserve(NULL, remote_size(s));
	if (s->mapped && s->local != NULL && s->remote != NULL) {
		s->ntb.in.host = s->local + SIM_WINDOW_AT;
		s->ntb.out.host = s->remote + SIM_WINDOW_AT;
	} else if (!s->mapped) {
		s->ntb.in.host = reserve(NULL, s->ntb.in.size);
		s->ntb.out.host = reserve(NULL, s->limit);
	}
	ret = s->local == NULL || s->remote == NULL || s->ntb.in.host == NULL ||
			s->ntb.out.host == NULL ?
		-ENOMEM :
		make_fds(s);
	if (ret == 0) {
		pthread_mutex_init(&s->lock, NULL);
		pthread_cond_init(&s->changed, NULL);
		ret = start(s);
	}
	if (ret < 0) {
		snprintf(why, size, "%s", strerror(-ret));
		sim_free(s);
		return ret;
	}
	*ntb = &s->ntb;
	return 0;
}

void
ntb_sim_lose(struct ntb *ntb, enum ntb_sim_loss what, uint32_t n)
{
	__atomic_store_n(&sim_of(ntb)->lose[what], n, __ATOMIC_RELAXED);
}
