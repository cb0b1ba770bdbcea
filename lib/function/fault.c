/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Guest memory whose file was cut off. The handler of SIGBUS runs on whichever thread touched
 * it, puts zeroes in its place and sets a flag; what is to be done about the function is done
 * later, in control.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <rte_alarm.h>
#include <rte_common.h>

#include "function.h"
#include "vfn_fault.h"

/* start is stored last and cleared first: while it is there, so are the others. */
struct range {
	uintptr_t start;
	size_t len;
	bool *lost;
};

/* Read by the handler without a lock, so blocks are never given back. */
struct block {
	struct range range[64];
	struct block *next;
};

static struct block ranges;
static struct sigaction before;
static bool installed;

/* The thread that is on its guard; read by the handler on that thread only. */
static pthread_t guard_thread;
static bool *guard_lost;

bool vfn_fault_untold;

/* A file on hugetlbfs can only be replaced in whole pages, of a size that nobody tells. */
static bool
replace(uintptr_t start, uintptr_t end)
{
	static const uintptr_t sizes[] = {1 << 12, 1 << 21, 1 << 30};
	unsigned int i;

	for (i = 0; i < RTE_DIM(sizes); i++) {
		uintptr_t from = RTE_ALIGN_FLOOR(start, sizes[i]);

		if (mmap((void *)from, RTE_ALIGN_CEIL(end, sizes[i]) - from, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			    0) != MAP_FAILED)
			return true;
		if (errno != EINVAL)
			break;
	}
	return false;
}

static bool
mend(uintptr_t addr)
{
	struct block *b;
	bool done = false;
	unsigned int i;

	for (b = &ranges; b != NULL; b = __atomic_load_n(&b->next, __ATOMIC_ACQUIRE)) {
		for (i = 0; i < RTE_DIM(b->range); i++) {
			struct range *r = &b->range[i];
			/* Pairs with the release in vfn_fault_watch(). */
			uintptr_t start = __atomic_load_n(&r->start, __ATOMIC_ACQUIRE);

			/* Who touches a range keeps it watched: it is not one that changes now. */
			if (start == 0 || addr - start >= r->len)
				continue;
			if (!done && !replace(start, start + r->len))
				return false;
			done = true;
			__atomic_store_n(r->lost, true, __ATOMIC_RELEASE);
			__atomic_store_n(&vfn_fault_untold, true, __ATOMIC_RELEASE);
		}
	}
	if (!done && __atomic_load_n(&guard_lost, __ATOMIC_ACQUIRE) != NULL &&
		pthread_equal(guard_thread, pthread_self()) && replace(addr, addr + 1)) {
		*guard_lost = true;
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

/* A bus error on a thread that blocks it ends the process whatever the handler. */
void
vfn_fault_unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/*
 * Once and for good: an application that takes the signal for itself later may call us from its
 * own handler.
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

int
vfn_fault_watch(const void *start, size_t len, bool *lost)
{
	struct block *b = &ranges;
	unsigned int i = 0;
	int ret = install();

	if (ret < 0)
		return ret;
	while (b->range[i].start != 0) {
		if (++i < RTE_DIM(b->range))
			continue;
		i = 0;
		if (b->next == NULL) {
			struct block *more = calloc(1, sizeof(*more));

			if (more == NULL)
				return -ENOMEM;
			__atomic_store_n(&b->next, more, __ATOMIC_RELEASE);
		}
		b = b->next;
	}
	b->range[i].len = len;
	b->range[i].lost = lost;
	/* Pairs with the acquire in mend(). */
	__atomic_store_n(&b->range[i].start, (uintptr_t)start, __ATOMIC_RELEASE);
	vfn_fault_unblock();
	return 0;
}

void
vfn_fault_unwatch(const void *start, const bool *lost)
{
	struct block *b;
	unsigned int i;

	for (b = &ranges; b != NULL; b = b->next) {
		for (i = 0; i < RTE_DIM(b->range); i++) {
			struct range *r = &b->range[i];

			if (r->start == (uintptr_t)start && r->lost == lost) {
				__atomic_store_n(&r->start, 0, __ATOMIC_RELEASE);
				return;
			}
		}
	}
}

void
vfn_fault_guard(bool *lost)
{
	if (lost != NULL) {
		install();
		vfn_fault_unblock();
		guard_thread = pthread_self();
	}
	__atomic_store_n(&guard_lost, lost, __ATOMIC_RELEASE);
}

/* Control. A function whose memory is gone asks for a reset (2.1.2); until then it rests. */
void
vfn_fault_check(struct vfn_function *fn)
{
	if (!__atomic_load_n(&fn->memory_lost, __ATOMIC_ACQUIRE) ||
		(fn->status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) !=
			VIRTIO_CONFIG_S_DRIVER_OK)
		return;
	vfn_port_stop(fn);
	fn->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	vfn_port_start(fn);
	FN_LOG(ERR, fn,
		"a file of the guest's memory was cut off while in use: every queue is "
		"stopped, the device needs a reset");
	vfn_config_changed(fn);
}

static void
check_all(void *arg)
{
	struct vfn_function *fn;

	RTE_SET_USED(arg);
	pthread_mutex_lock(&vfn_control_lock);
	TAILQ_FOREACH(fn, &vfn_functions, next)
		vfn_fault_check(fn);
	pthread_mutex_unlock(&vfn_control_lock);
}

/* Poller. */
void
vfn_fault_tell(void)
{
	if (__atomic_exchange_n(&vfn_fault_untold, false, __ATOMIC_ACQ_REL) &&
		rte_eal_alarm_set(1, check_all, NULL) != 0)
		__atomic_store_n(&vfn_fault_untold, true, __ATOMIC_RELEASE);
}
