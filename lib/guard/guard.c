/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Shared memory that is taken away. The handler of SIGBUS runs on whichever thread touched it, puts
 * zeroes in its place and sets a flag; what is to be done about it is done later, by others.
 */

#include "vfn_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define DIM(array) (sizeof(array) / sizeof((array)[0]))

/* The handler believes what it read if changes was even and the same before and after. */
struct range {
	uint32_t changes;
	uintptr_t start; /* 0: free */
	size_t len;
	bool *lost;
};

/* Read by the handler without a lock, so blocks are never given back. */
struct block {
	struct range range[64];
	struct block *next;
};

static struct block ranges;
static pthread_mutex_t ranges_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;
static bool installed;

/*
 * Set while this thread is on guard. Of the initial model: in a library that was loaded later the
 * first access would else allocate, which no signal handler may.
 */
static __thread bool *on_guard __attribute__((tls_model("initial-exec")));

bool vfn_guard_hit;

/* A file on hugetlbfs can only be replaced in whole pages, of a size that nobody tells. */
static bool
replace(uintptr_t start, uintptr_t end)
{
	static const uintptr_t sizes[] = {1 << 12, 1 << 21, 1 << 30};
	unsigned int i;

	for (i = 0; i < DIM(sizes); i++) {
		uintptr_t from = start & ~(sizes[i] - 1);
		uintptr_t to = (end + sizes[i] - 1) & ~(sizes[i] - 1);

		if (mmap((void *)from, to - from, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			    0) != MAP_FAILED)
			return true;
		if (errno != EINVAL)
			break;
	}
	return false;
}

/* False for one that changes now, which is not the one that is being touched. */
static bool
range_read(const struct range *r, struct range *copy)
{
	uint32_t changes = __atomic_load_n(&r->changes, __ATOMIC_ACQUIRE);

	copy->start = __atomic_load_n(&r->start, __ATOMIC_RELAXED);
	copy->len = __atomic_load_n(&r->len, __ATOMIC_RELAXED);
	copy->lost = __atomic_load_n(&r->lost, __ATOMIC_RELAXED);
	/* Pairs with the fence in range_write(). */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return changes % 2 == 0 && __atomic_load_n(&r->changes, __ATOMIC_RELAXED) == changes;
}

/* ranges_lock held. */
static void
range_write(struct range *r, uintptr_t start, size_t len, bool *lost)
{
	uint32_t changes = r->changes;

	__atomic_store_n(&r->changes, changes + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&r->start, start, __ATOMIC_RELAXED);
	__atomic_store_n(&r->len, len, __ATOMIC_RELAXED);
	__atomic_store_n(&r->lost, lost, __ATOMIC_RELAXED);
	__atomic_store_n(&r->changes, changes + 2, __ATOMIC_RELEASE);
}

static bool
mend(uintptr_t addr)
{
	struct range found;
	struct block *b;
	bool done = false;
	unsigned int i;

	for (b = &ranges; b != NULL; b = __atomic_load_n(&b->next, __ATOMIC_ACQUIRE)) {
		for (i = 0; i < DIM(b->range); i++) {
			if (!range_read(&b->range[i], &found) || found.start == 0 ||
				addr - found.start >= found.len)
				continue;
			if (!done && !replace(found.start, found.start + found.len))
				return false;
			done = true;
			__atomic_store_n(found.lost, true, __ATOMIC_RELEASE);
			__atomic_store_n(&vfn_guard_hit, true, __ATOMIC_RELEASE);
		}
	}
	if (!done && on_guard != NULL && replace(addr, addr + 1)) {
		__atomic_store_n(on_guard, true, __ATOMIC_RELEASE);
		done = true;
	}
	return done;
}

static void
bus_error(int signum, siginfo_t *info, void *context)
{
	const struct sigaction deadly = {.sa_handler = SIG_DFL};
	int error = errno;
	bool mended = info->si_code == BUS_ADRERR && mend((uintptr_t)info->si_addr);

	errno = error;
	if (mended)
		return;
	if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(signum, info, context);
	} else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
		before.sa_handler(signum);
	} else if (before.sa_handler == SIG_DFL || info->si_code > 0) {
		/* What ends the process waits until the handler returns. */
		sigaction(signum, &deadly, NULL);
		raise(signum);
	}
}

void
vfn_guard_unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/*
 * Once and for good: an application that takes the signal for itself later may call us from its
 * own handler. ranges_lock held.
 */
static int
install(void)
{
	struct sigaction action = {.sa_sigaction = bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	if (installed)
		return 0;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, NULL, &before) < 0 || sigaction(SIGBUS, &action, NULL) < 0)
		return -errno;
	installed = true;
	return 0;
}

/* ranges_lock held; NULL if there is no memory for more. */
static struct range *
range_free(void)
{
	struct block *b;
	unsigned int i;

	for (b = &ranges;; b = b->next) {
		for (i = 0; i < DIM(b->range); i++)
			if (b->range[i].start == 0)
				return &b->range[i];
		if (b->next == NULL) {
			struct block *more = calloc(1, sizeof(*more));

			if (more == NULL)
				return NULL;
			__atomic_store_n(&b->next, more, __ATOMIC_RELEASE);
		}
	}
}

int
vfn_guard_add(const void *start, size_t len, bool *lost)
{
	struct range *r;
	int ret;

	pthread_mutex_lock(&ranges_lock);
	ret = install();
	r = range_free();
	if (ret == 0 && r == NULL)
		ret = -ENOMEM;
	if (ret == 0)
		range_write(r, (uintptr_t)start, len, lost);
	pthread_mutex_unlock(&ranges_lock);
	if (ret == 0)
		vfn_guard_unblock();
	return ret;
}

void
vfn_guard_remove(const void *start, const bool *lost)
{
	struct block *b;
	unsigned int i;

	pthread_mutex_lock(&ranges_lock);
	for (b = &ranges; b != NULL; b = b->next) {
		for (i = 0; i < DIM(b->range); i++) {
			struct range *r = &b->range[i];

			if (r->start != (uintptr_t)start || r->lost != lost)
				continue;
			range_write(r, 0, 0, NULL);
			goto unlock;
		}
	}
unlock:
	pthread_mutex_unlock(&ranges_lock);
}

void
vfn_guard(bool *lost)
{
	if (lost != NULL) {
		pthread_mutex_lock(&ranges_lock);
		install();
		pthread_mutex_unlock(&ranges_lock);
		vfn_guard_unblock();
	}
	on_guard = lost;
}
