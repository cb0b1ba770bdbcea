/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A hostile guest that keeps a transmit ring busy and makes its call eventfd full at any moment: a
 * device that looks at the eventfd first and writes then is blocked in the write, if it is lucky.
 * Three threads: one pumps the ring, one fills the eventfd, and the main one frees that one if the
 * device's own write came between.
 *
 * filler MEMFD SIZE AVAIL USED EVENTFD SECONDS, offsets of the avail and used ring in the memory.
 */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static _Atomic uint16_t *avail_idx, *used_idx;
static int event;
static atomic_bool stop, writing, full;
static atomic_ulong writes;

static void
nap(long us)
{
	struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&t, NULL);
}

static void *
pump(void *arg)
{
	(void)arg;
	while (!stop) {
		if ((uint16_t)(*avail_idx - *used_idx) < 16)
			*avail_idx += 1;
		else
			nap(1);
	}
	return NULL;
}

static void *
fill(void *arg)
{
	const uint64_t most = UINT64_MAX - 1;
	struct pollfd p = {.fd = event, .events = POLLIN};
	uint64_t value;
	uint16_t used;

	(void)arg;
	while (!stop) {
		if (poll(&p, 1, 0) == 1 && read(event, &value, sizeof(value)) < 0 && errno != EINTR)
			continue;
		writing = true;
		if (write(event, &most, sizeof(most)) < 0 && errno != EINTR)
			break;
		writing = false;
		writes++;
		/* what is read here sets the device free: not as long as it stands still */
		used = *used_idx;
		nap(100);
		full = true;
		while (!stop && used == *used_idx && used != *avail_idx)
			nap(100);
		full = false;
	}
	return NULL;
}

/* The eventfd is full, and there is work that the device does not do: is it inside the write? */
static bool
blocked(void)
{
	uint16_t used = *used_idx;

	if (!full)
		return false;
	nap(300000);
	return full && used == *used_idx && used != *avail_idx;
}

int
main(int argc, char **argv)
{
	unsigned long size, before;
	pthread_t threads[2];
	struct pollfd p;
	uint64_t value;
	time_t end;
	char *mem;

	if (argc != 7)
		return 2;
	size = strtoul(argv[2], NULL, 0);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argv[1]), 0);
	if (mem == MAP_FAILED)
		return 1;
	avail_idx = (void *)(mem + strtoul(argv[3], NULL, 0) + 2);
	used_idx = (void *)(mem + strtoul(argv[4], NULL, 0) + 2);
	event = atoi(argv[5]);
	if (pthread_create(&threads[0], NULL, pump, NULL) != 0 ||
		pthread_create(&threads[1], NULL, fill, NULL) != 0)
		return 1;
	for (end = time(NULL) + atoi(argv[6]); time(NULL) < end && !blocked();) {
		before = writes;
		nap(2000);
		p = (struct pollfd){.fd = event, .events = POLLIN};
		if (writing && before == writes && poll(&p, 1, 0) == 1 &&
			read(event, &value, sizeof(value)) < 0)
			break;
	}
	stop = true;
	printf("filled %lu times\n", writes);
	/* the eventfd stays as it is; one more that is blocked goes with the process */
	_exit(0);
}
