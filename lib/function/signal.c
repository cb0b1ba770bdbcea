/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The watchdog of vfn_signal.h. vfn_signal() runs on any thread, mostly pollers; the rest on the
 * watchdog's own, and where threads and functions come and go.
 *
 * A thread says in a slot of its own when it is inside a write, and the watchdog looks at all
 * slots from time to time. Only if it finds somebody in the same write twice it does anything.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include <rte_branch_prediction.h>

#include "function.h"
#include "vfn_signal.h"

/* After so many looks at which nobody had signalled it sleeps until somebody does. */
#define QUIET_LOOKS 200

/* Of a thread, as its slot tells. */
enum inside {
	OUT,
	IN,	/* a write */
	POKING, /* the watchdog is about to send the signal: the thread waits for that */
	POKED,	/* it was sent: the write ends, or is ended the next time */
};

struct slot {
	uint32_t inside; /* atomic */
	uint32_t writes; /* atomic: so many were begun */
	bool listed;	 /* the thread's own */
	pthread_t thread;
	uint32_t seen; /* the watchdog's: writes when it looked last */
	TAILQ_ENTRY(slot) next;
};

static __thread struct slot my_slot;

/* Held by the watchdog while it looks, so that no thread ends under it. */
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static TAILQ_HEAD(, slot) slots = TAILQ_HEAD_INITIALIZER(slots);
static pthread_key_t slot_key; /* has its destructor called when a thread ends */

/* Of the watchdog. */
static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int users;
static pthread_t watchdog;
static sem_t wake;
static bool quit;   /* atomic */
static bool asleep; /* atomic: the next one to signal wakes it */

static int wake_signal;

static void
ignore(int number)
{
	(void)number;
}

static void
take_signal(void)
{
	struct sigaction act = {.sa_handler = ignore}, old;
	int number;

	for (number = SIGRTMAX; number >= SIGRTMIN && wake_signal == 0; number--)
		if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL &&
			sigaction(number, &act, NULL) == 0)
			wake_signal = number;
}

int
vfn_signal_number(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, take_signal);
	return wake_signal;
}

/* ---- a thread that signals ---- */

/* The thread ends. */
static void
slot_end(void *slot)
{
	struct slot *s = slot;

	pthread_mutex_lock(&slots_lock);
	TAILQ_REMOVE(&slots, s, next);
	pthread_mutex_unlock(&slots_lock);
	s->listed = false;
}

/* The thread's first one. */
static __attribute__((noinline)) void
slot_begin(struct slot *s)
{
	sigset_t set;

	/* A pipe whose reader is gone is nothing to die of. */
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (wake_signal != 0) {
		sigemptyset(&set);
		sigaddset(&set, wake_signal);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	}
	s->thread = pthread_self();
	s->listed = true;
	pthread_setspecific(slot_key, s);
	pthread_mutex_lock(&slots_lock);
	TAILQ_INSERT_TAIL(&slots, s, next);
	pthread_mutex_unlock(&slots_lock);
}

static void
enter(struct slot *s)
{
	__atomic_store_n(&s->writes, s->writes + 1, __ATOMIC_RELAXED);
	/* The slot before the look whether it is seen: pairs with the fence in may_sleep(). */
	__atomic_exchange_n(&s->inside, IN, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&asleep, __ATOMIC_RELAXED)) &&
		__atomic_exchange_n(&asleep, false, __ATOMIC_ACQ_REL))
		sem_post(&wake);
}

/* A signal that is on its way has arrived on return: nothing else is interrupted. True: poked. */
static bool
leave(struct slot *s)
{
	uint32_t was = IN;

	while (!__atomic_compare_exchange_n(
		&s->inside, &was, OUT, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		if (was != POKING)
			continue;
		sched_yield();
		was = POKED;
	}
	return was == POKED;
}

bool
vfn_signal(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLOUT};
	const uint64_t one = 1;
	struct slot *s = &my_slot;
	bool done;

	/* Mostly full is full: to interrupt a write is for those who cheat. */
	if (poll(&pfd, 1, 0) != 1 || pfd.revents != POLLOUT)
		return true;
	if (unlikely(!s->listed))
		slot_begin(s);
	enter(s);
	/* Signals of others are none of our business. */
	while (!(done = write(fd, &one, sizeof(one)) == sizeof(one)) && errno == EINTR &&
		__atomic_load_n(&s->inside, __ATOMIC_RELAXED) == IN)
		;
	return !leave(s) || done;
}

/* ---- the watchdog ---- */

/* Returns how many threads have signalled since the last look, or are at it. */
static unsigned int
look(void)
{
	unsigned int n = 0;
	struct slot *s;

	pthread_mutex_lock(&slots_lock);
	TAILQ_FOREACH(s, &slots, next) {
		uint32_t writes = __atomic_load_n(&s->writes, __ATOMIC_RELAXED);
		uint32_t inside = __atomic_load_n(&s->inside, __ATOMIC_ACQUIRE);
		bool same = writes == s->seen;

		s->seen = writes;
		n += !same || inside != OUT;
		if (!same || inside == OUT)
			continue;
		/*
		 * Again and again until it is out: a signal that comes before the thread is in
		 * the system call is lost on it.
		 */
		if (__atomic_compare_exchange_n(&s->inside, &inside, POKING, false,
			    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
			pthread_kill(s->thread, wake_signal);
			__atomic_store_n(&s->inside, POKED, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&slots_lock);
	return n;
}

/* Nobody has signalled for long, and the next one to do so will wake us. */
static void
sleep_until_needed(void)
{
	__atomic_store_n(&asleep, true, __ATOMIC_RELAXED);
	/* Pairs with the exchange in enter(). */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (look() == 0 && !__atomic_load_n(&quit, __ATOMIC_ACQUIRE))
		while (sem_wait(&wake) < 0)
			;
	__atomic_store_n(&asleep, false, __ATOMIC_RELAXED);
}

static void *
look_after(void *arg)
{
	const struct timespec nap = {.tv_nsec = VFN_SIGNAL_BOUND_MS * 1000000};
	unsigned int quiet = 0;

	while (!__atomic_load_n(&quit, __ATOMIC_ACQUIRE)) {
		nanosleep(&nap, NULL);
		quiet = look() > 0 ? 0 : quiet + 1;
		if (quiet > QUIET_LOOKS)
			sleep_until_needed();
	}
	return arg;
}

static int
start(void)
{
	static bool have_key;
	sigset_t all, old;
	int ret;

	if (vfn_signal_number() == 0)
		VFN_LOG(WARNING,
			"every real-time signal is taken: a guest that makes its eventfds block "
			"can stop a poller");
	ret = have_key ? 0 : pthread_key_create(&slot_key, slot_end);
	have_key = ret == 0;
	if (ret != 0 || vfn_signal_number() == 0)
		return -ret;
	sem_init(&wake, 0, 0);
	__atomic_store_n(&quit, false, __ATOMIC_RELAXED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&watchdog, NULL, look_after, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret == 0)
		pthread_setname_np(watchdog, "vfn-watchdog");
	return -ret;
}

int
vfn_signal_init(void)
{
	int ret = 0;

	pthread_mutex_lock(&users_lock);
	if (users == 0)
		ret = start();
	if (ret == 0)
		users++;
	pthread_mutex_unlock(&users_lock);
	return ret;
}

void
vfn_signal_fini(void)
{
	pthread_mutex_lock(&users_lock);
	if (--users == 0 && wake_signal != 0) {
		__atomic_store_n(&quit, true, __ATOMIC_RELEASE);
		sem_post(&wake);
		pthread_join(watchdog, NULL);
		sem_destroy(&wake);
	}
	pthread_mutex_unlock(&users_lock);
}
